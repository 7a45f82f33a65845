// How a worker takes a ready record: intent, one compare-and-swap, tail.
//
// The intent is written before the swap, so that the daemon finds what a dead worker had taken
// without a search. The state word names the claimer: an intent without it means that somebody else
// was faster.
#pragma once

#include "shm/check.h"
#include "shm/crash_point.h"
#include "shm/dependents.h"
#include "shm/futex.h"
#include "shm/ring.h"

namespace mobula::shm {

namespace claim {

// Notes an address as the innermost thing the thread executes; `forget` takes it off.
inline void intend(Participant& me, Address address) {
  const std::uint32_t depth = me.depth.load(std::memory_order_relaxed);
  if (depth < kIntentsMax) me.executing[depth].store(address.packed(), std::memory_order_relaxed);
  me.depth.store(depth + 1, std::memory_order_release);
}
inline void forget(Participant& me) {
  me.depth.store(me.depth.load(std::memory_order_relaxed) - 1, std::memory_order_release);
}

// Takes one record if it is Ready and of this generation. The intent must stand.
inline bool take(Record& record, Address address, std::uint32_t participant) {
  std::uint64_t seen = record.state.load(std::memory_order_relaxed);
  while (word::state(seen) == State::Ready && word::generation(seen) == address.generation) {
    const std::uint64_t mine =
        word::with_claimer(word::with_state(seen, State::Claimed), participant);
    // acquire: the submitter's fields are read next
    if (record.state.compare_exchange_weak(seen, mine, std::memory_order_acquire,
                                           std::memory_order_relaxed))
      return true;
  }
  return false;
}

enum class Order {
  Any,
  AsSubmitted
};  // AsSubmitted: an actor's; a waiting head holds back what is behind it

// Claims the next record of a ring, or returns no address. On success the intent stands.
inline Address next(const Memory& memory, RingHeader& ring, Participant& me,
                    std::uint32_t participant, Order order) {
  for (;;) {
    std::uint64_t t = ring.tail.load(std::memory_order_acquire);
    if (t >= ring.head.load(std::memory_order_acquire)) return {};
    const Address address =
        Address::unpack(ring::entry(memory, ring, t).load(std::memory_order_relaxed));
    Record& record = memory.record(address.slot);
    if (order == Order::AsSubmitted) {
      const std::uint64_t seen = record.state.load(std::memory_order_acquire);
      if (word::state(seen) == State::Waiting && word::generation(seen) == address.generation)
        return {};
    }
    intend(me, address);
    crash_point(CrashPoint::ClaimIntent);
    const bool taken = take(record, address, participant);
    if (taken) crash_point(CrashPoint::ClaimTaken);
    ring.tail.compare_exchange_strong(
        t, t + 1, std::memory_order_acq_rel);  // somebody else may have moved it for us
    if (taken) {
      crash_point(CrashPoint::ClaimMoved);
      return address;
    }
    forget(me);
  }
}

// Makes a claimed record final, wakes who waits and tells dependents. The result fields stand. The
// intent must stand until this returns: it is what the daemon repairs from.
inline void complete(const Memory& memory, Participant& me, Record& record, Address address,
                     State final_state, ReadySink& sink) {
  // An addition rather than a swap: it keeps the bits that others set, and needs no loop. release:
  // the result comes first
  const auto by =
      static_cast<std::uint64_t>(final_state) - static_cast<std::uint64_t>(State::Claimed);
  const std::uint32_t ledger =
      memory.segment_owner(address.slot / kRecordsPerSegment).load(std::memory_order_relaxed);
  const std::uint64_t seen = record.state.fetch_add(by, std::memory_order_acq_rel);
  crash_point(CrashPoint::CompleteDone);
  // From here on the record may be recycled, unless it has dependents to walk.
  if (seen & word::kWaiters) futex_wake_all(reinterpret_cast<const std::uint32_t*>(&record.state));
  if (seen & word::kAnyWaiter) {
    memory.header().any_bell.value.fetch_add(1, std::memory_order_seq_cst);
    futex_wake_all(futex_word(memory.header().any_bell.value));
    if (ledger != kNone) {
      Bell& bell = memory.participant(ledger).completions;
      bell.value.fetch_add(1, std::memory_order_seq_cst);
      futex_wake_all(futex_word(bell.value));
    }
  }
  crash_point(CrashPoint::CompleteWoken);
  if (seen & word::kHasDependents) dependents::walk(memory, me, record, address, sink);
}

}  // namespace claim

// The doorbell of a scheduling class: at most one worker searches by spinning; submitters wake
// nobody while it does, and it wakes the next one when it finds more work than its own. A waker
// owns the wake-up of the sleeper whose bit it cleared.
namespace doorbell {

// Wakes one sleeping worker of the class, if there is one.
inline bool wake_one(const Memory& memory, SchedulingClass& cls) {
  for (std::uint32_t w = 0; w < kSleeperWords; ++w) {
    std::uint64_t bits = cls.sleepers[w].load(std::memory_order_relaxed);
    while (bits != 0) {
      const std::uint64_t bit = bits & (~bits + 1);
      bits = cls.sleepers[w].fetch_and(~bit, std::memory_order_acq_rel);
      if (bits & bit) {
        crash_point(CrashPoint::WakeTaken);
        const auto slot = w * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bit));
        const std::uint32_t process = cls.slot_process[slot].load(std::memory_order_relaxed);
        if (process < kProcessesMax) {
          Process& sleeper = memory.process(process);
          sleeper.waker_core.store(this_core(), std::memory_order_relaxed);
          sleeper.bell.value.fetch_add(1, std::memory_order_release);
          futex_wake_all(futex_word(sleeper.bell.value));
        }
        return true;
      }
    }
  }
  return false;
}

inline std::uint32_t sleepers(const SchedulingClass& cls) {
  int n = 0;
  for (const auto& w : cls.sleepers) n += __builtin_popcountll(w.load(std::memory_order_relaxed));
  return static_cast<std::uint32_t>(n);
}

// A backlog of this depth wakes a sleeper even if tasks are quick.
inline constexpr std::uint64_t kDeepBacklog = 64;

// After a push that made the ring `depth` deep. True: the daemon wants to hear of it.
inline bool ring(const Memory& memory, SchedulingClass& cls, std::uint64_t depth) {
  // Our push before our look; a worker announces its sleep before its last look (announce_sleep).
  // One of us sees the other.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (cls.searcher.load(std::memory_order_relaxed) == 0) {
    const bool soon_taken = cls.quick.load(std::memory_order_relaxed) != 0 &&
                            depth < kDeepBacklog &&
                            sleepers(cls) < cls.attached.load(std::memory_order_relaxed);
    if (!soon_taken) wake_one(memory, cls);
  }
  return cls.attention.load(std::memory_order_relaxed) != 0;
}

inline bool become_searcher(SchedulingClass& cls, std::uint32_t process) {
  std::uint32_t nobody = 0;
  const bool mine =
      cls.searcher.load(std::memory_order_relaxed) == 0 &&
      cls.searcher.compare_exchange_strong(nobody, process + 1, std::memory_order_seq_cst);
  if (mine) crash_point(CrashPoint::SearchTaken);
  return mine;
}
inline void stop_searching(SchedulingClass& cls) {
  cls.searcher.store(0, std::memory_order_seq_cst);  // before our last look at the rings
}

inline void announce_sleep(SchedulingClass& cls, std::uint32_t class_slot) {
  cls.sleepers[class_slot / 64].fetch_or(std::uint64_t{1} << (class_slot % 64),
                                         std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
// Takes the announcement back. False: a waker has taken it, and its wake-up is on the way.
inline bool withdraw_sleep(SchedulingClass& cls, std::uint32_t class_slot) {
  const std::uint64_t bit = std::uint64_t{1} << (class_slot % 64);
  return (cls.sleepers[class_slot / 64].fetch_and(~bit, std::memory_order_acq_rel) & bit) != 0;
}

}  // namespace doorbell
}  // namespace mobula::shm
