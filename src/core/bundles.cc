#include "core/bundles.h"

namespace mobula::core {
namespace {

// No name of a user's resource has one: it would not travel.
constexpr char kSeparator = '\n';
constexpr std::int64_t kMembersMax = std::int64_t{1} << 40;

std::string name_in(std::string_view resource, std::uint32_t group) {
  return std::string(resource) + kSeparator + std::to_string(group);
}
std::string name_in(std::string_view resource, std::uint32_t group, std::size_t bundle) {
  return name_in(resource, group) + "." + std::to_string(bundle);
}

}  // namespace

ResourceAmounts sum_of(const Bundles& bundles) {
  ResourceAmounts sum;
  for (const ResourceAmounts& bundle : bundles) sum.add(bundle);
  return sum;
}

ResourceAmounts offer_of(std::uint32_t group, const Bundles& bundles) {
  ResourceAmounts offer;
  for (std::size_t i = 0; i < bundles.size(); ++i) {
    for (const auto& [name, units] : bundles[i].by_name())
      offer.set_units(name_in(name, group, i), units);
  }
  const ResourceAmounts sum = sum_of(bundles);
  for (const auto& [name, units] : sum.by_name()) offer.set_units(name_in(name, group), units);
  offer.set_units(name_in("", group), kMembersMax);
  return offer;
}

ResourceAmounts demand_in(std::uint32_t group, std::optional<std::uint32_t> bundle,
                          const ResourceAmounts& demand) {
  ResourceAmounts named;
  for (const auto& [name, units] : demand.by_name()) {
    named.set_units(name_in(name, group), units);
    if (bundle) named.set_units(name_in(name, group, *bundle), units);
  }
  named.set_units(name_in("", group), 1);
  return named;
}

std::string_view resource_of(std::string_view name) {
  return name.substr(0, name.find(kSeparator));
}

bool is_of_group(std::string_view name) { return name.find(kSeparator) != name.npos; }

ResourceAmounts of_node(const ResourceAmounts& amounts) {
  ResourceAmounts own;
  for (const auto& [name, units] : amounts.by_name()) {
    if (!is_of_group(name)) own.set_units(name, units);
  }
  return own;
}

std::string describe_amount(std::string_view name, std::int64_t units) {
  std::string text = std::string(resource_of(name)) + " " + describe_units(units);
  if (!is_of_group(name)) return text;
  const std::size_t dot = name.find('.', name.find(kSeparator));
  return text + (dot == name.npos ? " of the group's bundles"
                                  : " of bundle " + std::string(name.substr(dot + 1)));
}

}  // namespace mobula::core
