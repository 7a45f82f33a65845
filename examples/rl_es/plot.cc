// The layout of the learning curve.
#include "plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace rl_es {
namespace {

constexpr int kWidth = 960;
constexpr int kHeight = 560;
constexpr double kLeft = 84;
constexpr double kRight = kWidth - 36;
constexpr double kTop = 108;
constexpr double kBottom = kHeight - 66;

constexpr Color kInk{31, 41, 55};
constexpr Color kQuiet{107, 114, 128};
constexpr Color kGrid{229, 231, 235};
constexpr Color kBlue{37, 99, 235};
constexpr Color kBand{37, 99, 235, 0.16};
constexpr Color kBest{148, 163, 184};
constexpr Color kPolicy{234, 88, 12};

std::string label(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", std::abs(value) < 1e-9 ? 0.0 : value);
  return text;
}

// Where data lies on the paper.
struct Frame {
  double x_last;
  double y_low;
  double y_high;
  double x(double iteration) const { return kLeft + (kRight - kLeft) * iteration / x_last; }
  double y(double value) const {
    return kBottom - (kBottom - kTop) * (value - y_low) / (y_high - y_low);
  }

  std::vector<Point> trace(const std::vector<double>& values) const {
    std::vector<Point> points;
    for (std::size_t i = 0; i < values.size(); ++i)
      points.push_back({x(static_cast<double>(i)), y(values[i])});
    return points;
  }
};

void draw_axes(Canvas& canvas, const Frame& frame, const std::vector<double>& x_ticks,
               const std::vector<double>& y_ticks) {
  for (const double tick : y_ticks) {
    if (tick < frame.y_low) continue;
    const Point line[] = {{kLeft, frame.y(tick)}, {kRight, frame.y(tick)}};
    canvas.line(line, kGrid, 1);
    canvas.text({kLeft - 10, frame.y(tick) + 4.5}, label(tick),
                {.size = 13, .color = kQuiet, .anchor = Anchor::kEnd});
  }
  for (const double tick : x_ticks) {
    if (tick > frame.x_last) continue;
    const Point mark[] = {{frame.x(tick), kBottom}, {frame.x(tick), kBottom + 5}};
    canvas.line(mark, kQuiet, 1);
    canvas.text({frame.x(tick), kBottom + 22}, label(tick),
                {.size = 13, .color = kQuiet, .anchor = Anchor::kMiddle});
  }
  const Point axis[] = {{kLeft, kBottom}, {kRight, kBottom}};
  canvas.line(axis, kQuiet, 1.2);
  canvas.text({(kLeft + kRight) / 2, kHeight - 16}, "iteration",
              {.size = 14, .color = kInk, .anchor = Anchor::kMiddle});
  canvas.text({26, (kTop + kBottom) / 2}, "reward of an episode",
              {.size = 14, .color = kInk, .anchor = Anchor::kMiddle, .upwards = true});
}

void draw_legend(Canvas& canvas) {
  const struct {
    const char* text;
    Color color;
    double width;
    bool band;
    double room;
  } entries[] = {
      {"mean \xC2\xB1 spread of the trials", kBlue, 2.6, true, 218},
      {"best trial", kBest, 1.6, false, 116},
      {"the policy, without noise", kPolicy, 2, false, 0},
  };
  double x = kLeft;
  for (const auto& entry : entries) {
    if (entry.band) {
      const Point box[] = {{x, 76}, {x + 26, 76}, {x + 26, 92}, {x, 92}};
      canvas.area(box, kBand);
    }
    const Point sample[] = {{x, 84}, {x + 26, 84}};
    canvas.line(sample, entry.color, entry.width);
    canvas.text({x + 34, 88.5}, entry.text, {.size = 13, .color = kInk});
    x += 34 + entry.room;
  }
}

}  // namespace

std::vector<double> nice_ticks(double low, double high, int wanted) {
  const double rough = (high - low) / wanted;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double nice : {1.0, 2.0, 5.0}) {
    if (nice * power >= rough * 0.999) {
      step = nice * power;
      break;
    }
  }
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9);
  const double last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

void draw_learning_curve(Canvas& canvas, const LearningCurve& curve) {
  const Point paper[] = {{0, 0}, {kWidth, 0}, {kWidth, kHeight}, {0, kHeight}};
  canvas.area(paper, {255, 255, 255});
  canvas.text({kLeft, 36}, curve.title, {.size = 20, .color = kInk, .bold = true});
  canvas.text({kLeft, 59}, curve.subtitle, {.size = 14, .color = kQuiet});
  draw_legend(canvas);

  double low = 0;
  double high = 1;
  for (std::size_t i = 0; i < curve.mean.size(); ++i) {
    low = std::min({low, curve.mean[i] - curve.spread[i], curve.policy[i]});
    high = std::max({high, curve.mean[i] + curve.spread[i], curve.best[i], curve.policy[i]});
  }
  const double x_last = std::max(static_cast<double>(curve.mean.size()) - 1, 1.0);
  const std::vector<double> y_ticks = nice_ticks(low, high, 6);
  // A little below zero must not cost a whole tick of empty paper.
  const double y_low = std::max(y_ticks.front(), low - 0.02 * (y_ticks.back() - low));
  const Frame frame{.x_last = x_last, .y_low = y_low, .y_high = y_ticks.back()};
  draw_axes(canvas, frame, nice_ticks(0, x_last, static_cast<int>(std::min(x_last, 8.0))), y_ticks);
  if (curve.mean.empty()) return;

  std::vector<double> above = curve.mean;
  std::vector<double> below = curve.mean;
  for (std::size_t i = 0; i < above.size(); ++i) {
    above[i] += curve.spread[i];
    below[i] -= curve.spread[i];
  }
  std::vector<Point> band = frame.trace(above);
  const std::vector<Point> lower = frame.trace(below);
  band.insert(band.end(), lower.rbegin(), lower.rend());
  canvas.area(band, kBand);
  const double dot = curve.mean.size() == 1 ? 4 : 0;  // one iteration is a point, not a line
  canvas.line(frame.trace(curve.best), kBest, 1.3 + dot);
  canvas.line(frame.trace(curve.policy), kPolicy, 1.6 + dot);
  canvas.line(frame.trace(curve.mean), kBlue, 2.6 + dot);
}

void write_svg(const std::filesystem::path& path, const LearningCurve& curve) {
  const std::unique_ptr<Canvas> canvas = svg_canvas(kWidth, kHeight);
  draw_learning_curve(*canvas, curve);
  canvas->save(path);
}

void write_png(const std::filesystem::path& path, const LearningCurve& curve) {
  constexpr int kScale = 2;  // sharp on dense screens too
  const std::unique_ptr<Canvas> canvas = png_canvas(kWidth, kHeight, kScale);
  draw_learning_curve(*canvas, curve);
  canvas->save(path);
}

}  // namespace rl_es
