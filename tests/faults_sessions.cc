// Sessions beside each other do not meet, and a node that dies is reported, not waited for.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::eventually;
using mobula::test::family_of;
using mobula::test::is_gone;
using mobula::test::milliseconds;
using mobula::test::nodes_of;
using mobula::test::open_gate;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;
using mobula::test::workers_of;

namespace sessions {

int gated(std::string gate) {
  wait_at_gate(gate);
  return 1;
}
int scaled_by(int x, int factor) { return x * factor; }
struct Counter {
  int n = 0;
  int add(int k) { return n += k; }
};

void say(const char* word) {
  std::puts(word);
  std::fflush(stdout);
}

// Until the gate is open, and at least 50 rounds: each value is right.
int works(const std::string& gate, int factor) {
  const auto counter = mobula::actor<Counter>();
  const auto block = mobula::put(std::vector<int>(100'000, factor));
  int counted = 0;
  for (int round = 0; round < 50 || !mobula::test::gate_is_open(gate); ++round) {
    std::vector<Ref<int>> refs;
    for (int i = 0; i < 100; ++i) refs.push_back(remote<scaled_by>(i, factor));
    for (int i = 0; i < 100; ++i) {
      if (mobula::get(refs[static_cast<std::size_t>(i)]) != i * factor) return 2;
    }
    if (mobula::get(counter.call<&Counter::add>(factor)) != (counted += factor)) return 3;
    if (mobula::get_view(block)[round] != factor) return 4;
    if (round == 0) say("ready");
  }
  return 0;
}

// Its node is killed while it waits.
int loses_node(const std::string& gate) {
  const auto counter = mobula::actor<Counter>();
  const Ref<int> counted = counter.call<&Counter::add>(1);
  mobula::get(counted);
  const Ref<int> never = remote<gated>(gate);
  say("ready");
  try {
    mobula::get(never);
    return 2;
  } catch (const mobula::NodeDiedError& e) {
    std::printf("told: %s\n", e.what());
  }
  say("lost");
  const auto start = Clock::now();
  const auto throws = [](auto call) {
    try {
      call();
    } catch (const mobula::Error& e) {
      std::printf("then: %s\n", e.what());
      return true;
    }
    return false;
  };
  // Nothing waits for a node that is dead.
  if (!throws([&] { mobula::get(never); })) return 3;
  if (!throws([&] { mobula::get(remote<scaled_by>(1, 2)); })) return 4;
  if (!throws([&] { mobula::get(counter.call<&Counter::add>(1)); })) return 5;
  if (!throws([&] { mobula::wait(std::vector{never}); })) return 6;
  if (!throws([&] { mobula::put(std::vector<int>(5'000'000)); })) return 7;
  if (since(start) > 5s) return 8;
  say("asked");
  wait_at_gate(gate);
  return 0;
}

int run(int argc, char** argv) {
  const std::string_view name = argv[2];
  const mobula::Session session(argc, argv, {.num_cpus = 2, .object_store_memory = 64ULL << 20});
  return name == "works" ? works(argv[3], std::atoi(argv[4])) : loses_node(argv[3]);
}

Child start(const std::string& name, const std::string& gate, int factor = 0) {
  return {mobula::test::own_program(), {"--session", name, gate, std::to_string(factor)}};
}

}  // namespace sessions

TEST_CASE("two sessions of one machine do not meet, and one goes on when the other is killed") {
  Scratch scratch;
  Child a = sessions::start("works", scratch.file("a"), 3);
  Child b = sessions::start("works", scratch.file("b"), 7);
  REQUIRE(a.says("ready", 20s));
  REQUIRE(b.says("ready", 20s));
  REQUIRE(nodes_of(a.tag()).size() == 1);
  REQUIRE(nodes_of(b.tag()).size() == 1);
  CHECK(nodes_of(a.tag()) != nodes_of(b.tag()));

  a.send(SIGKILL);
  CHECK(eventually(5s, [&] { return family_of(a.tag()).empty(); }));
  CHECK(!b.wait(100ms).has_value());  // still at work
  open_gate(scratch.file("b"));

  const auto ending = b.wait(20s);
  INFO(b.output());
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 0);
}

TEST_CASE("kill -9 of the node makes the driver's calls throw, and takes the workers along") {
  Scratch scratch;
  Child driver = sessions::start("loses_node", scratch.file("gate"));
  REQUIRE(driver.says("ready", 20s));
  const auto nodes = nodes_of(driver.tag());
  REQUIRE(nodes.size() == 1);
  REQUIRE(!workers_of(driver.tag()).empty());

  const auto start = Clock::now();
  REQUIRE(::kill(nodes[0], SIGKILL) == 0);
  const bool lost = driver.says("lost", 5s);
  std::printf("the driver learned of its node's death after %d ms\n",
              static_cast<int>(since(start).count()));

  INFO(driver.output());
  CHECK(lost);
  CHECK(eventually(5s, [&] { return family_of(driver.tag()).size() == 1; }));  // the driver alone
  INFO(mobula::test::describe(family_of(driver.tag())));
  CHECK(driver.says("asked", 10s));
  CHECK(!is_gone(driver.pid()));
  open_gate(scratch.file("gate"));
  const auto ending = driver.wait(10s);
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 0);
}

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "--session") return sessions::run(argc, argv);
  doctest::Context context(argc, argv);
  return context.run();
}
