// rl_es: a program that simulates, trains and serves at once, on Mobula.
//
//   driver --rollouts--> task workers and Simulator actors --results, as they come--> driver
//   driver --ranks--> tree of sum tasks --> Learner actor --snapshot--> simulators, PolicyServer
//   client task <--actions-- PolicyServer actor
#include <mobula/mobula.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "live_display.h"
#include "options.h"
#include "report.h"
#include "serving.h"
#include "training.h"

namespace {

using namespace rl_es;

constexpr int kExitUsage = 2;
constexpr int kFinalEpisodes = 10;
constexpr std::uint64_t kFinalSeed = 0x51a7;  // starts that no training run draws from

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::string counted(int count, const char* noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string title_of(const Recipe& recipe, const Training& training) {
  return "rl_es: " + std::string(environment_name(recipe.environment)) + ", seed " +
         std::to_string(recipe.seed) + ", " + counted(training.task_workers(), "task worker") +
         " and " + counted(training.simulator_actors(), "simulator actor");
}

void train(const Options& options) {
  const Recipe recipe = recipe_for(options.environment, options.seed);
  const Environment sample(recipe.environment);
  TrainingReport report{.recipe = recipe,
                        .workers = options.workers,
                        .control_seconds = sample.control_seconds(),
                        .physics_steps = sample.physics_steps(),
                        .curve = {},
                        .best_snapshot = {},
                        .before = {},
                        .after = {},
                        .serving = {}};

  Training training(recipe, options.workers);
  const auto server = mobula::actor<PolicyServer>(recipe.shape, training.newest());
  ServingWatch serving(server, recipe.environment, recipe.seed);
  const Floats untrained = training.newest();

  LiveDisplay display(stdout);
  const Stopwatch watch;
  Progress progress{.title = title_of(recipe, training),
                    .latest = {},
                    .iterations = options.iterations,
                    .pairs = recipe.pairs,
                    .serving = {}};
  double control_steps = 0;
  const auto refresh = [&](int pairs_done) {
    serving.poll();
    progress.pairs_done = pairs_done;
    progress.seconds = watch.seconds();
    progress.serving = serving.figures();
    progress.tasks_per_second =
        static_cast<double>(training.calls() + progress.serving.requests) / progress.seconds;
    progress.physics_steps_per_second = control_steps * sample.physics_steps() / progress.seconds;
    if (progress.finished > 0) {
      progress.seconds_left =
          progress.seconds / progress.finished * (progress.iterations - progress.finished);
    }
    if (options.time_limit)
      progress.seconds_left =
          std::min(progress.seconds_left, *options.time_limit - progress.seconds);
  };

  while (training.iteration() < options.iterations &&
         watch.seconds() < options.time_limit.value_or(1e18)) {
    progress.latest = training.iterate([&](int pairs_done) {
      refresh(pairs_done);
      display.tick(progress);
    });
    server.call<&PolicyServer::use>(training.newest(), training.iteration());
    report.curve.push_back(progress.latest);
    control_steps += static_cast<double>(progress.latest.control_steps);
    progress.finished = training.iteration();
    progress.best_policy_reward = training.best_reward();
    progress.best_distance = training.best_distance();
    refresh(0);
    display.iteration_finished(progress);
  }
  report.seconds = watch.seconds();
  report.calls = training.calls() + serving.figures().requests;
  serving.finish();

  const auto play = [&](const Floats& snapshot) {
    return mobula::remote<play_trials>(recipe.environment, recipe.shape, snapshot, kFinalSeed,
                                       kFinalEpisodes);
  };
  const auto before = play(untrained);
  const auto after = play(training.best());
  report.before = mobula::get(before);
  report.after = mobula::get(after);
  report.best_snapshot = mobula::get(training.best());
  report.serving = serving.figures();
  report.served_version = serving.newest_version();
  write_report(options.output, report);
  std::printf("\n%s  files     learning_curve.svg, .png, .csv, policy.txt and summary.txt in %s\n",
              summary_text(report).c_str(), options.output.c_str());
}

void play(const Options& options) {
  const SavedPolicy saved = load_policy(options.play);
  Environment environment(environment_kind(saved.environment));
  const PolicyShape& shape = saved.shape;
  if (shape.observations != environment.observation_size() ||
      shape.actions != environment.action_size()) {
    throw std::runtime_error(options.play.string() + " was trained on another model of the " +
                             saved.environment);
  }
  const std::vector<Episode> episodes =
      play_policy(environment, shape, saved.snapshot, options.seed, kFinalEpisodes);
  std::printf("%s: %s\n", saved.environment.c_str(),
              describe(episodes, environment.control_seconds()).c_str());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  try {
    options = parse_options({argv + 1, static_cast<std::size_t>(argc - 1)});
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "rl_es: %s\n", error.what());
    return kExitUsage;
  }
  if (options.help) {
    std::fputs(help_text().c_str(), stdout);
    return 0;
  }
  try {
    if (!options.play.empty()) {
      play(options);
      return 0;
    }
    make_folder(options.output);  // before the work, not after it, is the time to hear that it
                                  // cannot be written
    // A worker process gets here with the same arguments, and no further.
    mobula::Session session(argc, argv, {.num_cpus = static_cast<double>(options.workers)});
    train(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rl_es: %s\n", error.what());
    return 1;
  }
}
