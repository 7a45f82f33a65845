// The life of actors: restarts, kill, the last handle, burial.
#include "node/node.h"

#include <algorithm>

#include "node/node_parts.h"
#include "shm/claim.h"

namespace mobula::node {
namespace {

constexpr int kActorStartsMax = 3;  // failed ones, of an actor's process
// Back-off of restarts: a life shorter than this counts as a quick death; the first few cost no
// pause.
constexpr core::Time kShortLife = std::chrono::seconds(1);
constexpr int kQuickDeathsFree = 3;
constexpr core::Time kFirstPause = std::chrono::milliseconds(10);
constexpr core::Time kLongestPause = std::chrono::seconds(2);

}  // namespace

void Node::actor_ended(std::uint32_t id, const ProcessEnd& end, bool wanted) {
  const auto it = actors_.find(id);
  if (it == actors_.end() || it->second.dead) return;
  Actor& actor = it->second;
  actor.worker = shm::kNone;
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  if (!wanted && (actor.max_restarts < 0 || actor.restarts < actor.max_restarts)) {
    ++actor.restarts;
    cls.restarts.store(static_cast<std::uint32_t>(actor.restarts));
    // One that dies again and again, as soon as it lives, is given less and less of the machine.
    const bool short_lived = now() - actor.attached_at < kShortLife;
    actor.quick_deaths = short_lived ? actor.quick_deaths + 1 : 0;
    actor.restart_at =
        now() +
        (actor.quick_deaths <= kQuickDeathsFree
             ? core::Time{}
             : std::min(kFirstPause * (1 << std::min(actor.quick_deaths - kQuickDeathsFree, 10)),
                        kLongestPause));
    restart_if_due(id, actor);
    return;
  }
  const shm::Death cause =
      (cls.kill_request.load() & shm::kKill)                  ? shm::Death::Killed
      : end.exit_code == wire::kExitConstructorFailed         ? shm::Death::ConstructorFailed
      : actor.ending && end.signal == 0 && end.exit_code == 0 ? shm::Death::OutOfScope
                                                              : shm::Death::Crashed;
  bury_actor(id, cause, end);
}

void Node::restart_if_due(std::uint32_t id, Actor& actor) {
  if (!actor.restart_at || now() < *actor.restart_at) return;
  actor.restart_at.reset();
  step(core::ClassOpened{{id}, core::ClassKind::Actor, actor.demand});
}

// Its process died before it joined: no fault of the actor, so none of its restarts is spent. Not
// without end, though.
void Node::actor_start_failed(std::uint32_t id, const ProcessEnd& end) {
  const auto it = actors_.find(id);
  if (it == actors_.end() || it->second.dead) return;
  Actor& actor = it->second;
  actor.worker = shm::kNone;
  if (memory_.scheduling_class(id).kill_request.load() & shm::kKill)
    return bury_actor(id, shm::Death::Killed, end);
  if (++actor.failed_starts > kActorStartsMax) return bury_actor(id, shm::Death::NotStarted, end);
  step(core::ClassOpened{{id}, core::ClassKind::Actor, actor.demand});
}

void Node::bury_actor(std::uint32_t id, shm::Death cause, const ProcessEnd& end) {
  Actor& actor = actors_.at(id);
  actor.dead = true;
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  const shm::DeathCause known = cause == shm::Death::Crashed ? end.cause : shm::DeathCause{cause};
  cls.death = {known.packed(), end.signal, end.exit_code, end.pid};
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Dead), std::memory_order_seq_cst);
  std::atomic_thread_fence(
      std::memory_order_seq_cst);  // before we empty the rings (see submit_call)
  recovery_->fail_calls(id);
  step(core::ClassClosed{{id}});
}

// Its creator died between opening the class and submitting the creation.
void Node::close_actors_without_creation(std::uint32_t process) {
  const auto& dead = tables_->participants_of(process);
  for (auto& [id, actor] : actors_) {
    if (actor.dead) continue;
    const auto creation = shm::Address::unpack(memory_.scheduling_class(id).creation.load());
    const std::uint32_t owner =
        memory_.segment_owner(creation.slot / shm::kRecordsPerSegment).load();
    if (std::find(dead.begin(), dead.end(), owner) == dead.end()) continue;
    const std::uint64_t state = memory_.record(creation.slot).state.load();
    const bool never_submitted = shm::word::state(state) == shm::State::Free &&
                                 shm::word::generation(state) + 1 == creation.generation;
    if (never_submitted)
      memory_.scheduling_class(id).kill_request.fetch_or(shm::kKill | shm::kLastHandleGone);
  }
}

void Node::serve_actors() {
  std::vector<std::uint32_t> over;
  for (auto& [id, actor] : actors_) {
    shm::SchedulingClass& cls = memory_.scheduling_class(id);
    const std::uint64_t request = cls.kill_request.load(std::memory_order_acquire);
    if (actor.dead) {
      if ((request & shm::kLastHandleGone) && actor.worker == shm::kNone) over.push_back(id);
      continue;
    }
    if (request == 0) {
      restart_if_due(id, actor);
      continue;
    }
    if (actor.worker == shm::kNone) {  // not started, or between two lives
      if (request & shm::kKill)
        bury_actor(id, shm::Death::Killed, {});
      else if (depth_of(id) == 0)
        bury_actor(id, shm::Death::OutOfScope, {});
      continue;
    }
    Worker& worker = workers_.at(actor.worker);
    if (request & shm::kKill) {
      // Its process may not be known yet; then at a later look.
      busy_ = true;
      kill_worker(worker);
    } else if (!actor.ending) {
      actor.ending = true;
      memory_.process(actor.worker).must_leave.store(1, std::memory_order_seq_cst);
      wake(actor.worker);
    }
  }
  for (const std::uint32_t id : over) {
    // No handle is left that could name the class: its entry serves the next actor.
    actors_.erase(id);
    memory_.scheduling_class(id).state.store(static_cast<std::uint32_t>(shm::ClassState::Free));
    tables_->close_class(id);
  }
}

bool Node::an_actor_waits() const {
  return std::any_of(workers_.begin(), workers_.end(),
                     [](const auto& entry) { return entry.second.actor && entry.second.blocked; });
}

// Who closes a circle rings us when it goes to sleep, so we look at once, and again at the next
// tick to be sure.
void Node::look_for_deadlocks() {
  WaitSurvey::Processes processes;
  for (const auto& [demand, id] : task_classes_) {
    for (const core::WorkerId holder : allotment_.blocked_holders({id}))
      processes.holders[id].push_back(holder.value);
  }
  if (!an_actor_waits() && processes.holders.empty()) return;
  for (const auto& [process, worker] : workers_) {
    if (worker.blocked) processes.blocked.push_back(process);
  }
  for (const auto& [id, actor] : actors_) {
    // What a call waits for is known only where one thread takes them in order.
    if (!actor.dead && actor.worker != shm::kNone && actor.one_by_one)
      processes.actors.emplace(id, actor.worker);
  }
  for (const WaitSurvey::Deadlock& found : waits_->look(processes)) {
    if (found.holder != shm::kNone) {
      step(core::WorkerStuck{{found.holder}});
      continue;
    }
    const std::uint64_t number = ++deadlocks_;
    shm::DeadlockNote& note = memory_.header().deadlocks[number % shm::kDeadlocksKept];
    note.number.store(0);
    std::atomic_thread_fence(std::memory_order_release);
    const std::size_t steps = found.steps.size();
    for (std::size_t i = 0; i < std::min<std::size_t>(steps, shm::kDeadlockSteps); ++i) {
      const bool last = i + 1 == shm::kDeadlockSteps;  // the call itself is never left out
      const shm::Record& record = memory_.record(found.steps[last ? steps - 1 : i].slot);
      note.step[i].scheduling_class.store(record.scheduling_class, std::memory_order_relaxed);
      note.step[i].kind.store(static_cast<std::uint32_t>(record.kind), std::memory_order_relaxed);
      note.step[i].function.store(record.function, std::memory_order_relaxed);
    }
    note.steps.store(static_cast<std::uint32_t>(steps), std::memory_order_relaxed);
    note.number.store(number, std::memory_order_release);
    recovery_->fail_deadlocked(found.call, number);
  }
  if (waits_->suspects()) busy_ = true;
}

}  // namespace mobula::node
