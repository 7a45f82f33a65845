// Decides what the command line of rl_es means.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "environment.h"

namespace rl_es {

struct Options {
  EnvironmentKind environment = EnvironmentKind::kHopper;
  int iterations = 0;
  std::uint64_t seed = 1;
  int workers = 1;                    // CPUs that simulate
  std::optional<double> time_limit;   // seconds of training; absent: none
  std::filesystem::path output = "out";
  std::filesystem::path play;         // a saved policy to play instead of training; empty: train
  bool help = false;
};

// Throws std::invalid_argument: what is wrong and what would be right.
Options parse_options(std::span<const char* const> arguments);

std::string help_text();

}  // namespace rl_es
