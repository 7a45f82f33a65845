// Decides how observations become actions: a small network of one flat list of floats.
//
// A policy travels as one snapshot, so that it can lie in the object store and be read in
// place by every simulator and by the server:
//
//   [ mean of each observation | 1 / spread of each | weights ... ]
//
// Weights without a hidden layer: actions x (observations + 1), the last of a row the bias.
// With one: hidden x (observations + 1), then actions x (hidden + 1); tanh in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace rl_es {

struct PolicyShape {
  std::int32_t observations = 0;
  std::int32_t hidden = 0;  // 0: linear
  std::int32_t actions = 0;
  friend bool operator==(const PolicyShape&, const PolicyShape&) = default;
};

std::size_t weight_count(const PolicyShape& shape);
std::size_t snapshot_size(const PolicyShape& shape);

// One actor's or task's working copy: snapshot plus perturbation, unpacked for speed.
class Policy {
 public:
  // snapshot holds snapshot_size(shape) floats; throws std::invalid_argument otherwise.
  Policy(const PolicyShape& shape, std::span<const float> snapshot);

  // Moves the weights by scale * direction (weight_count entries).
  void perturb(std::span<const float> direction, float scale);

  void act(std::span<const float> observation, std::span<float> action);

 private:
  PolicyShape shape_;
  std::vector<float> mean_;
  std::vector<float> inverse_spread_;
  std::vector<float> weights_;
  std::vector<float> normal_;  // scratch: the observation, normalised
  std::vector<float> middle_;  // scratch: the hidden layer
};

// A policy on disk: readable text, exact floats.
struct SavedPolicy {
  std::string environment;
  PolicyShape shape;
  std::vector<float> snapshot;
};

// Both throw std::runtime_error that names the file.
void save_policy(const std::filesystem::path& path, const SavedPolicy& policy);
SavedPolicy load_policy(const std::filesystem::path& path);

}  // namespace rl_es
