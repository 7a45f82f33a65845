// A process killed at any step of any shared-memory protocol costs nothing but time.
//
// For each named crash point, each role and the first, third and 40th time that it is reached, a
// program with a session runs a mixed workload, and for actors another one whose actors keep their
// state; one of its processes kills itself there. When it
// was a worker or an actor, the program ends with right values and all memory free again; when it
// was the driver, its session is gone within a second; when it was the node daemon, the driver is
// told. Then the same with random pairs of crashes. At the end a table tells how often each point
// was reached.
//
// One case by hand: MOBULA_CRASH_POINT=claim.taken:1@worker scenario_crash_points --workload
// Other pairs:      scenario_crash_points --pairs=1000   (MOBULA_SEED=... replays them)
#include "support/scenario.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "shm/crash_point.h"
#include "support/processes.h"
#include "support/scratch.h"
#include "support/session_folder.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::milliseconds;
using mobula::test::Scratch;
using mobula::test::since;

namespace {

constexpr const char* kFiredVariable = "MOBULA_TEST_FIRED";
constexpr const char* kMixed = "--workload";
constexpr const char* kState = "--state";  // of actors that keep theirs
constexpr const char* kRoles[] = {"driver", "worker", "actor", "node"};
constexpr int kExitNodeDied = 5;
int pairs = 60;  // --pairs
constexpr milliseconds kGoesWrongAfter = 20s;

}  // namespace

// The library kills its own process at the armed point. This definition takes the place of the
// C library's in this program and its workers, so that a crash leaves a mark before it happens.
extern "C" int kill(pid_t pid, int signal) noexcept {
  if (pid == ::getpid() && signal == SIGKILL) {
    if (const char* file = ::getenv(kFiredVariable)) {
      const int fd = ::open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
      if (fd >= 0 && ::write(fd, "x", 1) == 1) ::close(fd);
    }
  }
  return static_cast<int>(::syscall(SYS_kill, pid, signal));
}

namespace workload {

constexpr std::size_t kLarge = 40'000;
constexpr std::size_t kHuge = 1 << 20;  // 4 MiB of ints: eleven of them do not fit into the store

int square(int x) { return x * x; }
int add(int a, int b) { return a + b; }
std::vector<int> block(int n) { return std::vector<int>(kLarge, n); }
long sum(const std::vector<int>& values) {
  long all = 0;
  for (const int value : values) all += value;
  return all;
}
long sum_in_place(std::span<const int> values) {
  long all = 0;
  for (const int value : values) all += value;
  return all;
}

std::vector<int> huge(int n) { return std::vector<int>(kHuge, n); }

// Results that contain refs, made by the task itself.
struct Made {
  int n = 0;
  Ref<int> small;
  Ref<std::vector<int>> large;
  std::vector<Ref<int>> more;
};
Made make(int n) {
  Made made{n, remote<square>(n), mobula::put(std::vector<int>(kLarge, n)), {}};
  for (int i = 0; i < 5; ++i) made.more.push_back(remote<add>(made.small, i));
  return made;
}
int nested(int depth) {
  if (depth == 0) return 1;
  const Ref<int> a = remote<nested>(depth - 1);
  const Ref<int> b = remote<nested>(depth - 1);
  return mobula::get(a) + mobula::get(b);
}
int picks_first(int n) {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 8; ++i) refs.push_back(remote<add>(remote<square>(n), i));
  int all = 0;
  while (!refs.empty()) {
    auto [ready, pending] =
        mobula::wait(refs, {.num_returns = std::min<std::size_t>(3, refs.size())});
    for (const int value : mobula::get(ready)) all += value;
    refs = pending;
  }
  return all;
}

// Runs until it is cancelled; not for ever, since who was to cancel it may be killed.
int listens() {
  const mobula::TaskInfo me = mobula::this_task();
  for (int ms = 0; ms < 1000 && !me.should_cancel(); ++ms) std::this_thread::sleep_for(1ms);
  return 1;
}

// Cancels a task that waits for a running one, that one, and some that are queued or done. How many
// did not end as the answer said. (The waiting one first: later it would fail by itself.)
int cancels(int n) {
  const Ref<int> running = remote<listens>();
  std::vector<Ref<int>> refs{remote<add>(running, 1), running};
  for (int i = 0; i < n; ++i) refs.push_back(remote<square>(i));
  std::this_thread::sleep_for(2ms);
  int wrong = 0;
  std::vector<bool> answers;
  for (const Ref<int>& ref : refs) answers.push_back(mobula::cancel(ref));
  for (std::size_t i = 0; i < refs.size(); ++i) {
    try {
      mobula::get(refs[i], 15s);
      wrong += answers[i];
    } catch (const mobula::TaskCancelledError&) {
      wrong += !answers[i];
    }
  }
  return wrong;
}

// What then() hands to a thread of the library: n times 4. Bounded: who completes may be killed.
int by_callbacks(int n) {
  struct Seen {
    std::mutex mutex;
    int sum = 0;
    int ran = 0;
  };
  const auto seen = std::make_shared<Seen>();  // some may run after an error has ended us
  for (int i = 0; i < n; ++i) {
    mobula::then(remote<square>(2), [seen](const mobula::Result<int>& value) {
      const std::lock_guard lock(seen->mutex);
      seen->sum += value ? *value : 0;
      ++seen->ran;
    });
  }
  mobula::test::eventually(15s, [&] {
    mobula::available_resources();  // says so if there is no node any more
    const std::lock_guard lock(seen->mutex);
    return seen->ran == n;
  });
  const std::lock_guard lock(seen->mutex);
  return seen->sum;
}

// Items that lie in their slot, or in the store, with a ref in each.
struct Item {
  int n = 0;
  Ref<int> ref;
  std::vector<int> more;
};
void produce(mobula::Sink<Item>& out, int n) {
  for (int i = 0; i < n; ++i)
    out.push({i, mobula::put(i), std::vector<int>(static_cast<std::size_t>(i % 2 * 300), i)});
}
// How many there were; -1: one was not as it should be, or not the one after the last.
int consume(mobula::StreamRef<Item> stream, int first = 0) {
  int expected = first;
  while (const auto item = stream.next(15s)) {
    const std::vector<int> more(static_cast<std::size_t>(expected % 2 * 300), expected);
    if (item->n != expected || mobula::get(item->ref, 15s) != expected || item->more != more)
      return -1;
    ++expected;
  }
  return expected - first;
}
int streams_to_itself(int n) { return consume(remote<produce>.with({.max_unread = 8})(n)); }
// Takes some; those of an attempt that died are gone.
int takes(mobula::StreamRef<Item> stream, int n) {
  int last = -1;
  for (int i = 0; i < n; ++i) {
    if (const auto item = stream.next(15s)) last = item->n;
  }
  return last;
}

// Also submits, gets, puts and waits, so that an actor's process takes the same steps.
struct Ledger {
  std::vector<Ref<std::vector<int>>> kept;
  int calls = 0;
  int add(int k) { return ++calls * 0 + k; }
  long keep(Ref<std::vector<int>> ref) {
    kept.push_back(ref);
    return sum(mobula::get(ref));
  }
  long look(std::span<const int> values) { return sum_in_place(values); }
  int tree(int depth) { return nested(depth); }
  int picks(int n) { return picks_first(n); }
  Made makes(int n) { return make(n); }
  int cancels(int n) { return workload::cancels(n); }
  int creates(int n);
  // Answered by another thread, and after its return by a callback.
  void elsewhere(mobula::Reply<int> reply, int k) {
    std::thread([&] { reply.set(k); }).join();
  }
  void later(mobula::Reply<int> reply, const Ref<int>& ref) {
    mobula::then(ref, [reply = std::move(reply)](const mobula::Result<int>& value) mutable {
      reply.set(value.value());
    });
  }
  void produces(mobula::Sink<Item>& out, int n) { produce(out, n); }
  int streams(int n) { return streams_to_itself(n); }
  int burst(int n) {
    std::vector<Ref<int>> refs;
    for (int i = 0; i < n; ++i) refs.push_back(remote<workload::add>(i, i));
    int all = 0;
    for (const int value : mobula::get(refs)) all += value;
    return all;
  }
};

// The lamp and the name are free again however this ends. An earlier attempt may have left the
// actor, which then is found.
int creates(int n) {
  auto passing = mobula::actor<Ledger>.with(
      {.name = "passing", .max_restarts = 1, .resources = {{"lamp", 1}}, .get_if_exists = true})();
  const Ref<mobula::ActorDeath> end = mobula::monitor(passing);
  for (;;) {
    try {
      auto found = mobula::get_actor<Ledger>("passing");
      const int result = mobula::get(found.call<&Ledger::add>(n), 15s);
      found = passing = {};
      mobula::get(end, 15s);
      return result;
    } catch (const mobula::ActorUnavailableError&) {
    }
  }
}

int Ledger::creates(int n) { return workload::creates(n); }
// Keeps its state: no call of it may be lost or count twice, and what it submits is there once.
struct Saved {
  mobula::ActorHandle<Saved> other = {};
  std::vector<int> entries = {};
  std::vector<Ref<int>> told = {};
  Ref<std::vector<int>> block = {};
  int note(int entry) {
    entries.push_back(entry);
    return static_cast<int>(entries.size());
  }
  int append(int entry) {
    entries.push_back(entry);
    told.push_back(other.call<&Saved::note>(entry));
    if (told.size() > 3) told.erase(told.begin());
    if (entry % 4 == 0) block = mobula::put(std::vector<int>(kLarge, entry));
    // By chance, but the same when it is run again: else it would submit something else.
    for (std::size_t n =
             mobula::wait(told, {.num_returns = told.size(), .timeout = 0ms}).ready.size();
         n > 0; --n)
      remote<square>(entry);
    const Ref<int> sum = remote<workload::add>(remote<square>(entry), mobula::put(entry));
    if (mobula::get(sum) != entry * entry + entry) return -1;
    return static_cast<int>(entries.size());
  }
  int last_block() const { return mobula::get_view(block)[kLarge - 1]; }
  std::vector<int> all() const { return entries; }
};

// Two threads run its calls, and it looks at them out of order.
struct Pair {
  int twice(int k) { return 2 * k; }
};

// Ends the program with the line that did not hold.
void require(bool holds, int line, const std::string& seen) {
  if (holds) return;
  std::printf("crash_points.cc:%d: wrong value: %s\n", line, seen.c_str());
  std::fflush(stdout);
  ::_exit(3);
}
#define EQUALS(call, expected)                                                    \
  do {                                                                            \
    const auto seen = (call);                                                     \
    require(seen == (expected), __LINE__, #call " gave " + std::to_string(seen)); \
  } while (false)

// The value, asked for again while the actor is being restarted.
template <class Call>
auto settled(const Call& call) {
  for (int again = 0;; ++again) {
    try {
      return mobula::get(call(), 15s);
    } catch (const mobula::ActorUnavailableError&) {
      if (again == 3) throw;
    }
  }
}

void check_made(const Made& made, int n) {
  EQUALS(made.n, n);
  EQUALS(mobula::get(made.small, 15s), n * n);
  EQUALS(sum_in_place(mobula::get_view(made.large, 15s)), static_cast<long>(kLarge) * n);
  for (int i = 0; i < 5; ++i)
    EQUALS(mobula::get(made.more[static_cast<std::size_t>(i)], 15s), n * n + i);
}

void one_round(const mobula::ActorHandle<Ledger>& ledger, int round) {
  // Tasks with data edges, more than a ring's first size, taken as they come.
  std::vector<Ref<int>> refs;
  const int burst = round == 0 ? 3000 : 100;
  for (int i = 0; i < burst; ++i) refs.push_back(remote<square>(i % 1000));
  const Ref<int> first = remote<add>(refs[3], refs[4]);
  std::vector<Ref<int>> fan;
  for (int i = 0; i < 20; ++i) fan.push_back(remote<add>(first, i));
  const Ref<int> last = remote<add>(fan[0], fan[19]);
  for (int i = 0; i < burst; ++i) {
    EQUALS(mobula::get(refs[static_cast<std::size_t>(i)], 15s), (i % 1000) * (i % 1000));
  }
  EQUALS(mobula::get(last, 15s), 25 + 25 + 19);

  // Values small and large, from here and from there.
  const Ref<std::vector<int>> here = mobula::put(std::vector<int>(kLarge, 2));
  const Ref<std::vector<int>> there = remote<block>(3);
  EQUALS(mobula::get(remote<sum_in_place>(here), 15s), static_cast<long>(kLarge) * 2);
  EQUALS(mobula::get(remote<sum>(there), 15s), static_cast<long>(kLarge) * 3);
  EQUALS(mobula::get_view(there, 15s)[kLarge - 1], 3);
  EQUALS(mobula::get(mobula::put(round), 15s), round);

  // Nested tasks, and results with refs inside.
  const Ref<int> tree = remote<nested>(4);
  const Ref<int> picked = remote<picks_first>(3);
  std::vector<Ref<Made>> makes;
  for (int n = 1; n <= 4; ++n) makes.push_back(remote<make>(n));
  for (int n = 1; n <= 4; ++n)
    check_made(mobula::get(makes[static_cast<std::size_t>(n - 1)], 15s), n);
  EQUALS(mobula::get(tree, 15s), 16);
  EQUALS(mobula::get(picked, 15s), 8 * 9 + 28);
  auto [ready, pending] = mobula::wait(fan, {.num_returns = 5, .timeout = 15s});
  EQUALS(ready.size(), 5u);
  EQUALS(pending.size(), 15u);
  EQUALS(picks_first(2), 8 * 4 + 28);

  // Calls of an actor, which may have been started anew.
  std::vector<Ref<int>> calls;
  for (int i = 0; i < 30; ++i)
    calls.push_back(ledger.call<&Ledger::add>(fan[static_cast<std::size_t>(i % 20)]));
  for (int i = 0; i < 30; ++i) {
    try {
      EQUALS(mobula::get(calls[static_cast<std::size_t>(i)], 15s), 25 + i % 20);
    } catch (const mobula::ActorUnavailableError&) {  // lost with the process, and said so
    }
  }
  // And some that are repeated until they have run to their end.
  std::vector<Ref<int>> repeated;
  for (int i = 0; i < 20; ++i)
    repeated.push_back(
        ledger.with({.max_task_retries = -1}).call<&Ledger::add>(fan[static_cast<std::size_t>(i)]));
  for (int i = 0; i < 20; ++i)
    EQUALS(mobula::get(repeated[static_cast<std::size_t>(i)], 15s), 25 + i);
  EQUALS(settled([&] { return ledger.call<&Ledger::keep>(here); }), static_cast<long>(kLarge) * 2);
  EQUALS(settled([&] { return ledger.call<&Ledger::keep>(there); }), static_cast<long>(kLarge) * 3);
  EQUALS(settled([&] { return ledger.call<&Ledger::tree>(2); }), 4);
  EQUALS(settled([&] { return ledger.call<&Ledger::picks>(2); }), 8 * 4 + 28);
  check_made(settled([&] { return ledger.call<&Ledger::makes>(5); }), 5);

  // Actors of a task and of an actor.
  EQUALS(mobula::get(remote<creates>(round), 15s), round);
  EQUALS(settled([&] { return ledger.call<&Ledger::creates>(round); }), round);

  // Calls that threads share.
  const auto pair = mobula::actor<Pair>.with(
      {.max_restarts = 3, .max_concurrency = 2, .allow_out_of_order_execution = true})();
  std::vector<Ref<int>> twices;
  for (int i = 0; i < 20; ++i)
    twices.push_back(i % 2 ? pair.call<&Pair::twice>(fan[static_cast<std::size_t>(i)])
                           : pair.call<&Pair::twice>(i));
  for (int i = 0; i < 20; ++i) {
    try {
      EQUALS(mobula::get(twices[static_cast<std::size_t>(i)], 15s), 2 * (i % 2 ? 25 + i : i));
    } catch (const mobula::ActorUnavailableError&) {  // lost with the process, and said so
    }
  }

  // What is answered later.
  for (int i = 0; i < 5; ++i) {
    EQUALS(settled([&] { return ledger.call<&Ledger::elsewhere>(i); }), i);
    EQUALS(settled([&] { return ledger.call<&Ledger::later>(remote<square>(i)); }), i * i);
  }
  EQUALS(by_callbacks(20), 80);
  EQUALS(mobula::get(remote<by_callbacks>(5), 15s), 20);
  // Items of streams, from everybody to everybody; one that is shared, one left unread.
  EQUALS(streams_to_itself(50), 50);
  EQUALS(mobula::get(remote<streams_to_itself>(50), 15s), 50);
  EQUALS(settled([&] { return ledger.call<&Ledger::streams>(50); }), 50);
  for (int again = 0;; ++again) {
    try {
      EQUALS(consume(ledger.call<&Ledger::produces>(20)), 20);
      break;
    } catch (const mobula::ActorUnavailableError&) {
      if (again == 3) throw;
    }
  }
  const mobula::StreamRef<Item> shared = remote<produce>.with({.max_unread = 8})(90);
  const int taken = mobula::get(remote<takes>(shared, 30), 30s);
  EQUALS(taken >= 29, true);
  EQUALS(consume(shared, taken + 1), 89 - taken);
  mobula::StreamRef<Item> unread = remote<produce>.with({.max_unread = 20})(1000);
  EQUALS(unread.next(15s)->n, 0);

  // What is not wanted any more.
  EQUALS(cancels(20), 0);
  EQUALS(mobula::get(remote<cancels>(5), 15s), 0);
  EQUALS(settled([&] { return ledger.call<&Ledger::cancels>(5); }), 0);
  if (round == 0) EQUALS(settled([&] { return ledger.call<&Ledger::burst>(3000); }), 2999 * 3000);
}

void rounds_of_state() {
  const auto options = [](std::uint64_t every) {
    return mobula::ActorOptions{
        .max_restarts = 3, .recovery = mobula::Recovery::Replay, .checkpoint_every = every};
  };
  const auto noted = mobula::actor<Saved>.with(options(7))();
  const auto saved = mobula::actor<Saved>.with(options(3))(noted);
  std::vector<Ref<int>> sizes;
  for (int i = 0; i < 50; ++i) sizes.push_back(saved.call<&Saved::append>(i));
  for (int i = 0; i < 50; ++i) EQUALS(mobula::get(sizes[static_cast<std::size_t>(i)], 15s), i + 1);
  for (const auto& handle : {saved, noted}) {
    // What one told the other nobody waited for.
    std::vector<int> entries;
    const auto all_told = [&] {
      entries = mobula::get(handle.call<&Saved::all>(), 15s);
      return entries.size() >= 50;
    };
    mobula::test::eventually(15s, all_told);
    EQUALS(entries.size(), 50u);
    for (int i = 0; i < 50; ++i) EQUALS(entries[static_cast<std::size_t>(i)], i);
  }
  EQUALS(mobula::get(saved.call<&Saved::last_block>(), 15s), 48);
}

// More than the store holds: values go to disk and come back, for drivers, tasks and the actor.
void more_than_fits(const mobula::ActorHandle<Ledger>& ledger) {
  std::vector<Ref<std::vector<int>>> blocks;
  for (int i = 0; i < 11; ++i)
    blocks.push_back(i % 3 ? mobula::put(std::vector<int>(kHuge, i)) : remote<huge>(i));
  mobula::get(remote<sum_in_place>(blocks[0]), 15s);
  for (int i = 0; i < 11; ++i) {
    const auto view = mobula::get_view(blocks[static_cast<std::size_t>(i)], 15s);
    EQUALS(sum_in_place(view), static_cast<long>(kHuge) * i);
    if (i % 4) continue;
    EQUALS(mobula::get(remote<sum_in_place>(blocks[static_cast<std::size_t>(i)]), 15s),
           static_cast<long>(kHuge) * i);
    EQUALS(settled([&] { return ledger.call<&Ledger::look>(blocks[static_cast<std::size_t>(i)]); }),
           static_cast<long>(kHuge) * i);
  }
}

// What is not held any more is free again, to the last byte and record.
void nothing_is_left() {
  mobula::MemoryReport report;
  const auto free = [&] {
    report = mobula::memory_report();
    return report.store.used == 0 && report.store.spilled == 0 && report.store.on_disk == 0 &&
           report.records.waiting + report.records.ready + report.records.running == 0 &&
           report.records.finished == 0 &&
           std::all_of(report.processes.begin(), report.processes.end(),
                       [](const auto& process) { return process.pins == 0; });
  };
  if (!mobula::test::eventually(5s, free)) require(false, __LINE__, "left:\n" + report.text());
  if (!mobula::test::eventually(5s, [] { return mobula::available_resources()["lamp"] == 1; }))
    require(false, __LINE__, "an actor still holds the lamp");
  const mobula::Buffer all = mobula::create_buffer((32 << 20) - 4096);
  EQUALS(all.size(), (std::size_t{32} << 20) - 4096);
}

void mixed_rounds() {
  const auto ledger = mobula::actor<Ledger>.with({.max_restarts = 3})();
  for (int round = 0; round < 4; ++round) {
    one_round(ledger, round);
    // One that lives for a round: its end is a protocol too.
    const auto passing = mobula::actor<Ledger>.with({.max_restarts = 1})();
    EQUALS(settled([&] { return passing.call<&Ledger::add>(round); }), round);
  }
  more_than_fits(ledger);
}

int run(int argc, char** argv, void (*rounds)()) {
  const mobula::Session session(argc, argv,
                                {.num_cpus = 2,
                                 .resources = {{"lamp", 1}},
                                 .object_store_memory = 32ULL << 20,
                                 .log_to_driver = false});
  try {
    rounds();
    nothing_is_left();
  } catch (const mobula::NodeDiedError&) {
    std::puts("the node died, and the driver was told");
    return kExitNodeDied;
  } catch (const mobula::Error& e) {
    std::printf("error (code %u): %s\n", static_cast<unsigned>(e.code()), e.what());
    std::fflush(stdout);
    ::_exit(4);
  }
  std::puts("all values are right");
  std::fflush(stdout);
  return 0;
}

}  // namespace workload

namespace {

struct Crash {
  std::string point;
  std::string role;
  int reach = 1;
  std::string name() const { return point + ":" + std::to_string(reach) + "@" + role; }
};
struct Case {
  std::vector<Crash> crashes;
  const char* workload = kMixed;
  std::string name() const {
    std::string all;
    for (const Crash& crash : crashes) all += (all.empty() ? "" : ",") + crash.name();
    return all;
  }
  bool may_kill(std::string_view role) const {
    return std::any_of(crashes.begin(), crashes.end(),
                       [&](const Crash& crash) { return crash.role == role; });
  }
};

struct Outcome {
  int fired = 0;
  std::string trouble;  // empty: as it should be
  milliseconds took{0};
};

Outcome run_case(const Case& which) {
  Scratch home;
  Scratch marks;
  auto variables = mobula::test::session_folder_variables(home);
  variables["MOBULA_CRASH_POINT"] = which.name();
  variables[kFiredVariable] = marks.file("fired");
  const auto start = Clock::now();
  Child child(mobula::test::own_program(), {which.workload}, variables);
  const auto ending = child.wait(kGoesWrongAfter);
  Outcome outcome;
  outcome.took = since(start);
  outcome.fired = mobula::test::count_of(marks.file("fired"));
  // With two crashes, either may have kept the other from happening.
  const auto ended_with = [&](int signal, int code) {
    return ending && ending->signal == signal && ending->code == code;
  };
  const bool driver_died = outcome.fired > 0 && which.may_kill("driver") && ended_with(SIGKILL, 0);
  // The daemon is another program and leaves no mark: its death is what the driver was told.
  const bool node_died = which.may_kill("node") && ended_with(0, kExitNodeDied);
  if (node_died) ++outcome.fired;
  const bool node_may_be_dead = which.may_kill("node");
  const bool must_die = outcome.fired > 0 && which.crashes.size() == 1 && which.may_kill("driver");
  const bool went_well = !must_die && ended_with(0, 0);
  if (!ending) {
    outcome.trouble = "did not end in " + std::to_string(kGoesWrongAfter.count() / 1000) + " s";
  } else if (!driver_died && !node_died && !went_well) {
    outcome.trouble = "ended with signal " + std::to_string(ending->signal) + ", code " +
                      std::to_string(ending->code);
  } else {
    // Then nobody is left to remove the session's folder but the next session.
    if (driver_died && node_may_be_dead)
      Child(mobula::test::own_program(), {"--begin-and-end"},
            mobula::test::session_folder_variables(home))
          .wait(kGoesWrongAfter);
    const auto nothing_left = [&] {
      return mobula::test::family_of(child.tag()).empty() &&
             mobula::test::session_folders(home).empty();
    };
    if (!mobula::test::eventually(1s, nothing_left)) {
      outcome.trouble =
          "left behind: " + mobula::test::describe(mobula::test::family_of(child.tag()));
      for (const auto& folder : mobula::test::session_folders(home))
        outcome.trouble += folder + " ";
    }
  }
  if (!outcome.trouble.empty()) outcome.trouble += "\n" + child.output();
  return outcome;
}

std::string_view point_name(std::size_t point) {
  return mobula::shm::crash_point_info(static_cast<mobula::shm::CrashPoint>(point)).name;
}
constexpr auto kPoints = static_cast<std::size_t>(mobula::shm::CrashPoint::kCount);

std::vector<Case> single_crashes() {
  std::vector<Case> cases;
  for (std::size_t p = 0; p < kPoints; ++p) {
    const std::string name(point_name(p));
    for (const int reach : {1, 4, 21}) cases.push_back({{{name, "actor", reach}}, kState});
    if (name.starts_with("journal.") || name.starts_with("checkpoint.")) continue;
    for (const char* role : kRoles) {
      for (const int reach : {1, 3, 40}) cases.push_back({{{name, role, reach}}});
    }
  }
  return cases;
}

std::vector<Case> random_pairs(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto crash = [&] {
    constexpr int kReaches[] = {1, 1, 2, 3, 10, 40};
    return Crash{std::string(point_name(random() % kPoints)), kRoles[random() % std::size(kRoles)],
                 kReaches[random() % std::size(kReaches)]};
  };
  std::vector<Case> cases;
  for (int i = 0; i < pairs; ++i) cases.push_back({{crash(), crash()}, i % 3 ? kMixed : kState});
  return cases;
}

// Two at a time: one alone leaves a core idle whenever it waits.
std::vector<Outcome> run_all(const std::vector<Case>& cases) {
  std::vector<Outcome> outcomes(cases.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < cases.size(); i = next++) outcomes[i] = run_case(cases[i]);
  };
  std::thread other(work);
  work();
  other.join();
  return outcomes;
}

}  // namespace

TEST_CASE("the workload gives right values when nobody dies") {
  const Outcome outcome = run_case({{{"none", "nobody", 1}}});

  INFO(outcome.trouble);
  CHECK(outcome.trouble.empty());
  CHECK(!outcome.fired);
  std::printf("the workload takes %d ms\n", static_cast<int>(outcome.took.count()));
}

TEST_CASE("a process killed at any step costs nothing but time") {
  const std::vector<Case> cases = single_crashes();

  const std::vector<Outcome> outcomes = run_all(cases);

  std::map<std::string, std::map<std::string, int>> fired;
  milliseconds slowest{0};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(cases[i].name());
    CAPTURE(cases[i].workload);
    INFO(outcomes[i].trouble);
    CHECK(outcomes[i].trouble.empty());
    fired[cases[i].crashes[0].point][cases[i].crashes[0].role] += outcomes[i].fired;
    slowest = std::max(slowest, outcomes[i].took);
  }
  std::printf("\n%-22s", "crashes at point");
  for (const char* role : kRoles) std::printf("%8s", role);
  std::printf("\n");
  for (auto& [point, by_role] : fired) {
    int all = 0;
    std::printf("%-22s", point.c_str());
    for (const char* role : kRoles) {
      std::printf("%8d", by_role[role]);
      all += by_role[role];
    }
    std::printf("\n");
    CAPTURE(point);
    CHECK(all > 0);  // a step that no process ever takes proves nothing
  }
  std::printf("%d cases, slowest %d ms\n", static_cast<int>(cases.size()),
              static_cast<int>(slowest.count()));
}

TEST_CASE("two processes killed at any two steps cost nothing but time") {
  const char* given = std::getenv("MOBULA_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  const std::vector<Case> cases = random_pairs(seed);

  const std::vector<Outcome> outcomes = run_all(cases);

  int crashes[3] = {};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(cases[i].name());
    INFO(outcomes[i].trouble);
    CHECK(outcomes[i].trouble.empty());
    ++crashes[std::min(outcomes[i].fired, 2)];
  }
  std::printf("%d pairs by seed %llu: %d with both crashes, %d with one, %d with none\n", pairs,
              static_cast<unsigned long long>(seed), crashes[2], crashes[1], crashes[0]);
}

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == kMixed)
    return workload::run(argc, argv, &workload::mixed_rounds);
  if (argc == 2 && std::string_view(argv[1]) == kState)
    return workload::run(argc, argv, &workload::rounds_of_state);
  if (argc == 2 && std::string_view(argv[1]) == "--begin-and-end") {
    const mobula::Session session(argc, argv, {.log_to_driver = false});
    return 0;
  }
  for (int i = 1; i < argc; ++i) {
    constexpr std::string_view kPairs = "--pairs=";
    if (std::string_view(argv[i]).starts_with(kPairs)) pairs = std::atoi(argv[i] + kPairs.size());
  }
  doctest::Context context(argc, argv);
  return context.run();
}
