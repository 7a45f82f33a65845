// The life of actors: names, restarts, kill, the last handle, burial.
#include "node/node.h"

#include <string.h>

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

ActorDeath told(const shm::DeathNote& note, int restarts) {
  const auto reason = [&] {
    switch (shm::DeathCause::unpack(note.cause).death) {
      case shm::Death::Killed: return DeathReason::Killed;
      case shm::Death::Left: return DeathReason::Left;
      case shm::Death::OutOfScope: return DeathReason::OutOfScope;
      case shm::Death::ConstructorFailed: return DeathReason::ConstructorFailed;
      case shm::Death::NotStarted: return DeathReason::NotStarted;
      case shm::Death::OutOfMemory: return DeathReason::OutOfMemory;
      case shm::Death::StateLost: return DeathReason::StateLost;
      case shm::Death::GroupRemoved: return DeathReason::PlacementGroupRemoved;
      default: return DeathReason::Crashed;
    }
  };
  return {reason(), note.signal, note.exit_code, restarts, note.pid};
}

shm::Death killed(std::uint64_t kill_request) {
  return (kill_request & shm::kGroupRemoved) ? shm::Death::GroupRemoved : shm::Death::Killed;
}

}  // namespace

// ---- Names.

ActorName Node::full_name(std::string_view name, std::string_view space) const {
  return {space.empty() ? namespace_ : std::string(space), std::string(name)};
}

bool Node::name_is_taken(const ActorName& name) const {
  const auto actor = name.name.empty() ? std::nullopt : names_.find(name);
  return actor && !shm::is_meant_to_end(memory_.scheduling_class(*actor).kill_request.load());
}

// A hold on its creation comes with the answer, so that the actor does not end before the handle is
// made.
void Node::find_actor(std::uint32_t process, wire::Message& message) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  const ActorName name = full_name(wire::field(fields, 0), wire::field(fields, 1));
  message.text_size = 0;
  const auto not_found = [&] {
    refuse(message, wire::Status::NotFound,
           "there is no actor " + name.quoted() + ": none was created, or it is dead");
  };
  const auto id = names_.find(name);
  if (!id) return not_found();
  const shm::SchedulingClass& cls = memory_.scheduling_class(*id);
  if (actors_.at(*id).type != message.c) {
    return refuse(message, wire::Status::OtherClass,
                  "the actor " + name.quoted() + " is of class " + cls.name +
                      ", which is not the one asked for");
  }
  const auto creation = shm::Address::unpack(cls.creation.load());
  const std::uint64_t state = memory_.record(creation.slot).state.load(std::memory_order_acquire);
  const bool submitted = shm::word::generation(state) == creation.generation &&
                         shm::word::state(state) != shm::State::Free;
  if (!submitted && !shm::is_meant_to_end(cls.kill_request.load()))
    return refuse(message, wire::Status::Later, "its creator is about to submit it");
  if (!recovery_->give_hold(process, message.b, creation, &cls.kill_request)) return not_found();
  message.a = *id;
  message.c = creation.packed();
}

void Node::list_actors(wire::Message& message) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  const bool everywhere = message.a == 1;
  const ActorName last{std::string(wire::field(fields, 0)), std::string(wire::field(fields, 1))};
  std::vector<std::string> found;
  std::size_t size = 0;
  message.a = 0;
  for (auto it = names_.all().upper_bound(last); it != names_.all().end(); ++it) {
    const ActorName& name = it->first;
    if ((!everywhere && name.namespace_ != namespace_) || !name_is_taken(name)) continue;
    size += name.namespace_.size() + name.name.size() + 2;
    if (size > wire::kTextMax) {
      message.a = 1;
      break;
    }
    found.push_back(name.namespace_);
    found.push_back(name.name);
  }
  message.set_text(wire::join(found));
}

void Node::monitor_actor(std::uint32_t process, wire::Message& message) {
  const auto it = actors_.find(message.a);
  if (it == actors_.end()) return refuse(message, wire::Status::Invalid, "there is no such actor");
  const auto record = monitors_->record_of(message.a);
  if (!record)
    return refuse(message, wire::Status::Limit, "no memory is left for records of tasks");
  if (it->second.dead)
    monitors_->actor_died(message.a,
                          told(memory_.scheduling_class(message.a).death, it->second.restarts));
  if (!recovery_->give_hold(process, message.b, *record, nullptr))
    return refuse(message, wire::Status::Invalid, "no such line of the table of held objects");
  message.c = record->packed();
}

// ---- Lives and deaths.

void Node::actor_ended(std::uint32_t id, const ProcessEnd& end, bool wanted) {
  const auto it = actors_.find(id);
  if (it == actors_.end() || it->second.dead) return;
  Actor& actor = it->second;
  actor.worker = shm::kNone;
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  cls.kill_request.fetch_and(~shm::kKillOnce);
  if (!wanted && (actor.max_restarts < 0 || actor.restarts < actor.max_restarts)) {
    ++actor.restarts;
    ++counted_.restarts;
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
  const std::uint64_t request = cls.kill_request.load();
  const bool orderly = end.signal == 0 && end.exit_code == 0;
  const shm::Death cause = (request & shm::kKill) ? killed(request)
                           : end.exit_code == wire::kExitConstructorFailed
                               ? shm::Death::ConstructorFailed
                           : end.exit_code == wire::kExitStateLost ? shm::Death::StateLost
                           : orderly && (request & shm::kLeave)    ? shm::Death::Left
                           : orderly && actor.ending               ? shm::Death::OutOfScope
                                                                   : shm::Death::Crashed;
  bury_actor(id, cause, end);
}

// An actor here stands for a detached one, which is dead: it ends, and is remembered as that was.
void Node::note_obituary(std::uint32_t process, const wire::Message& message) {
  const auto asking = workers_.find(process);
  if (asking == workers_.end() || !asking->second.actor ||
      message.text_size != sizeof(shm::DeathNote))
    return;
  const std::uint32_t id = *asking->second.actor;
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  Actor& actor = actors_.at(id);
  if (cls.detached == 0 || actor.dead) return;
  shm::DeathNote note;
  ::memcpy(&note, message.text, sizeof note);
  actor.obituary = note;
  actor.restarts = static_cast<int>(message.b);
  cls.kill_request.fetch_or(shm::kLeave);
  wake(process);
}

void Node::restart_if_due(std::uint32_t id, Actor& actor) {
  if (!actor.restart_at || now() < *actor.restart_at) return;
  actor.restart_at.reset();
  step(core::ClassOpened{{id}, core::ClassKind::Actor, actor.demand, 0, {}, actor.group});
}

std::string Node::explain(std::uint32_t id) const {
  const auto it = actors_.find(id);
  if (it == actors_.end() || !it->second.restart_at) return allotment_.explain({id});
  using std::chrono::milliseconds;
  const auto left =
      std::chrono::ceil<milliseconds>(std::max(*it->second.restart_at - now(), core::Time{}));
  return "its process died " + std::to_string(it->second.quick_deaths) + " times in a row within " +
         std::to_string(kShortLife / milliseconds(1)) +
         " ms of its start; the next start is due in " + std::to_string(left.count()) + " ms";
}

// Its process died before it joined: no fault of the actor, so none of its restarts is spent. Not
// without end, though.
void Node::actor_start_failed(std::uint32_t id, const ProcessEnd& end) {
  const auto it = actors_.find(id);
  if (it == actors_.end() || it->second.dead) return;
  Actor& actor = it->second;
  actor.worker = shm::kNone;
  const std::uint64_t request = memory_.scheduling_class(id).kill_request.load();
  if (request & shm::kKill) return bury_actor(id, killed(request), end);
  if (++actor.failed_starts > kActorStartsMax) return bury_actor(id, shm::Death::NotStarted, end);
  step(core::ClassOpened{{id}, core::ClassKind::Actor, actor.demand, 0, {}, actor.group});
}

void Node::bury_actor(std::uint32_t id, shm::Death cause, const ProcessEnd& end) {
  Actor& actor = actors_.at(id);
  actor.dead = true;
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  const shm::DeathCause known = cause == shm::Death::Crashed ? end.cause : shm::DeathCause{cause};
  cls.death =
      actor.obituary.value_or(shm::DeathNote{known.packed(), end.signal, end.exit_code, end.pid});
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Dead), std::memory_order_seq_cst);
  std::atomic_thread_fence(
      std::memory_order_seq_cst);  // before we empty the rings (see submit_call)
  recovery_->fail_calls(id);
  monitors_->actor_died(id, told(cls.death, actor.restarts));
  names_.forget(id);
  forget_state(id);
  step(core::ClassClosed{{id}});
}

// No process of the actor lives, and none will: nobody needs what was kept for the next one.
void Node::forget_state(std::uint32_t id) {
  shm::LastingState& state = memory_.scheduling_class(id).lasting;
  for (auto& checkpoint : state.checkpoint) checkpoint.store(0);
  // A call may have got its number without being in the journal.
  const std::uint64_t end = state.taken.load() + 1;
  state.taken.store(end);
  state.covered.store(end, std::memory_order_release);
  tables_->return_journal(id);
}

// Its creator died between opening the class and submitting the creation.
void Node::close_actors_without_creation(std::uint32_t process) {
  for (auto& [id, actor] : actors_) {
    shm::SchedulingClass& cls = memory_.scheduling_class(id);
    if (!actor.dead &&
        recovery_->withdraw_creation(shm::Address::unpack(cls.creation.load()), process))
      cls.kill_request.fetch_or(shm::kKill | shm::kLastHandleGone);
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
    if (request & shm::kKillOnce) kill_once(id, actor);
    if (!shm::is_meant_to_end(request)) {
      restart_if_due(id, actor);
      continue;
    }
    if (actor.worker == shm::kNone) {  // not started, or between two lives
      if (shm::is_doomed(request))
        bury_actor(id, (request & shm::kKill) ? killed(request) : shm::Death::Left, {});
      else if (request & shm::kConstructorFailed)
        bury_actor(id, shm::Death::ConstructorFailed, {});
      else if (depth_of(id) == 0)
        bury_actor(id, shm::Death::OutOfScope, {});
      continue;
    }
    Worker& worker = workers_.at(actor.worker);
    if (request & shm::kKill) {
      // Its process may not be known yet; then at a later look.
      busy_ = true;
      kill_worker(worker);
    } else if (!(request & shm::kLeave) && !actor.ending) {
      actor.ending = true;
      memory_.process(actor.worker).must_leave.store(1, std::memory_order_seq_cst);
      wake(actor.worker);
    }
  }
  for (const std::uint32_t id : over) {
    // No handle is left that could name the class: its entry serves the next actor.
    actors_.erase(id);
    monitors_->forget(id);
    close_class(id);
  }
}

// It may have restarts left. Without a process it is starting again already; one that has not
// joined is ended at a later look, since no restart is spent on a failed start.
void Node::kill_once(std::uint32_t id, const Actor& actor) {
  if (actor.worker != shm::kNone) {
    Worker& worker = workers_.at(actor.worker);
    if (!worker.joined || worker.pidfd < 0) {
      busy_ = true;
      return;
    }
    worker.killed_once = true;
    kill_worker(worker);
  }
  memory_.scheduling_class(id).kill_request.fetch_and(~shm::kKillOnce);
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
