// Rows about many at once: waits on a thousand, a million queued, ten thousand refs in one call.
#include "gate.h"
#include "mobula/mobula.h"
#include "processes.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

std::uint64_t sum_of(const std::vector<Ref<std::uint64_t>>& refs) {
  std::uint64_t sum = 0;
  for (const std::uint64_t value : get(refs)) sum += value;
  return sum;
}

std::vector<Ref<std::uint64_t>> many(std::uint64_t n) {
  std::vector<Ref<std::uint64_t>> refs;
  refs.reserve(n);
  for (std::uint64_t i = 0; i < n; ++i) refs.push_back(put(i));
  return refs;
}

// A round is Ray's: 1000 tasks, then 1000 waits for one of those that are left. The list is moved
// from wait to wait; what it costs to hand it over as a copy instead is noted beside.
void measure_wait(const Runs& runs) {
  const std::uint64_t rounds = runs.size(200, 20);
  const auto moved = [](std::vector<Ref<std::uint64_t>>& refs) { return wait(std::move(refs)); };
  const auto copied = [](const std::vector<Ref<std::uint64_t>>& refs) { return wait(refs); };
  const auto rate = [](std::uint64_t times, const auto& wait_for_one) {
    double seconds = 0;
    for (std::uint64_t round = 0; round < times; ++round) {
      const auto start = Clock::now();
      std::vector<Ref<std::uint64_t>> pending;
      std::vector<Ref<std::uint64_t>> done;
      pending.reserve(kBatch);
      done.reserve(kBatch);
      for (std::uint64_t i = 0; i < kBatch; ++i) pending.push_back(remote<same>(i));
      while (!pending.empty()) {
        auto [ready, rest] = wait_for_one(pending);
        done.push_back(std::move(ready.at(0)));
        pending = std::move(rest);
      }
      seconds += seconds_since(start);
      expect_equal(sum_of(done), kBatch * (kBatch - 1) / 2, "the sum of all results");
    }
    return static_cast<double>(times) / seconds;
  };
  rate(rounds / 10 + 1, moved);
  runs.interleave(
      [&] {
        runs.note("copied_per_s", rate(rounds / 10, copied));
        return rate(rounds, moved);
      },
      [&] { return ledger_loop_per_s(rounds) / static_cast<double>(kBatch); });
}

// All CPUs are held at the gate while the tasks are queued.
void measure_queued(const Runs& runs) {
  const std::uint64_t tasks = runs.size(1'000'000, 1'000'000);
  const auto cpus = static_cast<unsigned>(cluster_resources().at("CPU"));
  const Gate gate;
  std::vector<Ref<std::uint64_t>> refs(
      tasks);  // touched: the user's own memory is not the runtime's
  stream_of_calls(5, [](std::uint64_t i) { return remote<same>(i); });
  const std::uint64_t before = resident_bytes();
  runs.interleave(
      [&] {
        std::vector<Ref<std::uint64_t>> blockers;
        blockers.reserve(cpus);
        for (unsigned i = 0; i < cpus; ++i)
          blockers.push_back(remote<wait_at_gate>(gate.address()));
        gate.await_arrivals(cpus);

        const auto start = Clock::now();
        for (std::uint64_t i = 0; i < tasks; ++i) refs[i] = remote<same>(i);
        runs.note("submit_s", seconds_since(start));
        runs.note("bytes_each",
                  (static_cast<double>(resident_bytes()) - static_cast<double>(before)) /
                      static_cast<double>(tasks));
        gate.let_pass(cpus);
        std::uint64_t sum = 0;
        for (const Ref<std::uint64_t>& ref : refs) sum += get(ref);
        const double seconds = seconds_since(start);

        expect_equal(sum, tasks * (tasks - 1) / 2, "the sum of all results");
        get(blockers);
        for (Ref<std::uint64_t>& ref : refs) ref = {};
        return seconds;
      },
      [&] { return static_cast<double>(tasks) / ledger_loop_per_s(tasks / kBatch); });
}

std::uint64_t add_up(const std::vector<std::uint64_t>& values) {
  std::uint64_t sum = 0;
  for (const std::uint64_t value : values) sum += value;
  return sum;
}

// The objects are made within the time, as in Ray's benchmark. The task takes their values; one
// that takes the refs and gets them itself is noted beside.
void measure_args(const Runs& runs) {
  constexpr std::uint64_t kArgs = 10'000;
  const auto call_ms = [](const auto& task) {
    const auto start = Clock::now();
    const std::vector<Ref<std::uint64_t>> refs = many(kArgs);
    const std::uint64_t sum = get(task(refs));
    const double ms = seconds_since(start) * 1e3;
    expect_equal(sum, kArgs * (kArgs - 1) / 2, "the sum of the arguments");
    return ms;
  };
  const auto by_value_ms = [&] { return call_ms(remote<add_up>); };
  const auto by_ref_ms = [&] { return call_ms(remote<sum_of>); };
  by_value_ms();
  by_ref_ms();
  const std::uint64_t times = runs.size(15, 3);
  runs.interleave(
      [&] {
        runs.note("by_refs_ms", median(repeat(times, by_ref_ms)));
        return median(repeat(times, by_value_ms));
      },
      [] { return 1e3 * kArgs / ledger_loop_per_s(100); });
}

void measure_returns(const Runs& runs) {
  constexpr std::uint64_t kReturns = 3'000;
  const auto call_ms = [&] {
    const auto start = Clock::now();
    const std::uint64_t sum = sum_of(get(remote<many>(kReturns)));
    const double ms = seconds_since(start) * 1e3;
    expect_equal(sum, kReturns * (kReturns - 1) / 2, "the sum of the returned objects");
    return ms;
  };
  call_ms();
  const std::uint64_t times = runs.size(30, 5);
  runs.interleave([&] { return median(repeat(times, call_ms)); },
                  [] { return 1e3 * kReturns / ledger_loop_per_s(100); });
}

void measure_get_many(const Runs& runs) {
  constexpr std::uint64_t kObjects = 10'000;
  const auto get_ms = [] {
    const auto start = Clock::now();
    const std::uint64_t sum = sum_of(many(kObjects));
    const double ms = seconds_since(start) * 1e3;
    expect_equal(sum, kObjects * (kObjects - 1) / 2, "the sum of the objects");
    return ms;
  };
  get_ms();
  const std::uint64_t times = runs.size(30, 5);
  runs.interleave([&] { return median(repeat(times, get_ms)); },
                  [] { return 1e3 * kObjects / ledger_in_place_per_s(100'000, 1); });
}

}  // namespace

void add_crowd_rows(std::vector<Row>& rows) {
  const std::string loop = "raw ledger loop";
  rows.push_back({"wait_1k", "rounds of 1000 tasks and 1000 waits for one", "1/s", Better::Higher,
                  loop, "4.9/s", measure_wait});
  rows.push_back({"queued_1M", "1,000,000 tasks queued behind blockers, then drained", "s",
                  Better::Lower, loop, "140 s", measure_queued});
  rows.back().memory_needed = 1'500'000'000;
  rows.push_back({"args_10k", "10,000 objects put and handed to one task", "ms", Better::Lower,
                  loop, "12.3 s", measure_args});
  rows.push_back({"returns_3k", "3,000 objects returned by one task, all got", "ms", Better::Lower,
                  loop, "3.7 s", measure_returns});
  rows.push_back({"get_10k", "10,000 objects put and got", "ms", Better::Lower,
                  "raw ledger in place, one core", "15.2 s", measure_get_many});
}

}  // namespace mobula::bench
