// Rows that take minutes and run only when named: fifty million tasks in flat memory, and METG of a
// stencil.
#include <algorithm>
#include <cmath>

#include "mobula/mobula.h"
#include "processes.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

void measure_sequential(const Runs& runs) {
  const std::uint64_t tasks = runs.size(50'000'000, 50'000'000);
  for (std::uint64_t i = 0; i < 10'000; ++i) get(remote<same>(i));
  const double before = static_cast<double>(resident_bytes());
  runs.interleave(
      [&] {
        std::uint64_t sum = 0;
        const auto start = Clock::now();
        for (std::uint64_t i = 0; i < tasks; ++i) sum += get(remote<same>(i));
        const double seconds = seconds_since(start);
        expect_equal(sum, tasks * (tasks - 1) / 2, "the sum of all results");
        runs.note("growth_bytes", static_cast<double>(resident_bytes()) - before);
        return seconds;
      },
      [&] { return static_cast<double>(tasks) * spin_round_trip_us(100'000) * 1e-6; });
}

// What one point of the stencil computes from its three neighbours: cheap, and different for each
// order of them.
std::uint64_t mix(std::uint64_t left, std::uint64_t middle, std::uint64_t right) {
  std::uint64_t h = left * 0x9e3779b97f4a7c15u + middle;
  h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u + right;
  return h ^ h >> 32;
}

// Work that takes time in proportion to `iterations` and cannot be shortened.
void work(std::uint64_t iterations) {
  std::uint64_t x = iterations | 1;
  for (std::uint64_t i = 0; i < iterations; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    asm volatile("" : "+r"(x));
  }
}

std::uint64_t stencil_point(std::uint64_t iterations, std::uint64_t left, std::uint64_t middle,
                            std::uint64_t right) {
  work(iterations);
  return mix(left, middle, right);
}

struct StencilShape {
  std::uint64_t width;
  std::uint64_t steps;
};

std::vector<std::uint64_t> plain_stencil(const StencilShape& shape) {
  std::vector<std::uint64_t> row(shape.width);
  for (std::uint64_t i = 0; i < shape.width; ++i) row[i] = i + 1;
  for (std::uint64_t step = 0; step < shape.steps; ++step) {
    std::vector<std::uint64_t> next(shape.width);
    for (std::uint64_t i = 0; i < shape.width; ++i) {
      next[i] = mix(row[(i + shape.width - 1) % shape.width], row[i], row[(i + 1) % shape.width]);
    }
    row = std::move(next);
  }
  return row;
}

// All tasks are submitted up front; returns seconds for the whole.
double run_stencil(const StencilShape& shape, std::uint64_t iterations) {
  const auto start = Clock::now();
  std::vector<Ref<std::uint64_t>> row;
  row.reserve(shape.width);
  for (std::uint64_t i = 0; i < shape.width; ++i) row.push_back(put(i + 1));
  for (std::uint64_t step = 0; step < shape.steps; ++step) {
    std::vector<Ref<std::uint64_t>> next;
    next.reserve(shape.width);
    for (std::uint64_t i = 0; i < shape.width; ++i) {
      next.push_back(remote<stencil_point>(iterations, row[(i + shape.width - 1) % shape.width],
                                           row[i], row[(i + 1) % shape.width]));
    }
    row = std::move(next);
  }
  const std::vector<std::uint64_t> result = get(row);
  const double seconds = seconds_since(start);
  const std::vector<std::uint64_t> wanted = plain_stencil(shape);
  for (std::uint64_t i = 0; i < shape.width; ++i)
    expect_equal(result[i], wanted[i], "a point of the stencil");
  return seconds;
}

// Task Bench's metric: shrink the tasks until half of the best rate of useful work is left; the
// time per task and core at that point is the minimum effective task granularity, METG(50 %).
double metg_us(std::uint64_t cores, double seconds_each) {
  struct Point {
    double granularity_us;
    double rate;  // iterations per second
  };
  std::vector<Point> points;
  double best = 0;
  for (std::uint64_t iterations = 1u << 20; iterations >= 16; iterations /= 2) {
    const double task_s =
        points.empty() ? 2e-3 : std::max(points.back().granularity_us * 1e-6 / 2, 5e-7);
    StencilShape shape{4 * cores, 0};
    shape.steps = std::max<std::uint64_t>(
        5, static_cast<std::uint64_t>(seconds_each * static_cast<double>(cores) / task_s /
                                      static_cast<double>(shape.width)));
    const double seconds = run_stencil(shape, iterations);
    const auto tasks = static_cast<double>(shape.width * shape.steps);
    points.push_back({seconds * static_cast<double>(cores) / tasks * 1e6,
                      tasks * static_cast<double>(iterations) / seconds});
    best = std::max(best, points.back().rate);
    if (points.back().rate < best / 8) break;
  }
  // From the small end: one disturbed measurement of large tasks must not pass for the crossing.
  for (std::size_t n = points.size() - 1; n > 0; --n) {
    const Point& below = points[n];
    const Point& above = points[n - 1];
    if (below.rate >= best / 2) break;
    if (above.rate < best / 2) continue;
    // between two powers of two the rate is nearly a straight line in the logarithm of the time
    const double part = (above.rate - best / 2) / (above.rate - below.rate);
    return above.granularity_us * std::pow(below.granularity_us / above.granularity_us, part);
  }
  throw std::runtime_error("even the smallest tasks keep half of the best rate");
}

void measure_stencil(const Runs& runs) {
  const auto cores = static_cast<std::uint64_t>(cluster_resources().at("CPU"));
  const double seconds_each = static_cast<double>(runs.size(300, 50)) * 1e-3;
  run_stencil({4 * cores, 1000}, 100);
  runs.interleave([&] { return metg_us(cores, seconds_each); },
                  [] { return 1e6 / ledger_loop_per_s(500); });
}

}  // namespace

void add_long_rows(std::vector<Row>& rows) {
  rows.push_back({"sequential_50M", "50,000,000 tasks, one after the other", "s", Better::Lower,
                  "spinning ping-pong", "35,000 s (paper)", measure_sequential});
  rows.back().only_by_name = true;
  rows.push_back({"metg_stencil", "METG(50 %) of a stencil with 3 dependencies", "us",
                  Better::Lower, "raw ledger loop, per task", "", measure_stencil});
  rows.back().only_by_name = true;
}

const std::vector<Row>& all_rows() {
  static const std::vector<Row> rows = [] {
    std::vector<Row> all;
    add_task_rows(all);
    add_actor_rows(all);
    add_object_rows(all);
    add_mesh_rows(all);
    add_stream_rows(all);
    add_crowd_rows(all);
    add_process_rows(all);
    add_long_rows(all);
    return all;
  }();
  return rows;
}

}  // namespace mobula::bench
