#include "core/progress_bars.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace mobula::core {
namespace {

constexpr int kBarMax = 40;
constexpr int kBarMin = 5;

double seconds(ProgressBars::Time time) { return std::chrono::duration<double>(time).count(); }

// "950", "12.5k", "3.1M"
std::string amount(double value) {
  char text[40];
  const double size = std::fabs(value);
  if (size < 1000 && value == std::floor(value)) {
    std::snprintf(text, sizeof text, "%.0f", value);
  } else if (size < 1000) {
    std::snprintf(text, sizeof text, "%.1f", value);
  } else if (size < 1e6) {
    std::snprintf(text, sizeof text, "%.1fk", value / 1e3);
  } else if (size < 1e9) {
    std::snprintf(text, sizeof text, "%.1fM", value / 1e6);
  } else {
    std::snprintf(text, sizeof text, "%.3g", value);
  }
  return text;
}

// "4.2 s", "3 min 20 s", "2 h 5 min"
std::string duration(double s) {
  char text[60];
  if (s < 60) {
    std::snprintf(text, sizeof text, "%.1f s", s);
  } else if (s < 3600) {
    std::snprintf(text, sizeof text, "%d min %d s", static_cast<int>(s) / 60,
                  static_cast<int>(s) % 60);
  } else {
    std::snprintf(text, sizeof text, "%.0f h %d min", std::floor(s / 3600),
                  static_cast<int>(std::fmod(s, 3600)) / 60);
  }
  return text;
}

double share(double done, double total) {
  return total > 0 ? std::clamp(done / total, 0.0, 1.0) : 1;
}

}  // namespace

bool ProgressBars::is_at_work(const ProgressCount& count) const {
  const auto over = over_.find(count.name);
  return count.open || count.total > (over == over_.end() ? 0 : over->second);
}

bool ProgressBars::has_news(const std::vector<ProgressCount>& counts) const {
  return !bars_.empty() || std::any_of(counts.begin(), counts.end(),
                                       [&](const auto& count) { return is_at_work(count); });
}

ProgressBars::Shown ProgressBars::step(const std::vector<ProgressCount>& counts, Time now,
                                       int columns) {
  Shown shown;
  for (const ProgressCount& count : counts) {
    if (!is_at_work(count) && !bars_.contains(count.name)) continue;
    const double before = over_[count.name];
    const auto [it, is_new] = bars_.try_emplace(count.name);
    Bar& bar = it->second;
    if (is_new) bar.begun = bar.open_at = bar.said_at = now;
    if (count.open || bar.done != count.done - before) bar.open_at = now;
    bar.done = count.done - before;
    bar.total = count.total - before;
    if (now - bar.open_at >= kOver) {
      shown.lines.push_back(text_of(count.name, bar, now, true));
      over_[count.name] = count.done;
      bars_.erase(it);
    } else if (on_terminal_) {
      shown.bars.push_back(bar_of(count.name, bar, now, columns));
    } else if (now - bar.said_at >= kPlainPause && bar.done != bar.said) {
      shown.lines.push_back(text_of(count.name, bar, now, false));
      bar.said_at = now;
      bar.said = bar.done;
    }
  }
  return shown;
}

ProgressBars::Shown ProgressBars::finish(const std::vector<ProgressCount>& counts, Time now) {
  Shown shown = step(counts, now, 80);
  shown.bars.clear();
  for (const auto& [name, bar] : bars_) shown.lines.push_back(text_of(name, bar, now, true));
  bars_.clear();
  return shown;
}

// "train: 450 of 1.0k (45 %), 90.2/s, 6.1 s left"; when it is over "train: 1.0k of 1.0k in 11.1 s"
std::string ProgressBars::text_of(const std::string& name, const Bar& bar, Time now,
                                  bool over) const {
  const double time = seconds((over ? bar.open_at : now) - bar.begun);
  const double rate = time > 0 ? bar.done / time : 0;
  std::string text = name + ": " + amount(bar.done) + " of " + amount(bar.total);
  char percent[16];
  std::snprintf(percent, sizeof percent, " (%.0f %%)",
                std::floor(100 * share(bar.done, bar.total)));
  text += percent;
  if (over) text += " in " + duration(time);
  if (rate > 0) text += ", " + amount(rate) + "/s";
  if (!over && rate > 0 && bar.total > bar.done)
    text += ", " + duration((bar.total - bar.done) / rate) + " left";
  return text;
}

std::string ProgressBars::bar_of(const std::string& name, const Bar& bar, Time now,
                                 int columns) const {
  const std::string text = text_of(name, bar, now, false);
  const int room = std::min(columns - static_cast<int>(text.size()) - 4, kBarMax);
  // A line that wraps could not be taken back.
  if (room < kBarMin) return text.substr(0, static_cast<std::size_t>(std::max(columns - 1, 0)));
  const int full = static_cast<int>(share(bar.done, bar.total) * room);
  return "[" + std::string(static_cast<std::size_t>(full), '#') +
         std::string(static_cast<std::size_t>(room - full), '.') + "] " + text;
}

}  // namespace mobula::core
