// How much memory a process uses of its own, how much the machine has, and whether the kernel has
// killed somebody for want of it: as /proc and the control group say.
//
// The control group is the one of the calling process, or one around it, that leaves the least: in
// a container that is the real limit, whatever the machine has.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mobula::shm {

struct MemoryUse {
  std::uint64_t used = 0;   // bytes; without what the kernel would give up
  std::uint64_t limit = 0;  // bytes
};

// Bytes of the process's heap, stacks and written data; the memory of a session is not among them.
// 0: there is no such process. What a fork still shares with its parent counts for both.
std::uint64_t private_memory(std::uint32_t pid);

class MemoryGauge {
 public:
  // `root`: where the kernel's files are found; a test has its own.
  explicit MemoryGauge(std::string root = {});

  MemoryUse machine() const;
  // Nothing: no group limits the memory.
  std::optional<MemoryUse> control_group() const;
  // The smaller limit of the two.
  std::uint64_t limit() const;
  // How many processes the kernel has killed so far for want of memory, here or in the group.
  std::uint64_t kernel_kills() const;

 private:
  struct Group {
    std::string folder;
    bool unified = false;  // version 2
    std::uint64_t limit = 0;
  };
  std::uint64_t used(const Group& group) const;
  void consider(std::string folder, std::string path, bool unified);

  std::string root_;
  std::optional<Group> group_;
};

}  // namespace mobula::shm
