// Decides which process does what in training: rollouts as tasks and as calls of simulator
// actors, side by side; sums as a tree of tasks; the step in a learner actor.
//
// The noise table and each policy are objects of the store that all of them read in place.
// What a rollout gives depends on its (iteration, pair) only, never on who plays it, so
// that work may go to whoever is free.
#pragma once

#include <mobula/mobula.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "es.h"

namespace rl_es {

// A task: plays the policy as it is, in this worker's own simulation.
std::vector<Episode> play_trials(EnvironmentKind environment, const PolicyShape& shape,
                                 std::span<const float> snapshot, std::uint64_t seed,
                                 std::int32_t episodes);

// A task: one antithetic pair, in this worker's own simulation.
PairResult play_pair_here(const Recipe& recipe, std::span<const float> snapshot,
                          std::span<const float> noise, std::int32_t iteration, std::int32_t pair);

// The same as an actor that keeps its model.
class Simulator {
 public:
  explicit Simulator(const Recipe& recipe) : recipe_(recipe), environment_(recipe.environment) {}
  PairResult play(std::span<const float> snapshot, std::span<const float> noise,
                  std::int32_t iteration, std::int32_t pair) {
    return play_pair(environment_, recipe_, snapshot, noise, iteration, pair);
  }

 private:
  Recipe recipe_;
  Environment environment_;
};

using Floats = mobula::Ref<std::vector<float>>;

class Training {
 public:
  // workers: CPUs to simulate on; half of them are given to simulator actors, rounded down.
  Training(const Recipe& recipe, int workers);

  // One step of learning. tick(pairs_done) is called as results come in and at least ten times a
  // second.
  IterationSummary iterate(const std::function<void(int)>& tick);

  int iteration() const { return iteration_; }
  int simulator_actors() const { return static_cast<int>(simulators_.size()); }
  int task_workers() const { return task_workers_; }
  std::int64_t calls() const { return calls_; }  // tasks and actor calls so far

  const Floats& newest() const { return snapshot_; }

  // The policy whose trials were best, and their figures.
  const Floats& best() const { return best_snapshot_; }
  double best_reward() const { return best_reward_; }
  double best_distance() const { return best_distance_; }

 private:
  std::vector<PairResult> play_all_pairs(const std::function<void(int)>& tick,
                                         mobula::Ref<std::vector<Episode>>& trials);
  Floats sum_of_directions(const std::vector<float>& rank_weights);

  Recipe recipe_;
  int task_workers_;
  std::vector<mobula::ActorHandle<Simulator>> simulators_;
  mobula::ActorHandle<Learner> learner_;
  Floats noise_;
  Floats snapshot_;
  Floats best_snapshot_;
  double best_reward_ = 0;
  double best_distance_ = 0;
  int iteration_ = 0;
  std::int64_t calls_ = 0;
};

}  // namespace rl_es
