// How actors end, who is told, and what a bound on pending calls does.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"
#include "support/session_view.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorDeath;
using mobula::ActorHandle;
using mobula::DeathReason;
using mobula::monitor;
using mobula::Ref;
using mobula::remote;
using mobula::test::count_in;
using mobula::test::count_of;
using mobula::test::eventually;
using mobula::test::gate_is_open;
using mobula::test::is_gone;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace supervision {

struct Soldier {
  std::string grave;  // a file that the destructor makes
  int calls = 0;
  Soldier() = default;
  explicit Soldier(std::string file) : grave(std::move(file)) {}
  ~Soldier() {
    if (!grave.empty()) open_gate(grave);
  }
  int count() { return ++calls; }
  int process() const { return static_cast<int>(::getpid()); }
  int die(int signal) { return ::kill(::getpid(), signal); }
  int exit_with(int code) { ::_exit(code); }
  int leave() {
    mobula::exit_actor();
    return 42;
  }
  int leave_and_throw() {
    mobula::exit_actor();
    throw std::runtime_error("on the way out");
  }
  int wait_here(std::string entered, std::string gate) {
    open_gate(entered);
    wait_at_gate(gate);
    return ++calls;
  }
};
struct LeavesAtOnce {
  LeavesAtOnce() { mobula::exit_actor(); }
  int count() { return 1; }
};
struct Unborn {
  Unborn() { throw std::runtime_error("not me"); }
  int count() { return 1; }
};

int reason_of(const ActorDeath& death) { return static_cast<int>(death.reason); }
// Monitors an actor and returns the monitor, which this process then has no more.
Ref<ActorDeath> monitor_elsewhere(ActorHandle<Soldier> soldier) { return monitor(soldier); }
int leaves_from_task() {
  mobula::exit_actor();
  return 0;
}
struct LeavesFromThread {
  std::string leave() {
    std::string said;
    std::thread([&] {
      try {
        mobula::exit_actor();
      } catch (const mobula::Error& e) {
        said = e.what();
      }
    }).join();
    return said;
  }
};

struct Bounded {
  int wait_here(std::string gate) {
    wait_at_gate(gate);
    return 1;
  }
};
int refused_in_task(ActorHandle<Bounded> bounded, std::string gate) {
  int refused = 0;
  std::vector<Ref<int>> calls;
  for (int i = 0; i < 5; ++i) {
    try {
      calls.push_back(bounded.call<&Bounded::wait_here>(gate));
    } catch (const mobula::PendingCallsLimitError&) {
      ++refused;
    }
  }
  return refused;
}

ActorDeath death_of(const Ref<ActorDeath>& ref) { return mobula::get(ref, 20s); }

}  // namespace supervision
using namespace supervision;

TEST_CASE(
    "exit_actor: its call has its result, those behind it fail and say why, none restarts it") {
  Scratch scratch;
  const auto soldier = actor<Soldier>.with({.max_restarts = 5})(scratch.file("grave"));
  const Ref<ActorDeath> end = monitor(soldier);
  const int process = mobula::get(soldier.call<&Soldier::process>(), 20s);
  const Ref<int> busy =
      soldier.call<&Soldier::wait_here>(scratch.file("entered"), scratch.file("gate"));
  const Ref<int> last = soldier.call<&Soldier::leave>();
  std::vector<Ref<int>> behind;
  for (int i = 0; i < 100; ++i) behind.push_back(soldier.call<&Soldier::count>());
  wait_at_gate(scratch.file("entered"));
  open_gate(scratch.file("gate"));

  CHECK(mobula::get(last, 20s) == 42);
  for (const Ref<int>& call : behind) {
    try {
      mobula::get(call, 20s);
      FAIL("it ran after exit_actor");
    } catch (const mobula::ActorDiedError& e) {
      CHECK(std::string(e.what()).find("left by itself") != std::string::npos);
    }
  }
  CHECK_THROWS_AS(mobula::get(soldier.call<&Soldier::count>(), 20s), mobula::ActorDiedError);
  const ActorDeath death = death_of(end);
  CHECK(death.reason == DeathReason::Left);
  CHECK(death.restarts == 0);
  CHECK(static_cast<int>(death.process_id) == process);
  CHECK(gate_is_open(scratch.file("grave")));  // its destructor has run
  CHECK(is_gone(process));
  mobula::get(busy, 20s);
}

TEST_CASE("exit_actor counts, too, when the method throws, and in a constructor") {
  const auto thrower = actor<Soldier>();
  CHECK_THROWS_AS(mobula::get(thrower.call<&Soldier::leave_and_throw>(), 20s), mobula::TaskError);
  CHECK(death_of(monitor(thrower)).reason == DeathReason::Left);

  const auto brief = actor<LeavesAtOnce>();
  mobula::get(brief.ready(), 20s);
  CHECK_THROWS_AS(mobula::get(brief.call<&LeavesAtOnce::count>(), 20s), mobula::ActorDiedError);
  CHECK(death_of(monitor(brief)).reason == DeathReason::Left);
}

TEST_CASE("exit_actor outside of an actor's call is an Error") {
  CHECK_THROWS_AS(mobula::exit_actor(), mobula::Error);
  CHECK_THROWS_AS(mobula::get(remote<leaves_from_task>(), 20s), mobula::TaskError);
  const auto confused = actor<LeavesFromThread>();
  CHECK(!mobula::get(confused.call<&LeavesFromThread::leave>(), 20s).empty());
  CHECK(mobula::get(confused.call<&LeavesFromThread::leave>(), 20s).find("exit_actor") == 0);
}

TEST_CASE("a monitor tells how an actor died") {
  struct Row {
    const char* name;
    std::function<void(const ActorHandle<Soldier>&)> end;
    DeathReason reason;
    int signal;
    int exit_code;
  };
  const std::vector<Row> rows = {
      {"killed", [](const auto& s) { mobula::kill(s); }, DeathReason::Killed, SIGKILL, 0},
      {"crashed", [](const auto& s) { s.template call<&Soldier::die>(SIGABRT); },
       DeathReason::Crashed, SIGABRT, 0},
      {"exited", [](const auto& s) { s.template call<&Soldier::exit_with>(7); },
       DeathReason::Crashed, 0, 7},
      {"left", [](const auto& s) { s.template call<&Soldier::leave>(); }, DeathReason::Left, 0, 0},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const auto soldier = actor<Soldier>();
    mobula::get(soldier.ready(), 20s);
    const Ref<ActorDeath> before = monitor(soldier);
    CHECK(mobula::wait(std::vector{before}, {.timeout = 0s}).ready.empty());

    row.end(soldier);

    const ActorDeath death = death_of(before);
    CHECK(death.reason == row.reason);
    CHECK(death.signal == row.signal);
    CHECK(death.exit_code == row.exit_code);
    CHECK(death.restarts == 0);
    CHECK(!death.text().empty());
    CHECK(death_of(monitor(soldier)).reason == row.reason);  // asked for after its death
  }
  const auto unborn = actor<Unborn>();
  CHECK(death_of(monitor(unborn)).reason == DeathReason::ConstructorFailed);
}

TEST_CASE("a monitor keeps no actor alive, and tells that the last handle went") {
  auto soldier = actor<Soldier>();
  const int process = mobula::get(soldier.call<&Soldier::process>(), 20s);
  const Ref<ActorDeath> end = monitor(soldier);

  soldier = {};

  CHECK(death_of(end).reason == DeathReason::OutOfScope);
  CHECK(eventually(10s, [&] { return is_gone(process); }));
}

TEST_CASE("a monitor waits for the last of an actor's lives, and counts them") {
  const auto soldier = actor<Soldier>.with({.max_restarts = 2})();
  const Ref<ActorDeath> end = monitor(soldier);
  for (int life = 0; life < 2; ++life) {
    CHECK_THROWS_AS(mobula::get(soldier.call<&Soldier::die>(SIGABRT), 20s),
                    mobula::ActorUnavailableError);
    CHECK(mobula::get(soldier.call<&Soldier::count>(), 20s) == 1);
    CHECK(mobula::wait(std::vector{end}, {.timeout = 0s}).ready.empty());
  }

  CHECK_THROWS_AS(mobula::get(soldier.call<&Soldier::die>(SIGABRT), 20s), mobula::ActorDiedError);

  const ActorDeath death = death_of(end);
  CHECK(death.reason == DeathReason::Crashed);
  CHECK(death.signal == SIGABRT);
  CHECK(death.restarts == 2);
}

TEST_CASE("an actor has as many monitors as are asked for, in all processes") {
  auto soldier = actor<Soldier>();
  std::vector<Ref<ActorDeath>> ends;
  for (int i = 0; i < 100; ++i) ends.push_back(monitor(soldier));
  for (int i = 0; i < 5; ++i) ends.push_back(mobula::get(remote<monitor_elsewhere>(soldier), 20s));
  std::vector<Ref<int>> reasons;  // tasks that run when it dies
  for (int i = 0; i < 5; ++i)
    reasons.push_back(remote<reason_of>(ends[static_cast<std::size_t>(i)]));
  CHECK(mobula::wait(reasons, {.timeout = 20ms}).ready.empty());

  mobula::kill(soldier);

  for (const auto& end : ends) CHECK(death_of(end).reason == DeathReason::Killed);
  for (const int reason : mobula::get(reasons))
    CHECK(reason == static_cast<int>(DeathReason::Killed));
  CHECK_THROWS_AS(mobula::cancel(ends[0]), mobula::Error);
  ends.clear();
  soldier = {};
}

TEST_CASE("monitors that nobody holds any more leave nothing behind") {
  for (int i = 0; i < scaled(50, 10); ++i) {
    const auto soldier = actor<Soldier>();
    monitor(soldier);
    if (i % 2) mobula::kill(soldier);
  }
  CHECK(eventually(20s, [] {
    // The daemon uses their records again when it needs some, or when an actor goes.
    mobula::get(actor<Soldier>().call<&Soldier::count>(), 20s);
    return mobula::test::SessionView().in_use().records < 3;
  }));
}

TEST_CASE("kill without no_restart costs an actor one life of those it has") {
  const auto soldier = actor<Soldier>.with({.max_restarts = 1})();
  const int first = mobula::get(soldier.call<&Soldier::process>(), 20s);
  Scratch scratch;
  const Ref<int> busy =
      soldier.call<&Soldier::wait_here>(scratch.file("entered"), scratch.file("gate"));
  const Ref<int> behind = soldier.call<&Soldier::process>();
  wait_at_gate(scratch.file("entered"));

  mobula::kill(soldier, {.no_restart = false});

  try {
    mobula::get(busy, 20s);
    FAIL("its process was killed");
  } catch (const mobula::ActorUnavailableError& e) {
    const std::string what = e.what();
    INFO(what);
    CHECK(what.find(") is started again, since its process ") != std::string::npos);
    CHECK(what.find(" was killed by mobula::kill; the call ") != std::string::npos);
  }
  const int second = mobula::get(behind, 20s);
  CHECK(second != first);

  mobula::kill(soldier, {.no_restart = false});  // the last one

  const ActorDeath death = death_of(monitor(soldier));
  CHECK(death.reason == DeathReason::Killed);
  CHECK(death.restarts == 1);
  CHECK(static_cast<int>(death.process_id) == second);
  CHECK_THROWS_AS(mobula::get(soldier.call<&Soldier::count>(), 20s), mobula::ActorDiedError);
  mobula::kill(soldier, {.no_restart = false});  // of the dead: nothing
}

TEST_CASE("an actor that is killed while it starts, or again and again, still answers") {
  // A kill is not waited for, so it may come when the call has begun.
  const auto soldier = actor<Soldier>.with({.max_restarts = -1, .max_task_retries = -1})();
  for (int i = 0; i < 5; ++i) {
    mobula::kill(soldier, {.no_restart = false});
    mobula::kill(soldier, {.no_restart = false});
    CHECK(mobula::get(soldier.call<&Soldier::count>(), 30s) >= 1);
  }
}

TEST_CASE("a bound on pending calls refuses the next one, until one is done") {
  Scratch scratch;
  const auto bounded = actor<Bounded>.with({.max_pending_calls = 3})();
  std::vector<Ref<int>> calls;
  for (int i = 0; i < 3; ++i)
    calls.push_back(bounded.call<&Bounded::wait_here>(scratch.file("gate" + std::to_string(i))));
  for (int i = 0; i < 10; ++i) {
    CHECK_THROWS_AS(bounded.call<&Bounded::wait_here>(scratch.file("gate")),
                    mobula::PendingCallsLimitError);
  }
  // Of each process, that is: another one may have three of its own.
  CHECK(mobula::get(remote<refused_in_task>(bounded, scratch.file("gate")), 20s) == 2);

  open_gate(scratch.file("gate0"));
  mobula::get(calls[0], 20s);
  calls.push_back(bounded.call<&Bounded::wait_here>(scratch.file("gate")));
  CHECK_THROWS_AS(bounded.call<&Bounded::wait_here>(scratch.file("gate")),
                  mobula::PendingCallsLimitError);

  for (const char* gate : {"gate1", "gate2", "gate"}) open_gate(scratch.file(gate));
  CHECK(mobula::get(calls) == std::vector<int>(4, 1));
}

TEST_CASE("calls whose refs are dropped count until they are done, and those of the dead do not") {
  Scratch scratch;
  const auto bounded = actor<Bounded>.with({.max_pending_calls = 2})();
  bounded.call<&Bounded::wait_here>(scratch.file("gate"));
  bounded.call<&Bounded::wait_here>(scratch.file("gate"));
  CHECK_THROWS_AS(bounded.call<&Bounded::wait_here>(scratch.file("gate")),
                  mobula::PendingCallsLimitError);

  mobula::kill(bounded);
  mobula::get(monitor(bounded), 20s);

  for (int i = 0; i < 10; ++i) {
    const Ref<int> call = bounded.call<&Bounded::wait_here>(scratch.file("gate"));
    CHECK_THROWS_AS(mobula::get(call, 20s), mobula::ActorDiedError);
  }
}

TEST_CASE("bounds without sense are refused at the call") {
  CHECK_THROWS_AS(actor<Bounded>.with({.max_pending_calls = 0})(), mobula::Error);
  CHECK_THROWS_AS(actor<Bounded>.with({.max_pending_calls = -2})(), mobula::Error);
}

// One for one, by monitors alone: whoever of the group dies is replaced, the others go on.
TEST_CASE("a supervisor replaces each of its group that dies") {
  std::vector<ActorHandle<Soldier>> group;
  std::vector<Ref<ActorDeath>> ends;
  for (int i = 0; i < 4; ++i) {
    group.push_back(actor<Soldier>());
    ends.push_back(monitor(group.back()));
  }
  std::vector<int> first;
  for (const auto& soldier : group)
    first.push_back(mobula::get(soldier.call<&Soldier::process>(), 20s));

  group[1].call<&Soldier::die>(SIGKILL);
  group[3].call<&Soldier::leave>();
  for (int replaced = 0; replaced < 2; ++replaced) {
    const auto [ready, pending] = mobula::wait(ends, {.timeout = 20s});
    REQUIRE(ready.size() == 1);
    const auto who =
        static_cast<std::size_t>(std::find(ends.begin(), ends.end(), ready[0]) - ends.begin());
    CHECK((who == 1 || who == 3));
    group[who] = actor<Soldier>();
    ends[who] = monitor(group[who]);
  }

  for (std::size_t i = 0; i < 4; ++i) {
    const int now = mobula::get(group[i].call<&Soldier::process>(), 20s);
    CHECK((now == first[i]) == (i == 0 || i == 2));
  }
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2, .object_store_memory = 256ULL << 20});
}
