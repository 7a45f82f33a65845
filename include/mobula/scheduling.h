// Where a task or an actor may run: TaskOptions.scheduling and ActorOptions.scheduling. What can
// never be met on the nodes that there are throws UnschedulableError at the call.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>

namespace mobula {

struct PlacementGroup;

struct DefaultScheduling {};  // wherever there is room
struct SpreadScheduling {};  // over as many nodes as there are

// On one node (NodeInfo.node_id); soft: elsewhere when it does not exist.
struct NodeAffinity {
  std::string node_id = {};
  bool soft = false;
};

// On nodes that have all of the `hard` labels, if possible those with the `soft` ones. No node has
// labels yet, so that anything `hard` can never be met.
struct NodeLabel {
  std::map<std::string, std::string> hard = {};
  std::map<std::string, std::string> soft = {};
};

// In a placement group: with what its bundle keeps, and nothing else. What the task submits is
// outside of the group, unless it says so itself.
struct PlacementGroupScheduling {
  PlacementGroupScheduling(const PlacementGroup& group, int bundle = -1);

  std::uint64_t group_id;
  int bundle_index;  // from 0; -1: any that has room
};

using Scheduling = std::variant<DefaultScheduling, SpreadScheduling, NodeAffinity, NodeLabel,
                                PlacementGroupScheduling>;

}  // namespace mobula
