// Waiting: for one value, or for the first of many.
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "mobula/detail/runtime.h"
#include "runtime/cancelling.h"
#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/helping.h"
#include "runtime/journal.h"
#include "runtime/ledger.h"
#include "runtime/local_mode.h"
#include "runtime/process.h"
#include "runtime/waiting.h"
#include "shm/futex.h"

namespace mobula::detail {
namespace {

using runtime::LocalMode;
using runtime::Process;
using shm::Address;
using shm::Record;

// How often a waiter looks before it sleeps: some microseconds, as long as a wake-up costs.
constexpr int kSpins = 150;
// How long a sleep may last at most. Wake-ups do not get lost; this only bounds how late a daemon's
// death is noticed, or, if it comes just before the sleep, the cancelling of the task that waits.
constexpr std::int64_t kSlice = 50'000'000;

class Deadline {
 public:
  explicit Deadline(std::optional<Duration> timeout) {
    if (const runtime::Frame* task = runtime::current_frame())
      task_ends_at_ = task->record.deadline;
    if (!timeout) return;
    if (*timeout < Duration::zero())
      throw Error("the timeout is negative; 0 only looks, none waits for ever");
    limited_ = true;
    const std::uint64_t now = runtime::now_ns();
    const auto ns = static_cast<std::uint64_t>(timeout->count());
    at_ = ns > ~std::uint64_t{0} - now ? ~std::uint64_t{0} : now + ns;
  }
  bool over() const { return limited_ && runtime::now_ns() >= at_; }
  std::int64_t slice() const {
    if (!limited_ && task_ends_at_ == 0) return kSlice;
    const std::uint64_t now = runtime::now_ns();
    std::uint64_t left = kSlice;
    if (limited_) left = std::min(left, at_ - std::min(at_, now));
    if (task_ends_at_ != 0) left = std::min(left, task_ends_at_ - std::min(task_ends_at_, now));
    return static_cast<std::int64_t>(left);
  }

 private:
  bool limited_ = false;
  std::uint64_t at_ = 0;
  std::uint64_t task_ends_at_ = 0;  // that of the task that waits; 0: never
};

// Tells tools and the daemon that this thread waits: a worker's CPU is lent to others meanwhile.
class Blocked {
 public:
  Blocked(Process& process, shm::WaitReason reason, std::span<const RefHandle> refs,
          std::size_t needed, bool ends_by_itself)
      : process_(process),
        note_(process.this_ledger().shared().wait),
        in_task_(runtime::current_frame() != nullptr && !runtime::is_one_of_several()) {
    for (std::size_t i = 0; i < std::min<std::size_t>(refs.size(), shm::kWaitsListed); ++i)
      note_.record[i].store(runtime::to_shm(refs[i].address).packed(), std::memory_order_relaxed);
    note_.count.store(static_cast<std::uint32_t>(refs.size()), std::memory_order_relaxed);
    note_.needed.store(static_cast<std::uint32_t>(needed), std::memory_order_relaxed);
    note_.ends_by_itself.store(ends_by_itself, std::memory_order_relaxed);
    // seq_cst: before the last look for a cancel, which whoever cancels sets before it reads this
    note_.reason.store(static_cast<std::uint32_t>(reason), std::memory_order_seq_cst);
    if (!in_task_) return;
    shm::Process& shared = process_.shared();
    shared.blocked_threads.fetch_add(1, std::memory_order_seq_cst);
    const std::uint32_t works_for = shared.works_for.load(std::memory_order_relaxed);
    if (works_for != shm::kNone)
      process_.memory().scheduling_class(works_for).quick.store(0, std::memory_order_relaxed);
    process_.daemon().ring(process_.memory().header());
  }
  ~Blocked() {
    note_.reason.store(0, std::memory_order_relaxed);
    if (in_task_) process_.shared().blocked_threads.fetch_sub(1, std::memory_order_seq_cst);
  }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;

 private:
  Process& process_;
  shm::WaitNote& note_;
  bool in_task_;
};

void check_node(Process& process) {
  if (process.memory().header().session_over.load(std::memory_order_relaxed)) {
    if (process.must_know_of_end()) runtime::throw_node_died();
    throw Error("the session has ended");
  }
  if (!process.daemon().alive()) runtime::throw_node_died();
}

bool is_final(Record& record) {
  return shm::word::is_final(record.state.load(std::memory_order_acquire));
}

// Sets a waiter's bit unless the record is final. False: it is final. `low`: the word to sleep on.
bool announce(Record& record, std::uint64_t bit, std::uint32_t& low) {
  std::uint64_t seen = record.state.load(std::memory_order_acquire);
  while (!shm::word::is_final(seen)) {
    if ((seen & bit) ||
        record.state.compare_exchange_weak(seen, seen | bit, std::memory_order_acq_rel)) {
      low = static_cast<std::uint32_t>(seen | bit);
      return true;
    }
  }
  return false;
}

bool wait_final(Process& process, Record& record, RefAddress ref, std::optional<Duration> timeout) {
  const Deadline deadline(timeout);
  if (timeout && *timeout == Duration::zero()) return is_final(record);
  const Address address = runtime::to_shm(ref);
  const runtime::Frame* task = runtime::current_frame();
  if (task && (task->cancelled() || task->is_late()) && runtime::should_stop())
    runtime::throw_stopped();
  if (LocalMode* local = process.local()) {
    local->before_wait(process.this_ledger(), address, !timeout);
    if (is_final(record)) return true;
  }
  for (int i = 0; i < kSpins; ++i) {
    if (is_final(record)) return true;
    if (runtime::help(process, record, address)) return true;
    shm::spin_step(i);
  }
  process.tidy();
  const RefHandle handle{ref, process.session()};
  for (;;) {
    {
      const Blocked blocked(process, shm::WaitReason::Task, {&handle, 1}, 1, timeout.has_value());
      while (!runtime::may_help(process, record)) {
        std::uint32_t low = 0;
        if (!announce(record, shm::word::kWaiters, low)) return true;
        shm::crash_point(shm::CrashPoint::WaitRegistered);
        if (deadline.over()) return is_final(record);
        if (runtime::should_stop()) runtime::throw_stopped();
        // The low half of the state word: little-endian, so it comes first.
        shm::futex_wait(reinterpret_cast<const std::uint32_t*>(&record.state), low,
                        deadline.slice());
        if (is_final(record)) return true;
        process.tidy();
        check_node(process);
      }
    }
    if (runtime::help(process, record, address)) return true;  // it has become ready meanwhile
    if (deadline.over()) return is_final(record);
  }
}

// Throws unless each ref is of this session and none is there twice.
void check_different(Process& process, std::span<const RefHandle> refs) {
  // A ref that this process counts once is here once. What is counted more often may have copies
  // anywhere, and is compared with the others of its kind.
  std::uint64_t other_session = 0;
  std::size_t with_copies = 0;
  for (const RefHandle& ref : refs) {
    other_session |= ref.session ^ process.session();
    with_copies += process.counts().refs(ref.address.slot) != 1;
  }
  if (other_session != 0) {
    for (const RefHandle& ref : refs) check_ref(ref.address, ref.session);
  }
  if (with_copies < 2) return;
  std::vector<std::uint32_t> slots;  // of one generation each: the refs keep them
  slots.reserve(with_copies);
  for (const RefHandle& ref : refs) {
    if (process.counts().refs(ref.address.slot) != 1) slots.push_back(ref.address.slot);
  }
  std::sort(slots.begin(), slots.end());
  if (std::adjacent_find(slots.begin(), slots.end()) != slots.end())
    throw Error("wait: the same Ref was given twice");
}

// In a call that may be run again: waits, unless it is known how that ended before. What could not
// end so by itself, when all is there, is noted.
template <class Wait, class Expected>
std::vector<std::size_t> wait_as_before(runtime::Frame& call, const Wait& wait,
                                        const Expected& expected) {
  if (auto before = runtime::journal->wait_before(call)) {
    if (before->stopped) runtime::throw_stopped();
    return std::move(before->ready);
  }
  runtime::WaitOutcome outcome;
  try {
    outcome.ready = wait();
  } catch (const TaskCancelledError&) {
    runtime::journal->note_wait({.stopped = true});
    throw;
  }
  if (!expected(outcome.ready)) runtime::journal->note_wait(outcome);
  return std::move(outcome.ready);
}

// False: not in time.
bool arrives(Process& process, Record& record, RefAddress ref, std::optional<Duration> timeout) {
  const auto wait = [&] { return is_final(record) || wait_final(process, record, ref, timeout); };
  runtime::Frame* const call = runtime::journal ? runtime::journaled_frame() : nullptr;
  if (!call) return wait();
  const auto ready = [&] { return std::vector<std::size_t>(wait() ? 1 : 0); };
  return !wait_as_before(*call, ready, [](const auto& there) { return !there.empty(); }).empty();
}

std::vector<std::size_t> wait_now(Process& process, std::span<const RefHandle> refs,
                                  std::size_t num_returns, std::optional<Duration> timeout);

}  // namespace

Bytes get_bytes(RefAddress ref, std::uint64_t session, std::optional<Duration> timeout) {
  check_ref(ref, session);
  Process& process = runtime::require_process();
  const Address address = runtime::to_shm(ref);
  Record& record = process.memory().record(address.slot);
  if (timeout && *timeout < Duration::zero())
    throw Error("the timeout is negative; 0 only looks, none waits for ever");
  if (!arrives(process, record, ref, timeout)) {
    throw GetTimeoutError("the result of task " + runtime::describe_task(process, record) +
                          " was not there in time");
  }
  if (shm::word::state(record.state.load(std::memory_order_acquire)) == shm::State::Failed)
    runtime::throw_failure(process, record);
  runtime::ValueBytes value = runtime::result_bytes(process, record);
  const std::uint64_t size = shm::has_flag(record, shm::flag::kResultHasRefs)
                                 ? runtime::size_without_refs(value)
                                 : value.size;
  return {value.data, size, std::move(value.pin)};
}

bool is_final(RefAddress ref) {
  return is_final(runtime::require_process().memory().record(ref.slot));
}

// Up to the first that is not there yet, or for which there is no memory now: who waits for that
// one must not be kept from it by those behind.
void ReadAhead::look_ahead() {
  Process& process = runtime::require_process();
  for (; ahead_ < refs_.size(); ++ahead_) {
    check_ref(refs_[ahead_].address, refs_[ahead_].session);
    Record& record = process.memory().record(refs_[ahead_].address.slot);
    if (!is_final(record)) return;
    Pinned value;
    if (record.result_kind == shm::ResultKind::Stored) {
      value.size = record.result_at().size;
      if (pinned_bytes_ != 0 && pinned_bytes_ + value.size > budget_) return;
      if (!process.store().read_ahead(record.result_at(), value.pin)) return;
    }
    pinned_bytes_ += value.size;
    pinned_[ahead_] = std::move(value);
  }
}

Bytes ReadAhead::next() {
  look_ahead();
  const RefHandle& ref = refs_[next_];
  const Pinned own =
      std::exchange(pinned_[next_], {});  // until its bytes are pinned for the caller
  pinned_bytes_ -= own.size;
  ahead_ = std::max(ahead_, ++next_);
  return get_bytes(ref.address, ref.session, std::nullopt);
}

std::vector<std::size_t> wait_refs(std::span<const RefHandle> refs, std::size_t num_returns,
                                   std::optional<Duration> timeout) {
  Process& process = runtime::require_process();
  if (refs.empty()) throw Error("wait needs at least one Ref");
  if (num_returns == 0 || num_returns > refs.size()) {
    throw Error("wait: num_returns is " + std::to_string(num_returns) + ", with " +
                std::to_string(refs.size()) + " refs");
  }
  check_different(process, refs);
  const auto wait = [&] { return wait_now(process, refs, num_returns, timeout); };
  runtime::Frame* const call = runtime::journal ? runtime::journaled_frame() : nullptr;
  if (!call) return wait();
  // The first ones are what a wait finds when all are there.
  return wait_as_before(*call, wait, [&](const std::vector<std::size_t>& ready) {
    return ready.size() == num_returns && ready.back() == num_returns - 1;
  });
}

namespace {

std::vector<std::size_t> wait_now(Process& process, std::span<const RefHandle> refs,
                                  std::size_t num_returns, std::optional<Duration> timeout) {
  const Deadline deadline(timeout);
  shm::Memory& memory = process.memory();

  std::vector<std::size_t> ready;
  ready.reserve(num_returns);
  // True: there are enough. Gives up after so many that are not final.
  const auto look = [&](std::size_t misses_max) {
    ready.clear();
    std::size_t misses = 0;
    for (std::size_t i = 0; ready.size() < num_returns && i < refs.size(); ++i) {
      if (is_final(memory.record(refs[i].address.slot))) {
        ready.push_back(i);
      } else if (++misses == misses_max) {
        break;
      }
    }
    return ready.size() >= num_returns;
  };
  if (LocalMode* local = process.local(); local && !look(refs.size())) {
    const bool for_all = num_returns == refs.size() && !timeout;
    for (const RefHandle& ref : refs)
      local->before_wait(process.this_ledger(), runtime::to_shm(ref.address), for_all);
  }
  // All of them once, then those in front: each look at a record costs its worker a cache miss.
  constexpr std::size_t kMissesPerSpin = 16;
  for (int i = 0; i < kSpins; ++i) {
    if (look(i == 0 ? refs.size() : kMissesPerSpin)) return ready;
    if (timeout && deadline.over()) {
      if (i > 0) look(refs.size());
      return ready;
    }
    shm::spin_step(i);
  }
  process.tidy();
  runtime::Ledger& mine = process.this_ledger();
  const bool all_mine = std::all_of(refs.begin(), refs.end(), [&](const RefHandle& ref) {
    return process.ledger_of(ref.address.slot) == &mine;
  });
  shm::Bell& bell = all_mine ? mine.shared().completions : memory.header().any_bell;
  const Blocked blocked(process, shm::WaitReason::AnyTask, refs, num_returns, timeout.has_value());
  for (;;) {
    // The bell is read before the bits are set and the records looked at: what completes after that
    // changes it.
    const std::uint32_t rung = bell.value.load(std::memory_order_seq_cst);
    for (const RefHandle& ref : refs) {
      std::uint32_t low = 0;
      announce(memory.record(ref.address.slot), shm::word::kAnyWaiter, low);
    }
    shm::crash_point(shm::CrashPoint::WaitRegistered);
    if (look(refs.size()) || deadline.over()) return ready;
    if (runtime::should_stop()) runtime::throw_stopped();
    shm::futex_wait(shm::futex_word(bell.value), rung, deadline.slice());
    if (look(refs.size())) return ready;
    process.tidy();
    check_node(process);
  }
}

}  // namespace
}  // namespace mobula::detail

namespace mobula::runtime {

bool wait_at_bell(Process& process, const BellWait& wait, const std::function<bool()>& there,
                  std::optional<Duration> timeout) {
  const detail::Deadline deadline(timeout);
  const Frame* task = current_frame();
  if (task && task->cancelled()) throw_stopped();
  for (int i = 0; i < detail::kSpins; ++i) {
    if (there()) return true;
    if (timeout == Duration::zero()) return false;
    shm::spin_step(i);
  }
  process.tidy();
  const detail::RefHandle producer{wait.producer, process.session()};
  const detail::Blocked blocked(process, wait.reason, {&producer, 1}, 1, timeout.has_value());
  for (;;) {
    const std::uint32_t rung = wait.bell.value.load(std::memory_order_seq_cst);
    wait.sleepers.store(1, std::memory_order_seq_cst);
    // Announced before the last look: who changes something after it sees the word and rings.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    shm::crash_point(shm::CrashPoint::WaitRegistered);
    if (there()) return true;
    if (deadline.over()) return false;
    if (should_stop()) throw_stopped();
    shm::futex_wait(shm::futex_word(wait.bell.value), rung, deadline.slice());
    if (there()) return true;
    process.tidy();
    detail::check_node(process);
  }
}

}  // namespace mobula::runtime
