#include "core/resources.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace mobula::core {
namespace {

using Why = ResourceRefusal::Why;

ResourceAmounts amounts(const std::map<std::string, double>& ones) {
  return std::get<ResourceAmounts>(ResourceAmounts::parse(ones));
}

TEST_CASE("amounts are kept in whole 1/10000, so that ten tenths are one") {
  ResourceAmounts total;

  for (int i = 0; i < 10; ++i) total.add(amounts({{"CPU", 0.1}}));

  CHECK(total == amounts({{"CPU", 1}}));
  CHECK(total.units("CPU") == 10'000);
}

TEST_CASE("an amount that no node could honour is refused with its reason") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  struct Row {
    const char* name;
    std::string resource;
    double amount;
    Why why;
    std::string sentence;
  };
  const Row rows[] = {
      {"negative", "CPU", -1, Why::Negative, "CPU is -1, but an amount cannot be negative"},
      {"barely negative", "CPU", -1e-9, Why::Negative,
       "CPU is -1e-09, but an amount cannot be negative"},
      {"NaN", "GPU", std::nan(""), Why::NotANumber,
       "GPU is nan, but an amount must be a finite number"},
      {"infinite", "GPU", kInfinity, Why::Infinite,
       "GPU is inf, but an amount must be a finite number"},
      {"minus infinity", "GPU", -kInfinity, Why::Infinite,
       "GPU is -inf, but an amount must be a finite number"},
      {"too fine", "CPU", 0.00005, Why::TooFine,
       "CPU is 5e-05, but an amount cannot be finer than 0.0001"},
      {"too fine beside a one", "CPU", 1.00001, Why::TooFine,
       "CPU is 1.00001, but an amount cannot be finer than 0.0001"},
      {"too large", "memory", 2e14, Why::TooLarge,
       "memory is 2e+14, but an amount cannot be above 1e14"},
      {"no name", "", 1, Why::EmptyName, "a resource of amount 1 has no name"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const auto parsed = ResourceAmounts::parse({{row.resource, row.amount}});
    const auto* refusal = std::get_if<ResourceRefusal>(&parsed);
    REQUIRE(refusal != nullptr);
    CHECK(refusal->why == row.why);
    CHECK(refusal->describe() == row.sentence);
  }
}

TEST_CASE("amounts that a double can only nearly say are accepted") {
  const std::pair<double, std::int64_t> rows[] = {
      {0.0001, 1},
      {0.1, 1'000},
      {0.3, 3'000},
      {1.0 / 3, -1},
      {12345.6789, 123'456'789},
      {0.1 + 0.2, 3'000},
      {1e9 + 0.1, 10'000'000'001'000},
      {1e14, 1'000'000'000'000'000'000},
  };
  for (const auto& [ones, units] : rows) {
    CAPTURE(ones);
    const auto parsed = ResourceAmounts::parse({{"CPU", ones}});
    if (units < 0) {
      CHECK(std::holds_alternative<ResourceRefusal>(parsed));
    } else {
      REQUIRE(std::holds_alternative<ResourceAmounts>(parsed));
      CHECK(std::get<ResourceAmounts>(parsed).units("CPU") == units);
    }
  }
}

TEST_CASE("zero of a resource is the same as not naming it") {
  CHECK(amounts({{"CPU", 0}, {"GPU", -0.0}}) == ResourceAmounts{});
  CHECK(amounts({{"CPU", 0}}).empty());
  CHECK(ResourceAmounts{}.contains(amounts({{"GPU", 0}})));
}

TEST_CASE("a demand fits only where every named resource suffices") {
  const ResourceAmounts node = amounts({{"CPU", 2}, {"GPU", 0.5}});

  CHECK(node.contains(amounts({{"CPU", 2}, {"GPU", 0.5}})));
  CHECK(node.contains({}));
  CHECK_FALSE(node.contains(amounts({{"CPU", 2.0001}})));
  CHECK_FALSE(node.contains(amounts({{"CPU", 1}, {"fish", 1}})));
  CHECK(node.first_lack(amounts({{"CPU", 3}, {"GPU", 1}})) == "CPU");
  CHECK(node.first_lack(amounts({{"CPU", 2}, {"GPU", 1}})) == "GPU");
}

TEST_CASE("what is free may fall below zero, and then holds no one back who wants none of it") {
  ResourceAmounts free = amounts({{"CPU", 1}, {"GPU", 1}});

  free.subtract(amounts({{"CPU", 2}}));

  CHECK(free.units("CPU") == -10'000);
  CHECK(free.contains(amounts({{"GPU", 1}})));
  CHECK_FALSE(free.contains(amounts({{"CPU", 0.0001}})));
  free.add(amounts({{"CPU", 2}}));
  CHECK(free == amounts({{"CPU", 1}, {"GPU", 1}}));
}

TEST_CASE("sums at the limits of int64 stop there") {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  ResourceAmounts amount = ResourceAmounts::from_units({{"CPU", kMost}});

  amount.add(ResourceAmounts::from_units({{"CPU", 1}}));
  CHECK(amount.units("CPU") == kMost);

  amount = ResourceAmounts::from_units({{"CPU", -kMost}});
  amount.subtract(ResourceAmounts::from_units({{"CPU", 2}}));
  CHECK(amount.units("CPU") == std::numeric_limits<std::int64_t>::min());
  CHECK(amount.describe() == "CPU -922337203685477.5808");
}

TEST_CASE("amounts are described as users write them") {
  CHECK(amounts({{"GPU", 0.5}, {"CPU", 2}}).describe() == "CPU 2, GPU 0.5");
  CHECK(amounts({{"CPU", 0.0001}}).describe() == "CPU 0.0001");
  CHECK(amounts({{"CPU", 10.05}}).describe() == "CPU 10.05");
  CHECK(ResourceAmounts{}.describe() == "nothing");
}

}  // namespace
}  // namespace mobula::core
