// Decides what an agent senses, what it may do and what it is paid for, on MuJoCo physics.
//
// An episode depends on the reset seed and on the actions alone: no state survives reset(),
// so a task, an actor or a test that plays the same episode gets the same bits.
//
//   reset(seed) --> observe --> step(action) --> observe ... --> done or kEpisodeSteps
#pragma once

#include <mujoco/mujoco.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace rl_es {

inline constexpr int kEpisodeSteps = 1000;  // control steps; a fall ends an episode earlier

enum class EnvironmentKind : std::uint8_t { kHopper, kHumanoid };

// Throws std::invalid_argument that lists the known names.
EnvironmentKind environment_kind(std::string_view name);
std::string_view environment_name(EnvironmentKind kind);

// How a model becomes a task to learn: times in seconds, lengths in metres.
struct EnvironmentRules {
  int hidden_positions;      // leading entries of qpos that the agent must not see: where it is
  int physics_steps;         // physics steps for each control step
  double height_min;         // below or above: fallen
  double height_max;
  double tilt_max;           // of the trunk from upright, radians
  double forward_weight;     // reward per m/s
  double forward_speed_max;  // faster is not paid more
  double alive_reward;       // per control step
  double control_cost;       // times the squared length of the action
  double reset_spread;       // first positions and velocities are off by at most this
};

struct StepOutcome {
  double reward;
  bool done;
};

class Environment {
 public:
  // Compiles the model. Throws std::runtime_error with MuJoCo's reason, or with the
  // package to install when humanoid.xml is missing.
  explicit Environment(EnvironmentKind kind);

  EnvironmentKind kind() const { return kind_; }
  int observation_size() const { return observation_size_; }
  int action_size() const { return model_->nu; }
  double control_seconds() const { return model_->opt.timestep * rules_.physics_steps; }
  int physics_steps() const { return rules_.physics_steps; }

  void reset(std::uint64_t seed);
  void observe(std::span<float> observation) const;

  // Acts for one control step; each entry of action is clamped to [-1, 1] (NaN counts as 0).
  StepOutcome step(std::span<const float> action);

  double distance() const;  // metres forward since reset
  double height() const;    // of the trunk's centre over the ground
  bool in_air() const { return data_->ncon == 0; }

 private:
  struct FreeModel {
    void operator()(mjModel* model) const { mj_deleteModel(model); }
  };
  struct FreeData {
    void operator()(mjData* data) const { mj_deleteData(data); }
  };

  bool has_fallen() const;

  EnvironmentKind kind_;
  EnvironmentRules rules_;
  std::unique_ptr<mjModel, FreeModel> model_;
  std::unique_ptr<mjData, FreeData> data_;
  int observation_size_ = 0;
  double start_x_ = 0;
};

}  // namespace rl_es
