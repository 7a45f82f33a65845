// The words and files at the end of a training.
#include "report.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <system_error>

#include "plot.h"

namespace rl_es {
namespace {

[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...) {
  char text[400];
  std::va_list values;
  va_start(values, pattern);
  std::vsnprintf(text, sizeof text, pattern, values);
  va_end(values);
  return text;
}

double mean_distance(const std::vector<Episode>& episodes) {
  double sum = 0;
  for (const Episode& episode : episodes) sum += episode.distance;
  return episodes.empty() ? 0 : sum / static_cast<double>(episodes.size());
}

std::string name_of(const Recipe& recipe) {
  return std::string(environment_name(recipe.environment));
}

LearningCurve picture_of(const TrainingReport& report) {
  LearningCurve picture;
  const bool hopper = report.recipe.environment == EnvironmentKind::kHopper;
  picture.title = hopper ? "A hopper learns to hop" : "A humanoid learns to move forward";
  picture.subtitle = format(
      "evolution strategies on MuJoCo, seed %llu: %zu iterations in %.0f s, %.1f m forward at the "
      "end",
      static_cast<unsigned long long>(report.recipe.seed), report.curve.size(), report.seconds,
      mean_distance(report.after));
  for (const IterationSummary& point : report.curve) {
    picture.mean.push_back(point.reward_mean);
    picture.spread.push_back(point.reward_spread);
    picture.best.push_back(point.reward_best);
    picture.policy.push_back(point.reward_policy);
  }
  return picture;
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

std::string csv_of(const std::vector<IterationSummary>& curve) {
  constexpr int kDigits = std::numeric_limits<double>::max_digits10;
  std::string text =
      "iteration,reward_mean,reward_spread,reward_best,reward_policy,distance_m,control_steps\n";
  for (const IterationSummary& point : curve) {
    text += format("%d,%.*g,%.*g,%.*g,%.*g,%.*g,%lld\n", point.iteration, kDigits,
                   point.reward_mean, kDigits, point.reward_spread, kDigits, point.reward_best,
                   kDigits, point.reward_policy, kDigits, point.distance,
                   static_cast<long long>(point.control_steps));
  }
  return text;
}

}  // namespace

std::string describe(const std::vector<Episode>& episodes, double control_seconds) {
  if (episodes.empty()) return "no episode";
  const auto nearer = [](const Episode& a, const Episode& b) { return a.distance < b.distance; };
  const auto [least, most] = std::minmax_element(episodes.begin(), episodes.end(), nearer);
  double steps = 0;
  double air_steps = 0;
  std::size_t falls = 0;
  for (const Episode& episode : episodes) {
    steps += episode.steps;
    air_steps += episode.air_steps;
    falls += episode.fell ? 1 : 0;
  }
  return format(
      "%.2f m forward in %.1f s (%.2f to %.2f m), %.0f %% of it in the air, %zu of %zu episodes "
      "end in a fall",
      mean_distance(episodes), steps * control_seconds / static_cast<double>(episodes.size()),
      least->distance, most->distance, 100 * air_steps / steps, falls, episodes.size());
}

std::string summary_text(const TrainingReport& report) {
  std::int64_t control_steps = 0;
  std::int32_t shortest = std::numeric_limits<std::int32_t>::max();
  std::int32_t longest = 0;
  for (const IterationSummary& point : report.curve) {
    control_steps += point.control_steps;
    shortest = std::min(shortest, point.shortest);
    longest = std::max(longest, point.longest);
  }
  const double physics_steps = static_cast<double>(control_steps) * report.physics_steps;
  const std::size_t episodes =
      report.curve.size() * static_cast<std::size_t>(2 * report.recipe.pairs + kTrialEpisodes);
  return format("%s, seed %llu: %zu iterations in %.1f s on %d CPU%s\n",
                name_of(report.recipe).c_str(), static_cast<unsigned long long>(report.recipe.seed),
                report.curve.size(), report.seconds, report.workers,
                report.workers == 1 ? "" : "s") +
         "  before    " + describe(report.before, report.control_seconds) + "\n" + "  after     " +
         describe(report.after, report.control_seconds) + "\n" +
         format("  simulate  %zu episodes of %d to %d steps, %.2f M physics steps, %.0f k/s\n",
                episodes, shortest, longest, physics_steps / 1e6,
                physics_steps / 1e3 / report.seconds) +
         format("  train     %lld tasks and actor calls, %.0f/s; %zu weights\n",
                static_cast<long long>(report.calls),
                static_cast<double>(report.calls) / report.seconds,
                weight_count(report.recipe.shape)) +
         format(
             "  serve     %lld actions by a policy up to iteration %d, p50 %.0f us, p99 %.0f us\n",
             static_cast<long long>(report.serving.requests), report.served_version,
             report.serving.p50_us, report.serving.p99_us);
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && access(folder.c_str(), W_OK | X_OK) != 0)
    error.assign(errno, std::generic_category());
  if (error)
    throw std::runtime_error("cannot write into the folder " + folder.string() + ": " +
                             error.message());
}

void write_report(const std::filesystem::path& folder, const TrainingReport& report) {
  make_folder(folder);
  const LearningCurve picture = picture_of(report);
  write_svg(folder / "learning_curve.svg", picture);
  write_png(folder / "learning_curve.png", picture);
  write_text(folder / "learning_curve.csv", csv_of(report.curve));
  write_text(folder / "summary.txt", summary_text(report));
  save_policy(folder / "policy.txt",
              {name_of(report.recipe), report.recipe.shape, report.best_snapshot});
}

}  // namespace rl_es
