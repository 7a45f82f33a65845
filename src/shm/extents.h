// Where large values lie: extents of the object memory, each cut into equal blocks.
//
// The daemon leases an extent to one process, its lessee, which alone takes blocks in it. A block's
// word says whether it is used, and its use's generation. The owner of the record that names a
// block gives it back, from any process, by a compare-and-swap that names the generation, so that
// giving back twice (a crash between the two halves of dropping a record, repaired by the daemon)
// does nothing the second time.
//
//   free(g) --lessee--> used(g+1) --owner of the record--> free(g+1)
//
// An extent's pages may be elsewhere: on disk, or given to another extent when no block is used.
// Who takes, reads or writes a block pins its extent meanwhile (pin() below), in a count of its
// process's own, which the daemon zeroes when the process dies.
//
//   Resident <--> Leaving --> Spilled --> Restoring --> Resident
//                    '--> (freed)             '--> Lost (the file was damaged)
//
// Only the daemon moves it, and only out of Resident while nobody has a pin: it writes Leaving and
// then reads all counts; a reader raises its count and then reads the residency. Both are
// sequentially consistent, so at least one of them sees the other (Dekker), and the daemon gives
// way. So an extent that is pinned and Resident stays where it is and whose it is. A lease comes
// with one pin, so that it cannot be taken back before its first block is taken.
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
  std::atomic<std::uint32_t> residency;  // Residency; the daemon's; who waits for it sleeps on it
  std::atomic<std::uint32_t> touched;  // 1: pinned since the daemon last looked for what to spill
  std::uint32_t spillable;  // 1: of values without refs; written before the lease
};
static_assert(sizeof(Extent) == 64);

enum class Residency : std::uint32_t { Resident, Leaving, Spilled, Restoring, Lost };

// One more pin of the process that `count` belongs to; it stands whatever the answer is. True: the
// bytes are there, and stay until unpin().
inline bool pin(Extent& extent, std::atomic<std::uint32_t>& count) {
  // seq_cst: raised before the residency is read; see above
  count.fetch_add(1, std::memory_order_seq_cst);
  if (extent.residency.load(std::memory_order_seq_cst) !=
      static_cast<std::uint32_t>(Residency::Resident))
    return false;
  if (extent.touched.load(std::memory_order_relaxed) == 0)
    extent.touched.store(1, std::memory_order_relaxed);
  return true;
}
inline void unpin(std::atomic<std::uint32_t>& count) {
  count.fetch_sub(1, std::memory_order_release);  // our last reads come before the pages go
}

namespace block {
// generation << 1 | used
inline constexpr std::uint32_t kUsed = 1;
inline constexpr std::uint32_t kGenerationMask = (1u << 20) - 1;

constexpr std::uint32_t generation(std::uint32_t w) { return (w >> 1) & kGenerationMask; }
constexpr std::uint32_t used(std::uint32_t g) { return (g & kGenerationMask) << 1 | kUsed; }
constexpr std::uint32_t free(std::uint32_t g) { return (g & kGenerationMask) << 1; }
}  // namespace block

inline std::uint32_t block_index(const StoredAt& at) { return at.block_and_generation >> 20; }
inline std::uint32_t block_generation(const StoredAt& at) {
  return at.block_and_generation & block::kGenerationMask;
}

// Takes a free block of an extent that the caller leases and has pinned. Returns its generation, or
// kNone when it is used.
inline std::uint32_t take_block(std::atomic<std::uint32_t>& w) {
  std::uint32_t seen = w.load(std::memory_order_relaxed);
  if (seen & block::kUsed) return kNone;
  const std::uint32_t next = block::generation(seen) + 1;
  // acquire: the bytes were last read by whoever gave the block back. Failure: another thread of
  // the lessee was faster.
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

}  // namespace mobula::shm
