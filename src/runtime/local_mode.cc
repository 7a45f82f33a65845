#include "runtime/local_mode.h"

#include <deque>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mobula/error.h"
#include "runtime/callbacks.h"
#include "runtime/execution.h"
#include "shm/claim.h"

namespace mobula::runtime {

using shm::Address;
using shm::Record;
using shm::State;

// What was made ready below one frame of the stack, in its order.
class LocalMode::Level {
 public:
  Level() : outer_(std::exchange(innermost_, this)) {}
  ~Level() { innermost_ = outer_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

  std::deque<Address> ready;

 private:
  Level* outer_;
};

// While a task or call runs, its environment is the process's.
class LocalMode::Visit {
 public:
  Visit(LocalMode& local, std::uint32_t scheduling_class) : local_(local) {
    if (!local.uses_environments_.load(std::memory_order_relaxed)) return;
    std::string text;
    {
      const std::lock_guard lock(local.mutex_);
      const auto known = local.environments_.find(scheduling_class);
      if (known == local.environments_.end()) return;  // a callback's: it stays where it is
      text = known->second;
    }
    at_ = local.visits_.begin(std::move(text));
    outer_ = std::exchange(visit_, this);
  }
  ~Visit() {
    if (!at_) return;
    visit_ = outer_;
    local_.visits_.end(*at_);
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  const std::string& text() const { return **at_; }

 private:
  LocalMode& local_;
  std::optional<EnvironmentVisits::Visit> at_;
  Visit* outer_ = nullptr;
};

thread_local LocalMode::Visit* LocalMode::visit_ = nullptr;
thread_local LocalMode::Level* LocalMode::innermost_ = nullptr;
thread_local LocalMode::Actor* LocalMode::at_work_ = nullptr;

// A program may return from main() without a shutdown.
LocalMode::~LocalMode() { end_beside(); }

void LocalMode::run(Ledger& me, Address task) {
  Level level;
  run_next(me, task);
  settle(me, level);
}

void LocalMode::serve(Ledger& me, std::uint32_t actor_class) {
  Level level;
  run_calls(me, actor_class);
  settle(me, level);
}

bool LocalMode::run_after(Address callback) {
  if (innermost_) innermost_->ready.push_back(callback);
  return innermost_ != nullptr;
}

void LocalMode::made_ready(Ledger& me, Record& record, Address address) {
  if (record.kind == shm::Kind::ActorCreate) {
    const std::lock_guard lock(mutex_);
    actors_[address.packed()].scheduling_class = record.scheduling_class;
  }
  if (innermost_) {
    innermost_->ready.push_back(address);
    return;
  }
  Level level;
  level.ready.push_back(address);
  settle(me, level);
}

void LocalMode::settle(Ledger& me, Level& level) {
  while (!level.ready.empty()) {
    const Address next = level.ready.front();
    level.ready.pop_front();
    run_next(me, next);
  }
}

void LocalMode::run_next(Ledger& me, Address address) {
  const Record& record = process_.memory().record(address.slot);
  if (record.kind == shm::Kind::ActorCall || record.kind == shm::Kind::ActorCreate)
    return run_calls(me, record.scheduling_class);
  if (record.kind == shm::Kind::Task && (in_threads_ || (record.flags & shm::flag::kStream)))
    return run_beside([this, address](Ledger& mine) { execute(mine, address); });
  execute(me, address);
}

void LocalMode::run_beside(std::function<void(Ledger&)> work) {
  const std::lock_guard lock(mutex_);
  for (auto at = beside_.begin(); at != beside_.end();) {
    if (at->done.load(std::memory_order_acquire)) at->thread.join();
    at = at->thread.joinable() ? std::next(at) : beside_.erase(at);
  }
  Beside& own = beside_.emplace_back();
  own.thread = std::thread([this, &own, work = std::move(work)] {
    try {
      Ledger& mine = process_.this_ledger();
      Level level;
      work(mine);
      settle(mine, level);
    } catch (const Error&) {  // the node is gone: whoever waits is told
    }
    own.done.store(true, std::memory_order_release);
  });
}

// False: there was nothing to run.
bool LocalMode::execute(Ledger& me, Address address) {
  Record& record = process_.memory().record(address.slot);
  shm::claim::intend(me.shared(), address);
  if (!shm::claim::take(record, address, me.participant())) {
    shm::claim::forget(me.shared());
    return false;
  }
  const Visit visit(*this, record.scheduling_class);
  record.kind == shm::Kind::Callback ? process_.callbacks().run(me, record, address)
                                     : runtime::execute(me, record, address);
  process_.shared().tasks_done.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// ---- Actors.

void LocalMode::run_calls(Ledger& me, std::uint32_t actor_class, bool streams_too) {
  const Address creation = Address::unpack(
      process_.memory().scheduling_class(actor_class).creation.load(std::memory_order_acquire));
  Actor* actor = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto known = actors_.find(creation.packed());
    if (known == actors_.end()) return;  // its constructor waits for an argument, or it has ended
    actor = &known->second;
    if (actor->at_work) {
      actor->asked = true;  // whoever it works for looks again
      return;
    }
    actor->at_work = &me;
  }
  bool stream_comes = false;
  for (bool again = true; again;) {
    stream_comes = run_calls_of(me, *actor, creation, streams_too);
    const std::lock_guard lock(mutex_);
    again = std::exchange(actor->asked, false) && !stream_comes;
    if (!again) actor->at_work = nullptr;
  }
  if (stream_comes)
    return run_beside([=, this](Ledger& mine) { run_calls(mine, actor_class, true); });
  end_if_over(creation);
}

// True: it ended before a call that fills a stream.
bool LocalMode::run_calls_of(Ledger& me, Actor& actor, Address creation, bool streams_too) {
  shm::Memory& memory = process_.memory();
  shm::SchedulingClass& cls = memory.scheduling_class(actor.scheduling_class);
  const auto doomed = [&] {
    return shm::is_doomed(cls.kill_request.load(std::memory_order_acquire));
  };
  Actor* const outer = std::exchange(at_work_, &actor);
  bool stream_comes = false;
  if (!actor.instance && !doomed() && execute(me, creation) && !actor.instance) {
    cls.kill_request.fetch_or(shm::kConstructorFailed);  // the daemon fails its calls
    process_.daemon().ring(memory.header());
  }
  for (std::uint64_t at = cls.rings.load(std::memory_order_acquire);
       at != 0 && actor.instance && !stream_comes;) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(memory.heap(at));
    while (!doomed()) {
      stream_comes = !streams_too && begins_with_stream(ring);
      if (stream_comes) break;
      const Address call = shm::claim::next(memory, ring, me.shared(), me.participant(),
                                            shm::claim::Order::AsSubmitted);
      if (!call) break;
      {
        const Visit visit(*this, actor.scheduling_class);
        runtime::execute(me, memory.record(call.slot), call);
      }
      process_.shared().tasks_done.fetch_add(1, std::memory_order_relaxed);
    }
    at = ring.next.load(std::memory_order_acquire);
  }
  at_work_ = outer;
  if (doomed()) process_.daemon().ring(memory.header());  // it fails the calls that are left
  return stream_comes;
}

bool LocalMode::begins_with_stream(const shm::RingHeader& ring) const {
  if (ring.empty()) return false;
  const std::uint64_t t = ring.tail.load(std::memory_order_acquire);
  const auto address =
      Address::unpack(shm::ring::entry(process_.memory(), ring, t).load(std::memory_order_relaxed));
  const Record& record = process_.memory().record(address.slot);
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  return shm::word::generation(state) == address.generation &&
         shm::word::state(state) == State::Ready && (record.flags & shm::flag::kStream);
}

bool LocalMode::has_calls(const shm::SchedulingClass& cls) const {
  for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
    const auto& ring = *reinterpret_cast<shm::RingHeader*>(process_.memory().heap(at));
    if (!ring.empty()) return true;
    at = ring.next.load(std::memory_order_acquire);
  }
  return false;
}

void LocalMode::last_handle_gone(Address creation, std::uint32_t actor_class) {
  {
    const std::lock_guard lock(mutex_);
    Actor& actor = actors_[creation.packed()];  // unknown: killed before it was constructed
    actor.scheduling_class = actor_class;
    actor.no_handle = true;
  }
  end_if_over(creation);
}

// Without a handle, an actor lives until its calls are done; killed, until the one is that runs.
void LocalMode::end_if_over(Address creation) {
  Actor over;
  bool no_handle = false;
  {
    const std::lock_guard lock(mutex_);
    const auto known = actors_.find(creation.packed());
    if (known == actors_.end() || known->second.at_work) return;
    const shm::SchedulingClass& cls =
        process_.memory().scheduling_class(known->second.scheduling_class);
    no_handle = known->second.no_handle;
    const bool doomed = shm::is_doomed(cls.kill_request.load(std::memory_order_acquire));
    if (!doomed && (!no_handle || has_calls(cls))) return;
    over = std::exchange(known->second, {.scheduling_class = known->second.scheduling_class});
    if (no_handle) actors_.erase(known);
  }
  if (over.instance) over.destroy(over.instance);
  if (!no_handle) return;
  process_.memory()
      .scheduling_class(over.scheduling_class)
      .kill_request.fetch_or(shm::kLastHandleGone);
  process_.daemon().ring(process_.memory().header());
}

// One of them may start another one.
void LocalMode::end_beside() {
  // As workers learn of it; producers that wait for readers throw.
  process_.memory().header().session_over.store(1, std::memory_order_seq_cst);
  for (;;) {
    std::list<Beside> next;
    {
      const std::lock_guard lock(mutex_);
      if (beside_.empty()) return;
      next.splice(next.begin(), beside_, beside_.begin());
    }
    next.front().thread.join();
  }
}

void LocalMode::end() {
  end_beside();
  for (;;) {
    Actor last;
    {
      const std::lock_guard lock(mutex_);
      if (actors_.empty()) return;
      last = actors_.begin()->second;
      actors_.erase(actors_.begin());
    }
    if (last.instance) last.destroy(last.instance);
  }
}

void* LocalMode::instance() { return at_work_->instance; }
void LocalMode::set_instance(void* instance, void (*destroy)(void*)) {
  at_work_->instance = instance;
  at_work_->destroy = destroy;
}

// ---- Environments.

void LocalMode::has_environment(std::uint32_t scheduling_class, const std::string& text) {
  const std::lock_guard lock(mutex_);
  environments_[scheduling_class] = text;
  if (!text.empty()) uses_environments_.store(true, std::memory_order_relaxed);
}

const std::string& LocalMode::environment() {
  static const std::string kNone;
  return visit_ ? visit_->text() : kNone;
}

// ---- Waiting.

void LocalMode::before_wait(Ledger& me, Address address, bool for_ever) {
  const Record& record = process_.memory().record(address.slot);
  if (record.kind == shm::Kind::Task) {
    if (!in_threads_) run(me, address);
  } else if (record.scheduling_class != shm::kNone) {
    serve(me, record.scheduling_class);
  }
  // A circle goes through an actor that this thread is in. With threads, others change meanwhile
  // what the search reads.
  while (for_ever && at_work_ && !in_threads_ && fail_call_in_circle(me, address)) {
  }
}

// Follows what the record waits for. True: a call was failed, and what it held up has run.
bool LocalMode::fail_call_in_circle(Ledger& me, Address waited_for) {
  shm::Memory& memory = process_.memory();
  std::vector<Address> open{waited_for};
  std::set<std::uint64_t> seen;
  while (!open.empty()) {
    const Address address = open.back();
    open.pop_back();
    Record& record = memory.record(address.slot);
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    if (shm::word::generation(state) != address.generation || !seen.insert(address.packed()).second)
      continue;
    if (shm::word::state(state) == State::Waiting) {
      const auto edges = static_cast<std::uint32_t>(record.join.load(std::memory_order_acquire));
      for (std::uint32_t i = 0; i < record.dependencies; ++i) {
        if (edges & (1u << i)) open.push_back(Address::unpack(record.edge(i).target));
      }
    }
    if (record.kind != shm::Kind::ActorCall || shm::word::is_final(state) ||
        shm::word::state(state) == State::Claimed)
      continue;
    const shm::SchedulingClass& cls = memory.scheduling_class(record.scheduling_class);
    bool is_ours = false;
    {
      const std::lock_guard lock(mutex_);
      const auto actor = actors_.find(cls.creation.load(std::memory_order_acquire));
      is_ours = actor != actors_.end() && actor->second.at_work == &me;
    }
    if (is_ours) {
      Level level;
      fail_deadlocked_call(me, record, address);
      settle(me, level);
      return true;
    }
    // It may be held back by one that waits.
    for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
      auto& ring = *reinterpret_cast<shm::RingHeader*>(memory.heap(at));
      const std::uint64_t t = ring.tail.load(std::memory_order_acquire);
      if (!ring.empty())
        open.push_back(
            Address::unpack(shm::ring::entry(memory, ring, t).load(std::memory_order_relaxed)));
      at = ring.next.load(std::memory_order_acquire);
    }
  }
  return false;
}

}  // namespace mobula::runtime
