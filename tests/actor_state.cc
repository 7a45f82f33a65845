// State that survives: checkpoints, and calls that are run again so that each has its effects once.
//
// The long form: scenario_actor_state --actors=1000 (MOBULA_SEED=... replays its deaths as far as
// the machine's timing lets it).
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "runtime/checkpoint.h"
#include "support/scratch.h"
#include "support/session_view.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Recovery;
using mobula::Ref;
using mobula::remote;
using mobula::test::count_in;
using mobula::test::count_of;
using mobula::test::eventually;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::SessionView;

namespace states {

int actors_killed = scaled(120, 20);  // --actors

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  ::_exit(1);
}

// Saved by its codec.
struct Counter {
  int n = 0;
  int add(int k) { return n += k; }
  int add_and_save(int k) {
    mobula::checkpoint();
    return n += k;
  }
  int value() const { return n; }
  int process() const { return static_cast<int>(::getpid()); }
  void crash() { die(); }
};

// Saved by its own words; what it saves contains refs.
class Keeper {
 public:
  explicit Keeper(std::string name) : name_(std::move(name)) {}
  void keep(int n) { kept_.push_back(mobula::put(std::vector<int>(1000, n))); }
  long sum() const {
    long all = 0;
    for (const auto& ref : kept_) all += mobula::get_view(ref)[999];
    return all;
  }
  std::string name() const { return name_; }
  void crash() { die(); }
  void save(mobula::Writer& writer) const { mobula::encode(writer, kept_); }
  void load(mobula::Reader& reader) {
    kept_ = mobula::decode<std::vector<Ref<std::vector<int>>>>(reader);
  }

 private:
  std::string name_;  // its constructor gives it
  std::vector<Ref<std::vector<int>>> kept_;
};

struct Unsaveable {
  std::mutex mutex;
  int save_me() {
    mobula::checkpoint();
    return 1;
  }
  int one() { return 1; }
};

struct Stubborn {  // whose state cannot be saved for a while
  std::string refuses_while;
  int n = 0;
  int add(int k) { return n += k; }
  void crash() { die(); }
  void save(mobula::Writer& writer) const {
    if (count_of(refuses_while) == 0) throw std::runtime_error("not now");
    mobula::encode(writer, n);
  }
  void load(mobula::Reader& reader) { n = mobula::decode<int>(reader); }
};

// Each entry is caller * 1'000'000 + how-manieth of that caller.
struct Tally {
  std::vector<int> entries;
  int add(int entry) {
    entries.push_back(entry);
    return static_cast<int>(entries.size());
  }
  std::vector<int> all() const { return entries; }
};
int twice(int x) { return 2 * x; }
int twice_counted(int x, std::string file) {
  count_in(file);
  return 2 * x;
}

struct Appender {
  ActorHandle<Tally> tally;
  std::vector<int> entries = {};
  std::vector<Ref<int>> told = {};
  // In three steps that a crash may come between: itself, another actor, a task whose value counts.
  int append(int entry) {
    entries.push_back(entry);
    told.push_back(tally.call<&Tally::add>(entry));
    if (told.size() > 10) told.erase(told.begin());
    const Ref<int> doubled = remote<twice>(mobula::put(entry));
    if (entry % 4 == 0) entries.back() = mobula::get(doubled) / 2;
    return static_cast<int>(entries.size());
  }
  std::vector<int> all() const { return entries; }
};

// Calls it from another process, so that the journal has more than one caller, until the gate is
// open; how many calls that were.
int append_many(ActorHandle<Appender> appender, int caller, std::string gate) {
  constexpr int kRound = 50;
  int made = 0;
  int before = 0;
  do {
    std::vector<Ref<int>> sizes;
    for (int i = 0; i < kRound; ++i)
      sizes.push_back(appender.call<&Appender::append>(caller * 1'000'000 + made++));
    for (const Ref<int>& size : sizes) {
      const int now = mobula::get(size);
      if (now <= before) return -1;  // its own calls, in its own order
      before = now;
    }
  } while (!mobula::test::gate_is_open(gate));
  return made;
}

// What happens around a submission, at most once each: `dies` says where it kills itself.
struct Effects {
  int calls = 0;
  ActorHandle<Tally> made;
  Ref<std::vector<int>> kept;
  int act(std::string file, std::string once, int dies) {
    const auto perhaps_die = [&](int place) {
      if (dies == place && count_of(once) == 0) {
        count_in(once);
        die();
      }
    };
    perhaps_die(0);
    const Ref<int> task = remote<twice_counted>(++calls, file);
    perhaps_die(1);
    kept = mobula::put(std::vector<int>(1000, calls));
    perhaps_die(2);
    made = actor<Tally>();
    perhaps_die(3);
    made.call<&Tally::add>(calls);
    perhaps_die(4);
    const int value = mobula::get(task);
    perhaps_die(5);
    return value + mobula::get_view(kept)[0];
  }
  int sum() const { return static_cast<int>(mobula::get(made.call<&Tally::all>()).size()); }
  int process() const { return static_cast<int>(::getpid()); }
};

struct Fickle {  // does something else each time
  std::string file;
  int n = 0;
  int act() {
    count_in(file);
    if (count_of(file) == 1) {
      remote<twice>(1);
    } else {
      mobula::put(1);
    }
    return ++n;
  }
  void crash() { die(); }
};

int at_gate(const std::string& gate, int value) {
  mobula::test::wait_at_gate(gate);
  return value;
}

// What it keeps is what its waits came to.
struct Patient {
  std::vector<int> seen;
  // A value that is there, and one that is late: each with a timeout.
  int gets(const std::vector<Ref<int>>& refs) {
    for (const Ref<int>& ref : refs) {
      try {
        seen.push_back(mobula::get(ref, 1ms));
      } catch (const mobula::GetTimeoutError&) {
        seen.push_back(-1);
      }
    }
    return static_cast<int>(seen.size());
  }
  // Submits for each that is ready: that differs, if they do.
  int waits(const std::vector<Ref<int>>& refs, std::size_t wanted) {
    for (const Ref<int>& ref : mobula::wait(refs, {.num_returns = wanted, .timeout = 1ms}).ready)
      seen.push_back(mobula::get(remote<twice>(ref)));
    mobula::put(1);
    return static_cast<int>(seen.size());
  }
  int listens(const std::vector<Ref<int>>& refs, const std::string& begun) {
    count_in(begun);
    try {
      seen.push_back(mobula::get(refs[0]));
    } catch (const mobula::TaskCancelledError&) {
      seen.push_back(-2);
    }
    return 0;
  }
  int dies_once(const std::vector<Ref<int>>& refs, const std::string& once) {
    gets(refs);
    if (count_of(once) == 0) {
      count_in(once);
      die();
    }
    return static_cast<int>(seen.size());
  }
  std::vector<int> all() const { return seen; }
  int process() const { return static_cast<int>(::getpid()); }
};

void produce(mobula::Sink<int>& out) { out.push(1); }
struct Later {  // does what a journal cannot tell of
  int n = 0;
  void reply(mobula::Reply<int> answer) { answer.set(1); }
  int then() {
    mobula::then(mobula::put(1), [](const mobula::Result<int>&) {});
    return 1;
  }
  int call_after() {
    mobula::call_after(1ms, [] {});
    return 1;
  }
  int read() {
    auto stream = remote<produce>();
    return stream.next().value_or(0);
  }
  void push(mobula::Sink<int>& out) { out.push(1); }
  int one() const { return 1; }
};

struct Large {
  std::vector<std::uint64_t> values;
  std::uint64_t fill(std::size_t count, std::uint64_t with) {
    values.assign(count, with);
    return with;
  }
  std::uint64_t last() const { return values.empty() ? 0 : values.back(); }
  std::uint64_t take(const std::vector<std::uint64_t>& more) { return values[0] += more.size(); }
  int process() const { return static_cast<int>(::getpid()); }
};

}  // namespace states

namespace {

using namespace states;

// The call that crashed an actor without Replay fails; afterwards it is there again.
template <class T>
void crash(const ActorHandle<T>& handle) {
  CHECK_THROWS_AS(mobula::get(handle.template call<&T::crash>(), 20s),
                  mobula::ActorUnavailableError);
}

std::mt19937_64& random() {
  static std::mt19937_64 engine([] {
    const char* given = ::getenv("MOBULA_SEED");
    const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("replay with MOBULA_SEED=%llu\n", static_cast<unsigned long long>(seed));
    return seed;
  }());
  return engine;
}

bool kill_some_actor() {
  SessionView view;
  const std::vector<pid_t> pids = view.processes_of(mobula::shm::ProcessRole::Actor);
  if (pids.empty()) return false;
  return view.signal(pids[random()() % pids.size()], SIGKILL, view.zygote());
}

mobula::shm::LastingState& lasting_state(std::uint32_t actor_class) {
  return mobula::runtime::require_process().memory().scheduling_class(actor_class).lasting;
}

// Flips a bit of a checkpoint, as bad memory or a bad disk would; 0 is the newest.
template <class T>
void damage(const ActorHandle<T>& handle, int age) {
  mobula::shm::Memory& memory = mobula::runtime::require_process().memory();
  auto& state = lasting_state(handle.actor_class());
  mobula::shm::Record* records[2];
  for (int i = 0; i < 2; ++i) {
    const auto address = mobula::shm::Address::unpack(state.checkpoint[i].load());
    REQUIRE(address);
    records[i] = &memory.record(address.slot);
  }
  if (records[0]->index < records[1]->index) std::swap(records[0], records[1]);
  const mobula::shm::StoredAt& at = records[age]->result_at();
  const mobula::shm::Extent& extent = memory.extent(at.extent);
  REQUIRE(memory.open_window(extent.offset, extent.size));
  memory.object_window(memory.object_offset(at))[at.size - 1] ^= std::byte{4};
}

// Of each caller as many entries as it made, each once and in order.
void check_entries(const std::vector<int>& entries, const std::vector<int>& made) {
  std::vector<int> next(made.size());
  for (const int entry : entries)
    REQUIRE(entry % 1'000'000 == next.at(static_cast<std::size_t>(entry / 1'000'000))++);
  CHECK(next == made);
}

bool nothing_is_left() {
  const bool none = eventually(10s, [] {
    const auto report = mobula::memory_report();
    return report.store.used == 0 && report.records.finished == 0 &&
           report.records.waiting + report.records.ready + report.records.running == 0;
  });
  if (!none) std::puts(SessionView().dump().c_str());
  return none;
}

}  // namespace

TEST_CASE("an actor that is started again goes on from its last checkpoint") {
  const auto counter = actor<Counter>.with({.max_restarts = 2, .checkpoint_every = 10})();

  for (int i = 0; i < 25; ++i) counter.call<&Counter::add>(1);
  crash(counter);

  CHECK(mobula::get(counter.call<&Counter::value>(), 20s) == 20);
}

TEST_CASE("checkpoint() saves what is there when the call that asked is complete") {
  const auto counter = actor<Counter>.with({.max_restarts = 2})();

  counter.call<&Counter::add_and_save>(7);
  counter.call<&Counter::add>(100);
  crash(counter);
  CHECK(mobula::get(counter.call<&Counter::add>(1), 20s) == 8);
  counter.call<&Counter::add_and_save>(1);
  crash(counter);

  CHECK(mobula::get(counter.call<&Counter::value>(), 20s) == 9);
}

TEST_CASE("a class with save and load is constructed, then loaded, and its refs are alive") {
  const auto keeper = actor<Keeper>.with({.max_restarts = 3, .checkpoint_every = 5})("ann");

  for (int i = 1; i <= 5; ++i) keeper.call<&Keeper::keep>(i);
  crash(keeper);
  CHECK(mobula::get(keeper.call<&Keeper::sum>(), 20s) == 15);
  for (int i = 0; i < 4; ++i) keeper.call<&Keeper::keep>(10);
  crash(keeper);
  crash(keeper);

  CHECK(mobula::get(keeper.call<&Keeper::sum>(), 20s) == 55);
  CHECK(mobula::get(keeper.call<&Keeper::name>(), 20s) == "ann");
}

TEST_CASE("with Replay no call is lost and none counts twice, however often it crashes") {
  const auto counter = actor<Counter>.with(
      {.max_restarts = -1, .recovery = Recovery::Replay, .checkpoint_every = 7})();

  std::vector<Ref<int>> values;
  for (int i = 0; i < 100; ++i) {
    values.push_back(counter.call<&Counter::add>(1));
    if (i % 9 == 0) {
      const int pid = mobula::get(counter.call<&Counter::process>(), 20s);
      ::kill(pid, SIGKILL);
    }
  }

  for (int i = 0; i < 100; ++i)
    CHECK(mobula::get(values[static_cast<std::size_t>(i)], 20s) == i + 1);
  CHECK(mobula::get(counter.call<&Counter::value>(), 20s) == 100);
}

TEST_CASE("actors that are killed at random lose no update, double none and keep the order") {
  constexpr int kAtOnce = 20;
  constexpr int kCallers = 2;
  int kills = 0;
  for (int done = 0; done < actors_killed; done += kAtOnce) {
    Scratch scratch;
    const std::string gate = scratch.file("killed enough");
    std::vector<ActorHandle<Tally>> tallies;
    std::vector<ActorHandle<Appender>> appenders;
    std::vector<Ref<int>> callers;
    const mobula::ActorOptions options{
        .max_restarts = -1, .recovery = Recovery::Replay, .checkpoint_every = 10};
    for (int i = 0; i < kAtOnce / 2; ++i) {
      tallies.push_back(actor<Tally>.with(options)());
      appenders.push_back(actor<Appender>.with(options)(tallies.back()));
    }
    for (const auto& appender : appenders) {
      for (int c = 0; c < kCallers; ++c) callers.push_back(remote<append_many>(appender, c, gate));
    }
    const auto end = mobula::test::Clock::now() + 60s;
    for (;;) {
      const auto [ready, pending] =
          mobula::wait(callers, {.num_returns = callers.size(), .timeout = 3ms});
      if (pending.empty()) break;
      REQUIRE(mobula::test::Clock::now() < end);
      if (kills < done + kAtOnce) {
        kills += kill_some_actor();
      } else {
        open_gate(gate);
      }
    }
    for (std::size_t i = 0; i < kAtOnce / 2; ++i) {
      std::vector<int> made;
      for (std::size_t c = 0; c < kCallers; ++c)
        made.push_back(mobula::get(callers[i * kCallers + c]));
      check_entries(mobula::get(appenders[i].call<&Appender::all>(), 20s), made);
      // Nobody waited for what the appender told it.
      const auto told = static_cast<std::size_t>(std::accumulate(made.begin(), made.end(), 0));
      CHECK(eventually(
          20s, [&] { return mobula::get(tallies[i].call<&Tally::all>(), 20s).size() >= told; }));
      check_entries(mobula::get(tallies[i].call<&Tally::all>(), 20s), made);
    }
  }
  std::printf("%d actors were killed %d times\n", actors_killed, kills);
  CHECK(kills >= actors_killed);
  CHECK(nothing_is_left());
}

TEST_CASE("what a call submits is there once, wherever the crash comes") {
  for (int place = 0; place <= 6; ++place) {
    CAPTURE(place);
    Scratch scratch;
    const auto effects = actor<Effects>.with({.max_restarts = 3, .recovery = Recovery::Replay})();

    effects.call<&Effects::act>(scratch.file("tasks"), scratch.file("never"), -1);
    const Ref<int> second =
        effects.call<&Effects::act>(scratch.file("tasks"), scratch.file("once"), place);
    CHECK(mobula::get(second, 20s) == 4 + 2);
    if (place == 6) {
      const int pid = mobula::get(effects.call<&Effects::process>(), 20s);
      ::kill(pid, SIGKILL);
    }

    CHECK(mobula::get(effects.call<&Effects::sum>(), 20s) == 1);
    CHECK(count_of(scratch.file("tasks")) == 2);
  }
  CHECK(nothing_is_left());
}

TEST_CASE("what a wait told a call by chance it tells it again") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto patient = actor<Patient>.with({.max_restarts = -1, .recovery = Recovery::Replay})();
  const Ref<int> there = remote<twice>(5);
  const Ref<int> late = remote<at_gate>.with({.num_cpus = 0})(gate, 7);
  mobula::get(there, 20s);

  // The calls do not wait for what is inside of their arguments.
  patient.call<&Patient::gets>(std::vector{there, late, there, late});
  patient.call<&Patient::waits>(std::vector{late, there}, std::size_t{1});
  patient.call<&Patient::waits>(std::vector{late, there}, std::size_t{2});
  const Ref<int> cancelled =
      patient.call<&Patient::listens>(std::vector{late}, scratch.file("begun"));
  CHECK(eventually(20s, [&] { return count_of(scratch.file("begun")) != 0; }));
  CHECK(mobula::cancel(cancelled));
  const Ref<int> interrupted =
      patient.call<&Patient::dies_once>(std::vector{late, there}, scratch.file("died"));
  const std::vector<int> expected{10, -1, 10, -1, 20, 20, -2, -1, 10};
  CHECK(mobula::get(interrupted, 20s) == static_cast<int>(expected.size()));
  open_gate(gate);
  CHECK(mobula::get(late, 20s) == 7);

  for (int life = 0; life < 3; ++life) {
    CHECK(mobula::get(patient.call<&Patient::all>(), 20s) == expected);
    ::kill(mobula::get(patient.call<&Patient::process>(), 20s), SIGKILL);
  }
  CHECK(mobula::get(patient.call<&Patient::all>(), 20s) == expected);
}

TEST_CASE("a damaged checkpoint is not loaded: the one before it is, and more calls run again") {
  const auto counter = actor<Counter>.with(
      {.max_restarts = 3, .recovery = Recovery::Replay, .checkpoint_every = 10})();
  for (int i = 0; i < 35; ++i) counter.call<&Counter::add>(1);
  const int pid = mobula::get(counter.call<&Counter::process>(), 20s);

  damage(counter, 0);
  ::kill(pid, SIGKILL);

  CHECK(mobula::get(counter.call<&Counter::add>(1), 20s) == 36);
}

TEST_CASE("when both checkpoints are damaged the actor says so, and gives no other state") {
  for (const Recovery recovery : {Recovery::None, Recovery::Replay}) {
    const auto counter =
        actor<Counter>.with({.max_restarts = 3, .recovery = recovery, .checkpoint_every = 10})();
    for (int i = 0; i < 35; ++i) counter.call<&Counter::add>(1);
    const int pid = mobula::get(counter.call<&Counter::process>(), 20s);

    damage(counter, 0);
    damage(counter, 1);
    ::kill(pid, SIGKILL);

    try {
      for (;;) mobula::get(counter.call<&Counter::value>(), 20s);
    } catch (const mobula::ActorUnavailableError&) {
      CHECK_THROWS_AS(mobula::get(counter.call<&Counter::value>(), 20s), mobula::ActorDiedError);
    } catch (const mobula::ActorDiedError& e) {
      CHECK(std::string(e.what()).find("its state cannot be used") != std::string::npos);
    }
  }
}

TEST_CASE("as long as the journal reaches back to the constructor, no checkpoint is needed") {
  const auto counter = actor<Counter>.with({.max_restarts = 3, .recovery = Recovery::Replay})();
  for (int i = 0; i < 500; ++i) counter.call<&Counter::add>(1);
  const int pid = mobula::get(counter.call<&Counter::process>(), 20s);

  ::kill(pid, SIGKILL);

  CHECK(mobula::get(counter.call<&Counter::add>(1), 20s) == 501);
}

TEST_CASE("a state that cannot be saved for a while costs nothing but a longer journal") {
  Scratch scratch;
  const auto stubborn = actor<Stubborn>.with(
      {.max_restarts = 5, .recovery = Recovery::Replay, .checkpoint_every = 10})(
      scratch.file("may save"), 0);
  for (int i = 0; i < 50; ++i) stubborn.call<&Stubborn::add>(1);
  REQUIRE(mobula::get(stubborn.call<&Stubborn::add>(1), 20s) == 51);
  const auto& state = lasting_state(stubborn.actor_class());
  CHECK(state.checkpoint[0].load() == 0);

  count_in(scratch.file("may save"));
  for (int i = 0; i < 40; ++i) stubborn.call<&Stubborn::add>(1);
  REQUIRE(mobula::get(stubborn.call<&Stubborn::add>(1), 20s) == 92);

  CHECK(state.checkpoint[0].load() != 0);
  CHECK(state.taken.load() - state.covered.load() < 40);
}

TEST_CASE("a method that does something else when it is run again ends its actor") {
  Scratch scratch;
  const auto fickle = actor<Fickle>.with({.max_restarts = 3, .recovery = Recovery::Replay})(
      scratch.file("calls"), 0);
  CHECK(mobula::get(fickle.call<&Fickle::act>(), 20s) == 1);

  fickle.call<&Fickle::crash>();

  CHECK_THROWS_AS(mobula::get(fickle.call<&Fickle::act>(), 20s), mobula::ActorDiedError);
}

TEST_CASE("an actor that a call kills each time dies when its restarts are used up") {
  const auto counter = actor<Counter>.with({.max_restarts = 2, .recovery = Recovery::Replay})();
  counter.call<&Counter::add>(1);

  CHECK_THROWS_AS(mobula::get(counter.call<&Counter::crash>(), 20s), mobula::ActorDiedError);
}

TEST_CASE("what is kept to run calls again is bounded in bytes, too") {
  const auto large = actor<Large>.with({.max_restarts = 1, .recovery = Recovery::Replay})();
  large.call<&Large::fill>(std::size_t{10}, std::uint64_t{1});
  std::uint64_t most = 0;
  const std::vector<std::uint64_t> mib(std::size_t{1} << 17, 1);

  for (int i = 0; i < 400; ++i) {
    mobula::get(large.call<&Large::take>(mib), 20s);
    most = std::max(most, mobula::memory_report().store.used);
  }

  CHECK(most < 64u << 20);  // of 400 MiB that were passed
}

TEST_CASE("a megabyte of state is there again") {
  const auto large =
      actor<Large>.with({.max_restarts = 1, .recovery = Recovery::Replay, .checkpoint_every = 2})();
  large.call<&Large::fill>(std::size_t{1} << 17, std::uint64_t{42});
  mobula::get(large.call<&Large::last>(), 20s);

  const int pid = mobula::get(large.call<&Large::process>(), 20s);
  ::kill(pid, SIGKILL);

  CHECK(mobula::get(large.call<&Large::last>(), 20s) == 42);
}

TEST_CASE("what cannot be kept is refused at the call") {
  CHECK_THROWS_AS(actor<Unsaveable>.with({.recovery = Recovery::Replay})(), mobula::Error);
  CHECK_THROWS_AS(actor<Unsaveable>.with({.checkpoint_every = 1})(), mobula::Error);
  CHECK_THROWS_AS(
      actor<Counter>.with({.recovery = Recovery::Replay, .checkpoint_every = 100'001})(),
      mobula::Error);
  CHECK_THROWS_AS(actor<Counter>.with({.recovery = Recovery::Replay, .max_concurrency = 2})(),
                  mobula::Error);
  CHECK_THROWS_AS(mobula::checkpoint(), mobula::Error);
  const auto unsaveable = actor<Unsaveable>();
  CHECK_THROWS_AS(mobula::get(unsaveable.call<&Unsaveable::save_me>(), 20s), mobula::TaskError);
  CHECK(mobula::get(unsaveable.call<&Unsaveable::one>(), 20s) == 1);
}

TEST_CASE("what cannot be run again is refused where it is tried") {
  const auto later = actor<Later>.with({.max_restarts = 1, .recovery = Recovery::Replay})();

  CHECK_THROWS_AS(mobula::get(later.call<&Later::reply>(), 20s), mobula::TaskError);
  CHECK_THROWS_AS(mobula::get(later.call<&Later::then>(), 20s), mobula::TaskError);
  CHECK_THROWS_AS(mobula::get(later.call<&Later::call_after>(), 20s), mobula::TaskError);
  CHECK_THROWS_AS(mobula::get(later.call<&Later::read>(), 20s), mobula::TaskError);
  auto stream = later.call<&Later::push>();
  CHECK_THROWS_AS(stream.next(20s), mobula::Error);
  CHECK(mobula::get(later.call<&Later::one>(), 20s) == 1);
}

TEST_CASE("when the actors are gone nothing of their states is left") { CHECK(nothing_is_left()); }

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--actors=", 9) == 0) states::actors_killed = std::atoi(argv[i] + 9);
  }
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 4, .object_store_memory = 256ULL << 20, .log_to_driver = false});
}
