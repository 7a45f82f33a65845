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

constexpr unsigned kMembers = 100;

struct MeshTimes {
  double submitted_us;
  double answered_us;
};

// Medians of calls of all members, each awaited before the next.
class CalledMesh {
 public:
  CalledMesh() { get(members_.ready()); }
  MeshTimes call(std::uint64_t times) {
    std::vector<double> submitted, answered;
    for (std::uint64_t i = 0; i < times; ++i) {
      const auto start = Clock::now();
      const MeshRef<void> done = members_.call<&Member::nothing>();
      submitted.push_back(seconds_since(start) * 1e6);
      get(done);
      answered.push_back(seconds_since(start) * 1e6);
    }
    calls_ += times * kMembers;
    return {median(std::move(submitted)), median(std::move(answered))};
  }
  void check() const {
    expect_equal(get(reduce<plus>(members_.call<&Member::count>())), calls_,
                 "the number of calls that the members saw");
  }

 private:
  MeshHandle<Member> members_ = mesh<Member>(kMembers);
  std::uint64_t calls_ = 0;
};

void measure_mesh(const Runs& runs) {
  const std::uint64_t rounds = runs.size(300, 20);
  CalledMesh called;
  runs.interleave([&] { return called.call(rounds).submitted_us; },
                  [&] { return kMembers / ledger_loop_per_s(rounds) * 1e6; });
  called.check();
}

void measure_mesh_answers(const Runs& runs) {
  const std::uint64_t rounds = runs.size(300, 20);
  CalledMesh called;
  runs.interleave([&] { return called.call(rounds).answered_us; },
                  [&] { return futex_fan_out_us(rounds, kMembers); });
  called.check();
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
  rows.push_back({"mesh_100_answered", "the same, until all have answered, p50", "us",
                  Better::Lower, "one futex wakes as many processes", "", measure_mesh_answers});
  rows.push_back({"actors_1000", "1000 actors, until all constructors have run", "s", Better::Lower,
                  "as many forks of a small process", "529/s", measure_creation});
}

}  // namespace mobula::bench
