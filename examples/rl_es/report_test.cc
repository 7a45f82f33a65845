#include "report.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace rl_es {
namespace {

TrainingReport small_report() {
  TrainingReport report;
  report.recipe.shape = {.observations = 1, .hidden = 0, .actions = 1};
  report.recipe.pairs = 4;
  report.workers = 2;
  report.seconds = 2;
  report.control_seconds = 0.01;
  report.physics_steps = 2;
  report.curve = {
      {.iteration = 0, .reward_mean = 0.1, .control_steps = 500, .shortest = 12, .longest = 80},
      {.iteration = 1, .reward_mean = 0.2, .control_steps = 700, .shortest = 20, .longest = 90}};
  report.best_snapshot = {0, 1, 0.5f, 0.25f};
  report.before = {{.distance = -0.5, .steps = 50, .fell = true}};
  report.after = {{.distance = 3, .steps = 100, .air_steps = 75},
                  {.distance = 5, .steps = 100, .air_steps = 25}};
  return report;
}

TEST_CASE("the summary tells distances, falls and steps as they were") {
  const std::string text = summary_text(small_report());

  for (const char* part :
       {"2 iterations", "-0.50 m forward in 0.5 s", "1 of 1 episodes end in a fall",
        "4.00 m forward in 1.0 s (3.00 to 5.00 m), 50 % of it in the air, 0 of 2 episodes",
        "episodes of 12 to 90 steps"}) {
    CAPTURE(part);
    CHECK(text.find(part) != text.npos);
  }
}

TEST_CASE("a report leaves five files, and its policy can be loaded") {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("rl_es-report-" + std::to_string(getpid()));
  write_report(folder / "inner", small_report());

  for (const char* name : {"learning_curve.svg", "learning_curve.png", "learning_curve.csv",
                           "policy.txt", "summary.txt"}) {
    CAPTURE(name);
    CHECK(std::filesystem::file_size(folder / "inner" / name) > 0);
  }
  CHECK(load_policy(folder / "inner" / "policy.txt").snapshot == small_report().best_snapshot);
  std::ifstream csv(folder / "inner" / "learning_curve.csv");
  const std::string text{std::istreambuf_iterator<char>(csv), {}};
  CHECK(text.find("\n0,0.10000000000000001,") != text.npos);
  std::filesystem::remove_all(folder);
}

TEST_CASE("a folder that cannot be made is an error that names it") {
  CHECK_THROWS_AS(write_report("/proc/no/such", small_report()), std::runtime_error);
}

}  // namespace
}  // namespace rl_es
