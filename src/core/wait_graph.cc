#include "core/wait_graph.h"

#include <algorithm>
#include <set>
#include <utility>

namespace mobula::core {

void WaitGraph::add(WaitNode node, std::vector<WaitNode> targets, std::size_t needed) {
  waits_.insert_or_assign(node, Wait{std::move(targets), needed});
}

void WaitGraph::add(WaitNode node, std::vector<WaitNode> targets) {
  const std::size_t all = targets.size();
  add(node, std::move(targets), all);
}

std::map<WaitNode, WaitNode> WaitGraph::stuck() const {
  // What can go on spreads from those that wait for nothing, against the direction of waiting.
  std::map<WaitNode, std::size_t> missing;
  std::map<WaitNode, std::vector<WaitNode>> waiters;
  std::vector<WaitNode> going;
  for (const auto& [node, wait] : waits_) {
    if (wait.needed == 0) {
      going.push_back(node);
      continue;
    }
    missing[node] = wait.needed;
    for (const WaitNode& target : wait.targets) {
      waiters[target].push_back(node);
      if (!knows(target)) going.push_back(target);
    }
  }
  std::set<WaitNode> gone;
  while (!going.empty()) {
    const WaitNode node = going.back();
    going.pop_back();
    if (!gone.insert(node).second) continue;
    for (const WaitNode& waiter : waiters[node]) {
      const auto it = missing.find(waiter);
      if (it == missing.end() || --it->second > 0) continue;
      missing.erase(it);
      going.push_back(waiter);
    }
  }
  std::map<WaitNode, WaitNode> stuck;
  for (const auto& [node, unused] : missing) {
    const std::vector<WaitNode>& targets = waits_.at(node).targets;
    const auto next = std::find_if(targets.begin(), targets.end(),
                                   [&](const WaitNode& t) { return missing.contains(t); });
    if (next != targets.end()) stuck.emplace(node, *next);
  }
  return stuck;
}

std::vector<std::vector<WaitNode>> WaitGraph::deadlocks() const {
  const std::map<WaitNode, WaitNode> next = stuck();
  std::vector<std::vector<WaitNode>> circles;
  std::set<WaitNode> visited;
  for (const auto& [start, unused] : next) {
    std::vector<WaitNode> path;
    WaitNode node = start;
    while (next.contains(node) && visited.insert(node).second) {
      path.push_back(node);
      node = next.at(node);
    }
    // Its last step led back into itself, or to what an earlier path has visited.
    const auto begin = std::find(path.begin(), path.end(), node);
    if (begin != path.end()) circles.emplace_back(begin, path.end());
  }
  return circles;
}

}  // namespace mobula::core
