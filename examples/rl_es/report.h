// Decides what a finished training leaves behind: the curve as SVG, PNG and CSV, the policy,
// and a few lines of text that a person reads first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "es.h"
#include "live_display.h"

namespace rl_es {

struct TrainingReport {
  Recipe recipe;
  int workers = 0;
  double seconds = 0;          // of training
  double control_seconds = 0;  // simulated time of one control step
  int physics_steps = 0;       // for each control step
  std::vector<IterationSummary> curve;
  std::vector<float> best_snapshot;
  std::vector<Episode> before;  // with the policy that training began with
  std::vector<Episode> after;   // with the best policy, starts it has not seen
  std::int64_t calls = 0;       // tasks and actor calls
  ServingFigures serving;
  std::int32_t served_version = 0;  // newest policy that answered a request
};

// How a policy did: distance, time on its feet, share of time in the air.
std::string describe(const std::vector<Episode>& episodes, double control_seconds);

std::string summary_text(const TrainingReport& report);

// Throws std::runtime_error that names the folder.
void make_folder(const std::filesystem::path& folder);

// Writes learning_curve.{svg,png,csv}, policy.txt and summary.txt into the folder, which is
// made if it is missing. The CSV holds no times: it is the same bytes for the same seed.
// Throws std::runtime_error that names the file.
void write_report(const std::filesystem::path& folder, const TrainingReport& report);

}  // namespace rl_es
