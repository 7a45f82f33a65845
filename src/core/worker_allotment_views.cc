// What WorkerAllotment shows of itself: to people, to tools, and to who shares the node out.
#include <algorithm>
#include <utility>

#include "core/bundles.h"
#include "core/worker_allotment.h"

namespace mobula::core {
namespace {

// So many times the demand, but of no resource more than there is.
ResourceAmounts times(const ResourceAmounts& demand, std::int64_t n, const ResourceAmounts& most) {
  ResourceAmounts product;
  for (const auto& [name, units] : demand.by_name()) {
    std::int64_t all = 0;
    if (__builtin_mul_overflow(units, n, &all)) all = most.units(name);
    product.set_units(name, std::min(all, most.units(name)));
  }
  return product;
}

std::string count_of(std::int64_t count, const std::string& thing) {
  return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

}  // namespace

WorkerAllotment::Claim WorkerAllotment::claim(Time now) const {
  Claim claim;
  if (!capacity_) return claim;
  claim.used = granted_;
  claim.used.subtract(of_node(free_));
  for (const auto& [id, cls] : classes_) {
    if (cls.phase == ClassPhase::Starting || cls.phase == ClassPhase::Alive || cls.granted)
      claim.firm.add(cls.demand);
  }
  for (const auto& [id, worker] : workers_) {
    if (worker.blocked && !worker.for_actor) claim.firm.add(worker.held);
  }
  claim.firm = of_node(claim.firm);  // the rest is in what groups hold
  claim.wanted = claim.firm;
  const auto tallies = tally();
  std::optional<Time> longest;
  for (const auto& [id, cls] : classes_) {
    if (cls.group) continue;
    const auto own = tallies.find(id);
    const Tally mine = own == tallies.end() ? Tally{} : own->second;
    std::int64_t runners = 0;
    if (cls.phase == ClassPhase::Waiting) runners = 1;
    if (cls.phase == ClassPhase::Open)
      runners = std::max<std::int64_t>(0, mine.able - mine.resting - mine.settling) + cls.depth;
    claim.wanted.add(times(cls.demand, runners, *capacity_));
    const bool starves =
        runners > 0 && mine.able == 0 && cls.wanting_since && now - *cls.wanting_since >= kPatience;
    ResourceAmounts needed = claim.firm;
    needed.add(cls.demand);
    if (!starves || granted_.contains(needed) || (longest && *longest <= *cls.wanting_since))
      continue;
    longest = cls.wanting_since;
    claim.urgent = cls.demand;
  }
  for (const auto& [name, units] : capacity_->by_name())
    claim.wanted.set_units(name, std::min(units, claim.wanted.units(name)));
  return claim;
}

std::optional<WorkerAllotment::ClassView> WorkerAllotment::view(ClassId id) const {
  const auto known = classes_.find(id);
  if (known == classes_.end()) return std::nullopt;
  ClassView view;
  view.kind = known->second.kind;
  view.demand = known->second.demand;
  view.depth = known->second.depth;
  for (const auto& [worker_id, worker] : workers_) {
    if (worker.cls != id) continue;
    ++view.workers;
    if (worker.blocked) ++view.blocked;
    if (worker.phase == WorkerPhase::Leaving) ++view.leaving;
  }
  return view;
}

std::vector<WorkerId> WorkerAllotment::blocked_holders(ClassId id) const {
  const auto known = classes_.find(id);
  if (known == classes_.end() || known->second.phase != ClassPhase::Open ||
      known->second.depth == 0)
    return {};
  const std::string lack = free_.first_lack(known->second.demand);
  if (lack.empty()) return {};
  std::vector<WorkerId> holders;
  for (const auto& [worker_id, worker] : workers_) {
    const bool serves = worker.cls == id && worker.phase == WorkerPhase::Attached;
    const bool holds = worker.held.units(lack) > 0;
    if (!worker.blocked && (serves || holds)) return {};
    if (holds) holders.push_back(worker_id);
  }
  for (const auto& [other_id, other] : classes_) {
    if (other.phase == ClassPhase::Starting && other.demand.units(lack) > 0) return {};
  }
  return holders;
}

WorkerAllotment::PoolView WorkerAllotment::pool() const {
  PoolView pool;
  pool.workers = static_cast<int>(workers_.size());
  pool.starting = processes() - pool.workers;
  for (const auto& [id, worker] : workers_) {
    if (worker.phase == WorkerPhase::Unattached) ++pool.unattached;
  }
  return pool;
}

std::string WorkerAllotment::explain(ClassId id) const {
  const auto known = classes_.find(id);
  if (known == classes_.end()) return "is not open on this node";
  const Class& cls = known->second;
  switch (cls.phase) {
    case ClassPhase::Rejected: return "can never run here: " + cls.rejection;
    case ClassPhase::Closing: return "is closed, and its last workers finish their tasks";
    case ClassPhase::Starting: return "its worker is starting";
    case ClassPhase::Ended: return "its worker is gone";
    case ClassPhase::Alive:
      if (cls.kind == ClassKind::Group) return "has what it asked for";
      for (const auto& [worker_id, worker] : workers_) {
        if (worker.cls != id) continue;
        const std::string name = "its worker " + std::to_string(worker_id.value);
        return name + (worker.blocked ? " waits in a call of its own" : " takes its calls");
      }
      break;
    case ClassPhase::Open:
    case ClassPhase::Waiting: break;
  }
  if (!capacity_) return "waits until the node's capacity is known";
  if (cls.phase == ClassPhase::Open) {
    if (cls.depth == 0) return "has no waiting tasks";
    const auto tallies = tally();
    const auto own = tallies.find(id);
    const Tally mine = own == tallies.end() ? Tally{} : own->second;
    if (unserved(cls, mine) == 0) {
      if (cls.held_back && mine.able >= cls.held_back->workers_most) {
        return "is held back to " + count_of(cls.held_back->workers_most, "worker") +
               ", since with more of them its tasks ran out of memory";
      }
      if (cls.depth > mine.resting + mine.settling) {
        return "wants no CPU, and has " + count_of(mine.able, "worker") +
               ", the most for such a class here";
      }
      return count_of(mine.resting + mine.settling, "worker") + " will take its " +
             count_of(cls.depth, "waiting task");
    }
  }
  if (cls.group && !classes_.at(*cls.group).granted) {
    return "waits for its placement group, " + describe(*cls.group) + ", which " +
           explain(*cls.group);
  }
  if (const std::string lack = free_.first_lack(cls.demand); !lack.empty()) {
    return explain_lack(cls, lack);
  }
  if (starting_for_.contains(id) || reserved_for_.empty() || reserved_for_.front() == id) {
    return explain_pool();
  }
  return "waits for its turn: what is free is kept for " + describe(reserved_for_.front()) +
         " first";
}

std::string WorkerAllotment::explain_lack(const Class& cls, const std::string& resource) const {
  struct Holding {
    int workers = 0;
    int leaving = 0;
    bool starting = false;
    bool group = false;
  };
  std::map<ClassId, Holding> holders;
  std::int64_t held = 0;
  for (const auto& [id, worker] : workers_) {
    if (worker.held.units(resource) <= 0) continue;
    held += worker.held.units(resource);
    ++holders[*worker.cls].workers;
    if (worker.phase == WorkerPhase::Leaving) ++holders[*worker.cls].leaving;
  }
  for (const auto& [id, other] : classes_) {
    const bool starting = other.phase == ClassPhase::Starting;
    if (!(starting || other.granted) || other.demand.units(resource) <= 0) continue;
    held += other.demand.units(resource);
    (starting ? holders[id].starting : holders[id].group) = true;
  }

  std::string names;
  for (const auto& [id, holding] : holders) {
    if (!names.empty()) names += ", ";
    names += describe(id) + " (";
    names += holding.starting ? "starting"
             : holding.group  ? "for its bundles"
                              : count_of(holding.workers, "worker");
    if (holding.leaving > 0) names += ", " + std::to_string(holding.leaving) + " leaving";
    names += ")";
  }
  const std::int64_t capacity =
      (cls.group ? classes_.at(*cls.group).offer : *capacity_).units(resource);
  const std::int64_t shown = std::max(held, std::int64_t{0});
  if (!cls.group && granted_.units(resource) < capacity) {
    return "waits for " + resource + " " + describe_units(cls.demand.units(resource)) +
           ": of the node's " + describe_units(capacity) + " this job may use " +
           describe_units(granted_.units(resource)) + " at present, and uses " +
           describe_units(shown) + (names.empty() ? "" : " in " + names);
  }
  const bool all = held == capacity && capacity > ResourceAmounts::kUnitsPerOne;
  return "waits for " + describe_amount(resource, cls.demand.units(resource)) + ": " +
         (all ? "all " + describe_units(capacity)
              : describe_units(shown) + " of " + describe_units(capacity)) +
         (shown == ResourceAmounts::kUnitsPerOne ? " is" : " are") + " held by " + names;
}

std::string WorkerAllotment::explain_pool() const {
  if (starts_paused_until_) {
    return "waits for a worker: the last " + count_of(failed_starts_, "start") + " failed";
  }
  const PoolView now = pool();
  if (now.starting > 0) return "waits for a worker: " + std::to_string(now.starting) + " starting";
  int blocked = 0;
  int of_actors = 0;
  int on_the_way = 0;
  for (const auto& [id, worker] : workers_) {
    if (worker.for_actor) {
      ++of_actors;
    } else if (worker.blocked) {
      ++blocked;
    } else if (worker.phase == WorkerPhase::Leaving || worker.phase == WorkerPhase::Retiring) {
      ++on_the_way;
    }
  }
  return "waits for a worker: " + std::to_string(now.workers) + " of at most " +
         std::to_string(limits_.workers_max) + " exist (" + std::to_string(blocked) + " blocked, " +
         std::to_string(of_actors) + " of actors, " + std::to_string(on_the_way) +
         " about to come free)";
}

}  // namespace mobula::core
