#include "report.h"

#include <cmath>
#include <cstdio>

#include "machine_limits.h"

namespace mobula::bench {
namespace {

struct Scale {
  double from;
  double factor;
  const char* unit;
};

std::string three_digits(double value) {
  const double size = std::fabs(value);
  const int decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || size == 0 ? 2 : 4;
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string scaled(double value, const std::vector<Scale>& scales) {
  for (const Scale& scale : scales) {
    if (value >= scale.from) return three_digits(value * scale.factor) + " " + scale.unit;
  }
  return three_digits(value * scales.back().factor) + " " + scales.back().unit;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      result += escape;
    } else {
      result += c;
    }
  }
  return result + '"';
}

std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

constexpr const char* kLine = "%-22s %12s  %-23s %12s %8s  %-32s %s";

std::string line_of(const std::string& row, const std::string& value, const std::string& spread,
                    const std::string& limit, const std::string& ratio,
                    const std::string& limit_name, const std::string& ray) {
  char text[512];
  std::snprintf(text, sizeof text, kLine, row.c_str(), value.c_str(), spread.c_str(), limit.c_str(),
                ratio.c_str(), limit_name.c_str(), ray.c_str());
  std::string result = text;
  result.erase(result.find_last_not_of(' ') + 1);
  return result;
}

}  // namespace

Summary summarize(const std::vector<Sample>& samples) {
  std::vector<double> values;
  std::vector<double> limits;
  std::vector<double> ratios;
  for (const Sample& sample : samples) {
    values.push_back(sample.value);
    limits.push_back(sample.limit);
    if (sample.limit != 0) ratios.push_back(sample.value / sample.limit);
  }
  return {median(values), quantile(values, 0), quantile(values, 1), median(limits),
          ratios.size() == samples.size() ? median(ratios) : std::nan("")};
}

std::string with_unit(double value, const std::string& unit) {
  if (unit == "1/s") return scaled(value, {{1e6, 1e-6, "M/s"}, {1e4, 1e-3, "k/s"}, {0, 1, "/s"}});
  if (unit == "us") return scaled(value, {{1e3, 1e-3, "ms"}, {0.1, 1, "us"}, {0, 1e3, "ns"}});
  if (unit == "ms") return scaled(value, {{1e3, 1e-3, "s"}, {0.1, 1, "ms"}, {0, 1e3, "us"}});
  if (unit == "s") return scaled(value, {{0.1, 1, "s"}, {0, 1e3, "ms"}});
  return three_digits(value) + " " + unit;
}

std::string table_head(const TableStyle& style) {
  const std::string head =
      line_of("row", "Mobula", "least .. greatest", "limit", "ratio", "limit is", "Ray");
  return style.terminal ? "\033[1m" + head + "\033[0m" : head;
}

std::string table_line(const Row& row, const Outcome& outcome, const TableStyle& style) {
  if (!outcome.skipped.empty()) return row.key + ": skipped: " + outcome.skipped;
  if (!outcome.error.empty()) {
    const std::string text = row.key + ": FAILED: " + outcome.error;
    return style.terminal ? "\033[31m" + text + "\033[0m" : text;
  }
  const Summary summary = summarize(outcome.samples);
  std::string line =
      line_of(row.key, with_unit(summary.value, row.unit),
              with_unit(summary.least, row.unit) + " .. " + with_unit(summary.greatest, row.unit),
              with_unit(summary.limit, row.unit),
              std::isnan(summary.ratio) ? "-" : three_digits(summary.ratio), row.limit,
              row.ray.empty() ? "-" : row.ray);
  for (const auto& [name, values] : outcome.notes) {
    const bool in_unit = name.starts_with('p');
    line += "\n  " + name + " " +
            (in_unit ? with_unit(median(values), row.unit) : three_digits(median(values)));
  }
  return line;
}

std::string json_line(const Row& row, const Outcome& outcome) {
  const bool none = !outcome.error.empty() || !outcome.skipped.empty();
  const double nan = std::nan("");
  const Summary summary = none ? Summary{nan, nan, nan, nan, nan} : summarize(outcome.samples);
  std::string line = "{\"row\":" + quoted(row.key) + ",\"value\":" + number(summary.value) +
                     ",\"unit\":" + quoted(row.unit) + ",\"limit\":" + number(summary.limit) +
                     ",\"ratio\":" + number(summary.ratio) + ",\"spread\":";
  line += none ? "null" : "[" + number(summary.least) + "," + number(summary.greatest) + "]";
  line += ",\"runs\":" + std::to_string(none ? 0 : outcome.samples.size()) +
          ",\"limit_name\":" + quoted(row.limit);
  if (!none) {
    for (const auto& [name, values] : outcome.notes)
      line += "," + quoted(name) + ":" + number(median(values));
  }
  if (!outcome.error.empty()) line += ",\"error\":" + quoted(outcome.error);
  if (!outcome.skipped.empty()) line += ",\"skipped\":" + quoted(outcome.skipped);
  return line + "}";
}

}  // namespace mobula::bench
