// Actors by name: who finds whom, when a name is free, and what a found handle is worth.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"
#include "support/session_view.h"
#include "support/staying_node.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::get_actor;
using mobula::Ref;
using mobula::remote;
using mobula::test::eventually;
using mobula::test::is_gone;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace named {

struct Tally {
  int n = 0;
  explicit Tally(int start) : n(start) {}
  int add(int k) { return n += k; }
  int process() const { return static_cast<int>(::getpid()); }
  int crash() { return ::kill(::getpid(), SIGKILL); }
  std::string own_name() const { return mobula::this_task().actor_name; }
};
struct Other {
  int one() { return 1; }
};
struct SlowToStart {
  explicit SlowToStart(const std::string& gate) { wait_at_gate(gate); }
  int one() { return 1; }
};

int add_by_name(std::string name, int k) {
  return mobula::get(get_actor<Tally>(name).call<&Tally::add>(k));
}
int add_by_full_name(std::string name, std::string space, int k) {
  return mobula::get(get_actor<Tally>(name, space).call<&Tally::add>(k));
}
ActorHandle<Tally> found(std::string name) { return get_actor<Tally>(name); }
ActorHandle<Tally> make_named(std::string name) { return actor<Tally>.with({.name = name})(7); }

// Finds it again and again until it is gone; each handle that it gets must work. How often it did.
int use_until_gone(std::string name, std::string seen) {
  int times = 0;
  for (;;) {
    try {
      const auto tally = get_actor<Tally>(name);
      mobula::get(tally.call<&Tally::add>(1), 20s);
      if (++times == 1) open_gate(seen);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    } catch (const mobula::ActorNotFoundError&) {
      if (times > 0) return times;
    }
  }
}
int make_or_get(std::string name) {
  const auto tally = actor<Tally>.with({.name = name, .get_if_exists = true})(0);
  mobula::get(tally.call<&Tally::add>(1), 20s);
  return mobula::get(tally.call<&Tally::process>(), 20s);
}

std::vector<std::string> names_in(const std::vector<mobula::NamedActor>& actors) {
  std::vector<std::string> names;
  for (const auto& each : actors) names.push_back(each.namespace_ + "/" + each.name);
  return names;
}

}  // namespace named
using namespace named;

TEST_CASE("an actor is found by its name, from the driver and from tasks") {
  const auto tally = actor<Tally>.with({.name = "tally"})(10);

  CHECK(mobula::get(get_actor<Tally>("tally").call<&Tally::add>(1), 20s) == 11);
  CHECK(mobula::get(remote<add_by_name>("tally", 5), 20s) == 16);
  CHECK(mobula::get(tally.call<&Tally::own_name>(), 20s) == "tally");
  CHECK(get_actor<Tally>("tally") == tally);
}

TEST_CASE("a name that nobody has, and one of another class, are ActorNotFoundError") {
  const auto other = actor<Other>.with({.name = "other"})();

  CHECK_THROWS_AS(get_actor<Tally>("nobody"), mobula::ActorNotFoundError);
  try {
    get_actor<Tally>("other");
    FAIL("an Other is no Tally");
  } catch (const mobula::ActorNotFoundError& e) {
    CHECK(std::string(e.what()).find("named::Other") != std::string::npos);
  }
  CHECK_THROWS_AS((actor<Tally>.with({.name = "other", .get_if_exists = true})(1)),
                  mobula::ActorNotFoundError);
  CHECK(mobula::get(get_actor<Other>("other").call<&Other::one>(), 20s) == 1);
}

TEST_CASE("a second actor of the same name is refused at the call") {
  const auto first = actor<Tally>.with({.name = "only"})(1);

  CHECK_THROWS_AS(actor<Tally>.with({.name = "only"})(2), mobula::ActorAlreadyExistsError);
  CHECK_THROWS_AS(actor<Other>.with({.name = "only"})(), mobula::ActorAlreadyExistsError);
  CHECK(mobula::get(get_actor<Tally>("only").call<&Tally::add>(0), 20s) == 1);
}

TEST_CASE("names are counted by namespace; without one the program's own is meant") {
  const auto here = actor<Tally>.with({.name = "twin"})(1);
  const auto there = actor<Tally>.with({.name = "twin", .namespace_ = "elsewhere"})(100);

  CHECK(mobula::get(get_actor<Tally>("twin").call<&Tally::add>(0), 20s) == 1);
  CHECK(get_actor<Tally>("twin", "home") == here);
  CHECK(mobula::get(remote<add_by_full_name>("twin", "elsewhere", 1), 20s) == 101);
  CHECK_THROWS_AS(get_actor<Tally>("twin", "nowhere"), mobula::ActorNotFoundError);
}

TEST_CASE("a name is free again when its actor is killed, dead, or without a handle") {
  for (int round = 0; round < 3; ++round) {
    auto tally = actor<Tally>.with({.name = "phoenix"})(round);
    CHECK(mobula::get(tally.call<&Tally::add>(0), 20s) == round);
    if (round == 0) mobula::kill(tally);
    if (round == 1) {
      CHECK_THROWS_AS(mobula::get(tally.call<&Tally::crash>(), 20s), mobula::ActorDiedError);
      CHECK(eventually(10s, [] { return mobula::list_named_actors().empty(); }));
    }
  }
  CHECK_THROWS_AS(get_actor<Tally>("phoenix"), mobula::ActorNotFoundError);
  CHECK(mobula::list_named_actors(true).empty());
}

TEST_CASE("a name stays with its actor through a restart") {
  const auto tally = actor<Tally>.with({.name = "lives twice", .max_restarts = 1})(5);
  const int before = mobula::get(tally.call<&Tally::process>(), 20s);
  CHECK_THROWS_AS(mobula::get(tally.call<&Tally::crash>(), 20s), mobula::ActorUnavailableError);

  const auto again = get_actor<Tally>("lives twice");

  CHECK(mobula::get(again.call<&Tally::process>(), 20s) != before);
  CHECK(mobula::get(again.call<&Tally::add>(0), 20s) == 5);
}

TEST_CASE("an actor is found before its constructor has run, and calls wait for that") {
  Scratch scratch;
  const auto slow = actor<SlowToStart>.with({.name = "slow"})(scratch.file("gate"));
  const Ref<int> one = get_actor<SlowToStart>("slow").call<&SlowToStart::one>();
  CHECK_THROWS_AS(mobula::get(one, 20ms), mobula::GetTimeoutError);

  open_gate(scratch.file("gate"));

  CHECK(mobula::get(one, 20s) == 1);
}

TEST_CASE("a handle that was got by name keeps the actor, wherever it is") {
  auto made = actor<Tally>.with({.name = "kept"})(1);
  const int process = mobula::get(made.call<&Tally::process>(), 20s);
  Ref<ActorHandle<Tally>> kept = remote<found>("kept");  // in another process's result
  mobula::get(kept, 20s);

  made = {};
  auto mine = get_actor<Tally>("kept");
  kept = {};
  for (int i = 0; i < 20; ++i) mobula::get(remote<add_by_name>("kept", 1), 20s);
  CHECK(mobula::get(mine.call<&Tally::add>(0), 20s) == 21);
  CHECK(!is_gone(process));

  mine = {};
  CHECK(eventually(10s, [&] { return is_gone(process); }));
  CHECK_THROWS_AS(get_actor<Tally>("kept"), mobula::ActorNotFoundError);
}

TEST_CASE("an actor that a task has made and named lives as long as somebody has its handle") {
  auto handle = mobula::get(remote<make_named>("made elsewhere"), 20s);
  CHECK(mobula::get(remote<add_by_name>("made elsewhere", 1), 20s) == 8);

  handle = {};

  CHECK(eventually(10s, [] {
    try {
      get_actor<Tally>("made elsewhere");
      return false;
    } catch (const mobula::ActorNotFoundError&) {
      return true;
    }
  }));
}

// The last handle goes while others ask for the name: who gets a handle can use it, and afterwards
// nothing is left.
TEST_CASE("the last handle may go while the name is asked for, and each handle that is got works") {
  Scratch scratch;
  const int rounds = scaled(60, 10);
  for (int round = 0; round < rounds; ++round) {
    const std::string name = "fleeting " + std::to_string(round);
    auto tally = actor<Tally>.with({.name = name})(0);
    const std::string seen = scratch.file("seen " + std::to_string(round));
    const Ref<int> elsewhere = remote<use_until_gone>(name, seen);
    std::atomic<int> here{0};
    std::thread thread([&] {
      try {
        for (;; ++here) {
          const auto mine = get_actor<Tally>(name);
          mobula::get(mine.call<&Tally::add>(1), 20s);
          std::this_thread::sleep_for(50us);
        }
      } catch (const mobula::ActorNotFoundError&) {
      }
    });
    wait_at_gate(seen);
    tally = {};
    // Each put looks whether its handle was the last one.
    while (mobula::wait(std::vector{elsewhere}, {.timeout = 0s}).ready.empty()) mobula::put(1);

    CHECK(mobula::get(elsewhere, 30s) >= 1);
    thread.join();
  }
  CHECK(eventually(10s, [] { return mobula::list_named_actors().empty(); }));
  CHECK(eventually(10s, [] {
    mobula::get(remote<[] { return 0; }>(), 20s);
    return mobula::test::SessionView().in_use().nothing();
  }));
}

TEST_CASE("get_if_exists makes one actor, however many ask at the same time") {
  std::vector<Ref<int>> processes;
  const auto keep = actor<Tally>.with({.name = "shared", .get_if_exists = true})(0);
  for (int i = 0; i < 20; ++i) processes.push_back(remote<make_or_get>("shared"));

  const std::vector<int> pids = mobula::get(processes);

  CHECK(std::all_of(pids.begin(), pids.end(), [&](int pid) { return pid == pids[0]; }));
  CHECK(mobula::get(keep.call<&Tally::add>(0), 20s) == 20);
}

TEST_CASE("get_if_exists is right also when the actor dies and comes again beside it") {
  std::vector<Ref<int>> processes;
  for (int i = 0; i < scaled(100, 20); ++i) processes.push_back(remote<make_or_get>("in turn"));

  for (const int pid : mobula::get(processes)) CHECK(pid > 0);
}

TEST_CASE("the names are listed, those of the own namespace or all, also when they are many") {
  // Workers drop the last handles of earlier actors when they have time.
  REQUIRE(eventually(10s, [] { return mobula::list_named_actors(true).empty(); }));
  std::vector<ActorHandle<Other>> actors;
  std::vector<std::string> expected;
  for (int i = 0; i < 40; ++i) {  // more than fit into one answer
    const std::string name = std::to_string(100 + i) + std::string(90, 'x');
    actors.push_back(actor<Other>.with({.name = name})());
    expected.push_back("home/" + name);
  }
  const auto elsewhere = actor<Other>.with({.name = "one", .namespace_ = "elsewhere"})();

  CHECK(names_in(mobula::list_named_actors()) == expected);
  expected.insert(expected.begin(), "elsewhere/one");
  CHECK(names_in(mobula::list_named_actors(true)) == expected);
}

TEST_CASE("names without sense are refused at the call") {
  CHECK_THROWS_AS(get_actor<Tally>(""), mobula::Error);
  CHECK_THROWS_AS(get_actor<Tally>(std::string(101, 'x')), mobula::Error);
  CHECK_THROWS_AS(get_actor<Tally>("two\nlines"), mobula::Error);
  CHECK_THROWS_AS(actor<Tally>.with({.name = std::string("a\0b", 3)})(1), mobula::Error);
  CHECK_THROWS_AS(actor<Tally>.with({.namespace_ = "without a name"})(1), mobula::Error);
  CHECK_THROWS_AS(actor<Tally>.with({.get_if_exists = true})(1), mobula::Error);
}

// Two at a time, on one node.
TEST_CASE("drivers of one node have names of their own, though they are the same") {
  const mobula::test::OwnPlace place;
  const mobula::test::StayingNode node(place);
  const std::string made = place.home().file("made");
  std::deque<mobula::test::Child> drivers;
  for (int i = 0; i < 2; ++i) {
    drivers.emplace_back(mobula::test::own_program(),
                         std::vector<std::string>{"--same-name", std::to_string(i), made},
                         place.variables("test"));
  }
  for (auto& driver : drivers) {
    const auto ending = driver.wait(60s);
    INFO(driver.output());
    REQUIRE(ending.has_value());
    CHECK(ending->code == 0);
  }
}

// Has the actor when the other driver has one, too, and finds its own.
int same_name(int argc, char** argv) {
  const int number = std::atoi(argv[2]);
  const std::string made = argv[3];
  const mobula::Session session(
      argc, argv, {.num_cpus = 1, .object_store_memory = 64ULL << 20, .namespace_ = "shared"});
  const auto mine = actor<Tally>.with({.name = "same"})(100 * number);
  mobula::get(mine.ready());
  open_gate(made + argv[2]);
  wait_at_gate(made + std::to_string(1 - number));
  const bool own = mobula::get(remote<add_by_name>("same", 1), 20s) == 100 * number + 1 &&
                   mobula::list_named_actors(true).size() == 1;
  open_gate(made + "checked" + argv[2]);
  wait_at_gate(made + "checked" + std::to_string(1 - number));
  return own ? 0 : 1;
}

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--same-name") return same_name(argc, argv);
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .object_store_memory = 256ULL << 20, .namespace_ = "home"});
}
