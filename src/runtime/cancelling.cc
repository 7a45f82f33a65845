#include "runtime/cancelling.h"

#include "runtime/errors.h"
#include "shm/cancel.h"
#include "shm/stream.h"
#include "wire/local_protocol.h"

namespace mobula {
namespace runtime {
namespace {

// Wakes the thread that runs the task, if it sleeps in get or wait. One that is just about to may
// miss it: then it notices when its sleep is over (get.cc has the bound).
void wake_executor(Process& process, const shm::Record& record) {
  shm::Memory& memory = process.memory();
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  const shm::Participant& runs = memory.participant(shm::word::claimer(state));
  if (record.flags & shm::flag::kOpen) {  // perhaps no thread runs it: its process is told
    shm::Process& its = memory.process(runs.process.load(std::memory_order_relaxed));
    its.cancels.fetch_add(1, std::memory_order_seq_cst);
    its.bell.value.fetch_add(1, std::memory_order_seq_cst);
    shm::futex_wake_all(shm::futex_word(its.bell.value));
  }
  const auto reason = static_cast<shm::WaitReason>(runs.wait.reason.load());
  if (reason == shm::WaitReason::Task) {
    const auto target = shm::Address::unpack(runs.wait.record[0].load());
    shm::futex_wake_all(reinterpret_cast<const std::uint32_t*>(&memory.record(target.slot).state));
  } else if (reason == shm::WaitReason::StreamItem || reason == shm::WaitReason::StreamSpace) {
    shm::Record& producer = memory.record(shm::Address::unpack(runs.wait.record[0].load()).slot);
    if (const auto stream = static_cast<std::uint32_t>(producer.result_word);
        has_flag(producer, shm::flag::kStream) && stream < shm::kStreamsMax)
      shm::stream::wake_all(shm::stream::at(memory, stream));
  } else if (reason == shm::WaitReason::AnyTask) {
    for (shm::Bell* bell :
         {&memory.header().any_bell, &memory.participant(shm::word::claimer(state)).completions}) {
      bell->value.fetch_add(1, std::memory_order_seq_cst);
      shm::futex_wake_all(shm::futex_word(bell->value));
    }
  }
}

}  // namespace

bool cancel_children(Frame& frame) {
  const std::uint64_t how = frame.record.state.load(std::memory_order_acquire);
  if (!(how & shm::word::kCancelled) || !(how & shm::word::kCancelChildren)) return false;
  if (shm::word::generation(how) != frame.address.generation) return false;  // answered meanwhile
  const std::uint64_t mine = frame.identity.hash();
  bool any = false;
  frame.ledger.each_record([&](shm::Record& child, shm::Address address) {
    const bool is_call = child.kind == shm::Kind::ActorCall;
    if ((child.kind != shm::Kind::Task && !is_call) || child.parent != mine) return;
    // An actor is not ended with a call of it.
    const std::uint64_t force = is_call ? 0 : how & shm::word::kForce;
    any |= cancel(frame.ledger, child, address,
                  shm::word::kCancelChildren | force | (how & shm::word::kLate));
  });
  return any;
}

void expire(Frame& frame) {
  std::uint64_t seen = frame.record.state.load(std::memory_order_relaxed);
  // acq_rel, as every cancel
  while (shm::word::generation(seen) == frame.address.generation &&
         shm::word::state(seen) == shm::State::Claimed && !(seen & shm::word::kCancelled) &&
         !frame.record.state.compare_exchange_weak(
             seen, seen | shm::word::kCancelled | shm::word::kLate | shm::word::kCancelChildren,
             std::memory_order_acq_rel, std::memory_order_relaxed)) {
  }
}

bool cancel(Ledger& ledger, shm::Record& record, shm::Address address, std::uint64_t how) {
  using shm::cancellation::Answer;
  Process& process = ledger.process();
  shm::claim::intend(ledger.shared(), address);
  const Answer answer = shm::cancellation::cancel(
      process.memory(), ledger.shared(), ledger.participant(), record, address, how, ledger);
  if (answer == Answer::Never && has_flag(record, shm::flag::kStream)) {
    shm::stream::wake_readers(
        shm::stream::at(process.memory(), static_cast<std::uint32_t>(record.result_word)));
  }
  if (answer == Answer::Asked) {
    wake_executor(process, record);
    if (how & shm::word::kForce) {
      wire::Message message;
      message.kind = wire::Kind::EndCancelled;
      message.c = address.packed();
      process.daemon().tell(message);
    }
  }
  shm::claim::forget(ledger.shared());
  return answer != Answer::TooLate;
}

bool should_stop() {
  // A task that runs inside of another one's get may be its child, and cancelled only now.
  for (bool more = true; more;) {
    more = false;
    for (Frame* frame = current_frame(); frame; frame = frame->outer) {
      if (frame->children_cancelled) continue;
      if (frame->is_late()) expire(*frame);
      if (!frame->cancelled()) continue;
      frame->children_cancelled = true;
      more |= cancel_children(*frame);
    }
  }
  return current_frame() && current_frame()->cancelled();
}

void throw_stopped() {
  if (current_frame()->record.state.load(std::memory_order_relaxed) & shm::word::kLate)
    throw DeadlineExceededError("the deadline of task " + current_frame()->name() +
                                " was over while it waited");
  throw TaskCancelledError("task " + current_frame()->name() + " was cancelled while it waited");
}

}  // namespace runtime

namespace detail {

bool cancel_task(RefAddress ref, std::uint64_t session, bool force, bool recursive) {
  check_ref(ref, session);
  runtime::Process& process = runtime::require_process();
  const shm::Address address = runtime::to_shm(ref);
  shm::Record& record = process.memory().record(address.slot);
  if (record.kind == shm::Kind::Monitor)
    throw Error("cancel is for tasks and calls; a monitor ends with its actor, or is dropped");
  if (record.kind == shm::Kind::ActorCreate)
    throw Error("cancel is for tasks and calls; an actor is ended by mobula::kill");
  if (force && record.kind == shm::Kind::ActorCall) {
    throw Error(
        "CancelOptions.force would end the actor with its call; use mobula::kill if that is meant");
  }
  if (process.local()) force = false;  // the process is the caller's own
  return runtime::cancel(
      process.this_ledger(), record, address,
      (force ? shm::word::kForce : 0) | (recursive ? shm::word::kCancelChildren : 0));
}

}  // namespace detail
}  // namespace mobula
