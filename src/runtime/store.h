// Takes memory of the object store for this process: small values in blocks of extents that it
// leases, large ones in extents of their own. Lately freed extents are reused first: their pages
// are warm and writable already.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "shm/memory.h"

namespace mobula::runtime {

class Process;

class Store {
 public:
  explicit Store(Process& process) : process_(process) {}
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  struct Place {
    shm::StoredAt at;
    std::byte* data;  // writable; at least 64-aligned
  };
  // `size` bytes, not zero. Waits a grace time while the store is full. Throws
  // ObjectStoreFullError.
  Place allocate(std::uint64_t size);
  // Where a stored value can be read.
  const std::byte* read(const shm::StoredAt& at) const;

  static constexpr std::uint64_t kBlockMax = 256 << 10;

 private:
  struct Lease {
    std::uint32_t extent;
    std::uint32_t next_block = 0;  // where the search for a free one goes on
  };
  struct SizeClass {
    std::uint64_t block_size = 0;
    std::vector<Lease> leases;
    std::size_t current = 0;
  };

  bool still_ours(const shm::Extent& extent,
                  std::uint64_t block_size) const;  // block size 0: one block, the whole
  void forget_lost_leases(SizeClass& cls);
  bool take_from(SizeClass& cls, std::uint64_t size, Place& place);
  bool take_large(std::uint64_t size, Place& place);
  std::uint32_t lease(std::uint64_t size, std::uint64_t block_size);  // throws; waits while full
  Place place_of(std::uint32_t extent, std::uint32_t block, std::uint32_t generation,
                 std::uint64_t size) const;

  Process& process_;
  std::mutex mutex_;
  static constexpr int kClasses = 22;
  SizeClass classes_[kClasses];
  std::vector<std::uint32_t> large_;  // extents of one block, lately used last
};

}  // namespace mobula::runtime
