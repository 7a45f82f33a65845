// Actor-critic with a replay buffer: balancing a pole on a cart.
//
// Simulating actors play the newest policy and send what they saw to the buffer, an actor, from
// which the learner, another one, gets samples. Nothing comes to the driver, which only says who
// gets whose result. The learner puts its weights into the store once in each round, and all
// simulators read them there. It keeps its state in checkpoints and replays the calls after them:
// with --crash N its process dies N times on the way, and the curve is the same.
#include <mobula/mobula.h>

#include <unistd.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

#include "number_options.h"

namespace {

using State = std::array<double, 4>;  // place, speed, angle, speed of the angle
using Weights = std::vector<double>;  // the policy's, one for each number of the state
using WeightsRef = mobula::Ref<Weights>;

struct Step {
  State before = {};
  State after = {};
  double push = 0;  // the probability of the action that was taken
  bool right = false;
  bool fell = false;
};
struct Episodes {
  std::vector<Step> steps;
  double mean_length = 0;
};

constexpr int kLongest = 200;  // steps of an episode

// Cart and pole after 20 ms, by Euler's method: 1 kg, 0.1 kg, half a metre, pushed by 10 N.
State simulate(const State& s, bool right) {
  const double sine = std::sin(s[2]);
  const double cosine = std::cos(s[2]);
  const double pulled = ((right ? 10 : -10) + 0.05 * s[3] * s[3] * sine) / 1.1;
  const double turned =
      (9.8 * sine - cosine * pulled) / (0.5 * (4.0 / 3 - 0.1 * cosine * cosine / 1.1));
  const double moved = pulled - 0.05 * turned * cosine / 1.1;
  return {s[0] + 0.02 * s[1], s[1] + 0.02 * moved, s[2] + 0.02 * s[3], s[3] + 0.02 * turned};
}

double chance_of_right(std::span<const double> weights, const State& s) {
  double sum = 0;
  for (std::size_t i = 0; i < s.size(); ++i) sum += weights[i] * s[i];
  return 1 / (1 + std::exp(-sum));
}

class Simulator {
 public:
  explicit Simulator(unsigned seed) : random_(seed) {}

  // Takes the ref itself, since it looks at the weights where they lie.
  Episodes play(const WeightsRef& policy, int episodes) {
    const mobula::View<double> weights = mobula::get_view(policy);
    std::uniform_real_distribution<double> unit;
    Episodes seen;
    for (int i = 0; i < episodes; ++i) {
      State s;
      for (double& x : s) x = 0.1 * unit(random_) - 0.05;
      for (int n = 0; n < kLongest; ++n) {
        const double chance = chance_of_right({weights.begin(), weights.end()}, s);
        const bool right = unit(random_) < chance;
        const State after = simulate(s, right);
        const bool fell = std::abs(after[0]) > 2.4 || std::abs(after[2]) > 0.21;
        seen.steps.push_back({s, after, right ? chance : 1 - chance, right, fell});
        if (fell) break;
        s = after;
      }
    }
    seen.mean_length = static_cast<double>(seen.steps.size()) / episodes;
    return seen;
  }

 private:
  std::mt19937 random_;
};

class ReplayBuffer {
 public:
  ReplayBuffer(std::size_t capacity, unsigned seed) : capacity_(capacity), random_(seed) {}
  double add(const Episodes& episodes) {
    for (const Step& step : episodes.steps) {
      if (steps_.size() < capacity_)
        steps_.push_back(step);
      else
        steps_[next_++ % capacity_] = step;  // in place of the oldest
    }
    return episodes.mean_length;
  }
  std::vector<Step> sample(std::size_t n) {
    std::vector<Step> some;
    for (std::size_t i = 0; i < n; ++i) some.push_back(steps_[random_() % steps_.size()]);
    return some;
  }

 private:
  std::size_t capacity_;
  std::size_t next_ = 0;
  std::mt19937 random_;
  std::vector<Step> steps_;
};

// An aggregate, so it can be saved as it is.
struct Learner {
  Weights policy = Weights(4);
  std::vector<double> critic = std::vector<double>(11);

  WeightsRef weights() { return mobula::put(policy); }

  WeightsRef learn(const std::vector<Step>& steps) {
    for (const Step& step : steps) {
      const double now = chance_of_right(policy, step.before);
      const double ratio = std::min(2.0, (step.right ? now : 1 - now) / step.push);
      const double error =
          (step.fell ? -1 : 0.97 * value(step.after)) - value(step.before);  // falling costs 1
      const auto features = features_of(step.before);
      for (std::size_t i = 0; i < critic.size(); ++i)
        critic[i] += 0.05 * ratio * error * features[i];
      const double slope = (step.right ? 1 : 0) - now;
      for (std::size_t i = 0; i < policy.size(); ++i)
        policy[i] += 0.5 * ratio * error * slope * step.before[i];
    }
    return mobula::put(policy);
  }

  int process() const { return ::getpid(); }

  static std::array<double, 11> features_of(const State& s) {
    const State x{s[0] / 2.4, s[1] / 2, s[2] / 0.21, s[3] / 2};
    std::array<double, 11> features{1};
    std::size_t at = 1;
    for (std::size_t i = 0; i < x.size(); ++i)
      for (std::size_t j = i; j < x.size(); ++j) features[at++] = x[i] * x[j];
    return features;
  }
  double value(const State& s) const {
    double sum = 0;
    const auto features = features_of(s);
    for (std::size_t i = 0; i < critic.size(); ++i) sum += critic[i] * features[i];
    return sum;
  }
};

}  // namespace

int main(int argc, char** argv) {
  long rounds = 40;
  long simulators = 3;
  long crashes = 0;
  long seed = 1;
  parse_numbers(argc, argv,
                {{"--rounds", &rounds, 1, "of playing and learning"},
                 {"--simulators", &simulators, 1, "actors that play"},
                 {"--crash", &crashes, 0, "times that the learner's process is killed"},
                 {"--seed", &seed, 0, "same seed, same curve"}});
  const mobula::Session session(argc, argv);

  std::vector<unsigned> seeds;
  for (long i = 0; i < simulators; ++i) seeds.push_back(static_cast<unsigned>(1000 * seed + i));
  const auto players = mobula::mesh<Simulator>(seeds.size(), mobula::each(seeds));
  const auto buffer = mobula::actor<ReplayBuffer>(std::size_t{20'000}, static_cast<unsigned>(seed));
  const auto learner = mobula::actor<Learner>.with(
      {.max_restarts = -1, .recovery = mobula::Recovery::Replay, .checkpoint_every = 10})();

  mobula::Ref<WeightsRef> newest = learner.call<&Learner::weights>();
  std::vector<mobula::Ref<double>> lengths;
  const long period = std::max(1L, rounds / (crashes + 1));  // of the crashes, if any
  for (long round = 0; round < rounds; ++round) {
    const auto episodes = players.call<&Simulator::play>(newest, 5);
    for (std::size_t i = 0; i < seeds.size(); ++i)
      lengths.push_back(buffer.call<&ReplayBuffer::add>(episodes[i]));
    newest = learner.call<&Learner::learn>(buffer.call<&ReplayBuffer::sample>(std::size_t{2000}));
    if (round % period == period - 1 && round / period < crashes) {
      ::kill(mobula::get(learner.call<&Learner::process>()), SIGKILL);
    }
  }

  for (std::size_t round = 0; round < static_cast<std::size_t>(rounds); ++round) {
    double length = 0;
    for (std::size_t i = 0; i < seeds.size(); ++i)
      length += mobula::get(lengths[round * seeds.size() + i]);
    std::printf("round %zu: the pole stands %.1f steps\n", round + 1,
                length / static_cast<double>(seeds.size()));
  }
}
