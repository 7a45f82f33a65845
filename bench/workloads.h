// What several rows run: the empty task, and a stream of calls with two batches in flight.
//
// "Empty" still carries eight bytes in and eight bytes out, so that a call that is lost or runs
// twice shows in the sum. Two batches in flight is what a program does that submits ahead and
// consumes results in order; the raw ledger loop in machine_limits.cc does exactly the same.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "machine_limits.h"
#include "mobula/object.h"
#include "row.h"

namespace mobula::bench {

std::uint64_t same(std::uint64_t x);

// Calls submit(i) for i = 0, 1, ... and gets the results, which must be the i themselves.
template <class Submit>
void stream_of_calls(std::uint64_t batches, const Submit& submit) {
  std::vector<Ref<std::uint64_t>> older;
  std::vector<Ref<std::uint64_t>> newer;
  older.reserve(kBatch);
  newer.reserve(kBatch);
  std::uint64_t sum = 0;
  std::uint64_t next = 0;
  const auto collect = [&sum](std::vector<Ref<std::uint64_t>>& refs) {
    for (const Ref<std::uint64_t>& ref : refs) sum += get(ref);
    refs.clear();
  };
  for (std::uint64_t batch = 0; batch < batches; ++batch) {
    for (std::uint64_t i = 0; i < kBatch; ++i) newer.push_back(submit(next++));
    collect(older);
    std::swap(older, newer);
  }
  collect(older);
  expect_equal(sum, next * (next - 1) / 2, "the sum of all results");
}

// The same, timed: calls per second.
template <class Submit>
double calls_per_s(std::uint64_t batches, const Submit& submit) {
  const auto start = Clock::now();
  stream_of_calls(batches, submit);
  return static_cast<double>(batches * kBatch) / seconds_since(start);
}

// One call after the other, each timed, in microseconds.
template <class Submit>
std::vector<double> round_trips_us(std::uint64_t calls, const Submit& submit) {
  std::vector<double> us;
  us.reserve(calls);
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < calls; ++i) {
    const auto start = Clock::now();
    sum += get(submit(i));
    us.push_back(seconds_since(start) * 1e6);
  }
  expect_equal(sum, calls * (calls - 1) / 2, "the sum of all results");
  return us;
}

// The rows for sync calls differ only in what is called.
template <class Submit>
void measure_round_trips(const Runs& runs, const Submit& submit) {
  const std::uint64_t calls = runs.size(50'000, 5'000);
  round_trips_us(calls / 5, submit);
  runs.interleave(
      [&] {
        const std::vector<double> us = round_trips_us(calls, submit);
        runs.note("p99", quantile(us, 0.99));
        return median(us);
      },
      [&] { return spin_round_trip_us(calls); });
}

}  // namespace mobula::bench
