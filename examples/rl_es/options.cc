// The parser and the words of --help.
#include "options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <string_view>
#include <thread>

namespace rl_es {
namespace {

constexpr int kHopperIterations = 300;
constexpr int kHumanoidIterations = 1000;
constexpr double kHopperSeconds =
    140;  // the demo, with its start and its end, stays under three minutes

template <class Number>
Number number(std::string_view option, std::string_view text, Number low, Number high) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() ||
      !(value >= low && value <= high)) {
    const auto whole = [](Number bound) {
      return std::to_string(static_cast<std::uint64_t>(bound));
    };
    throw std::invalid_argument(std::string(option) + " needs a number from " + whole(low) +
                                " to " + whole(high) + ", not '" + std::string(text) + "'");
  }
  return value;
}

int machine_cores() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 256u));
}

}  // namespace

Options parse_options(std::span<const char* const> arguments) {
  Options options;
  options.workers = machine_cores();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string_view name = arguments[i];
    if (name == "--help" || name == "-h") {
      options.help = true;
      continue;
    }
    if (name.starts_with("--mobula-")) continue;  // the session's own
    std::optional<std::string_view> value;
    if (const std::size_t equals = name.find('='); equals != name.npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    static constexpr std::string_view kKnown[] = {
        "--env", "--iterations", "--seed", "--workers", "--time-limit", "--output", "--play"};
    if (std::find(std::begin(kKnown), std::end(kKnown), name) == std::end(kKnown)) {
      throw std::invalid_argument("no option '" + std::string(name) + "'; try --help");
    }
    if (!value) {
      if (++i == arguments.size())
        throw std::invalid_argument(std::string(name) + " needs a value; try --help");
      value = arguments[i];
    }
    if (name == "--env") options.environment = environment_kind(*value);
    if (name == "--iterations") options.iterations = number(name, *value, 1, 1'000'000);
    if (name == "--seed") options.seed = number<std::uint64_t>(name, *value, 0, UINT64_MAX);
    if (name == "--workers") options.workers = number(name, *value, 1, 256);
    if (name == "--time-limit") options.time_limit = number(name, *value, 1.0, 1e7);
    if (name == "--output") options.output = *value;
    if (name == "--play") options.play = *value;
  }
  const bool hopper = options.environment == EnvironmentKind::kHopper;
  // A time limit that nobody asked for must not cut short the iterations that somebody asked for.
  if (hopper && options.iterations == 0 && !options.time_limit) options.time_limit = kHopperSeconds;
  if (options.iterations == 0)
    options.iterations = hopper ? kHopperIterations : kHumanoidIterations;
  return options;
}

std::string help_text() {
  return "rl_es: evolution strategies on MuJoCo physics; simulates, trains and serves in one "
         "program.\n"
         "\n"
         "usage: rl_es [options]\n"
         "\n"
         "  --env NAME            hopper (default) or humanoid (needs Debian's libmujoco-samples)\n"
         "  --iterations N        steps of learning: hopper " +
         std::to_string(kHopperIterations) + ", humanoid " + std::to_string(kHumanoidIterations) +
         "\n"
         "  --time-limit SECONDS  end training then; without any option " +
         std::to_string(static_cast<int>(kHopperSeconds)) +
         ", otherwise none\n"
         "  --seed N              the same seed gives the same learning curve, for any number of "
         "workers (1)\n"
         "  --workers N           CPUs that simulate (here " +
         std::to_string(machine_cores()) +
         ")\n"
         "  --output DIR          where the curve, the policy and the summary go (out)\n"
         "  --play FILE           play a saved policy instead of training\n"
         "  --help\n"
         "\n"
         "examples:\n"
         "  rl_es\n"
         "  rl_es --seed 7 --iterations 150\n"
         "  rl_es --env humanoid --iterations 2000 --output out/humanoid\n"
         "  rl_es --play out/policy.txt\n";
}

}  // namespace rl_es
