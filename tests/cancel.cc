// Cancelling tasks and calls, whatever they are doing: queued, waiting for arguments, running,
// retrying, finished; alone, with their children, by force; by their submitter or by anybody else.
#include "support/scenario.h"

#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::TaskCancelledError;
using mobula::test::Clock;
using mobula::test::count_in;
using mobula::test::count_of;
using mobula::test::eventually;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;

namespace {

constexpr auto kLong = 20s;

void hold_cpu(const std::string& folder, int i) {
  open_gate(folder + "/started" + std::to_string(i));
  wait_at_gate(folder + "/gate");
}

// Both CPUs of the session are taken until it goes.
class AllBusy {
 public:
  AllBusy() {
    for (int i = 0; i < 2; ++i) refs_.push_back(remote<hold_cpu>(scratch_.path().string(), i));
    for (int i = 0; i < 2; ++i) {
      const std::string started = scratch_.file("started" + std::to_string(i));
      REQUIRE(eventually(kLong, [&] { return mobula::test::gate_is_open(started); }));
    }
  }
  ~AllBusy() {
    open_gate(scratch_.file("gate"));
    for (const Ref<void>& ref : refs_) mobula::get(ref);
  }

 private:
  Scratch scratch_;
  std::vector<Ref<void>> refs_;
};

int counted(const std::string& file, int value) {
  count_in(file);
  return value;
}
int add(int a, int b) { return a + b; }
int square(int x) { return x * x; }
int echo_after(const std::string& gate, int value) {
  wait_at_gate(gate);
  return value;
}

bool started(const std::string& file, std::uintmax_t times = 1) {
  return eventually(kLong, [&] { return count_of(file) >= times; });
}

template <class T>
bool is_cancelled(const Ref<T>& ref) {
  try {
    mobula::get(ref, kLong);
  } catch (const TaskCancelledError&) {
    return true;
  }
  return false;
}
template <class T>
std::string words_of(const Ref<T>& ref) {
  try {
    mobula::get(ref, kLong);
  } catch (const mobula::Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

// ---- Not started yet.

TEST_CASE("a queued task that is cancelled never runs") {
  Scratch scratch;
  std::vector<Ref<int>> refs;
  {
    const AllBusy busy;
    for (int i = 0; i < 100; ++i) refs.push_back(remote<counted>(scratch.file("runs"), i));

    for (const Ref<int>& ref : refs) CHECK(mobula::cancel(ref));
  }
  for (const Ref<int>& ref : refs) CHECK(is_cancelled(ref));
  CHECK(mobula::get(remote<counted>(scratch.file("runs"), 7)) == 7);  // behind them in the queue
  CHECK(count_of(scratch.file("runs")) == 1);
}

TEST_CASE("a task that waits for an argument is cancelled without it") {
  Scratch scratch;
  const Ref<int> argument = remote<echo_after>(scratch.file("gate"), 3);
  const Ref<int> waiting = remote<add>(argument, 1);
  std::vector<Ref<int>> many(20, argument);

  CHECK(mobula::cancel(waiting));
  CHECK(is_cancelled(waiting));
  open_gate(scratch.file("gate"));

  CHECK(mobula::get(argument) == 3);  // its argument is not touched
  CHECK(mobula::get(remote<add>(argument, 2)) == 5);
}

TEST_CASE("who needs the value of a cancelled task fails with TaskCancelledError and its name") {
  Scratch scratch;
  const Ref<int> root = remote<echo_after>(scratch.file("gate"), 3);
  const Ref<int> middle = remote<add>(root, 1);
  const Ref<int> leaf = remote<square>(middle);
  const Ref<int> other = remote<square>(root);

  CHECK(mobula::cancel(middle));

  const std::string first = words_of(middle);
  CHECK(first.find("add (id ") != std::string::npos);
  CHECK(first.find(") was cancelled") != std::string::npos);
  const std::string second = words_of(leaf);
  CHECK(second.find("add was cancelled, and task") != std::string::npos);
  CHECK(second.find("square (id ") != std::string::npos);
  CHECK(second.find(") needs its value") != std::string::npos);
  CHECK_THROWS_AS(mobula::get(leaf), TaskCancelledError);
  open_gate(scratch.file("gate"));
  CHECK(mobula::get(other) == 9);
}

TEST_CASE("who waits for a task wakes up when it is cancelled") {
  const AllBusy busy;
  const Ref<int> ref = remote<square>(3);
  std::atomic<bool> by_get{false};
  std::atomic<bool> by_wait{false};
  std::thread getter([&] { by_get = is_cancelled(ref); });
  std::thread waiter(
      [&] { by_wait = mobula::wait(std::vector{ref}, {.timeout = kLong}).ready.size() == 1; });
  std::this_thread::sleep_for(20ms);  // most likely they sleep; right in any case

  const auto begin = Clock::now();
  CHECK(mobula::cancel(ref));
  getter.join();
  waiter.join();

  CHECK(by_get);
  CHECK(by_wait);
  CHECK(since(begin) < 5s);
}

TEST_CASE("what a cancelled task held is free again") {
  constexpr std::size_t kOne = 4 << 20;  // 100 of them are six times the store
  const AllBusy busy;

  for (int i = 0; i < 100; ++i) {
    const Ref<std::vector<char>> large = mobula::put(std::vector<char>(kOne, 'x'));
    const Ref<std::size_t> ref = remote<[](const std::vector<char>& v) { return v.size(); }>(large);
    CHECK(mobula::cancel(ref));
  }
  CHECK(mobula::create_buffer(32 << 20).size() == 32 << 20);
}

// ---- Over.

TEST_CASE("cancel does nothing to what has ended, and says so") {
  const Ref<int> done = remote<square>(5);
  const Ref<int> failed = remote<[]() -> int { throw std::runtime_error("bad"); }>();
  const Ref<int> stored = mobula::put(4);
  mobula::get(done);
  CHECK_THROWS_AS(mobula::get(failed), mobula::TaskError);

  CHECK(!mobula::cancel(done));
  CHECK(!mobula::cancel(failed));
  CHECK(!mobula::cancel(stored));

  CHECK(mobula::get(done) == 25);
  CHECK_THROWS_AS(mobula::get(failed), mobula::TaskError);
  CHECK(mobula::get(stored) == 4);
}

TEST_CASE("cancelling twice is cancelling once") {
  const AllBusy busy;
  const Ref<int> ref = remote<square>(5);

  CHECK(mobula::cancel(ref));
  CHECK(mobula::cancel(ref, {.force = true}));

  CHECK(is_cancelled(ref));
}

TEST_CASE("a cancel that races with the end of the task has one outcome, told by its answer") {
  const int rounds = scaled(100'000, 3000);
  int cancelled = 0;
  int wrong = 0;
  constexpr int kAtOnce = 20;
  std::vector<Ref<int>> refs;
  std::vector<bool> answers;

  for (int round = 0; round < rounds; round += kAtOnce) {
    refs.clear();
    answers.clear();
    for (int i = 0; i < kAtOnce; ++i) refs.push_back(remote<square>(i));
    // From the other end, from this one, and after a while: queued, running and done ones.
    if (round % 3 == 0) mobula::get(refs[static_cast<std::size_t>(round / 3 % kAtOnce)]);
    for (int i = 0; i < kAtOnce; ++i) {
      const auto which = static_cast<std::size_t>(round % 2 ? i : kAtOnce - 1 - i);
      answers.push_back(mobula::cancel(refs[which]));
      const bool again = mobula::cancel(refs[which]);
      wrong += again != answers.back();
    }
    for (int i = 0; i < kAtOnce; ++i) {
      const auto which = static_cast<std::size_t>(round % 2 ? i : kAtOnce - 1 - i);
      const bool told = answers[static_cast<std::size_t>(i)];
      cancelled += told;
      try {
        const int value = mobula::get(refs[which], kLong);
        wrong += told || value != static_cast<int>(which * which);
      } catch (const TaskCancelledError&) {
        wrong += !told;
      }
    }
  }

  CHECK(wrong == 0);
  CHECK(cancelled > 0);
  CHECK(cancelled < rounds);
  std::printf("%d of %d cancels came in time\n", cancelled, rounds);
}

// ---- Running.

namespace {

int until_cancelled(const std::string& file) {
  const mobula::TaskInfo me = mobula::this_task();
  count_in(file);
  const auto end = Clock::now() + kLong;
  while (!me.should_cancel() && Clock::now() < end) std::this_thread::sleep_for(1ms);
  return 1;
}
int until_a_thread_sees_it(const std::string& file) {
  const mobula::TaskInfo me = mobula::this_task();
  count_in(file);
  std::thread([&] {
    const auto end = Clock::now() + kLong;
    while (!me.should_cancel() && Clock::now() < end) std::this_thread::sleep_for(1ms);
  }).join();
  return 1;
}
int sleeps_in_get(const std::string& file, const std::vector<Ref<int>>& never) {
  count_in(file);
  try {
    return mobula::get(never[0]);
  } catch (const TaskCancelledError&) {
    count_in(file + ".told");
    throw;
  }
}
int sleeps_in_wait(const std::string& file, const std::vector<Ref<int>>& never) {
  count_in(file);
  try {
    mobula::wait(never);
  } catch (const TaskCancelledError&) {
    count_in(file + ".told");
    throw;
  }
  return 0;
}
int deaf(const std::string& file, const std::string& gate) {
  count_in(file);
  wait_at_gate(gate);
  return 1;
}
int endless(const std::string& file) {
  count_in(file);
  for (;;) std::this_thread::sleep_for(1h);
}

}  // namespace

TEST_CASE("a running task sees that it is cancelled, from each of its threads") {
  Scratch scratch;
  for (const auto& ref : {remote<until_cancelled>(scratch.file("a")),
                          remote<until_a_thread_sees_it>(scratch.file("a"))}) {
    static std::uintmax_t runs = 0;
    REQUIRE(started(scratch.file("a"), ++runs));
    const auto begin = Clock::now();

    CHECK(mobula::cancel(ref));

    CHECK(is_cancelled(ref));
    CHECK(since(begin) < 5s);
  }
  CHECK(!mobula::this_task().should_cancel());
}

TEST_CASE("what a cancelled task returns all the same is dropped") {
  Scratch scratch;
  const Ref<int> ref = remote<deaf>(scratch.file("runs"), scratch.file("gate"));
  const Ref<int> dependent = remote<square>(ref);
  REQUIRE(started(scratch.file("runs")));

  CHECK(mobula::cancel(ref));
  CHECK_THROWS_AS(mobula::get(ref, 0ns), mobula::GetTimeoutError);  // it has not ended
  open_gate(scratch.file("gate"));

  CHECK(is_cancelled(ref));
  CHECK(is_cancelled(dependent));
  CHECK(!is_cancelled(remote<square>(2)));
}

TEST_CASE("a task that sleeps in get or wait is woken by its cancel") {
  Scratch scratch;
  const Ref<int> never = remote<echo_after>(scratch.file("gate"), 1);
  const std::vector<Ref<int>> refs{never};
  for (const bool in_get : {true, false}) {
    const std::string file = scratch.file(in_get ? "get" : "wait");
    const Ref<int> ref =
        in_get ? remote<sleeps_in_get>(file, refs) : remote<sleeps_in_wait>(file, refs);
    REQUIRE(started(file));
    std::this_thread::sleep_for(20ms);
    const auto begin = Clock::now();

    CHECK(mobula::cancel(ref, {.recursive = false}));

    CHECK(is_cancelled(ref));
    CHECK(since(begin) < 5s);
    CHECK(count_of(file + ".told") == 1);
  }
  open_gate(scratch.file("gate"));
  CHECK(mobula::get(never) == 1);
}

TEST_CASE("force ends the worker of a task that does not listen, and does not try it again") {
  Scratch scratch;
  const Ref<int> ref = remote<endless>.with({.max_retries = -1})(scratch.file("runs"));
  REQUIRE(started(scratch.file("runs")));

  CHECK(mobula::cancel(ref, {.force = true}));

  CHECK(is_cancelled(ref));
  for (int i = 0; i < 50; ++i) CHECK(mobula::get(remote<square>(i), kLong) == i * i);
  CHECK(count_of(scratch.file("runs")) == 1);
}

TEST_CASE("force hits no other task, however soon the cancelled one ends by itself") {
  const int rounds = scaled(40, 5);
  Scratch scratch;
  int crashed = 0;

  for (int round = 0; round < rounds; ++round) {
    const std::string file = scratch.file(std::to_string(round));
    const Ref<int> ref = remote<until_cancelled>(file);
    REQUIRE(started(file));
    std::vector<Ref<int>> others;
    for (int i = 0; i < 20; ++i) others.push_back(remote<square>.with({.max_retries = 0})(i));
    CHECK(mobula::cancel(ref, {.force = true}));
    CHECK(is_cancelled(ref));
    for (const Ref<int>& other : others) crashed += !mobula::try_get(other, kLong).has_value();
  }

  CHECK(crashed == 0);
}

TEST_CASE("a cancelled task is not tried again, whether it throws or its worker dies") {
  Scratch scratch;
  const Ref<int> throws =
      remote<[](const std::string& file, const std::string& gate) -> int {
        count_in(file);
        wait_at_gate(gate);
        throw std::runtime_error("again");
      }>.with({.max_retries = -1, .retry_exceptions = true})(scratch.file("t"),
                                                             scratch.file("gate"));
  const Ref<int> crashes = remote<[](const std::string& file, const std::string& gate) -> int {
                             count_in(file);
                             wait_at_gate(gate);
                             ::_exit(3);
                           }>.with({.max_retries = -1})(scratch.file("c"), scratch.file("gate"));
  REQUIRE(started(scratch.file("t")));
  REQUIRE(started(scratch.file("c")));

  CHECK(mobula::cancel(throws));
  CHECK(mobula::cancel(crashes));
  open_gate(scratch.file("gate"));

  CHECK(is_cancelled(throws));
  CHECK(is_cancelled(crashes));
  CHECK(count_of(scratch.file("t")) == 1);
  CHECK(count_of(scratch.file("c")) == 1);
}

TEST_CASE("a task that is tried again and again is not once its cancel was answered") {
  Scratch scratch;
  const Ref<int> ref = remote<[](const std::string& file) -> int {
                         count_in(file);
                         throw std::runtime_error("again");
                       }>.with({.max_retries = -1, .retry_exceptions = true})(scratch.file("runs"));
  REQUIRE(started(scratch.file("runs"), 50));

  CHECK(mobula::cancel(ref));
  CHECK(is_cancelled(ref));
  const auto runs = count_of(scratch.file("runs"));
  std::this_thread::sleep_for(20ms);

  CHECK(count_of(scratch.file("runs")) == runs);
}

// ---- Children.

namespace {

// Submits one child that runs and one that cannot, then waits for the first.
int parent(const std::string& folder) {
  const Ref<int> running = remote<until_cancelled>(folder + "/child");
  const Ref<int> waiting = remote<add>(running, remote<counted>(folder + "/other", 1));
  return mobula::get(running) + mobula::get(waiting);
}
int grandparent(const std::string& folder) { return mobula::get(remote<parent>(folder)); }

}  // namespace

TEST_CASE("the children of a cancelled task are cancelled with it, and theirs") {
  Scratch scratch;
  const Ref<int> ref = remote<grandparent>(scratch.path().string());
  REQUIRE(started(scratch.file("child")));
  const auto begin = Clock::now();

  CHECK(mobula::cancel(ref));

  CHECK(is_cancelled(ref));
  CHECK(since(begin) < 5s);  // the child stops by itself, in which the parent may have run
  const AllBusy both_cpus_are_free;
}

TEST_CASE("children go on when that is wanted") {
  Scratch scratch;
  const Ref<int> ref = remote<[](const std::string& folder) {
    const Ref<int> child = remote<echo_after>(folder + "/gate", 1);
    const Ref<int> after = remote<counted>(folder + "/after", child);
    count_in(folder + "/parent");
    while (!mobula::this_task().should_cancel()) std::this_thread::sleep_for(1ms);
    return 1;
  }>(scratch.path().string());
  REQUIRE(started(scratch.file("parent")));

  CHECK(mobula::cancel(ref, {.recursive = false}));
  CHECK(is_cancelled(ref));
  open_gate(scratch.file("gate"));

  CHECK(started(scratch.file("after")));
}

TEST_CASE("force ends the children of a task, too, though its worker can tell nobody") {
  Scratch scratch;
  const Ref<int> ref = remote<[](const std::string& folder) {
    const Ref<int> child = remote<endless>.with({.max_retries = -1})(folder + "/child");
    for (;;) std::this_thread::sleep_for(1h);
    return mobula::get(child);
  }>(scratch.path().string());
  REQUIRE(started(scratch.file("child")));

  CHECK(mobula::cancel(ref, {.force = true}));

  CHECK(is_cancelled(ref));
  const AllBusy both_cpus_are_free;
  CHECK(count_of(scratch.file("child")) == 1);
}

// ---- Somebody else's.

TEST_CASE("any process that has a Ref can cancel") {
  Scratch scratch;
  const Ref<int> queued = remote<add>(remote<echo_after>(scratch.file("gate"), 1), 1);
  const Ref<int> running = remote<until_cancelled>(scratch.file("runs"));
  REQUIRE(started(scratch.file("runs")));

  const Ref<std::vector<bool>> canceller = remote<[](const std::vector<Ref<int>>& refs) {
    std::vector<bool> answers;
    for (const Ref<int>& ref : refs) answers.push_back(mobula::cancel(ref));
    return answers;
  }>(std::vector{queued, running});
  open_gate(scratch.file("gate"));

  const std::vector<bool> answers = mobula::get(canceller, kLong);
  CHECK(is_cancelled(queued) == answers[0]);
  CHECK(answers[1]);
  CHECK(is_cancelled(running));
}

// ---- Actors.

namespace {

struct Desk {
  int calls = 0;
  int add(int k) { return calls += k; }
  int hold(const std::string& file, const std::string& gate) {
    count_in(file);
    wait_at_gate(gate);
    return 1;
  }
  int listen(const std::string& file) { return until_cancelled(file); }
  int sleep(const std::string& file, const std::vector<Ref<int>>& never) {
    return sleeps_in_get(file, never);
  }
};

}  // namespace

TEST_CASE("queued calls of an actor are cancelled, and the others keep their order") {
  Scratch scratch;
  const auto desk = mobula::actor<Desk>();
  const Ref<int> first = desk.call<&Desk::hold>(scratch.file("runs"), scratch.file("gate"));
  REQUIRE(started(scratch.file("runs")));
  std::vector<Ref<int>> calls;
  for (int i = 0; i < 10; ++i) calls.push_back(desk.call<&Desk::add>(1));

  for (std::size_t i = 0; i < 10; i += 2) CHECK(mobula::cancel(calls[i]));
  open_gate(scratch.file("gate"));

  CHECK(mobula::get(first) == 1);
  for (std::size_t i = 0; i < 10; ++i) {
    CAPTURE(i);
    if (i % 2 == 0) {
      CHECK(is_cancelled(calls[i]));
    } else {
      CHECK(mobula::get(calls[i]) == static_cast<int>(i + 1) / 2);
    }
  }
}

TEST_CASE("a cancelled call that waited for an argument lets those behind it go") {
  Scratch scratch;
  const auto desk = mobula::actor<Desk>();
  const Ref<int> never = remote<echo_after>(scratch.file("gate"), 1);
  const Ref<int> held = desk.call<&Desk::add>(never);
  const Ref<int> behind = desk.call<&Desk::add>(5);
  CHECK_THROWS_AS(mobula::get(behind, 20ms), mobula::GetTimeoutError);

  CHECK(mobula::cancel(held));

  CHECK(mobula::get(behind, kLong) == 5);
  CHECK(is_cancelled(held));
  open_gate(scratch.file("gate"));
}

TEST_CASE("a running call is asked to stop, and its actor lives on") {
  Scratch scratch;
  const auto desk = mobula::actor<Desk>();
  const std::vector<Ref<int>> never{remote<echo_after>(scratch.file("gate"), 1)};
  const Ref<int> listening = desk.call<&Desk::listen>(scratch.file("listen"));
  REQUIRE(started(scratch.file("listen")));

  CHECK_THROWS_AS(mobula::cancel(listening, {.force = true}), mobula::Error);
  CHECK(mobula::cancel(listening));
  CHECK(is_cancelled(listening));
  const Ref<int> sleeping = desk.call<&Desk::sleep>(scratch.file("sleep"), never);
  REQUIRE(started(scratch.file("sleep")));
  CHECK(mobula::cancel(sleeping));

  CHECK(is_cancelled(sleeping));
  CHECK(mobula::get(desk.call<&Desk::add>(2), kLong) == 2);
  CHECK_THROWS_AS(mobula::cancel(desk.ready()), mobula::Error);
  open_gate(scratch.file("gate"));
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2, .object_store_memory = 64ULL << 20});
}
