// Which actor has which name.
//
// A name belongs to at most one actor at a time: from the call that creates the actor until the
// actor is dead, or is certain to die and cannot be found any more. Pure bookkeeping; the caller
// knows who lives.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "core/actor_name.h"

namespace mobula::node {

using core::ActorName;

class ActorNames {
 public:
  std::optional<std::uint32_t> find(const ActorName& name) const;
  // The name is this actor's from now on, whoever had it before.
  void give(const ActorName& name, std::uint32_t actor);
  // The actor has no name any more; it may have had none, or lost it.
  void forget(std::uint32_t actor);
  // Ordered by namespace, then name.
  const std::map<ActorName, std::uint32_t>& all() const { return actors_; }

 private:
  std::map<ActorName, std::uint32_t> actors_;
  std::map<std::uint32_t, ActorName> names_;
};

}  // namespace mobula::node
