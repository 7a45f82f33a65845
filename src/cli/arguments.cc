#include "cli/arguments.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace mobula::cli {
namespace {

bool contains(const std::vector<std::string_view>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The number at the start of the text, and what follows it.
std::optional<double> leading_number(const std::string& text, std::string* rest) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !std::isfinite(value) || value < 0) return {};
  *rest = end;
  return value;
}

}  // namespace

Arguments::Arguments(const Known& known, const std::vector<std::string>& command_line) {
  for (std::size_t i = 0; i < command_line.size(); ++i) {
    const std::string& word = command_line[i];
    if (!word.starts_with("--")) {
      words_.push_back(word);
      continue;
    }
    const std::size_t equals = std::min(word.find('='), word.size());
    const std::string name = word.substr(2, equals - 2);
    const bool has_value = equals < word.size();
    if (contains(known.flags, name)) {
      if (has_value) throw UsageError("--" + name + " takes no value");
      given_[name];
    } else if (!contains(known.options, name)) {
      throw UsageError("there is no option --" + name);
    } else if (!has_value && i + 1 == command_line.size()) {
      throw UsageError("--" + name + " needs a value");
    } else {
      given_[name] = has_value ? word.substr(equals + 1) : command_line[++i];
    }
  }
  if (words_.size() > known.words_max)
    throw UsageError("'" + words_[known.words_max] + "' is one word too many");
}

std::optional<std::string> Arguments::text(const std::string& option) const {
  const auto found = given_.find(option);
  return found == given_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<double> Arguments::number(const std::string& option) const {
  const auto given = text(option);
  if (!given) return {};
  std::string rest;
  const auto value = leading_number(*given, &rest);
  if (!value || !rest.empty())
    throw UsageError("--" + option + " is '" + *given + "', and must be a number from 0 on");
  return value;
}

std::optional<std::uint64_t> Arguments::bytes(const std::string& option) const {
  const auto given = text(option);
  if (!given) return {};
  std::string unit;
  const auto value = leading_number(*given, &unit);
  if (unit.ends_with("iB")) unit.resize(unit.size() - 2);
  const std::size_t power = std::string_view("KMGT").find(unit.empty() ? 'x' : unit[0]);
  const bool known = unit.empty() || (unit.size() == 1 && power != std::string_view::npos);
  const double bytes =
      value.value_or(0) * (unit.empty() ? 1 : std::pow(1024, static_cast<double>(power + 1)));
  if (!value || !known || bytes > 1e18)
    throw UsageError("--" + option + " is '" + *given + "', and must be bytes such as 512M or 2G");
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace mobula::cli
