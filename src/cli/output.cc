#include "cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "runtime/log_line.h"

namespace mobula::cli {
namespace {

std::string text_of(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  char number[40];
  std::snprintf(number, sizeof number, "%.15g", std::get<double>(cell));
  return number;
}

std::string small(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(c == ' ' ? '_' : std::tolower(c));
  });
  return text;
}

std::size_t width_of_terminal() {
  winsize size{};
  if (!::isatty(STDOUT_FILENO) || ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 ||
      size.ws_col == 0)
    return std::string::npos;
  return size.ws_col;
}

void print_json(const Table& table) {
  for (const auto& row : table.rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += line.empty() ? "{" : ", ";
      line += runtime::quoted(small(table.columns[i])) + ": ";
      line += std::holds_alternative<double>(row[i])
                  ? text_of(row[i])
                  : runtime::quoted(std::get<std::string>(row[i]));
    }
    std::printf("%s}\n", line.c_str());
  }
}

}  // namespace

void print(const Table& table, bool json) {
  if (json) return print_json(table);
  std::vector<std::size_t> widths;
  for (const std::string& column : table.columns) widths.push_back(column.size());
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], text_of(row[i]).size());
  }
  const std::size_t width_max = width_of_terminal();
  const auto print_line = [&](const auto& cells, const auto& text) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string cell = text(cells[i]);
      line += cell;
      if (i + 1 < cells.size()) line += std::string(widths[i] - cell.size() + 2, ' ');
    }
    std::printf("%s\n", line.substr(0, width_max).c_str());
  };
  print_line(table.columns, [](const std::string& name) { return name; });
  for (const auto& row : table.rows) print_line(row, text_of);
}

std::string describe_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, kUnits[unit]);
  return text;
}

std::string describe_seconds(double seconds) {
  char text[32];
  const char* unit = seconds < 120 ? "s" : seconds < 7200 ? "min" : seconds < 172800 ? "h" : "d";
  const double size = seconds < 120 ? 1 : seconds < 7200 ? 60 : seconds < 172800 ? 3600 : 86400;
  std::snprintf(text, sizeof text, "%.0f %s", seconds / size, unit);
  return text;
}

}  // namespace mobula::cli
