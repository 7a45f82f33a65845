#include "node/metrics.h"

#include <doctest/doctest.h>

#include "node/world_test.h"

using mobula::MetricKind;
using mobula::MetricSample;
using mobula::node::Metrics;
namespace shm = mobula::shm;
namespace wire = mobula::wire;

namespace {

constexpr auto kCounter = static_cast<std::uint32_t>(MetricKind::Counter);
constexpr auto kGauge = static_cast<std::uint32_t>(MetricKind::Gauge);
constexpr auto kHistogram = static_cast<std::uint32_t>(MetricKind::Histogram);

struct World : mobula::node::testing::World {
  Metrics metrics{memory, tables};
  std::uint32_t ann = process();
  std::uint32_t bob = process();

  std::atomic<double>* open(std::uint32_t who, std::uint32_t kind, const std::string& name,
                            std::vector<double> bounds = {}) {
    MetricSample series;
    series.name = name;
    series.description = name;
    series.bounds = std::move(bounds);
    const Metrics::Opened opened = metrics.open(who, kind, series);
    if (!opened.problem.empty()) return nullptr;
    return reinterpret_cast<std::atomic<double>*>(memory.heap(opened.cells));
  }
};

}  // namespace

TEST_CASE("each process counts in a page of its own, and the sum is kept when one dies") {
  World world;
  std::atomic<double>* const ann = world.open(world.ann, kCounter, "c");
  std::atomic<double>* const bob = world.open(world.bob, kCounter, "c");
  REQUIRE(ann != nullptr);
  REQUIRE(bob != nullptr);
  CHECK(world.open(world.ann, kCounter, "c") == ann);
  CHECK(reinterpret_cast<std::uintptr_t>(ann) / shm::kPage !=
        reinterpret_cast<std::uintptr_t>(bob) / shm::kPage);
  ann->store(3);
  bob->store(4);

  CHECK(world.metrics.samples().at(0).value == 7);
  world.metrics.process_died(world.ann);
  world.metrics.process_died(world.ann);
  CHECK(world.metrics.samples().at(0).value == 7);

  std::atomic<double>* const again = world.open(world.ann, kCounter, "c");  // another one's number
  CHECK(again == ann);  // its page is used again, and empty
  CHECK(again->load() == 0);
}

TEST_CASE("gauges end with their processes, and what is open of a progress, too") {
  World world;
  world.open(world.ann, kGauge, "g")->store(5);
  std::atomic<double>* const cells = world.open(world.ann, wire::kProgress, "progress p");
  cells[wire::kProgressDone] = 3;
  cells[wire::kProgressTotal] = 10;
  cells[wire::kProgressOpen] = 1;
  cells[wire::kProgressClosed] = 7;
  REQUIRE(world.metrics.progress().size() == 1);
  CHECK(world.metrics.progress()[0].done == 10);
  CHECK(world.metrics.progress()[0].total == 17);
  CHECK(world.metrics.progress()[0].open);
  CHECK(world.metrics.samples().size() == 1);  // a progress is none

  world.metrics.process_died(world.ann);

  CHECK(world.metrics.samples()[0].value == 0);
  CHECK(world.metrics.progress()[0].done == 7);
  CHECK(world.metrics.progress()[0].total == 7);
  CHECK(!world.metrics.progress()[0].open);
}

TEST_CASE("one name is of one kind and has the same bounds") {
  World world;
  CHECK(world.open(world.ann, kHistogram, "h", {1, 2}) != nullptr);

  CHECK(world.open(world.bob, kHistogram, "h", {1, 3}) == nullptr);
  CHECK(world.open(world.bob, kCounter, "h") == nullptr);
  CHECK(world.open(world.bob, kHistogram, "h", {1, 2}) != nullptr);
}

TEST_CASE("more cells than a page holds take further pages, and no two metrics share one") {
  World world;
  for (int i = 0; i < 2000; ++i) {
    auto* cells = world.open(world.ann, kHistogram, "h" + std::to_string(i), {1, 2, 3});
    REQUIRE(cells != nullptr);
    for (int c = 0; c < 5; ++c) {
      REQUIRE(cells[c].load() == 0);
      cells[c] = i + c;
    }
  }
  for (const MetricSample& sample : world.metrics.samples()) {
    const auto i = static_cast<std::uint64_t>(std::stoi(sample.name.substr(1)));
    CHECK(sample.counts == std::vector<std::uint64_t>{i, i + 1, i + 2, i + 3});
    CHECK(sample.value == static_cast<double>(i + 4));
  }
}
