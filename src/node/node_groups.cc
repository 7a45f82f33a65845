// Placement groups: asked for, granted, removed with all that is in them. Who gets what when is
// decided in core/worker_allotment.h.
#include <algorithm>

#include "mobula/placement_group.h"
#include "node/node.h"
#include "node/node_parts.h"

namespace mobula::node {
namespace {

constexpr std::size_t kRemovedShown = 100;

std::string described(Strategy strategy, const core::Bundles& bundles) {
  static constexpr const char* kNames[] = {"Pack", "Spread", "StrictPack", "StrictSpread"};
  std::string text = kNames[static_cast<std::uint32_t>(strategy)];
  const char* before = ": ";
  for (const core::ResourceAmounts& bundle : bundles) {
    text += before + ("{" + bundle.describe() + "}");
    before = ", ";
  }
  return text;
}

}  // namespace

Node::Group* Node::group_by_id(std::uint64_t id) {
  const auto found = std::find_if(groups_.begin(), groups_.end(), [&](const auto& entry) {
    return entry.second.id == id && !entry.second.removed;
  });
  return found == groups_.end() ? nullptr : &found->second;
}

void Node::open_group(wire::Message& message) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  const auto strategy = static_cast<Strategy>(std::min(message.b, 3u));
  message.text_size = 0;
  Group group;
  group.text = text;
  group.strategy = static_cast<std::uint32_t>(strategy);
  group.name = wire::field(fields, 0);
  const bool taken = std::any_of(groups_.begin(), groups_.end(), [&](const auto& entry) {
    return entry.second.name == group.name && !entry.second.removed;
  });
  if (taken && !group.name.empty()) {
    return refuse(message, wire::Status::Invalid,
                  "there is a placement group \"" + group.name +
                      "\" already; mobula::get_placement_group gives its handle");
  }
  for (std::size_t i = 1; i < fields.size(); ++i) {
    auto parsed = core::ResourceAmounts::parse(wire::parse_amounts(fields[i]));
    if (const auto* refusal = std::get_if<core::ResourceRefusal>(&parsed))
      return refuse(message, wire::Status::Invalid, refusal->describe());
    group.bundles.push_back(std::get<core::ResourceAmounts>(std::move(parsed)));
  }
  if (group.bundles.empty())
    return refuse(message, wire::Status::Invalid, "a placement group has at least one bundle");
  if (strategy == Strategy::StrictSpread && group.bundles.size() > 1) {
    return refuse(message, wire::Status::Unschedulable,
                  "StrictSpread wants each of the " + std::to_string(group.bundles.size()) +
                      " bundles on a node of its own, and there is one node. Spread takes as many "
                      "nodes as there are");
  }
  const auto id = tables_->open_class();
  if (!id)
    return refuse(message, wire::Status::Limit,
                  "this node has as many scheduling classes and actors as it can list (16384)");
  group.cls = *id;
  group.number = ++groups_made_;
  group.id = shm::mix(memory_.header().session + group.number) | 1;  // 0 is none
  clear_class(*id, shm::ClassKind::Group);
  shm::SchedulingClass& cls = memory_.scheduling_class(*id);
  cls.placement_group = group.id;
  copy_text(cls.group_name, group.name);
  copy_text(cls.name, "placement group " + (group.name.empty() ? std::to_string(group.number)
                                                               : "\"" + group.name + "\""));
  copy_text(cls.groups, described(strategy, group.bundles));
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Open), std::memory_order_release);
  const core::ResourceAmounts sum = core::sum_of(group.bundles);
  core::ClassOpened opened{{*id}, core::ClassKind::Group, sum};
  opened.offer = core::offer_of(*id, group.bundles);
  message.c = group.id;
  groups_.emplace(*id, std::move(group));
  rejected_.clear();
  step(opened);
  if (rejected_.empty()) return;
  groups_.erase(*id);
  close_class(*id);
  refuse(message, wire::Status::Unschedulable,
         "the bundles of a placement group take " + sum.describe() +
             " together, which can never be had: " + rejected_ +
             ". Ask for less, or give the node more (Config.num_cpus, num_gpus, resources)");
}

void Node::group_granted(std::uint32_t id) {
  groups_.at(id).granted = true;
  memory_.scheduling_class(id).attached.store(1);
  monitors_->granted(id);
}

// Names what the placement of a task or actor demands. False: it was refused.
bool Node::place(std::string_view placement, core::ResourceAmounts& demand, Place& place,
                 wire::Message& message) {
  if (placement.empty()) return true;
  const std::string text(placement);
  char* end = nullptr;
  const std::uint64_t id = std::strtoull(text.c_str(), &end, 10);
  place.bundle = static_cast<std::int32_t>(std::strtol(end, nullptr, 10));
  const Group* group = group_by_id(id);
  if (!group) {
    refuse(message, wire::Status::GroupRemoved,
           "there is no placement group with this id (any more): it was removed, or is another "
           "session's");
    return false;
  }
  place.group = id;
  place.name = group->name;
  place.cls = core::ClassId{group->cls};
  if (place.bundle < -1 || place.bundle >= static_cast<std::int64_t>(group->bundles.size())) {
    refuse(message, wire::Status::Invalid,
           "the bundle_index is " + std::to_string(place.bundle) +
               ", and the placement group has " + std::to_string(group->bundles.size()) +
               " bundles; -1 stands for any");
    return false;
  }
  if (place.bundle == -1 &&
      std::none_of(group->bundles.begin(), group->bundles.end(),
                   [&](const auto& bundle) { return bundle.contains(demand); })) {
    refuse(message, wire::Status::Unschedulable,
           "a demand of " + demand.describe() +
               " can never be met: no bundle of the placement group has as much");
    return false;
  }
  demand = core::demand_in(
      group->cls,
      place.bundle < 0 ? std::nullopt : std::optional(static_cast<std::uint32_t>(place.bundle)),
      demand);
  return true;
}

// Its tasks end now, its actors as if they were killed. What is left then: serve_groups.
void Node::remove_group(std::uint64_t id) {
  Group* const group = group_by_id(id);
  if (!group) return;
  group->removed = true;
  const std::uint32_t cls = group->cls;
  const auto mark_dead = [&](std::uint32_t dead) {
    memory_.scheduling_class(dead).state.store(static_cast<std::uint32_t>(shm::ClassState::Dead),
                                               std::memory_order_seq_cst);
  };
  mark_dead(cls);
  std::erase_if(task_classes_, [&](const auto& known) {
    if (memory_.scheduling_class(known.second).placement_group != id) return false;
    group->task_classes.push_back(known.second);
    depths_.erase(known.second);
    mark_dead(known.second);
    return true;
  });
  std::atomic_thread_fence(std::memory_order_seq_cst);  // before we look for tasks (see submit.cc)
  recovery_->fail_tasks(group->task_classes);
  end_workers_of(*group);
  step(core::ClassClosed{{cls}});
  for (const std::uint32_t tasks : group->task_classes) step(core::ClassClosed{{tasks}});
  for (const auto& [actor_id, actor] : actors_) {
    if (actor.group == core::ClassId{cls})
      memory_.scheduling_class(actor_id).kill_request.fetch_or(shm::kKill | shm::kGroupRemoved);
  }
  monitors_->group_removed(cls);
  busy_ = true;
}

void Node::end_workers_of(const Group& group) {
  for (auto& [process, worker] : workers_) {
    if (worker.actor || worker.attached == shm::kNone ||
        std::find(group.task_classes.begin(), group.task_classes.end(), worker.attached) ==
            group.task_classes.end())
      continue;
    worker.ends_with_group = true;
    kill_worker(worker);
  }
}

// Groups that were removed, until the last of their processes is gone.
void Node::serve_groups() {
  std::erase_if(groups_, [&](const auto& entry) {
    const auto& [id, group] = entry;
    if (!group.removed) return false;
    end_workers_of(group);
    const bool has_actors = std::any_of(actors_.begin(), actors_.end(), [&](const auto& known) {
      return known.second.group == core::ClassId{id} && !known.second.dead;
    });
    if (has_actors || allotment_.view({id})) {
      busy_ = true;
      return false;
    }
    monitors_->forget(id);
    close_class(id);
    removed_groups_.push_back(group);
    if (removed_groups_.size() > kRemovedShown) removed_groups_.pop_front();
    return true;
  });
}

// The one with the next number.
void Node::read_group(wire::Message& message) {
  const std::string name(message.text_view());
  const Group* next = nullptr;
  const auto look_at = [&](const Group& group) {
    if (group.number <= message.a || (next && next->number < group.number)) return;
    if ((message.c == 0 || message.c == group.id) && (name.empty() || name == group.name))
      next = &group;
  };
  for (const auto& [id, group] : groups_) look_at(group);
  for (const Group& group : removed_groups_) look_at(group);
  if (!next) return refuse(message, wire::Status::NotFound, "there is no further one");
  message.a = next->number;
  message.b = static_cast<std::uint32_t>(next->removed   ? PlacementGroupState::Removed
                                         : next->granted ? PlacementGroupState::Created
                                                         : PlacementGroupState::Pending);
  message.c = next->id;
  message.d = next->strategy;
  message.set_text(next->text);
}

void Node::hold_group(std::uint32_t process, wire::Message& message) {
  const Group* const group = group_by_id(message.c);
  if (!group) return refuse(message, wire::Status::GroupRemoved, "the placement group was removed");
  const auto record = monitors_->record_of(group->cls);
  if (!record)
    return refuse(message, wire::Status::Limit, "no memory is left for records of tasks");
  if (group->granted) monitors_->granted(group->cls);
  if (!recovery_->give_hold(process, message.b, *record, nullptr))
    return refuse(message, wire::Status::Invalid, "no such line of the table of held objects");
  message.c = record->packed();
}

}  // namespace mobula::node
