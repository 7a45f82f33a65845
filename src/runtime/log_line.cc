#include "runtime/log_line.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <set>

namespace mobula::runtime {
namespace {

constexpr std::size_t kLineMax = 32 << 10;

std::string clean(std::string_view key) {
  std::string result(key.substr(0, 100));
  for (char& c : result) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && c != '.' && c != '_' && c != '-') c = '_';
  }
  return result.empty() ? "_" : result;
}

bool is_control(char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }

// Length of the UTF-8 sequence that text begins with; 0: it begins with none.
std::size_t sequence(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const std::size_t length = first < 0x80           ? 1
                             : (first >> 5) == 0x06 ? 2
                             : (first >> 4) == 0x0e ? 3
                             : (first >> 3) == 0x1e ? 4
                                                    : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) >> 6) != 0x02) return 0;
  }
  // Too long a form, a half of a pair, beyond the last character.
  const bool wrong = (length == 2 && first < 0xc2) || (first == 0xe0 && byte(1) < 0xa0) ||
                     (first == 0xed && byte(1) > 0x9f) || (first == 0xf0 && byte(1) < 0x90) ||
                     (first == 0xf4 && byte(1) > 0x8f) || first > 0xf4;
  return wrong ? 0 : length;
}

bool needs_quotes(std::string_view text) {
  return text.empty() || std::any_of(text.begin(), text.end(), [](char c) {
           return c == ' ' || c == '"' || c == '=' || c == '\\' || is_control(c) ||
                  static_cast<unsigned char>(c) >= 0x80;
         });
}

}  // namespace

std::string quoted(std::string_view text) {
  std::string result = "\"";
  while (!text.empty()) {
    const std::size_t length = sequence(text);
    const char c = text[0];
    if (length == 0) {
      result += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      result += {'\\', c};
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (is_control(c)) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      result += code;
    } else {
      result.append(text.substr(0, length));
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return result + "\"";
}

std::optional<LogLevel> parse_log_level(std::string_view word) {
  if (word == "debug") return LogLevel::Debug;
  if (word == "info") return LogLevel::Info;
  if (word == "warning") return LogLevel::Warning;
  if (word == "error") return LogLevel::Error;
  return {};
}

std::optional<LogFormat> parse_log_format(std::string_view word) {
  if (word == "text") return LogFormat::Text;
  if (word == "json") return LogFormat::Json;
  return {};
}

std::string log_line(LogFormat format, const std::vector<LogField>& fields) {
  const bool json = format == LogFormat::Json;
  std::string line = json ? "{" : "";
  std::set<std::string> keys;
  for (const LogField& field : fields) {
    std::string key = clean(field.key());
    while (!keys.insert(key).second) key += '_';
    const bool quotes = json ? field.is_text() : field.is_text() && needs_quotes(field.value());
    const std::string value = quotes ? quoted(field.value()) : field.value();
    if (line.size() + key.size() + value.size() > kLineMax) break;
    if (keys.size() > 1) line += json ? "," : " ";
    line += json ? "\"" + key + "\":" + value : key + "=" + value;
  }
  return line + (json ? "}\n" : "\n");
}

std::string utc_time(std::int64_t seconds, std::int64_t nanoseconds) {
  const auto time = static_cast<time_t>(seconds);
  tm utc{};
  ::gmtime_r(&time, &utc);
  char text[80];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", utc.tm_year + 1900,
                utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                static_cast<int>(nanoseconds / 1000));
  return text;
}

bool LogLimit::admit(std::uint64_t now_ns, std::uint64_t& suppressed) {
  if (at_ns_ != 0 && now_ns > at_ns_)
    room_ = std::min(kBurst, room_ + static_cast<double>(now_ns - at_ns_) * 1e-9 * kPerSecond);
  at_ns_ = now_ns;
  if (room_ < 1) {
    ++suppressed_;
    return false;
  }
  room_ -= 1;
  suppressed = suppressed_;
  suppressed_ = 0;
  return true;
}

}  // namespace mobula::runtime
