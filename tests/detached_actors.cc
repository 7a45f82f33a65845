// Actors that outlive their driver: on a node that stays they are found by name by whoever comes
// later, they behave as any actor does, and nothing of them is left when they, or the node, have
// ended.
#include "support/scenario.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "support/staying_node.h"
#include "wire/parcel.h"

using namespace std::chrono_literals;
using mobula::Lifetime;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::eventually;
using mobula::test::family_of;
using mobula::test::OwnPlace;
using mobula::test::Scratch;
using mobula::test::StayingNode;
using mobula::test::text_of;

namespace fs = std::filesystem;

namespace detached {

using Words = std::vector<std::string>;
using Bytes = std::vector<std::uint8_t>;

struct Counter {
  Counter() = default;
  explicit Counter(int start, std::string constructions = {}) : count(start) {
    if (!constructions.empty()) mobula::test::count_in(constructions);
  }
  int add(int n) { return count += n; }
  int pid() const { return ::getpid(); }
  int host() const { return ::getppid(); }
  int leave() {
    mobula::exit_actor();
    return count;
  }
  int fails(int n) const {
    if (n > 0) throw std::out_of_range("beyond " + std::to_string(count));
    return n;
  }
  // The number of the caller's call before; they must come in order.
  int in_order(const std::string& who, int number) { return std::exchange(last[who], number); }
  std::uint64_t sum(const Bytes& bytes) const {
    return std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0});
  }
  Bytes make(std::uint64_t size) const { return Bytes(size, 7); }
  int all(const std::vector<int>& values) const {
    return std::accumulate(values.begin(), values.end(), count);
  }
  int held(const std::vector<Ref<int>>& refs) const { return static_cast<int>(refs.size()); }
  Ref<int> gives_ref() const { return mobula::put(1); }
  void later(mobula::Reply<int> reply, int ms) {
    mobula::call_after(std::chrono::milliseconds(ms),
                       [this, kept = std::make_shared<mobula::Reply<int>>(std::move(reply))] {
                         kept->set(count);
                       });
  }
  void never(mobula::Reply<int> reply) {
    reply.on_cancel([this] {
      ++cancelled;
      open.clear();
    });
    open.push_back(std::move(reply));
  }
  int cancels() const { return cancelled; }
  void save(mobula::Writer& writer) const { writer.raw(count); }
  void load(mobula::Reader& reader) { count = reader.raw<int>(); }

  int count = 0;
  int cancelled = 0;
  std::map<std::string, int> last;
  std::vector<mobula::Reply<int>> open;
};

struct Refuses {
  explicit Refuses(int) { throw std::invalid_argument("no such counter"); }
  int one() const { return 1; }
};

int from_a_task(std::string name) {
  return mobula::get(mobula::get_actor<Counter>(name).call<&Counter::add>(1));
}
int one_more(int n) { return n + 1; }

void say(const std::string& word) {
  std::puts(word.c_str());
  std::fflush(stdout);
}

struct Wrong : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void check(bool is_true, const std::string& what) {
  if (!is_true) throw Wrong("not so: " + what);
}
#define HOLDS(...) check((__VA_ARGS__), "line " + std::to_string(__LINE__) + ": " #__VA_ARGS__)

// The error's text.
template <class E, class F>
std::string throws(const F& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  throw Wrong("nothing was thrown");
}
bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

mobula::ActorOptions named(const std::string& name) {
  return {.name = name, .lifetime = Lifetime::Detached};
}
auto counter(const std::string& name) { return mobula::get_actor<Counter>(name); }
int added(const mobula::ActorHandle<Counter>& handle, int n) {
  return mobula::get(handle.call<&Counter::add>(n), 20s);
}

// ---- What drivers do.

void creates(const Words& words) {
  mobula::ActorOptions options = named(words.at(1));
  if (words.size() > 2) options.max_restarts = std::stoi(words[2]);
  if (words.size() > 3) options.recovery = mobula::Recovery::Replay;
  const auto made = mobula::actor<Counter>.with(options)(10);
  HOLDS(added(made, 5) == 15);
  say("created");
}
void creates_and_waits(const Words& words) {
  const auto made = mobula::actor<Counter>.with(named(words.at(1)))(10);
  HOLDS(added(made, 5) == 15);
  say("created");
  mobula::test::wait_at_gate(words.at(2));
}
void finds(const Words& words) { say("has " + std::to_string(added(counter(words.at(1)), 1))); }
void gets_or_creates(const Words& words) {
  mobula::test::wait_at_gate(words.at(3));
  mobula::ActorOptions options = named(words.at(1));
  options.get_if_exists = true;
  const auto made = mobula::actor<Counter>.with(options)(0, words.at(2));
  HOLDS(added(made, 1) > 0);
}
void calls_in_order(const Words& words) {
  const auto actor = counter(words.at(1));
  const int count = mobula::test::scaled(10'000, 1000);
  std::vector<Ref<int>> before;
  for (int i = 1; i <= count; ++i) before.push_back(actor.call<&Counter::in_order>(words.at(2), i));
  int expected = 0;
  for (const int seen : mobula::get(before)) HOLDS(seen == expected++);
}
void carries_much(const Words& words) {
  const std::uint64_t size = std::uint64_t{100} << 20;
  const auto actor = counter(words.at(1));
  const Bytes ones(size, 1);
  HOLDS(mobula::get(actor.call<&Counter::sum>(ones), 60s) == size);
  const Ref<Bytes> stored = mobula::put(ones);
  HOLDS(mobula::get(actor.call<&Counter::sum>(stored), 60s) == size);
  const auto made = mobula::get(actor.call<&Counter::make>(size), 60s);
  HOLDS(made.size() == size);
  HOLDS(std::all_of(made.begin(), made.end(), [](std::uint8_t byte) { return byte == 7; }));
  const std::string refusal = throws<mobula::ObjectStoreFullError>(
      [&] { mobula::get(actor.call<&Counter::make>(std::uint64_t{2} << 30), 60s); });
  HOLDS(contains(refusal, "MOBULA_DETACHED_OBJECT_MEMORY in the environment of"));
  HOLDS(added(actor, 1) == 16);
}
void passes_refs(const Words& words) {
  const auto actor = counter(words.at(1));
  const Ref<int> later = remote<one_more>(remote<one_more>(1));
  HOLDS(mobula::get(actor.call<&Counter::add>(later), 20s) == 18);
  HOLDS(mobula::get(actor.call<&Counter::all>(std::vector{later, mobula::put(100), later}), 20s) ==
        124);
  const Ref<int> bad = actor.call<&Counter::fails>(1);
  throws<mobula::TaskError>([&] { mobula::get(actor.call<&Counter::add>(bad), 20s); });

  HOLDS(contains(throws<mobula::Error>([&] { actor.call<&Counter::held>(std::vector{later}); }),
                 "as values"));
  HOLDS(
      contains(throws<mobula::Error>([&] { mobula::get(actor.call<&Counter::gives_ref>(), 20s); }),
               "as values"));
  HOLDS(added(actor, 0) == 18);
}
void meets_errors(const Words& words) {
  const auto actor = counter(words.at(1));
  try {
    mobula::get(actor.call<&Counter::fails>(1), 20s);
    throw Wrong("it did not fail");
  } catch (const mobula::TaskError& e) {
    HOLDS(e.type_name() == "std::out_of_range");
    HOLDS(e.message() == "beyond 15");
    HOLDS(contains(e.task_name(), "fails"));
    HOLDS(contains(e.what(), std::to_string(mobula::get(actor.call<&Counter::pid>()))));
    throws<std::out_of_range>([&] { e.rethrow_cause(); });
  }
  HOLDS(contains(throws<mobula::ActorNotFoundError>([] { mobula::get_actor<Refuses>("c"); }),
                 "Counter"));
  HOLDS(contains(
      throws<mobula::ActorAlreadyExistsError>([] { mobula::actor<Counter>.with(named("c"))(1); }),
      "\"c\""));

  const auto never = mobula::actor<Refuses>.with(named("never"))(1);
  const auto end = mobula::monitor(never);
  const std::string why = throws<mobula::TaskError>([&] { mobula::get(never.ready(), 20s); });
  HOLDS(contains(why, "no such counter"));
  HOLDS(mobula::get(end, 20s).reason == mobula::DeathReason::ConstructorFailed);
  throws<mobula::ActorDiedError>([&] { mobula::get(never.call<&Refuses::one>(), 20s); });
  HOLDS(eventually(20s, [] {
    try {
      mobula::get_actor<Refuses>("never");
      return false;
    } catch (const mobula::ActorNotFoundError&) {
      return true;
    }
  }));
}
void demands_too_much(const Words&) {
  mobula::ActorOptions options = named("gpu");
  options.num_gpus = 64;
  throws<mobula::UnschedulableError>([&] { mobula::actor<Counter>.with(options)(1); });
  throws<mobula::ActorNotFoundError>([] { counter("gpu"); });
  // A group ends with its job.
  options = named("grouped");
  options.scheduling = mobula::PlacementGroupScheduling(mobula::placement_group({{{"CPU", 1}}}));
  HOLDS(contains(throws<mobula::Error>([&] { mobula::actor<Counter>.with(options)(1); }),
                 "placement group"));
}
void answers_later(const Words& words) {
  const auto actor = counter(words.at(1));
  const Ref<int> slow = actor.call<&Counter::later>(30);
  HOLDS(added(actor, 1) == 16);
  HOLDS(mobula::get(slow, 20s) == 16);

  const Ref<int> never = actor.call<&Counter::never>();
  HOLDS(added(actor, 0) == 16);
  HOLDS(mobula::cancel(never));
  throws<mobula::TaskCancelledError>([&] { mobula::get(never, 20s); });
  HOLDS(eventually(20s, [&] { return mobula::get(actor.call<&Counter::cancels>(), 20s) == 1; }));
  const Ref<int> late = actor.with({.deadline = 20ms}).call<&Counter::never>();
  throws<mobula::DeadlineExceededError>([&] { mobula::get(late, 20s); });
  HOLDS(eventually(20s, [&] { return mobula::get(actor.call<&Counter::cancels>(), 20s) == 2; }));
}
// The process that stands for the actor here is killed meanwhile.
void loses_proxy(const Words& words) {
  const auto actor = counter(words.at(1));
  const Ref<int> open = actor.call<&Counter::never>();
  HOLDS(added(actor, 0) == 15);
  say("stands");
  throws<mobula::ActorUnavailableError>([&] { mobula::get(open, 20s); });
  HOLDS(added(actor, 1) == 16);
}
// Waits until somebody else has ended it.
void sees_end(const Words& words) {
  const auto actor = counter(words.at(1));
  const auto end = mobula::monitor(actor);
  const Ref<int> open = actor.call<&Counter::never>();
  HOLDS(added(actor, 0) == 15);
  say("watches");
  const mobula::ActorDeath death = mobula::get(end, 20s);
  throws<mobula::Error>([&] { mobula::get(open, 20s); });  // one that leaves drops its Reply
  throws<mobula::ActorDiedError>([&] { added(actor, 1); });
  say("ended: " + death.text());
}
void kills(const Words& words) {
  const auto actor = counter(words.at(1));
  HOLDS(added(actor, 0) == 15);
  mobula::kill(actor);
  throws<mobula::ActorDiedError>([&] { added(actor, 1); });
  throws<mobula::ActorNotFoundError>([&] { counter(words.at(1)); });
  const auto anew = mobula::actor<Counter>.with(named(words.at(1)))(100);
  HOLDS(added(anew, 1) == 101);
  HOLDS(added(counter(words.at(1)), 1) == 102);
}
void lets_leave(const Words& words) {
  const auto actor = counter(words.at(1));
  HOLDS(mobula::get(actor.call<&Counter::leave>(), 20s) == 15);
  HOLDS(mobula::get(mobula::monitor(actor), 20s).reason == mobula::DeathReason::Left);
}
void crashes(const Words& words) {
  const auto actor = counter(words.at(1));
  const int kept = std::stoi(words.at(2));
  const int first = mobula::get(actor.call<&Counter::pid>(), 20s);
  ::kill(first, SIGKILL);
  HOLDS(eventually(20s, [&] {
    try {
      return mobula::get(actor.call<&Counter::pid>(), 20s) != first;
    } catch (const mobula::ActorUnavailableError&) {
      return false;
    }
  }));
  HOLDS(added(actor, 0) == kept);
  const auto end = mobula::monitor(actor);
  ::kill(mobula::get(actor.call<&Counter::pid>(), 20s), SIGKILL);
  const mobula::ActorDeath death = mobula::get(end, 20s);
  HOLDS(death.reason == mobula::DeathReason::Crashed);
  HOLDS(death.signal == SIGKILL);
  HOLDS(death.restarts == 1);
}
void restarts(const Words& words) {
  const auto actor = counter(words.at(1));
  const int first = mobula::get(actor.call<&Counter::pid>(), 20s);
  mobula::kill(actor, {.no_restart = false});
  HOLDS(eventually(20s, [&] {
    try {
      return mobula::get(actor.call<&Counter::pid>(), 20s) != first;
    } catch (const mobula::ActorUnavailableError&) {
      return false;
    }
  }));
  HOLDS(added(actor, 0) == 10);
}
void lists(const Words&) {
  const auto own = mobula::list_named_actors();
  HOLDS(own.size() == 2);
  HOLDS(own[0].name == "a");
  HOLDS(own[1].name == "b");
  const auto b = counter("b");
  HOLDS(mobula::list_named_actors().size() == 2);
  mobula::actor<Counter>.with({.name = "a", .namespace_ = "other", .lifetime = Lifetime::Detached})(
      7);
  HOLDS(mobula::list_named_actors().size() == 2);
  HOLDS(mobula::list_named_actors(true).size() == 3);
  HOLDS(added(mobula::get_actor<Counter>("a", "other"), 1) == 8);
  HOLDS(added(counter("a"), 1) == 16);
}
void asks_from_a_task(const Words& words) {
  std::vector<Ref<int>> all;
  for (int i = 0; i < 20; ++i) all.push_back(remote<from_a_task>(words.at(1)));
  auto seen = mobula::get(all);
  std::sort(seen.begin(), seen.end());
  for (int i = 0; i < 20; ++i) HOLDS(seen[static_cast<std::size_t>(i)] == 16 + i);
}
void is_refused(const Words&) {
  const std::string why = throws<mobula::Error>([] { mobula::actor<Counter>.with(named("x"))(1); });
  HOLDS(contains(why, "mobula start --head"));
  throws<mobula::ActorNotFoundError>([] { counter("x"); });
  HOLDS(mobula::list_named_actors().empty());
}
void needs_a_name(const Words&) {
  HOLDS(contains(throws<mobula::Error>(
                     [] { mobula::actor<Counter>.with({.lifetime = Lifetime::Detached})(1); }),
                 "needs a name"));
}
void measures(const Words& words) {
  const auto actor = counter(words.at(1));
  for (int i = 0; i < 200; ++i) added(actor, 0);
  auto begin = mobula::test::Clock::now();
  for (int i = 0; i < 2000; ++i) added(actor, 0);
  const double us =
      std::chrono::duration<double, std::micro>(mobula::test::Clock::now() - begin).count() / 2000;
  begin = mobula::test::Clock::now();
  std::vector<Ref<int>> all;
  for (int i = 0; i < 20'000; ++i) all.push_back(actor.call<&Counter::add>(0));
  mobula::get(all);
  const double s = std::chrono::duration<double>(mobula::test::Clock::now() - begin).count();
  say("one call " + std::to_string(us) + " us; " + std::to_string(20'000 / s) + " calls/s");
}

const std::map<std::string_view, void (*)(const Words&)> kDrivers = {
    {"creates", creates},
    {"creates_and_waits", creates_and_waits},
    {"finds", finds},
    {"gets_or_creates", gets_or_creates},
    {"calls_in_order", calls_in_order},
    {"carries_much", carries_much},
    {"passes_refs", passes_refs},
    {"meets_errors", meets_errors},
    {"demands_too_much", demands_too_much},
    {"answers_later", answers_later},
    {"loses_proxy", loses_proxy},
    {"sees_end", sees_end},
    {"kills", kills},
    {"lets_leave", lets_leave},
    {"crashes", crashes},
    {"restarts", restarts},
    {"lists", lists},
    {"asks_from_a_task", asks_from_a_task},
    {"is_refused", is_refused},
    {"needs_a_name", needs_a_name},
    {"measures", measures},
};

int run(int argc, char** argv) {
  const Words words(argv + 2, argv + argc);
  try {
    const mobula::Session session(argc, argv);
    kDrivers.at(words.at(0))(words);
    say("done");
    return 0;
  } catch (const std::exception& e) {
    say(std::string("error: ") + e.what());
    return 9;
  }
}

Child start(const OwnPlace& place, const Words& words, const std::string& address = "test",
            const std::map<std::string, std::string>& more = {}) {
  Words all{"--driver"};
  all.insert(all.end(), words.begin(), words.end());
  auto variables = place.variables(address);
  variables.insert(more.begin(), more.end());
  return {mobula::test::own_program(), all, variables};
}

// A driver that has ended well. Its destructor ends what it has started: keep it.
class Done {
 public:
  Done(const OwnPlace& place, const Words& words,
       const std::map<std::string, std::string>& more = {})
      : child_(start(place, words, "test", more)) {
    const auto ending = child_.wait(90s);
    INFO(words.at(0), ": ", child_.output());
    REQUIRE(ending.has_value());
    REQUIRE(ending->code == 0);
    REQUIRE(ending->signal == 0);
  }
  std::string output() const { return child_.output(); }
  bool said(std::string_view text) const { return contains(output(), text); }
  const std::string& tag() const { return child_.tag(); }

 private:
  Child child_;
};

}  // namespace detached

using detached::contains;
using detached::Done;

TEST_CASE("an actor is there with its state when its driver has ended in order") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});

  for (int i = 1; i <= 3; ++i) {
    const Done finder(place, {"finds", "c"});
    CHECK(finder.said("has " + std::to_string(15 + i)));
  }
}

TEST_CASE("kill -9 of its creator, and of one that has a handle, leaves the actor alone") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  Child creator = detached::start(place, {"creates_and_waits", "c", scratch.file("never")});
  REQUIRE(creator.says("created", 30s));
  creator.send(SIGKILL);
  REQUIRE(creator.wait(10s).has_value());

  const Done second(place, {"finds", "c"});
  Child watcher = detached::start(place, {"sees_end", "c"});
  CHECK(second.said("has 16"));
  watcher.send(SIGKILL);
  REQUIRE(watcher.wait(10s).has_value());
  const Done third(place, {"finds", "c"});
  CHECK(third.said("has 17"));
}

TEST_CASE("mobula why follows a call to the job in which its actor lives") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});
  Child watcher = detached::start(place, {"sees_end", "c"});
  REQUIRE(eventually(20s, [&] { return contains(watcher.output(), "watches"); }));
  const std::string tasks = place.run({"list", "tasks", "--state", "running"}).output;

  std::string why;  // of the call as the watcher made it, and as the actor's own job has it
  for (std::size_t at = 0; (at = tasks.find("  detached::Counter::never", at)) != std::string::npos;
       ++at) {
    REQUIRE(at >= 32);
    why += place.run({"why", tasks.substr(at - 32, 32)}).output;
  }

  INFO(why);
  CHECK(
      contains(why, "was handed on to its actor, which is detached\n  actor detached::Counter ("));
  CHECK(contains(why, ") is alive in process "));
  CHECK(contains(why, "\n    call detached::Counter::never ("));
}

TEST_CASE("another program calls it, too, but no method that the creator's program lacks") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});

  const auto folder = fs::path(mobula::test::own_program()).parent_path();
  Child stranger((folder / "detached_stranger").string(), {}, place.variables("test"));
  const auto ending = stranger.wait(30s);

  INFO(stranger.output());
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
  CHECK(contains(stranger.output(), "has 16\nrefused: "));
  CHECK(
      contains(stranger.output(), "Counter::strange: the program that created the actor does not"));
  CHECK(contains(stranger.output(), "has 17\n"));
}

TEST_CASE("of drivers that get or create one at the same time, one makes it") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  const detached::Words words{"gets_or_creates", "c", scratch.file("made"), scratch.file("gate")};
  Child a = detached::start(place, words);
  Child b = detached::start(place, words);
  Child c = detached::start(place, words);
  mobula::test::open_gate(scratch.file("gate"));

  for (Child* driver : {&a, &b, &c}) {
    const auto ending = driver->wait(60s);
    INFO(driver->output());
    REQUIRE(ending.has_value());
    CHECK(ending->code == 0);
  }
  CHECK(text_of(scratch.file("made")) == "x");
  const Done last(place, {"finds", "c"});
  CHECK(last.said("has 4"));
}

TEST_CASE("calls of each driver come in their order, ten thousand at a time") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});
  Child a = detached::start(place, {"calls_in_order", "c", "a"});
  Child b = detached::start(place, {"calls_in_order", "c", "b"});

  for (Child* driver : {&a, &b}) {
    const auto ending = driver->wait(90s);
    INFO(driver->output());
    REQUIRE(ending.has_value());
    CHECK(ending->code == 0);
  }
}

TEST_CASE("arguments and results of 100 MB are carried, and too large ones are refused") {
  const OwnPlace place;
  StayingNode node(place, {"--object-store-memory=2G"});
  const Done creator(place, {"creates", "c"}, {{"MOBULA_DETACHED_OBJECT_MEMORY", "400000000"}});

  const Done driver(place, {"carries_much", "c"});
}

TEST_CASE("a Ref stands for its value, and Refs inside of values are refused") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});

  const Done driver(place, {"passes_refs", "c"});
}

TEST_CASE("what a method or constructor throws keeps its type and its origin") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});

  const Done driver(place, {"meets_errors", "c"});
  const Done greedy(place, {"demands_too_much"});
}

TEST_CASE("calls may be answered later, be cancelled and have deadlines") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});

  const Done driver(place, {"answers_later", "c"});
}

TEST_CASE("any driver can kill it: all hear why, and its name is free") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});
  Child watcher = detached::start(place, {"sees_end", "c"});
  REQUIRE(watcher.says("watches", 30s));

  const Done killer(place, {"kills", "c"});

  REQUIRE(watcher.wait(30s).has_value());
  INFO(watcher.output());
  CHECK(contains(watcher.output(), "killed by mobula::kill"));
  const Done last(place, {"finds", "c"});
  CHECK(last.said("has 103"));
}

TEST_CASE("it can leave by itself, and nothing of it is left") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});
  REQUIRE(!family_of(creator.tag()).empty());  // its host, as its creator was
  Child watcher = detached::start(place, {"sees_end", "c"});
  REQUIRE(watcher.says("watches", 30s));

  const Done driver(place, {"lets_leave", "c"});

  REQUIRE(watcher.wait(30s).has_value());
  INFO(watcher.output());
  CHECK(contains(watcher.output(), "left by itself"));
  CHECK(eventually(20s, [&] { return family_of(creator.tag()).empty(); }));
  CHECK(eventually(20s, [&] {
    return std::distance(fs::directory_iterator(place.folder()), fs::directory_iterator()) == 1;
  }));
}

TEST_CASE("it restarts, from its checkpoint and journal too, and at last it is dead") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c", "1"});
  const Done crash(place, {"crashes", "c", "10"});

  const Done replayed(place, {"creates", "r", "1", "replay"});
  const Done again(place, {"crashes", "r", "15"});

  const Done killed_once(place, {"creates", "k", "1"});
  const Done restarted(place, {"restarts", "k"});
}

TEST_CASE("namespaces part names, and each actor is listed once") {
  const OwnPlace place;
  StayingNode node(place);
  const Done a(place, {"creates", "a"});
  const Done b(place, {"creates", "b"});

  const Done driver(place, {"lists"});

  const auto list = place.run({"list", "actors"});
  CHECK(contains(list.output, "Counter"));
  CHECK(contains(list.output, " a "));
}

TEST_CASE("tasks find it, too, and what stands for it goes with its last handle") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});

  const Done tasks(place, {"asks_from_a_task", "c"});
}

TEST_CASE("when what stands for it in a driver's session is killed, calls go on after that") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});
  Child driver = detached::start(place, {"loses_proxy", "c"});
  REQUIRE(driver.says("stands", 30s));
  const auto family = family_of(driver.tag());
  std::vector<pid_t> proxies;  // of the driver's zygote
  for (const auto& seen : family) {
    const auto is_parent = [&](const auto& other) { return other.pid == seen.parent; };
    if (std::any_of(family.begin(), family.end(), is_parent)) proxies.push_back(seen.pid);
  }
  REQUIRE(!proxies.empty());

  for (const pid_t pid : proxies) ::kill(pid, SIGKILL);

  const auto ending = driver.wait(30s);
  INFO(driver.output());
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
}

TEST_CASE("when its host is killed its calls fail, and its name is free") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});
  Child watcher = detached::start(place, {"sees_end", "c"});
  REQUIRE(watcher.says("watches", 30s));
  pid_t host = 0;
  for (const auto& seen : family_of(creator.tag())) {
    if (seen.parent == node.head()) host = seen.pid;
  }
  REQUIRE(host != 0);

  ::kill(host, SIGKILL);

  REQUIRE(watcher.wait(30s).has_value());
  CHECK(contains(watcher.output(), "the session that it lived in has ended"));
  CHECK(eventually(20s, [&] { return family_of(creator.tag()).empty(); }));
  const Done anew(place, {"creates", "c"});
}

TEST_CASE("who sends what is no call to its door is sent away, and the actor stays") {
  const OwnPlace place;
  StayingNode node(place);
  const Done creator(place, {"creates", "c"});
  std::string door;
  for (const auto& entry : fs::directory_iterator(place.folder())) {
    if (fs::exists(entry.path() / "door")) door = entry.path().string();
  }
  REQUIRE(!door.empty());
  const auto refused = [&](const std::vector<mobula::wire::Message>& messages) {
    const int socket = mobula::wire::connect_in(door, "door");
    for (const auto& message : messages) mobula::wire::send(socket, message);
    mobula::wire::Message answer;
    mobula::wire::Received got;
    while ((got = mobula::wire::receive(socket, answer)) == mobula::wire::Received::Message) {
    }
    ::close(socket);
    return got == mobula::wire::Received::Closed;
  };
  mobula::wire::Message knock;
  knock.kind = mobula::wire::Kind::Knock;
  knock.c = 1;
  mobula::wire::Message call;
  call.kind = mobula::wire::Kind::Call;
  call.c = 1;

  CHECK(refused({call}));
  knock.c = 77;
  CHECK(refused({knock}));
  knock.c = 1;
  CHECK(refused({knock, call}));
  call.set_text(std::string(3000, '\xff'));
  CHECK(refused({knock, call}));
  call.kind = mobula::wire::Kind::Gone;
  CHECK(refused({knock, call}));
  const int noise = mobula::wire::connect_in(door, "door");
  CHECK(::send(noise, "x", 1, MSG_NOSIGNAL) == 1);
  ::close(noise);

  const Done finder(place, {"finds", "c"});
  CHECK(finder.said("has 16"));
}

TEST_CASE("it ends with its node, and nothing is left, however the node ends") {
  for (const bool orderly : {true, false}) {
    CAPTURE(orderly);
    const OwnPlace place;
    StayingNode node(place);
    const Done creator(place, {"creates", "c"});
    REQUIRE(!family_of(creator.tag()).empty());

    if (orderly) {
      const auto stopped = place.run({"stop"});
      CHECK(stopped.code == 0);
      CHECK(contains(stopped.output, "detached actor \"c\""));
    } else {
      ::kill(node.head(), SIGKILL);
    }

    CHECK(node.keeper().wait(20s).has_value());
    CHECK(eventually(5s, [&] { return family_of(creator.tag()).empty(); }));
    CHECK(eventually(5s, [&] { return !fs::exists(place.folder()); }));
  }
}

TEST_CASE("a node of the driver's own, and one without a name, are refused") {
  const OwnPlace place;
  Child alone = detached::start(place, {"is_refused"}, "local");
  const auto ending = alone.wait(30s);
  INFO(alone.output());
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);

  StayingNode node(place);
  const Done nameless(place, {"needs_a_name"});
}

int main(int argc, char** argv) {
  if (argc >= 3 && std::string_view(argv[1]) == "--driver") return detached::run(argc, argv);
  doctest::Context context(argc, argv);
  return context.run();
}
