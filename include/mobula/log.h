// One line of log with fields, from wherever the program runs.
//
//   mobula::log("episode done", {{"reward", 3.5}, {"steps", 1000}});
//   mobula::log(mobula::LogLevel::Warning, "no display");
//
//   time=2026-01-31T12:00:00.123456Z level=info text="episode done" pid=4711 job=.. task=simulate
//   task_id=.. actor=Simulator actor_name=left actor_id=.. reward=3.5 steps=1000
//
// It goes to the standard error of its process, in one piece; a worker's comes to the driver's with
// the prefix that all its output has. Config.log_level and log_format choose what is written and
// how, or the environment: MOBULA_LOG_LEVEL, MOBULA_LOG_FORMAT.
#pragma once

#include <concepts>
#include <initializer_list>
#include <source_location>
#include <string>
#include <string_view>

namespace mobula {

enum class LogLevel { Debug, Info, Warning, Error };

// A key and its value: text, a number, or true and false. A key that the line has already gets a
// "_" more; in a key other characters than letters, digits, ".", "_" and "-" become "_". Values are
// cut at 4 KiB.
class LogField {
 public:
  LogField(std::string_view key, std::string_view value);
  LogField(std::string_view key, const char* value) : LogField(key, std::string_view(value)) {}
  LogField(std::string_view key, const std::string& value)
      : LogField(key, std::string_view(value)) {}
  LogField(std::string_view key, double value);
  LogField(std::string_view key, std::same_as<bool> auto value)
      : key_(key), value_(value ? "true" : "false"), is_text_(false) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  LogField(std::string_view key, T value)
      : key_(key), value_(std::to_string(value)), is_text_(false) {}

  const std::string& key() const { return key_; }
  const std::string& value() const { return value_; }
  bool is_text() const { return is_text_; }

 private:
  std::string key_;
  std::string value_;
  bool is_text_;
};

// Writes a line unless its level is below the one chosen. Any thread. The text is cut at 4 KiB, the
// line at 32.
//
// A place in the program may write 100 lines at once and then 20 a second. What is above that is
// left out; the next line from there says how many (suppressed=..). So a flood of one drowns no
// other.
void log(LogLevel level, std::string_view text, std::initializer_list<LogField> fields = {},
         const std::source_location& where = std::source_location::current());
// LogLevel::Info
void log(std::string_view text, std::initializer_list<LogField> fields = {},
         const std::source_location& where = std::source_location::current());

}  // namespace mobula
