// What a caller says of when, before what and where a task runs: deadlines, priorities,
// environments; and values of many tasks taken in order, within bounds. One CPU, so that one task
// holds up others.
#include "support/scenario.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mobula/future.h"
#include "runtime/process.h"
#include "support/object_memory.h"
#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Ref;
using mobula::remote;
using mobula::test::Clock;
using mobula::test::count_in;
using mobula::test::count_of;
using mobula::test::eventually;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace control {

int gated(std::string gate) {
  wait_at_gate(gate);
  return 1;
}
int noting(std::string file, int x) {
  count_in(file);
  return x;
}
int increment(int x) { return x + 1; }
int fails(int code) { throw std::out_of_range("code " + std::to_string(code)); }
void nothing() {}
int sleeps(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  return ms;
}
int sleeps_noting(std::string file, int ms) {
  count_in(file);
  return sleeps(ms);
}
// Ends when it is asked to; nobody sees its value.
int until_cancelled(std::string entered) {
  open_gate(entered);
  const mobula::TaskInfo me = mobula::this_task();
  while (!me.should_cancel()) std::this_thread::sleep_for(1ms);
  return 1;
}
int never_succeeds(std::string file) {
  count_in(file);
  throw std::runtime_error("once more");
}
// Its own deadline is far; what it starts is to end with it.
std::vector<Ref<int>> starts_children(std::string entered, std::string gate) {
  return {remote<until_cancelled>.with({.num_cpus = 0, .deadline = 1h})(entered),
          remote<increment>.with({.num_cpus = 0})(remote<gated>.with({.num_cpus = 0})(gate))};
}

struct Worker {
  int n = 0;
  int gated(std::string entered, std::string gate) {
    open_gate(entered);
    wait_at_gate(gate);
    return ++n;
  }
  int count() { return ++n; }
  Ref<int> start(std::string entered) {
    return remote<until_cancelled>.with({.num_cpus = 0})(entered);
  }
};

// Gets what no task can run inside of it.
int gets_without_end(std::string gate, std::string told) {
  const Ref<int> never = actor<Worker>().call<&Worker::gated>(told + " entered", gate);
  try {
    return mobula::get(never);
  } catch (const mobula::DeadlineExceededError&) {
    open_gate(told);
    throw;
  }
}
int waits_without_end(std::string gate, std::string told) {
  const std::vector<Ref<int>> never{actor<Worker>().call<&Worker::gated>(told + " entered", gate)};
  try {
    return static_cast<int>(mobula::wait(never).ready.size());
  } catch (const mobula::DeadlineExceededError&) {
    open_gate(told);
    throw;
  }
}

// ---- Environments.

struct Seen {
  std::string variable;
  std::string folder;
  int process = 0;
};
Seen look(const std::string& variable) {
  const char* value = ::getenv(variable.c_str());
  return {value ? value : "(none)", std::filesystem::current_path().string(), ::getpid()};
}
Seen look_by_child(const std::string& variable) { return mobula::get(remote<look>(variable)); }

struct Looker {
  Seen look_here(std::string variable) const { return look(variable); }
  Seen look_by_task(std::string variable) const { return mobula::get(remote<look>(variable)); }
};
Seen look_by_actor(const std::string& variable) {
  return mobula::get(actor<Looker>().call<&Looker::look_here>(variable));
}

}  // namespace control
using namespace control;

// ---- Deadlines.

TEST_CASE("a task that nobody has begun by its deadline ends then, and never runs") {
  Scratch scratch;
  const Ref<int> first = remote<gated>(scratch.file("gate"));
  const Ref<int> late = remote<noting>.with({.deadline = 30ms})(scratch.file("ran"), 1);
  const Ref<int> waits = remote<increment>.with({.deadline = 30ms})(first);
  const Ref<int> needs_it = remote<increment>(late);

  CHECK_THROWS_WITH_AS(mobula::get(late, 20s), doctest::Contains("had not ended by its deadline"),
                       mobula::DeadlineExceededError);
  CHECK_THROWS_AS(mobula::get(waits, 20s), mobula::DeadlineExceededError);
  CHECK_THROWS_AS(mobula::get(late), mobula::TaskCancelledError);  // it is one

  open_gate(scratch.file("gate"));
  CHECK(mobula::get(first) == 1);
  CHECK_THROWS_WITH_AS(mobula::get(needs_it), doctest::Contains("needs its value"),
                       mobula::DeadlineExceededError);
  CHECK(count_of(scratch.file("ran")) == 0);
}

TEST_CASE("a deadline of nothing is over at once, and a negative one is an error") {
  Scratch scratch;
  CHECK_THROWS_AS(mobula::get(remote<noting>.with({.deadline = 0s})(scratch.file("ran"), 1)),
                  mobula::DeadlineExceededError);
  CHECK(count_of(scratch.file("ran")) == 0);
  const auto worker = actor<Worker>();
  CHECK_THROWS_AS(mobula::get(worker.with({.deadline = 0s}).call<&Worker::count>()),
                  mobula::DeadlineExceededError);

  CHECK_THROWS_WITH_AS(remote<increment>.with({.deadline = -1ns})(1),
                       doctest::Contains("TaskOptions.deadline is negative"), mobula::Error);
  CHECK_THROWS_WITH_AS(worker.with({.deadline = -1s}).call<&Worker::count>(),
                       doctest::Contains("CallOptions.deadline is negative"), mobula::Error);
  CHECK(mobula::get(worker.call<&Worker::count>()) == 1);
}

TEST_CASE("a task that ends in time has its value, whenever that is asked for") {
  std::vector<Ref<int>> refs;
  const int count = scaled(5'000, 1'000);
  for (int i = 0; i < count; ++i) refs.push_back(remote<increment>.with({.deadline = 1h})(i));
  const Ref<int> soon = remote<increment>.with({.deadline = 20s})(1);
  const Ref<int> longest = remote<increment>.with({.deadline = mobula::Duration::max()})(2);

  int wrong = 0;
  for (int i = 0; i < count; ++i) wrong += mobula::get(refs[static_cast<std::size_t>(i)]) != i + 1;
  CHECK(wrong == 0);
  CHECK(mobula::get(soon) == 2);
  CHECK(mobula::get(longest) == 3);

  const Ref<int> kept = remote<increment>.with({.deadline = 2s})(5);
  CHECK(mobula::get(kept) == 6);
  std::this_thread::sleep_for(2100ms);
  CHECK(mobula::get(kept) == 6);
}

TEST_CASE("a value that comes after the deadline is none") {
  CHECK_THROWS_AS(mobula::get(remote<sleeps>.with({.deadline = 10ms})(60)),
                  mobula::DeadlineExceededError);
}

TEST_CASE("a task that runs is told of its deadline: by should_cancel, in get and in wait") {
  Scratch scratch;
  CHECK_THROWS_AS(
      mobula::get(remote<until_cancelled>.with({.deadline = 100ms})(scratch.file("a")), 20s),
      mobula::DeadlineExceededError);
  CHECK_THROWS_AS(mobula::get(remote<gets_without_end>.with({.deadline = 100ms})(
                                  scratch.file("gate"), scratch.file("b")),
                              20s),
                  mobula::DeadlineExceededError);
  wait_at_gate(scratch.file("b"));
  CHECK_THROWS_AS(mobula::get(remote<waits_without_end>.with({.deadline = 100ms})(
                                  scratch.file("gate"), scratch.file("c")),
                              20s),
                  mobula::DeadlineExceededError);
  wait_at_gate(scratch.file("c"));
  open_gate(scratch.file("gate"));
}

TEST_CASE("what a task starts has no later deadline, also when the task itself ends in time") {
  Scratch scratch;
  const auto children = mobula::get(remote<starts_children>.with({.deadline = 700ms})(
      scratch.file("entered"), scratch.file("gate")));
  REQUIRE(children.size() == 2);
  for (const Ref<int>& child : children)
    CHECK_THROWS_AS(mobula::get(child, 20s), mobula::DeadlineExceededError);

  const auto worker = actor<Worker>();
  const Ref<int> child = mobula::get(
      worker.with({.deadline = 700ms}).call<&Worker::start>(scratch.file("entered by the actor")));
  CHECK_THROWS_AS(mobula::get(child, 20s), mobula::DeadlineExceededError);
  open_gate(scratch.file("gate"));
}

TEST_CASE("a call that a busy actor does not come to ends at its deadline, and holds up none") {
  Scratch scratch;
  const auto worker = actor<Worker>();
  const Ref<int> busy = worker.call<&Worker::gated>(scratch.file("entered"), scratch.file("gate"));
  wait_at_gate(scratch.file("entered"));
  const Ref<int> late = worker.with({.deadline = 20ms}).call<&Worker::count>();
  const Ref<int> next = worker.call<&Worker::count>();

  CHECK_THROWS_AS(mobula::get(late, 20s), mobula::DeadlineExceededError);
  open_gate(scratch.file("gate"));
  CHECK(mobula::get(busy) == 1);
  CHECK(mobula::get(next) == 2);
}

TEST_CASE("attempts end with the deadline") {
  Scratch scratch;
  const Ref<int> tries = remote<never_succeeds>.with(
      {.max_retries = -1, .retry_exceptions = true, .deadline = 200ms})(scratch.file("tries"));

  CHECK_THROWS_AS(mobula::get(tries, 20s), mobula::DeadlineExceededError);
  CHECK(count_of(scratch.file("tries")) > 0);
}

TEST_CASE("who waits for any of several hears of a deadline") {
  Scratch scratch;
  const Ref<int> first = remote<gated>(scratch.file("gate"));
  const Ref<int> late = remote<increment>.with({.deadline = 30ms})(1);

  const auto [ready, pending] = mobula::wait(std::vector{first, late}, {.timeout = 20s});
  REQUIRE(ready.size() == 1);
  CHECK(ready[0] == late);
  open_gate(scratch.file("gate"));
  CHECK(mobula::get(first) == 1);
}

// ---- Priorities.

TEST_CASE("a task of higher priority does not wait for the backlog of a lower one") {
  Scratch scratch;
  const std::uintmax_t count = 400;
  std::vector<Ref<int>> low;
  for (std::uintmax_t i = 0; i < count; ++i)
    low.push_back(remote<sleeps_noting>(scratch.file("low"), 5));
  const Ref<int> high = remote<increment>.with({.priority = 1})(1);

  CHECK(mobula::get(high, 20s) == 2);
  CHECK(count_of(scratch.file("low")) < count);
  for (const Ref<int>& ref : low) mobula::cancel(ref);
}

TEST_CASE("a task of lower priority is begun in the end, though higher ones wait") {
  Scratch scratch;
  const std::uintmax_t count = 600;
  std::vector<Ref<int>> high;
  for (std::uintmax_t i = 0; i < count; ++i)
    high.push_back(remote<sleeps_noting>.with({.priority = 100})(scratch.file("high"), 10));
  const Ref<int> low = remote<increment>.with({.priority = -100})(1);

  CHECK(mobula::get(low, 30s) == 2);
  CHECK(count_of(scratch.file("high")) > 0);
  CHECK(count_of(scratch.file("high")) < count);
  for (const Ref<int>& ref : high) mobula::cancel(ref);
}

TEST_CASE("priorities go from -100 to 100") {
  CHECK_THROWS_WITH_AS(remote<increment>.with({.priority = 101})(1),
                       doctest::Contains("TaskOptions.priority is 101"), mobula::Error);
  CHECK_THROWS_AS(remote<increment>.with({.priority = -101})(1), mobula::Error);
}

// ---- Environments.

TEST_CASE("a task finds the variables and the folder of its runtime_env, and no other task does") {
  Scratch scratch;
  const std::string folder = std::filesystem::canonical(scratch.path()).string();
  const mobula::RuntimeEnv environment{.env_vars = {{"MOBULA_TEST_COLOUR", "red=ish"}},
                                       .working_dir = scratch.path()};
  const auto there = remote<look>.with({.runtime_env = environment});

  std::vector<int> others;
  for (int round = 0; round < 3; ++round) {
    const Seen seen = mobula::get(there("MOBULA_TEST_COLOUR"));
    CHECK(seen.variable == "red=ish");
    CHECK(seen.folder == folder);
    const Seen plain = mobula::get(remote<look>("MOBULA_TEST_COLOUR"));
    CHECK(plain.variable == "(none)");
    CHECK(plain.folder == std::filesystem::current_path().string());
    CHECK(plain.process != seen.process);
    const Seen blue = mobula::get(remote<look>.with(
        {.runtime_env = {.env_vars = {{"MOBULA_TEST_COLOUR", ""}}}})("MOBULA_TEST_COLOUR"));
    CHECK(blue.variable.empty());
    CHECK(blue.process != seen.process);
    CHECK(blue.process != plain.process);
  }
}

TEST_CASE("what a task or actor starts is in its environment, unless it gives another one") {
  const mobula::RuntimeEnv environment{.env_vars = {{"MOBULA_TEST_COLOUR", "green"}}};
  const auto variable = std::string("MOBULA_TEST_COLOUR");
  CHECK(mobula::get(remote<look_by_child>.with({.runtime_env = environment})(variable)).variable ==
        "green");
  CHECK(mobula::get(remote<look_by_actor>.with({.runtime_env = environment})(variable)).variable ==
        "green");

  Scratch scratch;
  const std::string folder = std::filesystem::canonical(scratch.path()).string();
  const auto looker = actor<Looker>.with(
      {.runtime_env = {.env_vars = environment.env_vars, .working_dir = folder}})();
  for (const Seen& seen : {mobula::get(looker.call<&Looker::look_here>(variable)),
                           mobula::get(looker.call<&Looker::look_by_task>(variable))}) {
    CHECK(seen.variable == "green");
    CHECK(seen.folder == folder);
  }
  CHECK(mobula::get(remote<look>(variable)).variable == "(none)");
}

TEST_CASE("a runtime_env that cannot be is refused at the call") {
  const auto refused = [](mobula::RuntimeEnv environment, const char* words) {
    CHECK_THROWS_WITH_AS(remote<look>.with({.runtime_env = environment})("x"),
                         doctest::Contains(words), mobula::Error);
    CHECK_THROWS_WITH_AS(actor<Looker>.with({.runtime_env = environment})(),
                         doctest::Contains(words), mobula::Error);
  };
  refused({.env_vars = {{"", "x"}}}, "'' is no name of an environment variable");
  refused({.env_vars = {{"A=B", "x"}}}, "'A=B' is no name of an environment variable");
  refused({.env_vars = {{"A", std::string("a\0b", 3)}}}, "the value of A contains a zero byte");
  refused({.working_dir = "/no/such/folder"}, "'/no/such/folder' is no folder");
  refused({.working_dir = "/dev/null"}, "is no folder");
  refused({.env_vars = {{"A", std::string(4000, 'x')}}}, "bytes together; at most 3072");
}

// ---- Many values.

namespace {

// Bytes of the store's extents that this process keeps in memory.
std::uint64_t pinned_bytes() {
  mobula::runtime::Process& process = *mobula::runtime::current_process();
  std::uint64_t bytes = 0;
  const auto extents = static_cast<std::uint32_t>(mobula::test::object_memory().at("extents"));
  for (std::uint32_t i = 0; i < extents; ++i) {
    if (process.memory().pins(process.index(), i).load() != 0)
      bytes += process.memory().extent(i).size;
  }
  return bytes;
}

}  // namespace

TEST_CASE("many large values are got one by one, and within the budget") {
  constexpr std::size_t kSize = 8 << 20;
  constexpr std::uint64_t kBudget = 3 * kSize + (1 << 20);
  for (const std::size_t count : {std::size_t{6}, std::size_t{12}}) {  // 48 MB and 96, of 64
    CAPTURE(count);
    std::vector<Ref<std::vector<std::uint8_t>>> refs;
    for (std::size_t i = 0; i < count; ++i)
      refs.push_back(mobula::put(std::vector<std::uint8_t>(kSize, static_cast<std::uint8_t>(i))));

    std::size_t seen = 0;
    std::uint64_t most = 0;
    mobula::get_each(refs,
                     [&](const std::vector<std::uint8_t>& value) {
                       CHECK(value.size() == kSize);
                       CHECK(value.front() == seen);
                       CHECK(value.back() == seen);
                       most = std::max(most, pinned_bytes());
                       ++seen;
                     },
                     {.memory_budget = kBudget});

    CHECK(seen == count);
    CHECK(most <= kBudget);
    CHECK(pinned_bytes() == 0);
  }
}

TEST_CASE("values are brought back from disk ahead of who reads them, if there is room") {
  constexpr std::size_t kSize = 8 << 20;
  const auto put_some = [](int count) {
    std::vector<Ref<std::vector<std::uint8_t>>> refs;
    for (int i = 0; i < count; ++i) refs.push_back(mobula::put(std::vector<std::uint8_t>(kSize)));
    return refs;
  };
  const auto refs = put_some(4);
  put_some(12);  // is gone at once, and has driven the others out
  const double restored = mobula::test::object_memory().at("restored_ever");

  bool first = true;
  mobula::get_each(refs,
                   [&](const std::vector<std::uint8_t>&) {
                     if (std::exchange(first, false)) {
                       CHECK(eventually(20s, [&] {
                         return mobula::test::object_memory().at("restored_ever") >=
                                restored + 3.0 * kSize;
                       }));
                     }
                   },
                   {.memory_budget = 3 * kSize + (1 << 20)});
}

TEST_CASE("get_each waits for each value, and ends with the first failure in their order") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 1000; ++i) refs.push_back(remote<increment>(i));
  int next = 1;
  mobula::get_each(refs, [&](int value) { CHECK(value == next++); });
  CHECK(next == 1001);

  refs[500] = remote<fails>(7);
  int seen = 0;
  CHECK_THROWS_AS(mobula::get_each(refs, [&](int) { ++seen; }), mobula::TaskError);
  CHECK(seen == 500);
  CHECK_THROWS_AS(mobula::get_each(refs, [](int) { throw std::logic_error("enough"); }),
                  std::logic_error);
  mobula::get_each(std::vector<Ref<int>>{}, [](int) { FAIL("there is none"); });
}

TEST_CASE("a future has the value of its ref, or its error") {
  Scratch scratch;
  const Ref<int> gate = remote<gated>(scratch.file("gate"));
  std::future<int> late = mobula::to_future(gate);
  CHECK(late.wait_for(20ms) == std::future_status::timeout);
  open_gate(scratch.file("gate"));
  CHECK(late.get() == 1);

  CHECK(mobula::to_future(remote<increment>(1)).get() == 2);
  CHECK_THROWS_AS(mobula::to_future(remote<fails>(3)).get(), mobula::TaskError);
  mobula::to_future(remote<nothing>()).get();
  CHECK_THROWS_AS(mobula::to_future(Ref<int>()), mobula::Error);
}

int main(int argc, char** argv) {
  mobula::test::tag_this_family();
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 1, .object_store_memory = 64ULL << 20});
}
