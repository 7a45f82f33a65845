// Noise, episodes, ranks, sums and the step. Every sum here has one order.
#include "es.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "random.h"

namespace rl_es {
namespace {

// What a seed is used for; part of every derived seed, so that no two uses share numbers.
enum Purpose : std::uint64_t { kNoise = 1, kSlice, kReset, kTrial };

constexpr float kFirstMomentKeep = 0.9f;
constexpr float kSecondMomentKeep = 0.99f;
constexpr float kTiny = 1e-8f;

void grow_and_add(std::vector<double>& into, const std::vector<double>& other) {
  into.resize(std::max(into.size(), other.size()));
  for (std::size_t i = 0; i < other.size(); ++i) into[i] += other[i];
}

}  // namespace

Recipe recipe_for(EnvironmentKind environment, std::uint64_t seed) {
  const Environment sample(environment);
  const auto shape = [&](std::int32_t hidden) {
    return PolicyShape{.observations = sample.observation_size(),
                       .hidden = hidden,
                       .actions = sample.action_size()};
  };
  if (environment == EnvironmentKind::kHumanoid) {
    return {.environment = environment,
            .seed = seed,
            .shape = shape(0),
            .pairs = 96,
            .noise_scale = 0.02f,
            .step_size = 0.02f,
            .weight_decay = 0.002f,
            .noise_floats = 4u << 20};
  }
  return {.environment = environment,
          .seed = seed,
          .shape = shape(16),
          .pairs = 40,
          .noise_scale = 0.1f,
          .step_size = 0.03f,
          .weight_decay = 0.001f,
          .noise_floats = 1u << 20};
}

void fill_noise(std::span<float> table, std::uint64_t seed) {
  RandomStream random(mix_seed({seed, kNoise}));
  for (std::size_t i = 0; i < table.size(); i += 2) {
    const std::uint64_t bits = random.next();
    // Box and Muller: 32 bits for the radius, in (0, 1], and 32 for the angle.
    const float chance = (static_cast<float>(bits >> 40) + 1.0f) * 0x1p-24f;
    const float angle =
        static_cast<float>(bits & 0xffffff) * (0x1p-24f * 2 * std::numbers::pi_v<float>);
    const float radius = std::sqrt(-2 * std::log(chance));
    table[i] = radius * std::cos(angle);
    if (i + 1 < table.size()) table[i + 1] = radius * std::sin(angle);
  }
}

std::span<const float> direction_of(const Recipe& recipe, std::span<const float> noise,
                                    int iteration, int pair) {
  const std::size_t size = weight_count(recipe.shape);
  const std::uint64_t draw = mix_seed({recipe.seed, kSlice, static_cast<std::uint64_t>(iteration),
                                       static_cast<std::uint64_t>(pair)});
  return noise.subspan(draw % (noise.size() - size + 1), size);
}

void ObservationSums::add(std::span<const float> observation) {
  sum.resize(observation.size());
  squares.resize(observation.size());
  for (std::size_t i = 0; i < observation.size(); ++i) {
    const double value = observation[i];
    sum[i] += value;
    squares[i] += value * value;
  }
  ++count;
}

void ObservationSums::add(const ObservationSums& other) {
  count += other.count;
  grow_and_add(sum, other.sum);
  grow_and_add(squares, other.squares);
}

Episode play_episode(Environment& environment, Policy& policy, std::uint64_t seed,
                     ObservationSums* seen) {
  std::vector<float> observation(static_cast<std::size_t>(environment.observation_size()));
  std::vector<float> action(static_cast<std::size_t>(environment.action_size()));
  Episode episode;
  environment.reset(seed);
  while (episode.steps < kEpisodeSteps && !episode.fell) {
    environment.observe(observation);
    if (seen) seen->add(observation);
    policy.act(observation, action);
    const StepOutcome outcome = environment.step(action);
    episode.reward += outcome.reward;
    episode.fell = outcome.done;
    ++episode.steps;
    if (environment.in_air()) ++episode.air_steps;
  }
  episode.distance = environment.distance();
  return episode;
}

PairResult play_pair(Environment& environment, const Recipe& recipe,
                     std::span<const float> snapshot, std::span<const float> noise, int iteration,
                     int pair) {
  const std::span<const float> direction = direction_of(recipe, noise, iteration, pair);
  // Both sides start alike: their difference is then the policy's doing, not the start's.
  const std::uint64_t seed = mix_seed({recipe.seed, kReset, static_cast<std::uint64_t>(iteration),
                                       static_cast<std::uint64_t>(pair)});
  PairResult result{.pair = pair, .plus = {}, .minus = {}, .seen = {}};
  for (const float side : {1.0f, -1.0f}) {
    Policy policy(recipe.shape, snapshot);
    policy.perturb(direction, side * recipe.noise_scale);
    (side > 0 ? result.plus : result.minus) = play_episode(environment, policy, seed, &result.seen);
  }
  return result;
}

std::vector<Episode> play_policy(Environment& environment, const PolicyShape& shape,
                                 std::span<const float> snapshot, std::uint64_t seed,
                                 int episodes) {
  Policy policy(shape, snapshot);
  std::vector<Episode> played;
  for (int i = 0; i < episodes; ++i) {
    played.push_back(play_episode(environment, policy,
                                  mix_seed({seed, static_cast<std::uint64_t>(i)}), nullptr));
  }
  return played;
}

std::vector<float> rank_directions(std::span<const PairResult> results) {
  std::vector<double> rewards;
  for (const PairResult& result : results) {
    rewards.push_back(result.plus.reward);
    rewards.push_back(result.minus.reward);
  }
  std::vector<std::size_t> order(rewards.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return rewards[a] < rewards[b]; });

  std::vector<float> rank(rewards.size());
  for (std::size_t first = 0; first < order.size();) {
    std::size_t end = first + 1;
    while (end < order.size() && rewards[order[end]] == rewards[order[first]]) ++end;
    const float shared =
        0.5f * static_cast<float>(first + end - 1);  // equal rewards get equal ranks
    for (std::size_t i = first; i < end; ++i) rank[order[i]] = shared;
    first = end;
  }
  std::vector<float> weights(results.size());
  const float last = static_cast<float>(rewards.size() - 1);
  for (std::size_t pair = 0; pair < weights.size(); ++pair)
    weights[pair] = (rank[2 * pair] - rank[2 * pair + 1]) / last;
  return weights;
}

std::vector<float> sum_directions(const Recipe& recipe, std::span<const float> noise,
                                  std::span<const float> rank_weights, int iteration, int leaf) {
  std::vector<float> sum(weight_count(recipe.shape));
  const int end = std::min((leaf + 1) * kPairsPerLeaf, static_cast<int>(rank_weights.size()));
  for (int pair = leaf * kPairsPerLeaf; pair < end; ++pair) {
    const std::span<const float> direction = direction_of(recipe, noise, iteration, pair);
    const float weight = rank_weights[static_cast<std::size_t>(pair)];
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weight * direction[i];
  }
  return sum;
}

std::vector<float> add(std::span<const float> a, std::span<const float> b) {
  std::vector<float> sum(a.begin(), a.end());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
  return sum;
}

Learner::Learner(const Recipe& recipe)
    : recipe_(recipe),
      weights_(weight_count(recipe.shape)),
      first_moment_(weights_.size()),
      second_moment_(weights_.size()) {}

std::vector<float> Learner::apply(std::span<const float> direction_sum,
                                  const ObservationSums& seen) {
  seen_.add(seen);
  ++steps_;
  const float first_bias = 1 - std::pow(kFirstMomentKeep, static_cast<float>(steps_));
  const float second_bias = 1 - std::pow(kSecondMomentKeep, static_cast<float>(steps_));
  const float per_pair = 1 / (static_cast<float>(recipe_.pairs) * recipe_.noise_scale);
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    const float gradient = direction_sum[i] * per_pair;
    first_moment_[i] += (1 - kFirstMomentKeep) * (gradient - first_moment_[i]);
    second_moment_[i] += (1 - kSecondMomentKeep) * (gradient * gradient - second_moment_[i]);
    const float direction =
        first_moment_[i] / first_bias / (std::sqrt(second_moment_[i] / second_bias) + kTiny);
    weights_[i] += recipe_.step_size * direction - recipe_.weight_decay * weights_[i];
  }
  return snapshot();
}

std::vector<float> Learner::snapshot() const {
  constexpr double kSpreadMin = 0.02;  // what hardly moves would otherwise be blown up
  const auto observations = static_cast<std::size_t>(recipe_.shape.observations);
  std::vector<float> snapshot(2 * observations);
  for (std::size_t i = 0; i < observations; ++i) {
    const double mean = seen_.count > 0 ? seen_.sum[i] / seen_.count : 0;
    const double variance = seen_.count > 0 ? seen_.squares[i] / seen_.count - mean * mean : 1;
    snapshot[i] = static_cast<float>(mean);
    snapshot[observations + i] =
        static_cast<float>(1 / std::max(std::sqrt(std::max(variance, 0.0)), kSpreadMin));
  }
  snapshot.insert(snapshot.end(), weights_.begin(), weights_.end());
  return snapshot;
}

IterationSummary summarise(int iteration, std::span<const PairResult> results,
                           std::span<const Episode> trials) {
  IterationSummary summary{.iteration = iteration};
  double sum = 0;
  double squares = 0;
  const auto count = [&](const Episode& episode) {
    sum += episode.reward;
    squares += episode.reward * episode.reward;
    if (summary.control_steps == 0) {
      summary.reward_best = episode.reward;
      summary.shortest = summary.longest = episode.steps;
    }
    summary.reward_best = std::max(summary.reward_best, episode.reward);
    summary.shortest = std::min(summary.shortest, episode.steps);
    summary.longest = std::max(summary.longest, episode.steps);
    summary.control_steps += episode.steps;
  };
  for (const PairResult& result : results) {
    count(result.plus);
    count(result.minus);
  }
  const double episodes = 2.0 * static_cast<double>(results.size());
  summary.reward_mean = sum / episodes;
  summary.reward_spread =
      std::sqrt(std::max(squares / episodes - summary.reward_mean * summary.reward_mean, 0.0));
  for (const Episode& trial : trials) {
    summary.reward_policy += trial.reward / static_cast<double>(trials.size());
    summary.distance += trial.distance / static_cast<double>(trials.size());
    summary.control_steps += trial.steps;
  }
  return summary;
}

std::uint64_t trial_seed(const Recipe& recipe, int iteration) {
  return mix_seed({recipe.seed, kTrial, static_cast<std::uint64_t>(iteration)});
}

SerialTraining::SerialTraining(const Recipe& recipe)
    : recipe_(recipe),
      environment_(recipe.environment),
      learner_(recipe),
      noise_(recipe.noise_floats),
      snapshot_(learner_.snapshot()) {
  fill_noise(noise_, recipe_.seed);
}

IterationSummary SerialTraining::iterate() {
  std::vector<PairResult> results;
  ObservationSums seen;
  for (int pair = 0; pair < recipe_.pairs; ++pair) {
    results.push_back(play_pair(environment_, recipe_, snapshot_, noise_, iteration_, pair));
    seen.add(results.back().seen);
  }
  const std::vector<Episode> trials = play_policy(environment_, recipe_.shape, snapshot_,
                                                  trial_seed(recipe_, iteration_), kTrialEpisodes);
  const IterationSummary summary = summarise(iteration_, results, trials);

  const std::vector<float> weights = rank_directions(results);
  std::vector<std::vector<float>> leaves;
  for (int leaf = 0; leaf < leaf_count(recipe_.pairs); ++leaf) {
    leaves.push_back(sum_directions(recipe_, noise_, weights, iteration_, leaf));
  }
  snapshot_ = learner_.apply(
      sum_in_tree(std::move(leaves), [](const auto& a, const auto& b) { return add(a, b); }), seen);
  ++iteration_;
  return summary;
}

}  // namespace rl_es
