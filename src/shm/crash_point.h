// Names every step of every shared-memory protocol at which a process may be killed.
//
// A test arms points through the environment, MOBULA_CRASH_POINT=name[:n][@role],..., and the
// process that reaches one for the n-th time kills itself with SIGKILL, as the kernel would: no
// handler runs, nothing is flushed. Each armed crash happens once in a session, so that a restarted
// worker survives. Points stay in release builds, so that what is tested is what is shipped; one
// that is not armed costs a load and a branch.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

// name, what has just happened (or not yet) when the process dies there
#define MOBULA_CRASH_POINTS(X)                                                                  \
  X(SubmitFieldsWritten, "submit.fields_written", "record filled in, state still Free")         \
  X(SubmitLinked, "submit.linked", "hung on its arguments, submission bit still set")           \
  X(SubmitReady, "submit.ready", "state Ready, not in a ring yet")                              \
  X(SubmitPushed, "submit.pushed", "in the ring, nobody woken yet")                             \
  X(RingGrown, "ring.grown", "larger ring linked, not pushed into yet")                         \
  X(CreateOpened, "create.opened", "class names the actor's creation, still Free")              \
  X(ClaimIntent, "claim.intent", "intent written, record not claimed yet")                      \
  X(ClaimTaken, "claim.taken", "record claimed, ring tail not moved yet")                       \
  X(ClaimMoved, "claim.moved", "record claimed, ring tail moved")                               \
  X(ExecuteBefore, "execute.before", "about to call the function")                              \
  X(ExecuteAfter, "execute.after", "function returned, result not written")                     \
  X(ResultWritten, "result.written", "result in place, state still Claimed")                    \
  X(CompleteDone, "complete.done", "state final, nobody woken, dependents not walked")          \
  X(CompleteWoken, "complete.woken", "waiters woken, dependents not walked")                    \
  X(WalkCursor, "walk.cursor", "an edge is noted, its dependent not told")                      \
  X(WalkSatisfied, "walk.satisfied", "last missing argument ticked off, state still Waiting")   \
  X(WalkReady, "walk.ready", "dependent Ready, not in a ring yet")                              \
  X(WalkFinished, "walk.finished", "all dependents told, record still marked as walking")       \
  X(CancelDone, "cancel.done", "state final as cancelled, nobody woken")                        \
  X(CancelAsked, "cancel.asked", "bit set in a running task, nobody told")                      \
  X(ReplyOpened, "reply.opened", "an open call is counted, its method not called yet")          \
  X(ReplyTaken, "reply.taken", "another thread is the claimer now, and has not answered yet")   \
  X(JournalNumbered, "journal.numbered", "call has its number, no entry in the journal")        \
  X(JournalTaken, "journal.taken", "call in the journal, its method not called yet")            \
  X(JournalNoted, "journal.noted", "outcome of a wait named as a child, state still Free")      \
  X(CheckpointWritten, "checkpoint.written", "a sealed object, its actor does not name it")     \
  X(CheckpointNamed, "checkpoint.named", "it replaces the older one, journal not trimmed")      \
  X(CheckpointCovered, "checkpoint.covered", "journal trimmed, what calls submitted held yet")  \
  X(CompleteFinished, "complete.finished", "all done, intent not cleared yet")                  \
  X(HoldIntent, "hold.intent", "intent to hold written, count unchanged")                       \
  X(HoldCounted, "hold.counted", "count raised, intent still open")                             \
  X(ReleaseIntent, "release.intent", "intent to release written, count unchanged")              \
  X(ReleaseCounted, "release.counted", "count lowered, hold table still lists it")              \
  X(TransferHeld, "transfer.held", "refs inside a result are held, result not published")       \
  X(TransferForgotten, "transfer.forgotten", "result published, half of the holds handed over") \
  X(RecycleStarted, "recycle.started", "record dropped, its memory not given back")             \
  X(RecyclePayload, "recycle.payload", "its payload given back, record not free yet")           \
  X(RecycleFree, "recycle.free", "state Free")                                                  \
  X(AllocateTaken, "allocate.taken", "block of the store taken, no record names it")            \
  X(SealBefore, "seal.before", "bytes written, no record names them")                           \
  X(PinTaken, "pin.taken", "pin counted, residency not looked at")                              \
  X(PinReleased, "pin.released", "about to give a pin back")                                    \
  X(RestoreAsked, "restore.asked", "reading from disk was ordered, not asleep yet")             \
  X(SpillWritten, "spill.written", "bytes in the file, their pages still there")                \
  X(SpillDropped, "spill.dropped", "pages given up, extent still Leaving")                      \
  X(RestoreRead, "restore.read", "bytes back in memory, extent still Restoring")                \
  X(StreamWritten, "stream.written", "item in its slot, not published")                         \
  X(StreamPushed, "stream.pushed", "item published, holds not handed over, nobody woken")       \
  X(StreamTaken, "stream.taken", "item taken by a reader, nothing of it read")                  \
  X(StreamRead, "stream.read", "item read, what it held given up, slot not free")               \
  X(StreamFreed, "stream.freed", "slot free, producer not woken")                               \
  X(WaitRegistered, "wait.registered", "waiter's bit set, not asleep yet")                      \
  X(SleepAnnounced, "sleep.announced", "worker listed as asleep, not asleep yet")               \
  X(SearchTaken, "search.taken", "worker is the one that searches")                             \
  X(WakeTaken, "wake.taken", "a sleeper was chosen and not woken yet")                          \
  X(JoinStarted, "join.started", "connected, shared memory not mapped")                         \
  X(JoinMapped, "join.mapped", "mapped, not announced")                                         \
  X(LeaveStarted, "leave.started", "about to leave, everything still held")

namespace mobula::shm {

enum class CrashPoint : std::uint8_t {
#define X(name, text, meaning) name,
  MOBULA_CRASH_POINTS(X)
#undef X
      kCount
};

struct CrashPointInfo {
  std::string_view name;
  std::string_view meaning;
};
const CrashPointInfo& crash_point_info(CrashPoint point);

// The session's word of armed crashes that have not happened yet, a bit each in the order of the
// list; nullptr: there is none yet, and each happens.
void set_open_crashes(std::atomic<std::uint32_t>* open);

// Reads MOBULA_CRASH_POINT; `role` is driver, worker, actor or node. Unknown names are reported on
// stderr.
void arm_crash_points(std::string_view role);

namespace detail {
extern std::uint64_t armed_points;  // a bit for each CrashPoint
static_assert(static_cast<int>(CrashPoint::kCount) <= 64);
void reach_armed_point(CrashPoint point);
}  // namespace detail

inline void crash_point(CrashPoint point) {
  if (__builtin_expect(detail::armed_points >> static_cast<int>(point) & 1, 0))
    detail::reach_armed_point(point);
}

}  // namespace mobula::shm
