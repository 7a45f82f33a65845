// Rows about many actors: starting a thousand, and calling a hundred as one.
#include <thread>

#include "mobula/mobula.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

struct Member {
  std::uint64_t calls = 0;
  void nothing() { ++calls; }
  std::uint64_t count() const { return calls; }
};
std::uint64_t plus(std::uint64_t a, std::uint64_t b) { return a + b; }

void measure_mesh(const Runs& runs) {
  constexpr std::size_t kMembers = 100;
  const std::uint64_t rounds = runs.size(300, 20);
  const auto members = mesh<Member>(kMembers);
  get(members.ready());
  std::uint64_t calls = 0;
  const auto submit_us = [&](std::uint64_t times) {
    std::vector<double> submit, answered;
    for (std::uint64_t i = 0; i < times; ++i) {
      const auto start = Clock::now();
      const MeshRef<void> done = members.call<&Member::nothing>();
      submit.push_back(seconds_since(start) * 1e6);
      get(done);
      answered.push_back(seconds_since(start) * 1e6);
    }
    calls += times * kMembers;
    runs.note("answered_us", median(std::move(answered)));
    return median(std::move(submit));
  };
  runs.interleave([&] { return submit_us(rounds); },
                  [&] { return kMembers / ledger_loop_per_s(rounds) * 1e6; });
  expect_equal(get(reduce<plus>(members.call<&Member::count>())), calls,
               "the number of calls that the members saw");
}

void measure_creation(const Runs& runs) {
  const auto count = static_cast<unsigned>(runs.size(1000, 20));
  const auto seconds = [&] {
    const auto start = Clock::now();
    const auto members = mesh<Member>(count);
    get(members.ready());
    return seconds_since(start);
  };
  const auto undisturbed = [&] {
    while (memory_report().processes.size() > 10)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return seconds();
  };
  runs.interleave(undisturbed, [&] {
    const auto start = Clock::now();
    const SleepingProcesses processes(count);
    return seconds_since(start);
  });
}

}  // namespace

void add_mesh_rows(std::vector<Row>& rows) {
  rows.push_back({"mesh_100", "a call of 100 actors as one, until all are submitted, p50", "us",
                  Better::Lower, "raw ledger loop, 100 tasks", "", measure_mesh});
  rows.push_back({"actors_1000", "1000 actors, until all constructors have run", "s", Better::Lower,
                  "as many forks of a small process", "529/s", measure_creation});
}

}  // namespace mobula::bench
