// The network's arithmetic, in one fixed order, and the policy file.
#include "policy.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <stdexcept>

namespace rl_es {
namespace {

constexpr float kNormalMax =
    5;  // spreads away from the mean; what never moved before must not explode

std::size_t size_of(std::int32_t count) { return static_cast<std::size_t>(count); }

// output[row] = weights[row] . input + bias, rows of input.size() + 1.
void affine(std::span<const float> weights, std::span<const float> input, std::span<float> output) {
  const float* row = weights.data();
  for (float& out : output) {
    float sum = row[input.size()];
    for (std::size_t i = 0; i < input.size(); ++i) sum += row[i] * input[i];
    out = sum;
    row += input.size() + 1;
  }
}

}  // namespace

std::size_t weight_count(const PolicyShape& shape) {
  const std::size_t inputs = size_of(shape.observations) + 1;
  if (shape.hidden == 0) return size_of(shape.actions) * inputs;
  return size_of(shape.hidden) * inputs + size_of(shape.actions) * (size_of(shape.hidden) + 1);
}

std::size_t snapshot_size(const PolicyShape& shape) {
  return 2 * size_of(shape.observations) + weight_count(shape);
}

Policy::Policy(const PolicyShape& shape, std::span<const float> snapshot)
    : shape_(shape), normal_(size_of(shape.observations)), middle_(size_of(shape.hidden)) {
  if (snapshot.size() != snapshot_size(shape)) {
    throw std::invalid_argument("a policy snapshot of " + std::to_string(snapshot.size()) +
                                " floats, but its shape needs " +
                                std::to_string(snapshot_size(shape)));
  }
  const std::size_t observations = size_of(shape.observations);
  mean_.assign(snapshot.begin(), snapshot.begin() + shape.observations);
  const auto spread = snapshot.subspan(observations, observations);
  inverse_spread_.assign(spread.begin(), spread.end());
  const auto weights = snapshot.subspan(2 * observations);
  weights_.assign(weights.begin(), weights.end());
}

void Policy::perturb(std::span<const float> direction, float scale) {
  for (std::size_t i = 0; i < weights_.size(); ++i) weights_[i] += scale * direction[i];
}

void Policy::act(std::span<const float> observation, std::span<float> action) {
  for (std::size_t i = 0; i < normal_.size(); ++i) {
    normal_[i] =
        std::clamp((observation[i] - mean_[i]) * inverse_spread_[i], -kNormalMax, kNormalMax);
  }
  const std::span<const float> weights = weights_;
  if (shape_.hidden == 0) return affine(weights, normal_, action);

  affine(weights, normal_, middle_);
  for (float& value : middle_) value = std::tanh(value);
  affine(weights.subspan(middle_.size() * (normal_.size() + 1)), middle_, action);
}

void save_policy(const std::filesystem::path& path, const SavedPolicy& policy) {
  std::ofstream file(path);
  file.precision(std::numeric_limits<float>::max_digits10);
  file << "rl_es-policy 1\n"
       << policy.environment << ' ' << policy.shape.observations << ' ' << policy.shape.hidden
       << ' ' << policy.shape.actions << '\n';
  for (const float value : policy.snapshot) file << value << '\n';
  if (!file.flush()) throw std::runtime_error("cannot write the policy to " + path.string());
}

SavedPolicy load_policy(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read the policy " + path.string());
  std::string magic;
  int version = 0;
  SavedPolicy policy;
  file >> magic >> version >> policy.environment >> policy.shape.observations >>
      policy.shape.hidden >> policy.shape.actions;
  constexpr std::int32_t kSideMax = 1 << 12;  // a broken header must not ask for all memory
  const auto plausible = [](std::int32_t side, std::int32_t least) {
    return side >= least && side <= kSideMax;
  };
  if (!file || magic != "rl_es-policy" || version != 1 ||
      !plausible(policy.shape.observations, 1) || !plausible(policy.shape.hidden, 0) ||
      !plausible(policy.shape.actions, 1)) {
    throw std::runtime_error(path.string() + " is not a policy that rl_es wrote");
  }
  policy.snapshot.resize(snapshot_size(policy.shape));
  for (float& value : policy.snapshot) file >> value;
  if (!file) throw std::runtime_error(path.string() + " ends before its last weight");
  return policy;
}

}  // namespace rl_es
