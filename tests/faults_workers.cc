// Workers die and stop at any moment; values come out right.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::Clock;
using mobula::test::count_in;
using mobula::test::count_of;
using mobula::test::eventually;
using mobula::test::is_gone;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;
using mobula::test::workers_of;

namespace workers {

std::string tag;

int square(int x) { return x * x; }
int own_pid() { return static_cast<int>(::getpid()); }

// Writes who runs it, then waits.
int stay(std::string started, std::string gate, int value) {
  count_in(started);
  const int attempt = mobula::this_task().attempt;
  const std::string file = started + "." + std::to_string(attempt);
  {
    std::ofstream stream(file + ".part");
    stream << ::getpid();
  }
  std::filesystem::rename(file + ".part", file);
  wait_at_gate(gate);
  return value;
}
pid_t pid_of_attempt(const std::string& started, int attempt) {
  const std::string file = started + "." + std::to_string(attempt);
  if (!eventually(20s, [&] { return mobula::test::gate_is_open(file); })) return 0;
  return static_cast<pid_t>(std::stol(mobula::test::text_of(file)));
}

// About `microseconds` of work.
int busy_square(int x, int microseconds) {
  const auto end = Clock::now() + std::chrono::microseconds(microseconds);
  while (Clock::now() < end) {
  }
  return x * x;
}
std::vector<int> block_of(int n) { return std::vector<int>(5000, n); }
long sum(const std::vector<int>& values, int n) {
  long all = 0;
  for (const int value : values) all += value;
  return all + n;
}
int nested(int n) { return mobula::get(remote<busy_square>(n, 50)) + 1; }

int take_memory_and_die(bool seal) {
  mobula::Buffer buffer = mobula::create_buffer(64 << 20);
  buffer.data()[0] = std::byte{1};
  Ref<mobula::Buffer> ref;
  if (seal) ref = buffer.seal();
  return ::kill(::getpid(), SIGKILL);
}
int hold_and_die(Ref<std::vector<int>> ref) {
  const auto view = mobula::get_view(ref);
  return view[0] + ::kill(::getpid(), SIGKILL);
}

struct Counter {
  int n = 0;
  int add(int k) { return n += k; }
  int process() const { return own_pid(); }
};

}  // namespace workers
using namespace workers;

TEST_CASE("a task whose worker is killed runs again elsewhere") {
  Scratch scratch;
  const std::string started = scratch.file("started"), gate = scratch.file("gate");
  const Ref<int> ref = remote<stay>(started, gate, 42);
  const pid_t first = pid_of_attempt(started, 0);
  REQUIRE(first > 0);

  const auto start = Clock::now();
  REQUIRE(::kill(first, SIGKILL) == 0);
  const pid_t second = pid_of_attempt(started, 1);
  std::printf("a killed worker's task ran again after %d ms\n",
              static_cast<int>(since(start).count()));

  CHECK(second != first);
  open_gate(gate);
  CHECK(mobula::get(ref, 20s) == 42);
  CHECK(count_of(started) == 2);
}

TEST_CASE("a worker that is killed while it waits in a nested get takes nothing along") {
  Scratch scratch;
  const std::string started = scratch.file("started"), gate = scratch.file("gate");
  const Ref<int> outer = remote<[](std::string file, std::string shut) {
    const Ref<int> inner = remote<square>(6);
    const int value = mobula::get(inner);
    return stay(file, shut, value) + mobula::get(remote<nested>(2));
  }>(started, gate);
  const pid_t first = pid_of_attempt(started, 0);
  REQUIRE(first > 0);

  REQUIRE(::kill(first, SIGKILL) == 0);
  REQUIRE(pid_of_attempt(started, 1) > 0);
  open_gate(gate);

  CHECK(mobula::get(outer, 20s) == 36 + 5);
}

TEST_CASE("killing all idle workers at once does no harm") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 100; ++i) refs.push_back(remote<square>(i));
  mobula::get(refs);
  const std::vector<pid_t> before = workers_of(tag);
  REQUIRE(!before.empty());

  for (const pid_t pid : before) ::kill(pid, SIGKILL);

  for (int i = 0; i < 100; ++i) CHECK(mobula::get(remote<square>(i), 20s) == i * i);
  CHECK(eventually(5s, [&] { return std::all_of(before.begin(), before.end(), is_gone); }));
}

TEST_CASE("a worker that is stopped for a second holds up its own task only") {
  Scratch scratch;
  const std::string started = scratch.file("started"), gate = scratch.file("gate");
  const Ref<int> ref = remote<stay>(started, gate, 1);
  const pid_t pid = pid_of_attempt(started, 0);
  REQUIRE(pid > 0);

  REQUIRE(::kill(pid, SIGSTOP) == 0);
  open_gate(gate);
  const auto start = Clock::now();
  int others = 0;
  while (since(start) < 1s) {
    CHECK(mobula::get(remote<square>(others), 20s) == others * others);
    ++others;
  }
  CHECK(others > 1);
  CHECK(!mobula::try_get(ref, 0ms).has_value());
  REQUIRE(::kill(pid, SIGCONT) == 0);

  CHECK(mobula::get(ref, 20s) == 1);
  CHECK(count_of(started) == 1);  // it was late, not dead
}

TEST_CASE("the memory of killed workers comes back") {
  const int rounds = 15;  // each takes 64 of the store's 512 MB
  for (int i = 0; i < rounds; ++i) {
    const auto once = remote<take_memory_and_die>.with({.max_retries = 0});
    CHECK_THROWS_AS(mobula::get(once(i % 2 == 0), 20s), mobula::WorkerCrashedError);
  }
  for (int i = 0; i < rounds; ++i) {
    const auto stored = mobula::put(std::vector<int>(16 << 20, i));
    const auto once = remote<hold_and_die>.with({.max_retries = 0});
    CHECK_THROWS_AS(mobula::get(once(stored), 20s), mobula::WorkerCrashedError);
  }

  mobula::Buffer most = mobula::create_buffer(std::size_t{400} << 20);  // throws if anything leaked
  CHECK(most.size() == std::size_t{400} << 20);
}

TEST_CASE("twenty thousand tasks give right values while fifty workers are killed") {
  const auto seed = std::random_device{}();
  INFO("seed ", seed);
  std::mt19937 random(seed);
  const int count = scaled(20'000, 2'000);
  const int kills = scaled(50, 5);
  std::vector<Ref<int>> squares;
  std::vector<Ref<long>> sums;
  for (int i = 0; i < count / 2; ++i) {
    const auto options = mobula::TaskOptions{.max_retries = -1};
    if (i % 4 == 0) {
      squares.push_back(remote<nested>.with(options)(i % 1000));
    } else {
      squares.push_back(remote<busy_square>.with(options)(i % 1000, 200));
    }
    sums.push_back(
        remote<sum>.with(options)(remote<block_of>.with(options)(i % 7), squares.back()));
  }

  int killed = 0, wrong = 0;
  for (int i = 0; i < count / 2; ++i) {
    if (i % (count / 2 / kills) == 0 && killed < kills) {
      const std::vector<pid_t> now = workers_of(tag);
      if (!now.empty() && ::kill(now[random() % now.size()], SIGKILL) == 0) ++killed;
    }
    const int n = i % 1000;
    const int expected = n * n + (i % 4 == 0);
    wrong += mobula::get(squares[static_cast<std::size_t>(i)], 25s) != expected;
    wrong += mobula::get(sums[static_cast<std::size_t>(i)], 25s) != 5000L * (i % 7) + expected;
  }

  CHECK(wrong == 0);
  CHECK(killed > kills / 2);
  std::printf("%d tasks (and %d nested ones), %d workers killed\n", count, count / 8, killed);
}

TEST_CASE("an actor that is killed again and again is there again, with a fresh state") {
  const auto counter = mobula::actor<Counter>.with({.max_restarts = -1})();
  std::set<int> pids;
  for (int round = 0; round < 10; ++round) {
    int value = 0;
    // calls that were on their way when the process died may be lost, as the error says
    REQUIRE(eventually(20s, [&] {
      const auto pid = mobula::try_get(counter.call<&Counter::process>(), 20s);
      if (pid) pids.insert(*pid);
      const auto result = mobula::try_get(counter.call<&Counter::add>(1), 20s);
      if (!result) {
        CHECK(result.error().code() == mobula::ErrorCode::kActorUnavailable);
        return false;
      }
      value = *result;
      return pids.size() == static_cast<std::size_t>(round) + 1;
    }));
    CHECK(value >= 1);
    for (const int pid : pids) {
      if (!is_gone(pid)) REQUIRE(::kill(pid, SIGKILL) == 0);
    }
  }
  CHECK(pids.size() == 10);
}

int main(int argc, char** argv) {
  workers::tag = mobula::test::tag_this_family();
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .object_store_memory = 512ULL << 20, .log_to_driver = false});
}
