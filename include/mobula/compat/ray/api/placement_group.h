// Ray's placement groups.
//
// One that can never be had is no error in Ray, where nodes may come: it stays PENDING, and what is
// placed in it never runs. So it does here, in the process that has made it.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mobula/mobula.h"
#include "object_ref.h"

namespace ray {

enum class PlacementStrategy {
  PACK = 0,
  SPREAD = 1,
  STRICT_PACK = 2,
  STRICT_SPREAD = 3,
  UNRECOGNIZED = -1
};
enum PlacementGroupState {
  PENDING = 0,
  PREPARED = 1,
  CREATED = 2,
  REMOVED = 3,
  RESCHEDULING = 4,
  UNRECOGNIZED = -1,
};
struct PlacementGroupCreationOptions {
  std::string name;
  std::vector<std::unordered_map<std::string, double>> bundles;
  PlacementStrategy strategy;
};

class PlacementGroup;

namespace internal {

// A group that can never be had.
struct InfeasibleGroup {
  PlacementGroupCreationOptions options;
  bool removed = false;
};
using InfeasibleGroups = std::map<std::string, InfeasibleGroup>;  // by id

// Those of the session that runs.
class KnownInfeasibleGroups {
 public:
  template <class Body>
  static auto with(const Body& body) {
    KnownInfeasibleGroups& known = all();
    const std::lock_guard lock(known.mutex_);
    const std::uint64_t session = mobula::detail::current_session();
    if (std::exchange(known.session_, session) != session) known.groups_.clear();
    return body(known.groups_);
  }

 private:
  static KnownInfeasibleGroups& all() {
    static KnownInfeasibleGroups known;
    return known;
  }
  std::mutex mutex_;
  std::uint64_t session_ = 0;
  InfeasibleGroups groups_;
};

inline std::string group_id(std::uint64_t id) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[id >> shift & 15];
  return text;
}

}  // namespace internal

class PlacementGroup {
 public:
  PlacementGroup() = default;
  PlacementGroup(std::string id, PlacementGroupCreationOptions options)
      : id_(std::move(id)), options_(std::move(options)) {}
  explicit PlacementGroup(const mobula::PlacementGroup& group)
      : id_(internal::group_id(group.id)), group_(group) {
    options_.name = group.name;
    for (const mobula::Bundle& bundle : group.bundles)
      options_.bundles.emplace_back(bundle.begin(), bundle.end());
    options_.strategy = static_cast<PlacementStrategy>(group.strategy);
  }

  std::string GetID() const { return id_; }
  std::string GetName() { return options_.name; }
  std::vector<std::unordered_map<std::string, double>> GetBundles() { return options_.bundles; }
  PlacementStrategy GetStrategy() { return options_.strategy; }
  // As it is now.
  PlacementGroupState GetState() {
    if (Empty()) return PlacementGroupState::UNRECOGNIZED;
    if (group_.id == 0) {
      return internal::KnownInfeasibleGroups::with([&](const internal::InfeasibleGroups& groups) {
        const auto known = groups.find(id_);
        const bool there = known != groups.end() && !known->second.removed;
        return there ? PlacementGroupState::PENDING : PlacementGroupState::REMOVED;
      });
    }
    return internal::translated([&] {
      for (const auto& [group, state] : mobula::placement_groups()) {
        if (group.id != group_.id || state == mobula::PlacementGroupState::Removed) continue;
        return state == mobula::PlacementGroupState::Created ? PlacementGroupState::CREATED
                                                             : PlacementGroupState::PENDING;
      }
      return PlacementGroupState::REMOVED;
    });
  }
  // True: it has its resources. False: it was removed, or had them not within the seconds.
  bool Wait(int timeout_seconds) {
    const std::chrono::seconds timeout(timeout_seconds);
    if (group_.id == 0) {
      if (GetState() == PlacementGroupState::PENDING) std::this_thread::sleep_for(timeout);
      return false;
    }
    return internal::translated([&] {
      try {
        return group_.wait(timeout);
      } catch (const mobula::PlacementGroupRemovedError&) {
        return false;
      }
    });
  }
  bool Empty() const { return id_.empty(); }

  // For the library. Throws mobula::UnschedulableError.
  const mobula::PlacementGroup& feasible() const {
    if (group_.id == 0 && !Empty())
      throw mobula::UnschedulableError("the placement group can never be had");
    return group_;
  }

 private:
  std::string id_;
  PlacementGroupCreationOptions options_{{}, {}, PlacementStrategy::UNRECOGNIZED};
  mobula::PlacementGroup group_;
};

// All that are there, but those that were removed.
inline std::vector<PlacementGroup> GetAllPlacementGroups() {
  std::vector<PlacementGroup> all;
  internal::translated([&] {
    for (const auto& [group, state] : mobula::placement_groups()) {
      if (state != mobula::PlacementGroupState::Removed) all.emplace_back(group);
    }
  });
  internal::KnownInfeasibleGroups::with([&](const internal::InfeasibleGroups& groups) {
    for (const auto& [id, group] : groups) {
      if (!group.removed) all.emplace_back(id, group.options);
    }
  });
  return all;
}

// An empty one: no group has this name now.
inline PlacementGroup GetPlacementGroup(const std::string& name) {
  for (PlacementGroup& group : GetAllPlacementGroups()) {
    if (group.GetName() == name) return std::move(group);
  }
  return {};
}

// Also one that was removed, if that is not too long ago; else an empty one.
inline PlacementGroup GetPlacementGroupById(const std::string& id) {
  const auto infeasible =
      internal::KnownInfeasibleGroups::with([&](const internal::InfeasibleGroups& groups) {
        const auto known = groups.find(id);
        return known == groups.end() ? PlacementGroup() : PlacementGroup(id, known->second.options);
      });
  if (!infeasible.Empty()) return infeasible;
  return internal::translated([&] {
    for (const auto& [group, state] : mobula::placement_groups()) {
      if (internal::group_id(group.id) == id) return PlacementGroup(group);
    }
    return PlacementGroup();
  });
}

// Throws RayException: there is a group of this name, or the bundles make no sense.
inline PlacementGroup CreatePlacementGroup(const PlacementGroupCreationOptions& options) {
  if (!options.name.empty() && !GetPlacementGroup(options.name).Empty())
    throw internal::RayException("there is a placement group \"" + options.name + "\" already");
  std::vector<mobula::Bundle> bundles;
  for (const auto& bundle : options.bundles) bundles.emplace_back(bundle.begin(), bundle.end());
  return internal::translated([&] {
    try {
      return PlacementGroup(mobula::placement_group(
          bundles, static_cast<mobula::Strategy>(options.strategy), {.name = options.name}));
    } catch (const mobula::UnschedulableError&) {
      return internal::KnownInfeasibleGroups::with([&](internal::InfeasibleGroups& groups) {
        const std::string id = "infeasible-" + std::to_string(groups.size());
        groups[id] = {options};
        return PlacementGroup(id, options);
      });
    }
  });
}

// With all that is in it. Nothing happens if there is no such group.
inline void RemovePlacementGroup(const std::string& id) {
  const bool infeasible =
      internal::KnownInfeasibleGroups::with([&](internal::InfeasibleGroups& groups) {
        const auto known = groups.find(id);
        if (known != groups.end()) known->second.removed = true;
        return known != groups.end();
      });
  if (infeasible) return;
  internal::translated([&] {
    mobula::PlacementGroup group;
    group.id = std::strtoull(id.c_str(), nullptr, 16);
    mobula::remove_placement_group(group);
  });
}

}  // namespace ray
