// Random walks of WorkerAllotment: a pretend node carries out its orders and tells it facts in
// any order that real processes could produce; a checker that shares no code with the rules
// keeps its own books. MOBULA_SEED=n replays one walk.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

#include "core/bundles.h"
#include "core/worker_allotment.h"

namespace mobula::core {
namespace {

using namespace std::chrono_literals;

enum class Doing { Nothing, Working, Leaving, Ending };

struct Process {
  Doing doing = Doing::Nothing;
  std::optional<ClassId> cls = {};
  EnvironmentId environment = {};
  bool actor = false;
  bool blocked = false;
};

struct Tasks {
  ClassKind kind = ClassKind::Task;
  ResourceAmounts demand;
  int priority = 0;
  EnvironmentId environment = {};
  std::int64_t depth = 0;
  bool open = true;
  bool rejected = false;
  bool start_ordered = false;
  bool told_exhausted = false;
  std::optional<ClassId> group = {};
  ResourceAmounts offer = {};  // of a group
  bool granted = false;
};

class PretendNode {
 public:
  explicit PretendNode(std::uint64_t seed) : random_(seed) {
    uniform_ = seed % 2 == 0;
    cpus_ = 1 + pick(4);
    capacity_ = ResourceAmounts::from_units({{"CPU", cpus_ * 10'000}, {"GPU", 10'000}});
    workers_max_ = cpus_ + static_cast<int>(pick(8));
    tell(NodeCapacity{capacity_});
    tell(PoolLimits{static_cast<int>(pick(3)), workers_max_});
  }

  void take_random_step() {
    switch (pick(13)) {
      case 0: return open_class();
      case 1: return close_class();
      case 2:
      case 3:
      case 4: return see_backlog();
      case 5:
      case 6: return finish_start();
      case 7:
      case 8: return let_worker_be_idle();
      case 9: return let_worker_block_or_wake();
      case 10: return pick(3) == 0 ? lose_process() : let_process_end();
      case 11: return pick(2) == 0 ? wear_out() : let_worker_work();
      default:
        now_ += std::chrono::microseconds(pick(20) == 0 ? 4'000'000 : pick(15'000));
        return tell(Tick{});
    }
  }

  // From here on nothing fails: tasks finish, actors are closed one after the other.
  // True if in the end no task and no actor waits.
  bool drains() {
    for (int round = 0; round < 600; ++round) {
      now_ += 10ms;
      while (!generic_starts_.empty() || !actor_starts_.empty()) finish_start(/*may_fail=*/false);
      for (const WorkerId id : ids()) {
        if (!processes_.contains(id)) continue;
        if (processes_.at(id).blocked) tell_worker(id, WorkerUnblocked{id});
        const Process process = processes_.at(id);
        if (process.doing == Doing::Leaving) {
          come_back(id);
        } else if (process.doing == Doing::Ending) {
          end(id);
        } else if (process.doing == Doing::Working && !process.actor) {
          Tasks& tasks = classes_.at(*process.cls);
          if (tasks.depth > 0) {
            tell(BacklogSeen{*process.cls, --tasks.depth});
          } else {
            tell(WorkerIdle{id});
          }
        }
      }
      for (const auto& [id, tasks] : std::map(classes_)) {
        if (!tasks.open || tasks.rejected) continue;
        if (tasks.kind == ClassKind::Task) {
          tell(BacklogSeen{id, classes_.at(id).depth});
        } else if (round % 7 == 0 && (has_process(id) || tasks.granted)) {
          close(id);
        }
      }
      tell(Tick{});
      if (nothing_waits()) return true;
    }
    return false;
  }

  [[nodiscard]] std::string explain_waiting() const {
    std::string text;
    for (const auto& [id, tasks] : classes_) {
      text += std::to_string(id.value) + " (depth " + std::to_string(tasks.depth) +
              "): " + allotment_.explain(id) + "\n";
    }
    return text;
  }

 private:
  std::int64_t pick(std::int64_t below) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(below));
  }
  std::vector<WorkerId> ids() const {
    std::vector<WorkerId> all;
    for (const auto& [id, process] : processes_) all.push_back(id);
    return all;
  }
  template <class Wanted>
  std::optional<WorkerId> pick_process(const Wanted& wanted) {
    std::vector<WorkerId> fitting;
    for (const auto& [id, process] : processes_) {
      if (wanted(process)) fitting.push_back(id);
    }
    if (fitting.empty()) return std::nullopt;
    return fitting[static_cast<std::size_t>(pick(static_cast<std::int64_t>(fitting.size())))];
  }
  std::optional<ClassId> pick_class() {
    std::vector<ClassId> fitting;
    for (const auto& [id, tasks] : classes_) {
      if (tasks.open) fitting.push_back(id);
    }
    if (fitting.empty()) return std::nullopt;
    return fitting[static_cast<std::size_t>(pick(static_cast<std::int64_t>(fitting.size())))];
  }

  // ---- what happens on the node

  void open_class() {
    if (std::count_if(classes_.begin(), classes_.end(),
                      [](const auto& entry) { return entry.second.open; }) >= 6) {
      return;
    }
    const ClassId id{++last_class_};
    if (pick(6) == 0) return open_group(id);
    Tasks tasks;
    tasks.kind = pick(4) == 0 ? ClassKind::Actor : ClassKind::Task;
    tasks.demand = ResourceAmounts::from_units({{"CPU", 10'000}});
    if (!uniform_) {
      const std::int64_t cpu[] = {0, 5'000, 10'000, 20'000, 30'000};
      tasks.demand =
          ResourceAmounts::from_units({{"CPU", cpu[pick(5)]}, {"GPU", pick(4) == 0 ? 5'000 : 0}});
    }
    if (tasks.kind == ClassKind::Task) {
      tasks.priority = pick(2) == 0 ? 0 : static_cast<int>(pick(5)) - 2;
      tasks.environment = {pick(3) != 0 ? 0 : static_cast<std::uint32_t>(pick(3))};
    }
    if (const auto group = pick_class();
        group && classes_.at(*group).kind == ClassKind::Group && pick(4) != 0) {
      tasks.group = *group;
      const auto bundle = pick(2) == 0 ? std::nullopt : std::optional<std::uint32_t>(pick(2));
      tasks.demand = demand_in(group->value, bundle, tasks.demand);
    }
    classes_[id] = tasks;
    tell(ClassOpened{id, tasks.kind, tasks.demand, tasks.priority, tasks.environment, tasks.group});
  }
  void open_group(ClassId id) {
    Bundles bundles;
    for (std::int64_t i = 0; i <= pick(3); ++i) {
      bundles.push_back(ResourceAmounts::from_units(
          {{"CPU", 5'000 * (1 + pick(3))}, {"GPU", pick(3) == 0 ? 5'000 : 0}}));
    }
    Tasks group;
    group.kind = ClassKind::Group;
    group.demand = sum_of(bundles);
    group.offer = offer_of(id.value, bundles);
    classes_[id] = group;
    tell(ClassOpened{id, ClassKind::Group, group.demand, 0, {}, {}, group.offer});
  }
  void close_class() {
    if (pick(3) != 0) return;
    if (const auto id = pick_class()) close(*id);
  }
  void close(ClassId id) {
    Tasks& tasks = classes_.at(id);
    tasks.open = false;
    tasks.depth = 0;
    tasks.start_ordered = false;
    for (auto& [member, others] : classes_) {
      if (others.group != id || others.rejected) continue;
      others.rejected = others.kind == ClassKind::Task || waits_for_start(member);
      others.depth = 0;
    }
    for (auto& [worker, process] : processes_) {
      if (process.cls == id && process.actor) {
        process.cls.reset();
        process.blocked = false;
        process.doing = Doing::Nothing;  // until the order to retire, which must come
        to_retire_.insert(worker);
      }
    }
    tell(ClassClosed{id});
    CHECK(to_retire_.empty());
  }
  void see_backlog() {
    const auto id = pick_class();
    if (!id || classes_.at(*id).kind != ClassKind::Task || classes_.at(*id).rejected) return;
    classes_.at(*id).depth = pick(3) == 0 ? 0 : pick(12);
    now_ += std::chrono::microseconds(pick(3'000));
    tell(BacklogSeen{*id, classes_.at(*id).depth});
  }
  void finish_start(bool may_fail = true) {
    const bool fails = may_fail && pick(20) == 0;
    if (!generic_starts_.empty() && (actor_starts_.empty() || pick(2) == 0)) {
      const EnvironmentId environment = *generic_starts_.begin();
      generic_starts_.erase(generic_starts_.begin());
      start_failed_ = fails;
      if (fails) return tell(WorkerStartFailed{std::nullopt, environment});
      const WorkerId id{++last_worker_};
      processes_[id] = Process{.environment = environment};
      tell(WorkerReady{id, std::nullopt, environment});
    } else if (!actor_starts_.empty()) {
      const ClassId cls = *actor_starts_.begin();
      actor_starts_.erase(actor_starts_.begin());
      Tasks& tasks = classes_.at(cls);
      if (fails) {
        tasks.start_ordered = false;
        tasks.open = false;  // no restart in this walk
        return tell(WorkerStartFailed{cls});
      }
      const WorkerId id{++last_worker_};
      Process process;
      process.actor = true;
      if (tasks.start_ordered) {
        process.cls = cls;
        joining_ = id;
      } else {
        to_retire_.insert(id);  // closed meanwhile
      }
      tasks.start_ordered = false;
      processes_[id] = process;
      tell(WorkerReady{id, cls});
      CHECK(to_retire_.empty());
      CHECK_FALSE(joining_.has_value());
    }
  }
  void let_worker_be_idle() {
    const auto id = pick_process([](const Process& process) {
      return !process.blocked &&
             (process.doing == Doing::Leaving || process.doing == Doing::Working);
    });
    if (!id) return;
    if (processes_.at(*id).doing == Doing::Leaving) return come_back(*id);
    tell(WorkerIdle{*id});
  }
  void come_back(WorkerId id) {
    processes_.at(id) = Process{.environment = processes_.at(id).environment};
    tell(WorkerIdle{id});
  }
  void let_worker_block_or_wake() {
    const auto id = pick_process([](const Process& process) {
      return process.doing == Doing::Leaving || process.doing == Doing::Working;
    });
    if (!id) return;
    if (processes_.at(*id).blocked) return tell_worker(*id, WorkerUnblocked{*id});
    processes_.at(*id).blocked = true;
    tell(WorkerBlocked{*id});
  }
  void tell_worker(WorkerId id, const WorkerUnblocked& unblocked) {
    Process& process = processes_.at(id);
    process.blocked = false;
    if (process.doing == Doing::Working) classes_.at(*process.cls).told_exhausted = false;
    tell(unblocked);
  }
  void let_process_end() {
    if (const auto id =
            pick_process([](const Process& process) { return process.doing == Doing::Ending; })) {
      end(*id);
    }
  }
  void wear_out() {
    if (const auto id = pick_process([](const Process& process) {
          return process.doing != Doing::Ending && !process.actor;
        })) {
      tell(WorkerSpent{*id});
    }
  }
  void let_worker_work() {
    const auto id = pick_process([](const Process& process) { return !process.blocked; });
    if (id) tell(WorkerWorked{*id});
  }
  void lose_process() {
    const bool out_of_memory = pick(2) == 0;
    if (const auto id = pick_process([](const Process&) { return true; })) end(*id, out_of_memory);
  }
  void end(WorkerId id, bool out_of_memory = false) {
    const Process process = processes_.at(id);
    processes_.erase(id);
    if (process.actor && process.cls) classes_.at(*process.cls).open = false;
    tell(WorkerGone{id, out_of_memory});
  }

  // ---- the books

  void tell(const WorkerEvent& event) {
    const WorkerActions actions = allotment_.step(event, now_);
    for (const WorkerAction& action : actions) {
      CAPTURE(describe(action));
      std::visit([&](const auto& order) { carry_out(order); }, action);
    }
    check_books();
  }

  ResourceAmounts held(const Process& process) const {
    if (!process.cls) return {};
    ResourceAmounts amounts;
    for (const auto& [name, units] : classes_.at(*process.cls).demand.by_name()) {
      if (!process.blocked || (name != "CPU" && !name.starts_with("CPU\n")))
        amounts.set_units(name, units);
    }
    return amounts;
  }
  // A group that was closed keeps what it has until the last of its tasks and actors has left.
  bool keeps(ClassId id) const {
    const Tasks& group = classes_.at(id);
    return group.granted &&
           (group.open || std::any_of(classes_.begin(), classes_.end(), [&](const auto& entry) {
              return entry.second.group == id &&
                     (entry.second.start_ordered || has_process(entry.first));
            }));
  }
  ResourceAmounts free() const {
    ResourceAmounts amounts = capacity_;
    for (const auto& [id, process] : processes_) {
      if (joining_ != id) amounts.subtract(held(process));
    }
    for (const auto& [id, tasks] : classes_) {
      const bool joins = joining_ && processes_.at(*joining_).cls == id;
      if (tasks.start_ordered || joins) amounts.subtract(tasks.demand);
      if (!keeps(id)) continue;
      amounts.subtract(tasks.demand);
      amounts.add(tasks.offer);
    }
    return amounts;
  }
  int count() const {
    return static_cast<int>(processes_.size() + actor_starts_.size() + generic_starts_.size());
  }
  bool has_process(ClassId cls) const {
    return std::any_of(processes_.begin(), processes_.end(),
                       [&](const auto& entry) { return entry.second.cls == cls; });
  }
  bool has_able_worker(ClassId cls) const {
    return std::any_of(processes_.begin(), processes_.end(), [&](const auto& entry) {
      const Process& process = entry.second;
      return process.cls == cls && process.doing == Doing::Working && !process.blocked;
    });
  }
  bool waits_for_start(ClassId id) const {
    const Tasks& tasks = classes_.at(id);
    return tasks.kind == ClassKind::Actor && tasks.open && !tasks.rejected &&
           !tasks.start_ordered && !has_process(id);
  }
  bool waits_for_grant(ClassId id) const {
    const Tasks& group = classes_.at(id);
    return group.kind == ClassKind::Group && group.open && !group.rejected && !group.granted;
  }

  void carry_out(const StartWorker& start) {
    if (start.for_actor) {
      Tasks& tasks = classes_.at(*start.for_actor);
      REQUIRE(waits_for_start(*start.for_actor));
      REQUIRE(free().contains(tasks.demand));
      tasks.start_ordered = true;
      tasks.told_exhausted = false;
      actor_starts_.insert(*start.for_actor);
    } else {
      generic_starts_.insert(start.environment);
      REQUIRE(generic_starts_.size() <= static_cast<std::size_t>(std::max<std::int64_t>(1, cpus_)));
    }
    REQUIRE(count() <= workers_max_);
  }
  void carry_out(const GrantGroup& grant) {
    REQUIRE(waits_for_grant(grant.cls));
    REQUIRE(free().contains(classes_.at(grant.cls).demand));
    classes_.at(grant.cls).granted = true;
  }
  void carry_out(const AttachWorker& attached) {
    Process& process = processes_.at(attached.worker);
    Tasks& tasks = classes_.at(attached.cls);
    REQUIRE(process.doing == Doing::Nothing);
    REQUIRE(tasks.open);
    REQUIRE_FALSE(tasks.rejected);
    if (joining_ == attached.worker) {
      REQUIRE(process.cls == attached.cls);
      joining_.reset();
    } else {
      REQUIRE_FALSE(process.actor);
      REQUIRE(tasks.kind == ClassKind::Task);
      REQUIRE(tasks.environment == process.environment);
      REQUIRE(tasks.depth > 0);
      REQUIRE(free().contains(tasks.demand));
      process.cls = attached.cls;
    }
    process.doing = Doing::Working;
    tasks.told_exhausted = false;
  }
  void carry_out(const DetachWorker& detached) {
    Process& process = processes_.at(detached.worker);
    REQUIRE(process.doing == Doing::Working);
    REQUIRE_FALSE(process.actor);
    process.doing = Doing::Leaving;
  }
  void carry_out(const RetireWorker& retired) {
    Process& process = processes_.at(retired.worker);
    REQUIRE(process.doing == Doing::Nothing);
    REQUIRE((!process.actor || to_retire_.count(retired.worker) == 1));
    to_retire_.erase(retired.worker);
    process.doing = Doing::Ending;
  }
  void carry_out(const RejectClass& rejected) {
    const Tasks& tasks = classes_.at(rejected.cls);
    if (tasks.group) {
      const Tasks& group = classes_.at(*tasks.group);
      REQUIRE_FALSE((group.open && !group.rejected && group.offer.contains(tasks.demand)));
    } else {
      REQUIRE_FALSE(capacity_.contains(tasks.demand));
    }
    classes_.at(rejected.cls).rejected = true;
  }
  void carry_out(const PoolExhausted& exhausted) {
    REQUIRE_FALSE(classes_.at(exhausted.cls).told_exhausted);
    REQUIRE(count() >= workers_max_);
    REQUIRE_FALSE(someone_may_come());
    classes_.at(exhausted.cls).told_exhausted = true;
  }
  bool someone_may_come() const {
    return !generic_starts_.empty() ||
           std::any_of(processes_.begin(), processes_.end(), [](const auto& entry) {
             const Process& process = entry.second;
             return process.doing == Doing::Ending || (!process.actor && !process.blocked);
           });
  }

  void check_books() {
    REQUIRE(allotment_.free() == free());
    REQUIRE(allotment_.pool().workers + allotment_.pool().starting == count());
    for (auto& [id, tasks] : classes_) {
      if (tasks.kind == ClassKind::Task && (tasks.depth == 0 || has_able_worker(id))) {
        tasks.told_exhausted = false;
      }
      if (tasks.open) REQUIRE_FALSE(allotment_.explain(id).empty());
      if (waits_for_grant(id) && free().contains(tasks.demand)) check_somebody_is_first(id);
      if (tasks.kind == ClassKind::Task && tasks.open && !tasks.rejected) check_served(id, tasks);
    }
  }
  // What a group could have is kept from it only for who has waited for longer.
  void check_somebody_is_first(ClassId group) const {
    INFO("group " << group.value << ": " << allotment_.explain(group));
    REQUIRE(std::any_of(classes_.begin(), classes_.end(), [&](const auto& entry) {
      return entry.first < group && (waits_for_start(entry.first) || waits_for_grant(entry.first));
    }));
  }
  // A backlog with free resources is never left without a worker or one on its way.
  void check_served(ClassId id, const Tasks& tasks) const {
    if (tasks.depth == 0 || !free().contains(tasks.demand) || has_able_worker(id)) return;
    // What looks free may be kept for someone whose larger demand does not fit yet.
    for (const auto& [other, others] : classes_) {
      const bool waits =
          waits_for_start(other) || waits_for_grant(other) || (others.depth > 0 && other != id);
      if (waits && !free().contains(others.demand)) return;
      if (waits_for_start(other)) return;  // it waits for a place, and comes first
    }
    // Or for someone whose process starts, or is to take the place of another one, since those that
    // are there are of other environments.
    const bool kept = std::any_of(classes_.begin(), classes_.end(), [&](const auto& entry) {
      return entry.second.depth > 0 && entry.second.environment != tasks.environment;
    });
    if (kept && (start_failed_ || someone_may_come())) return;
    INFO("class " << id.value << ": " << allotment_.explain(id));
    for (const auto& [worker, process] : processes_) {
      const bool serves = !process.actor && process.environment == tasks.environment;
      REQUIRE((process.doing != Doing::Nothing || !serves));
    }
    if (!generic_starts_.empty() || start_failed_) return;
    REQUIRE(count() >= workers_max_);
    REQUIRE((someone_may_come() || tasks.told_exhausted));
  }
  bool nothing_waits() const {
    return std::none_of(classes_.begin(), classes_.end(), [&](const auto& entry) {
      return entry.second.depth > 0 || waits_for_start(entry.first) || waits_for_grant(entry.first);
    });
  }

  std::mt19937_64 random_;
  WorkerAllotment allotment_;
  Time now_ = 1s;
  bool uniform_ = false;
  std::int64_t cpus_ = 1;
  ResourceAmounts capacity_;
  int workers_max_ = 1;
  std::map<WorkerId, Process> processes_;
  std::map<ClassId, Tasks> classes_;
  std::set<WorkerId> to_retire_;
  std::optional<WorkerId> joining_;
  std::multiset<ClassId> actor_starts_;
  std::multiset<EnvironmentId> generic_starts_;
  bool start_failed_ = false;  // no start since has succeeded: a pause may be on
  std::uint32_t last_class_ = 0;
  std::uint32_t last_worker_ = 0;
};

void walk(std::uint64_t seed) {
  INFO("replay with MOBULA_SEED=" << seed);
  PretendNode node{seed};

  for (int event = 0; event < 500; ++event) {
    CAPTURE(event);
    node.take_random_step();
  }

  const bool drained = node.drains();
  const std::string waiting = node.explain_waiting();
  INFO(waiting);
  REQUIRE(drained);
}

TEST_CASE("whatever happens on a node, its books balance and no task waits without a reason") {
  if (const char* seed = std::getenv("MOBULA_SEED")) return walk(std::strtoull(seed, nullptr, 10));
  for (std::uint64_t seed = 1; seed <= 300; ++seed) walk(seed);
}

}  // namespace
}  // namespace mobula::core
