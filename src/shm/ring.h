// Ready records on their way to workers: one ring per submitting thread and scheduling class.
//
// The thread is its only pusher; all workers of the class may claim. An entry is a hint: a record
// is claimed by compare-and-swap on its own state word (claim.h), and only then does the tail move.
// So an entry whose claimer dies before, between or after is skipped or claimed by the next one,
// and nothing is lost. What a dead pusher did not publish does not exist.
//
// A full ring grows by a stage of twice the size: entries from `start` on lie in the new storage,
// earlier ones stay where they are. The daemon allocates stages; memory of a ring is given back
// when the ring is.
#pragma once

#include "shm/crash_point.h"
#include "shm/memory.h"

namespace mobula::shm {

struct RingStage {
  std::atomic<std::uint64_t> start;  // first index that lies in this stage
  std::atomic<std::uint64_t> storage;  // heap offset of the entries
  std::atomic<std::uint64_t> mask;  // entries - 1
};

inline constexpr std::uint32_t kRingStagesMax = 24;
inline constexpr std::uint64_t kRingFirstEntries = 256;

struct RingHeader {
  alignas(kCacheLine) std::atomic<std::uint64_t> head;  // the pusher's
  alignas(kCacheLine) std::atomic<std::uint64_t> tail;  // moved by whoever claimed or skipped
  alignas(kCacheLine) std::atomic<std::uint32_t> stages;  // in use; grows, written by the pusher
  std::atomic<std::uint32_t> participant;  // its pusher; kNone: vacant. The daemon's
  std::atomic<std::uint32_t> scheduling_class;
  std::atomic<std::uint64_t> next;  // next ring of the class, heap offset; 0: none. The daemon's
  RingStage stage[kRingStagesMax];

  bool empty() const {
    return tail.load(std::memory_order_acquire) >= head.load(std::memory_order_acquire);
  }
  std::uint64_t depth() const {
    const std::uint64_t t = tail.load(std::memory_order_acquire);
    const std::uint64_t h = head.load(std::memory_order_acquire);
    return h > t ? h - t : 0;
  }
};

namespace ring {

inline std::atomic<std::uint64_t>& entry(const Memory& memory, const RingHeader& ring,
                                         std::uint64_t index) {
  std::uint32_t s = ring.stages.load(std::memory_order_acquire) - 1;
  while (s > 0 && ring.stage[s].start.load(std::memory_order_relaxed) > index) --s;
  const RingStage& stage = ring.stage[s];
  auto* entries = reinterpret_cast<std::atomic<std::uint64_t>*>(
      memory.heap(stage.storage.load(std::memory_order_relaxed)));
  return entries[index & stage.mask.load(std::memory_order_relaxed)];
}

// Room for one more entry? The pusher only. When there is none it asks the daemon for storage and
// calls grow().
inline bool has_room(const RingHeader& ring) {
  const std::uint64_t h = ring.head.load(std::memory_order_relaxed);
  const RingStage& last = ring.stage[ring.stages.load(std::memory_order_relaxed) - 1];
  const std::uint64_t start = last.start.load(std::memory_order_relaxed);
  const std::uint64_t size = last.mask.load(std::memory_order_relaxed) + 1;
  if (h - start < size) return true;
  const std::uint64_t t =
      ring.tail.load(std::memory_order_acquire);  // acquire: claimers have read what we overwrite
  return h - (t > start ? t : start) < size;
}

inline void grow(RingHeader& ring, std::uint64_t storage, std::uint64_t entries) {
  const std::uint32_t s = ring.stages.load(std::memory_order_relaxed);
  ring.stage[s].start.store(ring.head.load(std::memory_order_relaxed), std::memory_order_relaxed);
  ring.stage[s].storage.store(storage, std::memory_order_relaxed);
  ring.stage[s].mask.store(entries - 1, std::memory_order_relaxed);
  ring.stages.store(s + 1,
                    std::memory_order_release);  // a claimer that sees the stage sees its fields
  crash_point(CrashPoint::RingGrown);
}

// Publishes an address; there must be room. The caller rings the doorbell after it.
inline void push(const Memory& memory, RingHeader& ring, Address address) {
  const std::uint64_t h = ring.head.load(std::memory_order_relaxed);
  entry(memory, ring, h).store(address.packed(), std::memory_order_relaxed);
  ring.head.store(h + 1,
                  std::memory_order_release);  // the entry and the record it names come first
}

}  // namespace ring
}  // namespace mobula::shm
