// Decides how a policy gets better: evolution strategies with antithetic pairs.
//
// Each iteration plays 2 x pairs episodes with the policy moved along slices of one shared
// noise table, forwards and back; the better a direction ranks, the further the policy goes
// that way. A pair is known by (seed, iteration, pair) alone and the sum over pairs has one
// fixed tree shape, so the learning curve is the same bits for any number of workers.
//
//   snapshot --> play_pair(0..pairs-1) --> rank_directions --> sum_directions (leaves)
//       ^                                                          |
//       +---- Learner::apply <-- sum_in_tree(leaves, add) <--------+
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "environment.h"
#include "policy.h"

namespace rl_es {

struct Recipe {
  EnvironmentKind environment = EnvironmentKind::kHopper;
  std::uint64_t seed = 1;
  PolicyShape shape;
  std::int32_t pairs = 0;           // antithetic pairs each iteration
  float noise_scale = 0;            // standard deviation of a perturbation
  float step_size = 0;              // Adam's
  float weight_decay = 0;           // fraction of the weights that each step forgets
  std::uint32_t noise_floats = 0;   // size of the shared table
};

// What learns well on each environment, found by trying.
Recipe recipe_for(EnvironmentKind environment, std::uint64_t seed);

// Standard normal numbers, the same for the same seed.
void fill_noise(std::span<float> table, std::uint64_t seed);

// The slice of the table that is the direction of one pair.
std::span<const float> direction_of(const Recipe& recipe, std::span<const float> noise,
                                    int iteration, int pair);

struct Episode {
  double reward = 0;    // sum over the episode
  double distance = 0;  // metres forward
  std::int32_t steps = 0;      // control steps
  std::int32_t air_steps = 0;  // of them without any contact: hops
  bool fell = false;
};

// Sums over observations, from which means and spreads are made.
struct ObservationSums {
  double count = 0;
  std::vector<double> sum;
  std::vector<double> squares;
  void add(std::span<const float> observation);
  void add(const ObservationSums& other);
};

struct PairResult {
  std::int32_t pair = 0;
  Episode plus;
  Episode minus;
  ObservationSums seen;
};

// Plays one episode; adds what it saw to `seen` unless that is null.
Episode play_episode(Environment& environment, Policy& policy, std::uint64_t seed,
                     ObservationSums* seen);

PairResult play_pair(Environment& environment, const Recipe& recipe,
                     std::span<const float> snapshot, std::span<const float> noise, int iteration,
                     int pair);

// Plays the policy as it is, `episodes` times with seeds of their own.
std::vector<Episode> play_policy(Environment& environment, const PolicyShape& shape,
                                 std::span<const float> snapshot, std::uint64_t seed, int episodes);

// For each pair how far to go its way, in [-1, 1]: the difference of the centred ranks of
// its two rewards. Ranks and not rewards, so that one lucky episode cannot drag the policy.
std::vector<float> rank_directions(std::span<const PairResult> results);

inline constexpr int kPairsPerLeaf = 8;
constexpr int leaf_count(int pairs) { return (pairs + kPairsPerLeaf - 1) / kPairsPerLeaf; }

// Sum of weight x direction over the pairs of one leaf, in order.
std::vector<float> sum_directions(const Recipe& recipe, std::span<const float> noise,
                                  std::span<const float> rank_weights, int iteration, int leaf);

std::vector<float> add(std::span<const float> a, std::span<const float> b);

// Sums neighbours, level by level: the shape depends on the number of leaves only.
// T may be a value or a ref of one; plus(T, T) gives a T.
template <class T, class Plus>
T sum_in_tree(std::vector<T> level, Plus plus) {
  while (level.size() > 1) {
    std::vector<T> above;
    above.reserve((level.size() + 1) / 2);
    for (std::size_t i = 0; i + 1 < level.size(); i += 2)
      above.push_back(plus(level[i], level[i + 1]));
    if (level.size() % 2 == 1) above.push_back(level.back());
    level = std::move(above);
  }
  return level.front();
}

// Keeps the weights, Adam's moments and the statistics of observations.
class Learner {
 public:
  explicit Learner(const Recipe& recipe);

  // direction_sum: the sum over all pairs. Returns the next snapshot.
  std::vector<float> apply(std::span<const float> direction_sum, const ObservationSums& seen);

  std::vector<float> snapshot() const;

 private:
  Recipe recipe_;
  std::vector<float> weights_;
  std::vector<float> first_moment_;
  std::vector<float> second_moment_;
  ObservationSums seen_;
  int steps_ = 0;
};

// What one iteration showed: a point of the learning curve.
struct IterationSummary {
  std::int32_t iteration = 0;
  double reward_mean = 0;    // over all perturbed episodes
  double reward_spread = 0;  // standard deviation
  double reward_best = 0;
  double reward_policy = 0;  // of the policy without noise, mean of its trials
  double distance = 0;       // metres, of the policy without noise
  std::int64_t control_steps = 0;
  std::int32_t shortest = 0;  // episode, control steps
  std::int32_t longest = 0;
};

IterationSummary summarise(int iteration, std::span<const PairResult> results,
                           std::span<const Episode> trials);

// The whole of it in one thread, an iteration at a time: what any parallel run must equal.
class SerialTraining {
 public:
  explicit SerialTraining(const Recipe& recipe);
  IterationSummary iterate();
  const std::vector<float>& snapshot() const { return snapshot_; }

 private:
  Recipe recipe_;
  Environment environment_;
  Learner learner_;
  std::vector<float> noise_;
  std::vector<float> snapshot_;
  int iteration_ = 0;
};

inline constexpr int kTrialEpisodes = 2;  // of the policy without noise, each iteration
std::uint64_t trial_seed(const Recipe& recipe, int iteration);

}  // namespace rl_es
