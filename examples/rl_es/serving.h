// Decides how the newest policy answers while it is still being trained: an actor serves
// actions, and a client task drives a simulated robot with them, in real time, and
// measures how long each answer takes.
//
//   client task --observation--> PolicyServer --action--> client task   (each control step)
//                                    ^
//   learner ------- snapshot --------+                                  (each iteration)
#pragma once

#include <mobula/mobula.h>

#include <cstdint>
#include <span>
#include <vector>

#include "environment.h"
#include "live_display.h"
#include "policy.h"

namespace rl_es {

struct ServedAction {
  std::vector<float> action;
  std::int32_t policy_version = 0;
};

class PolicyServer {
 public:
  PolicyServer(const PolicyShape& shape, const std::vector<float>& snapshot);

  void use(std::span<const float> snapshot, std::int32_t version);
  ServedAction act(std::span<const float> observation);

 private:
  PolicyShape shape_;
  Policy policy_;
  std::int32_t version_ = 0;
};

// What the client saw in one stint.
struct Stint {
  std::vector<float> latencies_us;  // of each request
  std::int32_t newest_version = 0;
};

// A task: drives the robot for `seconds` of real time, one request for each control step.
Stint drive_robot(const mobula::ActorHandle<PolicyServer>& server, EnvironmentKind environment,
                  std::uint64_t seed, double seconds);

// Keeps one client task going and gathers what the stints report.
class ServingWatch {
 public:
  ServingWatch(mobula::ActorHandle<PolicyServer> server, EnvironmentKind environment,
               std::uint64_t seed);

  // Takes the report of a stint that is over and starts the next. Never blocks.
  void poll();

  // Waits for the stint that is running; no other follows.
  void finish();

  const ServingFigures& figures() const { return figures_; }
  std::int32_t newest_version() const { return newest_version_; }

 private:
  void start();
  void take(const Stint& stint);

  mobula::ActorHandle<PolicyServer> server_;
  EnvironmentKind environment_;
  std::uint64_t seed_;
  mobula::Ref<Stint> running_;
  std::vector<float> latencies_us_;
  ServingFigures figures_;
  std::int32_t newest_version_ = 0;
};

// p in [0, 1]; 0 for no values.
double percentile(std::vector<float> values, double p);

}  // namespace rl_es
