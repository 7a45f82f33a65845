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

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace mobula::wire {

enum class Kind : std::uint32_t {
  // daemon -> process, with the descriptors of control memory, object memory and the daemon's bell
  Welcome = 1,  // a process, b object capacity
  Reply,  // status, results
  // driver -> its new daemon, first of all: a Config.memory_threshold times kThresholdOne, c object
  // capacity, d kStart... flags, text: resources and kSetting... amounts, 0, the folder for spilled
  // objects; descriptors: the program, its arguments
  Start,
  // process -> daemon
  Joined,  // mapped everything; no reply
  EndCancelled,  // c a running task that was cancelled by force: end its process; no reply
  LeaseLedger,  // -> a participant
  LeaseSegment,  // a participant -> a segment
  LeaseHolds,  // a number of the segment in the process's hold table -> a segment
  // a ClassKind -> a class. Of an actor: b max_restarts, c creation record, d max_task_retries and
  // kOutOfOrder, text: demand, then name, 0, groups of threads. Of tasks: text: demand
  OpenClass,
  OpenRing,  // a participant, b class -> c heap offset of the ring
  GrowRing,  // c ring, a entries -> c heap offset of the storage
  LeaseExtent,  // c size, d block size, b kHoldsRefs or 0 -> a extent
  RestoreExtent,  // a extent, being read from disk when the answer is Ok
  ObjectMemory,  // -> text: amounts, for memory_report()
  Resources,  // a 0 total, 1 available, 2 nodes -> text: demand form
  Explain,  // a class -> text
  Leave,  // the driver ends the session -> after everything else of it is gone
  // daemon -> zygote: with the new worker's socket, stdout and stderr
  Fork,  // a process, b role
  // zygote -> daemon
  Forked,  // a process, b pid (0: fork failed, c errno)
  Exited,  // b pid, c wait status
  ZygoteReady,
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
  ObjectLost
};

inline constexpr std::uint64_t kOutOfOrder = std::uint64_t{1} << 32;
inline constexpr std::uint64_t kStartLogs = 1;  // the driver wants the workers' output
inline constexpr std::uint64_t kStartLimitsMemory = 2;  // workers may use "memory", and no more
inline constexpr double kThresholdOne = 1e6;
inline constexpr std::uint32_t kHoldsRefs = 1;  // the value has a table of refs behind it
// Among the resources of Start, since they are amounts, too: no resource's name begins so.
inline constexpr std::string_view kSettingPrefix = "config.";
inline constexpr const char* kSettingSpillLimit = "config.spill_limit";  // bytes on disk, at most

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

// The exit code by which an actor's process tells that the constructor failed.
inline constexpr int kExitConstructorFailed = 76;
// By which a worker ends whose task was cancelled by force, if it is faster than the signal.
inline constexpr int kExitCancelled = 77;

// A connected pair of sockets, close-on-exec. False with errno set.
bool make_pair(int sockets[2]);

}  // namespace mobula::wire
