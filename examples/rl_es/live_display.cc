// The panel, the plain line and the terminal codes.
#include "live_display.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <string_view>

namespace rl_es {
namespace {

[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...) {
  char text[256];
  std::va_list values;
  va_start(values, pattern);
  std::vsnprintf(text, sizeof text, pattern, values);
  va_end(values);
  return text;
}

std::string thousands(double value) {
  if (value >= 1e6) return format("%.2f M", value / 1e6);
  if (value >= 1e4) return format("%.0f k", value / 1e3);
  return format("%.0f", value);
}

std::string duration(double seconds) {
  const int whole = static_cast<int>(std::max(seconds, 0.0) + 0.5);
  if (whole >= 3600) return format("%d:%02d:%02d h", whole / 3600, whole / 60 % 60, whole % 60);
  return format("%d:%02d min", whole / 60, whole % 60);
}

std::string bar(double part, std::size_t columns) {
  const auto full =
      static_cast<std::size_t>(std::clamp(part, 0.0, 1.0) * static_cast<double>(columns) + 0.5);
  std::string out;
  for (std::size_t i = 0; i < columns; ++i) out += i < full ? "█" : "░";
  return out;
}

std::string serving_words(const ServingFigures& serving) {
  if (serving.requests == 0) return "no request yet";
  return format("p50 %.0f us, p99 %.0f us", serving.p50_us, serving.p99_us);
}

// Cuts to whole characters, so that a line never wraps and spoils the redraw.
std::string cut(const std::string& line, std::size_t columns) {
  std::size_t shown = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(line[i]) & 0xc0) != 0x80;
    if (starts_character && shown++ == columns) return line.substr(0, i);
  }
  return line;
}

std::size_t terminal_columns(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string sparkline(std::span<const double> values, std::size_t columns) {
  static constexpr std::array<std::string_view, 8> kBlocks = {"▁", "▂", "▃", "▄",
                                                              "▅", "▆", "▇", "█"};
  if (values.empty() || columns == 0) return {};
  const std::size_t count = std::min(values.size(), columns);
  std::vector<double> shown(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t first = i * values.size() / count;
    const std::size_t end = (i + 1) * values.size() / count;
    for (std::size_t k = first; k < end; ++k)
      shown[i] += values[k] / static_cast<double>(end - first);
  }
  const auto [low, high] = std::minmax_element(shown.begin(), shown.end());
  const double range = *high - *low;
  std::string out;
  for (const double value : shown) {
    const double part = range > 0 ? (value - *low) / range : 0;
    out += kBlocks[static_cast<std::size_t>(part * 7 + 0.5)];
  }
  return out;
}

std::string plain_line(const Progress& progress) {
  const IterationSummary& latest = progress.latest;
  return format(
             "iteration %d/%d  reward %.1f +- %.1f  best %.1f  policy %.1f (%.2f m)  %s steps/s  "
             "%.0f tasks/s  serving ",
             progress.finished, progress.iterations, latest.reward_mean, latest.reward_spread,
             latest.reward_best, latest.reward_policy, latest.distance,
             thousands(progress.physics_steps_per_second).c_str(), progress.tasks_per_second) +
         serving_words(progress.serving) + format("  %.0f s left", progress.seconds_left);
}

std::vector<std::string> panel(const Progress& progress, std::span<const double> history,
                               std::size_t columns) {
  const IterationSummary& latest = progress.latest;
  const double pairs = std::max(progress.pairs, 1);
  const double done =
      (progress.finished + progress.pairs_done / pairs) / std::max(progress.iterations, 1);
  std::vector<std::string> lines = {
      progress.title,
      format("  iteration  %4d of %d  ", progress.finished, progress.iterations) + bar(done, 30) +
          format("  %s, %s left", duration(progress.seconds).c_str(),
                 duration(progress.seconds_left).c_str()),
      format("  reward     %8.1f ± %.1f over the trials, best %.1f", latest.reward_mean,
             latest.reward_spread, latest.reward_best),
      format("  policy     %8.1f, %.2f m forward; best so far %.1f, %.2f m", latest.reward_policy,
             latest.distance, progress.best_policy_reward, progress.best_distance),
      format("  simulate   %8s physics steps/s, episodes of %d to %d steps",
             thousands(progress.physics_steps_per_second).c_str(), latest.shortest, latest.longest),
      format("  train      %8.0f tasks and actor calls/s", progress.tasks_per_second),
      format("  serve      %8lld requests, ", static_cast<long long>(progress.serving.requests)) +
          serving_words(progress.serving),
      "  learning   " + sparkline(history, columns > 16 ? columns - 16 : 0),
  };
  for (std::string& line : lines) line = cut(line, columns);
  return lines;
}

LiveDisplay::LiveDisplay(std::FILE* out) : out_(out), terminal_(isatty(fileno(out)) == 1) {}

void LiveDisplay::iteration_finished(const Progress& progress) {
  history_.push_back(progress.latest.reward_mean);
  if (terminal_) return redraw(progress);
  std::fprintf(out_, "%s\n", plain_line(progress).c_str());
  std::fflush(out_);
}

void LiveDisplay::tick(const Progress& progress) {
  constexpr double kRedrawSeconds = 0.1;
  if (terminal_ && progress.seconds - drawn_at_ >= kRedrawSeconds) redraw(progress);
}

void LiveDisplay::redraw(const Progress& progress) {
  const std::vector<std::string> lines = panel(progress, history_, terminal_columns(out_) - 1);
  std::string text;
  if (lines_drawn_ > 0) text += format("\x1b[%zuA", lines_drawn_);
  for (const std::string& line : lines) text += "\r\x1b[2K" + line + "\n";
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
  lines_drawn_ = lines.size();
  drawn_at_ = progress.seconds;
}

}  // namespace rl_es
