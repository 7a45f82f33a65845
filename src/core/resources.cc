#include "core/resources.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

namespace mobula::core {

namespace {

std::int64_t saturating_add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? std::numeric_limits<std::int64_t>::max()
               : std::numeric_limits<std::int64_t>::min();
}

std::int64_t saturating_subtract(std::int64_t a, std::int64_t b) {
  std::int64_t difference = 0;
  if (!__builtin_sub_overflow(a, b, &difference)) return difference;
  return b > 0 ? std::numeric_limits<std::int64_t>::min()
               : std::numeric_limits<std::int64_t>::max();
}

std::optional<ResourceRefusal::Why> refuse(const std::string& name, double amount) {
  using Why = ResourceRefusal::Why;
  if (name.empty()) return Why::EmptyName;
  if (std::isnan(amount)) return Why::NotANumber;
  if (std::isinf(amount)) return Why::Infinite;
  if (amount < 0) return Why::Negative;
  if (amount > ResourceAmounts::kLargest) return Why::TooLarge;
  const double scaled = amount * static_cast<double>(ResourceAmounts::kUnitsPerOne);
  // 0.1 * 10000 is not quite 1000: what a double cannot say is not the user's fault.
  const double tolerance = std::max(1e-6, scaled * 2 * std::numeric_limits<double>::epsilon());
  if (std::abs(scaled - std::round(scaled)) > tolerance) return Why::TooFine;
  return std::nullopt;
}

}  // namespace

std::variant<ResourceAmounts, ResourceRefusal> ResourceAmounts::parse(
    const std::map<std::string, double>& amounts) {
  ResourceAmounts parsed;
  for (const auto& [name, amount] : amounts) {
    if (const auto why = refuse(name, amount)) return ResourceRefusal{*why, name, amount};
    parsed.set_units(name, std::llround(amount * static_cast<double>(kUnitsPerOne)));
  }
  return parsed;
}

ResourceAmounts ResourceAmounts::from_units(const std::map<std::string, std::int64_t>& units) {
  ResourceAmounts amounts;
  for (const auto& [name, count] : units) amounts.set_units(name, count);
  return amounts;
}

bool ResourceAmounts::contains(const ResourceAmounts& demand) const {
  return first_lack(demand).empty();
}

std::string ResourceAmounts::first_lack(const ResourceAmounts& demand) const {
  for (const auto& [name, wanted] : demand.units_) {
    // Nothing is wanted of it, so it is not lacking even where the node is oversubscribed.
    if (wanted > 0 && units(name) < wanted) return name;
  }
  return {};
}

void ResourceAmounts::add(const ResourceAmounts& amounts) {
  for (const auto& [name, count] : amounts.units_) {
    set_units(name, saturating_add(units(name), count));
  }
}

void ResourceAmounts::subtract(const ResourceAmounts& amounts) {
  for (const auto& [name, count] : amounts.units_) {
    set_units(name, saturating_subtract(units(name), count));
  }
}

std::int64_t ResourceAmounts::units(std::string_view name) const {
  const auto it = units_.find(name);
  return it == units_.end() ? 0 : it->second;
}

void ResourceAmounts::set_units(std::string_view name, std::int64_t units) {
  const auto it = units_.find(name);
  if (it != units_.end()) {
    if (units == 0) {
      units_.erase(it);
    } else {
      it->second = units;
    }
  } else if (units != 0) {
    units_.emplace(name, units);
  }
}

std::string ResourceAmounts::describe() const {
  if (units_.empty()) return "nothing";
  std::string text;
  for (const auto& [name, count] : units_) {
    if (!text.empty()) text += ", ";
    text += name + " " + describe_units(count);
  }
  return text;
}

std::string ResourceRefusal::describe() const {
  char number[32];
  std::snprintf(number, sizeof number, "%.10g", amount);
  const std::string is = name + " is " + number + ", but an amount ";
  switch (why) {
    case Why::EmptyName: return std::string("a resource of amount ") + number + " has no name";
    case Why::NotANumber:
    case Why::Infinite: return is + "must be a finite number";
    case Why::Negative: return is + "cannot be negative";
    case Why::TooLarge: return is + "cannot be above 1e14";
    case Why::TooFine: return is + "cannot be finer than 0.0001";
  }
  return is + "cannot be read";  // a value that is not of the enumeration
}

std::string describe_units(std::int64_t units) {
  // Unsigned, since the smallest int64 has no positive counterpart.
  const auto magnitude = units < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(units)
                                   : static_cast<std::uint64_t>(units);
  constexpr auto kOne = static_cast<std::uint64_t>(ResourceAmounts::kUnitsPerOne);
  std::string text = (units < 0 ? "-" : "") + std::to_string(magnitude / kOne);
  if (const std::uint64_t rest = magnitude % kOne; rest != 0) {
    std::string digits = std::to_string(kOne + rest).substr(1);  // keeps the leading zeros
    digits.erase(digits.find_last_not_of('0') + 1);
    text += "." + digits;
  }
  return text;
}

}  // namespace mobula::core
