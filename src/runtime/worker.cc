#include "runtime/worker.h"

#include <malloc.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <unordered_map>

#include "core/memory_guard.h"
#include "runtime/actor_state.h"
#include "runtime/call_threads.h"
#include "runtime/callbacks.h"
#include "runtime/execution.h"
#include "runtime/helping.h"
#include "runtime/ledger.h"
#include "runtime/open_call.h"
#include "shm/check.h"
#include "shm/claim.h"
#include "shm/futex.h"
#include "shm/memory_use.h"

namespace mobula::runtime {
namespace {

// How long the one searching worker looks before it sleeps, in looks; some 10 us.
constexpr int kSearchLooks = 300;
// Sleeps are bounded so that a lost daemon is noticed; a wake-up is never lost.
constexpr std::int64_t kSleepSlice = 1'000'000'000;
// Tasks of one ring in a row before the other rings are looked at.
constexpr int kRingTurn = 64;
// Below this a task counts as quick: about what waking a second worker for it would cost.
constexpr std::uint64_t kQuickTicks = 10'000;
constexpr int kQuickInARow = 16;
// Between two questions after the heap: about 10 ms and some tasks, or 100 ms. How much it is costs
// tens of microseconds to learn, so it is asked only after so many page faults: whatever grew took
// those.
constexpr std::uint64_t kHeapLookTicks = 25'000'000;
constexpr std::uint32_t kHeapLookTasks = 8;
constexpr long kHeapLookFaults = 1024;
// A sleep of about a millisecond: what comes after it is no stream of tasks.
constexpr std::uint64_t kParkedTicks = 3'000'000;
// Stack that must be left to run a task inside of a waiting one: what programs have by default, so
// that a function that runs anywhere runs here. Of a small stack, half.
constexpr std::size_t kStackReserve = 8 << 20;

std::uint64_t ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return now_ns() * 2;
#endif
}

std::uint64_t own_memory() { return shm::private_memory(static_cast<std::uint32_t>(::getpid())); }

class WorkerLoop {
 public:
  explicit WorkerLoop(Process& process)
      : process_(process),
        memory_(process.memory()),
        shared_(process.shared()),
        ledger_(process.this_ledger()),
        heap_bound_(memory_.header().worker_heap_max),
        heap_at_start_(own_memory()) {}

  [[noreturn]] void run() {
    for (;;) {
      const std::uint32_t cls = shared_.assigned_class.load(std::memory_order_acquire);
      if (cls == shm::kNone) {
        wait_unattached();
        continue;
      }
      shared_.works_for.store(cls, std::memory_order_release);
      shm::SchedulingClass& scheduling_class = memory_.scheduling_class(cls);
      is_actor_ = scheduling_class.kind.load(std::memory_order_relaxed) ==
                  static_cast<std::uint32_t>(shm::ClassKind::Actor);
      set_help_class(is_actor_ ? shm::kNone : cls);
      if (is_actor_) {
        process_.callbacks().run_here();
        construct(cls, scheduling_class);
        if (scheduling_class.groups[0] || scheduling_class.out_of_order)
          threads_ = std::make_unique<CallThreads>(process_, scheduling_class);
      }
      work_for(cls, scheduling_class);
    }
  }

 private:
  [[noreturn]] void leave(int code) {
    shm::crash_point(shm::CrashPoint::LeaveStarted);
    // When the session is over, some may still run a method.
    if (!threads_ || threads_->idle()) destroy_instance();
    ::fflush(nullptr);
    shared_.left.store(1, std::memory_order_release);
    ::_exit(code);
  }

  bool should_leave() const {
    return shared_.must_leave.load(std::memory_order_acquire) ||
           memory_.header().session_over.load(std::memory_order_relaxed);
  }

  // An actor ends in order when it has run its calls and owes nobody an answer.
  bool may_leave(shm::SchedulingClass& cls) {
    return should_leave() &&
           (!is_actor_ || memory_.header().session_over.load(std::memory_order_relaxed) ||
            (rings_empty(cls) && !owes_answers() && (!threads_ || threads_->idle())));
  }

  bool is_doomed(shm::SchedulingClass& cls) const {
    return is_actor_ && shm::is_doomed(cls.kill_request.load(std::memory_order_seq_cst));
  }

  bool has_cancels() const {
    return is_actor_ && shared_.cancels.load(std::memory_order_seq_cst) != cancels_seen_;
  }

  // What an actor does between two calls. True: something was done.
  bool run_callbacks(shm::SchedulingClass& cls) {
    if (!is_actor_ || is_doomed(cls)) return false;
    if (has_cancels()) {
      cancels_seen_ = shared_.cancels.load(std::memory_order_seq_cst);
      run_cancel_hooks();
    }
    return process_.callbacks().run_due();
  }

  std::int64_t sleep_at_most() {
    const std::uint64_t due = process_.callbacks().next_due();
    if (!is_actor_ || due == Callbacks::kNever) return kSleepSlice;
    const std::uint64_t now = now_ns();
    return static_cast<std::int64_t>(
        std::min(std::max(due, now) - now, std::uint64_t{kSleepSlice}));
  }

  void sleep_on(std::uint32_t rung) {
    shared_.waker_core.store(shm::kNone, std::memory_order_relaxed);
    shared_.sleeping.store(1, std::memory_order_seq_cst);
    if (memory_.header().wants_idle.load(std::memory_order_seq_cst))
      process_.daemon().ring(memory_.header());
    const std::uint64_t begin = ticks();
    shm::futex_wait(shm::futex_word(shared_.bell.value), rung, sleep_at_most());
    shared_.sleeping.store(0, std::memory_order_relaxed);
    // Nobody rang for a long time: is there still a daemon? And what did the last tasks leave?
    if (shared_.bell.value.load(std::memory_order_acquire) == rung) {
      if (!process_.daemon().alive()) ::_exit(kExitDone);
      look_after_heap();
    }
    waker_stands_still_ = shared_.waker_core.load(std::memory_order_relaxed) == shm::this_core() &&
                          ticks() - begin > kParkedTicks;
  }

  void wait_unattached() {
    const std::uint32_t rung = shared_.bell.value.load(std::memory_order_acquire);
    if (shared_.works_for.exchange(shm::kNone) != shm::kNone)
      process_.daemon().ring(memory_.header());  // the answer to being detached
    process_.tidy();
    if (should_leave()) leave(kExitDone);
    if (shared_.assigned_class.load(std::memory_order_acquire) == shm::kNone) sleep_on(rung);
  }

  // Runs the actor's constructor: as the task it is, or once more after a restart.
  void construct(std::uint32_t id, shm::SchedulingClass& cls) {
    const shm::Address address = shm::Address::unpack(cls.creation.load(std::memory_order_acquire));
    shm::Record& creation = memory_.record(address.slot);
    for (;;) {
      const std::uint32_t rung = shared_.bell.value.load(std::memory_order_acquire);
      doorbell_sleep_announce(cls);
      const std::uint64_t state = creation.state.load(std::memory_order_seq_cst);
      // Its last handle went meanwhile, and the slot with it; or nobody will ever submit it: the
      // daemon lets us go.
      if (shm::word::generation(state) == address.generation &&
          shm::word::state(state) == shm::State::Failed)
        leave(wire::kExitConstructorFailed);
      if (shm::word::generation(state) == address.generation &&
          shm::word::state(state) == shm::State::Done) {
        try {
          construct_again(ledger_, creation, address);
          if (keeps_state(id, cls)) {
            actor_state->restore([&] {
              destroy_instance();
              construct_again(ledger_, creation, address);
            });
          }
        } catch (const StateLost& lost) {
          ::fprintf(stderr, "mobula: the actor's state is lost: %s\n", lost.why.c_str());
          leave(wire::kExitStateLost);
        } catch (const std::exception& e) {
          ::fprintf(stderr, "mobula: the actor's constructor threw at its restart: %s\n", e.what());
          leave(wire::kExitConstructorFailed);
        } catch (...) {
          leave(wire::kExitConstructorFailed);
        }
        break;
      }
      shm::claim::intend(ledger_.shared(), address);
      if (shm::claim::take(creation, address, ledger_.participant())) {
        execute(ledger_, creation, address);
        if (shm::word::state(creation.state.load(std::memory_order_acquire)) == shm::State::Failed)
          leave(wire::kExitConstructorFailed);
        keeps_state(id, cls);
        break;
      }
      shm::claim::forget(ledger_.shared());
      if (should_leave()) leave(kExitDone);
      sleep_on(rung);
    }
    shm::doorbell::withdraw_sleep(cls, shared_.class_slot.load(std::memory_order_relaxed));
  }

  // Its class says how; an earlier process may have saved it on demand.
  bool keeps_state(std::uint32_t id, const shm::SchedulingClass& cls) {
    if (!ActorState::wanted(cls.lasting)) return false;
    MOBULA_CHECK(instance_codec());
    actor_state = std::make_unique<ActorState>(ledger_, id, *instance_codec());
    return true;
  }

  void doorbell_sleep_announce(shm::SchedulingClass& cls) {
    shm::doorbell::announce_sleep(cls, shared_.class_slot.load(std::memory_order_relaxed));
  }

  // Any record in the rings that could be claimed? A look only.
  bool has_work(shm::SchedulingClass& cls) {
    if (threads_) return threads_->has_work();
    for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
      auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
      if (!ring.empty() && !(is_actor_ && head_waits(ring))) return true;
      at = ring.next.load(std::memory_order_acquire);
    }
    return false;
  }

  bool head_waits(shm::RingHeader& ring) {
    const std::uint64_t t = ring.tail.load(std::memory_order_acquire);
    if (t >= ring.head.load(std::memory_order_acquire)) return false;
    const auto address =
        shm::Address::unpack(shm::ring::entry(memory_, ring, t).load(std::memory_order_relaxed));
    const std::uint64_t state = memory_.record(address.slot).state.load(std::memory_order_seq_cst);
    return shm::word::state(state) == shm::State::Waiting &&
           shm::word::generation(state) == address.generation;
  }

  bool rings_empty(shm::SchedulingClass& cls) {
    for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
      auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
      if (!ring.empty()) return false;
      at = ring.next.load(std::memory_order_acquire);
    }
    return true;
  }

  // Runs what the rings hold, each in turn; true if anything was run.
  bool run_ready(std::uint32_t id, shm::SchedulingClass& cls) {
    bool any = false;
    if (is_doomed(cls)) return false;  // nothing runs after kill() or exit_actor()
    if (threads_) return threads_->hand_over([&](shm::Address address) { run_own(cls, address); });
    const std::uint64_t daemons = cls.rings.load(std::memory_order_acquire);
    for (std::uint64_t at = daemons; at != 0;) {
      auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
      // What the daemon repeats of an actor's last life comes before its callers' later calls.
      const bool all = is_actor_ && at == daemons;
      for (int turn = 0; turn < kRingTurn || all; ++turn) {
        const shm::Address address =
            shm::claim::next(memory_, ring, ledger_.shared(), ledger_.participant(),
                             is_actor_ ? shm::claim::Order::AsSubmitted : shm::claim::Order::Any);
        if (!address) break;
        any = true;
        run_one(cls, ring, address);
        if (is_doomed(cls)) return false;
        if (spent_ || shared_.assigned_class.load(std::memory_order_relaxed) != id ||
            shared_.must_leave.load(std::memory_order_relaxed))
          return true;
      }
      at = ring.next.load(std::memory_order_acquire);
    }
    return any;
  }

  // Of an actor whose calls are handed over: what is left for its own thread.
  void run_own(shm::SchedulingClass& cls, shm::Address address) {
    if (is_doomed(cls)) return;
    shm::claim::intend(ledger_.shared(), address);
    if (!shm::claim::take(memory_.record(address.slot), address, ledger_.participant()))
      return shm::claim::forget(ledger_.shared());
    run_one(cls, *reinterpret_cast<shm::RingHeader*>(memory_.heap(cls.rings.load())), address);
  }

  void run_one(shm::SchedulingClass& cls, shm::RingHeader& ring, shm::Address address) {
    shm::Record& record = memory_.record(address.slot);
    if (record.kind == shm::Kind::Callback) {
      process_.callbacks().run(ledger_, record, address);
      return;
    }
    const std::uint64_t function = record.function;
    if (function != last_function_) {
      last_function_ = function;
      last_quick_ = &quick_[function];
    }
    bool* const quick = last_quick_;
    // Before a task that may take long, somebody else must see to the ones behind it.
    if (!*quick && !is_actor_) {
      in_a_row_ = 0;
      if (cls.quick.load(std::memory_order_relaxed)) cls.quick.store(0, std::memory_order_relaxed);
      if (!ring.empty() && cls.searcher.load(std::memory_order_relaxed) == 0)
        shm::doorbell::wake_one(memory_, cls);
    }
    const std::uint64_t begin = ticks();
    shared_.task_began.store(begin, std::memory_order_relaxed);
    execute(ledger_, record, address);
    if (actor_state) actor_state->call_ended(record);
    shared_.tasks_done.store(shared_.tasks_done.load(std::memory_order_relaxed) + 1,
                             std::memory_order_relaxed);
    const std::uint64_t end = ticks();
    ++tasks_since_asked_;
    if (end - heap_asked_at_ > kHeapLookTicks &&
        (tasks_since_asked_ >= kHeapLookTasks || end - heap_asked_at_ > 10 * kHeapLookTicks)) {
      heap_asked_at_ = end;
      tasks_since_asked_ = 0;
      look_after_heap();
    }
    const bool was_quick = end - begin < kQuickTicks;
    if (was_quick != *quick) *quick = was_quick;
    in_a_row_ = was_quick ? in_a_row_ + 1 : 0;
    if (in_a_row_ == kQuickInARow && !cls.quick.load(std::memory_order_relaxed))
      cls.quick.store(1, std::memory_order_relaxed);
  }

  static long page_faults() {
    rusage use{};
    ::getrusage(RUSAGE_SELF, &use);
    return use.ru_minflt + use.ru_majflt;
  }

  std::uint64_t heap() const {
    const std::uint64_t all = own_memory();
    return all - std::min(all, heap_at_start_);
  }

  // An actor's heap is its state; a worker's is bounded.
  void look_after_heap() {
    const long faults = page_faults();
    if (is_actor_ || faults < faults_at_look_ + kHeapLookFaults) return;
    faults_at_look_ = faults;
    if (!heap_bound_.wants_trim(heap())) return;
    ::malloc_trim(0);
    spent_ = heap_bound_.is_spent(heap());
    if (!spent_) return;
    shared_.spent.store(1, std::memory_order_release);
    process_.daemon().ring(memory_.header());
  }

  // Takes no more tasks, so that its heap is bounded however late the daemon comes.
  void wait_to_leave(std::uint32_t id, shm::SchedulingClass& cls) {
    const std::uint32_t rung = shared_.bell.value.load(std::memory_order_acquire);
    shm::doorbell::wake_one(memory_, cls);  // for what it leaves in the rings
    ledger_.tidy_all();
    if (should_leave()) leave(kExitDone);
    if (shared_.assigned_class.load(std::memory_order_seq_cst) == id) sleep_on(rung);
  }

  void work_for(std::uint32_t id, shm::SchedulingClass& cls) {
    const std::uint32_t class_slot = shared_.class_slot.load(std::memory_order_acquire);
    while (shared_.assigned_class.load(std::memory_order_acquire) == id) {
      if (spent_) {
        wait_to_leave(id, cls);
        continue;
      }
      const bool ran = run_ready(id, cls);
      if (run_callbacks(cls) || ran) continue;
      if (is_actor_ && (cls.kill_request.load(std::memory_order_relaxed) & shm::kLeave))
        leave(kExitDone);
      if (may_leave(cls)) leave(kExitDone);
      if (search(cls)) continue;
      const std::uint32_t rung = shared_.bell.value.load(std::memory_order_acquire);
      shm::doorbell::announce_sleep(cls, class_slot);
      shm::crash_point(shm::CrashPoint::SleepAnnounced);
      const bool doomed = is_doomed(cls);
      const bool stay = ((has_work(cls) || has_cancels()) && !doomed) || may_leave(cls) ||
                        shared_.assigned_class.load(std::memory_order_seq_cst) != id;
      if (!stay) {
        ledger_.tidy_all();
        sleep_on(rung);
      }
      shm::doorbell::withdraw_sleep(cls, class_slot);
    }
  }

  // Looks for work for a few microseconds, if nobody else does. True: there is some.
  bool search(shm::SchedulingClass& cls) {
    if (memory_.header().cores < 2 || waker_stands_still_ ||
        !shm::doorbell::become_searcher(cls, process_.index()))
      return false;
    bool found = false;
    for (int i = 0; i < kSearchLooks && !found; ++i) {
      found = has_work(cls);
      shm::spin_step(i);
    }
    shm::doorbell::stop_searching(cls);
    return found;
  }

  Process& process_;
  shm::Memory& memory_;
  shm::Process& shared_;
  Ledger& ledger_;
  bool is_actor_ = false;
  std::unique_ptr<CallThreads> threads_;  // of an actor that has some, or is out of order
  // We run on its core: it goes on when we sleep, and our search would only hold it up. But one
  // that wakes us again and again is better off if the kernel sees both of us want to run, and
  // moves one to another core.
  bool waker_stands_still_ = false;
  std::unordered_map<std::uint64_t, bool>
      quick_;  // by function: did it take microseconds the last time
  std::uint64_t last_function_ = 0;
  bool* last_quick_ = nullptr;
  int in_a_row_ = 0;
  core::HeapBound heap_bound_;
  const std::uint64_t heap_at_start_;  // what it shares with the zygote, for the most part
  std::uint64_t heap_asked_at_ = 0;
  std::uint32_t tasks_since_asked_ = 0;
  long faults_at_look_ = 0;
  bool spent_ = false;
  std::uint32_t cancels_seen_ = 0;
};

}  // namespace

void run_worker(Process& process) {
  rlimit stack{};
  ::getrlimit(RLIMIT_STACK, &stack);
  const std::size_t size = stack.rlim_cur == RLIM_INFINITY ? std::size_t{64} << 20 : stack.rlim_cur;
  // Not a local variable's address: a sanitizer may keep those elsewhere.
  const auto* here = static_cast<const char*>(__builtin_frame_address(0));
  set_stack_limit(here - size + std::min(kStackReserve, size / 2));
  try {
    WorkerLoop(process).run();
  } catch (const NodeDiedError&) {
    ::_exit(kExitDone);
  }
}

}  // namespace mobula::runtime
