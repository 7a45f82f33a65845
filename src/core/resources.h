// Decides what a demand for resources means, and whether it fits into what is there.
//
// Amounts are whole numbers of 1/10000 (the granularity of Ray), so that taking 0.1 ten times
// and giving it back ten times ends where it began: doubles would leave crumbs, and a node
// with crumbs missing never fits its largest task again.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>

namespace mobula::core {

inline constexpr std::string_view kCpu = "CPU";

struct ResourceRefusal;

// How much of each named resource: a node's capacity, a demand, or what is free. A name that
// is absent counts as zero, and zeros are not stored, so equal amounts compare equal.
// What is free may fall below zero while a node is oversubscribed; a parsed amount never does.
class ResourceAmounts {
 public:
  static constexpr std::int64_t kUnitsPerOne = 10'000;
  // The largest amount of one resource, in ones: 100 TB when the resource is bytes.
  static constexpr double kLargest = 1e14;

  ResourceAmounts() = default;

  // Reads amounts in ones, as users write them. Refused: an empty name, NaN, infinity, a
  // negative amount, one above kLargest, and one finer than 1/10000. The first refusal in
  // order of names is the one returned.
  static std::variant<ResourceAmounts, ResourceRefusal> parse(
      const std::map<std::string, double>& amounts);

  // Amounts in 1/10000, as they travel and as tests write them.
  static ResourceAmounts from_units(const std::map<std::string, std::int64_t>& units);

  [[nodiscard]] bool contains(const ResourceAmounts& demand) const;
  // Both stop at the limits of int64 instead of wrapping round.
  void add(const ResourceAmounts& amounts);
  void subtract(const ResourceAmounts& amounts);

  // In 1/10000; 0 for a name that is absent.
  [[nodiscard]] std::int64_t units(std::string_view name) const;
  void set_units(std::string_view name, std::int64_t units);

  // The name of the first demanded resource of which there is too little; empty if all fit.
  [[nodiscard]] std::string first_lack(const ResourceAmounts& demand) const;

  // "CPU 2, GPU 0.5"; "nothing" when all is zero.
  [[nodiscard]] std::string describe() const;

  [[nodiscard]] bool empty() const { return units_.empty(); }
  [[nodiscard]] const std::map<std::string, std::int64_t, std::less<>>& by_name() const {
    return units_;
  }

  friend bool operator==(const ResourceAmounts&, const ResourceAmounts&) = default;

 private:
  std::map<std::string, std::int64_t, std::less<>> units_;  // never a zero
};

struct ResourceRefusal {
  enum class Why { EmptyName, NotANumber, Infinite, Negative, TooLarge, TooFine };

  Why why;
  std::string name;
  double amount;

  // One sentence: "CPU is -1, but an amount cannot be negative".
  [[nodiscard]] std::string describe() const;
};

// 5000 is "0.5".
std::string describe_units(std::int64_t units);

}  // namespace mobula::core
