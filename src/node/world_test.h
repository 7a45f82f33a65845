// A daemon's shared memory and its tables, for the unit tests of what hands them out; and a folder
// for what is spilled.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "node/tables.h"
#include "shm/processes_test.h"

namespace mobula::node::testing {

struct World {
  explicit World(std::size_t object_capacity = 1 << 20) : session(object_capacity) {}

  std::uint32_t process() { return tables.open_process(shm::ProcessRole::Worker).value(); }

  shm::testing::Session session;
  shm::Memory& memory = session.memory();
  Tables tables{memory, 77, 2};
};

// An empty folder that goes with the test.
struct Folder {
  Folder() : path(std::filesystem::temp_directory_path() / "mobula-test-XXXXXX") {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  // This process's open file in the folder, which has no name there; -1: there is none.
  int nameless_file() const {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code ignored;
      const std::string target = std::filesystem::read_symlink(entry.path(), ignored);
      if (target.starts_with(path + "/") && target.ends_with("(deleted)"))
        return std::stoi(entry.path().filename());
    }
    return -1;
  }
  // Turns one bit of that file.
  void damage(std::uint64_t at) const {
    const int file = nameless_file();
    REQUIRE(file >= 0);
    unsigned char byte = 0;
    REQUIRE(::pread(file, &byte, 1, static_cast<off_t>(at)) == 1);
    byte ^= 1;
    REQUIRE(::pwrite(file, &byte, 1, static_cast<off_t>(at)) == 1);
  }

  std::string path;
};

}  // namespace mobula::node::testing
