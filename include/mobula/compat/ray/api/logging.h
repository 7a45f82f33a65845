// RAYLOG(INFO) << ...: a line on standard error, whose level the environment variable
// RAY_BACKEND_LOG_LEVEL may raise or lower (debug, info, warning, error, fatal).
#pragma once

#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>

namespace ray {

enum class RayLoggerLevel { DEBUG = -1, INFO = 0, WARNING = 1, ERROR = 2, FATAL = 3 };

inline bool IsLevelEnabled(RayLoggerLevel level) {
  static const RayLoggerLevel lowest = [] {
    const char* given = std::getenv("RAY_BACKEND_LOG_LEVEL");
    const std::string_view name = given ? given : "";
    if (name == "debug") return RayLoggerLevel::DEBUG;
    if (name == "warning") return RayLoggerLevel::WARNING;
    if (name == "error") return RayLoggerLevel::ERROR;
    if (name == "fatal") return RayLoggerLevel::FATAL;
    return RayLoggerLevel::INFO;
  }();
  return level >= lowest;
}

namespace internal {

// Gathers a line and writes it at its end, so that lines of several threads do not mix.
class LogLine {
 public:
  LogLine(std::string_view file, int line, RayLoggerLevel level) : level_(level) {
    file.remove_prefix(file.rfind('/') + 1);  // npos + 1 is 0
    text_ << "[" << "DIWEF"[static_cast<int>(level) + 1] << " " << file << ":" << line << "] ";
  }
  ~LogLine() {
    text_ << '\n';
    std::cerr << text_.str() << std::flush;
    if (level_ == RayLoggerLevel::FATAL) std::abort();
  }
  template <class T>
  LogLine& operator<<(const T& part) {
    text_ << part;
    return *this;
  }

 private:
  RayLoggerLevel level_;
  std::ostringstream text_;
};

}  // namespace internal
}  // namespace ray

#define RAYLOG(level)                                  \
  if (ray::IsLevelEnabled(ray::RayLoggerLevel::level)) \
  ray::internal::LogLine(__FILE__, __LINE__, ray::RayLoggerLevel::level)
