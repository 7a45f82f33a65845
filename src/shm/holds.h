// Who keeps a record alive: an exact count that survives the death of any process at any
// instruction.
//
// A record counts the holds from outside of its owner's process: one for each process that has refs
// to it (listed in that process's hold table), one for each result that contains a ref to it. The
// owner counts its own refs privately and recycles the record when both are nought.
//
// Adding to a shared counter cannot be repeated safely, so a thread that dies beside the addition
// leaves a question: did it happen? Each change therefore leaves its author's name in the word
// (participant and sequence number), and whoever overwrites another's name first notes in that
// author's entry that the change was seen. The change happened exactly if the name is still there
// or was noted. (Recoverable compare-and-swap, after Attiya, Ben-Baruch and Hendler, PODC 2018.)
//
// Who has no hold yet may be given one by the daemon alone, which finds actors by their names
// (try_hold). So that this and the recycling of an actor's creation exclude each other, its owner
// closes the count before it recycles it, by one swap, and leaves a word that was never there
// before.
//
//   refs word: count (24 bits; all of them: closed) | participant (12) | sequence (28)
#pragma once

#include "shm/check.h"
#include "shm/crash_point.h"
#include "shm/memory.h"

namespace mobula::shm {

namespace holds {

inline constexpr std::uint64_t kSequenceMask = (1u << 28) - 1;

inline constexpr std::uint32_t kClosed = (1u << 24) - 1;

constexpr bool is_closed(std::uint64_t refs) { return refs >> 40 == kClosed; }
constexpr std::uint32_t count(std::uint64_t refs) {
  return is_closed(refs) ? 0 : static_cast<std::uint32_t>(refs >> 40);
}
constexpr std::uint32_t author(std::uint64_t refs) {
  return static_cast<std::uint32_t>(refs >> 28) & 0xfffu;
}
constexpr std::uint32_t sequence(std::uint64_t refs) {
  return static_cast<std::uint32_t>(refs & kSequenceMask);
}
constexpr std::uint64_t make(std::uint32_t n, std::uint32_t participant, std::uint32_t seq) {
  return std::uint64_t{n} << 40 | std::uint64_t{participant} << 28 | seq;
}

// Notes for the author of `refs` that its change was seen. Only its current operation matters: it
// has closed earlier ones.
inline void acknowledge(const Memory& memory, std::uint64_t refs, std::uint32_t me) {
  const std::uint32_t who = author(refs);
  if (who == 0 || who == me) return;
  HoldIntent& intent = memory.participant(who).hold;
  const std::uint32_t seq = sequence(refs);
  // The note is read before the sequence and swapped after it: should the author go on meanwhile
  // and be noted for its next change by another thread, our late swap fails instead of undoing
  // that.
  std::uint32_t seen = intent.acknowledged.load(std::memory_order_acquire);
  while (seen != seq && intent.sequence.load(std::memory_order_acquire) == seq) {
    if (intent.acknowledged.compare_exchange_weak(seen, seq, std::memory_order_acq_rel,
                                                  std::memory_order_acquire))
      return;
  }
}

// Opens an intent: what this thread will do next to the count of `record`.
inline void open(Participant& me, HoldOp op, Address record, std::uint32_t entry,
                 Address container = {}) {
  HoldIntent& intent = me.hold;
  const std::uint32_t seq = (intent.sequence.load(std::memory_order_relaxed) + 1) & kSequenceMask;
  intent.record.store(record.packed(), std::memory_order_relaxed);
  intent.entry.store(entry, std::memory_order_relaxed);
  intent.container.store(container.packed(), std::memory_order_relaxed);
  intent.sequence.store(seq, std::memory_order_relaxed);
  intent.op.store(static_cast<std::uint32_t>(op),
                  std::memory_order_release);  // the fields stand before the intent does
}

inline void close(Participant& me) {
  me.hold.op.store(static_cast<std::uint32_t>(HoldOp::None),
                   std::memory_order_release);  // after all it stood for
}

// Changes the count of the opened intent's record by +1 or -1. Returns the new count.
inline std::uint32_t change(const Memory& memory, std::uint32_t participant, Record& record,
                            int by) {
  const std::uint32_t seq =
      memory.participant(participant).hold.sequence.load(std::memory_order_relaxed);
  std::uint64_t seen = record.refs.load(std::memory_order_acquire);
  for (;;) {
    acknowledge(memory, seen, participant);
    const std::uint32_t n = count(seen) + static_cast<std::uint32_t>(by);
    // acq_rel: what we did with the record before releasing it happens before its recycling
    if (record.refs.compare_exchange_weak(seen, make(n, participant, seq),
                                          std::memory_order_acq_rel))
      return n;
  }
}

// For the daemon, with an intent opened: one hold more, unless the word has changed since `seen`
// was read; then `seen` is what it is now.
inline bool try_hold(const Memory& memory, std::uint32_t participant, Record& record,
                     std::uint64_t& seen) {
  const std::uint32_t seq =
      memory.participant(participant).hold.sequence.load(std::memory_order_relaxed);
  acknowledge(memory, seen, participant);
  return record.refs.compare_exchange_strong(seen, make(count(seen) + 1, participant, seq),
                                             std::memory_order_acq_rel);
}

// For the owner of the record, who has seen that nobody holds it: nobody will. False: somebody
// does, or has, since `seen` was read.
inline bool close_count(const Memory& memory, std::uint32_t participant, Record& record,
                        std::uint64_t seen) {
  HoldIntent& intent = memory.participant(participant).hold;
  const std::uint32_t seq = (intent.sequence.load(std::memory_order_relaxed) + 1) & kSequenceMask;
  intent.sequence.store(seq, std::memory_order_relaxed);
  acknowledge(memory, seen, participant);
  return record.refs.compare_exchange_strong(seen, make(kClosed, participant, seq),
                                             std::memory_order_acq_rel);
}
// What a closed word becomes when its record is free: none that was there before.
constexpr std::uint64_t reopened(std::uint64_t refs) {
  return is_closed(refs) ? make(0, author(refs), sequence(refs)) : 0;
}

// For the daemon, when the thread is dead: did its opened change happen?
inline bool applied(const Memory& memory, std::uint32_t participant) {
  const HoldIntent& intent = memory.participant(participant).hold;
  const std::uint32_t seq = intent.sequence.load(std::memory_order_acquire);
  const Address address = Address::unpack(intent.record.load(std::memory_order_relaxed));
  const std::uint64_t refs = memory.record(address.slot).refs.load(std::memory_order_acquire);
  if (author(refs) == participant && sequence(refs) == seq) return true;
  return intent.acknowledged.load(std::memory_order_acquire) == seq;
}

}  // namespace holds
}  // namespace mobula::shm
