// Scheduling classes: opened when a process asks for one, and closed when nobody can name it any
// more. What an actor's life then brings is in node_actors.cc.
#include <stdlib.h>

#include <algorithm>

#include "node/node.h"
#include "node/node_parts.h"

namespace mobula::node {
void Node::clear_class(std::uint32_t id, shm::ClassKind kind) {
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  cls.kind.store(static_cast<std::uint32_t>(kind));
  cls.attached.store(0);
  cls.attention.store(0);
  for (auto& w : cls.sleepers) w.store(0);
  cls.searcher.store(0);
  cls.quick.store(0);
  cls.creation.store(0);
  cls.kill_request.store(0);
  cls.restarts.store(0);
  cls.environment.store(0);
  cls.death = {};
  cls.lasting.options = 0;
  cls.lasting.born = cls.lasting.taken.load();
  cls.pending_calls_max = -1;
  cls.detached = 0;
  cls.out_of_order = 0;
  cls.placement_group = 0;
  cls.bundle = -1;
  copy_text(cls.group_name, "");
  copy_text(cls.groups, "");
  copy_text(cls.name, "");
  copy_text(cls.given_name, "");
  copy_text(cls.demand_text, "");
}

// What a process runs later itself. It alone claims from the class, on a thread that is always
// there, so the rules of the allotment have nothing to say about it.
void Node::open_callback_class(std::uint32_t process, wire::Message& message) {
  const auto id = tables_->open_class();
  if (!id || callback_classes_.contains(process))
    return refuse(message, wire::Status::Limit,
                  "this node has as many scheduling classes and actors as it can list (16384)");
  clear_class(*id, shm::ClassKind::Callback);
  shm::SchedulingClass& cls = memory_.scheduling_class(*id);
  cls.attached.store(1);
  cls.slot_process[0].store(process);
  copy_text(cls.name, "(callbacks)");
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Open), std::memory_order_release);
  recovery_->open_class_ring(*id);
  callback_classes_[process] = *id;
  message.a = *id;
}

// After the repair, which failed the records of the class: what its rings still name runs nowhere.
void Node::close_callback_class(std::uint32_t process) {
  const auto it = callback_classes_.find(process);
  if (it == callback_classes_.end()) return;
  memory_.scheduling_class(it->second)
      .state.store(static_cast<std::uint32_t>(shm::ClassState::Free));
  recovery_->fail_calls(it->second);
  tables_->close_class(it->second);
  callback_classes_.erase(it);
}

void Node::open_class(std::uint32_t process, wire::Message& message) {
  if (message.a == static_cast<std::uint32_t>(shm::ClassKind::Callback))
    return open_callback_class(process, message);
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  const bool is_actor = message.a == static_cast<std::uint32_t>(shm::ClassKind::Actor);
  const std::uint32_t environment = environment_number(
      std::string(wire::rest(text, is_actor ? wire::kActorFields : wire::kTaskFields)));
  const std::string placement(
      wire::field(fields, is_actor ? wire::kActorPlacement : wire::kTaskPlacement));
  const auto priority = static_cast<int>(message.b);
  const std::string key = text + '\0' + std::to_string(priority);
  const std::string demand_text(wire::field(fields, 0));
  const std::string_view actor_class = wire::field(fields, wire::kActorClass);
  const ActorName name =
      full_name(wire::field(fields, wire::kActorName), wire::field(fields, wire::kActorNamespace));
  const std::string pending_calls(wire::field(fields, wire::kActorPendingCalls));
  const std::string type(wire::field(fields, wire::kActorType));
  const std::string groups(wire::field(fields, wire::kActorGroups));
  const std::string lasting(wire::field(fields, wire::kActorLasting));
  const std::string detached(wire::field(fields, wire::kActorDetached));
  const auto restarts = static_cast<int>(message.b);
  const std::uint64_t creation = message.c;
  if (is_actor &&
      shm::Address::unpack(creation).slot / shm::kRecordsPerSegment >= shm::kSegmentsMax) {
    return refuse(message, wire::Status::Invalid, "the creation of the actor is no record");
  }
  const auto retries = static_cast<int>(static_cast<std::uint32_t>(message.d));
  const bool out_of_order = message.d & wire::kOutOfOrder;
  message.text_size = 0;
  if (!is_actor) {
    if (const auto known = task_classes_.find(key); known != task_classes_.end()) {
      message.a = known->second;
      return;
    }
  }
  if (is_actor && name_is_taken(name)) {
    return refuse(message, wire::Status::Exists,
                  "there is an actor " + name.quoted() +
                      " already; mobula::get_actor gives its handle, and so does "
                      "ActorOptions.get_if_exists");
  }
  auto parsed = core::ResourceAmounts::parse(wire::parse_amounts(demand_text));
  if (const auto* refusal = std::get_if<core::ResourceRefusal>(&parsed))
    return refuse(message, wire::Status::Invalid, refusal->describe());
  const auto& demand = std::get<core::ResourceAmounts>(parsed);
  core::ResourceAmounts placed = demand;
  Place in;
  if (!place(placement, placed, in, message)) return;
  const auto id = tables_->open_class();
  if (!id)
    return refuse(message, wire::Status::Limit,
                  "this node has as many scheduling classes and actors as it can list (16384)");

  clear_class(*id, is_actor ? shm::ClassKind::Actor : shm::ClassKind::Task);
  shm::SchedulingClass& cls = memory_.scheduling_class(*id);
  cls.attention.store(1);
  cls.creation.store(creation);
  cls.out_of_order = out_of_order;
  copy_text(cls.groups, groups);
  cls.lasting.options = is_actor ? std::strtoull(lasting.c_str(), nullptr, 10) : 0;
  cls.pending_calls_max = is_actor ? std::atoi(pending_calls.c_str()) : -1;
  cls.detached = is_actor ? std::strtoull(detached.c_str(), nullptr, 10) : 0;
  copy_text(cls.name, is_actor ? actor_class : demand.describe());
  copy_text(cls.given_name, is_actor ? name.name : "");
  cls.environment.store(environment);
  cls.placement_group = in.group;
  cls.bundle = in.bundle;
  copy_text(cls.group_name, in.name);
  copy_text(cls.demand_text, demand_text);
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Open), std::memory_order_release);
  recovery_->open_class_ring(*id);
  if (is_actor) {
    Actor& actor = actors_[*id];
    actor = Actor{};
    actor.max_restarts = restarts;
    actor.max_task_retries = retries;
    actor.demand = placed;
    actor.group = in.cls;
    actor.type = std::strtoull(type.c_str(), nullptr, 10);
    actor.one_by_one = groups.empty() && !out_of_order;
    actor.environment = environment;
  }
  rejected_.clear();
  // In local mode an actor is judged by its demand, and no process is to be started for it.
  step(core::ClassOpened{{*id},
                         is_actor && !local_ ? core::ClassKind::Actor : core::ClassKind::Task,
                         placed,
                         is_actor ? 0 : priority,
                         {is_actor ? 0 : environment},
                         in.cls});
  if (!rejected_.empty()) {
    step(core::ClassClosed{{*id}});
    actors_.erase(*id);
    close_class(*id);
    return refuse(message, wire::Status::Unschedulable,
                  "a demand of " + demand.describe() + " can never be met: " + rejected_ +
                      (in.cls ? ". Ask for less, or for larger bundles"
                              : ". Ask for less, or give the node more (Config.num_cpus, num_gpus, "
                                "resources)"));
  }
  if (!is_actor) task_classes_[key] = *id;
  if (is_actor && !name.name.empty()) names_.give(name, *id);
  message.a = *id;
}

// Nothing names it any more: its entry serves the next one.
void Node::close_class(std::uint32_t id) {
  memory_.scheduling_class(id).state.store(static_cast<std::uint32_t>(shm::ClassState::Free));
  tables_->close_class(id);
}

void Node::tell_past_records(std::uint32_t cls, wire::Message& message) {
  const std::vector<std::uint32_t> all = recovery_->past_segments(cls);
  const std::size_t from = std::min<std::size_t>(message.a, all.size());
  const std::size_t fit = wire::kTextMax / sizeof all[0];
  message.a = static_cast<std::uint32_t>(all.size());
  message.set_text({reinterpret_cast<const char*>(all.data() + from),
                    std::min(all.size() - from, fit) * sizeof all[0]});
}

std::uint32_t Node::environment_number(const std::string& text) {
  auto known = std::find(environments_.begin(), environments_.end(), text);
  if (known == environments_.end()) known = environments_.insert(known, text);
  return static_cast<std::uint32_t>(known - environments_.begin());
}

}  // namespace mobula::node
