// Random programs over real processes, while processes are killed and stopped: every value is what
// its lineage says, every error has a cause, and nothing is left.
//
// A run is a process of its own that holds sessions one after the other and grows programs from its
// seed (programs/plan.h); a thread of it hurts the session's workers, actors and zygote. After each
// program, with all refs gone, the session's memory has to be as empty as before it.
//
//   scenario_random_programs [--drivers=N]                     the short form, as a test
//   scenario_random_programs --run [--seed S] [--seconds T] [--tasks N] [--faults N]
//   scenario_random_programs --run --program P                 one program again (see a failure's
//   text)
#include "support/scenario.h"

#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "programs/run.h"
#include "support/processes.h"
#include "support/scratch.h"
#include "support/session_folder.h"
#include "support/session_view.h"

using namespace std::chrono_literals;
using mobula::programs::Dice;
using mobula::programs::Hash;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::kSanitized;
using mobula::test::milliseconds;
using mobula::test::Scratch;
using mobula::test::SessionView;
using mobula::test::since;

namespace {

// --- faults ---

enum class Fault { KillWorker, KillActor, KillZygote, Stop, kCount };
constexpr std::array<const char*, static_cast<std::size_t>(Fault::kCount)> kFaultNames = {
    "workers killed", "actors killed", "zygotes killed", "processes stopped"};
using FaultCounts = std::array<std::uint64_t, static_cast<std::size_t>(Fault::kCount)>;

// How a program is hurt.
struct Harm {
  std::uint32_t gap_us = 0;  // between faults, on average; 0: none
  std::array<std::uint32_t, static_cast<std::size_t>(Fault::kCount)> weights{};
};

Harm harm_of(Dice& dice) {
  switch (dice.below(8)) {
    case 0: return {};
    case 1: return {30'000, {100, 0, 0, 0}};
    case 2: return {10'000, {0, 0, 0, 100}};
    case 3: return {5'000, {50, 0, 0, 50}};
    default: return {dice.between(8'000, 60'000), {60, 8, 1, 31}};
  }
}

// A thread that hurts the session until it is told to stop.
class Faults {
 public:
  Faults(SessionView view, const Harm& harm, Hash seed)
      : view_(view), harm_(harm), dice_(seed), thread_([this] { run(); }) {}
  ~Faults() { stop(); }

  // Everybody who was stopped goes on when this returns.
  FaultCounts stop() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
    return counts_;
  }

 private:
  struct Stopped {
    pid_t pid;
    pid_t parent;
    Clock::time_point until;
  };
  static constexpr int kActorKillsMax = 8;  // of a program: each costs the actor a longer pause
  static constexpr auto kZygotePause = 2s;  // three that die at their start are the last
  // Kills without end could keep a program from ever ending: each begins much work anew.
  static constexpr auto kPeaceAfter = 10s;

  void run() {
    std::unique_lock lock(mutex_);
    while (!over_) {
      changed_.wait_for(lock, std::chrono::microseconds(dice_.below(2 * harm_.gap_us) + 1));
      release(Clock::now());
      if (!over_ && Clock::now() - begin_ < kPeaceAfter) strike();
    }
    release(Clock::time_point::max());
  }

  void release(Clock::time_point now) {
    std::erase_if(stopped_, [&](const Stopped& stopped) {
      if (stopped.until > now) return false;
      view_.signal(stopped.pid, SIGCONT, stopped.parent);
      return true;
    });
  }

  void strike() {
    std::uint32_t at = dice_.below(100);
    std::size_t f = 0;
    while (f + 1 < harm_.weights.size() && at >= harm_.weights[f]) at -= harm_.weights[f++];
    const auto fault = static_cast<Fault>(f);
    const pid_t zygote = view_.zygote();
    if (zygote == 0) return;
    pid_t target = 0;
    if (fault == Fault::KillZygote) {
      static Clock::time_point last;  // of this process's one session
      if (Clock::now() - last < kZygotePause) return;
      last = Clock::now();
      target = zygote;
    } else {
      std::vector<pid_t> all;
      if (fault != Fault::KillActor) all = view_.processes_of(mobula::shm::ProcessRole::Worker);
      if (fault != Fault::KillWorker) {
        const auto actors = view_.processes_of(mobula::shm::ProcessRole::Actor);
        all.insert(all.end(), actors.begin(), actors.end());
      }
      if (fault == Fault::KillActor && actors_killed_ == kActorKillsMax) return;
      if (all.empty()) return;
      target = all[dice_.below(static_cast<std::uint32_t>(all.size()))];
    }
    const pid_t parent = fault == Fault::KillZygote ? view_.node() : zygote;
    if (!view_.signal(target, fault == Fault::Stop ? SIGSTOP : SIGKILL, parent)) return;
    if (fault == Fault::Stop) {
      stopped_.push_back({target, parent, Clock::now() + milliseconds(dice_.between(1, 200))});
    }
    actors_killed_ += fault == Fault::KillActor;
    ++counts_[f];
  }

  SessionView view_;
  Harm harm_;
  Dice dice_;
  FaultCounts counts_{};
  std::vector<Stopped> stopped_;
  int actors_killed_ = 0;
  const Clock::time_point begin_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

// --- one program ---

namespace programs = mobula::programs;

struct Covered {
  std::uint64_t programs = 0;
  std::uint64_t tasks = 0;
  std::uint64_t objects = 0;
  std::uint64_t steps = 0;
  FaultCounts faults{};
  std::uint64_t drivers_killed = 0;
  std::uint64_t all_faults() const {
    std::uint64_t all = 0;
    for (const std::uint64_t count : faults) all += count;
    return all;
  }
};

class Shapes {
 public:
  void add(const programs::Plan& plan) {
    for (const auto& step : plan.steps) {
      shapes_.insert(programs::shape_of(plan, step));
      if (step.op == programs::Op::Nest)
        add(programs::plan_of(step.id, programs::surroundings_of(plan, step)));
    }
  }
  std::size_t count() const { return shapes_.size(); }

 private:
  std::set<std::uint64_t> shapes_;
};

// Ends this run: tells what went wrong, and how to see it again.
[[noreturn]] void fail(Hash program, const std::string& what, bool dump) {
  std::printf("\nprogram %llu went wrong: %s\n", static_cast<unsigned long long>(program),
              what.c_str());
  if (dump) std::printf("the session:\n%s", SessionView().dump().c_str());
  std::printf("again: %s --run --program %llu\n", mobula::test::own_program().c_str(),
              static_cast<unsigned long long>(program));
  std::fflush(stdout);
  ::_exit(3);
}

int own_task() { return 0; }

// Nothing of the program is left in memory. Workers give back what they owe when they next look
// round, so they are given something to do.
void check_nothing_left(Hash program, const SessionView& view) {
  const auto begin = Clock::now();
  SessionView::InUse left;
  do {
    for (int i = 0; i < 4; ++i) mobula::get(mobula::remote<own_task>.with({.max_retries = -1})());
    mobula::runtime::require_process().tidy();
    left = view.in_use();
    if (left.nothing()) return;
    std::this_thread::sleep_for(2ms);
  } while (since(begin) < 20s);
  fail(program, "left in memory: " + left.text(), true);
}

void run_program(Hash program, Covered& covered, Shapes& shapes) {
  Dice dice(program);
  const Harm harm = harm_of(dice);
  const bool faulty = harm.gap_us != 0;
  const std::uint32_t threads = dice.percent(50) ? 1 : dice.between(2, 4);
  const SessionView view;
  std::vector<programs::Plan> plans{programs::prelude_of(programs::child(program, 0))};
  std::string trouble;
  bool hang = false;
  {
    std::optional<Faults> faults;
    if (faulty) faults.emplace(view, harm, programs::child(program, 1));
    std::mutex mutex;
    const auto guarded = [&](const auto& work) {
      try {
        work();
      } catch (const programs::Hang& e) {
        const std::lock_guard lock(mutex);
        if (!hang) fail(program, e.what(), hang = true);
      } catch (const std::exception& e) {
        const std::lock_guard lock(mutex);
        if (trouble.empty()) trouble = e.what();
      }
    };
    guarded([&] {
      programs::Scope prelude(plans[0], {}, faulty);
      prelude.take_steps();
      std::vector<std::thread> others;
      for (std::uint32_t t = 0; t < threads; ++t) {
        programs::Imports imports = prelude.exports();
        const programs::Surroundings given{static_cast<std::uint32_t>(imports.words.size()),
                                           static_cast<std::uint32_t>(imports.blocks.size()),
                                           static_cast<std::uint32_t>(imports.actors.size()), 0};
        plans.push_back(programs::plan_of(programs::child(program, 2 + t), given));
        others.emplace_back([&, plan = plans.back(), moved = std::move(imports)]() mutable {
          guarded([&] { programs::Scope(std::move(plan), std::move(moved), faulty).run(); });
        });
      }
      for (std::thread& other : others) other.join();
      prelude.settle();
    });
    if (faults) {
      const FaultCounts counts = faults->stop();
      for (std::size_t f = 0; f < counts.size(); ++f) covered.faults[f] += counts[f];
    }
  }
  if (!trouble.empty()) fail(program, trouble, false);
  if (programs::tally().crashes.load() != 0)
    fail(program, "a process crashed by itself; see the text above", false);
  check_nothing_left(program, view);
  ++covered.programs;
  for (const programs::Plan& plan : plans) {
    const programs::Amounts amounts = programs::amounts_of(plan);
    covered.tasks += amounts.tasks;
    covered.objects += amounts.objects;
    covered.steps += plan.steps.size();
    shapes.add(plan);
  }
}

// --- a run ---

// Workers that end by a signal of their own making are retried, and nobody would know.
void tell_own_crash(int signal) {
  programs::tally().crashes.fetch_add(1);
  void* frames[64];
  ::backtrace_symbols_fd(frames, ::backtrace(frames, 64), 2);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void watch_for_own_crashes() {
  if (kSanitized) return;  // reports say more
  void* frames[1];
  ::backtrace(frames, 1);  // loads what it needs: not in a handler
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE})
    ::signal(signal, tell_own_crash);
}

struct Orders {
  Hash seed = 0;
  std::optional<Hash> program;
  milliseconds time = 10s;
  std::uint64_t tasks = 0;  // goes on beyond the time until there were so many
  std::uint64_t faults = 0;
};

void print_table(const Orders& orders, const Covered& covered, const Shapes& shapes,
                 milliseconds took) {
  const auto row = [](const char* what, std::uint64_t count) {
    std::printf("  %-34s %12llu\n", what, static_cast<unsigned long long>(count));
  };
  const programs::Tally& tally = programs::tally();
  std::printf("random programs, seed %llu, %.1f s\n", static_cast<unsigned long long>(orders.seed),
              static_cast<double>(took.count()) / 1000);
  row("programs", covered.programs);
  row("tasks and calls, each counted once", covered.tasks);
  row("objects put", covered.objects);
  row("steps of the drivers", covered.steps);
  row("distinct shapes of steps", shapes.count());
  row("attempts after the first", tally.retried.load());
  row("exceptions thrown by plan", tally.thrown.load());
  row("lives of actors", tally.lives.load());
  row("cancels that came in time", tally.cancelled.load());
  row("faults", covered.all_faults());
  for (std::size_t f = 0; f < kFaultNames.size(); ++f)
    row((std::string("  ") + kFaultNames[f]).c_str(), covered.faults[f]);
  std::fflush(stdout);
}

class SharedTally {
 public:
  SharedTally() {
    const std::string file = scratch_.file("tally");
    const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ::ftruncate(fd, sizeof(programs::Tally)) != 0) std::abort();
    ::close(fd);
    ::setenv(programs::kTallyVariable, file.c_str(), 1);
  }

 private:
  Scratch scratch_;
};

int run(int argc, char** argv, const Orders& orders) {
  const mobula::test::WorkerReports reports;
  // A worker comes by here, too, and finds the file that its driver named.
  std::optional<SharedTally> shared;
  if (!::getenv(programs::kTallyVariable)) shared.emplace();
  watch_for_own_crashes();
  Covered covered;
  Shapes shapes;
  const auto begin = Clock::now();
  auto told = begin;
  Dice dice(orders.seed);
  const auto enough = [&] {
    return since(begin) >= orders.time && covered.tasks >= orders.tasks &&
           covered.all_faults() >= orders.faults;
  };
  do {
    const mobula::Session session(argc, argv,
                                  {.num_cpus = dice.between(1, 4),
                                   .object_store_memory = 256ULL << 20,
                                   .log_to_driver = true});
    const int programs_of_session = orders.program ? 1 : static_cast<int>(dice.between(1, 30));
    for (int i = 0; i < programs_of_session && !(i > 0 && enough()); ++i) {
      run_program(orders.program.value_or(dice.next()), covered, shapes);
      if (Clock::now() - told < 30s) continue;
      told = Clock::now();
      std::printf("... %llu tasks, %llu faults\n", static_cast<unsigned long long>(covered.tasks),
                  static_cast<unsigned long long>(covered.all_faults()));
      std::fflush(stdout);
    }
  } while (!orders.program && !enough());
  print_table(orders, covered, shapes, since(begin));
  return reports.none_unexpected() ? 0 : 1;
}

}  // namespace

std::optional<int> drivers;  // to kill: --drivers=N

TEST_CASE("random programs give what their lineage says, whatever is killed") {
  Scratch home;
  for (const std::string& seed : {std::string("1"), std::to_string(std::random_device{}())}) {
    CAPTURE(seed);
    const milliseconds time = kSanitized ? 5s : 10s;
    Child child(mobula::test::own_program(),
                {"--run", "--seed", seed, "--seconds", std::to_string(time.count() / 1000)},
                mobula::test::session_folder_variables(home));

    const auto ending = child.wait(time + 100s);

    std::printf("%s", child.output().c_str());
    REQUIRE(ending.has_value());
    CHECK(ending->signal == 0);
    CHECK(ending->code == 0);
    CHECK(mobula::test::family_of(child.tag()).empty());
    CHECK(mobula::test::session_folders(home).empty());
  }
}

TEST_CASE("a driver killed in a random program leaves nothing within a second") {
  Dice dice(std::random_device{}());
  milliseconds slowest{0};
  const int rounds = drivers.value_or(kSanitized ? 4 : 15);
  for (int round = 0; round < rounds; ++round) {
    Scratch home;
    const std::string seed = std::to_string(dice.next());
    CAPTURE(seed);
    auto variables = mobula::test::session_folder_variables(home);
    Scratch temporary;
    variables["TMPDIR"] = temporary.path().string();
    Child child(mobula::test::own_program(), {"--run", "--seed", seed, "--seconds", "60"},
                variables);
    std::this_thread::sleep_for(milliseconds(dice.between(1, 600)));

    child.send(SIGKILL);

    const auto start = Clock::now();
    const auto nothing_left = [&] {
      return mobula::test::family_of(child.tag()).empty() &&
             mobula::test::session_folders(home).empty();
    };
    const bool clean = mobula::test::eventually(kSanitized ? 10s : 1s, nothing_left);
    slowest = std::max(slowest, since(start));
    INFO(mobula::test::describe(mobula::test::family_of(child.tag())));
    INFO(child.output());
    CHECK(clean);
  }
  std::printf("%d drivers killed, the slowest end of a session took %d ms\n", rounds,
              static_cast<int>(slowest.count()));
}

int main(int argc, char** argv) {
  if (argc < 2 || std::string_view(argv[1]) != "--run") {
    constexpr std::string_view kDrivers = "--drivers=";
    for (int i = 1; i < argc; ++i) {
      if (std::string_view(argv[i]).starts_with(kDrivers))
        drivers = std::atoi(argv[i] + kDrivers.size());
    }
    doctest::Context context(argc, argv);
    return context.run();
  }
  Orders orders;
  orders.seed = std::random_device{}();
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (name == "--seed") orders.seed = value;
    if (name == "--program") orders.program = value;
    if (name == "--seconds") orders.time = std::chrono::seconds(value);
    if (name == "--tasks") orders.tasks = value;
    if (name == "--faults") orders.faults = value;
  }
  return run(argc, argv, orders);
}
