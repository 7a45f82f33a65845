// Decides what a person sees while training runs: a panel redrawn in place on a terminal,
// one plain line for each iteration when the output goes to a file or a pipe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "es.h"

namespace rl_es {

// Latencies of the policy server as its client saw them, microseconds.
struct ServingFigures {
  std::int64_t requests = 0;
  double p50_us = 0;
  double p99_us = 0;
};

struct Progress {
  std::string title;
  IterationSummary latest;      // of the last finished iteration
  std::int32_t finished = 0;    // iterations
  std::int32_t iterations = 0;  // to do in all
  std::int32_t pairs_done = 0;  // of the running iteration
  std::int32_t pairs = 0;
  double best_policy_reward = 0;
  double best_distance = 0;            // metres, of the policy with that reward
  double physics_steps_per_second = 0;
  double tasks_per_second = 0;         // tasks and actor calls
  ServingFigures serving;
  double seconds = 0;
  double seconds_left = 0;
};

std::string plain_line(const Progress& progress);

// Lines of at most `columns` characters; history holds one reward for each finished iteration.
std::vector<std::string> panel(const Progress& progress, std::span<const double> history,
                               std::size_t columns);

// Values as a row of blocks, squeezed into at most `columns` characters.
std::string sparkline(std::span<const double> values, std::size_t columns);

class LiveDisplay {
 public:
  // out is borrowed; a panel when it is a terminal.
  explicit LiveDisplay(std::FILE* out);

  void iteration_finished(const Progress& progress);
  void tick(const Progress& progress);  // may be called often: redraws ten times a second at most

 private:
  void redraw(const Progress& progress);

  std::FILE* out_;
  bool terminal_;
  std::size_t lines_drawn_ = 0;
  double drawn_at_ = -1;
  std::vector<double> history_;
};

}  // namespace rl_es
