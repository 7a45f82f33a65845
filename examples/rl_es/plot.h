// Decides what the picture of a training run shows: the mean with its spread, the best
// episode of each iteration, and the policy itself, over iterations.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "canvas.h"

namespace rl_es {

struct LearningCurve {
  std::string title;
  std::string subtitle;
  // One entry for each iteration; all four are of one length.
  std::vector<double> mean;
  std::vector<double> spread;
  std::vector<double> best;
  std::vector<double> policy;
};

// Ticks at 1, 2 or 5 times a power of ten that cover [low, high]; about `wanted` of them.
std::vector<double> nice_ticks(double low, double high, int wanted);

void draw_learning_curve(Canvas& canvas, const LearningCurve& curve);

// Both throw std::runtime_error that names the file.
void write_svg(const std::filesystem::path& path, const LearningCurve& curve);
void write_png(const std::filesystem::path& path, const LearningCurve& curve);

}  // namespace rl_es
