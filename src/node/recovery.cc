#include "node/recovery.h"

#include <algorithm>
#include <span>

#include "mobula/error.h"
#include "shm/cancel.h"
#include "shm/futex.h"
#include "shm/holds.h"
#include "shm/journal.h"
#include "shm/ref_table.h"

namespace mobula::node {
namespace {

using shm::Address;
using shm::Record;
using shm::State;
namespace word = shm::word;

constexpr std::uint32_t kSubmission = 1u << shm::dependents::kSubmissionBit;
constexpr std::uint32_t kLooksAtBlocker = 40;  // a fifth of a second, at the daemon's pace

// The refs among a record's arguments, and inside of its result. Values that contain some never
// leave memory.
using Refs = std::span<const std::uint64_t>;
Refs refs_of_arguments(const shm::Memory& memory, Record& record) {
  if (!(record.flags & shm::flag::kArgsHaveRefs)) return {};
  if (!(record.flags & shm::flag::kArgsStored))
    return shm::trailing_refs(record.args_inline, record.args_size);
  const shm::StoredAt& at = record.args_at();
  return shm::trailing_refs(memory.object(memory.object_offset(at)), at.size);
}
Refs refs_of_result(const shm::Memory& memory, Record& record) {
  if (!(record.flags & shm::flag::kResultHasRefs)) return {};
  if (record.result_kind != shm::ResultKind::Stored)
    return shm::trailing_refs(record.result_inline, record.result_size);
  const shm::StoredAt& at = record.result_at();
  return shm::trailing_refs(memory.object(memory.object_offset(at)), at.size);
}

shm::CompactError group_removed(const Record& task) {
  return {static_cast<std::uint32_t>(ErrorCode::kPlacementGroupRemoved),
          0,
          0,
          0,
          0,
          task.scheduling_class,
          task.function};
}

}  // namespace

Recovery::Recovery(shm::Memory& memory, Tables& tables, ObjectMemory& objects,
                   std::uint32_t daemon_participant)
    : memory_(memory), tables_(tables), objects_(objects), me_(daemon_participant) {}

void Recovery::open_class_ring(std::uint32_t cls) {
  if (memory_.scheduling_class(cls).rings.load() == 0) tables_.open_ring(me_, cls);
}

// Into the daemon's ring of its class, which is the first one that is looked at.
void Recovery::push(Record& record, Address address) {
  const std::uint32_t id = record.scheduling_class;
  auto& ring =
      *reinterpret_cast<shm::RingHeader*>(memory_.heap(memory_.scheduling_class(id).rings.load()));
  if (!shm::ring::has_room(ring)) {
    const std::uint64_t entries = 2 * (ring.stage[ring.stages.load() - 1].mask.load() + 1);
    const auto storage = tables_.ring_storage(entries);
    if (!storage || ring.stages.load() == shm::kRingStagesMax) {
      fail(record, address,
           {static_cast<std::uint32_t>(ErrorCode::kOutOfMemory), 1, 0, 0, 0, id, 0});
      return;
    }
    shm::ring::grow(ring, *storage, entries);
  }
  shm::ring::push(memory_, ring, address);
}

// Of a class whose placement group was removed.
bool Recovery::is_of_dead_class(const Record& record) const {
  return record.kind == shm::Kind::Task &&
         memory_.scheduling_class(record.scheduling_class).state.load(std::memory_order_seq_cst) ==
             static_cast<std::uint32_t>(shm::ClassState::Dead);
}

void Recovery::publish(Record& record, Address address) {
  if (is_of_dead_class(record)) return fail(record, address, group_removed(record));
  if (record.kind == shm::Kind::Task || record.kind == shm::Kind::Callback) push(record, address);
  shm::doorbell::ring(memory_, memory_.scheduling_class(record.scheduling_class),
                      shm::doorbell::kDeepBacklog);
}

void Recovery::repair(std::uint32_t process, const ProcessEnd& end, const ActorFate* actor) {
  const std::vector<std::uint32_t> participants = tables_.participants_of(process);
  for (const std::uint32_t p : participants) resolve_hold(process, p);
  settle_transfers(process, false);
  const std::vector<Address> put_off = actor ? take_repeated(actor->cls) : std::vector<Address>{};
  repair_open_calls(process, end, actor);  // they began before what was running
  repair_streams(process);
  for (const std::uint32_t p : participants) repair_claims(p, end, actor);
  for (const Address call : put_off) push(memory_.record(call.slot), call);
  republish_ready(process);
  // Not for each of a thousand actors that end in peace. (A worker may have been chosen to take a
  // task when it was about to leave; threads of the user's own may have been at anything.)
  const shm::Process& entry = memory_.process(process);
  const bool in_peace = entry.role.load() == static_cast<std::uint32_t>(shm::ProcessRole::Actor) &&
                        participants.size() == 1 && entry.left.load() != 0;
  if (!in_peace) wake_everybody();
  objects_.process_died(process);
  Orphan orphan{process};
  if (actor && actor->cls != shm::kNone) {
    const shm::LastingState& state = memory_.scheduling_class(actor->cls).lasting;
    orphan.actor = actor->cls;
    orphan.journaled = state.taken.load(std::memory_order_acquire);
  }
  orphans_.push_back(orphan);
}

// Calls that an earlier life of the actor had begun and the last one had not come to again. They
// come behind those that it had.
std::vector<Address> Recovery::take_repeated(std::uint32_t actor) {
  std::vector<Address> calls;
  if (actor == shm::kNone) return calls;
  auto& ring = *reinterpret_cast<shm::RingHeader*>(
      memory_.heap(memory_.scheduling_class(actor).rings.load()));
  const std::uint64_t head = ring.head.load();
  for (std::uint64_t t = ring.tail.load(); t < head; ++t) {
    const Address address = Address::unpack(shm::ring::entry(memory_, ring, t).load());
    const std::uint64_t state = memory_.record(address.slot).state.load(std::memory_order_acquire);
    if (word::generation(state) == address.generation && word::state(state) == State::Ready)
      calls.push_back(address);
  }
  ring.tail.store(head);  // its one claimer is dead
  return calls;
}

// Did the change that the dead thread had opened happen? Brings its hold table in line with the
// answer.
void Recovery::resolve_hold(std::uint32_t process, std::uint32_t participant) {
  shm::HoldIntent& intent = memory_.participant(participant).hold;
  const auto op = static_cast<shm::HoldOp>(intent.op.load(std::memory_order_acquire));
  if (op == shm::HoldOp::None) return;
  const bool applied = shm::holds::applied(memory_, participant);
  if (op == shm::HoldOp::ReleaseContained) {
    const Address container = Address::unpack(intent.container.load());
    std::uint32_t& released = shm::stream::is_mark(container)
                                  ? shm::stream::marked(memory_, container).refs_released
                                  : memory_.record(container.slot).refs_released;
    released = intent.entry.load() + (applied ? 1 : 0);
  } else {
    shm::HoldEntry& entry = *hold_line(process, intent.entry.load());
    const bool held = (op == shm::HoldOp::Hold) == applied;
    entry.record.store(held ? intent.record.load() : 0);
    if (!held) entry.container.store(0);
  }
  shm::holds::close(memory_.participant(participant));
}

shm::HoldEntry* Recovery::hold_line(std::uint32_t process, std::uint32_t line) {
  const std::uint32_t number = line / shm::kHoldsPerSegment;
  if (number >= shm::kHoldSegmentsMax) return nullptr;
  const std::uint32_t segment = memory_.process(process).hold_segments[number].load();
  if (segment == shm::kNone) return nullptr;
  return &reinterpret_cast<shm::HoldEntry*>(memory_.segment(segment))[line % shm::kHoldsPerSegment];
}

bool Recovery::give_hold(std::uint32_t process, std::uint32_t line, Address address,
                         const std::atomic<std::uint64_t>* kill_request) {
  shm::HoldEntry* const entry = hold_line(process, line);
  if (!entry) return false;
  Record& record = memory_.record(address.slot);
  shm::holds::open(memory_.participant(me_), shm::HoldOp::Hold, address, line);
  // The count before the request: if nobody had closed it, and nobody says that the last handle is
  // gone, then it is this actor's record, and if the count is the same still, it stays that.
  std::uint64_t seen = record.refs.load(std::memory_order_acquire);
  bool held = false;
  do {
    if (shm::holds::is_closed(seen) ||
        (kill_request && shm::is_meant_to_end(kill_request->load(std::memory_order_seq_cst))))
      break;
    held = shm::holds::try_hold(memory_, me_, record, seen);
  } while (!held);
  if (held) entry->record.store(address.packed(), std::memory_order_release);
  shm::holds::close(memory_.participant(me_));
  return held;
}

void Recovery::release_hold(Address record) {
  shm::holds::open(memory_.participant(me_), shm::HoldOp::Release, record, 0);
  shm::holds::change(memory_, me_, memory_.record(record.slot), -1);
  shm::holds::close(memory_.participant(me_));
}

// Has what contains a ref become visible, and the hold its own?
bool Recovery::published(Address container) const {
  if (shm::stream::is_mark(container)) return shm::stream::published(memory_, container);
  const std::uint64_t state = memory_.record(container.slot).state.load(std::memory_order_acquire);
  return word::generation(state) != container.generation || word::state(state) == State::Free ||
         word::is_final(state);
}

// Holds on their way into a result or a stream: published with it, or given up. `all`: the
// process's own holds, too. One on a record of its own was about to be given back
// (HoldTable::adopt), and must not keep what else waits for that record's end.
void Recovery::settle_transfers(std::uint32_t process, bool all) {
  const auto is_own = [&](Address record) {
    const std::uint32_t owner = memory_.segment_owner(record.slot / shm::kRecordsPerSegment).load();
    return owner != shm::kNone && memory_.participant(owner).process.load() == process;
  };
  for (auto& segment : memory_.process(process).hold_segments) {
    if (segment.load() == shm::kNone) break;
    auto* lines = reinterpret_cast<shm::HoldEntry*>(memory_.segment(segment.load()));
    for (std::uint32_t i = 0; i < shm::kHoldsPerSegment; ++i) {
      const Address record = Address::unpack(lines[i].record.load());
      if (!record) continue;
      const Address container = Address::unpack(lines[i].container.load());
      if (container) {
        if (!published(container)) release_hold(record);
      } else if (all || is_own(record)) {
        release_hold(record);
      } else {
        continue;
      }
      lines[i].record.store(0);
      lines[i].container.store(0);
    }
  }
}

// Calls that waited for their answer: no intent names them. In the order of each caller, since they
// are repeated in it.
void Recovery::repair_open_calls(std::uint32_t process, const ProcessEnd& end,
                                 const ActorFate* actor) {
  if (memory_.process(process).open_calls.exchange(0) == 0) return;
  std::vector<Address> open;
  for (const std::uint32_t segment : tables_.record_segments()) {
    const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
    for (std::uint32_t r = 0; r < ready; ++r) {
      const std::uint32_t slot = segment * shm::kRecordsPerSegment + r;
      const std::uint64_t state = memory_.record(slot).state.load(std::memory_order_acquire);
      if (word::state(state) != State::Claimed || word::claimer(state) == 0) continue;
      if (memory_.participant(word::claimer(state)).process.load() == process &&
          (memory_.record(slot).flags & shm::flag::kOpen))
        open.push_back({slot, word::generation(state)});
    }
  }
  const auto order = [&](Address address) {
    const Record& record = memory_.record(address.slot);
    return std::pair{record.parent, record.index};
  };
  std::sort(open.begin(), open.end(), [&](Address a, Address b) { return order(a) < order(b); });
  for (const Address address : open)
    repair_claim(word::claimer(memory_.record(address.slot).state.load()), address, end, actor);
}

// What the dead had taken out of streams is nobody else's: it is given up.
void Recovery::repair_streams(std::uint32_t process) {
  for (std::uint32_t i = 0; i < tables_.stream_limit(); ++i) {
    shm::Stream& stream = shm::stream::at(memory_, i);
    if (stream.record.load(std::memory_order_acquire) == 0) continue;
    for (shm::StreamSlot& slot : stream.slots) {
      const std::uint64_t w = slot.word.load(std::memory_order_acquire);
      if (shm::slot::state(w) != shm::slot::State::Taken ||
          memory_.participant(shm::slot::reader(w)).process.load() != process)
        continue;
      drop_item(slot);
      shm::stream::free(stream, shm::slot::number(w));
    }
  }
}

void Recovery::drop_item(shm::StreamSlot& slot) {
  const bool stored = slot.flags & shm::kItemStored;
  if (slot.flags & shm::kItemHasRefs) {
    const Refs refs = stored ? shm::trailing_refs(memory_.object(memory_.object_offset(slot.at())),
                                                  slot.at().size)
                             : shm::trailing_refs(slot.bytes, slot.size);
    for (std::size_t r = slot.refs_released; r < refs.size(); ++r)
      release_hold(Address::unpack(refs[r]));
  }
  if (stored) memory_.give_back(slot.at());
}

void Recovery::repair_claims(std::uint32_t participant, const ProcessEnd& end,
                             const ActorFate* actor) {
  shm::Participant& dead = memory_.participant(participant);
  const std::uint32_t depth = dead.depth.load(std::memory_order_acquire);
  // The entry behind the last may have been written, its depth not yet.
  const std::uint32_t listed = std::min(depth + 1, shm::kIntentsMax);
  for (std::uint32_t i = 0; i < listed; ++i) {
    const Address address = Address::unpack(dead.executing[i].load(std::memory_order_relaxed));
    if (address) repair_claim(participant, address, end, actor);
  }
  if (depth > shm::kIntentsMax) {  // deeper than its list: every record is asked
    for (const std::uint32_t segment : tables_.record_segments()) {
      const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
      for (std::uint32_t r = 0; r < ready; ++r) {
        const std::uint32_t slot = segment * shm::kRecordsPerSegment + r;
        const std::uint64_t state = memory_.record(slot).state.load();
        const bool unwalked = word::is_final(state) && (state & word::kHasDependents);
        if ((word::state(state) == State::Claimed || unwalked) &&
            word::claimer(state) == participant) {
          repair_claim(participant, {slot, word::generation(state)}, end, actor);
        }
      }
    }
  }
  for (auto& entry : dead.executing) entry.store(0, std::memory_order_relaxed);
  dead.depth.store(0);
}

void Recovery::repair_claim(std::uint32_t participant, Address address, const ProcessEnd& end,
                            const ActorFate* actor) {
  Record& record = memory_.record(address.slot);
  std::uint64_t state = record.state.load(std::memory_order_acquire);
  if (word::generation(state) != address.generation) return;  // done and recycled
  if (word::is_final(state)) {
    if (word::claimer(state) != participant) return;
    shm::futex_wake_all(reinterpret_cast<const std::uint32_t*>(&record.state));
    if (state & word::kHasDependents) {
      shm::dependents::resume_walk(memory_, memory_.participant(participant),
                                   memory_.participant(me_), record, address, *this);
    }
    return;
  }
  if (word::state(state) == State::Ready && record.kind == shm::Kind::Task) {
    publish(record, address);  // opened again by an exception's retry, and perhaps in no ring
    return;
  }
  if (word::state(state) == State::Claimed && word::claimer(state) != participant &&
      (state & word::kForce)) {
    condemned_.push_back(address);  // it died cancelling this one, and may have told nobody
    return;
  }
  if (word::state(state) != State::Claimed || word::claimer(state) != participant)
    return;  // somebody else's

  const std::uint32_t process = memory_.participant(participant).process.load();
  const auto end_cancelled = [&] {
    fail(record, address,
         {static_cast<std::uint32_t>(ErrorCode::kTaskCancelled), 0, 0, 0, 0,
          record.scheduling_class, 0},
         participant);
    cancel_children(process, record);
  };
  if (state & word::kCancelled) return end_cancelled();
  const std::uint32_t attempt = word::attempt(state);
  const auto may_retry = [&](int retries) {
    return retries < 0 || static_cast<int>(attempt) < retries;
  };
  bool again = false;
  ErrorCode code = end.cause.death == shm::Death::OutOfMemory ? ErrorCode::kOutOfMemory
                                                              : ErrorCode::kWorkerCrashed;
  if (is_of_dead_class(record)) {
    fail(record, address, group_removed(record), participant);
    return cancel_children(process, record);
  }
  switch (record.kind) {
    case shm::Kind::ActorCreate:
      again = actor && actor->restarts;
      code = ErrorCode::kActorDied;
      break;
    case shm::Kind::ActorCall:
      again = actor && actor->restarts &&
              (may_retry(record.retries == shm::kRetriesOfActor ? actor->max_task_retries
                                                                : record.retries) ||
               (memory_.scheduling_class(record.scheduling_class).lasting.options & shm::kReplays));
      code = actor && actor->restarts ? ErrorCode::kActorUnavailable : ErrorCode::kActorDied;
      break;
    default: again = may_retry(record.retries);
  }
  if (!again) {
    fail(record, address,
         {static_cast<std::uint32_t>(code), attempt + 1, end.signal, end.exit_code, end.pid,
          record.scheduling_class,
          code == ErrorCode::kWorkerCrashed ? record.function : end.cause.packed()},
         participant);
    cancel_children(process, record);
    return;
  }
  // What the dead attempt left of a result is nobody's now; ObjectMemory finds its memory.
  record.result_kind = shm::ResultKind::None;
  record.flags &= static_cast<std::uint8_t>(~(shm::flag::kResultHasRefs | shm::flag::kOpen));
  do {
    if (state & word::kCancelled) return end_cancelled();
  } while (!record.state.compare_exchange_weak(
      state, word::with_next_attempt(word::with_state(state, State::Ready)),
      std::memory_order_acq_rel));
  // The new process looks at our ring first: the interrupted call keeps its place.
  if (record.kind == shm::Kind::ActorCall) push(record, address);
  publish(record, address);
}

void Recovery::fail(Record& record, Address address, const shm::CompactError& error,
                    std::uint32_t dead) {
  std::uint64_t state = record.state.load(std::memory_order_acquire);
  const auto open = [&] {
    if (word::generation(state) != address.generation) return false;
    const State s = word::state(state);
    return s == State::Ready || s == State::Waiting ||
           (s == State::Claimed && word::claimer(state) == dead);
  };
  while (open()) {
    if (!record.state.compare_exchange_weak(
            state, word::with_claimer(word::with_state(state, State::Claimed), me_),
            std::memory_order_acq_rel)) {
      continue;
    }
    record.flags &= static_cast<std::uint8_t>(~shm::flag::kResultHasRefs);
    record.error() = error;
    failed_ += error.code != static_cast<std::uint32_t>(ErrorCode::kTaskCancelled);
    record.result_kind = shm::ResultKind::ErrorCode;
    const bool produces = record.flags & shm::flag::kStream;
    const auto stream = static_cast<std::uint32_t>(record.result_word);
    shm::claim::complete(memory_, memory_.participant(me_), record, address, State::Failed, *this);
    if (produces) shm::stream::wake_readers(shm::stream::at(memory_, stream));
    return;
  }
}

void Recovery::fail_deadlocked(Address call, std::uint64_t number) {
  Record& record = memory_.record(call.slot);
  const std::uint32_t cls = record.scheduling_class;
  fail(record, call,
       {static_cast<std::uint32_t>(ErrorCode::kActorDeadlock), 0, 0, 0, 0, cls, number});
  // It may have held back the calls behind it.
  shm::doorbell::ring(memory_, memory_.scheduling_class(cls), shm::doorbell::kDeepBacklog);
}

void Recovery::cancel_children(std::uint32_t process, Record& record) {
  const std::uint64_t how = record.state.load(std::memory_order_acquire);
  if (!(how & word::kCancelled) || !(how & word::kCancelChildren)) return;
  const std::uint64_t parent = record.identity();
  each_record(process, [&](Record& child, std::uint32_t slot) {
    const bool is_call = child.kind == shm::Kind::ActorCall;
    if ((child.kind != shm::Kind::Task && !is_call) || child.parent != parent) return;
    const Address at{slot, word::generation(child.state.load(std::memory_order_acquire))};
    const std::uint64_t force = is_call ? 0 : how & word::kForce;
    const auto answer =
        shm::cancellation::cancel(memory_, memory_.participant(me_), me_, child, at,
                                  word::kCancelChildren | force | (how & word::kLate), *this);
    if (answer == shm::cancellation::Answer::Asked && force) condemned_.push_back(at);
  });
}

void Recovery::expire(Address task) {
  Record& record = memory_.record(task.slot);
  const auto answer = shm::cancellation::cancel(memory_, memory_.participant(me_), me_, record,
                                                task, word::kCancelChildren | word::kLate, *this);
  if (answer != shm::cancellation::Answer::Asked || !(record.flags & shm::flag::kOpen)) return;
  // Perhaps no thread runs it: its process is told.
  const std::uint32_t claimer = word::claimer(record.state.load(std::memory_order_acquire));
  shm::Process& its = memory_.process(memory_.participant(claimer).process.load());
  its.cancels.fetch_add(1, std::memory_order_seq_cst);
  its.bell.value.fetch_add(1, std::memory_order_seq_cst);
  shm::futex_wake_all(shm::futex_word(its.bell.value));
}

void Recovery::fail_calls(std::uint32_t id) {
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  const shm::CompactError error{static_cast<std::uint32_t>(ErrorCode::kActorDied),
                                1,
                                cls.death.signal,
                                cls.death.exit_code,
                                cls.death.pid,
                                id,
                                cls.death.cause};
  const auto fail_if_open = [&](Address address) {
    Record& record = memory_.record(address.slot);
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    if (word::generation(state) != address.generation) return;
    if (word::state(state) == State::Ready || word::state(state) == State::Waiting)
      fail(record, address, error);
  };
  if (const Address creation = Address::unpack(cls.creation.load())) fail_if_open(creation);
  for (std::uint64_t at = cls.rings.load(); at != 0;) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
    for (std::uint64_t t = ring.tail.load(); t < ring.head.load(std::memory_order_acquire);
         t = ring.tail.load()) {
      fail_if_open(Address::unpack(shm::ring::entry(memory_, ring, t).load()));
      ring.tail.compare_exchange_strong(t, t + 1);
    }
    at = ring.next.load();
  }
}

void Recovery::fail_tasks(const std::vector<std::uint32_t>& classes) {
  if (classes.empty()) return;
  for (const std::uint32_t segment : tables_.record_segments()) {
    const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
    for (std::uint32_t r = 0; r < ready; ++r) {
      const std::uint32_t slot = segment * shm::kRecordsPerSegment + r;
      Record& record = memory_.record(slot);
      const std::uint64_t state = record.state.load(std::memory_order_acquire);
      if ((word::state(state) == State::Ready || word::state(state) == State::Waiting) &&
          record.kind == shm::Kind::Task &&
          std::find(classes.begin(), classes.end(), record.scheduling_class) != classes.end())
        fail(record, {slot, word::generation(state)}, group_removed(record));
    }
  }
}

bool Recovery::withdraw_creation(Address creation, std::uint32_t dead_process) {
  const std::uint32_t owner = memory_.segment_owner(creation.slot / shm::kRecordsPerSegment).load();
  if (owner == shm::kNone || memory_.participant(owner).process.load() != dead_process)
    return false;
  Record& record = memory_.record(creation.slot);
  const std::uint64_t state = record.state.load();
  if (word::state(state) != State::Free || word::generation(state) + 1 != creation.generation)
    return false;
  record.state.store(word::make(creation.generation, State::Free));
  return true;
}

template <class Visit>
void Recovery::each_record(std::uint32_t process, const Visit& visit) {
  for (const std::uint32_t p : tables_.participants_of(process)) {
    for (const std::uint32_t segment : tables_.segments_of(p)) {
      const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
      for (std::uint32_t r = 0; r < ready; ++r) {
        const std::uint32_t slot = segment * shm::kRecordsPerSegment + r;
        visit(memory_.record(slot), slot);
      }
    }
  }
}

// Records that the dead process made ready and may not have pushed. One that is in a ring already
// is claimed only once.
void Recovery::republish_ready(std::uint32_t process) {
  // Taken before the states are looked at: a call that is Ready then and not listed was never
  // pushed.
  const std::unordered_set<std::uint64_t> queued_calls = calls_in_rings(process);
  each_record(process, [&](Record& record, std::uint32_t slot) {
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    const Address address{slot, word::generation(state)};
    if (word::state(state) == State::Ready && record.kind == shm::Kind::Task)
      publish(record, address);
    if (word::state(state) == State::Ready && record.kind == shm::Kind::ActorCall &&
        !queued_calls.contains(address.packed()))
      abandon(record, slot);
    if (record.kind == shm::Kind::Callback &&
        (word::state(state) == State::Ready || word::state(state) == State::Waiting))
      return abandon(record, slot);  // what it would run has died with its process
    if (word::state(state) != State::Waiting) return;
    const std::uint64_t open = record.join.load(std::memory_order_acquire);
    if (open & kSubmission) abandon(record, slot);
    // It died between closing the last edge and making the record ready.
    if (static_cast<std::uint32_t>(open) == 0) {
      shm::dependents::satisfy(memory_, slot, address.generation, shm::dependents::kSubmissionBit,
                               *this, /*repair=*/true);
    }
  });
}

// The actor calls of a dead process that its rings, or the daemon's, still hold.
std::unordered_set<std::uint64_t> Recovery::calls_in_rings(std::uint32_t process) {
  std::unordered_set<std::uint64_t> calls;
  for (std::uint32_t c = 0; c < tables_.class_limit(); ++c) {
    const shm::SchedulingClass& cls = memory_.scheduling_class(c);
    if (cls.kind.load() != static_cast<std::uint32_t>(shm::ClassKind::Actor)) continue;
    for (std::uint64_t at = cls.rings.load(); at != 0;) {
      auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
      const std::uint32_t pusher = ring.participant.load();
      if (pusher == me_ ||
          (pusher != shm::kNone && memory_.participant(pusher).process.load() == process)) {
        for (std::uint64_t t = ring.tail.load(); t < ring.head.load(); ++t)
          calls.insert(shm::ring::entry(memory_, ring, t).load());
      }
      at = ring.next.load();
    }
  }
  return calls;
}

// Its submitter died before anybody could know of it.
void Recovery::abandon(Record& record, std::uint32_t slot) {
  const std::uint64_t state = record.state.load();
  record.result_kind = shm::ResultKind::None;
  if (record.kind != shm::Kind::Join)
    record.parent = 0;  // nobody's child: an actor's call that is run again submits it again
  if (record.kind == shm::Kind::Join) {
    record.state.store(word::with_state(state, State::Done));
    return;
  }
  fail(record, {slot, word::generation(state)},
       {static_cast<std::uint32_t>(ErrorCode::kTaskCancelled), 0, 0, 0, 0, record.scheduling_class,
        0});
}

// The dead may have owed somebody a wake-up. Everybody who sleeps looks again.
void Recovery::wake_everybody() {
  const auto wake = [](shm::Bell& bell) {
    bell.value.fetch_add(1);
    shm::futex_wake_all(shm::futex_word(bell.value));
  };
  wake(memory_.header().any_bell);
  for (std::uint32_t p = 1; p < tables_.participant_limit(); ++p)
    wake(memory_.participant(p).completions);
  for (std::uint32_t i = 0; i < tables_.stream_limit(); ++i) {
    if (shm::Stream& stream = shm::stream::at(memory_, i); stream.record.load() != 0)
      shm::stream::wake_all(stream);
  }
  for (std::uint32_t i = 0; i < tables_.process_limit(); ++i) {
    if (memory_.process(i).role.load() == static_cast<std::uint32_t>(shm::ProcessRole::None))
      continue;
    memory_.process(i).cancels.fetch_add(1);
    wake(memory_.process(i).bell);
  }
}

// May this record of a dead owner be freed as far as it goes itself?
bool Recovery::settled(Record& record) {
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  if (word::state(state) == State::Free) return true;
  if (!word::is_final(state) || (state & word::kHasDependents)) return false;
  if (shm::holds::count(record.refs.load(std::memory_order_acquire)) != 0) return false;
  if (shm::journal::needs(memory_, record)) return false;
  const auto open = static_cast<std::uint32_t>(record.join.load());
  for (std::uint32_t i = 0; i < record.dependencies; ++i) {
    const Address target = Address::unpack(record.edge(i).target);
    if (!(open & (1u << i)) || !target) continue;
    // The edge may hang in the target's list until that was walked.
    const std::uint64_t t = memory_.record(target.slot).state.load(std::memory_order_acquire);
    if (word::generation(t) == target.generation &&
        (!word::is_final(t) || (t & word::kHasDependents)))
      return false;
  }
  return true;
}

void Recovery::drop_contents(Record& record, Address address) {
  if (record.kind == shm::Kind::Join) return;
  if (record.kind == shm::Kind::ActorCreate && record.scheduling_class != shm::kNone) {
    // Its owner may have died after it had said so, and the class may be another actor's by now.
    shm::SchedulingClass& cls = memory_.scheduling_class(record.scheduling_class);
    if (cls.creation.load() == address.packed()) cls.kill_request.fetch_or(shm::kLastHandleGone);
  }
  // A put's refs were its owner's own and go with the owner; those of a task's result are counted
  // for the result.
  if (record.kind != shm::Kind::Put) {
    const Refs refs = refs_of_result(memory_, record);
    for (std::size_t r = record.refs_released; r < refs.size(); ++r)
      release_hold(Address::unpack(refs[r]));
  }
  if (record.flags & shm::flag::kStream) {
    shm::stream::close(shm::stream::at(memory_, static_cast<std::uint32_t>(record.result_word)),
                       address, me_,
                       [&](shm::StreamSlot& slot, std::uint64_t) { drop_item(slot); });
  }
  if (record.flags & shm::flag::kArgsStored) memory_.give_back(record.args_at());
  if (record.result_kind == shm::ResultKind::Stored) memory_.give_back(record.result_at());
}

// Is it a checkpoint of its actor, or may calls that are run again ask for what they had submitted?
bool Recovery::kept_for_actor(const Orphan& orphan, Record& record, std::uint32_t slot) {
  if (orphan.actor == shm::kNone) return false;
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  if (word::state(state) == State::Free) return false;
  const shm::LastingState& kept = memory_.scheduling_class(orphan.actor).lasting;
  if (kept.covered.load(std::memory_order_acquire) < orphan.journaled) return true;
  const std::uint64_t address = Address{slot, word::generation(state)}.packed();
  return kept.checkpoint[0].load() == address || kept.checkpoint[1].load() == address;
}

// Does this record of a dead owner still need what the owner held: as arguments, or inside of a
// put?
bool Recovery::needs_holds(const Orphan& orphan, Record& record, std::uint32_t slot) {
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  if (word::state(state) == State::Free || record.kind == shm::Kind::Join) return false;
  if (!word::is_final(state)) return true;
  if (kept_for_actor(orphan, record, slot)) return true;
  if ((record.flags & shm::flag::kArgsHaveRefs) && shm::journal::needs(memory_, record))
    return true;
  const bool keeps = record.kind == shm::Kind::ActorCreate ||  // its arguments, for a restart
                     (record.kind == shm::Kind::Put && (record.flags & shm::flag::kResultHasRefs));
  return keeps && shm::holds::count(record.refs.load(std::memory_order_acquire)) != 0;
}

// What the arguments of a final record, or the value of a put, refer to. The owner counted these
// refs privately, so the counts of what they name do not tell of them.
template <class Visit>
void Recovery::each_owned_ref(Record& record, const Visit& visit) {
  for (const std::uint64_t ref : refs_of_arguments(memory_, record)) visit(ref);
  if (record.kind != shm::Kind::Put) return;
  for (const std::uint64_t ref : refs_of_result(memory_, record)) visit(ref);
}

// Frees what nothing refers to any more, one by one: a result may hold what lies in the same
// ledger. True: nothing is left.
bool Recovery::free_settled(Orphan& orphan) {
  for (bool freed = true; freed;) {
    freed = false;
    std::unordered_set<std::uint64_t> owned;
    each_record(orphan.process, [&](Record& record, std::uint32_t slot) {
      if (needs_holds(orphan, record, slot))
        each_owned_ref(record, [&](std::uint64_t ref) { owned.insert(ref); });
    });
    orphan.blocker = 0;
    each_record(orphan.process, [&](Record& record, std::uint32_t slot) {
      const std::uint64_t state = record.state.load();
      if (word::state(state) == State::Free) return;
      const Address address{slot, word::generation(state)};
      if (!settled(record) || kept_for_actor(orphan, record, slot) ||
          owned.contains(address.packed())) {
        orphan.blocker = slot;
        return;
      }
      drop_contents(record, address);
      shm::holds::acknowledge(memory_, record.refs.load(), me_);
      record.refs.store(0);
      record.state.store(word::make(word::generation(state), State::Free));
      freed = true;
    });
  }
  return orphan.blocker == 0;
}

// Producers that the dead has submitted and whose streams nobody can read any more.
void Recovery::stop_unread(const Orphan& orphan) {
  std::unordered_map<std::uint64_t, std::uint32_t> streams;  // by packed address of the producer
  each_record(orphan.process, [&](Record& record, std::uint32_t slot) {
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    if (word::state(state) != State::Free && !word::is_final(state) &&
        (record.flags & shm::flag::kStream) &&
        shm::holds::count(record.refs.load(std::memory_order_acquire)) == 0) {
      streams.emplace(Address{slot, word::generation(state)}.packed(),
                      static_cast<std::uint32_t>(record.result_word));
    }
  });
  if (streams.empty()) return;
  each_record(orphan.process, [&](Record& record, std::uint32_t slot) {
    if (needs_holds(orphan, record, slot))
      each_owned_ref(record, [&](std::uint64_t ref) { streams.erase(ref); });
  });
  for (const auto& [record, stream] : streams) shm::stream::stop(shm::stream::at(memory_, stream));
}

bool Recovery::try_free(Orphan& orphan) {
  const std::uint32_t process = orphan.process;
  // Its holds go as soon as nothing of it needs them, though others may hold its records for long:
  // two dead processes must not keep each other's for ever.
  if (!orphan.holds_released &&
      (orphan.holding == 0 ||
       !needs_holds(orphan, memory_.record(orphan.holding), orphan.holding))) {
    orphan.holding = 0;
    each_record(process, [&](Record& record, std::uint32_t slot) {
      if (orphan.holding == 0 && needs_holds(orphan, record, slot)) orphan.holding = slot;
    });
    if (orphan.holding == 0) {
      settle_transfers(process, true);
      tables_.return_holds(process);
      orphan.holds_released = true;
    }
  }
  // The record that was in the way the last time probably still is: a look at it is cheap. One at
  // all of them is not, and is taken now and then, since others may have become free.
  if (orphan.blocker != 0 &&
      (!settled(memory_.record(orphan.blocker)) ||
       kept_for_actor(orphan, memory_.record(orphan.blocker), orphan.blocker)) &&
      ++orphan.looks % kLooksAtBlocker != 0)
    return false;
  // What is not final may give refs to others that only the dead has counted.
  orphan.blocker = 0;
  each_record(process, [&](Record& record, std::uint32_t slot) {
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    if (word::state(state) != State::Free && !word::is_final(state)) orphan.blocker = slot;
  });
  if (orphan.blocker != 0) stop_unread(orphan);
  if (orphan.blocker != 0 || !free_settled(orphan)) return false;
  if (!orphan.holds_released) {
    settle_transfers(process, true);
    tables_.return_holds(process);
  }
  for (std::uint32_t c = 0; c < tables_.class_limit(); ++c) {
    for (std::uint64_t at = memory_.scheduling_class(c).rings.load(); at != 0;) {
      auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
      const std::uint32_t pusher = ring.participant.load();
      if (pusher != shm::kNone && pusher != me_ &&
          memory_.participant(pusher).process.load() == process)
        ring.participant.store(shm::kNone);
      at = ring.next.load();
    }
  }
  const std::vector<std::uint32_t> participants = tables_.participants_of(process);
  for (const std::uint32_t p : participants) tables_.close_participant(p);
  tables_.return_streams(process);
  tables_.close_process(process);
  return true;
}

std::vector<std::uint32_t> Recovery::past_segments(std::uint32_t actor) const {
  std::vector<std::uint32_t> all;
  for (const Orphan& orphan : orphans_) {
    if (orphan.actor != actor) continue;
    for (const std::uint32_t p : tables_.participants_of(orphan.process)) {
      const std::vector<std::uint32_t>& segments = tables_.segments_of(p);
      all.insert(all.end(), segments.begin(), segments.end());
    }
  }
  return all;
}

bool Recovery::settle_orphans() {
  std::erase_if(orphans_, [&](Orphan& orphan) { return try_free(orphan); });
  return !orphans_.empty();
}

}  // namespace mobula::node
