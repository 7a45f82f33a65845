// Where large values lie: extents of the object memory, each cut into equal blocks.
//
// The daemon leases an extent to one process, its lessee, which alone takes blocks in it. A block's
// word says whether it is used, and its use's generation. The owner of the record that names a
// block gives it back, from any process. Both are one compare-and-swap that names the generation,
// so that giving back twice (a crash between the two halves of dropping a record, repaired by the
// daemon) does nothing the second time.
//
//   free(g) --lessee--> used(g+1) --owner of the record--> free(g+1)
//      '--daemon: revoked (the memory goes to somebody else)
//
// Crash safety: a block that its lessee took and did not name in a record is found when the lessee
// dies, by comparing the used blocks of its extents with all records.
#pragma once

#include <atomic>
#include <cstdint>

#include "shm/record.h"

namespace mobula::shm {

inline constexpr std::uint32_t kBlocksPerExtentMax = 4096;  // 12 bits

struct alignas(kCacheLine) Extent {
  std::uint64_t offset;  // in object memory; written by the daemon before the lease
  std::uint64_t size;  // bytes
  std::uint64_t block_size;  // bytes
  std::uint64_t words;  // heap offset of the blocks' words
  std::uint32_t blocks;
  std::atomic<std::uint32_t> lessee;  // process, or kNone
  std::atomic<std::uint32_t> in_use;  // 1 while the entry stands for memory
  std::atomic<std::uint32_t> word_one;  // the only block's word, when there is one block
};
static_assert(sizeof(Extent) == 64);

namespace block {
// generation << 2 | revoked << 1 | used
inline constexpr std::uint32_t kUsed = 1;
inline constexpr std::uint32_t kRevoked = 2;
inline constexpr std::uint32_t kGenerationMask = (1u << 20) - 1;

constexpr std::uint32_t generation(std::uint32_t w) { return (w >> 2) & kGenerationMask; }
constexpr std::uint32_t used(std::uint32_t g) { return (g & kGenerationMask) << 2 | kUsed; }
constexpr std::uint32_t free(std::uint32_t g) { return (g & kGenerationMask) << 2; }
}  // namespace block

inline std::uint32_t block_index(const StoredAt& at) { return at.block_and_generation >> 20; }
inline std::uint32_t block_generation(const StoredAt& at) {
  return at.block_and_generation & block::kGenerationMask;
}

// Takes a free block of an extent that `process` believes to lease. Returns its generation, or
// kNone when it is used, revoked, or the extent's entry stands for somebody else's memory by now.
// The lessee is looked at between reading the word and swapping it: had the entry changed hands
// since, the word's generation would have, too.
inline std::uint32_t take_block(const Extent& extent, std::atomic<std::uint32_t>& w,
                                std::uint32_t process) {
  std::uint32_t seen = w.load(std::memory_order_acquire);
  if ((seen & (block::kUsed | block::kRevoked)) ||
      extent.lessee.load(std::memory_order_acquire) != process)
    return kNone;
  const std::uint32_t next = block::generation(seen) + 1;
  // acquire: the bytes were last read or written by whoever gave the block back
  return w.compare_exchange_strong(seen, block::used(next), std::memory_order_acquire)
             ? next & block::kGenerationMask
             : kNone;
}

// Gives a block back; harmless when it was given back before. True when this call did it.
inline bool give_block(std::atomic<std::uint32_t>& w, std::uint32_t generation) {
  std::uint32_t seen = block::used(generation);
  // release: our last reads of the bytes come before the lessee's next writes
  return w.compare_exchange_strong(seen, block::free(generation), std::memory_order_release);
}

// Takes a free block away from its lessee; the daemon only.
inline bool revoke_block(std::atomic<std::uint32_t>& w) {
  std::uint32_t seen = w.load(std::memory_order_relaxed);
  if (seen & block::kUsed) return false;
  if (seen & block::kRevoked) return true;
  return w.compare_exchange_strong(seen, seen | block::kRevoked, std::memory_order_acquire);
}

}  // namespace mobula::shm
