#include "runtime/callbacks.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "mobula/error.h"
#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/ledger.h"
#include "runtime/open_call.h"
#include "runtime/registry.h"
#include "shm/check.h"
#include "shm/claim.h"
#include "shm/futex.h"

namespace mobula::runtime {
namespace {

constexpr std::int64_t kSleepSlice = 1'000'000'000;  // as a worker's: to notice a lost daemon

// Whose callbacks run in this process.
std::string describe_place() {
  Process& process = require_process();
  switch (process.role()) {
    case shm::ProcessRole::Driver: return "the driver";
    case shm::ProcessRole::Actor:
      return describe_actor(process.memory(),
                            process.memory().scheduling_class(process.shared().works_for.load()));
    default: return describe_process(process.memory(), process.shared().pid);
  }
}

// The function that this thread runs for somebody.
std::uint64_t function_now() {
  const Frame* frame = current_frame();
  return !frame ? 0 : frame->open_call ? frame->open_call->function : frame->record.function;
}

}  // namespace

void run_guarded(detail::Callback& callback, const std::function<std::string()>& what) {
  try {
    callback.run();
  } catch (...) {
    const ErrorValue error = describe_current_exception();
    ::fprintf(stderr, "mobula: in %s, %s threw %s: %s\n", describe_place().c_str(), what().c_str(),
              error.type_name.c_str(), error.message.c_str());
  }
}

Callbacks::~Callbacks() {
  stop_.store(true);
  if (!thread_.joinable()) return;
  wake();
  if (runs_here()) {
    thread_.detach();  // the program exits from a callback
  } else {
    thread_.join();
  }
}

void Callbacks::run_here() { runner_.store(std::this_thread::get_id()); }
bool Callbacks::runs_here() const { return runner_.load() == std::this_thread::get_id(); }

void Callbacks::wake() {
  shm::Bell& bell = process_.shared().bell;
  bell.value.fetch_add(1, std::memory_order_seq_cst);
  shm::futex_wake_all(shm::futex_word(bell.value));
}

std::uint32_t Callbacks::scheduling_class() {
  if (process_.role() == shm::ProcessRole::Actor)
    return process_.shared().works_for.load(std::memory_order_relaxed);
  const std::lock_guard lock(start_mutex_);
  if (class_ != shm::kNone) return class_;
  wire::Message message;
  message.kind = wire::Kind::OpenClass;
  message.a = static_cast<std::uint32_t>(shm::ClassKind::Callback);
  process_.daemon().demand(message);
  // Signals are for the program's own threads.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, cls = message.a] { serve(cls); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return class_ = message.a;
}

std::uint64_t Callbacks::add(Callback callback, Ref<void> record, shm::Address target) {
  const std::uint64_t giver = function_now();
  const std::lock_guard lock(mutex_);
  waiting_.push_back({std::move(callback), std::move(record), target, giver, {}});
  waiting_.back().at = std::prev(waiting_.end());
  return reinterpret_cast<std::uint64_t>(&waiting_.back());
}

void Callbacks::after(std::uint64_t due_ns, Callback callback) {
  scheduling_class();
  {
    const std::lock_guard lock(mutex_);
    timers_.emplace(due_ns, std::move(callback));
    next_due_.store(timers_.begin()->first, std::memory_order_release);
  }
  if (!runs_here()) wake();
}

std::string Callbacks::describe(const Waiting& waiting) {
  std::string text = "a callback";
  shm::Record& target = process_.memory().record(waiting.target.slot);
  // It may be gone if the callback does not hold it.
  if (shm::word::generation(target.state.load(std::memory_order_acquire)) ==
      waiting.target.generation)
    text += " for " + describe_task(process_, target);
  if (const detail::FunctionInfo* giver = find_function(waiting.giver))
    text += ", set in " + std::string(giver->name) + ",";
  return text;
}

void Callbacks::run(Ledger& ledger, shm::Record& record, shm::Address address) {
  MOBULA_CHECK(process_.ledger_of(address.slot));  // a dead process's are failed by the daemon
  std::uint64_t at = 0;
  std::memcpy(&at, record.args_inline, sizeof at);
  Waiting& waiting = *reinterpret_cast<Waiting*>(at);
  std::list<Waiting> done;
  {
    // A thread of the library's is no task: what it waits for lends nobody's CPU.
    std::optional<Frame> frame;
    if (process_.role() == shm::ProcessRole::Actor) frame.emplace(ledger, record, address);
    run_guarded(*waiting.callback, [&] { return describe(waiting); });
    const std::lock_guard lock(mutex_);
    done.splice(done.begin(), waiting_, waiting.at);
  }
  done.front().callback.reset();
  shm::claim::complete(process_.memory(), ledger.shared(), record, address, shm::State::Done,
                       ledger);
  shm::claim::forget(ledger.shared());
}

bool Callbacks::run_due() {
  if (next_due() == kNever) return false;
  const std::uint64_t now = now_ns();
  if (now < next_due()) return false;
  std::vector<Callback> due;
  {
    const std::lock_guard lock(mutex_);
    const auto end = timers_.upper_bound(now);
    for (auto timer = timers_.begin(); timer != end; ++timer)
      due.push_back(std::move(timer->second));
    timers_.erase(timers_.begin(), end);
    next_due_.store(timers_.empty() ? kNever : timers_.begin()->first, std::memory_order_release);
  }
  for (Callback& callback : due) {
    run_guarded(*callback, [] { return "a callback of call_after"; });
    callback.reset();
  }
  return !due.empty();
}

// ---- The library's own thread, of a driver or worker.

bool Callbacks::any_ready(shm::SchedulingClass& cls) const {
  for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(process_.memory().heap(at));
    if (!ring.empty()) return true;
    at = ring.next.load(std::memory_order_acquire);
  }
  return false;
}

bool Callbacks::run_ready(Ledger& ledger, shm::SchedulingClass& cls) {
  bool any = false;
  for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(process_.memory().heap(at));
    while (!stop_.load(std::memory_order_relaxed)) {
      const shm::Address address = shm::claim::next(process_.memory(), ring, ledger.shared(),
                                                    ledger.participant(), shm::claim::Order::Any);
      if (!address) break;
      any = true;
      run(ledger, process_.memory().record(address.slot), address);
    }
    at = ring.next.load(std::memory_order_acquire);
  }
  return any;
}

void Callbacks::serve(std::uint32_t id) {
  run_here();
  try {
    Ledger& ledger = process_.this_ledger();
    shm::SchedulingClass& cls = process_.memory().scheduling_class(id);
    shm::Bell& bell = process_.shared().bell;
    while (!stop_.load(std::memory_order_acquire)) {
      const std::uint32_t rung = bell.value.load(std::memory_order_acquire);
      const bool ran = run_ready(ledger, cls);
      if (run_due() || ran) continue;
      shm::doorbell::announce_sleep(cls, 0);
      if (!any_ready(cls) && !stop_.load(std::memory_order_seq_cst)) {
        process_.tidy();
        const std::uint64_t now = now_ns();
        const std::uint64_t due = std::max(next_due(), now);
        shm::futex_wait(shm::futex_word(bell.value), rung,
                        static_cast<std::int64_t>(
                            std::min(due - now, static_cast<std::uint64_t>(kSleepSlice))));
      }
      shm::doorbell::withdraw_sleep(cls, 0);
    }
  } catch (const NodeDiedError&) {  // so is whoever could complete anything
  } catch (const Error& e) {
    ::fprintf(stderr, "mobula: callbacks do not run any more: %s\n", e.what());
  }
}

}  // namespace mobula::runtime
