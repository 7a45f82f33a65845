// The map of a session's control memory: which tables there are, where they lie and who writes
// them.
//
// One sealed memfd per session, sparse: pages are taken (and so reserved) by the node daemon before
// it hands out what lies on them, never by a fault. Everything is addressed by index or by offset
// from the start, so each process may map it anywhere.
//
//   header | processes | participants | classes | extents | segments | heap (rings, block words) |
//   records
//
// The daemon alone allocates: entries of tables, segments of records, rings. Processes ask for them
// over their socket, which is rare; what they then do with them needs no daemon.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mobula::shm {

inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::uint32_t kNone = 0xffffffff;

inline constexpr std::uint32_t kProcessesMax = 4096;
inline constexpr std::uint32_t kParticipantsMax = 4096;  // 12 bits of a state word
inline constexpr std::uint32_t kClassesMax = 16384;
inline constexpr std::uint32_t kExtentsMax = 65536;
inline constexpr std::uint32_t kSegmentsMax = 16384;
inline constexpr std::uint32_t kRecordsPerSegment = 4096;
inline constexpr std::size_t kRecordSize = 256;
inline constexpr std::size_t kSegmentSize = kRecordsPerSegment * kRecordSize;
inline constexpr std::size_t kHeapSize = std::size_t{4} << 30;

// Wakes processes that sleep on it; `value` only ever grows.
struct Bell {
  std::atomic<std::uint32_t> value;
};

struct ControlHeader {
  std::uint64_t magic;  // written last by the daemon
  std::uint64_t
      layout_hash;  // of this header's sizes; a process that computes another one does not join
  std::uint64_t session;  // random, not zero: a ref of another session is told by it
  std::uint64_t object_capacity;  // bytes of object memory
  std::uint32_t daemon_pid;
  std::uint32_t cores;  // that the node's processes may run on at once

  // Set by the daemon before it sleeps; whoever clears it writes the daemon's eventfd.
  alignas(kCacheLine) std::atomic<std::uint32_t> daemon_sleeps;
  // Rung when a record with a waiter-for-any becomes final (see record.h).
  alignas(kCacheLine) Bell any_bell;
  // 1: some class waits for a worker; one that runs out of work tells the daemon before it sleeps.
  std::atomic<std::uint32_t> wants_idle;
  // How many armed crash points may still fire in this session.
  alignas(kCacheLine) std::atomic<std::int32_t> crashes_left;
  // 1: the driver has left; whoever waits gives up.
  alignas(kCacheLine) std::atomic<std::uint32_t> session_over;
};

inline constexpr std::uint32_t kHoldSegmentsMax = 16;

// A line of a process's hold table: it holds `record`. While `container` is not 0, the hold is on
// its way to that record, whose result contains the ref: once the container is final, the hold is
// the container's.
struct HoldEntry {
  std::atomic<std::uint64_t> record;
  std::atomic<std::uint64_t> container;
};
inline constexpr std::uint32_t kHoldsPerSegment = kSegmentSize / sizeof(HoldEntry);

enum class ProcessRole : std::uint32_t { None, Driver, Worker, Actor, Daemon };

// What a process waits for, as `mobula` tools show it.
enum class WaitReason : std::uint32_t { None, Task, AnyTask, Memory };

// One per process. The process writes it, but for `assigned_class`, `class_slot` and `must_leave`,
// which are the daemon's.
struct alignas(kCacheLine) Process {
  std::atomic<std::uint32_t> role;  // ProcessRole
  std::uint32_t pid;
  std::atomic<std::uint32_t> assigned_class;  // kNone: unattached
  std::atomic<std::uint32_t> class_slot;  // its number among the workers of that class
  std::atomic<std::uint32_t> must_leave;  // 1: end when the running task is done

  alignas(kCacheLine) Bell bell;  // the process sleeps here when it has nothing to do
  // The core of who rang the bell last, or kNone: a worker that wakes up on it has taken it away
  // from its waker.
  std::atomic<std::uint32_t> waker_core;
  std::atomic<std::uint32_t> sleeping;  // 1: asleep on `bell` for want of work
  std::atomic<std::uint32_t> blocked_threads;  // executing threads asleep in get or wait
  std::atomic<std::uint32_t>
      works_for;  // the class it takes tasks of at present, or kNone: the answer to assigned_class
  std::atomic<std::uint32_t> wait_reason;  // WaitReason
  std::atomic<std::uint64_t> waits_for;  // record address
  std::atomic<std::uint64_t> tasks_done;
  std::atomic<std::uint32_t>
      hold_segments[kHoldSegmentsMax];  // its hold table; kNone: not leased yet
};

inline constexpr std::uint32_t kIntentsMax =
    64;  // depth of nested execution that is listed; deeper is found by a scan
inline constexpr std::uint32_t kClaimerBits = 12;

enum class HoldOp : std::uint32_t { None, Hold, Release, ReleaseContained };

// What a thread is about to do to a record's hold count (holds.h). Written only by that thread but
// for `acknowledged`.
struct HoldIntent {
  std::atomic<std::uint32_t> op;  // HoldOp; written last when opened, first when closed
  std::atomic<std::uint32_t> sequence;  // of this operation, 28 bits
  std::atomic<std::uint64_t> record;  // whose count
  std::atomic<std::uint32_t> entry;  // line in the process's hold table; ReleaseContained: number
                                     // of the ref in its container
  std::atomic<std::uint64_t> container;  // ReleaseContained: the record being recycled
  std::atomic<std::uint32_t> acknowledged;  // highest sequence another thread has seen applied
};

// Where a walk over dependents stands (dependents.h): two notes, the valid one chosen by `which`.
struct WalkNote {
  std::atomic<std::uint64_t> record;  // whose dependents are told; 0: nobody's
  std::atomic<std::uint64_t> link;  // the edge being followed
  std::atomic<std::uint64_t> next;  // the edge after it
  std::atomic<std::uint32_t> generation;  // of the dependent record of `link`
};

enum class ParticipantState : std::uint32_t { Free, Live };

// One per thread that submits or executes: the writer of one ledger. Only that thread writes it,
// but for `state`.
struct alignas(kCacheLine) Participant {
  std::atomic<std::uint32_t> state;  // ParticipantState; the daemon's
  std::atomic<std::uint32_t> process;  // the daemon's

  alignas(kCacheLine) Bell
      completions;  // rung when a record of this ledger that has a waiter-for-any becomes final

  // Records this thread is about to claim or has claimed, innermost last. An entry may name a
  // record that somebody else took: the state word tells.
  alignas(kCacheLine) std::atomic<std::uint32_t> depth;
  std::atomic<std::uint64_t> executing[kIntentsMax];

  alignas(kCacheLine) HoldIntent hold;
  std::atomic<std::uint32_t> walk_which;
  WalkNote walk[2];
};

enum class ClassState : std::uint32_t { Free, Open, Dead };
enum class ClassKind : std::uint32_t { Task, Actor };

// Why an actor no longer answers; written by the daemon before the class is Dead.
struct DeathNote {
  std::uint32_t cause;  // Death
  std::int32_t signal;
  std::int32_t exit_code;
  std::uint32_t pid;
};
enum class Death : std::uint32_t {
  None,
  Crashed,
  Killed,
  ConstructorFailed,
  OutOfScope,
  NotStarted
};

inline constexpr std::uint64_t kKill = 1;
inline constexpr std::uint64_t kLastHandleGone = 2;  // no handle names the actor any more

inline constexpr std::uint32_t kSleeperWords = 4;

// One per scheduling class. `rings`, `state`, `attached` and the texts are the daemon's.
struct alignas(kCacheLine) SchedulingClass {
  std::atomic<std::uint32_t> state;  // ClassState
  std::atomic<std::uint32_t> kind;  // ClassKind
  std::atomic<std::uint32_t> attached;  // workers
  std::atomic<std::uint32_t> attention;  // 1: the daemon wants to hear of the next submission
  std::atomic<std::uint64_t> rings;  // heap offset of the first RingHeader; 0: none

  // Doorbell: bits of sleeping workers by class_slot; a waker clears a bit and so owns that
  // wake-up.
  alignas(kCacheLine) std::atomic<std::uint64_t> sleepers[kSleeperWords];
  std::atomic<std::uint32_t> searcher;  // process index + 1 of the one worker that spins; 0: none
  // 1: the workers' latest tasks took microseconds, so that one that is awake comes to a new task
  // sooner than a sleeper would. Written by workers; a wrong value costs a wake-up, or a wait until
  // the daemon's next look.
  std::atomic<std::uint32_t> quick;
  std::atomic<std::uint32_t> slot_process[kSleeperWords * 64];  // class_slot -> process

  alignas(kCacheLine)
      std::atomic<std::uint64_t> creation;  // actor: address of the record that creates it
  std::atomic<std::uint64_t> kill_request;  // actor: kKill, kLastHandleGone
  std::atomic<std::uint32_t> restarts;
  DeathNote death;
  char name[96];  // class name of an actor, or the resources of a task class, for messages
  char demand_text[96];  // "CPU 1"
};

struct RingHeader;

inline constexpr std::size_t kPage = 4096;
constexpr std::size_t whole_pages(std::size_t n) { return (n + kPage - 1) / kPage * kPage; }

struct ControlLayout {
  static constexpr std::size_t kProcesses = whole_pages(sizeof(ControlHeader));
  static constexpr std::size_t kParticipants =
      kProcesses + whole_pages(kProcessesMax * sizeof(Process));
  static constexpr std::size_t kClasses =
      kParticipants + whole_pages(kParticipantsMax * sizeof(Participant));
  static constexpr std::size_t kExtents =
      kClasses + whole_pages(kClassesMax * sizeof(SchedulingClass));
  static constexpr std::size_t kSegments = kExtents + whole_pages(std::size_t{kExtentsMax} * 64);
  static constexpr std::size_t kHeap = kSegments + whole_pages(std::size_t{kSegmentsMax} * 8);
  static constexpr std::size_t kRecords =
      (kHeap + kHeapSize + kSegmentSize - 1) / kSegmentSize * kSegmentSize;
  static constexpr std::size_t kSize = kRecords + std::size_t{kSegmentsMax} * kSegmentSize;
};

// Changes whenever a struct or a table changes its shape.
constexpr std::uint64_t layout_hash() {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::uint64_t part : {std::uint64_t{1} /* protocol */, std::uint64_t{sizeof(ControlHeader)},
                             std::uint64_t{sizeof(Process)}, std::uint64_t{sizeof(Participant)},
                             std::uint64_t{sizeof(SchedulingClass)},
                             std::uint64_t{ControlLayout::kSize}, std::uint64_t{kRecordSize}}) {
    hash = (hash ^ part) * 0x100000001b3u;
  }
  return hash;
}

inline constexpr std::uint64_t kMagic = 0x616c75626f6d0001u;

}  // namespace mobula::shm
