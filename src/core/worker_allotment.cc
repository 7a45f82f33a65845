#include "core/worker_allotment.h"

#include <algorithm>
#include <utility>

#include "core/bundles.h"

namespace mobula::core {

namespace {

template <class... Cases>
struct Match : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Match(Cases...) -> Match<Cases...>;

// Deeper than any ring; keeps the products of depths and worker counts far from overflow.
constexpr std::int64_t kDepthMax = std::int64_t{1} << 40;

int whole_cpus(const ResourceAmounts& capacity) {
  constexpr std::int64_t kMost = 1 << 20;
  return static_cast<int>(std::min(kMost, capacity.units(kCpu) / ResourceAmounts::kUnitsPerOne));
}

ResourceAmounts without_cpu(const ResourceAmounts& amounts) {
  ResourceAmounts others;
  for (const auto& [name, units] : amounts.by_name()) {
    if (resource_of(name) != kCpu) others.set_units(name, units);
  }
  return others;
}

bool wants_cpu(const ResourceAmounts& demand) {
  return std::any_of(demand.by_name().begin(), demand.by_name().end(),
                     [](const auto& amount) { return resource_of(amount.first) == kCpu; });
}

}  // namespace

std::string describe(ClassId cls) { return "class " + std::to_string(cls.value); }

// What one step may still give away. A reservation is taken from it like a grant, so that
// those who are served later see only what is left.
struct WorkerAllotment::Plan {
  Time now{};
  std::map<ClassId, Tally> tallies;  // with the workers that this plan counts on
  ResourceAmounts at_once;           // free now
  ResourceAmounts coming;            // the same, once the workers that leave have left
  int returning = 0;                 // leaving workers that nobody counts on yet
  int ending = 0;                    // retiring processes whose place nobody counts on yet
  std::map<EnvironmentId, int> starts;  // new processes that classes count on
  std::set<WorkerId> asked;          // busy workers counted on, but not yet detached
  std::set<ClassId> served;
  bool starving = false;             // those that have waited for long are being served

  // For so long, without getting a worker or losing one.
  [[nodiscard]] bool has_waited(const Class& cls, Time patience = kPatience) const {
    return cls.wanting_since && now - *cls.wanting_since >= patience;
  }
  void take(const ResourceAmounts& demand) {
    at_once.subtract(demand);
    coming.subtract(demand);
  }
  void count_on_worker(ClassId cls) {
    ++tallies[cls].able;
    ++tallies[cls].settling;
  }
};

std::string describe(const WorkerAction& action) {
  const auto worker_name = [](WorkerId worker) { return "worker " + std::to_string(worker.value); };
  return std::visit(
      Match{
          [](const StartWorker& start) {
            return start.for_actor ? "start a worker for " + describe(*start.for_actor)
                   : start.environment == EnvironmentId{}
                       ? std::string("start a worker")
                       : "start a worker in environment " + std::to_string(start.environment.value);
          },
          [&](const AttachWorker& attached) {
            return "attach " + worker_name(attached.worker) + " to " + describe(attached.cls);
          },
          [&](const DetachWorker& detached) { return "detach " + worker_name(detached.worker); },
          [&](const RetireWorker& retired) { return "retire " + worker_name(retired.worker); },
          [](const RejectClass& rejected) {
            return "reject " + describe(rejected.cls) + ": " + rejected.reason;
          },
          [](const PoolExhausted& exhausted) {
            return "no worker will come for " + describe(exhausted.cls);
          },
          [](const GrantGroup& granted) { return "grant group " + describe(granted.cls); },
      },
      action);
}

WorkerActions WorkerAllotment::step(const WorkerEvent& event, Time now) {
  WorkerActions actions;
  apply(event, now, actions);
  if (capacity_) decide(now, actions);
  return actions;
}

void WorkerAllotment::apply(const WorkerEvent& event, Time now, WorkerActions& actions) {
  std::visit(Match{
                 [&](const NodeCapacity& node) { set_capacity(node.amounts, now, actions); },
                 [&](const ShareChanged& share) { set_granted(share.amounts); },
                 [&](const PoolLimits& limits) { limits_ = limits; },
                 [&](const ClassOpened& opened) { open(opened, now, actions); },
                 [&](const ClassClosed& closed) { close(closed.cls, now, actions); },
                 [&](const BacklogSeen& seen) { see_backlog(seen, now); },
                 [&](const WorkerReady& ready) { join(ready, now, actions); },
                 [&](const WorkerStartFailed& failed) { start_failed(failed, now); },
                 [&](const WorkerIdle& seen) { idle(seen.worker, now, actions); },
                 [&](const WorkerBlocked& blocked) { lend_cpu(blocked.worker); },
                 [&](const WorkerUnblocked& unblocked) { take_cpu_back(unblocked.worker); },
                 [&](const WorkerStuck& stuck) { lend_all(stuck.worker); },
                 [&](const WorkerSpent& seen) { spent(seen.worker, now, actions); },
                 [&](const WorkerWorked& seen) { worked(seen.worker, now); },
                 [&](const WorkerGone& left) { gone(left, now); },
                 [&](const Tick&) {},
             },
             event);
}

// ---- Facts

void WorkerAllotment::set_capacity(const ResourceAmounts& amounts, Time now,
                                   WorkerActions& actions) {
  set_granted(amounts);
  capacity_ = amounts;
  for (auto& [id, cls] : classes_) {
    if (cls.phase != ClassPhase::Open && cls.phase != ClassPhase::Waiting) continue;
    if (judge(id, actions)) continue;
    for (const auto& [worker_id, worker] : workers_) {
      if (worker.cls == id && worker.phase == WorkerPhase::Attached) {
        detach(worker_id, now, actions);
      }
    }
  }
}

void WorkerAllotment::set_granted(const ResourceAmounts& amounts) {
  free_.subtract(granted_);
  free_.add(amounts);
  granted_ = amounts;
}

void WorkerAllotment::open(const ClassOpened& opened, Time now, WorkerActions& actions) {
  const auto known = classes_.find(opened.cls);
  if (known != classes_.end()) {
    const ClassPhase phase = known->second.phase;
    if (phase != ClassPhase::Ended && phase != ClassPhase::Rejected) return;
    // A rejected class whose workers still leave holds its old demand until they have.
    for (const auto& [id, worker] : workers_) {
      if (worker.cls == opened.cls) return;
    }
  }
  Class cls;
  cls.kind = opened.kind;
  cls.phase = opened.kind == ClassKind::Task ? ClassPhase::Open : ClassPhase::Waiting;
  cls.demand = opened.demand;
  cls.priority = opened.priority;
  cls.environment = opened.environment;
  cls.group = opened.group;
  cls.offer = opened.offer;
  cls.order = ++opened_;
  if (opened.kind != ClassKind::Task) cls.wanting_since = now;
  classes_.insert_or_assign(opened.cls, std::move(cls));
  if (capacity_) judge(opened.cls, actions);
}

// False if the class can never run here; it is then rejected.
bool WorkerAllotment::judge(ClassId id, WorkerActions& actions) {
  Class& cls = classes_.at(id);
  const std::string why = impossible(cls);
  if (why.empty()) return true;
  cls.phase = ClassPhase::Rejected;
  cls.depth = 0;
  cls.wanting_since.reset();
  cls.rejection = "it " + why;
  actions.push_back(RejectClass{id, cls.rejection});
  return false;
}

// Why the demand can never be met; empty: it can.
std::string WorkerAllotment::impossible(const Class& cls) const {
  const ResourceAmounts* most = &*capacity_;
  if (cls.group) {
    const auto group = classes_.find(*cls.group);
    if (group == classes_.end() || group->second.phase == ClassPhase::Closing)
      return "is of a placement group that was removed";
    if (group->second.phase == ClassPhase::Rejected)
      return "is of a placement group that can never be granted";
    most = &group->second.offer;
  }
  const std::string lack = most->first_lack(cls.demand);
  if (lack.empty()) return {};
  return "wants " + describe_amount(lack, cls.demand.units(lack)) + ", but " +
         (cls.group ? "that" : "this node") + " has " + describe_units(most->units(lack)) +
         " in all";
}

void WorkerAllotment::close(ClassId id, Time now, WorkerActions& actions) {
  const auto known = classes_.find(id);
  if (known == classes_.end() || known->second.phase == ClassPhase::Closing) return;
  Class& cls = known->second;
  if (cls.phase == ClassPhase::Starting) free_.add(cls.demand);
  cls.phase = ClassPhase::Closing;
  cls.depth = 0;
  cls.wanting_since.reset();
  if (cls.kind == ClassKind::Group) end_members(id, now, actions);
  for (const auto& [worker_id, worker] : workers_) {
    if (worker.cls != id) continue;
    if (worker.for_actor) {
      retire(worker_id, now, actions);
    } else if (worker.phase == WorkerPhase::Attached) {
      detach(worker_id, now, actions);
    }
  }
  forget_if_left(id);
}

void WorkerAllotment::end_members(ClassId group, Time now, WorkerActions& actions) {
  for (auto& [id, cls] : classes_) {
    if (cls.group != group) continue;
    if (cls.phase != ClassPhase::Open && cls.phase != ClassPhase::Waiting) continue;
    cls.phase = ClassPhase::Rejected;
    cls.depth = 0;
    cls.wanting_since.reset();
    cls.rejection = "its placement group was removed";
    for (const auto& [worker_id, worker] : workers_) {
      if (worker.cls == id && worker.phase == WorkerPhase::Attached)
        detach(worker_id, now, actions);
    }
  }
}

void WorkerAllotment::see_backlog(const BacklogSeen& seen, Time now) {
  const auto known = classes_.find(seen.cls);
  if (known == classes_.end() || known->second.phase != ClassPhase::Open) return;
  known->second.depth = std::clamp<std::int64_t>(seen.depth, 0, kDepthMax);

  // Resting workers wake up for the new tasks. Which ones cannot be seen from here; those
  // that did not will say again that they are idle.
  std::int64_t awake = 0;
  for (const auto& [id, worker] : workers_) {
    if (worker.cls == seen.cls && worker.settles_at && *worker.settles_at > now) ++awake;
  }
  for (auto& [id, worker] : workers_) {
    if (awake >= known->second.depth) return;
    if (worker.cls != seen.cls || !worker.resting) continue;
    worker.resting = false;
    worker.settles_at = now + kSettling;
    ++awake;
  }
}

void WorkerAllotment::join(const WorkerReady& ready, Time now, WorkerActions& actions) {
  if (workers_.contains(ready.worker)) return;
  Worker worker;
  worker.since = now;
  worker.environment = ready.environment;
  if (!ready.started_for) {
    int& starting = starting_[ready.environment];
    starting = std::max(0, starting - 1);
    failed_starts_ = 0;
    starts_paused_until_.reset();
    workers_.emplace(ready.worker, std::move(worker));
    return;
  }

  const ClassId id = *ready.started_for;
  if (const auto start = actor_starts_.find(id); start != actor_starts_.end()) {
    if (--start->second == 0) actor_starts_.erase(start);
  }
  worker.for_actor = true;
  const auto known = classes_.find(id);
  if (known == classes_.end() || known->second.phase != ClassPhase::Starting) {
    workers_.emplace(ready.worker, std::move(worker));
    retire(ready.worker, now, actions);  // the actor was closed while its worker started
    return;
  }
  known->second.phase = ClassPhase::Alive;
  worker.phase = WorkerPhase::Attached;
  worker.cls = id;
  worker.held = known->second.demand;  // taken from what is free when the start was ordered
  workers_.emplace(ready.worker, std::move(worker));
  actions.push_back(AttachWorker{ready.worker, id});
}

void WorkerAllotment::start_failed(const WorkerStartFailed& failed, Time now) {
  if (!failed.started_for) {
    int& starting = starting_[failed.environment];
    if (starting == 0) return;
    --starting;
    // Several that were under way failed for the same reason.
    if (starts_paused_until_ && now < *starts_paused_until_) return;
    Time pause = kFailedStartPause;
    for (int i = 0; i < failed_starts_ && pause < kFailedStartPauseMax; ++i) pause *= 2;
    starts_paused_until_ = now + std::min(pause, kFailedStartPauseMax);
    ++failed_starts_;
    return;
  }
  const auto start = actor_starts_.find(*failed.started_for);
  if (start == actor_starts_.end()) return;
  if (--start->second > 0) return;  // a later start of the same actor is still under way
  actor_starts_.erase(start);
  const auto known = classes_.find(*failed.started_for);
  if (known == classes_.end() || known->second.phase != ClassPhase::Starting) return;
  free_.add(known->second.demand);
  known->second.phase = ClassPhase::Ended;
  forget_if_left(known->first);
}

void WorkerAllotment::idle(WorkerId id, Time now, WorkerActions& actions) {
  const auto known = workers_.find(id);
  if (known == workers_.end()) return;
  Worker& worker = known->second;
  if (worker.phase == WorkerPhase::Leaving) {
    const ClassId left = *worker.cls;
    const bool retires = worker.spent;
    const Time since = worker.surplus ? worker.since : now;
    set_held(worker, {});
    const EnvironmentId environment = worker.environment;
    worker = Worker{};
    worker.environment = environment;
    worker.since = since;
    forget_if_left(left);
    if (retires) retire(id, now, actions);
  } else if (worker.phase == WorkerPhase::Attached && !worker.blocked && !worker.resting) {
    worker.resting = true;
    worker.settles_at.reset();
    worker.since = now;
  }
}

void WorkerAllotment::spent(WorkerId id, Time now, WorkerActions& actions) {
  const auto known = workers_.find(id);
  if (known == workers_.end() || known->second.for_actor) return;
  switch (known->second.phase) {
    case WorkerPhase::Unattached: return retire(id, now, actions);
    case WorkerPhase::Attached: detach(id, now, actions); [[fallthrough]];
    case WorkerPhase::Leaving: known->second.spent = true; return;
    case WorkerPhase::Retiring: return;
  }
}

void WorkerAllotment::worked(WorkerId id, Time now) {
  const auto known = workers_.find(id);
  if (known == workers_.end() || !known->second.resting) return;
  known->second.resting = false;
  known->second.since = now;
}

void WorkerAllotment::lend_cpu(WorkerId id) {
  const auto known = workers_.find(id);
  if (known == workers_.end() || !known->second.cls) return;
  Worker& worker = known->second;
  worker.blocked = true;
  worker.resting = false;
  worker.settles_at.reset();
  set_held(worker, without_cpu(worker.held));
}

void WorkerAllotment::lend_all(WorkerId id) {
  const auto known = workers_.find(id);
  if (known == workers_.end() || !known->second.blocked) return;
  known->second.lends_all = true;
  set_held(known->second, {});
}

// Does somebody lend more than a CPU of what is demanded?
bool WorkerAllotment::is_lent_to(const ResourceAmounts& demand) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    if (!entry.second.lends_all) return false;
    const ResourceAmounts& lent = classes_.at(*entry.second.cls).demand;
    return std::any_of(lent.by_name().begin(), lent.by_name().end(), [&](const auto& amount) {
      const std::string_view resource = resource_of(amount.first);
      return resource != kCpu && !resource.empty() && demand.units(amount.first) > 0;
    });
  });
}

void WorkerAllotment::take_cpu_back(WorkerId id) {
  const auto known = workers_.find(id);
  if (known == workers_.end() || !known->second.blocked) return;
  known->second.blocked = false;
  known->second.lends_all = false;
  set_held(known->second, classes_.at(*known->second.cls).demand);
}

void WorkerAllotment::gone(const WorkerGone& left, Time now) {
  const auto known = workers_.find(left.worker);
  if (known == workers_.end()) return;
  set_held(known->second, {});
  const Worker worker = std::move(known->second);
  workers_.erase(known);
  if (!worker.cls) return;
  if (worker.for_actor) {
    classes_.at(*worker.cls).phase = ClassPhase::Ended;
  } else if (left.out_of_memory) {
    hold_back(*worker.cls, now);
  }
  forget_if_left(*worker.cls);
}

void WorkerAllotment::hold_back(ClassId id, Time now) {
  Class& cls = classes_.at(id);
  const int left = std::max(1, tally()[id].able);
  const Time pause =
      cls.held_back ? std::min(2 * cls.held_back->pause, kHeldBackMax) : Time{kHeldBack};
  cls.held_back = Class::HeldBack{left, pause, now};
}

// One worker more after each pause, until the class has nothing to do: then all is forgotten.
void WorkerAllotment::ease(Class& cls, const Tally& tally, Time now) {
  if (!cls.held_back || now - cls.held_back->raised_at < cls.held_back->pause) return;
  if (cls.depth == 0 && tally.able == tally.resting) {
    cls.held_back.reset();
  } else {
    ++cls.held_back->workers_most;
    cls.held_back->raised_at = now;
  }
}

// ---- Decisions

void WorkerAllotment::decide(Time now, WorkerActions& actions) {
  reserved_for_.clear();
  starting_for_.clear();
  Plan plan = survey(now, actions);
  mend_surplus(plan, actions);
  serve_actors(plan, actions);
  serve_starving(plan, actions);
  serve_by_need(plan, actions);
  start_workers(plan, actions);
  retire_surplus(plan, actions);
  detach_surplus(plan, actions);
}

WorkerAllotment::Plan WorkerAllotment::survey(Time now, WorkerActions& actions) {
  Plan plan;
  plan.now = now;
  plan.at_once = free_;
  plan.coming = free_;
  for (auto& [id, worker] : workers_) {
    if (worker.settles_at && *worker.settles_at <= now) worker.settles_at.reset();
    if (worker.borrows && worker.phase == WorkerPhase::Attached && !worker.settles_at)
      detach(id, now, actions);
    if (worker.phase == WorkerPhase::Retiring) ++plan.ending;
    // A blocked worker may stay for as long as it likes: nobody counts on it.
    if (worker.phase != WorkerPhase::Leaving || worker.blocked) continue;
    plan.coming.add(worker.held);
    ++plan.returning;
  }
  plan.tallies = tally();
  for (auto& [id, cls] : classes_) {
    if (cls.phase != ClassPhase::Open) continue;
    ease(cls, plan.tallies[id], now);
    if (plan.tallies[id].able > 0 || cls.depth == 0) cls.exhaustion_told = false;
    if (unserved(cls, plan.tallies[id]) == 0) {
      cls.wanting_since.reset();
    } else if (!cls.wanting_since) {
      cls.wanting_since = now;
    }
  }
  return plan;
}

// After an unblocking more may be held than there is. Resting workers leave at once; busy ones
// only if it lasts, since a short wait inside a task is over before another worker has left.
void WorkerAllotment::mend_surplus(Plan& plan, WorkerActions& actions) {
  const auto overdrawn = [&]() -> std::string {
    for (const auto& [name, units] : plan.coming.by_name()) {
      if (units < 0) return name;
    }
    return {};
  };
  if (overdrawn().empty()) {
    surplus_since_.reset();
    return;
  }
  if (!surplus_since_) surplus_since_ = plan.now;
  const bool lasts = plan.now - *surplus_since_ >= kPatience;
  for (std::string resource = overdrawn(); !resource.empty(); resource = overdrawn()) {
    auto victim = pick_resting(plan, resource, std::nullopt);
    if (!victim && lasts) victim = pick_busy(plan, resource, std::nullopt);
    if (!victim) return;
    const Worker& worker = workers_.at(*victim);
    plan.coming.add(worker.held);
    ++plan.returning;
    --plan.tallies[*worker.cls].able;
    if (worker.resting) --plan.tallies[*worker.cls].resting;
    detach(*victim, plan.now, actions);
  }
}

void WorkerAllotment::serve_actors(Plan& plan, WorkerActions& actions) {
  std::vector<std::pair<std::uint64_t, ClassId>> waiting;
  for (const auto& [id, cls] : classes_) {
    if (cls.phase == ClassPhase::Waiting) waiting.emplace_back(cls.order, id);
  }
  std::sort(waiting.begin(), waiting.end());
  for (const auto& [order, id] : waiting) {
    // One that cannot be helped now reserves nothing, and smaller ones pass it.
    if (!start_actor(id, plan, actions)) claim_resources(id, plan, actions);
  }
}

// True if the actor's worker was ordered, or waits only for a place in the pool; if the group was
// granted.
bool WorkerAllotment::start_actor(ClassId id, Plan& plan, WorkerActions& actions) {
  Class& cls = classes_.at(id);
  if (!plan.at_once.contains(cls.demand)) return false;
  if (cls.kind == ClassKind::Group) {
    grant(id, plan, actions);
    return true;
  }
  if (processes() >= limits_.workers_max) {
    if (claim_place(id, plan, actions)) {
      plan.take(cls.demand);
      reserved_for_.push_back(id);
    }
    return true;
  }
  plan.take(cls.demand);
  free_.subtract(cls.demand);
  cls.phase = ClassPhase::Starting;
  cls.wanting_since.reset();
  cls.exhaustion_told = false;
  ++actor_starts_[id];
  actions.push_back(StartWorker{id});
  return true;
}

void WorkerAllotment::grant(ClassId id, Plan& plan, WorkerActions& actions) {
  Class& group = classes_.at(id);
  plan.take(group.demand);
  plan.at_once.add(group.offer);
  plan.coming.add(group.offer);
  free_.subtract(group.demand);
  free_.add(group.offer);
  group.granted = true;
  group.phase = ClassPhase::Alive;
  group.wanting_since.reset();
  actions.push_back(GrantGroup{id});
}

void WorkerAllotment::serve_starving(Plan& plan, WorkerActions& actions) {
  std::vector<std::pair<Time, ClassId>> starving;
  for (const auto& [id, cls] : classes_) {
    if (cls.phase != ClassPhase::Open || !plan.has_waited(cls, patience(id))) continue;
    if (plan.tallies[id].able > 0) continue;
    starving.emplace_back(*cls.wanting_since, id);
  }
  std::sort(starving.begin(), starving.end());
  // One worker each; whatever more they want is weighed against the others.
  plan.starving = true;
  for (const auto& [since, id] : starving) serve(id, plan, actions);
  plan.starving = false;
}

void WorkerAllotment::serve_by_need(Plan& plan, WorkerActions& actions) {
  while (true) {
    std::optional<ClassId> neediest;
    int priority = 0;
    std::int64_t depth = 0;
    std::int64_t share = 1;
    for (const auto& [id, cls] : classes_) {
      if (cls.phase != ClassPhase::Open || plan.served.contains(id)) continue;
      const Tally& tally = plan.tallies[id];
      if (unserved(cls, tally) == 0) continue;
      // depth / (able + 1), compared without rounding
      const bool is_needier = cls.depth * share > depth * (tally.able + 1);
      if (!neediest || cls.priority > priority || (cls.priority == priority && is_needier)) {
        neediest = id;
        priority = cls.priority;
        depth = cls.depth;
        share = tally.able + 1;
      }
    }
    if (!neediest) return;
    serve(*neediest, plan, actions);
  }
}

// Gives the class one worker, or what leads to one; a class that got neither is done with.
void WorkerAllotment::serve(ClassId id, Plan& plan, WorkerActions& actions) {
  if (plan.at_once.contains(classes_.at(id).demand)) {
    if (!give_worker(id, plan, actions)) plan.served.insert(id);
  } else {
    // Whoever outranks others need not take their workers one by one.
    const bool claimed = claim_resources(id, plan, actions);
    claimed&& outranks_any(id) ? plan.count_on_worker(id) : void(plan.served.insert(id));
  }
}

// False if no worker can be given, and none is on its way to this class.
bool WorkerAllotment::give_worker(ClassId id, Plan& plan, WorkerActions& actions) {
  Class& cls = classes_.at(id);
  int& starts = plan.starts[cls.environment];
  const auto ordered = starting_.find(cls.environment);
  int to_order = 0;
  for (const auto& [environment, count] : plan.starts) {
    const auto known = starting_.find(environment);
    to_order += std::max(0, count - (known == starting_.end() ? 0 : known->second));
  }
  if (const auto worker = warmest_unattached(cls.environment)) {
    attach(*worker, id, plan.now, actions);
    workers_.at(*worker).on_turn = plan.starving;
    cls.wanting_since = plan.now;  // got something just now
    cls.exhaustion_told = false;
  } else if ((ordered != starting_.end() && starts < ordered->second) ||
             processes() + to_order < limits_.workers_max) {
    ++starts;
    starting_for_.insert(id);
  } else if (!claim_place(id, plan, actions)) {
    return false;
  } else {
    reserved_for_.push_back(id);
  }
  plan.take(cls.demand);
  plan.count_on_worker(id);
  return true;
}

// All processes that may exist do. True if one of them will come free for this class.
bool WorkerAllotment::claim_place(ClassId id, Plan& plan, WorkerActions& actions) {
  Class& cls = classes_.at(id);
  if (plan.ending > 0) {
    --plan.ending;
    return true;
  }
  if (const auto idle_one = coldest_unattached()) {  // of no use: it is for tasks, or of another
    retire(*idle_one, plan.now, actions);            // environment
    return true;
  }
  if (plan.returning > 0) {
    --plan.returning;
    return true;
  }
  const bool starves = plan.tallies[id].able == 0;
  auto victim = pick_resting(plan, {}, id);
  if (!victim && starves && plan.has_waited(cls)) victim = pick_busy(plan, {}, id);
  if (victim) {
    const Worker& worker = workers_.at(*victim);
    plan.coming.add(worker.held);
    plan.asked.insert(*victim);
    --plan.tallies[*worker.cls].able;
    const bool rests = worker.resting;
    if (rests) --plan.tallies[*worker.cls].resting;
    if (rests || has_had_its_turn(*victim, plan.now)) detach(*victim, plan.now, actions);
    return true;
  }
  // A worker that is at work somewhere will come free or can be asked later; only if there
  // is none would the class wait in vain.
  const bool none_will_come =
      starting() == 0 &&
      std::all_of(plan.starts.begin(), plan.starts.end(),
                  [](const auto& starts) { return starts.second == 0; }) &&
      std::none_of(workers_.begin(), workers_.end(), [](const auto& entry) {
        const Worker& worker = entry.second;
        return worker.phase == WorkerPhase::Retiring || (!worker.for_actor && !worker.blocked);
      });
  if (starves && none_will_come && !cls.exhaustion_told) {
    cls.exhaustion_told = true;
    actions.push_back(PoolExhausted{id});
  }
  return false;
}

// Makes workers of other classes leave until the demand will fit, and keeps what it needs
// from those that are served later. False, with nothing asked, if that cannot make it fit.
bool WorkerAllotment::claim_resources(ClassId id, Plan& plan, WorkerActions& actions) {
  Class& cls = classes_.at(id);
  const bool is_lasting = cls.kind != ClassKind::Task;
  const bool waited = plan.has_waited(cls);

  Plan after = plan;
  std::vector<WorkerId> resting;
  std::vector<WorkerId> busy;
  while (!after.coming.contains(cls.demand)) {
    const std::string lack = after.coming.first_lack(cls.demand);
    auto victim = pick_resting(after, lack, id);
    if (victim) {
      resting.push_back(*victim);
    } else {
      victim = pick_busy(after, lack, id);
      // An actor's share is kept from the tasks at once: they take it back within moments.
      if (!victim || !(waited || is_lasting || outranks(id, *workers_.at(*victim).cls)))
        return false;
      busy.push_back(*victim);
    }
    const Worker& worker = workers_.at(*victim);
    after.coming.add(worker.held);
    after.asked.insert(*victim);
    ++after.returning;
    --after.tallies[*worker.cls].able;
    if (worker.resting) --after.tallies[*worker.cls].resting;
  }

  plan = std::move(after);
  for (const WorkerId victim : resting) detach(victim, plan.now, actions);
  for (const WorkerId victim : busy) {
    const Worker& worker = workers_.at(victim);
    const bool outranked = outranks(id, *worker.cls);
    if (!waited && !outranked) continue;
    if (is_lasting || (outranked && !worker.on_turn) || has_had_its_turn(victim, plan.now))
      detach(victim, plan.now, actions);
  }
  plan.take(cls.demand);
  if (cls.kind != ClassKind::Group) plan.returning = std::max(0, plan.returning - 1);
  reserved_for_.push_back(id);
  return true;
}

bool WorkerAllotment::may_be_asked(WorkerId id, const Plan& plan, std::string_view resource,
                                   std::optional<ClassId> but) const {
  const Worker& worker = workers_.at(id);
  return worker.phase == WorkerPhase::Attached && !worker.for_actor && !worker.blocked &&
         worker.cls != but && !plan.asked.contains(id) &&
         (resource.empty() || worker.held.units(resource) > 0);
}

// The longest resting worker that its own class can spare.
std::optional<WorkerId> WorkerAllotment::pick_resting(const Plan& plan, std::string_view resource,
                                                      std::optional<ClassId> but, From from) const {
  std::optional<WorkerId> longest;
  for (const auto& [id, worker] : workers_) {
    if (!worker.resting || !may_be_asked(id, plan, resource, but)) continue;
    if (from == From::OtherEnvironments && worker.environment == EnvironmentId{}) continue;
    const Tally& tally = plan.tallies.at(*worker.cls);
    if (tally.resting + tally.settling <= classes_.at(*worker.cls).depth) continue;
    if (!longest || worker.since < workers_.at(*longest).since) longest = id;
  }
  return longest;
}

// Without this, several starving classes would ask a worker to leave each other before it has
// taken a single task, and so would a higher priority one that starves.
bool WorkerAllotment::has_had_its_turn(WorkerId id, Time now) const {
  return now - workers_.at(id).since >= kPatience;
}

bool WorkerAllotment::outranks(ClassId higher, ClassId lower) const {
  return classes_.at(higher).kind == ClassKind::Task &&
         classes_.at(higher).priority > classes_.at(lower).priority;
}

bool WorkerAllotment::outranks_any(ClassId id) const {
  return std::any_of(classes_.begin(), classes_.end(), [&](const auto& other) {
    return other.second.kind == ClassKind::Task && outranks(id, other.first);
  });
}

Time WorkerAllotment::patience(ClassId id) const {
  const bool outranked = std::any_of(classes_.begin(), classes_.end(), [&](const auto& other) {
    return other.second.phase == ClassPhase::Open && other.second.depth > 0 &&
           outranks(other.first, id);
  });
  return outranked ? kOutranked : kPatience;
}

// A worker of the class of lowest priority, and among those of the one that has the most of them.
std::optional<WorkerId> WorkerAllotment::pick_busy(const Plan& plan, std::string_view resource,
                                                   std::optional<ClassId> beneficiary) const {
  std::optional<WorkerId> best;
  int most = 0;
  for (const auto& [id, worker] : workers_) {
    if (!may_be_asked(id, plan, resource, beneficiary)) continue;
    if (!may_lose_one(plan, *worker.cls, beneficiary)) continue;
    const int able = plan.tallies.at(*worker.cls).able;
    const bool lower = best && outranks(*workers_.at(*best).cls, *worker.cls);
    const bool higher = best && outranks(*worker.cls, *workers_.at(*best).cls);
    if (!best || lower || (!higher && able > most)) {
      best = id;
      most = able;
    }
  }
  return best;
}

// Whoever has no worker at all may take anyone's, and a class those of lower priority. Else a move
// must leave the donor less needy than the beneficiary is now, or the worker would be asked back at
// once.
bool WorkerAllotment::may_lose_one(const Plan& plan, ClassId donor,
                                   std::optional<ClassId> beneficiary) const {
  if (!beneficiary || classes_.at(*beneficiary).kind != ClassKind::Task) return true;
  const auto own = plan.tallies.find(*beneficiary);
  const int able = own == plan.tallies.end() ? 0 : own->second.able;
  if (outranks(*beneficiary, donor)) return true;
  if (outranks(donor, *beneficiary) && classes_.at(donor).depth > 0)
    return able == 0 && plan.has_waited(classes_.at(*beneficiary), kOutranked);
  if (able == 0) return true;
  const int donor_able = plan.tallies.at(donor).able;
  return donor_able >= 2 &&
         classes_.at(*beneficiary).depth * donor_able > classes_.at(donor).depth * (able + 1);
}

void WorkerAllotment::start_workers(const Plan& plan, WorkerActions& actions) {
  if (starts_paused_until_ && plan.now < *starts_paused_until_) return;
  const auto start_up_to = [&](EnvironmentId environment, int wanted) {
    // More at once than there are CPUs would only start each of them later.
    while (starting_[environment] < wanted && starting() < std::max(1, whole_cpus(*capacity_)) &&
           processes() < limits_.workers_max) {
      ++starting_[environment];
      actions.emplace_back(StartWorker{std::nullopt, environment});
    }
  };
  for (const auto& [environment, wanted] : plan.starts) start_up_to(environment, wanted);
  // The warm ones last: a place that was made free is for who waits for it.
  start_up_to({}, limits_.workers_warm - own_processes());
}

void WorkerAllotment::retire_surplus(const Plan& plan, WorkerActions& actions) {
  int staying = processes();
  for (const auto& [id, worker] : workers_) {
    if (worker.phase == WorkerPhase::Retiring) --staying;
  }
  for (;; --staying) {
    const bool too_many = staying > limits_.workers_max;
    const auto id = too_many ? coldest_unattached() : coldest_unused(plan.now);
    if (!id) return;
    retire(*id, plan.now, actions);
  }
}

// Those that rest in their classes go by the door: a task that came meanwhile is still taken.
void WorkerAllotment::detach_surplus(Plan& plan, WorkerActions& actions) {
  int extra = own_processes() - limits_.workers_warm;
  for (const auto& [id, worker] : workers_) {
    if (worker.phase == WorkerPhase::Leaving && (worker.surplus || worker.spent) &&
        worker.environment == EnvironmentId{})
      --extra;
  }
  for (;;) {
    const auto id =
        pick_resting(plan, {}, std::nullopt, extra > 0 ? From::Anywhere : From::OtherEnvironments);
    if (!id || plan.now - workers_.at(*id).since < kIdleKept) return;
    if (workers_.at(*id).environment == EnvironmentId{}) --extra;
    Worker& worker = workers_.at(*id);
    const Time since = worker.since;
    --plan.tallies.at(*worker.cls).resting;
    detach(*id, plan.now, actions);
    worker.surplus = true;
    worker.since = since;
  }
}

// ---- Small steps

void WorkerAllotment::attach(WorkerId id, ClassId cls, Time now, WorkerActions& actions) {
  Worker& worker = workers_.at(id);
  worker.phase = WorkerPhase::Attached;
  worker.cls = cls;
  worker.settles_at = now + kSettling;
  worker.since = now;
  worker.borrows = is_lent_to(classes_.at(cls).demand);
  set_held(worker, classes_.at(cls).demand);
  actions.push_back(AttachWorker{id, cls});
}

void WorkerAllotment::detach(WorkerId id, Time now, WorkerActions& actions) {
  Worker& worker = workers_.at(id);
  worker.phase = WorkerPhase::Leaving;
  worker.borrows = false;
  worker.resting = false;
  worker.settles_at.reset();
  worker.since = now;
  // Patience starts anew with each loss, or two classes would take one worker from each
  // other after every task.
  if (auto& since = classes_.at(*worker.cls).wanting_since) since = now;
  actions.push_back(DetachWorker{id});
}

void WorkerAllotment::retire(WorkerId id, Time now, WorkerActions& actions) {
  Worker& worker = workers_.at(id);
  set_held(worker, {});
  worker.phase = WorkerPhase::Retiring;
  worker.cls.reset();
  worker.blocked = false;
  worker.resting = false;
  worker.since = now;
  actions.push_back(RetireWorker{id});
}

void WorkerAllotment::set_held(Worker& worker, const ResourceAmounts& held) {
  free_.add(worker.held);
  free_.subtract(held);
  worker.held = held;
}

void WorkerAllotment::forget_if_left(ClassId id) {
  const auto known = classes_.find(id);
  if (known == classes_.end()) return;
  const std::optional<ClassId> group = known->second.group;
  if (known->second.phase == ClassPhase::Closing && is_left(id)) {
    if (known->second.granted) {
      free_.subtract(known->second.offer);
      free_.add(known->second.demand);
    }
    classes_.erase(known);
  }
  if (group) forget_if_left(*group);
}

// Has nobody anything of it?
bool WorkerAllotment::is_left(ClassId id) const {
  const auto works = [](ClassId cls) {
    return [cls](const auto& entry) { return entry.second.cls == cls; };
  };
  if (std::any_of(workers_.begin(), workers_.end(), works(id))) return false;
  return std::none_of(classes_.begin(), classes_.end(), [&](const auto& entry) {
    return entry.second.group == id &&
           (entry.second.phase == ClassPhase::Starting ||
            std::any_of(workers_.begin(), workers_.end(), works(entry.first)));
  });
}

std::optional<WorkerId> WorkerAllotment::warmest_unattached(EnvironmentId environment) const {
  std::optional<WorkerId> warmest;
  for (const auto& [id, worker] : workers_) {
    if (worker.phase != WorkerPhase::Unattached || worker.environment != environment) continue;
    if (!warmest || worker.since >= workers_.at(*warmest).since) warmest = id;
  }
  return warmest;
}

std::optional<WorkerId> WorkerAllotment::coldest_unattached() const {
  std::optional<WorkerId> coldest;
  for (const auto& [id, worker] : workers_) {
    if (worker.phase != WorkerPhase::Unattached) continue;
    if (!coldest || worker.since < workers_.at(*coldest).since) coldest = id;
  }
  return coldest;
}

std::optional<WorkerId> WorkerAllotment::coldest_unused(Time now) const {
  const bool warm_too = own_processes() > limits_.workers_warm;
  std::optional<WorkerId> coldest;
  for (const auto& [id, worker] : workers_) {
    if (worker.phase != WorkerPhase::Unattached || now - worker.since < kIdleKept) continue;
    if (worker.environment == EnvironmentId{} && !warm_too) continue;
    if (!coldest || worker.since < workers_.at(*coldest).since) coldest = id;
  }
  return coldest;
}

int WorkerAllotment::starting() const {
  int count = 0;
  for (const auto& [environment, starts] : starting_) count += starts;
  return count;
}

int WorkerAllotment::processes() const {
  int count = static_cast<int>(workers_.size()) + starting();
  for (const auto& [id, starts] : actor_starts_) count += starts;
  return count;
}

// Those for tasks in the node's own environment.
int WorkerAllotment::own_processes() const {
  return static_cast<int>(std::count_if(workers_.begin(), workers_.end(), [](const auto& entry) {
    return !entry.second.for_actor && entry.second.phase != WorkerPhase::Retiring &&
           entry.second.environment == EnvironmentId{};
  }));
}

bool WorkerAllotment::has_surplus() const {
  return own_processes() > limits_.workers_warm ||
         std::any_of(workers_.begin(), workers_.end(), [](const auto& entry) {
           return entry.second.environment != EnvironmentId{} &&
                  entry.second.phase != WorkerPhase::Retiring;
         });
}

std::map<ClassId, WorkerAllotment::Tally> WorkerAllotment::tally() const {
  std::map<ClassId, Tally> tallies;
  for (const auto& [id, worker] : workers_) {
    if (!worker.cls || worker.for_actor) continue;
    Tally& tally = tallies[*worker.cls];
    ++tally.workers;
    if (worker.phase != WorkerPhase::Attached || worker.blocked) continue;
    ++tally.able;
    if (worker.resting) ++tally.resting;
    if (worker.settles_at) ++tally.settling;
  }
  return tallies;
}

// How many more workers its waiting tasks could use.
std::int64_t WorkerAllotment::unserved(const Class& cls, const Tally& tally) const {
  std::int64_t more = cls.depth - tally.resting - tally.settling;
  if (cls.held_back) more = std::min<std::int64_t>(more, cls.held_back->workers_most - tally.able);
  if (wants_cpu(cls.demand)) return std::max<std::int64_t>(0, more);
  // Nothing else bounds a class that wants no CPU.
  const std::int64_t most = std::max(1, 2 * whole_cpus(*capacity_));
  return std::max<std::int64_t>(0, std::min(more, most - tally.able));
}

}  // namespace mobula::core
