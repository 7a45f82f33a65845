// Estimates pi by throwing darts: many tasks throw, an actor collects and tells how far it is.
//
// Each task draws from a stream of its own, seeded by its number, so the estimate depends on
// the seed and the number of tasks only, and not on how many workers there are or who was first.
#include <mobula/mobula.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "number_options.h"

namespace {

class Progress {
 public:
  explicit Progress(long tasks) : tasks_(tasks) {}

  // The sums so far, for whoever asks.
  std::vector<long> report(long inside, long samples) {
    inside_ += inside;
    samples_ += samples;
    ++done_;
    return state();
  }
  std::vector<long> state() const { return {done_, tasks_, inside_, samples_}; }

 private:
  long tasks_;
  long done_ = 0;
  long inside_ = 0;
  long samples_ = 0;
};

// Throws darts at the unit square; the number within the quarter circle.
long throw_darts(long seed, long task, long samples, mobula::ActorHandle<Progress> progress) {
  std::seed_seq words{seed, task};
  std::mt19937_64 random(words);
  std::uniform_real_distribution<double> coordinate(0, 1);
  long inside = 0;
  for (long i = 0; i < samples; ++i) {
    const double x = coordinate(random);
    const double y = coordinate(random);
    inside += x * x + y * y <= 1;
  }
  progress.call<&Progress::report>(inside, samples);
  return inside;
}

double pi_of(long inside, long samples) {
  return 4.0 * static_cast<double>(inside) / static_cast<double>(samples);
}

}  // namespace

int main(int argc, char** argv) {
  long tasks = 64;
  long samples = 1'000'000;
  long seed = 1;
  parse_numbers(argc, argv,
                {{"--tasks", &tasks, 1, "tasks that throw darts"},
                 {"--samples", &samples, 1, "darts of each task"},
                 {"--seed", &seed, 0, "same seed, same estimate"}});
  const mobula::Session session(argc, argv);
  const auto start = std::chrono::steady_clock::now();

  const auto progress = mobula::actor<Progress>(tasks);
  std::vector<mobula::Ref<long>> darts;
  for (long task = 0; task < tasks; ++task) {
    darts.push_back(mobula::remote<throw_darts>(seed, task, samples, progress));
  }

  // Tasks report when they end; who wants to know asks the actor, and nobody waits for that.
  std::vector<mobula::Ref<long>> pending = darts;
  while (!pending.empty()) {
    auto [ready, rest] = mobula::wait(
        pending, {.num_returns = pending.size(), .timeout = std::chrono::milliseconds(200)});
    pending = std::move(rest);
    const std::vector<long> state = mobula::get(progress.call<&Progress::state>());
    if (state[3] > 0) {
      std::printf("%ld of %ld tasks: pi is about %.6f\n", state[0], state[1],
                  pi_of(state[2], state[3]));
      std::fflush(stdout);
    }
  }

  long inside = 0;
  for (const long hits : mobula::get(darts)) inside += hits;
  const double darts_thrown = static_cast<double>(tasks) * static_cast<double>(samples);
  const double pi = pi_of(inside, tasks * samples);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("pi = %.6f, %.6f away, standard error %.6f; %.0f million darts a second\n", pi,
              std::abs(pi - std::acos(-1.0)), 4 * std::sqrt(pi / 4 * (1 - pi / 4) / darts_thrown),
              darts_thrown / seconds / 1e6);
}
