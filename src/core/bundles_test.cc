#include "core/bundles.h"

#include <doctest/doctest.h>

namespace mobula::core {
namespace {

ResourceAmounts cpus(std::int64_t units) { return ResourceAmounts::from_units({{"CPU", units}}); }

TEST_CASE("a group demands the sum of its bundles, and offers it by bundle and as a whole") {
  const Bundles bundles = {cpus(10'000),
                           ResourceAmounts::from_units({{"CPU", 5'000}, {"GPU", 10'000}})};

  ResourceAmounts offer = offer_of(7, bundles);

  CHECK(sum_of(bundles) == ResourceAmounts::from_units({{"CPU", 15'000}, {"GPU", 10'000}}));
  CHECK(offer.contains(demand_in(7, 0, cpus(10'000))));
  CHECK_FALSE(offer.contains(demand_in(7, 1, cpus(10'000))));
  CHECK(offer.contains(demand_in(7, {}, cpus(15'000))));
  CHECK_FALSE(offer.contains(demand_in(7, {}, cpus(15'001))));
  CHECK_FALSE(offer.contains(demand_in(8, {}, cpus(1))));
  CHECK_FALSE(offer.contains(demand_in(7, 2, cpus(1))));
  CHECK(of_node(offer) == ResourceAmounts{});
}

TEST_CASE("what any bundle may serve is taken from what single bundles can") {
  const Bundles bundles = {cpus(10'000), cpus(10'000)};
  ResourceAmounts left = offer_of(7, bundles);

  left.subtract(demand_in(7, {}, cpus(15'000)));

  CHECK(left.contains(demand_in(7, 0, cpus(5'000))));
  CHECK_FALSE(left.contains(demand_in(7, 0, cpus(10'000))));
}

TEST_CASE("nobody outside of a group is given anything of it, and nothing demands nothing") {
  const ResourceAmounts offer = offer_of(7, {cpus(10'000)});

  CHECK_FALSE(offer.contains(cpus(1)));
  CHECK_FALSE(cpus(10'000).contains(demand_in(7, {}, {})));
  CHECK(offer.contains(demand_in(7, {}, {})));
}

TEST_CASE("amounts are described without the names that they have inside") {
  const ResourceAmounts demand = demand_in(7, 3, cpus(20'000));
  std::string all;
  for (const auto& [name, units] : demand.by_name()) {
    CHECK(is_of_group(name));
    if (!resource_of(name).empty()) all += describe_amount(name, units) + "; ";
  }

  CHECK(all == "CPU 2 of the group's bundles; CPU 2 of bundle 3; ");
  CHECK(describe_amount("CPU", 5'000) == "CPU 0.5");
}

}  // namespace
}  // namespace mobula::core
