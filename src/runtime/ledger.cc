#include "runtime/ledger.h"

#include "runtime/execution.h"
#include "runtime/local_mode.h"
#include "runtime/value.h"
#include "shm/check.h"
#include "shm/dependents.h"
#include "shm/journal.h"

namespace mobula::runtime {
namespace {

// Slots and argument lists looked at per submission: two keep up with one submission, since each
// adds one at most.
constexpr int kTidyBudget = 2;

// Callbacks are in nobody's order: they have rings of their own.
constexpr std::uint64_t kCallbacks = ~std::uint64_t{0};

}  // namespace

Ledger::Ledger(Process& process, std::uint32_t participant, std::uint32_t segment)
    : process_(process), participant_(participant) {
  take_segment(segment);
}

void Ledger::take_segment(std::uint32_t segment) {
  process_.own_segment(segment, this);
  segments_.push_back(segment);
  fresh_ = fresh_end_ = segment * shm::kRecordsPerSegment;
  use_more_of_segment();
  if (fresh_ == 0) ++fresh_;  // slot 0 is no record
}

// The pages that the newest segment came with, or more of them. False: it is used up.
bool Ledger::use_more_of_segment() {
  const std::uint32_t segment = segments_.back();
  const std::uint32_t used = fresh_end_ - segment * shm::kRecordsPerSegment;
  const auto there = process_.memory().more_records(segment, used);
  if (!there) throw OutOfMemoryError("the machine has no memory left for records of tasks");
  fresh_end_ += *there - used;
  return *there != used;
}

shm::Address Ledger::allocate() {
  if (any_returned_.load(std::memory_order_relaxed)) take_returned();
  if (!holding_arguments_.empty()) tidy_arguments(kTidyBudget);
  if (!limbo_.empty()) tidy(kTidyBudget);
  if (free_.empty()) refill();
  const std::uint32_t slot = free_.back();
  free_.pop_back();
  shm::Record& record = process_.memory().record(slot);
  const std::uint32_t generation =
      shm::word::generation(record.state.load(std::memory_order_relaxed)) + 1;
  process_.counts()[slot].store(1, std::memory_order_relaxed);
  record.dependents.store(0, std::memory_order_relaxed);
  record.join.store(shm::dependents::join_word(generation, 0), std::memory_order_relaxed);
  record.flags = 0;
  record.dependencies = 0;
  record.result_kind = shm::ResultKind::None;
  return {slot, generation};
}

void Ledger::refill() {
  // Everything in limbo is looked at again only when it has doubled: a long look must pay.
  if (limbo_.size() > 2 * limbo_at_last_scan_) {
    tidy_all();
    limbo_at_last_scan_ = limbo_.size();
    if (!free_.empty()) return;
  }
  if (fresh_ == fresh_end_ && !use_more_of_segment()) {
    wire::Message message;
    message.kind = wire::Kind::LeaseSegment;
    message.a = participant_;
    process_.daemon().demand(message);
    take_segment(message.a);
  }
  free_.push_back(fresh_++);
}

void Ledger::dropped(std::uint32_t slot) {
  if (may_recycle(slot)) {
    recycle(slot);
  } else {
    stop_unread(slot);
    enqueue(slot);
  }
}

// A producer whose stream nobody can read any more need not go on.
void Ledger::stop_unread(std::uint32_t slot) {
  shm::Record& record = process_.memory().record(slot);
  if (!(record.flags & shm::flag::kStream)) return;
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  // Free: an old entry of `limbo_`, and its stream is another record's by now.
  // The rest as in recyclable(): foreign holds first.
  if (shm::word::state(state) == shm::State::Free || shm::word::is_final(state) ||
      shm::holds::count(record.refs.load(std::memory_order_acquire)) != 0 ||
      process_.counts().refs(slot) != 0)
    return;
  shm::stream::stop(
      shm::stream::at(process_.memory(), static_cast<std::uint32_t>(record.result_word)));
}

void Ledger::enqueue(std::uint32_t slot) {
  // The bit keeps a slot whose count rises and falls again from queueing twice.
  const std::uint32_t before =
      process_.counts()[slot].fetch_or(RefCounts::kQueued, std::memory_order_acq_rel);
  if (!(before & RefCounts::kQueued)) limbo_.push_back(slot);
}

void Ledger::dropped_elsewhere(std::uint32_t slot) {
  const std::uint32_t before =
      process_.counts()[slot].fetch_or(RefCounts::kQueued, std::memory_order_acq_rel);
  if (before & RefCounts::kQueued) return;
  // Its thread may not come round to it for long. A large value's memory need not wait: giving it
  // back twice is harmless. Its own thread may recycle the slot beside us (an old entry of its
  // queue): what was read counts only if the generation is still the same afterwards; the block is
  // named with its generation, so being late then does no harm.
  shm::Record& record = process_.memory().record(slot);
  const std::uint32_t generation =
      shm::word::generation(record.state.load(std::memory_order_acquire));
  const bool stored =
      record.result_kind == shm::ResultKind::Stored && !(record.flags & shm::flag::kResultHasRefs);
  const shm::StoredAt at = record.result_at();
  std::atomic_thread_fence(std::memory_order_acquire);
  if (stored && recyclable(slot) &&
      shm::word::generation(record.state.load(std::memory_order_relaxed)) == generation) {
    process_.memory().give_back(at);
  }
  const std::lock_guard lock(returned_mutex_);
  returned_.push_back(slot);
  any_returned_.store(true, std::memory_order_relaxed);
}

void Ledger::take_returned() {
  const std::lock_guard lock(returned_mutex_);
  limbo_.insert(limbo_.end(), returned_.begin(), returned_.end());
  returned_.clear();
  any_returned_.store(false, std::memory_order_relaxed);
}

bool Ledger::recyclable(std::uint32_t slot) {
  shm::Record& record = process_.memory().record(slot);
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  if (!shm::word::is_final(state) || (state & shm::word::kHasDependents)) return false;
  if (shm::journal::needs(process_.memory(), record)) return false;
  if (static_cast<std::uint32_t>(record.join.load(std::memory_order_acquire)) != 0) return false;
  // Foreign holds first, own refs second: a ref decoded from a foreign hold is counted before that
  // hold goes.
  if (shm::holds::count(record.refs.load(std::memory_order_acquire)) != 0) return false;
  return process_.counts().refs(slot) == 0;
}

// An actor may be asked for by its name until this says that nobody can any more.
bool Ledger::may_recycle(std::uint32_t slot) {
  if (!recyclable(slot)) return false;
  shm::Record& record = process_.memory().record(slot);
  if (record.kind != shm::Kind::ActorCreate) return true;
  const std::uint64_t refs = record.refs.load(std::memory_order_acquire);
  // What a thread of ours got by name is counted here before its hold goes, and that changes
  // `refs`.
  return shm::holds::count(refs) == 0 && process_.counts().refs(slot) == 0 &&
         shm::holds::close_count(process_.memory(), participant_, record, refs);
}

void Ledger::tidy(int budget) {
  for (int i = 0; i < budget && !limbo_.empty(); ++i) {
    const std::uint32_t slot = limbo_.front();
    limbo_.pop_front();
    if (may_recycle(slot)) {
      recycle(slot);
      continue;
    }
    std::uint32_t count = process_.counts()[slot].load(std::memory_order_acquire);
    if ((count & ~RefCounts::kQueued) != 0 &&
        process_.counts()[slot].compare_exchange_strong(count, count & ~RefCounts::kQueued,
                                                        std::memory_order_acq_rel)) {
      continue;  // somebody here refers to it again; the next drop queues it again
    }
    stop_unread(slot);
    limbo_.push_back(slot);
  }
}

void Ledger::tidy_arguments(int budget) {
  for (int i = 0; i < budget && !holding_arguments_.empty(); ++i) {
    const shm::Address address = holding_arguments_.front();
    holding_arguments_.pop_front();
    shm::Record& r = record(address);
    const std::uint64_t state = r.state.load(std::memory_order_acquire);
    if (shm::word::generation(state) != address.generation ||
        shm::word::state(state) == shm::State::Free)
      continue;
    if (shm::word::is_final(state) && !shm::journal::needs(process_.memory(), r)) {
      release_arguments(r);
    } else {
      holding_arguments_.push_back(address);
    }
  }
}

void Ledger::tidy_all() {
  take_returned();
  tidy_arguments(static_cast<int>(holding_arguments_.size()));
  tidy(static_cast<int>(limbo_.size()));
}

void Ledger::release_arguments(shm::Record& record) {
  if (!(record.flags & shm::flag::kArgsHaveRefs)) return;
  // Others may read what flags tell of the result.
  std::atomic_ref(record.flags)
      .store(record.flags & static_cast<std::uint8_t>(~shm::flag::kArgsHaveRefs),
             std::memory_order_relaxed);
  for (const std::uint64_t ref : trailing_refs(argument_bytes(process_, record))) {
    detail::release(from_shm(shm::Address::unpack(ref)));
  }
}

void Ledger::recycle(std::uint32_t slot) {
  dead_.push_back(slot);
  if (recycling_)
    return;  // the outermost call takes it from the list: a long chain of arguments needs no deep
             // stack
  recycling_ = true;
  while (!dead_.empty()) {
    const std::uint32_t next = dead_.back();
    dead_.pop_back();
    recycle_one(next);
  }
  recycling_ = false;
}

void Ledger::recycle_one(std::uint32_t slot) {
  shm::Memory& memory = process_.memory();
  shm::Record& r = memory.record(slot);
  const std::uint32_t generation = shm::word::generation(r.state.load(std::memory_order_relaxed));
  process_.counts()[slot].store(0, std::memory_order_relaxed);
  shm::crash_point(shm::CrashPoint::RecycleStarted);
  if (r.kind == shm::Kind::ActorCreate) end_actor(r, {slot, generation});
  release_arguments(r);
  if (r.flags & shm::flag::kResultHasRefs) {
    const auto refs = trailing_refs(result_bytes(process_, r));
    if (r.kind == shm::Kind::Put) {
      for (const std::uint64_t ref : refs) detail::release(from_shm(shm::Address::unpack(ref)));
    } else {
      // Holds of the result, not of this process: each is given up once, also if we die here
      // (shm/holds.h).
      release_contained(refs, {slot, generation}, r.refs_released);
    }
  }
  if (r.flags & shm::flag::kStream) close_stream(r, {slot, generation});
  if (r.flags & shm::flag::kArgsStored) memory.give_back(r.args_at());
  if (r.result_kind == shm::ResultKind::Stored) memory.give_back(r.result_at());
  shm::crash_point(shm::CrashPoint::RecyclePayload);
  if (const std::uint64_t refs = r.refs.load(std::memory_order_relaxed); refs != 0) {
    shm::holds::acknowledge(memory, refs,
                            participant_);  // its author may still ask whether its change happened
    r.refs.store(shm::holds::reopened(refs), std::memory_order_release);
  }
  r.state.store(shm::word::make(generation, shm::State::Free), std::memory_order_release);
  shm::crash_point(shm::CrashPoint::RecycleFree);
  free_.push_back(slot);
}

void Ledger::release_contained(std::span<const std::uint64_t> refs, shm::Address container,
                               std::uint32_t& released) {
  for (std::uint32_t i = 0; i < refs.size(); ++i) {
    const shm::Address inner = shm::Address::unpack(refs[i]);
    shm::holds::open(shared(), shm::HoldOp::ReleaseContained, inner, i, container);
    shm::crash_point(shm::CrashPoint::ReleaseIntent);
    shm::holds::change(process_.memory(), participant_, process_.memory().record(inner.slot), -1);
    shm::crash_point(shm::CrashPoint::ReleaseCounted);
    released = i + 1;
    shm::holds::close(shared());
  }
}

std::uint32_t Ledger::open_stream(shm::Record& record, shm::Address address,
                                  std::size_t max_unread) {
  const std::uint32_t number = process_.take_stream();
  shm::stream::open(shm::stream::at(process_.memory(), number), address,
                    static_cast<std::uint32_t>(max_unread));
  record.result_word = number;
  record.flags |= shm::flag::kStream;
  return number;
}

void Ledger::drop_item(shm::StreamSlot& slot, shm::Address mark) {
  const bool stored = slot.flags & shm::kItemStored;
  if (slot.flags & shm::kItemHasRefs) {  // then it never leaves memory
    shm::Memory& memory = process_.memory();
    const std::byte* data = stored ? memory.object(memory.object_offset(slot.at())) : slot.bytes;
    release_contained(shm::trailing_refs(data, stored ? slot.at().size : slot.size), mark,
                      slot.refs_released);
  }
  if (stored) process_.memory().give_back(slot.at());
}

void Ledger::close_stream(shm::Record& record, shm::Address address) {
  const auto number = static_cast<std::uint32_t>(record.result_word);
  shm::stream::close(shm::stream::at(process_.memory(), number), address, participant_,
                     [&](shm::StreamSlot& slot, std::uint64_t n) {
                       drop_item(slot, shm::stream::mark(number, n));
                     });
  process_.give_stream(number);
}

void Ledger::end_actor(shm::Record& creation, shm::Address address) {
  if (creation.scheduling_class == shm::kNone) return;  // it was refused before it had a class
  if (LocalMode* local = process_.local())
    return local->last_handle_gone(address, creation.scheduling_class);
  shm::SchedulingClass& cls = process_.memory().scheduling_class(creation.scheduling_class);
  cls.kill_request.fetch_or(shm::kLastHandleGone);  // before the count is open again
  process_.daemon().ring(process_.memory().header());
}

shm::RingHeader& Ledger::ring_of(std::uint32_t scheduling_class, std::uint64_t caller) {
  if (last_ring_.scheduling_class == scheduling_class && last_ring_.caller == caller)
    return *last_ring_.ring;
  OwnRing* vacant = nullptr;
  for (OwnRing& own : rings_) {
    if (own.scheduling_class != scheduling_class) continue;
    if (own.caller == caller) {
      last_ring_ = own;
      return *own.ring;
    }
    if (own.ring->empty()) vacant = &own;  // whatever it held has begun: nothing is held back
  }
  if (vacant) {
    vacant->caller = caller;
    last_ring_ = *vacant;
    return *vacant->ring;
  }
  wire::Message message;
  message.kind = wire::Kind::OpenRing;
  message.a = participant_;
  message.b = scheduling_class;
  process_.daemon().demand(message);
  last_ring_ = {scheduling_class,
                reinterpret_cast<shm::RingHeader*>(process_.memory().heap(message.c)), caller};
  rings_.push_back(last_ring_);
  return *last_ring_.ring;
}

void Ledger::grow(shm::RingHeader& ring) {
  const std::uint32_t stages = ring.stages.load(std::memory_order_relaxed);
  MOBULA_CHECK(stages < shm::kRingStagesMax);
  const std::uint64_t entries =
      2 * (ring.stage[stages - 1].mask.load(std::memory_order_relaxed) + 1);
  wire::Message message;
  message.kind = wire::Kind::GrowRing;
  message.a = participant_;
  message.c =
      static_cast<std::uint64_t>(reinterpret_cast<std::byte*>(&ring) - process_.memory().heap(0));
  message.d = entries;
  process_.daemon().demand(message);
  shm::ring::grow(ring, message.c, entries);
}

void Ledger::publish(shm::Record& record, shm::Address address) {
  if (LocalMode* local = process_.local(); local && record.kind != shm::Kind::Callback)
    return local->made_ready(*this, record, address);
  if (record.kind == shm::Kind::ActorCall || record.kind == shm::Kind::ActorCreate) {
    // It lies in its caller's ring already, or is named by its class; the actor is told that it may
    // go on.
    shm::SchedulingClass& cls = process_.memory().scheduling_class(record.scheduling_class);
    if (shm::doorbell::ring(process_.memory(), cls, shm::doorbell::kDeepBacklog) &&
        cls.attention.exchange(0)) {
      process_.daemon().ring(process_.memory().header());
    }
    return;
  }
  push(record.scheduling_class, address);
}

void Ledger::push(std::uint32_t scheduling_class, shm::Address address) {
  const shm::Kind kind = record(address).kind;
  LocalMode* const local = process_.local();
  if (local && kind == shm::Kind::Task) return local->run(*this, address);
  if (local && kind == shm::Kind::Callback && local->run_after(address)) return;
  // An actor takes each ring in order, and a call that waits holds back those behind it. Calls of
  // another task that runs in this thread must not be among these: the one may wait for the other.
  const Frame* const frame = kind == shm::Kind::ActorCall ? current_frame() : nullptr;
  const bool of_task = frame && frame->kind == shm::Kind::Task;
  const std::uint64_t caller = of_task                       ? frame->address.packed()
                               : kind == shm::Kind::Callback ? kCallbacks
                                                             : 0;
  shm::RingHeader& ring = ring_of(scheduling_class, caller);
  if (!shm::ring::has_room(ring)) grow(ring);
  shm::ring::push(process_.memory(), ring, address);
  shm::crash_point(shm::CrashPoint::SubmitPushed);
  if (local && kind == shm::Kind::ActorCall) return local->serve(*this, scheduling_class);
  shm::SchedulingClass& cls = process_.memory().scheduling_class(scheduling_class);
  if (shm::doorbell::ring(process_.memory(), cls, ring.depth()) && cls.attention.exchange(0))
    process_.daemon().ring(process_.memory().header());
}

}  // namespace mobula::runtime
