// Starts programs for a test, and finds everything they started.
//
// Each child carries a tag of its own in its environment, and what it starts inherits the tag
// however it is re-parented: /proc then tells whether anything of it is left. A test signals
// only processes that it finds by its own tag.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/scratch.h"

extern char** environ;

namespace mobula::test {

inline constexpr const char* kTagVariable = "MOBULA_TEST_TAG";

inline std::string own_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

inline std::string new_tag() {
  static std::atomic<int> number{0};
  return std::to_string(::getpid()) + "." + std::to_string(number++) + "." +
         std::to_string(std::chrono::steady_clock::now().time_since_epoch().count());
}

// Tags what this process will start from now on. Workers run main() again and keep the tag
// that they were started with.
inline std::string tag_this_family() {
  ::setenv(kTagVariable, new_tag().c_str(), 0);
  return ::getenv(kTagVariable);
}

struct SeenProcess {
  pid_t pid = 0;
  pid_t parent = 0;
  std::string program;  // file name of its executable
};

namespace detail {

// What there is of the file: a process may end while its files are read.
inline std::string read_all(const std::string& path) {
  std::string text;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char part[4096];
  for (ssize_t size; (size = ::read(fd, part, sizeof part)) > 0;) {
    text.append(part, static_cast<std::size_t>(size));
  }
  ::close(fd);
  return text;
}

// Fields of /proc/PID/stat after the name, which may contain anything.
inline char state_of(pid_t pid, pid_t* parent) {
  const std::string stat = read_all("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t after_name = stat.rfind(')');
  if (after_name == std::string::npos || after_name + 4 >= stat.size()) return 0;
  if (parent) *parent = static_cast<pid_t>(std::strtol(stat.c_str() + after_name + 4, nullptr, 10));
  return stat[after_name + 2];
}

}  // namespace detail

// It has ended; whether somebody has asked for its status does not matter.
inline bool is_gone(pid_t pid) {
  const char state = detail::state_of(pid, nullptr);
  return state == 0 || state == 'Z' || state == 'X';
}

// All processes that carry the tag and have not ended.
inline std::vector<SeenProcess> family_of(const std::string& tag) {
  const std::string wanted = std::string(kTagVariable) + "=" + tag;
  std::vector<SeenProcess> family;
  DIR* proc = ::opendir("/proc");
  if (!proc) throw std::runtime_error("cannot read /proc");
  while (const dirent* entry = ::readdir(proc)) {
    const auto pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (pid <= 0) continue;
    const std::string folder = "/proc/" + std::to_string(pid);
    const std::string variables = detail::read_all(folder + "/environ");
    bool ours = false;
    for (std::size_t at = 0; at < variables.size() && !ours;
         at += std::strlen(variables.c_str() + at) + 1) {
      ours = wanted == variables.c_str() + at;
    }
    if (!ours) continue;
    SeenProcess seen{pid, 0, {}};
    const char state = detail::state_of(pid, &seen.parent);
    if (state == 0 || state == 'Z' || state == 'X') continue;
    std::error_code gone;
    seen.program = std::filesystem::read_symlink(folder + "/exe", gone).filename().string();
    if (!gone) family.push_back(seen);
  }
  ::closedir(proc);
  return family;
}

inline std::string describe(const std::vector<SeenProcess>& family) {
  std::string text;
  for (const SeenProcess& seen : family) {
    text += seen.program + "(" + std::to_string(seen.pid) + ", parent " +
            std::to_string(seen.parent) + ") ";
  }
  return text;
}

inline std::vector<pid_t> nodes_of(const std::string& tag) {
  std::vector<pid_t> nodes;
  for (const SeenProcess& seen : family_of(tag)) {
    if (seen.program == "mobula-node") nodes.push_back(seen.pid);
  }
  return nodes;
}

// Workers and actors: a node's child that runs the user's program is a zygote, and their
// processes are children of such a one.
inline std::vector<pid_t> workers_of(const std::string& tag) {
  const std::vector<SeenProcess> family = family_of(tag);
  const auto program_of = [&](pid_t pid) -> std::string_view {
    for (const SeenProcess& seen : family) {
      if (seen.pid == pid) return seen.program;
    }
    return {};
  };
  const auto parent_of = [&](pid_t pid) {
    for (const SeenProcess& seen : family) {
      if (seen.pid == pid) return seen.parent;
    }
    return pid_t{0};
  };
  std::vector<pid_t> workers;
  for (const SeenProcess& seen : family) {
    if (seen.program == "mobula-node" || program_of(seen.parent) != seen.program) continue;
    if (program_of(parent_of(seen.parent)) == "mobula-node") workers.push_back(seen.pid);
  }
  return workers;
}

// How a process ended.
struct Ending {
  int code = 0;    // meaningful when signal is 0
  int signal = 0;
};

// A program that a test started. Its destructor ends what is left of its whole family.
class Child {
 public:
  // Runs `program` in a process group of its own, with standard output and error in a file.
  Child(const std::string& program, const std::vector<std::string>& arguments,
        const std::map<std::string, std::string>& variables = {})
      : tag_(new_tag()), output_(scratch_.file("output")) {
    std::vector<std::string> environment;
    for (char** entry = environ; *entry; ++entry) {
      const std::string_view text = *entry;
      const std::string name(text.substr(0, text.find('=')));
      if (name != kTagVariable && !variables.contains(name)) environment.emplace_back(text);
    }
    environment.push_back(std::string(kTagVariable) + "=" + tag_);
    for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);

    std::vector<std::string> words{program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_addopen(&files, 1, output_.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                       0600);
    ::posix_spawn_file_actions_adddup2(&files, 1, 2);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    const int error = ::posix_spawn(&pid_, program.c_str(), &files, &attributes,
                                    pointers(words).data(), pointers(environment).data());
    ::posix_spawn_file_actions_destroy(&files);
    ::posix_spawnattr_destroy(&attributes);
    if (error != 0) throw std::runtime_error("cannot start " + program);
  }
  ~Child() {
    if (!ending_) send(SIGKILL);
    for (int round = 0; round < 100; ++round) {
      const auto family = family_of(tag_);
      if (family.empty()) break;
      for (const SeenProcess& seen : family) ::kill(seen.pid, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    if (!ending_) ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  const std::string& tag() const { return tag_; }
  std::string output() const { return text_of(output_); }

  // To itself alone.
  void send(int signal) const {
    if (!ending_) ::kill(pid_, signal);
  }
  // To its process group, as a terminal does for Ctrl-C.
  void send_to_group(int signal) const {
    if (!ending_) ::kill(-pid_, signal);
  }

  // How it ended; nothing: it has not, within the limit.
  std::optional<Ending> wait(std::chrono::milliseconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!ending_) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) {
        ending_ =
            WIFSIGNALED(status) ? Ending{0, WTERMSIG(status)} : Ending{WEXITSTATUS(status), 0};
      } else if (std::chrono::steady_clock::now() >= end) {
        return {};
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(500));
      }
    }
    return ending_;
  }

  // It has written this text.
  bool says(std::string_view text, std::chrono::milliseconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (output().find(text) == std::string::npos) {
      if (std::chrono::steady_clock::now() >= end) return false;
      if (wait(std::chrono::milliseconds(0))) return output().find(text) != std::string::npos;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

 private:
  static std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> list;
    for (std::string& text : texts) list.push_back(text.data());
    list.push_back(nullptr);
    return list;
  }

  Scratch scratch_;
  std::string tag_;
  std::string output_;
  pid_t pid_ = -1;
  std::optional<Ending> ending_;
};

}  // namespace mobula::test
