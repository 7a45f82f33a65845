// This program started again as a child, with its standard output as lines; and what /proc says of
// processes.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mobula::bench {

// The environment variable that a child and everything it starts carries, and its value in this
// process, if any.
inline constexpr const char* kTagVariable = "MOBULA_BENCH_TAG";
std::string tag_of_this_process();

class ChildProgram {
 public:
  ChildProgram(std::vector<std::string> arguments, const std::string& tag);
  ~ChildProgram();  // kills it if it still runs, and reaps it
  ChildProgram(const ChildProgram&) = delete;
  ChildProgram& operator=(const ChildProgram&) = delete;

  // The next line of its output; nothing when it has ended. Throws std::runtime_error when
  // `deadline` passes first.
  std::optional<std::string> read_line(std::chrono::steady_clock::time_point deadline);

  // Waits for its end, and kills it when that has not come by the deadline. Returns an empty string
  // when it exited with 0, else how it ended.
  std::string wait(std::chrono::steady_clock::time_point deadline);

 private:
  pid_t pid_ = -1;
  int pidfd_ = -1;
  int output_ = -1;
  std::string buffer_;
};

// Starts this program with `--probe` and these arguments, and returns the figure that it prints.
double run_probe(const std::vector<std::string>& arguments);

// Processes that carry a tag, other than this one.
std::vector<pid_t> tagged_processes(const std::string& tag);

// CPU time of all threads of a process so far, in ns; 0 when it is gone.
std::uint64_t cpu_time_ns(pid_t process);

// Memory in use by this process, shared pages included, in bytes.
std::uint64_t resident_bytes();
// Memory that the machine could still give, in bytes.
std::uint64_t available_bytes();

}  // namespace mobula::bench
