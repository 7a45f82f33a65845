// Training on Mobula: who plays which pair, and the tree that sums them.
#include "training.h"

#include <chrono>
#include <memory>
#include <unordered_map>

namespace rl_es {
namespace {

// Compiling a model costs more than a short episode: each worker process keeps the last one.
// An episode sees nothing of the episodes before it, so this is a cache and no state.
Environment& environment_here(EnvironmentKind kind) {
  static std::unique_ptr<Environment> kept;
  if (!kept || kept->kind() != kind) kept = std::make_unique<Environment>(kind);
  return *kept;
}

// Calls in flight for each worker: the next one is there when the first is done.
constexpr int kCallsAhead = 2;

}  // namespace

std::vector<Episode> play_trials(EnvironmentKind environment, const PolicyShape& shape,
                                 std::span<const float> snapshot, std::uint64_t seed,
                                 std::int32_t episodes) {
  return play_policy(environment_here(environment), shape, snapshot, seed, episodes);
}

PairResult play_pair_here(const Recipe& recipe, std::span<const float> snapshot,
                          std::span<const float> noise, std::int32_t iteration, std::int32_t pair) {
  return play_pair(environment_here(recipe.environment), recipe, snapshot, noise, iteration, pair);
}

Training::Training(const Recipe& recipe, int workers)
    : recipe_(recipe), task_workers_(workers - workers / 2) {
  std::vector<float> noise(recipe.noise_floats);
  fill_noise(noise, recipe.seed);
  noise_ = mobula::put(noise);
  snapshot_ = mobula::put(Learner(recipe).snapshot());
  best_snapshot_ = snapshot_;
  learner_ = mobula::actor<Learner>(recipe);
  for (int i = 0; i < workers / 2; ++i)
    simulators_.push_back(mobula::actor<Simulator>.with({.num_cpus = 1})(recipe));
}

IterationSummary Training::iterate(const std::function<void(int)>& tick) {
  mobula::Ref<std::vector<Episode>> trials;
  const std::vector<PairResult> results = play_all_pairs(tick, trials);

  ObservationSums seen;  // by pair, not by arrival: sums of doubles depend on their order
  for (const PairResult& result : results) seen.add(result.seen);
  const Floats next =
      learner_.call<&Learner::apply>(sum_of_directions(rank_directions(results)), seen);
  ++calls_;

  const IterationSummary summary = summarise(iteration_, results, mobula::get(trials));
  if (iteration_ == 0 || summary.reward_policy > best_reward_) {
    best_snapshot_ = snapshot_;
    best_reward_ = summary.reward_policy;
    best_distance_ = summary.distance;
  }
  snapshot_ = next;
  ++iteration_;
  return summary;
}

std::vector<PairResult> Training::play_all_pairs(const std::function<void(int)>& tick,
                                                 mobula::Ref<std::vector<Episode>>& trials) {
  // A lane is a simulator actor, or, as the last lane, all task workers together.
  const std::size_t task_lane = simulators_.size();
  std::vector<int> free_places(simulators_.size(), kCallsAhead);
  free_places.push_back(kCallsAhead * task_workers_);

  std::vector<PairResult> results(static_cast<std::size_t>(recipe_.pairs));
  std::vector<mobula::Ref<PairResult>> in_flight;
  std::unordered_map<mobula::Ref<PairResult>, std::size_t> lane_of;
  int next_pair = 0;
  int done = 0;
  while (done < recipe_.pairs) {
    for (std::size_t lane = 0; lane < free_places.size(); ++lane) {
      for (; free_places[lane] > 0 && next_pair < recipe_.pairs; --free_places[lane], ++next_pair) {
        const mobula::Ref<PairResult> result =
            lane == task_lane
                ? mobula::remote<play_pair_here>(recipe_, snapshot_, noise_, iteration_, next_pair)
                : simulators_[lane].call<&Simulator::play>(snapshot_, noise_, iteration_,
                                                           next_pair);
        in_flight.push_back(result);
        lane_of.emplace(result, lane);
        ++calls_;
      }
    }
    if (next_pair == recipe_.pairs &&
        !trials) {  // last, so that they fill the gap behind the slowest pairs
      trials = mobula::remote<play_trials>(recipe_.environment, recipe_.shape, snapshot_,
                                           trial_seed(recipe_, iteration_), kTrialEpisodes);
      ++calls_;
    }
    auto [ready, pending] = mobula::wait(in_flight, {.timeout = std::chrono::milliseconds(100)});
    for (const mobula::Ref<PairResult>& ref : ready) {
      PairResult result = mobula::get(ref);
      const auto pair = static_cast<std::size_t>(result.pair);
      results[pair] = std::move(result);
      ++free_places[lane_of.at(ref)];
      lane_of.erase(ref);
      ++done;
    }
    in_flight = std::move(pending);
    tick(done);
  }
  return results;
}

Floats Training::sum_of_directions(const std::vector<float>& rank_weights) {
  const Floats weights = mobula::put(rank_weights);
  std::vector<Floats> leaves;
  for (int leaf = 0; leaf < leaf_count(recipe_.pairs); ++leaf) {
    leaves.push_back(mobula::remote<sum_directions>(recipe_, noise_, weights, iteration_, leaf));
    ++calls_;
  }
  return sum_in_tree(std::move(leaves), [this](const Floats& a, const Floats& b) {
    ++calls_;
    return Floats(mobula::remote<add>(a, b));
  });
}

}  // namespace rl_es
