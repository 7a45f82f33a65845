// What an actor is found by.
#pragma once

#include <compare>
#include <string>

namespace mobula::core {

struct ActorName {
  std::string namespace_;
  std::string name;
  friend auto operator<=>(const ActorName&, const ActorName&) = default;

  // For messages: "a" in the namespace "b"
  std::string quoted() const { return "\"" + name + "\" in the namespace \"" + namespace_ + "\""; }
};

}  // namespace mobula::core
