#include "core/wait_graph.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string_view>

namespace mobula::core {
namespace {

using Nodes = std::vector<WaitNode>;
using Circles = std::vector<Nodes>;

constexpr WaitNode record(std::uint64_t id) { return {WaitNode::Kind::Record, id}; }
constexpr WaitNode thread(std::uint64_t id) { return {WaitNode::Kind::Thread, id}; }

TEST_CASE("waiting in a circle is found, whatever else waits for it") {
  struct Edge {
    WaitNode from;
    Nodes to;
    std::size_t needed;
  };
  struct Row {
    std::string_view name;
    std::vector<Edge> edges;
    Circles circles;
  };
  for (const Row& row :
       {Row{"nobody waits", {}, {}},
        Row{"for what is not known", {{record(1), {record(2)}, 1}}, {}},
        Row{"for nothing", {{record(1), {}, 0}}, {}},
        Row{"for itself", {{record(1), {record(1)}, 1}}, {{record(1)}}},
        Row{"for each other",
            {{record(1), {thread(1)}, 1}, {thread(1), {record(1)}, 1}},
            {{record(1), thread(1)}}},
        Row{"in a chain that ends", {{record(1), {record(2)}, 1}, {record(2), {record(3)}, 1}}, {}},
        Row{"for a circle, from outside",
            {{record(1), {record(2)}, 1}, {record(2), {record(3)}, 1}, {record(3), {record(2)}, 1}},
            {{record(2), record(3)}}},
        Row{"any of two, one of which goes on",
            {{thread(1), {record(1), record(9)}, 1}, {record(1), {thread(1)}, 1}},
            {}},
        Row{"any of two, none of which goes on",
            {{thread(1), {record(1), record(2)}, 1},
             {record(1), {thread(1)}, 1},
             {record(2), {thread(1)}, 1}},
            {{record(1), thread(1)}}},
        Row{"both of two, one of which goes on",
            {{thread(1), {record(9), record(1)}, 2}, {record(1), {thread(1)}, 1}},
            {{record(1), thread(1)}}},
        Row{"in two circles",
            {{record(1), {record(1)}, 1}, {record(2), {record(3)}, 1}, {record(3), {record(2)}, 1}},
            {{record(1)}, {record(2), record(3)}}}}) {
    CAPTURE(row.name);
    WaitGraph graph;
    for (const Edge& edge : row.edges) graph.add(edge.from, edge.to, edge.needed);

    CHECK(graph.deadlocks() == row.circles);
  }
}

TEST_CASE("each circle that is reported closes, and one is reported exactly if somebody is stuck") {
  std::mt19937_64 random(20'261'122);
  int stuck_graphs = 0;
  for (int round = 0; round < 3000; ++round) {
    constexpr std::uint64_t kNodes = 8;
    const auto below = [&](std::uint64_t n) { return random() % n; };
    WaitGraph graph;
    std::map<std::uint64_t, std::pair<Nodes, std::size_t>> waits;
    for (std::uint64_t n = 0; n < kNodes; ++n) {
      if (below(4) == 0) continue;  // not known
      Nodes targets;
      for (std::uint64_t t = 0; t < kNodes; ++t) {
        if (below(4) == 0) targets.push_back(record(t));
      }
      const std::size_t needed = targets.empty() ? 0 : 1 + below(targets.size());
      graph.add(record(n), targets, needed);
      waits[n] = {targets, needed};
    }
    // What goes on, by trying until nothing changes.
    std::vector<bool> goes(kNodes, false);
    for (bool changed = true; changed;) {
      changed = false;
      for (std::uint64_t n = 0; n < kNodes; ++n) {
        if (goes[n]) continue;
        std::size_t going = 0;
        if (waits.contains(n)) {
          for (const WaitNode& t : waits[n].first) going += goes[t.id];
        }
        if (!waits.contains(n) || going >= waits[n].second) goes[n] = changed = true;
      }
    }
    bool all = true;
    for (const bool g : goes) all = all && g;
    stuck_graphs += !all;

    const Circles circles = graph.deadlocks();

    CHECK(circles.empty() == all);
    for (const Nodes& circle : circles) {
      for (std::size_t i = 0; i < circle.size(); ++i) {
        CHECK(!goes[circle[i].id]);
        const Nodes& targets = waits[circle[i].id].first;
        CHECK(std::find(targets.begin(), targets.end(), circle[(i + 1) % circle.size()]) !=
              targets.end());
      }
    }
  }
  CHECK(stuck_graphs > 100);
}

}  // namespace
}  // namespace mobula::core
