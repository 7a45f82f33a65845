#include "node/log_relay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>

namespace mobula::node {
namespace {

constexpr std::size_t kLineMax = 64 << 10;   // longer lines are shown in pieces
constexpr std::size_t kFileMax = 64 << 20;   // of a log file; it begins anew when it is full

void write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // the driver's terminal or pipe is gone: output is lost, work is not
    data += n;
    size -= static_cast<std::size_t>(n);
  }
}

}  // namespace

LogRelay::LogRelay(std::string folder, bool to_driver)
    : folder_(std::move(folder)), to_driver_(to_driver), epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC)) {
  epoll_event event{EPOLLIN, {.fd = wake_}};
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  thread_ = std::thread([this] { run(); });
}

LogRelay::~LogRelay() {
  finish(0);
  ::close(epoll_);
  ::close(wake_);
}

void LogRelay::add(int out, int err, const std::string& name, const std::string& prefix) {
  const std::lock_guard lock(mutex_);
  for (const auto& [fd, suffix, to] : {std::tuple{out, ".out", STDOUT_FILENO}, std::tuple{err, ".err", STDERR_FILENO}}) {
    const int file = ::open((folder_ + "/" + name + suffix).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    streams_[fd] = Stream{name, prefix, {}, file, to};
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

void LogRelay::finish(int milliseconds) {
  if (!thread_.joinable()) return;
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (streams_.empty() || std::chrono::steady_clock::now() >= give_up) {
        finishing_ = true;
        break;
      }
    }
    ::usleep(500);
  }
  const std::uint64_t one = 1;
  if (::write(wake_, &one, sizeof one) < 0) return;
  thread_.join();
}

void LogRelay::run() {
  char buffer[64 << 10];
  for (;;) {
    epoll_event events[32];
    const int n = ::epoll_wait(epoll_, events, 32, -1);
    for (int i = 0; i < n; ++i) {
      const int fd = events[i].data.fd;
      const std::lock_guard lock(mutex_);
      if (fd == wake_) {
        if (!finishing_) continue;
        while (!streams_.empty()) end(streams_.begin()->first);
        return;
      }
      const auto it = streams_.find(fd);
      if (it == streams_.end()) continue;
      const ssize_t size = ::read(fd, buffer, sizeof buffer);
      if (size > 0) {
        take(fd, it->second, buffer, static_cast<std::size_t>(size));
      } else if (size == 0 || errno != EINTR) {
        end(fd);
      }
    }
  }
}

void LogRelay::take(int, Stream& stream, const char* data, std::size_t size) {
  if (stream.file >= 0) {
    if (stream.written + size > kFileMax) {
      stream.written = 0;
      if (::ftruncate(stream.file, 0) != 0) stream.written = kFileMax;
    }
    write_all(stream.file, data, size);
    stream.written += size;
  }
  if (!to_driver_) return;
  while (size > 0) {
    const auto* newline = static_cast<const char*>(::memchr(data, '\n', size));
    const std::size_t piece = newline ? static_cast<std::size_t>(newline - data) : size;
    stream.partial.append(data, piece);
    if (newline || stream.partial.size() > kLineMax) {
      print(stream, stream.partial.data(), stream.partial.size());
      stream.partial.clear();
    }
    const std::size_t used = piece + (newline ? 1 : 0);
    data += used;
    size -= used;
  }
}

void LogRelay::print(Stream& stream, const char* line, std::size_t size) {
  // One write per line, so that lines of different processes do not mix.
  std::string whole;
  whole.reserve(stream.prefix.size() + size + 1);
  whole.append(stream.prefix).append(line, size).push_back('\n');
  write_all(stream.to, whole.data(), whole.size());
}

void LogRelay::end(int fd) {
  Stream& stream = streams_.at(fd);
  if (to_driver_ && !stream.partial.empty()) print(stream, stream.partial.data(), stream.partial.size());
  if (stream.file >= 0) ::close(stream.file);
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  ::close(fd);
  streams_.erase(fd);
}

}  // namespace mobula::node
