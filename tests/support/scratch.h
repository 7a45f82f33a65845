// A folder of a test's own, and two things that processes do through it without a runtime in
// between: wait until the test lets them go on, and count what they did.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>

namespace mobula::test {

class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "mobula-test-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("cannot make a folder in /tmp");
    path_ = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// While it lives, this process and those that it starts meet in a folder of the test's own.
class ScratchTmpdir {
 public:
  ScratchTmpdir() {
    if (const char* before = ::getenv("MOBULA_TMPDIR")) before_ = before;
    ::setenv("MOBULA_TMPDIR", scratch_.path().c_str(), 1);
  }
  ~ScratchTmpdir() {
    before_.empty() ? ::unsetenv("MOBULA_TMPDIR") : ::setenv("MOBULA_TMPDIR", before_.c_str(), 1);
  }
  ScratchTmpdir(const ScratchTmpdir&) = delete;
  ScratchTmpdir& operator=(const ScratchTmpdir&) = delete;

 private:
  Scratch scratch_;
  std::string before_;
};

// Tasks wait at a gate until the test opens it, so that "while it runs" is a fact, not a guess.
inline void open_gate(const std::string& gate) { std::ofstream(gate).flush(); }
inline bool gate_is_open(const std::string& gate) { return std::filesystem::exists(gate); }

// Bounded: a task that nobody lets go fails, and its test with it.
inline void wait_at_gate(const std::string& gate,
                         std::chrono::milliseconds limit = std::chrono::seconds(25)) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!gate_is_open(gate)) {
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error("the gate stayed shut");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// One byte a time, appended by the kernel: survives the death of whoever counts.
inline void count_in(const std::string& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0 || ::write(fd, "x", 1) != 1) throw std::runtime_error("cannot count in " + file);
  ::close(fd);
}
inline std::uintmax_t count_of(const std::string& file) {
  std::error_code missing;
  const std::uintmax_t size = std::filesystem::file_size(file, missing);
  return missing ? 0 : size;
}

inline std::string text_of(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace mobula::test
