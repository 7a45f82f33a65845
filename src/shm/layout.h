// The map of a session's control memory: which tables there are, where they lie and who writes
// them.
//
// One sealed memfd per session, sparse: pages are taken (and so reserved) by the node daemon before
// it hands out what lies on them, or by the lessee of a segment before it uses more of it; never by
// a fault. Everything is addressed by index or by offset
// from the start, so each process may map it anywhere.
//
//   header | processes | participants | classes | extents | pins | segments | streams | heap
//   (rings, block words) | records
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
inline constexpr std::uint32_t kExtentsMax = 262144;
inline constexpr std::uint32_t kSegmentsMax = 16384;
inline constexpr std::uint32_t kRecordsPerSegment = 4096;
// That a first segment begins with: a thousand actors submit little, and their pages take time.
inline constexpr std::uint32_t kRecordsAtFirst = 256;
inline constexpr std::size_t kRecordSize = 256;
inline constexpr std::size_t kSegmentSize = kRecordsPerSegment * kRecordSize;
inline constexpr std::uint32_t kStreamsMax = 16384;
inline constexpr std::uint32_t kStreamSlots = 1024;  // items
inline constexpr std::size_t kStreamSize = (4 + kStreamSlots) * kCacheLine;  // stream.h
inline constexpr std::size_t kHeapSize = std::size_t{4} << 30;

// Objects have this many times as many addresses as bytes: a value that is spilled to disk keeps
// its place, only the pages under it go, and a hole left by small ones never keeps a large one out.
inline constexpr std::size_t kAddressesPerByte = 32;

// Wakes processes that sleep on it; `value` only ever grows.
struct Bell {
  std::atomic<std::uint32_t> value;
};

// Which calls waited for each other when one of them was failed for it: what each thread of the
// circle ran, then the call itself. Written by the daemon, `number` last; read while it may be
// replaced, so that `number` is to be the same before and after.
inline constexpr std::uint32_t kDeadlocksKept = 64;
inline constexpr std::uint32_t kDeadlockSteps = 12;
struct DeadlockNote {
  std::atomic<std::uint64_t> number;  // counts from 1; number n lies at n % kDeadlocksKept
  std::atomic<std::uint32_t> steps;  // above kDeadlockSteps the middle is left out
  struct Step {
    std::atomic<std::uint32_t> scheduling_class;
    std::atomic<std::uint32_t> kind;  // shm::Kind
    std::atomic<std::uint64_t> function;
  } step[kDeadlockSteps];
};

struct ControlHeader {
  std::uint64_t magic;  // written last by the daemon
  std::uint64_t
      layout_hash;  // of this header's sizes; a process that computes another one does not join
  std::uint64_t session;  // random, not zero: a ref of another session is told by it
  std::uint64_t node;  // that it is on, random; its own one has the session's number
  std::uint64_t object_capacity;  // bytes of object memory
  std::uint32_t daemon_pid;
  std::uint32_t cores;  // that the node's processes may run on at once
  std::uint64_t worker_heap_max;  // bytes that a worker may keep between two tasks
  // The number of the detached actor for which this session is there; 0: for none. Its host's.
  std::atomic<std::uint64_t> hosts;

  // Set by the daemon before it sleeps; whoever clears it writes the daemon's eventfd.
  alignas(kCacheLine) std::atomic<std::uint32_t> daemon_sleeps;
  // Rung when a record with a waiter-for-any becomes final (see record.h).
  alignas(kCacheLine) Bell any_bell;
  // 1: some class waits for a worker; one that runs out of work tells the daemon before it sleeps.
  std::atomic<std::uint32_t> wants_idle;
  // Armed crashes that have not happened yet in this session (crash_point.h).
  alignas(kCacheLine) std::atomic<std::uint32_t> open_crashes;
  // 1: the driver has left; whoever waits gives up.
  alignas(kCacheLine) std::atomic<std::uint32_t> session_over;

  DeadlockNote deadlocks[kDeadlocksKept];
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

// What a thread waits for, as `mobula` tools show it.
enum class WaitReason : std::uint32_t { None, Task, AnyTask, Memory, StreamItem, StreamSpace };

inline constexpr std::uint32_t kWaitsListed = 8;

// What a thread sleeps for in get or wait. Written by that thread when it goes to sleep, `reason`
// last; read by others, who may see a mixture of two waits and must look twice.
struct WaitNote {
  std::atomic<std::uint32_t> reason;  // WaitReason
  std::atomic<std::uint32_t> ends_by_itself;  // 1: it has a timeout
  std::atomic<std::uint32_t> needed;  // so many of the records end it
  std::atomic<std::uint32_t> count;  // of records; above kWaitsListed they are not all listed
  std::atomic<std::uint64_t> record[kWaitsListed];  // packed addresses
};

// One per process. The process writes it, but for `assigned_class`, `class_slot` and `must_leave`,
// which are the daemon's, and for `cancels`.
struct alignas(kCacheLine) Process {
  std::atomic<std::uint32_t> role;  // ProcessRole
  std::uint32_t pid;
  std::atomic<std::uint32_t> assigned_class;  // kNone: unattached
  std::atomic<std::uint32_t> class_slot;  // its number among the workers of that class
  std::atomic<std::uint32_t> must_leave;  // 1: end when the running task is done
  std::atomic<std::uint32_t> open_calls;  // claimed here, and answered apart from the method
  std::atomic<std::uint32_t> cancels;  // of open calls, counted by who cancels: look at them

  alignas(kCacheLine) Bell bell;  // the process sleeps here when it has nothing to do
  // The core of who rang the bell last, or kNone: a worker that wakes up on it has taken it away
  // from its waker.
  std::atomic<std::uint32_t> waker_core;
  std::atomic<std::uint32_t> sleeping;  // 1: asleep on `bell` for want of work
  std::atomic<std::uint32_t> blocked_threads;  // executing threads asleep in get or wait
  std::atomic<std::uint32_t>
      works_for;  // the class it takes tasks of at present, or kNone: the answer to assigned_class
  std::atomic<std::uint64_t> tasks_done;
  std::atomic<std::uint64_t> tasks_failed;  // that it ran, or submitted to the dead
  std::atomic<std::uint64_t> task_began;  // the outermost one that it runs or ran last, in ticks
  std::atomic<std::uint32_t> spent;  // 1: its heap is too large to go on with it
  std::atomic<std::uint32_t> left;  // 1: it ended between two tasks, and owes nobody a wake-up
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

  alignas(kCacheLine) WaitNote wait;

  alignas(kCacheLine) HoldIntent hold;
  std::atomic<std::uint32_t> walk_which;
  WalkNote walk[2];
};

enum class ClassState : std::uint32_t { Free, Open, Dead };
enum class ClassKind : std::uint32_t { Task, Actor, Callback, Group };

enum class Death : std::uint8_t {
  None,
  Crashed,
  Killed,
  ConstructorFailed,
  OutOfScope,
  NotStarted,
  OutOfMemory,
  Left,
  StateLost,  // nothing that it kept of its state can be used
  GroupRemoved,  // the placement group that it was in
  HostLost  // of a detached actor: the session that it lived in has ended
};
// A Death in one word, with what was known of memory: in a DeathNote and in the `detail` of a
// CompactError.
struct DeathCause {
  Death death = Death::Crashed;
  std::uint8_t memory_scope = 0;  // core::MemoryScope
  std::uint32_t used_mib = 0;  // 24 bits: up to 16 TiB
  std::uint32_t limit_mib = 0;
  constexpr std::uint64_t packed() const {
    return static_cast<std::uint64_t>(death) | std::uint64_t{memory_scope} << 8 |
           std::uint64_t{used_mib & 0xffffff} << 16 | std::uint64_t{limit_mib & 0xffffff} << 40;
  }
  static constexpr DeathCause unpack(std::uint64_t p) {
    return {static_cast<Death>(p & 0xff), static_cast<std::uint8_t>(p >> 8),
            static_cast<std::uint32_t>(p >> 16 & 0xffffff), static_cast<std::uint32_t>(p >> 40)};
  }
};
// Why an actor no longer answers; written by the daemon before the class is Dead.
struct DeathNote {
  std::uint64_t cause;  // DeathCause; 0: not known yet
  std::int32_t signal;
  std::int32_t exit_code;
  std::uint32_t pid;
};

// What is asked of an actor's daemon, or told to it: bits of `kill_request`.
inline constexpr std::uint64_t kKill = 1;
inline constexpr std::uint64_t kLastHandleGone = 2;  // no handle names the actor any more
inline constexpr std::uint64_t kLeave = 4;  // it ends after the call that it runs (exit_actor)
inline constexpr std::uint64_t kKillOnce = 8;  // end its process; it may start again
inline constexpr std::uint64_t kConstructorFailed = 16;  // in local mode, where no process tells
inline constexpr std::uint64_t kGroupRemoved = 32;  // with kKill: this is why
// It runs nothing more, and its process is about to end.
constexpr bool is_doomed(std::uint64_t kill_request) { return kill_request & (kKill | kLeave); }
// Its end is no accident: none of its restarts is for it.
constexpr bool is_meant_to_end(std::uint64_t kill_request) { return kill_request & ~kKillOnce; }

inline constexpr std::uint32_t kSleeperWords = 4;

inline constexpr std::uint32_t kJournalChunks = 64;
inline constexpr std::uint32_t kJournalChunkEntries = 4096;
inline constexpr std::uint64_t kJournalCalls =
    std::uint64_t{kJournalChunks} * kJournalChunkEntries;  // that can be in a journal at once
inline constexpr std::uint64_t kReplays = std::uint64_t{1} << 63;

// What outlives an actor's process of its state: journal.h. Written by that process, at its death
// and at the actor's end by the daemon.
struct LastingState {
  std::uint64_t options;  // the daemon's: kReplays, and calls between two checkpoints
  // Calls are numbered for ever, through all actors that use this entry of the table one after the
  // other: a record with an old actor's number is told by `covered` alone.
  std::uint64_t born;  // the daemon's: the first number of this actor
  std::atomic<std::uint64_t> taken;  // the number of the next call
  std::atomic<std::uint64_t> covered;  // calls below are in both checkpoints: nothing needs them
  std::atomic<std::uint64_t> checkpoint[2];  // packed addresses of records; 0: none
  std::atomic<std::uint64_t> chunk[kJournalChunks];  // the daemon's: heap offsets; 0: none yet
};

// One per scheduling class, and per placement group, of which workers know nothing: `attached` is 1
// when it has its resources. `rings`, `state`, `attached` and the texts are the daemon's.
struct alignas(kCacheLine) SchedulingClass {
  std::atomic<std::uint32_t> state;  // ClassState
  std::atomic<std::uint32_t> kind;  // ClassKind
  std::atomic<std::uint32_t> attached;  // workers
  std::atomic<std::uint32_t> attention;  // 1: the daemon wants to hear of the next submission
  std::atomic<std::uint64_t> rings;  // heap offset of the first RingHeader; 0: none
  std::int32_t pending_calls_max;  // actor: of one process; -1: without end
  // Not 0: the actor stands for a detached one of another session, which the node knows by this
  // number (runtime/detached.h).
  std::uint64_t detached;

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
  std::atomic<std::uint64_t> kill_request;  // actor
  std::atomic<std::uint32_t> restarts;
  std::uint32_t out_of_order;  // actor, 1: calls that wait do not hold back later ones
  // Actor: its threads, by group (runtime/call_threads.h); empty: one runs all. Of a placement
  // group its bundles, for tools.
  char groups[256];
  // The placement group that it is, or whose tasks or actor it is; 0: none.
  std::uint64_t placement_group;
  std::int32_t bundle;  // of that; -1: any
  char group_name[104];  // PlacementGroupOptions.name
  std::atomic<std::uint32_t> environment;  // of its processes: a number of the daemon's; 0: its own
  DeathNote death;
  LastingState lasting;
  char name[96];  // class name of an actor, or the resources of a task class, for messages
  char given_name[104];  // actor: ActorOptions.name
  char demand_text[512];  // "CPU=1\n", cut if it is longer
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
  static constexpr std::size_t kPins = kExtents + whole_pages(std::size_t{kExtentsMax} * 64);
  static constexpr std::size_t kPinsOfProcess = std::size_t{kExtentsMax} * 4;
  static constexpr std::size_t kSegments = kPins + kProcessesMax * kPinsOfProcess;
  static constexpr std::size_t kStreams = kSegments + whole_pages(std::size_t{kSegmentsMax} * 8);
  static constexpr std::size_t kHeap = kStreams + whole_pages(kStreamsMax * kStreamSize);
  static constexpr std::size_t kRecords =
      (kHeap + kHeapSize + kSegmentSize - 1) / kSegmentSize * kSegmentSize;
  static constexpr std::size_t kSize = kRecords + std::size_t{kSegmentsMax} * kSegmentSize;
};

// Changes whenever a struct or a table changes its shape.
constexpr std::uint64_t layout_hash() {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::uint64_t part : {std::uint64_t{4} /* protocol */, std::uint64_t{sizeof(ControlHeader)},
                             std::uint64_t{sizeof(Process)}, std::uint64_t{sizeof(Participant)},
                             std::uint64_t{sizeof(SchedulingClass)},
                             std::uint64_t{ControlLayout::kSize}, std::uint64_t{kRecordSize}}) {
    hash = (hash ^ part) * 0x100000001b3u;
  }
  return hash;
}

inline constexpr std::uint64_t kMagic = 0x616c75626f6d0001u;

}  // namespace mobula::shm
