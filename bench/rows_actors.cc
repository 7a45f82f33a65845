// Rows about actor calls, and about what it costs that an actor's state outlives its process.
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <utility>

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

// Never answers a call at once, but when `keep` later ones are there.
struct LateEcho {
  std::deque<std::pair<Reply<std::uint64_t>, std::uint64_t>> open;
  void same(Reply<std::uint64_t> reply, std::uint64_t x, std::uint64_t keep) {
    open.emplace_back(std::move(reply), x);
    answer(keep);
  }
  void answer(std::uint64_t keep) {
    while (open.size() > keep) {
      open.front().first.set(open.front().second);
      open.pop_front();
    }
  }
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

void measure_reply_async(const Runs& runs) {
  constexpr std::uint64_t kLater = 8;
  const std::uint64_t batches = runs.size(300, 30);
  const auto echo = actor<LateEcho>();
  // The last ones of a run are answered by a flood of one.
  const auto rate = [&] {
    const auto start = Clock::now();
    stream_of_calls(batches, [&](std::uint64_t i) {
      const bool last_of_batch = (i + 1) % kBatch == 0;
      return echo.call<&LateEcho::same>(i, last_of_batch ? 0 : kLater);
    });
    return static_cast<double>(batches * kBatch) / seconds_since(start);
  };
  rate();
  runs.interleave(rate, [&] { return ledger_loop_per_s(batches); });
}

// All calls of a round wait in the actor before the first is answered.
void measure_reply_10k(const Runs& runs) {
  constexpr std::uint64_t kCalls = 10'000;
  const std::uint64_t rounds = runs.size(30, 3);
  const auto echo = actor<LateEcho>();
  const auto rate = [&] {
    std::vector<Ref<std::uint64_t>> refs;
    refs.reserve(kCalls);
    std::uint64_t sum = 0;
    const auto start = Clock::now();
    for (std::uint64_t round = 0; round < rounds; ++round) {
      refs.clear();
      for (std::uint64_t i = 0; i < kCalls; ++i)
        refs.push_back(echo.call<&LateEcho::same>(i, kCalls));
      get(echo.call<&LateEcho::answer>(std::uint64_t{0}));
      for (const auto& ref : refs) sum += get(ref);
    }
    const double seconds = seconds_since(start);
    expect_equal(sum, rounds * kCalls * (kCalls - 1) / 2, "the sum of all answers");
    return static_cast<double>(rounds * kCalls) / seconds;
  };
  rate();
  runs.interleave(rate, [&] { return ledger_loop_per_s(rounds * kCalls / kBatch); });
}

// The rate of calls of an actor with these options, beside that of one without any. What is looked
// for is some percent, and the machine varies by more from one moment to the next: so they take
// turns of some milliseconds.
void measure_async_with(const Runs& runs, const ActorOptions& options) {
  constexpr std::uint64_t kBatches = 20;  // of a turn
  const std::uint64_t turns = runs.size(50, 5);  // of a run
  const auto plain = actor<Echo>();
  const auto kept = actor<Echo>.with(options)();
  const auto rate = [&](const ActorHandle<Echo>& echo) {
    return calls_per_s(kBatches, [&](std::uint64_t i) { return echo.call<&Echo::same>(i); });
  };
  std::uint64_t rounds = 0;
  const auto run = [&] {
    std::vector<double> kept_rates;
    std::vector<double> plain_rates;
    for (std::uint64_t turn = 0; turn < turns; ++turn, ++rounds) {
      if (turn % 2 == 0) kept_rates.push_back(rate(kept));
      plain_rates.push_back(rate(plain));
      if (turn % 2 == 1) kept_rates.push_back(rate(kept));
    }
    return Sample{median(kept_rates), median(plain_rates)};
  };
  run();
  runs.each(run);
  expect_equal(get(kept.call<&Echo::count>()), rounds * kBatches * kBatch,
               "the number of calls that the actor saw");
}

void measure_checkpoints(const Runs& runs) {
  measure_async_with(runs, {.max_restarts = 1, .checkpoint_every = 1000});
}
void measure_journal(const Runs& runs) {
  measure_async_with(runs, {.max_restarts = 1, .recovery = Recovery::Replay});
}

constexpr std::size_t kMegabyte = 1 << 20;

struct Megabyte {
  std::vector<std::uint64_t> words = std::vector<std::uint64_t>(kMegabyte / 8, 1);
  std::uint64_t add(std::uint64_t x) { return words.back() += x; }
  std::uint64_t save() {
    checkpoint();
    return words.back();
  }
  int process() const { return static_cast<int>(::getpid()); }
};

void measure_back(const Runs& runs) {
  const auto back_ms = [] {
    // A new one each time: one that dies again and again is started less and less often.
    const auto megabyte = actor<Megabyte>.with(
        {.max_restarts = 1, .recovery = Recovery::Replay, .checkpoint_every = 2})();
    const int pid = get(megabyte.call<&Megabyte::process>());
    for (int i = 0; i < 10; ++i) get(megabyte.call<&Megabyte::add>(std::uint64_t{1}));
    const auto start = Clock::now();
    ::kill(pid, SIGKILL);
    expect_equal<std::uint64_t>(get(megabyte.call<&Megabyte::add>(std::uint64_t{1})), 12,
                                "the state after the crash");
    return seconds_since(start) * 1e3;
  };
  back_ms();
  const std::uint64_t times = runs.size(20, 3);
  runs.interleave(
      [&] {
        const std::vector<double> ms = repeat(times, back_ms);
        runs.note("p99", quantile(ms, 0.99));
        return median(ms);
      },
      [&] { return kill_and_fork_ms(static_cast<int>(times)); });
}

// A call is nothing beside it.
void measure_large_checkpoint(const Runs& runs) {
  const std::uint64_t times = runs.size(300, 20);
  const auto megabyte = actor<Megabyte>.with({.max_restarts = 1})();
  const auto saving_us = [&] {
    std::vector<Ref<std::uint64_t>> saved;
    const auto start = Clock::now();
    for (std::uint64_t i = 0; i < times; ++i) saved.push_back(megabyte.call<&Megabyte::save>());
    get(saved);
    return seconds_since(start) * 1e6 / static_cast<double>(times);
  };
  const WarmMemory from(kMegabyte);
  const WarmMemory to(kMegabyte);
  saving_us();
  runs.interleave(saving_us, [&] {
    const auto start = Clock::now();
    for (std::uint64_t i = 0; i < times; ++i) std::memcpy(to.data(), from.data(), kMegabyte);
    return seconds_since(start) * 1e6 / static_cast<double>(times);
  });
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
  rows.push_back({"actor_reply_async", "calls answered after eight later ones", "1/s",
                  Better::Higher, loop, "", measure_reply_async});
  rows.push_back({"actor_reply_10k", "calls, 10,000 at a time waiting for answers", "1/s",
                  Better::Higher, loop, "", measure_reply_10k});
  rows.push_back({"checkpoint_cost", "calls of an actor that is saved each 1000", "1/s",
                  Better::Higher, "the same, not saved", "", measure_checkpoints});
  rows.push_back({"checkpoint_1MB", "saving an actor of 1 MB, once", "us", Better::Lower,
                  "copying 1 MB", "", measure_large_checkpoint});
  rows.push_back({"journal_cost", "calls of an actor with Recovery::Replay", "1/s", Better::Higher,
                  "the same without", "", measure_journal});
  rows.push_back({"actor_1MB_back", "kill -9 of an actor with 1 MB to its next answer, p50", "ms",
                  Better::Lower, "kill -9 seen by pidfd, then fork", "", measure_back});
  rows.push_back({"actor_n_n", "2 actors call 2 actors", "1/s", Better::Higher, loop, "23,481/s",
                  measure_n_n});
}

}  // namespace mobula::bench
