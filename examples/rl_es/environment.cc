// MuJoCo behind Environment: loading a model, resetting it, stepping it, judging it.
#include "environment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "hopper_xml.h"  // generated from hopper.xml
#include "random.h"

namespace rl_es {
namespace {

constexpr std::array<std::string_view, 2> kNames = {"hopper", "humanoid"};

EnvironmentRules rules_of(EnvironmentKind kind) {
  switch (kind) {
    case EnvironmentKind::kHopper:
      return {.hidden_positions = 1,
              .physics_steps = 2,
              .height_min = 0.75,
              .height_max = 3.0,
              .tilt_max = 0.6,
              .forward_weight = 1.0,
              .forward_speed_max = 4.0,
              .alive_reward = 0.25,
              .control_cost = 0.002,
              .reset_spread = 0.02};
    case EnvironmentKind::kHumanoid:
      return {.hidden_positions = 2,
              .physics_steps = 3,
              .height_min = 0.9,
              .height_max = 2.0,
              .tilt_max = 1.0,
              .forward_weight = 1.25,
              .forward_speed_max = 4.0,
              .alive_reward = 1.0,
              .control_cost = 0.02,
              .reset_spread = 0.01};
  }
  throw std::invalid_argument("unknown environment");
}

constexpr std::size_t kReasonBytes = 1024;

mjModel* load_hopper(char* reason) {
  // mjVFS holds its file table in place, some hundred KB: too much for a stack.
  const auto files = std::make_unique<mjVFS>();
  mj_defaultVFS(files.get());
  const std::string_view xml = kHopperXml;
  if (mj_makeEmptyFileVFS(files.get(), "hopper.xml", static_cast<int>(xml.size())) != 0) {
    throw std::runtime_error("MuJoCo cannot take hopper.xml into memory");
  }
  std::memcpy(files->filedata[mj_findFileVFS(files.get(), "hopper.xml")], xml.data(), xml.size());
  mjModel* model = mj_loadXML("hopper.xml", files.get(), reason, kReasonBytes);
  mj_deleteVFS(files.get());
  return model;
}

mjModel* load_humanoid(char* reason) {
  const std::filesystem::path path = RL_ES_HUMANOID_XML;
  if (!std::filesystem::exists(path)) {
    throw std::runtime_error(
        "no " + path.string() +
        ": the humanoid comes with a package, try: apt-get install libmujoco-samples");
  }
  return mj_loadXML(path.c_str(), nullptr, reason, kReasonBytes);
}

// step() reads mjData.warning itself; MuJoCo's own way is a log file in the current folder.
void ignore_warning(const char*) {}

}  // namespace

EnvironmentKind environment_kind(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<EnvironmentKind>(i);
  }
  throw std::invalid_argument("no environment '" + std::string(name) +
                              "': there are hopper and humanoid");
}

std::string_view environment_name(EnvironmentKind kind) {
  return kNames.at(static_cast<std::size_t>(kind));
}

Environment::Environment(EnvironmentKind kind) : kind_(kind), rules_(rules_of(kind)) {
  mju_user_warning = ignore_warning;
  std::array<char, kReasonBytes> reason{};
  model_.reset(kind == EnvironmentKind::kHopper ? load_hopper(reason.data())
                                                : load_humanoid(reason.data()));
  if (!model_) {
    throw std::runtime_error("MuJoCo cannot load the " + std::string(environment_name(kind)) +
                             ": " + reason.data());
  }
  data_.reset(mj_makeData(model_.get()));
  if (!data_) throw std::runtime_error("MuJoCo has no memory for the simulation");
  observation_size_ = model_->nq - rules_.hidden_positions + model_->nv;
  reset(0);
}

void Environment::reset(std::uint64_t seed) {
  mj_resetData(model_.get(), data_.get());
  RandomStream random(seed);
  const double spread = rules_.reset_spread;
  for (int i = 0; i < model_->nq; ++i) data_->qpos[i] += random.uniform(-spread, spread);
  for (int i = 0; i < model_->nv; ++i) data_->qvel[i] = random.uniform(-spread, spread);
  mj_forward(model_.get(), data_.get());
  start_x_ = data_->qpos[0];
}

void Environment::observe(std::span<float> observation) const {
  constexpr double kSpeedMax = 10;  // a hard landing must not outshout everything else
  std::size_t out = 0;
  for (int i = rules_.hidden_positions; i < model_->nq; ++i)
    observation[out++] = static_cast<float>(data_->qpos[i]);
  for (int i = 0; i < model_->nv; ++i) {
    observation[out++] = static_cast<float>(std::clamp(data_->qvel[i], -kSpeedMax, kSpeedMax));
  }
}

StepOutcome Environment::step(std::span<const float> action) {
  double effort = 0;
  for (int i = 0; i < model_->nu; ++i) {
    const float wish = action[static_cast<std::size_t>(i)];
    const double torque = std::isnan(wish) ? 0.0 : std::clamp(static_cast<double>(wish), -1.0, 1.0);
    data_->ctrl[i] = torque;
    effort += torque * torque;
  }
  const double x_before = data_->qpos[0];
  for (int i = 0; i < rules_.physics_steps; ++i) mj_step(model_.get(), data_.get());
  if (has_fallen()) return {.reward = 0, .done = true};

  const double speed = (data_->qpos[0] - x_before) / control_seconds();
  const double forward = rules_.forward_weight * std::min(speed, rules_.forward_speed_max);
  return {.reward = forward + rules_.alive_reward - rules_.control_cost * effort, .done = false};
}

bool Environment::has_fallen() const {
  // MuJoCo resets a simulation that blew up and only counts it: without this the agent
  // would be paid for teleporting to the start.
  for (const int bad : {mjWARN_BADQPOS, mjWARN_BADQVEL, mjWARN_BADQACC, mjWARN_BADCTRL}) {
    if (data_->warning[bad].number > 0) return true;
  }
  const double upright = data_->xmat[9 * 1 + 8];  // body 1 is the trunk; entry zz of its rotation
  return height() < rules_.height_min || height() > rules_.height_max ||
         upright < std::cos(rules_.tilt_max);
}

double Environment::distance() const { return data_->qpos[0] - start_x_; }

double Environment::height() const { return data_->xpos[3 * 1 + 2]; }

}  // namespace rl_es
