// The policy server, its client and the watch over both.
#include "serving.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "random.h"

namespace rl_es {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kStintSeconds = 1;

}  // namespace

PolicyServer::PolicyServer(const PolicyShape& shape, const std::vector<float>& snapshot)
    : shape_(shape), policy_(shape, snapshot) {}

void PolicyServer::use(std::span<const float> snapshot, std::int32_t version) {
  policy_ = Policy(shape_, snapshot);
  version_ = version;
}

ServedAction PolicyServer::act(std::span<const float> observation) {
  ServedAction served{.action = std::vector<float>(static_cast<std::size_t>(shape_.actions)),
                      .policy_version = version_};
  policy_.act(observation, served.action);
  return served;
}

Stint drive_robot(const mobula::ActorHandle<PolicyServer>& server, EnvironmentKind kind,
                  std::uint64_t seed, double seconds) {
  Environment robot(kind);
  robot.reset(seed);
  std::vector<float> observation(static_cast<std::size_t>(robot.observation_size()));
  Stint stint;
  const auto steps = static_cast<int>(seconds / robot.control_seconds());
  Clock::time_point due = Clock::now();
  for (int i = 0; i < steps; ++i) {
    robot.observe(observation);
    const Clock::time_point asked = Clock::now();
    const ServedAction served = mobula::get(server.call<&PolicyServer::act>(observation));
    stint.latencies_us.push_back(
        std::chrono::duration<float, std::micro>(Clock::now() - asked).count());
    stint.newest_version = std::max(stint.newest_version, served.policy_version);
    if (robot.step(served.action).done)
      robot.reset(mix_seed({seed, static_cast<std::uint64_t>(i)}));
    // A robot acts at its own pace: what is measured is the answer to a lone request.
    due += std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(robot.control_seconds()));
    std::this_thread::sleep_until(due);
  }
  return stint;
}

ServingWatch::ServingWatch(mobula::ActorHandle<PolicyServer> server, EnvironmentKind environment,
                           std::uint64_t seed)
    : server_(std::move(server)), environment_(environment), seed_(seed) {
  start();
}

void ServingWatch::poll() {
  if (mobula::wait(std::vector{running_}, {.timeout = std::chrono::nanoseconds(0)}).ready.empty())
    return;
  take(mobula::get(running_));
  start();
}

void ServingWatch::finish() { take(mobula::get(running_)); }

void ServingWatch::start() {
  seed_ = scramble(seed_);
  // Without a CPU of its own: it mostly sleeps, and must run however busy the simulators are.
  running_ = mobula::remote<drive_robot>.with({.num_cpus = 0})(server_, environment_, seed_,
                                                               kStintSeconds);
}

void ServingWatch::take(const Stint& stint) {
  latencies_us_.insert(latencies_us_.end(), stint.latencies_us.begin(), stint.latencies_us.end());
  newest_version_ = std::max(newest_version_, stint.newest_version);
  figures_ = {.requests = static_cast<std::int64_t>(latencies_us_.size()),
              .p50_us = percentile(latencies_us_, 0.5),
              .p99_us = percentile(latencies_us_, 0.99)};
}

double percentile(std::vector<float> values, double p) {
  if (values.empty()) return 0;
  const auto nth = values.begin() +
                   static_cast<std::ptrdiff_t>(p * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), nth, values.end());
  return static_cast<double>(*nth);
}

}  // namespace rl_es
