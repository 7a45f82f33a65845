#include "es.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace rl_es {
namespace {

Recipe small_recipe(std::uint64_t seed) {
  Recipe recipe = recipe_for(EnvironmentKind::kHopper, seed);
  recipe.pairs = 20;  // three leaves, the last one short
  recipe.noise_floats = 1u << 16;
  return recipe;
}

PairResult rewarded(double plus, double minus) {
  PairResult result;
  result.plus.reward = plus;
  result.minus.reward = minus;
  return result;
}

TEST_CASE("noise has mean 0 and spread 1, no two neighbours alike, and is the same for a seed") {
  std::vector<float> noise(100'001);
  std::vector<float> again(noise.size());
  std::vector<float> other(noise.size());
  fill_noise(noise, 1);
  fill_noise(again, 1);
  fill_noise(other, 2);

  const auto count = static_cast<double>(noise.size());
  const double mean = std::accumulate(noise.begin(), noise.end(), 0.0) / count;
  double squares = 0;
  double neighbours = 0;
  for (std::size_t i = 0; i < noise.size(); ++i) {
    squares += static_cast<double>(noise[i]) * noise[i];
    if (i > 0) neighbours += static_cast<double>(noise[i]) * noise[i - 1];
  }

  CHECK(std::abs(mean) < 0.015);
  CHECK(std::abs(squares / count - 1) < 0.02);
  CHECK(std::abs(neighbours / count) < 0.015);
  CHECK(noise == again);
  CHECK(noise != other);
}

TEST_CASE("a pair's direction lies in the table and differs by iteration and pair") {
  const Recipe recipe = small_recipe(1);
  const std::vector<float> noise(recipe.noise_floats);
  const float* begin = noise.data();

  for (int pair = 0; pair < 500; ++pair) {
    const auto slice = direction_of(recipe, noise, 7, pair);
    CHECK(slice.size() == weight_count(recipe.shape));
    CHECK(slice.data() >= begin);
    CHECK(slice.data() + slice.size() <= begin + noise.size());
  }
  CHECK(direction_of(recipe, noise, 0, 1).data() != direction_of(recipe, noise, 1, 0).data());
}

TEST_CASE("ranks go from -1 to 1, equal rewards cancel, and size does not matter") {
  const std::vector<PairResult> results = {rewarded(1e9, -5), rewarded(3, 3), rewarded(-1, 4)};

  const std::vector<float> weights = rank_directions(results);

  REQUIRE(weights.size() == 3);
  CHECK(weights[0] == 1);
  CHECK(weights[1] == 0);
  CHECK(weights[2] == doctest::Approx(-0.6));  // ranks 1 and 4 of 0..5
}

TEST_CASE("the tree sums neighbours, and its shape hangs on the number of leaves only") {
  const auto join = [](const std::string& a, const std::string& b) { return "(" + a + b + ")"; };

  CHECK(sum_in_tree(std::vector<std::string>{"a"}, join) == "a");
  CHECK(sum_in_tree(std::vector<std::string>{"a", "b", "c"}, join) == "((ab)c)");
  CHECK(sum_in_tree(std::vector<std::string>{"a", "b", "c", "d", "e"}, join) == "(((ab)(cd))e)");
}

TEST_CASE("leaves and tree hold each pair once") {
  const Recipe recipe = small_recipe(3);
  std::vector<float> noise(recipe.noise_floats);
  fill_noise(noise, recipe.seed);
  std::vector<float> weights(static_cast<std::size_t>(recipe.pairs));
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i) / 7 - 1;

  std::vector<std::vector<float>> leaves;
  for (int leaf = 0; leaf < leaf_count(recipe.pairs); ++leaf)
    leaves.push_back(sum_directions(recipe, noise, weights, 2, leaf));
  const std::vector<float> sum =
      sum_in_tree(std::move(leaves), [](const auto& a, const auto& b) { return add(a, b); });

  std::vector<double> expected(weight_count(recipe.shape));
  for (int pair = 0; pair < recipe.pairs; ++pair) {
    const auto direction = direction_of(recipe, noise, 2, pair);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] += static_cast<double>(weights[static_cast<std::size_t>(pair)]) * direction[i];
    }
  }
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(static_cast<double>(sum[i]) == doctest::Approx(expected[i]).epsilon(1e-4));
}

TEST_CASE("the learner climbs a hill that only rewards can see") {
  // Reward: minus the squared distance of the weights to a target.
  Recipe recipe;
  recipe.shape = {.observations = 2, .hidden = 0, .actions = 1};
  recipe.pairs = 16;
  recipe.noise_scale = 0.1f;
  recipe.step_size = 0.05f;
  recipe.noise_floats = 4096;
  const std::vector<float> target = {0.8f, -0.5f, 0.3f};
  std::vector<float> noise(recipe.noise_floats);
  fill_noise(noise, 9);
  Learner learner(recipe);
  std::vector<float> snapshot = learner.snapshot();
  const auto off = [&](int i, float move) {
    const float gap =
        snapshot[static_cast<std::size_t>(4 + i)] + move - target[static_cast<std::size_t>(i)];
    return static_cast<double>(gap * gap);
  };
  const auto distance = [&] { return off(0, 0) + off(1, 0) + off(2, 0); };
  const double before = distance();

  for (int iteration = 0; iteration < 120; ++iteration) {
    std::vector<PairResult> results;
    for (int pair = 0; pair < recipe.pairs; ++pair) {
      const auto direction = direction_of(recipe, noise, iteration, pair);
      double plus = 0;
      double minus = 0;
      for (int i = 0; i < 3; ++i) {
        const float move = recipe.noise_scale * direction[static_cast<std::size_t>(i)];
        plus -= off(i, move);
        minus -= off(i, -move);
      }
      results.push_back(rewarded(plus, minus));
    }
    const std::vector<float> weights = rank_directions(results);
    std::vector<std::vector<float>> leaves;
    for (int leaf = 0; leaf < leaf_count(recipe.pairs); ++leaf) {
      leaves.push_back(sum_directions(recipe, noise, weights, iteration, leaf));
    }
    snapshot = learner.apply(
        sum_in_tree(std::move(leaves), [](const auto& a, const auto& b) { return add(a, b); }), {});
  }

  CHECK(before > 0.9);
  CHECK(distance() < 0.02);
}

TEST_CASE("observations are normalised by the mean and spread of all that was seen") {
  Recipe recipe;
  recipe.shape = {.observations = 1, .hidden = 0, .actions = 1};
  recipe.pairs = 1;
  recipe.noise_scale = 1;
  Learner learner(recipe);
  ObservationSums seen;
  seen.add(std::vector<float>{1});
  ObservationSums more;
  more.add(std::vector<float>{5});
  seen.add(more);

  const std::vector<float> snapshot = learner.apply(std::vector<float>(2), seen);

  CHECK(snapshot[0] == 3);
  CHECK(snapshot[1] == 0.5f);
}

TEST_CASE("playing the pairs in another order, in other simulations, gives the same bits") {
  const Recipe recipe = small_recipe(5);
  SerialTraining serial(recipe);
  const std::vector<float> first = Learner(recipe).snapshot();
  std::vector<float> noise(recipe.noise_floats);
  fill_noise(noise, recipe.seed);

  const IterationSummary expected = serial.iterate();
  Environment one(recipe.environment);
  Environment two(recipe.environment);
  std::vector<PairResult> results(static_cast<std::size_t>(recipe.pairs));
  for (int pair = recipe.pairs - 1; pair >= 0; --pair) {
    results[static_cast<std::size_t>(pair)] =
        play_pair(pair % 3 == 0 ? one : two, recipe, first, noise, 0, pair);
  }
  const auto trials = play_policy(two, recipe.shape, first, trial_seed(recipe, 0), kTrialEpisodes);
  const IterationSummary summary = summarise(0, results, trials);

  CHECK(summary.reward_mean == expected.reward_mean);
  CHECK(summary.reward_spread == expected.reward_spread);
  CHECK(summary.reward_policy == expected.reward_policy);
  CHECK(summary.control_steps == expected.control_steps);
}

TEST_CASE("a few iterations make the hopper better, and twice the same way") {
  SerialTraining training(small_recipe(2));
  SerialTraining again(small_recipe(2));
  std::vector<double> rewards;
  for (int i = 0; i < 12; ++i) {
    rewards.push_back(training.iterate().reward_mean);
    CHECK(again.iterate().reward_mean == rewards.back());
  }

  CHECK(training.snapshot() == again.snapshot());
  CHECK(rewards.back() > rewards.front() + 20);
}

}  // namespace
}  // namespace rl_es
