#include "runtime/open_call.h"

#include <iterator>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "mobula/detail/callback.h"
#include "mobula/error.h"
#include "runtime/callbacks.h"
#include "runtime/ledger.h"
#include "runtime/registry.h"
#include "shm/claim.h"
#include "shm/futex.h"

namespace mobula {
namespace {

// What runs when a call is cancelled. Few calls have one, so they are kept apart.
std::mutex hooks_mutex;
std::unordered_map<const detail::OpenCall*, std::unique_ptr<detail::Callback>> hooks;
std::atomic<std::size_t> hook_count{0};

void remove_hook(const detail::OpenCall* call) {
  if (hook_count.load(std::memory_order_acquire) == 0) return;
  const std::lock_guard lock(hooks_mutex);
  hooks.erase(call);
  hook_count.store(hooks.size(), std::memory_order_release);
}

void ring(shm::Bell& bell) {
  bell.value.fetch_add(1, std::memory_order_seq_cst);
  shm::futex_wake_all(shm::futex_word(bell.value));
}

}  // namespace

namespace runtime {

bool owes_answers() {
  return require_process().shared().open_calls.load(std::memory_order_seq_cst) != 0;
}

void run_cancel_hooks() {
  std::vector<std::unique_ptr<detail::Callback>> due;
  {
    const std::lock_guard lock(hooks_mutex);
    for (auto hook = hooks.begin(); hook != hooks.end();) {
      const bool cancelled = hook->first->cancelled();
      if (cancelled) due.push_back(std::move(hook->second));
      hook = cancelled ? hooks.erase(hook) : std::next(hook);
    }
    hook_count.store(hooks.size(), std::memory_order_release);
  }
  for (const auto& callback : due) run_guarded(*callback, [] { return "a callback of on_cancel"; });
}

}  // namespace runtime

namespace detail {

OpenCall::OpenCall(runtime::Frame& frame)
    : process(frame.ledger.process()),
      record(frame.record),
      address(frame.address),
      claimer(frame.ledger.participant()),
      function(frame.record.function),
      given_name((frame.record.flags & shm::flag::kNamed)
                     ? runtime::task_name(process, frame.record)
                     : std::string()),
      children(0),
      pins_(std::move(frame.pins)) {
  pins_.push_back(std::move(frame.arguments.pin));
  record.flags |= shm::flag::kOpen;
  // Counted while the intent stands: the daemon finds the record by one of the two.
  process.shared().open_calls.fetch_add(1, std::memory_order_release);
  shm::crash_point(shm::CrashPoint::ReplyOpened);
}

void OpenCall::method_returned() {
  if (dropped) {
    answer_with_error(this, std::make_exception_ptr(std::logic_error(
                                "its Reply was dropped without an answer: every way out of the "
                                "method must pass it on, or call set() or fail()")));
  }
  let_go();
}

void OpenCall::method_threw(const std::exception_ptr& error) {
  answer_with_error(this, error);
  let_go();
}

void OpenCall::take_over(std::uint32_t participant) {
  if (participant == claimer) return;
  std::uint64_t seen = record.state.load(std::memory_order_relaxed);
  // acq_rel: a repair that reads our name sees our intent; others may set bits meanwhile
  while (!record.state.compare_exchange_weak(seen, shm::word::with_claimer(seen, participant),
                                             std::memory_order_acq_rel,
                                             std::memory_order_relaxed)) {
  }
  shm::crash_point(shm::CrashPoint::ReplyTaken);
}

void OpenCall::answer(const std::function<void(Execution&)>& place) {
  runtime::Ledger& ledger = process.this_ledger();  // throws before anything has happened
  if (answered_.exchange(true, std::memory_order_acq_rel)) return;
  shm::claim::intend(ledger.shared(), address);
  take_over(ledger.participant());
  runtime::conclude_open(ledger, *this, place);
  shm::crash_point(shm::CrashPoint::CompleteFinished);
  shm::claim::forget(ledger.shared());
  close();
}

// Who waits to leave the process is told of the last answer.
void OpenCall::close() {
  remove_hook(this);
  pins_.clear();
  shm::Process& shared = process.shared();
  if (shared.open_calls.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
      shared.must_leave.load(std::memory_order_seq_cst))
    ring(shared.bell);
}

bool OpenCall::cancelled() const {
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  return (state & shm::word::kCancelled) && shm::word::generation(state) == address.generation;
}

std::string OpenCall::name() const {
  if (!given_name.empty()) return given_name;
  const FunctionInfo* known = runtime::find_function(function);
  return known ? std::string(known->name) : "(unknown)";
}

void OpenCall::let_go() noexcept {
  if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void answer_with_error(OpenCall* call, const std::exception_ptr& error) {
  if (!error) throw Error("Reply::fail needs an exception");
  call->answer([&](Execution&) { std::rethrow_exception(error); });
}

void drop_unanswered(OpenCall* call) noexcept {
  const runtime::Frame* frame = runtime::current_frame();
  if (frame && frame->open_call == call) {
    call->dropped = true;  // its method may be on its way out by an exception
    return call->let_go();
  }
  try {
    answer_with_error(
        call, std::make_exception_ptr(std::logic_error("its Reply was dropped without an answer")));
  } catch (const Error&) {  // the node is gone
  }
  call->let_go();
}

void let_go(OpenCall* call) noexcept { call->let_go(); }
bool is_cancelled(const OpenCall* call) { return call->cancelled(); }

void run_on_cancel(OpenCall* call, std::unique_ptr<Callback> callback) {
  {
    const std::lock_guard lock(hooks_mutex);
    hooks[call] = std::move(callback);
    hook_count.store(hooks.size(), std::memory_order_release);
  }
  if (!call->cancelled()) return;
  // Too late for who cancelled it to tell: the actor's thread looks again.
  shm::Process& shared = call->process.shared();
  shared.cancels.fetch_add(1, std::memory_order_seq_cst);
  ring(shared.bell);
}

bool on_callback_thread() { return runtime::require_process().callbacks().runs_here(); }

void run_in_call(OpenCall* call, Callback& body) {
  call->keep();  // it may be answered in there
  {
    runtime::Frame frame(call->process.this_ledger(), call->record, call->address);
    frame.children = call->children;
    body.run();
    call->children = frame.children;
  }
  call->let_go();
}

void throw_no_reply() {
  throw Error("the Reply is empty: it was answered, or moved from; a call is answered once");
}

}  // namespace detail
}  // namespace mobula
