// Rows about tasks: throughput, round trips, nesting, chains.
#include <thread>

#include "mobula/mobula.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {

std::uint64_t same(std::uint64_t x) { return x; }

namespace {

std::uint64_t increment(std::uint64_t x) { return x + 1; }

std::uint64_t fib(std::uint64_t n) {
  if (n < 2) return n;
  const Ref<std::uint64_t> a = remote<fib>(n - 1);
  const Ref<std::uint64_t> b = remote<fib>(n - 2);
  return get(a) + get(b);
}

std::uint64_t plain_fib(std::uint64_t n) { return n < 2 ? n : plain_fib(n - 1) + plain_fib(n - 2); }

const auto kSubmitSame = [](std::uint64_t i) { return remote<same>(i); };

// Submits tasks from a process of its own.
struct Submitter {
  std::uint64_t run(std::uint64_t batches) {
    stream_of_calls(batches, kSubmitSame);
    return batches;
  }
};

constexpr unsigned kSubmitters = 4;

void measure_async(const Runs& runs) {
  const std::uint64_t batches = runs.size(500, 50);
  calls_per_s(batches / 5, kSubmitSame);
  runs.interleave([&] { return calls_per_s(batches, kSubmitSame); },
                  [&] { return ledger_loop_per_s(batches); });
}

void measure_async_threads(const Runs& runs) {
  const std::uint64_t batches = runs.size(125, 15);
  const auto rate = [&] {
    std::exception_ptr failures[kSubmitters];
    std::vector<std::thread> threads;
    const auto start = Clock::now();
    for (std::exception_ptr& failure : failures) {
      threads.emplace_back([&] {
        try {
          stream_of_calls(batches, kSubmitSame);
        } catch (...) {
          failure = std::current_exception();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    const double seconds = seconds_since(start);
    for (const std::exception_ptr& failure : failures) {
      if (failure) std::rethrow_exception(failure);
    }
    return static_cast<double>(kSubmitters * batches * kBatch) / seconds;
  };
  rate();
  runs.interleave(rate, [&] { return ledger_loop_per_s(kSubmitters * batches); });
}

void measure_async_workers(const Runs& runs) {
  const std::uint64_t batches = runs.size(125, 15);
  std::vector<ActorHandle<Submitter>> submitters;
  submitters.reserve(kSubmitters);
  for (unsigned i = 0; i < kSubmitters; ++i) submitters.push_back(actor<Submitter>());
  const auto rate = [&] {
    std::vector<Ref<std::uint64_t>> done;
    done.reserve(kSubmitters);
    std::uint64_t sum = 0;
    const auto start = Clock::now();
    for (const ActorHandle<Submitter>& submitter : submitters)
      done.push_back(submitter.call<&Submitter::run>(batches));
    for (const std::uint64_t each : get(done)) sum += each;
    const double seconds = seconds_since(start);
    expect_equal(sum, kSubmitters * batches, "the number of batches");
    return static_cast<double>(sum * kBatch) / seconds;
  };
  rate();
  runs.interleave(rate, [&] { return ledger_loop_per_s(kSubmitters * batches); });
}

void measure_sync_hot(const Runs& runs) { measure_round_trips(runs, kSubmitSame); }

// The worker has had nothing to do for so long that it sleeps; the raw partner sleeps as long.
void measure_sync_parked(const Runs& runs) {
  constexpr std::chrono::milliseconds kGap{10};
  const std::uint64_t rounds = runs.size(40, 10);
  round_trips_us(100, kSubmitSame);
  runs.interleave(
      [&] {
        std::vector<double> us;
        for (std::uint64_t i = 0; i < rounds; ++i) {
          std::this_thread::sleep_for(kGap);
          const auto start = Clock::now();
          const std::uint64_t result = get(remote<same>(i));
          us.push_back(seconds_since(start) * 1e6);
          expect_equal(result, i, "the result");
        }
        runs.note("p99", quantile(us, 0.99));
        return median(us);
      },
      [&] { return futex_round_trip_us(rounds, kGap); });
}

void measure_nested_fib(const Runs& runs) {
  const std::uint64_t n = runs.size(27, 20);
  const std::uint64_t result = plain_fib(n);
  const std::uint64_t calls = 2 * plain_fib(n + 1) - 1;
  const auto cores = static_cast<unsigned>(cluster_resources().at("CPU"));
  expect_equal(get(remote<fib>(std::uint64_t{15})), plain_fib(15), "fib(15)");
  runs.interleave(
      [&] {
        const auto start = Clock::now();
        expect_equal(get(remote<fib>(n)), result, "fib");
        return static_cast<double>(calls) / seconds_since(start);
      },
      [&] { return ledger_in_place_per_s(5 * calls, cores); });
}

void measure_chain(const Runs& runs) {
  const std::uint64_t length = runs.size(100'000, 10'000);
  const auto rate = [](std::uint64_t links) {
    const auto start = Clock::now();
    Ref<std::uint64_t> last = remote<increment>(std::uint64_t{0});
    for (std::uint64_t i = 1; i < links; ++i) last = remote<increment>(last);
    expect_equal(get(last), links, "the end of the chain");
    return static_cast<double>(links) / seconds_since(start);
  };
  rate(length / 10);
  runs.interleave([&] { return rate(length); }, [&] { return ledger_loop_per_s(length / kBatch); });
}

}  // namespace

void add_task_rows(std::vector<Row>& rows) {
  const std::string loop = "raw ledger loop";
  rows.push_back({"tasks_async", "empty tasks, one driver", "1/s", Better::Higher, loop, "7,097/s",
                  measure_async});
  rows.push_back({"tasks_async_threads", "the same, 4 threads of the driver", "1/s", Better::Higher,
                  loop, "21,137/s", measure_async_threads});
  rows.push_back({"tasks_async_workers", "the same, submitted by 4 actors", "1/s", Better::Higher,
                  loop, "21,137/s", measure_async_workers});
  rows.push_back({"task_sync_hot", "one task after the other, p50", "us", Better::Lower,
                  "spinning ping-pong", "1,230 us", measure_sync_hot});
  rows.push_back({"task_sync_parked", "one task every 10 ms, p50", "us", Better::Lower,
                  "futex wake round trip", "", measure_sync_parked});
  rows.push_back({"nested_fib", "fib(27) by remote calls", "1/s", Better::Higher,
                  "raw ledger in place, all cores", "", measure_nested_fib});
  rows.push_back({"chain", "100,000 tasks, each needs the one before", "1/s", Better::Higher, loop,
                  "", measure_chain});
}

}  // namespace mobula::bench
