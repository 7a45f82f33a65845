#include "core/spill_plan.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>

namespace mobula::core {
namespace {

using Use = SpillPlan::Use;
using Extents = std::vector<ExtentNumber>;

// How extents are used, as the caller would tell: asking for `Lately` makes it `None`.
struct Uses {
  std::map<ExtentNumber, Use> of;
  Use operator()(ExtentNumber extent) {
    const Use use = of[extent];
    if (use == Use::Lately) of[extent] = Use::None;
    return use;
  }
};

TEST_CASE("what came first leaves first, and only as much as is wanted") {
  SpillPlan plan;
  for (ExtentNumber e = 1; e <= 4; ++e) plan.arrived(e, 100);
  Uses uses;

  CHECK(plan.choose(150, std::ref(uses)) == Extents{1, 2});
  CHECK(plan.bytes() == 200);
  CHECK(plan.choose(1, std::ref(uses)) == Extents{3});
  CHECK(plan.choose(0, std::ref(uses)).empty());
  CHECK(plan.choose(1000, std::ref(uses)) == Extents{4});
  CHECK(plan.choose(1000, std::ref(uses)).empty());
}

TEST_CASE("what was used lately gets one more turn, and what is in use stays") {
  SpillPlan plan;
  for (ExtentNumber e = 1; e <= 4; ++e) plan.arrived(e, 100);
  Uses uses;
  uses.of = {{1, Use::Lately}, {2, Use::Now}};

  CHECK(plan.choose(200, std::ref(uses)) == Extents{3, 4});
  CHECK(plan.choose(200, std::ref(uses)) == Extents{1});
  CHECK(plan.bytes() == 100);
  uses.of[2] = Use::None;
  CHECK(plan.choose(200, std::ref(uses)) == Extents{2});
}

TEST_CASE("if all were used lately the oldest leaves") {
  SpillPlan plan;
  Uses uses;
  for (ExtentNumber e = 1; e <= 3; ++e) {
    plan.arrived(e, 100);
    uses.of[e] = Use::Lately;
  }

  CHECK(plan.choose(1, std::ref(uses)) == Extents{1});
}

TEST_CASE("a newcomer is met last") {
  SpillPlan plan;
  Uses uses;
  for (ExtentNumber e = 1; e <= 3; ++e) plan.arrived(e, 100);
  REQUIRE(plan.choose(100, std::ref(uses)) == Extents{1});

  plan.arrived(9, 100);

  CHECK(plan.choose(300, std::ref(uses)) == Extents{2, 3, 9});
}

TEST_CASE("what was freed is never chosen, wherever the hand stands") {
  SpillPlan plan;
  Uses uses;
  for (ExtentNumber e = 1; e <= 3; ++e) plan.arrived(e, 100);
  uses.of[1] = Use::Now;
  REQUIRE(plan.choose(100, std::ref(uses)) == Extents{2});

  plan.left(3);  // the hand is on it
  plan.left(7);  // never was there

  CHECK(plan.choose(1000, std::ref(uses)).empty());
  CHECK(plan.bytes() == 100);
}

TEST_CASE("random uses: nothing is chosen twice, in use, or unknown; bytes add up") {
  std::mt19937_64 random(7);
  SpillPlan plan;
  std::map<ExtentNumber, std::uint64_t> there;
  Uses uses;
  for (int step = 0; step < 20'000; ++step) {
    const auto e = static_cast<ExtentNumber>(random() % 50);
    switch (random() % 4) {
      case 0:
        there[e] = random() % 1000 + 1;
        plan.arrived(e, there[e]);
        break;
      case 1:
        there.erase(e);
        plan.left(e);
        break;
      case 2: uses.of[e] = static_cast<Use>(random() % 3); break;
      default: {
        const std::uint64_t wanted = random() % 2000;
        std::uint64_t got = 0;
        for (const ExtentNumber chosen : plan.choose(wanted, std::ref(uses))) {
          CHECK(there.contains(chosen));
          CHECK(uses.of[chosen] == Use::None);
          got += there[chosen];
          there.erase(chosen);
        }
        if (got < wanted) {
          for (const auto& [left, bytes] : there) CHECK(uses.of[left] == Use::Now);
        }
      }
    }
    std::uint64_t bytes = 0;
    for (const auto& [extent, size] : there) bytes += size;
    REQUIRE(plan.bytes() == bytes);
  }
}

}  // namespace
}  // namespace mobula::core
