// The messages between a process and its node's daemon, over an inherited Unix socket that keeps
// message bounds.
//
// They are for what is rare: joining (file descriptors travel here), leases of records, rings and
// memory, scheduling classes. A process asks and waits for the answer; only Welcome comes unasked,
// first of all. Tasks and results never travel here.
//
// Fixed layout, native byte order: both ends are of one machine. Each side checks size and kind of
// what it reads.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mobula::wire {

enum class Kind : std::uint32_t {
  // daemon -> process, with the descriptors of control memory, object memory and the daemon's bell
  Welcome = 1,  // a process, b object capacity
  Reply,  // status, results
  // driver -> its new daemon, first of all: a Config.memory_threshold times kThresholdOne, b number
  // of arguments, c object capacity, d kStart... flags, fields: resources and kSetting... amounts,
  // the folder for spilled objects, the namespace of actors; descriptors: the program, its
  // arguments. With kStartJoins: the resources are what it may use at most, the working folder and
  // the environment follow the arguments, and its stdout and stderr the descriptors
  Start,
  // process -> daemon
  Joined,  // mapped everything; no reply
  EndCancelled,  // c a running task that was cancelled by force: end its process; no reply
  Deadline,  // c a task, d when it is to have ended, ns of the monotonic clock; no reply
  LeaseLedger,  // -> a participant
  LeaseSegment,  // a participant -> a segment
  LeaseStream,  // -> a stream
  LeaseHolds,  // a number of the segment in the process's hold table -> a segment
  OpenClass,  // a ClassKind, b priority, or an actor's restarts, c creation record, d retries of
  // calls and kOutOfOrder, fields: demand; of an actor its class, kActor... fields; a placement; an
  // environment
  // -> a class
  FindActor,  // b a free line of the hold table, c key of its class; fields: name, namespace
  // -> a class, c creation record, on which the line has a hold
  ListActors,  // a 1: of all namespaces; fields: namespace and name of the last one seen, or none
  // -> a 1: there are more; fields: namespace and name of each, in order
  Monitor,  // a class, b a free line of the hold table -> c the record of its end, with a hold
  LeaseJournal,  // a number of the chunk in the journal of the asking actor -> done
  PastRecords,  // a how many to leave out -> a all; text: segments of the actor's dead processes
  OpenRing,  // a participant, b class -> c heap offset of the ring
  GrowRing,  // c ring, a entries -> c heap offset of the storage
  LeaseExtent,  // c size, d block size, b kHoldsRefs or 0 -> a extent
  RestoreExtent,  // a extent, being read from disk when the answer is Ok
  ObjectMemory,  // -> text: amounts, for memory_report()
  // a 0 total, 1 available -> text: demand form; of a node that stays fields: amounts in units, its
  // id; b its pid, c object memory, d of it, what jobs have
  Resources,
  OpenGroup,  // b strategy, fields: name, the demand of each bundle -> c its id
  RemoveGroup,  // c an id
  // a number of the last one seen, or 0; c an id, or 0; text: a name, or none -> the next such one:
  // a its number, b state, c id, d strategy, fields as OpenGroup
  ReadGroup,
  GroupReady,  // c an id, b a free line of the hold table -> c the record of its grant, with a hold
  Explain,  // a class -> text
  OpenMetric,  // a MetricKind or kProgress, text: the encoded MetricSample -> c heap offset of
  // cells
  ReadMetrics,  // c offset -> text: from there on, of the encoded samples as they were when the
  // process or tool asked for offset 0; d their size
  Leave,  // the driver ends the session -> after everything else of it is gone
  // daemon -> zygote: with the new worker's socket, stdout and stderr
  Fork,  // a process, b role, text: its environment (runtime/environment.h)
  // zygote -> daemon
  Forked,  // a process, b pid (0: fork failed, c errno)
  Exited,  // b pid, c wait status
  ZygoteReady,  // with a file of its functions: key and name, in turn
  // Among the daemons of a node that stays. A session's, first of all:
  Enrol,  // c bytes of object memory, or 0; b the driver's pid -> c bytes, d the node's
  // id, fields: its resources, its folder
  Claim,  // c number of the newest Share, text: four lists of amounts, a 0 after each
  Share,  // the node -> a session: c number, text: what it may use
  Drain,  // the node -> a session, a tool -> the node: c ms for running tasks; then all ends
  // tool -> a session's daemon -> with its control memory and the file of functions, to read;
  // text: amounts, and what the tables hold
  Inspect,
  // ---- Detached actors (runtime/detached.h).
  StayingNode,  // process -> its session's daemon -> fields: folder of the node, own namespace
  // process -> the daemon of the node, over its socket:
  // a number of arguments, d bytes of object memory or 0, fields: namespace, name, class, key of
  // the class, ActorOptions.max_pending_calls; descriptors: the program, its arguments, folder and
  // environment (as in Start), the order -> as FindHost, once calls can be made; Later: somebody
  // else's host of that name could not start, ask again
  OpenHost,
  // fields: namespace, name -> c its number, fields: folder of its session, class, key of the
  // class, max_pending_calls. Waits for one that is being started
  FindHost,
  ListHosts,  // as ListActors, but a 1: of all namespaces, fields: own namespace, then the last one
  KillHost,  // c its number, a 1: it may start again -> done
  // the daemon of the node -> a host it has started, over a line of its own
  // c its number, d bytes of object memory, text: folder of the node; descriptor: the order
  HostOrder,
  EndActor,  // a 1: it may start again
  // a host -> the daemon of the node
  HostReady,  // text: folder of its session
  HostFailed,  // status, text
  HostOver,  // its actor is dead for good: the name is free
  // process -> its session's daemon: the actor that it stands for is dead; b restarts it had, text:
  // a shm::DeathNote; no reply
  Obituary,
  // A caller's process <-> a host, at its door; what is longer than a message's text is in a file
  // in memory (wire/parcel.h):
  Knock,  // first of all
  Admitted,  // the actor is constructed
  Call,  // c number, text: runtime/carried.h
  Answer,  // c number, a 1: of an encoded ErrorValue; text: the bytes
  CancelCall,  // c number
  Gone,  // as Obituary; last of all
};

enum class Status : std::uint32_t {
  Ok,
  OutOfMemory,
  StoreFull,
  TooLarge,
  Unschedulable,
  Limit,
  Invalid,
  Later,  // memory is being made free: ask again
  OutOfDisk,
  ObjectLost,
  NotFound,
  OtherClass,
  Exists,
  GroupRemoved
};

inline constexpr std::uint64_t kOutOfOrder = std::uint64_t{1} << 32;
inline constexpr std::uint64_t kStartLogs = 1;  // the driver wants the workers' output
inline constexpr std::uint64_t kStartLimitsMemory = 2;  // workers may use "memory", and no more
inline constexpr std::uint64_t kStartLocal = 4;  // the driver runs everything itself: no workers
inline constexpr std::uint64_t kStartJoins = 8;  // of a node that stays: see Start
inline constexpr double kThresholdOne = 1e6;
inline constexpr std::uint32_t kHoldsRefs = 1;  // the value has a table of refs behind it
// Among the resources of Start, since they are amounts, too: no resource's name begins so.
inline constexpr std::string_view kSettingPrefix = "config.";
inline constexpr const char* kSettingSpillLimit = "config.spill_limit";  // bytes on disk, at most

// Fields of an actor's OpenClass, after its demand.
inline constexpr std::size_t kActorClass = 1;
inline constexpr std::size_t kActorName = 2;
inline constexpr std::size_t kActorNamespace = 3;
inline constexpr std::size_t kActorPendingCalls = 4;  // ActorOptions.max_pending_calls
inline constexpr std::size_t kActorType = 5;  // key of its class
inline constexpr std::size_t kActorGroups = 6;  // of threads (runtime/call_threads.h)
inline constexpr std::size_t kActorLasting = 7;  // shm::LastingState::options
inline constexpr std::size_t kActorPlacement = 8;
inline constexpr std::size_t kActorDetached = 9;  // number of the one that it stands for; 0: none
inline constexpr std::size_t kActorFields = 10;  // then its environment (runtime/environment.h)

// Of a task's OpenClass. A placement is "id bundle" of a group, or empty.
inline constexpr std::size_t kTaskPlacement = 1;
inline constexpr std::size_t kTaskFields = 2;  // then its environment

// Progress is counted like a metric, in these cells of each process.
inline constexpr std::uint32_t kProgress = 16;
// Before its name; that of a metric has no blank, so these are apart.
inline constexpr const char* kProgressPrefix = "progress ";
inline constexpr std::size_t kProgressDone = 0;  // of what the process is at
inline constexpr std::size_t kProgressTotal = 1;
inline constexpr std::size_t kProgressOpen = 2;  // how many it is at
inline constexpr std::size_t kProgressClosed = 3;  // done of what it was at, for good
inline constexpr std::uint32_t kProgressCells = 4;

inline constexpr std::size_t kTextMax = 3072;
inline constexpr int kDescriptorsMax = 4;

struct Message {
  Kind kind{};
  Status status = Status::Ok;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint64_t c = 0;
  std::uint64_t d = 0;
  std::uint32_t text_size = 0;
  std::uint32_t descriptor_count = 0;  // of `descriptors`, which are not part of the bytes
  char text[kTextMax];

  std::string_view text_view() const { return {text, text_size}; }
  void set_text(std::string_view t);  // cut at kTextMax
  void close_descriptors();  // and forgets them

  int descriptors[kDescriptorsMax];
};

// Sends a message with its descriptors (which stay open here). False: the other side is gone, or
// would block (non-blocking socket).
bool send(int socket, const Message& message);

enum class Received { Message, Nothing, Closed };
// Receives one message; descriptors arrive close-on-exec. Malformed bytes count as Closed.
Received receive(int socket, Message& message);

// Reads "CPU=1\nGPU=0.5\n", the form in which demands and capacities travel.
std::map<std::string, double> parse_amounts(std::string_view text);

// Texts in one: separated by 0, so no field contains one.
using Fields = std::vector<std::string_view>;
std::string join(const std::vector<std::string>& fields);
Fields split(std::string_view text);
// What follows the first fields.
std::string_view rest(std::string_view text, std::size_t fields);
// The text of a field that may be left out.
inline std::string_view field(const Fields& fields, std::size_t i) {
  return i < fields.size() ? fields[i] : std::string_view();
}

// The exit code by which an actor's process tells that the constructor failed.
inline constexpr int kExitConstructorFailed = 76;
// By which it tells that its checkpoints and its journal do not give its state.
inline constexpr int kExitStateLost = 78;
// By which a worker ends whose task was cancelled by force, if it is faster than the signal.
inline constexpr int kExitCancelled = 77;

// Lines of text, each ended by a 0 byte, as a file in memory that others may read. -1 with errno
// set.
int make_strings_file(const char* name, const std::vector<std::string>& strings);
// Reads it from its start, and closes it.
std::vector<std::string> take_strings_file(int fd);

// What comes next on the socket; nothing if there is nothing, or its other end is closed.
std::optional<Kind> peek_kind(int socket);

// The process at the other end, as it was when the two were connected; 0: not known.
pid_t peer_pid(int socket);

// A connected pair of sockets, close-on-exec. False with errno set.
bool make_pair(int sockets[2]);

}  // namespace mobula::wire
