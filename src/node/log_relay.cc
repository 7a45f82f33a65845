#include "node/log_relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <tuple>

namespace mobula::node {
namespace {

constexpr std::size_t kLineMax = 64 << 10;  // longer lines are shown in pieces
constexpr std::size_t kFileMax = 64 << 20;  // of a log file; it begins anew when it is full
constexpr int kNotOpened = -2;

void append_to_file(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // a full disk costs log lines, not work
    data.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace

LogRelay::LogRelay(std::string folder, bool to_driver)
    : folder_(std::move(folder)),
      to_driver_(to_driver),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      stop_(::eventfd(0, EFD_CLOEXEC)),
      shown_(::eventfd(0, EFD_CLOEXEC)) {
  for (const int fd : {stop_, shown_}) {
    epoll_event event{EPOLLIN, {.fd = fd}};
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
  thread_ = std::thread([this] { run(); });
}

LogRelay::~LogRelay() {
  finish(0);
  ::close(epoll_);
  ::close(stop_);
  ::close(shown_);
}

void LogRelay::add(int out, int err, const std::string& name, const std::string& prefix) {
  const std::lock_guard lock(mutex_);
  for (const auto& [fd, suffix, to] :
       {std::tuple{out, ".out", STDOUT_FILENO}, std::tuple{err, ".err", STDERR_FILENO}}) {
    streams_[fd] = Stream{name, suffix, prefix, {}, kNotOpened, to};
    epoll_event event{EPOLLIN, {.fd = fd}};
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
}

void LogRelay::rename(const std::string& name, const std::string& prefix) {
  const std::lock_guard lock(mutex_);
  for (auto& [fd, stream] : streams_) {
    if (stream.name == name) stream.prefix = prefix;
  }
}

bool LogRelay::is_terminal(int fd) {
  const char* kind = ::getenv("TERM");
  return ::isatty(fd) && kind && std::string_view(kind) != "dumb";
}

int LogRelay::columns(int fd) {
  winsize size{};
  return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void LogRelay::show(std::vector<std::string> bars, std::vector<std::string> lines) {
  const std::lock_guard lock(mutex_);
  if (bars.empty() && bars_.empty() && lines.empty()) return;
  bars_ = std::move(bars);
  for (const std::string& line : lines) lines_ += line + '\n';
  const std::uint64_t one = 1;
  if (::write(shown_, &one, sizeof one) < 0) return;
}

void LogRelay::finish(int milliseconds) {
  if (!thread_.joinable()) return;
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  for (bool over = false; !over && std::chrono::steady_clock::now() < give_up;) {
    ::usleep(500);
    const std::lock_guard lock(mutex_);
    over = streams_.empty();
  }
  stopping_.store(true);
  const std::uint64_t one = 1;
  if (::write(stop_, &one, sizeof one) < 0) return;
  thread_.join();
}

void LogRelay::run() {
  std::string buffer(64 << 10, '\0');
  while (!stopping_.load()) {
    epoll_event events[32];
    const int n = ::epoll_wait(epoll_, events, 32, -1);
    for (int i = 0; i < n && !stopping_.load(); ++i) {
      const int fd = events[i].data.fd;
      if (fd == stop_) continue;
      if (fd == shown_) {
        std::uint64_t times = 0;
        if (::read(shown_, &times, sizeof times) > 0) show_now();
        continue;
      }
      std::string text;
      int to = STDOUT_FILENO;
      const ssize_t size = ::read(fd, buffer.data(), buffer.size());
      {
        const std::lock_guard lock(mutex_);
        const auto it = streams_.find(fd);
        if (it == streams_.end()) continue;
        to = it->second.to;
        if (size > 0) {
          text = take(it->second, {buffer.data(), static_cast<std::size_t>(size)});
        } else if (size == 0 || errno != EINTR) {
          text = end(fd);
        }
      }
      print(to, text);
    }
  }
  show_now();
  const std::lock_guard lock(mutex_);
  while (!streams_.empty()) end(streams_.begin()->first);
}

void LogRelay::show_now() {
  std::string text;
  {
    const std::lock_guard lock(mutex_);
    text.swap(lines_);
  }
  erase_bars();
  write_out(STDERR_FILENO, text);
  draw_bars();
}

void LogRelay::print(int to, std::string_view text) {
  if (text.empty()) return;
  erase_bars();
  write_out(to, text);
  draw_bars();
}

void LogRelay::erase_bars() {
  if (drawn_.empty()) return;
  std::string text = "\r\033[K";
  for (std::size_t i = 1; i < drawn_.size(); ++i) text += "\033[A\033[K";
  drawn_.clear();
  write_out(STDERR_FILENO, text);
}

void LogRelay::draw_bars() {
  {
    const std::lock_guard lock(mutex_);
    drawn_ = bars_;
  }
  std::string text;
  for (const std::string& bar : drawn_) text += (text.empty() ? "" : "\n") + bar;
  write_out(STDERR_FILENO, text);
}

std::string LogRelay::take(Stream& stream, std::string_view data) {
  // With the first output: most of a thousand actors print nothing, and making files takes longer
  // than starting processes.
  if (stream.file == kNotOpened) {
    stream.file = ::open((folder_ + "/" + stream.name + stream.suffix).c_str(),
                         O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  }
  if (stream.file >= 0) {
    if (stream.written + data.size() > kFileMax) {
      stream.written = 0;
      if (::ftruncate(stream.file, 0) != 0) stream.written = kFileMax;
    }
    append_to_file(stream.file, data);
    stream.written += data.size();
  }
  std::string text;
  while (to_driver_ && !data.empty()) {
    const std::size_t newline = data.find('\n');
    const std::size_t piece = std::min(newline, data.size());
    stream.partial.append(data.substr(0, piece));
    if (newline != std::string_view::npos || stream.partial.size() > kLineMax) {
      text.append(stream.prefix).append(stream.partial).push_back('\n');
      stream.partial.clear();
    }
    data.remove_prefix(newline == std::string_view::npos ? piece : piece + 1);
  }
  return text;
}

std::string LogRelay::end(int fd) {
  Stream& stream = streams_.at(fd);
  std::string text;
  if (to_driver_ && !stream.partial.empty()) text = stream.prefix + stream.partial + '\n';
  if (stream.file >= 0) ::close(stream.file);
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  ::close(fd);
  streams_.erase(fd);
  return text;
}

void LogRelay::write_out(int to, std::string_view text) {
  while (!text.empty()) {
    // A pipe that is writable takes PIPE_BUF bytes without blocking.
    pollfd polls[2] = {{to, POLLOUT, 0}, {stop_, POLLIN, 0}};
    if (::poll(polls, 2, -1) < 0 && errno != EINTR) return;
    if (polls[1].revents && !(polls[0].revents & POLLOUT))
      return;  // the session ends and nobody reads
    if (!(polls[0].revents & POLLOUT)) {
      if (polls[0].revents) return;  // the driver's output is closed: lines are lost, work is not
      continue;
    }
    const ssize_t n = ::write(to, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
    if (n < 0 && errno != EINTR && errno != EAGAIN) return;
    if (n > 0) text.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace mobula::node
