#include "node/actor_names.h"

namespace mobula::node {

std::optional<std::uint32_t> ActorNames::find(const ActorName& name) const {
  const auto it = actors_.find(name);
  return it == actors_.end() ? std::nullopt : std::optional(it->second);
}

void ActorNames::give(const ActorName& name, std::uint32_t actor) {
  if (const auto before = find(name)) forget(*before);
  forget(actor);
  actors_.emplace(name, actor);
  names_.emplace(actor, name);
}

void ActorNames::forget(std::uint32_t actor) {
  const auto it = names_.find(actor);
  if (it == names_.end()) return;
  actors_.erase(it->second);
  names_.erase(it);
}

}  // namespace mobula::node
