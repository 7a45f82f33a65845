// Takes memory of the object store for this process: small values in blocks of extents that it
// leases, large ones in extents of their own. Lately freed extents are reused first: their pages
// are warm and writable already.
//
// Values that contain refs lie in extents of their own: those stay in memory, for the daemon reads
// them when their owner dies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "mobula/detail/runtime.h"
#include "shm/memory.h"
#include "wire/local_protocol.h"

namespace mobula::runtime {

class Process;

class Store {
 public:
  explicit Store(Process& process) : process_(process) {}
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  struct Place {
    shm::StoredAt at{};
    std::byte* data = nullptr;  // writable while it is pinned; at least 64-aligned
    detail::Pin pin = {};
  };
  // `size` bytes, not zero. Waits while memory is being made free, and a grace time while none can
  // be. Throws ObjectStoreFullError, OutOfDiskError, OutOfMemoryError.
  Place allocate(std::uint64_t size, bool holds_refs);

  // Where a stored value can be read while `pin` lives. Waits while it is brought back from disk.
  // Throws ObjectLostError, and what allocate() throws.
  const std::byte* read(const shm::StoredAt& at, detail::Pin& pin);

  // Keeps a stored value in memory while `pin` lives, or asks for it to be brought back from disk,
  // and does not wait for that. False, without a pin: there is no memory for it now.
  bool read_ahead(const shm::StoredAt& at, detail::Pin& pin);

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
  static constexpr int kClasses = 22;
  struct Shelf {  // leases for one kind of value
    bool holds_refs;
    SizeClass classes[kClasses];
    std::vector<std::uint32_t> large;  // extents of one block, lately used last
    std::size_t next_large = 0;  // of the others, where the search for a free one goes on
  };

  Place allocate_small(Shelf& shelf, std::uint64_t size, std::unique_lock<std::mutex>& lock);
  Place allocate_large(Shelf& shelf, std::uint64_t size, std::unique_lock<std::mutex>& lock);
  bool take_from(const Shelf& shelf, SizeClass& cls, std::uint64_t size, Place& place);
  bool take_large(Shelf& shelf, std::uint64_t size, Place& place);
  bool take_large_at(Shelf& shelf, std::size_t i, std::uint64_t size, Place& place);
  // Takes a block if the extent is ours, in memory, and as we believe (block_size 0: one block).
  bool take(const Shelf& shelf, std::uint32_t extent, std::uint32_t block, std::uint64_t block_size,
            std::uint64_t size, Place& place);
  bool still_ours(const Shelf& shelf, const shm::Extent& extent, std::uint64_t block_size) const;
  // The extent stays ours while `pin` lives.
  std::uint32_t lease(const Shelf& shelf, std::uint64_t size, std::uint64_t block_size,
                      std::unique_lock<std::mutex>& lock, detail::Pin& pin);
  // `give_up`: 0, or when it will throw if there is still no hope.
  void ask_until_granted(wire::Message& message, std::uint64_t& give_up);
  void wait_until_resident(std::uint32_t extent);

  Process& process_;
  std::mutex mutex_;
  Shelf plain_{false, {}, {}};
  Shelf with_refs_{true, {}, {}};
};

}  // namespace mobula::runtime
