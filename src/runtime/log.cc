#include "mobula/log.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cmath>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "mobula/error.h"
#include "mobula/session.h"
#include "runtime/journal.h"
#include "runtime/log.h"
#include "runtime/process.h"

namespace mobula {
namespace {

constexpr std::size_t kValueMax = 4 << 10;
constexpr const char* kLevelNames[] = {"debug", "info", "warning", "error"};

// Chosen by Config, otherwise by the environment, which is also how workers hear of Config.
struct Settings {
  std::atomic<LogLevel> level{
      runtime::parse_log_level(variable(runtime::kLogLevelVariable)).value_or(LogLevel::Info)};
  std::atomic<runtime::LogFormat> format{
      runtime::parse_log_format(variable(runtime::kLogFormatVariable))
          .value_or(runtime::LogFormat::Text)};

  static std::string_view variable(const char* name) {
    const char* value = ::getenv(name);
    return value ? value : "";
  }
};
Settings& settings() {
  static Settings the_settings;
  return the_settings;
}

// By file and line. Never destroyed: static objects may log in their destructors.
struct Places {
  std::mutex mutex;  // held while a line is written, so that lines do not mix
  std::unordered_map<std::string, runtime::LogLimit> limits;
};
Places& places() {
  static auto* const all = new Places;
  return *all;
}

void add_context(std::vector<LogField>& fields) {
  fields.emplace_back("pid", ::getpid());
  if (!is_initialized()) return;
  try {
    const TaskInfo info = this_task();
    fields.emplace_back("job", info.job_id);
    fields.emplace_back("task", info.name);
    fields.emplace_back("task_id", info.task_id);
    if (info.actor_id.empty()) return;
    fields.emplace_back("actor", info.actor_class);
    if (!info.actor_name.empty()) fields.emplace_back("actor_name", info.actor_name);
    fields.emplace_back("actor_id", info.actor_id);
  } catch (const Error&) {  // the session has just ended
  }
}

// A pipe that nobody reads holds the writer up, like every other output.
void write_all(std::string_view line) {
  while (!line.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    line.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace

namespace runtime {

void configure_log(std::string_view level, std::string_view format) {
  if (!level.empty()) {
    const auto chosen = parse_log_level(level);
    if (!chosen)
      throw Error("Config.log_level is '" + std::string(level) +
                  "'; it is one of debug, info, warning, error");
    settings().level = *chosen;
  }
  if (!format.empty()) {
    const auto chosen = parse_log_format(format);
    if (!chosen)
      throw Error("Config.log_format is '" + std::string(format) + "'; it is text or json");
    settings().format = *chosen;
  }
}

}  // namespace runtime

LogField::LogField(std::string_view key, std::string_view value)
    : key_(key), value_(value.substr(0, kValueMax)), is_text_(true) {
  if (value.size() > kValueMax) value_ += "...";
}

LogField::LogField(std::string_view key, double value)
    : key_(key), is_text_(!std::isfinite(value)) {
  char text[40];
  value_.assign(text, std::to_chars(text, text + sizeof text, value).ptr);
}

void log(LogLevel level, std::string_view text, std::initializer_list<LogField> given,
         const std::source_location& where) {
  if (level < settings().level.load(std::memory_order_relaxed)) return;
  if (runtime::repeating) return;
  Places& all = places();
  std::uint64_t suppressed = 0;
  const std::string place = std::string(where.file_name()) + ":" + std::to_string(where.line()) +
                            ":" + std::to_string(where.column());
  {
    const std::lock_guard lock(all.mutex);
    if (!all.limits[place].admit(runtime::now_ns(), suppressed)) return;
  }
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::vector<LogField> fields;
  fields.emplace_back("time", runtime::utc_time(now.tv_sec, now.tv_nsec));
  fields.emplace_back("level", kLevelNames[static_cast<std::size_t>(level)]);
  fields.emplace_back("text", text);
  if (suppressed > 0) fields.emplace_back("suppressed", suppressed);
  add_context(fields);
  fields.insert(fields.end(), given.begin(), given.end());
  const std::string line = runtime::log_line(settings().format.load(), fields);
  const std::lock_guard lock(all.mutex);
  write_all(line);
}

void log(std::string_view text, std::initializer_list<LogField> fields,
         const std::source_location& where) {
  log(LogLevel::Info, text, fields, where);
}

}  // namespace mobula
