#include "environment.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace rl_es {
namespace {

std::vector<float> sizes_of_action(const Environment& environment, float value) {
  return std::vector<float>(static_cast<std::size_t>(environment.action_size()), value);
}

std::vector<double> rewards_of(Environment& environment, std::uint64_t seed, float action,
                               int steps_max) {
  std::vector<double> rewards;
  environment.reset(seed);
  for (int i = 0; i < steps_max; ++i) {
    const StepOutcome outcome = environment.step(sizes_of_action(environment, action));
    rewards.push_back(outcome.reward);
    if (outcome.done) break;
  }
  return rewards;
}

TEST_CASE("an episode depends on its seed and actions, not on the episodes before it") {
  Environment fresh(EnvironmentKind::kHopper);
  Environment used(EnvironmentKind::kHopper);
  rewards_of(used, 3, -0.9f, 200);

  const std::vector<double> expected = rewards_of(fresh, 11, 0.3f, 200);

  CHECK(rewards_of(used, 11, 0.3f, 200) == expected);
  CHECK(rewards_of(used, 12, 0.3f, 200) != expected);
}

TEST_CASE("a hopper that does nothing falls, and is not paid for falling") {
  Environment hopper(EnvironmentKind::kHopper);

  const std::vector<double> rewards = rewards_of(hopper, 1, 0, kEpisodeSteps);

  CHECK(rewards.size() > 10);
  CHECK(rewards.size() < kEpisodeSteps);
  CHECK(rewards.back() == 0);
  CHECK(std::abs(hopper.distance()) < 1);
}

TEST_CASE("actions out of range count as the nearest in range, NaN as none") {
  Environment hopper(EnvironmentKind::kHopper);

  const std::vector<double> full = rewards_of(hopper, 1, 1, 5);
  const std::vector<double> none = rewards_of(hopper, 1, 0, 5);

  CHECK(rewards_of(hopper, 1, 40, 5) == full);
  CHECK(rewards_of(hopper, 1, std::numeric_limits<float>::infinity(), 5) == full);
  CHECK(rewards_of(hopper, 1, std::numeric_limits<float>::quiet_NaN(), 5) == none);
  CHECK(full != none);
}

TEST_CASE("observations hide where the hopper is and hold its speed within bounds") {
  Environment hopper(EnvironmentKind::kHopper);
  hopper.reset(4);

  std::vector<float> observation(static_cast<std::size_t>(hopper.observation_size()), 99);
  hopper.observe(observation);

  CHECK(hopper.observation_size() == 11);
  CHECK(hopper.action_size() == 3);
  for (const float value : observation) CHECK(std::abs(value) <= 10);
}

TEST_CASE("the humanoid is the one of libmujoco-samples, or the error names that package") {
  try {
    Environment humanoid(EnvironmentKind::kHumanoid);
    CHECK(humanoid.observation_size() == 53);
    CHECK(humanoid.action_size() == 21);
    CHECK(rewards_of(humanoid, 1, 0, kEpisodeSteps).size() > 10);
  } catch (const std::runtime_error& error) {
    CHECK(std::string(error.what()).find("libmujoco-samples") != std::string::npos);
  }
}

TEST_CASE("environments are known by name, and an unknown one says which there are") {
  CHECK(environment_kind("hopper") == EnvironmentKind::kHopper);
  CHECK(environment_kind("humanoid") == EnvironmentKind::kHumanoid);
  CHECK(environment_name(EnvironmentKind::kHumanoid) == "humanoid");
  CHECK_THROWS_WITH_AS(environment_kind("walker"),
                       "no environment 'walker': there are hopper and humanoid",
                       std::invalid_argument);
}

}  // namespace
}  // namespace rl_es
