// Decides what amounts are called that a placement group keeps for its own.
//
// A group demands the sum of its bundles from the node, all at once. When it has that, it offers
// the same amounts under names of its own: "CPU" of bundle 1 of group 7, and "CPU" of all bundles
// of group 7 together. A demand for bundle 1 takes from both, one for any bundle from the latter.
// So nobody gets more than the group has, nobody outside of it gets anything of that, and the rules
// that share out a node share out a group as well.
//
// Besides, each of its tasks and actors demands a little of one name that only the group offers: so
// those that demand nothing wait for the group, too.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/resources.h"

namespace mobula::core {

using Bundles = std::vector<ResourceAmounts>;

ResourceAmounts sum_of(const Bundles& bundles);
ResourceAmounts offer_of(std::uint32_t group, const Bundles& bundles);
ResourceAmounts demand_in(std::uint32_t group, std::optional<std::uint32_t> bundle,
                          const ResourceAmounts& demand);

// "CPU" of the node's and of any group's; empty for the name that all in a group demand.
std::string_view resource_of(std::string_view name);
bool is_of_group(std::string_view name);
// Without what groups offer.
ResourceAmounts of_node(const ResourceAmounts& amounts);
// "CPU 2", "CPU 2 of bundle 1"
std::string describe_amount(std::string_view name, std::int64_t units);

}  // namespace mobula::core
