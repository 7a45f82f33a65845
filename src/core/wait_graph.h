// Decides whether some of those who wait can never go on, since they wait for each other.
//
// A node is a record that has not ended, or a thread that sleeps until records have. It goes on
// when enough of the nodes that it waits for do; one that waits for nothing, or of which nothing is
// known, does so by itself. So whatever the observer could not see, or did not follow, leads to no
// false alarm.
//
//   thread of A --> call of B --> thread of B --> call of A --> thread of A      (a circle)
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace mobula::core {

struct WaitNode {
  enum class Kind : std::uint8_t { Record, Thread };
  Kind kind = Kind::Record;
  std::uint64_t id = 0;  // packed address of a record; participant of a thread
  friend auto operator<=>(const WaitNode&, const WaitNode&) = default;
};

class WaitGraph {
 public:
  // `node` goes on when at least `needed` of `targets` do.
  void add(WaitNode node, std::vector<WaitNode> targets, std::size_t needed);
  // The same with all of them.
  void add(WaitNode node, std::vector<WaitNode> targets);
  [[nodiscard]] bool knows(WaitNode node) const { return waits_.contains(node); }
  [[nodiscard]] std::size_t size() const { return waits_.size(); }

  // Circles of nodes that can never go on: each waits for the next one, the last for the first. At
  // least one of each group that waits for itself; none if all can go on. Equal graphs give equal
  // circles.
  [[nodiscard]] std::vector<std::vector<WaitNode>> deadlocks() const;

 private:
  struct Wait {
    std::vector<WaitNode> targets;
    std::size_t needed;
  };
  // Those that can never go on, each with the first of its targets that cannot either.
  std::map<WaitNode, WaitNode> stuck() const;

  std::map<WaitNode, Wait> waits_;
};

}  // namespace mobula::core
