// What the driver's Config says about log lines, for itself and for the workers.
#pragma once

#include <string_view>

#include "runtime/log_line.h"

namespace mobula::runtime {

// How workers hear of it: the node and they have the driver's environment, with these.
inline constexpr const char* kLogLevelVariable = "MOBULA_LOG_LEVEL";
inline constexpr const char* kLogFormatVariable = "MOBULA_LOG_FORMAT";

// For this process; an empty word changes nothing. Throws Error: there is no such word.
void configure_log(std::string_view level, std::string_view format);

}  // namespace mobula::runtime
