// What this machine can do at best, taken in the same run as the rows that are compared with it.
//
// Absolute figures drift by a factor of two on a shared host; a ratio to a limit taken a moment
// before or after does not. So each limit is a small program of its own that does the least work a
// row cannot avoid, and is short enough to be repeated between the runs of that row. None of it
// uses the library.
//
// Limits that need a second process fork it, with no descriptors left open, and end it before they
// return.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace mobula::bench {

// Shared memory (a memfd), mapped, written once and so warm.
class WarmMemory {
 public:
  // Throws std::runtime_error when the machine has not that much memory to give.
  explicit WarmMemory(std::size_t bytes);
  ~WarmMemory();
  WarmMemory(const WarmMemory&) = delete;
  WarmMemory& operator=(const WarmMemory&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Tasks in flight at most, for the raw loop and for the rows beside it.
inline constexpr std::uint64_t kBatch = 1000;

// The raw ledger loop: one process writes a task into a 128-byte slot, another claims it by
// compare-and-swap, runs it through a function table and writes the result beside it; the first
// reads the result. Two batches are in flight. Returns tasks per second; throws when a result is
// wrong.
double ledger_loop_per_s(std::uint64_t batches);

// The same slots written, claimed, run and read by one thread without a partner: what a task costs
// that is run in place. `processes` of them at once, each with slots of its own; tasks per second
// of all together.
double ledger_in_place_per_s(std::uint64_t tasks_each, unsigned processes);

// Reads of a finished slot's state and result in warm memory, per second.
double ledger_read_per_s(std::uint64_t reads);

// Median round trip of a word between two processes that both spin, in microseconds.
double spin_round_trip_us(std::uint64_t rounds);

// Median round trip between two processes that both sleep on a futex, in microseconds. Before each
// round the partner sleeps for `gap`.
double futex_round_trip_us(std::uint64_t rounds, std::chrono::nanoseconds gap);

// Median time until that many sleeping processes, woken by one futex, have all run and the last has
// woken the caller, in microseconds.
double futex_fan_out_us(std::uint64_t rounds, unsigned processes);

// memcpy of the whole source into `target`, in GB/s (1e9 bytes).
double memcpy_gb_s(const WarmMemory& target, const void* source, std::size_t bytes);

// Median time from posix_spawn of this program until it has ended at the top of main(), in
// milliseconds.
double fork_exec_ms(int times);

// Median time from a process's kill -9 of itself until its parent has seen it and a newly forked
// process runs, in ms.
double kill_and_fork_ms(int times);

// Processes that sleep until this object ends.
class SleepingProcesses {
 public:
  explicit SleepingProcesses(unsigned count);
  ~SleepingProcesses();
  SleepingProcesses(const SleepingProcesses&) = delete;
  SleepingProcesses& operator=(const SleepingProcesses&) = delete;
  const std::vector<int>& pids() const { return pids_; }

 private:
  std::vector<int> pids_;
};

// The argument with which this program ends at once; main() looks for it first.
inline constexpr const char* kEndAtOnce = "--end-at-once";

// Median and quantiles of samples (0 <= q <= 1); throws when there are none.
double quantile(std::vector<double> samples, double q);
inline double median(std::vector<double> samples) { return quantile(std::move(samples), 0.5); }

// `times` samples, one after the other.
template <class Measure>
std::vector<double> repeat(std::uint64_t times, const Measure& measure) {
  std::vector<double> samples;
  samples.reserve(times);
  for (std::uint64_t i = 0; i < times; ++i) samples.push_back(measure());
  return samples;
}

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace mobula::bench
