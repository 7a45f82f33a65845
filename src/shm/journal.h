// The calls that an actor with Recovery::Replay has taken, in their order: so that another process
// can run them again from its last checkpoint on.
//
// The journal belongs to the actor's class, not to its process. An entry is the packed address of a
// call's record; entry number n lies in chunk n / kJournalChunkEntries of a circle of chunks, which
// the daemon leases. The record has its number, too: while that is not covered by both checkpoints,
// neither the record nor its arguments are given back. So nothing is counted, and nothing of it
// needs repair: the number that covers is one word, which only grows, and at the actor's end the
// daemon covers everything.
//
//   take:   number into the record, kJournaled (JournalNumbered); entry; taken + 1 (JournalTaken)
//   trim:   checkpoint named (CheckpointNamed); covered = what the older one covers
//
// Who writes: the actor's one executing thread; `covered` is read by whoever recycles records. The
// claim was by this thread, so that the record's fields are its own until the call is final.
#pragma once

#include "shm/crash_point.h"
#include "shm/memory.h"
#include "shm/record.h"

namespace mobula::shm::journal {

inline bool has_room(const LastingState& state) {
  return state.taken.load(std::memory_order_relaxed) -
             state.covered.load(std::memory_order_relaxed) <
         kJournalCalls;
}

inline std::atomic<std::uint64_t>& chunk_of(LastingState& state, std::uint64_t number) {
  return state.chunk[number / kJournalChunkEntries % kJournalChunks];
}

// Its chunk must be there.
inline std::atomic<std::uint64_t>& entry(const Memory& memory, LastingState& state,
                                         std::uint64_t number) {
  auto* entries = reinterpret_cast<std::atomic<std::uint64_t>*>(
      memory.heap(chunk_of(state, number).load(std::memory_order_acquire)));
  return entries[number % kJournalChunkEntries];
}

// There must be room. Returns the call's number.
inline std::uint64_t take(const Memory& memory, LastingState& state, Record& call,
                          Address address) {
  const std::uint64_t number = state.taken.load(std::memory_order_relaxed);
  call.journal_number() = number;
  call.flags |= flag::kJournaled;
  crash_point(CrashPoint::JournalNumbered);
  entry(memory, state, number).store(address.packed(), std::memory_order_relaxed);
  state.taken.store(number + 1, std::memory_order_release);
  crash_point(CrashPoint::JournalTaken);
  return number;
}

// May this final call be run again? Then its record stays as it is.
inline bool needs(const Memory& memory, const Record& call) {
  if (!(call.flags & flag::kJournaled)) return false;
  const LastingState& state = memory.scheduling_class(call.scheduling_class).lasting;
  return call.journal_number() >= state.covered.load(std::memory_order_acquire);
}

}  // namespace mobula::shm::journal
