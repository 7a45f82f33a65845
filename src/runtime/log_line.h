// What a line of log looks like, and how many a place in the program may write.
//
// Pure: no clock, no output.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mobula/log.h"

namespace mobula::runtime {

enum class LogFormat { Text, Json };

// As Config and the environment spell them; nothing: no such word.
std::optional<LogLevel> parse_log_level(std::string_view word);
std::optional<LogFormat> parse_log_format(std::string_view word);

// Between quotation marks, as JSON has it; bytes that are no UTF-8 become U+FFFD.
std::string quoted(std::string_view text);

// One line, its end included, whatever the values contain. Each key is there once: a field of the
// user's with the name of an earlier one gets a "_" more.
std::string log_line(LogFormat format, const std::vector<LogField>& fields);

// "2026-01-31T12:00:00.123456Z"
std::string utc_time(std::int64_t seconds, std::int64_t nanoseconds);

// Lets a burst through, then so many a second.
class LogLimit {
 public:
  static constexpr double kBurst = 100;
  static constexpr double kPerSecond = 20;

  // True: a line may be written; `suppressed`: how many were not since the last.
  bool admit(std::uint64_t now_ns, std::uint64_t& suppressed);

 private:
  double room_ = kBurst;
  std::uint64_t at_ns_ = 0;
  std::uint64_t suppressed_ = 0;
};

}  // namespace mobula::runtime
