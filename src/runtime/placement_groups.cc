#include "mobula/placement_group.h"

#include <utility>

#include "mobula/error.h"
#include "mobula/object.h"
#include "runtime/journal.h"
#include "runtime/ledger.h"
#include "runtime/process.h"

namespace mobula {
namespace {

using runtime::Process;

std::string text_of(const Bundle& bundle) {
  Bundle others = bundle;
  const auto take = [&](const char* name) -> std::optional<double> {
    const auto amount = others.extract(name);
    return amount ? std::optional(amount.mapped()) : std::nullopt;
  };
  const auto cpus = take("CPU");
  const auto gpus = take("GPU");
  const auto memory = take("memory");
  std::string text = runtime::demand_text(cpus, 0, gpus, memory, others);
  if (text.empty()) throw Error("a bundle of a placement group is empty");
  return text;
}

PlacementGroup read(const wire::Message& message) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  PlacementGroup group;
  group.id = message.c;
  group.name = fields[0];
  group.strategy = static_cast<Strategy>(message.d);
  for (std::size_t i = 1; i < fields.size(); ++i)
    group.bundles.push_back(wire::parse_amounts(fields[i]));
  return group;
}

// Whether there is a further one.
bool ask_next(wire::Message& message) {
  runtime::require_process().daemon().ask(message);
  if (message.status == wire::Status::NotFound) return false;
  if (message.status != wire::Status::Ok) runtime::throw_status(message);
  return true;
}

}  // namespace

PlacementGroup placement_group(std::vector<Bundle> bundles, Strategy strategy,
                               PlacementGroupOptions options) {
  runtime::refuse_in_replay("methods that make placement groups");
  detail::check_actor_name(options.name, "PlacementGroupOptions.name");
  if (bundles.empty()) throw Error("a placement group has at least one bundle");
  std::vector<std::string> fields{options.name};
  for (const Bundle& bundle : bundles) fields.push_back(text_of(bundle));
  const std::string text = wire::join(fields);
  if (text.size() > wire::kTextMax) {
    throw Error("the bundles of the placement group take " + std::to_string(text.size()) +
                " bytes as text; at most " + std::to_string(wire::kTextMax) + " are possible");
  }
  wire::Message message;
  message.kind = wire::Kind::OpenGroup;
  message.b = static_cast<std::uint32_t>(strategy);
  message.set_text(text);
  runtime::require_process().daemon().demand(message);
  return {message.c, std::move(options.name), std::move(bundles), strategy};
}

void remove_placement_group(const PlacementGroup& group) {
  runtime::refuse_in_replay("methods that remove placement groups");
  wire::Message message;
  message.kind = wire::Kind::RemoveGroup;
  message.c = group.id;
  runtime::require_process().daemon().demand(message);
}

PlacementGroup get_placement_group(std::string_view name) {
  if (name.empty()) throw Error("the name of the placement group is empty");
  wire::Message message;
  for (;;) {
    message.set_text(name);
    message.kind = wire::Kind::ReadGroup;
    message.c = 0;
    if (!ask_next(message))
      throw Error("there is no placement group \"" + std::string(name) + "\" now");
    if (static_cast<PlacementGroupState>(message.b) != PlacementGroupState::Removed)
      return read(message);
  }
}

std::vector<PlacementGroupInfo> placement_groups() {
  std::vector<PlacementGroupInfo> all;
  wire::Message message;
  for (;;) {
    message.kind = wire::Kind::ReadGroup;
    message.c = 0;
    message.text_size = 0;
    if (!ask_next(message)) return all;
    all.push_back({read(message), static_cast<PlacementGroupState>(message.b)});
  }
}

Ref<void> PlacementGroup::ready() const {
  runtime::refuse_in_replay("methods that wait for placement groups");
  Process& process = runtime::require_process();
  if (id == 0) throw Error("the PlacementGroup is empty: it was default-constructed");
  wire::Message message;
  message.kind = wire::Kind::GroupReady;
  message.c = id;
  return Ref<void>::own(runtime::from_shm(process.take_hold(message)));
}

bool PlacementGroup::wait(std::optional<Duration> timeout) const {
  const Ref<void> granted = ready();
  if (!timeout) {
    get(granted);
    return true;
  }
  try {
    get(granted, *timeout);
    return true;
  } catch (const GetTimeoutError&) {
    return false;
  }
}

}  // namespace mobula
