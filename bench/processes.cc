#include "processes.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

extern char** environ;

namespace mobula::bench {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

// The number behind `key` in a file of lines like "MemAvailable:  123 kB", in bytes.
std::uint64_t kilobytes_in(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  throw std::runtime_error(std::string(file) + " does not tell " + key);
}

}  // namespace

std::string tag_of_this_process() {
  const char* tag = std::getenv(kTagVariable);
  return tag ? tag : "";
}

ChildProgram::ChildProgram(std::vector<std::string> arguments, const std::string& tag) {
  arguments.insert(arguments.begin(), fs::read_symlink("/proc/self/exe").string());
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  std::string tagged = std::string(kTagVariable) + "=" + tag;
  std::vector<char*> environment{tagged.data()};
  for (char** variable = environ; *variable; ++variable) {
    if (!std::string_view(*variable).starts_with(std::string(kTagVariable) + "="))
      environment.push_back(*variable);
  }
  environment.push_back(nullptr);

  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) fail("pipe");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  const int problem =
      ::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  output_ = pipe[0];
  if (problem != 0) {
    ::close(output_);
    errno = problem;
    fail("posix_spawn");
  }
  pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
}

ChildProgram::~ChildProgram() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (pidfd_ >= 0) ::close(pidfd_);
  ::close(output_);
}

std::optional<std::string> ChildProgram::read_line(std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    const auto left = deadline - std::chrono::steady_clock::now();
    const auto left_ms = std::chrono::duration_cast<std::chrono::milliseconds>(left).count();
    if (left_ms <= 0) throw std::runtime_error("no answer in time");
    // The pipe alone would not do: what the child started may hold it open for a moment longer.
    pollfd events[2] = {{output_, POLLIN, 0}, {pidfd_, POLLIN, 0}};
    if (::poll(events, 2, static_cast<int>(left_ms)) < 0 && errno != EINTR) fail("poll");
    if (events[0].revents != 0) {
      char bytes[4096];
      const ssize_t n = ::read(output_, bytes, sizeof bytes);
      if (n > 0) {
        buffer_.append(bytes, static_cast<std::size_t>(n));
        continue;
      }
      return std::nullopt;
    }
    if (events[1].revents != 0) return std::nullopt;
  }
}

std::string ChildProgram::wait(std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          deadline - std::chrono::steady_clock::now())
                          .count();
    pollfd end{pidfd_, POLLIN, 0};
    const int ready = ::poll(&end, 1, left > 0 ? static_cast<int>(left) : 0);
    if (ready > 0) break;
    if (ready < 0 && errno == EINTR) continue;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
    return "did not end in time";
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (WIFSIGNALED(status)) return std::string("ended by signal ") + ::strsignal(WTERMSIG(status));
  if (WEXITSTATUS(status) != 0) return "exit code " + std::to_string(WEXITSTATUS(status));
  return {};
}

double run_probe(const std::vector<std::string>& arguments) {
  std::vector<std::string> all{"--probe"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  ChildProgram probe(all, tag_of_this_process());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::optional<double> figure;
  while (const auto line = probe.read_line(deadline)) {
    if (line->starts_with("figure ")) figure = std::strtod(line->c_str() + 7, nullptr);
  }
  const std::string end = probe.wait(deadline);
  if (!end.empty()) throw std::runtime_error("probe " + arguments.front() + ": " + end);
  if (!figure) throw std::runtime_error("probe " + arguments.front() + " gave no figure");
  return *figure;
}

std::vector<pid_t> tagged_processes(const std::string& tag) {
  const std::string wanted = std::string(kTagVariable) + "=" + tag;
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t process = static_cast<pid_t>(std::stol(name));
    if (process == ::getpid()) continue;
    std::ifstream in(entry.path() / "environ", std::ios::binary);
    for (std::string variable; std::getline(in, variable, '\0');) {
      if (variable == wanted) {
        found.push_back(process);
        break;
      }
    }
  }
  return found;
}

std::uint64_t cpu_time_ns(pid_t process) {
  std::uint64_t sum = 0;
  std::error_code gone;
  for (const auto& thread :
       fs::directory_iterator("/proc/" + std::to_string(process) + "/task", gone)) {
    std::ifstream in(thread.path() / "schedstat");
    std::uint64_t ns = 0;
    if (in >> ns) sum += ns;
  }
  return sum;
}

std::uint64_t resident_bytes() {
  return kilobytes_in("/proc/self/status", "RssAnon:") +
         kilobytes_in("/proc/self/status", "RssShmem:");
}

std::uint64_t available_bytes() { return kilobytes_in("/proc/meminfo", "MemAvailable:"); }

}  // namespace mobula::bench
