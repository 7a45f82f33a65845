// A task, written once: queue entry, future and lineage in 256 bytes of shared memory.
//
//   Free --> Waiting --> Ready --> Claimed --> Done | Failed --> Free (next generation)
//               |          |          '--> Ready (the claimer died, retries are left)
//               |          '--> Failed (its actor died, cancelled)
//               '--> Failed
//
// Cancelling is a bit of the state word, so that it and the end of the task are decided by one swap
// each: a task that nobody has claimed is Failed by the swap that sets it, a claimed one cannot
// become Done or Ready any more (cancel.h).
//
// Who writes what. The submitting thread (the ledger's owner) fills every field while the state is
// Free and publishes them by the store that makes it Waiting or Ready. From then on only the state
// word, `refs`, `dependents` and `join` change, all by atomic read-modify-write; the claimer alone
// writes the result fields, and publishes them by the addition that makes the state final. The
// owner alone turns a final record into a Free one. Everybody else only reads, and only while
// something holds the record (holds.h). Slots are records for ever: a stale address reads a record
// of another generation, never foreign bytes.
//
// Why a crash is safe at each step: the state word names the claimer, and each multi-step action is
// preceded by an intent in the actor's Participant entry, from which the daemon finishes or undoes
// it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shm/layout.h"

namespace mobula::shm {

enum class State : std::uint32_t {
  Free = 0,
  Waiting = 1,
  Ready = 2,
  Claimed = 3,
  Done = 4,
  Failed = 5
};

// The state word. The low half is what waiters sleep on (a futex is 32 bits wide).
//   bits 0-3 state | 4 waiters | 5 waited-for-any | 6 has dependents | 7 cancelled | 8-15 attempt |
//   16-27 claimer | 28 cancel its children | 29 by force | 30 by its deadline | 32-63 generation
namespace word {
inline constexpr std::uint64_t kStateMask = 0xf;
inline constexpr std::uint64_t kWaiters = 1u << 4;
inline constexpr std::uint64_t kAnyWaiter = 1u << 5;
inline constexpr std::uint64_t kHasDependents = 1u << 6;
inline constexpr std::uint64_t kCancelled = 1u << 7;  // in a final state: this is the result
inline constexpr std::uint64_t kAttemptShift = 8;
inline constexpr std::uint64_t kAttemptMask = 0xffu << kAttemptShift;
inline constexpr std::uint64_t kClaimerShift = 16;
inline constexpr std::uint64_t kClaimerMask = 0xfffu << kClaimerShift;
inline constexpr std::uint64_t kCancelChildren = 1u << 28;  // with kCancelled, of a claimed task
inline constexpr std::uint64_t kForce = 1u << 29;  // with kCancelled: its process is to end
inline constexpr std::uint64_t kLate = 1u << 30;  // with kCancelled: its deadline did it

constexpr State state(std::uint64_t w) { return static_cast<State>(w & kStateMask); }
constexpr std::uint32_t generation(std::uint64_t w) { return static_cast<std::uint32_t>(w >> 32); }
constexpr std::uint32_t claimer(std::uint64_t w) {
  return static_cast<std::uint32_t>((w & kClaimerMask) >> kClaimerShift);
}
constexpr std::uint32_t attempt(std::uint64_t w) {
  return static_cast<std::uint32_t>((w & kAttemptMask) >> kAttemptShift);
}
constexpr bool is_final(std::uint64_t w) {
  return (w & kStateMask) >= static_cast<std::uint64_t>(State::Done);
}
constexpr std::uint64_t make(std::uint32_t generation, State s) {
  return std::uint64_t{generation} << 32 | static_cast<std::uint64_t>(s);
}
constexpr std::uint64_t with_state(std::uint64_t w, State s) {
  return (w & ~kStateMask) | static_cast<std::uint64_t>(s);
}
constexpr std::uint64_t with_claimer(std::uint64_t w, std::uint32_t c) {
  return (w & ~kClaimerMask) | std::uint64_t{c} << kClaimerShift;
}
constexpr std::uint64_t with_next_attempt(std::uint64_t w) {
  return (w & ~kAttemptMask) | ((w + (1u << kAttemptShift)) & kAttemptMask);
}
}  // namespace word

// A record's slot and generation in one word; 0 is no record (slot 0 is never used).
struct Address {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  constexpr std::uint64_t packed() const { return std::uint64_t{generation} << 32 | slot; }
  static constexpr Address unpack(std::uint64_t p) {
    return {static_cast<std::uint32_t>(p), static_cast<std::uint32_t>(p >> 32)};
  }
  constexpr explicit operator bool() const { return slot != 0; }
  friend constexpr bool operator==(const Address&, const Address&) = default;
};

enum class Kind : std::uint8_t {
  Task,
  ActorCreate,
  ActorCall,
  Put,
  Join,
  Callback,  // what a process runs itself once its one edge is ticked off (runtime/callbacks.h)
  Monitor  // becomes Done when an actor dies for good; the daemon's
};

enum class ResultKind : std::uint8_t {
  None,  // nothing, or not there yet
  Word,  // up to 8 bytes in result_word
  Inline,  // up to 32 bytes in result_inline
  Stored,  // in the object store, at result_at
  ErrorCode,  // a CompactError in result_inline
};

namespace flag {
inline constexpr std::uint8_t kArgsStored = 1;  // arguments in the object store, at args_at
inline constexpr std::uint8_t kArgsHaveRefs = 2;  // a table of held refs ends the arguments
inline constexpr std::uint8_t kResultHasRefs = 4;  // a table of held refs ends the result
inline constexpr std::uint8_t kRetryExceptions = 8;
inline constexpr std::uint8_t kNamed = 16;  // the arguments begin with the task's name
inline constexpr std::uint8_t kOpen = 32;  // claimed, and answered apart from its method's return
inline constexpr std::uint8_t kStream = 128;  // it pushes items into the stream of its own
inline constexpr std::uint8_t kJournaled = 64;  // an actor may run this call again (journal.h)
}  // namespace flag

// Where a stored value lies (extents.h).
struct StoredAt {
  std::uint64_t size;
  std::uint32_t extent;
  std::uint32_t block_and_generation;  // 12 bits block | 20 bits generation
};

// An error that the runtime made, not the user's function; the reader words it.
struct CompactError {
  std::uint32_t code;  // mobula::ErrorCode
  std::uint32_t attempts;
  std::int32_t signal;
  std::int32_t exit_code;
  std::uint32_t pid;
  std::uint32_t scheduling_class;
  std::uint64_t detail;  // of a death: DeathCause
};
static_assert(sizeof(CompactError) == 32);

constexpr std::uint64_t mix(std::uint64_t x) {  // splitmix64's finalizer
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

inline constexpr std::int16_t kRetriesOfActor = -2;  // of a call: as many as its actor allows

inline constexpr std::uint32_t kDependenciesMax = 4;  // edges a task keeps in its record
inline constexpr std::uint32_t kJoinDependencies = 12;  // edges a join record keeps
inline constexpr std::uint32_t kArgsInlineMax = 64;
inline constexpr std::uint32_t kResultInlineMax = 32;

// One edge of the task graph: this record waits for `target`. `next` links the edges of one target.
struct Dependency {
  std::uint64_t target;  // packed Address
  std::atomic<std::uint64_t> next;  // Link
};

// A task's logical identity, hashed: the same again when its parent is run again.
constexpr std::uint64_t task_identity(std::uint64_t parent, std::uint64_t index) {
  return mix(parent + 0x9e3779b97f4a7c15u * (index + 1));
}

struct alignas(kCacheLine) Record {
  // -- line 0: state, and what the claimer needs first
  std::atomic<std::uint64_t> state;
  std::atomic<std::uint64_t> refs;  // holds from outside of the owner's process (holds.h)
  std::atomic<std::uint64_t>
      dependents;  // first Link, and a bit that closes the list (dependents.h)
  std::atomic<std::uint64_t> join;  // generation << 32 | a bit for each edge not satisfied yet
  std::uint64_t function;  // key of the function or method
  std::uint32_t scheduling_class;
  Kind kind;
  ResultKind result_kind;
  std::uint8_t flags;
  std::uint8_t dependencies;  // edges used
  std::uint32_t args_size;
  std::uint32_t result_size;
  std::uint64_t result_word;  // of a producer: the number of its stream

  // -- line 1: arguments, or where they lie
  alignas(kCacheLine) std::byte args_inline[kArgsInlineMax];
  // -- line 2: edges
  alignas(kCacheLine) Dependency dependency[kDependenciesMax];
  // -- line 3: identity, and results that do not fit into result_word
  std::uint64_t parent;  // hash of the task that submitted this one
  std::uint64_t index;  // its how-manieth child
  std::int16_t retries;  // allowed after the first attempt; -1: without end; or kRetriesOfActor
  std::uint16_t group;  // of a call: its concurrency group (runtime/call_threads.h)
  std::uint32_t
      refs_released;  // how many refs of the result's table were given up while it is recycled
  std::uint64_t deadline;  // ns of the monotonic clock, when it is to have ended; 0: never
  // aligned for whatever fits: it is read in place
  alignas(kResultInlineMax) std::byte result_inline[kResultInlineMax];

  // The hash of this task's logical identity: the `parent` of the tasks that it submits. Calls of
  // which a journal tells have their number in it, since a caller that was run again may have made
  // one call twice.
  std::uint64_t identity() const {
    const std::uint64_t hash = task_identity(parent, index);
    return flags & flag::kJournaled ? task_identity(hash, journal_number()) : hash;
  }
  // Of a journaled call: it was claimed, so no edge of it is open.
  std::uint64_t& journal_number() { return dependency[kDependenciesMax - 1].target; }
  std::uint64_t journal_number() const { return dependency[kDependenciesMax - 1].target; }
  StoredAt& args_at() { return *reinterpret_cast<StoredAt*>(args_inline); }
  StoredAt& result_at() { return *reinterpret_cast<StoredAt*>(result_inline); }
  CompactError& error() { return *reinterpret_cast<CompactError*>(result_inline); }
  // A join record has no arguments, identity or result: its edges take lines 1 to 3.
  Dependency& edge(std::uint32_t i) {
    return kind == Kind::Join ? reinterpret_cast<Dependency*>(args_inline)[i] : dependency[i];
  }
};
static_assert(sizeof(Record) == kRecordSize);

// A flag of a final record, for anybody. Its owner may take kArgsHaveRefs off meanwhile, in the
// same byte, and alone writes there; what the others say does not change any more.
inline bool has_flag(const Record& record, std::uint8_t flag) {
  return std::atomic_ref(const_cast<std::uint8_t&>(record.flags)).load(std::memory_order_relaxed) &
         flag;
}

}  // namespace mobula::shm
