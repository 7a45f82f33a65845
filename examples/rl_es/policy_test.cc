#include "policy.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace rl_es {
namespace {

std::filesystem::path scratch_file(const char* name) {
  return std::filesystem::temp_directory_path() /
         ("rl_es-" + std::to_string(getpid()) + "-" + name);
}

TEST_CASE("a linear policy is a matrix with a bias over normalised observations") {
  const PolicyShape shape{.observations = 2, .hidden = 0, .actions = 1};
  const std::vector<float> snapshot = {1, 0, 0.5f, 2, /*weights*/ 3, -1, 0.25f};
  Policy policy(shape, snapshot);
  std::vector<float> action(1);

  policy.act(std::vector<float>{5, 1}, action);

  CHECK(action[0] == 3 * (5 - 1) * 0.5f - 1 * 2 + 0.25f);
}

TEST_CASE("a hidden layer squeezes by tanh") {
  const PolicyShape shape{.observations = 1, .hidden = 1, .actions = 1};
  const std::vector<float> snapshot = {0, 1, /*hidden*/ 2, 0, /*action*/ 3, 1};
  Policy policy(shape, snapshot);
  std::vector<float> action(1);

  policy.act(std::vector<float>{0.5f}, action);

  CHECK(action[0] == doctest::Approx(1 + 3 * std::tanh(1.0)));
}

TEST_CASE("perturbing forwards and back gives the policy again") {
  const PolicyShape shape{.observations = 1, .hidden = 0, .actions = 1};
  Policy policy(shape, std::vector<float>{0, 1, 2, 0});
  const std::vector<float> direction = {0.5f, 0.25f};
  std::vector<float> action(1);

  policy.perturb(direction, 2);
  policy.act(std::vector<float>{1}, action);
  CHECK(action[0] == 3 + 0.5f);
  policy.perturb(direction, -2);
  policy.act(std::vector<float>{1}, action);
  CHECK(action[0] == 2);
}

TEST_CASE("a snapshot of the wrong size is refused") {
  const PolicyShape shape{.observations = 2, .hidden = 0, .actions = 1};

  CHECK(snapshot_size(shape) == 7);
  CHECK_THROWS_AS(Policy(shape, std::vector<float>(6)), std::invalid_argument);
}

TEST_CASE("a saved policy comes back bit for bit") {
  const std::filesystem::path path = scratch_file("policy.txt");
  SavedPolicy saved{.environment = "hopper",
                    .shape = {.observations = 2, .hidden = 3, .actions = 2},
                    .snapshot = {}};
  for (std::size_t i = 0; i < snapshot_size(saved.shape); ++i)
    saved.snapshot.push_back(1.0f / static_cast<float>(i + 3));

  save_policy(path, saved);
  const SavedPolicy loaded = load_policy(path);
  std::filesystem::remove(path);

  CHECK(loaded.environment == saved.environment);
  CHECK(loaded.shape == saved.shape);
  CHECK(loaded.snapshot == saved.snapshot);
}

TEST_CASE("a broken policy file is refused by name") {
  const std::filesystem::path path = scratch_file("broken.txt");
  for (const char* content :
       {"", "rl_es-policy 2\nhopper 1 0 1\n", "rl_es-policy 1\nhopper -1 0 1\n",
        "rl_es-policy 1\nhopper 999999999 999999999 1\n", "rl_es-policy 1\nhopper 1 0 1\n0\n1\n"}) {
    CAPTURE(content);
    std::ofstream(path) << content;

    CHECK_THROWS_AS(load_policy(path), std::runtime_error);
  }
  std::filesystem::remove(path);
  CHECK_THROWS_AS(load_policy(path), std::runtime_error);
}

}  // namespace
}  // namespace rl_es
