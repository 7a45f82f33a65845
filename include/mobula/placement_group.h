// Placement groups: resources that are taken all at once, and kept for tasks and actors that name
// the group.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mobula/options.h"
#include "mobula/ref.h"

namespace mobula {

// Where the bundles go: as near to each other as possible, or as far apart. The strict ones go
// there or nowhere: all on one node, or each on a node of its own.
enum class Strategy : std::uint32_t { Pack, Spread, StrictPack, StrictSpread };

// What one bundle keeps: "CPU", "GPU", "memory" (bytes), the user's own.
using Bundle = std::map<std::string, double>;

// A handle; a value, too: it can be an argument, so that a task submits others into its group.
struct PlacementGroup {
  std::uint64_t id = 0;  // 0: none
  std::string name = {};
  std::vector<Bundle> bundles = {};
  Strategy strategy = Strategy::Pack;

  // Ready when the group has its resources; has PlacementGroupRemovedError if it is removed before
  // that. Throws PlacementGroupRemovedError.
  Ref<void> ready() const;
  // True: it has them. False: not within the timeout (absent: for ever). Throws like get(ready()).
  bool wait(std::optional<Duration> timeout = {}) const;
};

struct PlacementGroupOptions {
  std::string name = {};  // for get_placement_group, up to 100 bytes; one group has it at a time
};

// Asks for all of `bundles` at once, and returns: tasks and actors of the group wait until it has
// them, in one line with actors, and as long as it is there it keeps them. It ends with the
// session, or when it is removed. On the one node that there is today all strategies mean the same,
// but StrictSpread, which takes one bundle.
//
// Throws UnschedulableError: the bundles can never be had here. Throws Error: there is no bundle,
// an empty one, or another group of that name.
PlacementGroup placement_group(std::vector<Bundle> bundles, Strategy strategy = Strategy::Pack,
                               PlacementGroupOptions options = {});

// Ends the group, whether it has its resources or still waits for them. Its tasks that have not
// ended fail with PlacementGroupRemovedError, those that run with their processes; its actors die
// (DeathReason::PlacementGroupRemoved). When these processes are gone, others get the resources.
// Nothing happens if it was removed before.
void remove_placement_group(const PlacementGroup& group);

// Throws Error: no group has this name now.
PlacementGroup get_placement_group(std::string_view name);

enum class PlacementGroupState : std::uint32_t { Pending, Created, Removed };
struct PlacementGroupInfo {
  PlacementGroup group;
  PlacementGroupState state = PlacementGroupState::Pending;
};
// All of this session in the order of their making; of those that were removed, the last hundred.
std::vector<PlacementGroupInfo> placement_groups();

inline PlacementGroupScheduling::PlacementGroupScheduling(const PlacementGroup& group, int bundle)
    : group_id(group.id), bundle_index(bundle) {}

}  // namespace mobula
