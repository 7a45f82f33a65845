// How items travel from a running producer to whoever reads its stream: a ring of 1024 slots in
// control memory, leased to the process that submitted the producer, and its record's until that is
// recycled.
//
//   slot of item n: Free(n) --producer--> Full(n) --a reader--> Taken(n) --it--> Free(n + 1024)
//
// One slot word decides each step, so that any number of readers share a stream and no item is read
// twice. The bytes of an item lie in its slot, or in a block of the store that the slot names; the
// holds of refs among them are the slot's from Full on. A slot that is Taken is its own intent: it
// names the reader, from whose death the daemon gives up what the slot holds (an item that was
// taken is not given to a second reader). `tail` and `head` are hints that the next one to come by
// puts right.
//
// A producer that is run again begins at the record's first item, and its sink drops what `head`
// says was pushed before. Numbers go on from one record to the next, so that a slot left Free is
// right for the next producer.
//
// Who writes what: `record`, `first`, `max_unread` and `stopped` = 0 the owner of the record,
// before that is published, and when it recycles it. Slots the producer while they are Free, `head`
// the producer. `stopped` = 1 anybody. Sleepers announce themselves by a word, which the one who
// wakes them swaps for 0; each looks once more after the announcement, and wakers look for it after
// what they did, both seq_cst.
#pragma once

#include <optional>

#include "shm/crash_point.h"
#include "shm/futex.h"
#include "shm/memory.h"

namespace mobula::shm {

namespace slot {
enum class State : std::uint64_t { Free, Full, Taken };

// number << 14 | reader << 2 | state
constexpr std::uint64_t make(std::uint64_t n, State state, std::uint32_t reader = 0) {
  return n << 14 | std::uint64_t{reader} << 2 | static_cast<std::uint64_t>(state);
}
constexpr State state(std::uint64_t w) { return static_cast<State>(w & 3); }
constexpr std::uint32_t reader(std::uint64_t w) {
  return static_cast<std::uint32_t>(w >> 2) & 0xfff;
}
constexpr std::uint64_t number(std::uint64_t w) { return w >> 14; }
}  // namespace slot

inline constexpr std::uint16_t kItemStored = 1;  // StoredAt in `bytes`
inline constexpr std::uint16_t kItemHasRefs = 2;
inline constexpr std::size_t kItemInlineMax = 48;

struct alignas(kCacheLine) StreamSlot {
  std::atomic<std::uint64_t> word;
  std::uint16_t size;  // of an item that lies here
  std::uint16_t flags;
  std::uint32_t refs_released;  // how many refs of the item were given up by who took it
  alignas(16) std::byte bytes[kItemInlineMax];

  StoredAt& at() { return *reinterpret_cast<StoredAt*>(bytes); }
};
static_assert(sizeof(StreamSlot) == kCacheLine);

struct alignas(kCacheLine) Stream {
  std::atomic<std::uint64_t> record;  // packed address of the producer's; 0: nobody's
  std::uint64_t first;  // number of its first item
  std::uint32_t max_unread;  // items
  std::atomic<std::uint32_t> stopped;  // 1: nobody wants more

  alignas(kCacheLine) std::atomic<std::uint64_t> head;  // number of the next item
  alignas(kCacheLine) std::atomic<std::uint64_t> tail;  // no older one can be taken

  alignas(kCacheLine) std::atomic<std::uint32_t> readers_wait;
  Bell items;
  std::atomic<std::uint32_t> producer_waits;
  Bell space;
  std::atomic<std::uint64_t> wake_at;  // the producer sleeps on until all before this are free

  StreamSlot slots[kStreamSlots];

  StreamSlot& slot_of(std::uint64_t n) { return slots[n % kStreamSlots]; }
};
static_assert(sizeof(Stream) == kStreamSize);

namespace stream {

inline Stream& at(const Memory& memory, std::uint32_t number) {
  return *reinterpret_cast<Stream*>(memory.stream(number));
}

// ---- An item's name where else records are named: as what contains a ref (HoldEntry, HoldIntent).

inline constexpr std::uint32_t kItemMark = 1u << 31;  // no record's slot has that bit
constexpr Address mark(std::uint32_t stream, std::uint64_t n) {
  return {kItemMark | stream << 10 | static_cast<std::uint32_t>(n % kStreamSlots),
          static_cast<std::uint32_t>(n)};
}
static_assert(kStreamSlots == 1 << 10 && kStreamsMax <= 1 << 21);
constexpr bool is_mark(Address a) { return a.slot & kItemMark; }
inline StreamSlot& marked(const Memory& memory, Address a) {
  return at(memory, (a.slot & ~kItemMark) >> 10).slots[a.slot % kStreamSlots];
}
// Was the item pushed, so that the holds that were taken for it are the slot's?
inline bool published(const Memory& memory, Address a) {
  const std::uint64_t w = marked(memory, a).word.load(std::memory_order_acquire);
  return slot::state(w) != slot::State::Free ||
         static_cast<std::uint32_t>(slot::number(w)) != a.generation;
}

// ---- Slots.

// Does item n's slot word say that it was pushed, now or before?
constexpr bool says_pushed(std::uint64_t w, std::uint64_t n) {
  return slot::number(w) > n || (slot::number(w) == n && slot::state(w) != slot::State::Free);
}
inline bool pushed(Stream& s, std::uint64_t n) {
  return says_pushed(s.slot_of(n).word.load(std::memory_order_acquire), n);
}
// Has the item been read, so that its slot is the next one's?
inline bool is_free(Stream& s, std::uint64_t n) {
  return slot::number(s.slot_of(n).word.load(std::memory_order_acquire)) > n;
}
// The number of the next item, also when the producer died before it could say so.
inline std::uint64_t next_item(Stream& s) {
  std::uint64_t n = s.head.load(std::memory_order_acquire);
  while (pushed(s, n)) ++n;
  return n;
}

// ---- Waking. After the waker's own step, which is seq_cst.

inline void ring(Bell& bell) {
  bell.value.fetch_add(1, std::memory_order_seq_cst);
  futex_wake_all(futex_word(bell.value));
}
inline void wake_readers(Stream& s) {
  if (s.readers_wait.load(std::memory_order_seq_cst) != 0 && s.readers_wait.exchange(0) != 0)
    ring(s.items);
}
inline void wake_all(Stream& s) {
  ring(s.items);
  ring(s.space);
}
inline void stop(Stream& s) {
  if (s.stopped.exchange(1, std::memory_order_seq_cst) == 0) wake_all(s);
}

// ---- The steps.

// The producer's, once the slot is Free(n) and filled.
inline void publish(Stream& s, std::uint64_t n) {
  crash_point(CrashPoint::StreamWritten);
  // release: whoever takes it sees its bytes; seq_cst: before the look for sleepers
  s.slot_of(n).word.exchange(slot::make(n, slot::State::Full), std::memory_order_seq_cst);
  crash_point(CrashPoint::StreamPushed);
}

inline void pass(Stream& s, std::uint64_t n) {  // unless somebody else has
  s.tail.compare_exchange_strong(n, n + 1, std::memory_order_acq_rel);
}

// Takes the oldest item that nobody has taken; nothing: there is none now.
inline std::optional<std::uint64_t> take(Stream& s, std::uint32_t reader) {
  for (;;) {
    const std::uint64_t n = s.tail.load(std::memory_order_acquire);
    StreamSlot& slot = s.slot_of(n);
    std::uint64_t seen = slot.word.load(std::memory_order_acquire);
    if (seen == slot::make(n, slot::State::Full)) {
      // acquire: its bytes are read next. Failure: another reader was faster.
      const bool mine = slot.word.compare_exchange_strong(
          seen, slot::make(n, slot::State::Taken, reader), std::memory_order_acquire);
      if (mine) crash_point(CrashPoint::StreamTaken);
      pass(s, n);
      if (mine) return n;
    } else if (says_pushed(seen, n)) {  // taken by somebody who has not said so yet
      pass(s, n);
    } else {
      return {};
    }
  }
}

// The reader's, when it needs the item's bytes no more and what they held is given up. The producer
// is woken when there is room for many, so that neither side sleeps for each item.
inline void free(Stream& s, std::uint64_t n) {
  crash_point(CrashPoint::StreamRead);
  // release: our reads come before the producer's next writes; seq_cst: before the look for it
  s.slot_of(n).word.exchange(slot::make(n + kStreamSlots, slot::State::Free),
                             std::memory_order_seq_cst);
  crash_point(CrashPoint::StreamFreed);
  if (s.producer_waits.load(std::memory_order_seq_cst) == 0) return;
  const bool enough = n + 1 >= s.wake_at.load(std::memory_order_relaxed) ||
                      s.readers_wait.load(std::memory_order_relaxed) != 0;
  if (enough && s.producer_waits.exchange(0) != 0) ring(s.space);
}

// The owner's, for a record that is about to be published.
inline void open(Stream& s, Address record, std::uint32_t max_unread) {
  s.first = s.head.load(std::memory_order_relaxed);
  s.max_unread = max_unread;
  s.stopped.store(0, std::memory_order_relaxed);
  s.readers_wait.store(0, std::memory_order_relaxed);
  s.producer_waits.store(0, std::memory_order_relaxed);
  s.record.store(record.packed(), std::memory_order_release);
}

// For whoever recycles the record, when nobody reads any more: takes each item that is left, lets
// `drop(slot, n)` give up what it holds, and leaves the stream empty. Goes on where another one has
// died.
template <class Drop>
void close(Stream& s, Address record, std::uint32_t reader, const Drop& drop) {
  if (s.record.load(std::memory_order_acquire) != record.packed()) return;
  while (const auto n = take(s, reader)) {
    drop(s.slot_of(*n), *n);
    free(s, *n);
  }
  s.head.store(s.tail.load(std::memory_order_relaxed), std::memory_order_relaxed);
  s.record.store(0, std::memory_order_release);
}

}  // namespace stream
}  // namespace mobula::shm
