// Rows about actor calls.
#include "mobula/mobula.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

struct Echo {
  std::uint64_t calls = 0;
  std::uint64_t same(std::uint64_t x) {
    ++calls;
    return x;
  }
  std::uint64_t count() const { return calls; }
};

// Calls all the given actors in turn, from a process of its own.
struct Caller {
  std::uint64_t run(const std::vector<ActorHandle<Echo>>& targets, std::uint64_t batches) {
    stream_of_calls(
        batches, [&](std::uint64_t i) { return targets[i % targets.size()].call<&Echo::same>(i); });
    return batches * kBatch;
  }
};

void measure_sync_hot(const Runs& runs) {
  const auto echo = actor<Echo>();
  measure_round_trips(runs, [&](std::uint64_t i) { return echo.call<&Echo::same>(i); });
}

void measure_async(const Runs& runs) {
  const std::uint64_t batches = runs.size(500, 50);
  const auto echo = actor<Echo>();
  const auto submit = [&](std::uint64_t i) { return echo.call<&Echo::same>(i); };
  calls_per_s(batches / 5, submit);
  const std::uint64_t before = get(echo.call<&Echo::count>());
  std::uint64_t calls = 0;
  runs.interleave(
      [&] {
        calls += batches * kBatch;
        return calls_per_s(batches, submit);
      },
      [&] { return ledger_loop_per_s(batches); });
  expect_equal(get(echo.call<&Echo::count>()), before + calls,
               "the number of calls that the actor saw");
}

void measure_n_n(const Runs& runs) {
  constexpr unsigned kEach = 2;
  const std::uint64_t batches = runs.size(250, 25);
  std::vector<ActorHandle<Echo>> targets;
  std::vector<ActorHandle<Caller>> callers;
  for (unsigned i = 0; i < kEach; ++i) {
    targets.push_back(actor<Echo>());
    callers.push_back(actor<Caller>());
  }
  std::uint64_t calls = 0;
  const auto rate = [&] {
    std::vector<Ref<std::uint64_t>> done;
    done.reserve(callers.size());
    std::uint64_t sum = 0;
    const auto start = Clock::now();
    for (const ActorHandle<Caller>& caller : callers)
      done.push_back(caller.call<&Caller::run>(targets, batches));
    for (const std::uint64_t each : get(done)) sum += each;
    const double seconds = seconds_since(start);
    calls += sum;
    return static_cast<double>(sum) / seconds;
  };
  rate();
  runs.interleave(rate, [&] { return ledger_loop_per_s(kEach * batches); });

  std::uint64_t seen = 0;
  for (const ActorHandle<Echo>& target : targets) seen += get(target.call<&Echo::count>());
  expect_equal(seen, calls, "the number of calls that the actors saw");
}

}  // namespace

void add_actor_rows(std::vector<Row>& rows) {
  const std::string loop = "raw ledger loop";
  rows.push_back({"actor_sync_hot", "one actor call after the other, p50", "us", Better::Lower,
                  "spinning ping-pong", "530 us", measure_sync_hot});
  rows.push_back({"actor_async", "calls of one actor, one driver", "1/s", Better::Higher, loop,
                  "8,397/s", measure_async});
  rows.push_back({"actor_n_n", "2 actors call 2 actors", "1/s", Better::Higher, loop, "23,481/s",
                  measure_n_n});
}

}  // namespace mobula::bench
