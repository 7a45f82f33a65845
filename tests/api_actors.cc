// Actors as a user meets them: order, state, handles, restarts and ends.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Ref;
using mobula::remote;
using mobula::test::amount_of;
using mobula::test::Clock;
using mobula::test::eventually;
using mobula::test::is_gone;
using mobula::test::milliseconds;
using mobula::test::needs_workers;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;

namespace actors {

struct Counter {
  int n = 0;
  explicit Counter(int start) : n(start) {}
  int add(int k) { return n += k; }
  int value() const { return n; }
};

int adds(ActorHandle<Counter> counter) { return mobula::get(counter.call<&Counter::add>(1)); }
// Its call waits for what another task will have called.
int adds_what_another_adds(ActorHandle<Counter> counter) {
  const Ref<int> other = remote<adds>(counter);
  const Ref<int> own = counter.call<&Counter::add>(other);
  mobula::get(other);  // mostly runs it in this thread
  return mobula::get(own);
}

struct Journal {
  std::vector<int> entries;
  int append(int entry) {
    entries.push_back(entry);
    return static_cast<int>(entries.size());
  }
  void append_pair(int first, const std::string& second) {
    entries.push_back(first);
    entries.push_back(static_cast<int>(second.size()));
  }
  std::vector<int> all() const { return entries; }
};

class Base {
 public:
  virtual ~Base() = default;
  virtual std::string kind() const { return "base"; }
  std::string greet(const std::string& who) { return kind() + " greets " + who; }
};
class Derived : public Base {
 public:
  explicit Derived(std::string suffix) : suffix_(std::move(suffix)) {}
  std::string kind() const override { return "derived" + suffix_; }
  int twice(int x) noexcept { return 2 * x; }
  int half(int x) const noexcept { return x / 2; }
  std::string of(int) { return "int"; }
  std::string of(const std::string&) { return "string"; }
  std::string of(int) const { return "const int"; }
  std::string& remember(std::string& text) {  // references in both directions
    suffix_ += text;
    return suffix_;
  }

 private:
  std::string suffix_;
};

// Looks at what it was given, long after the call.
struct Onlooker {
  mobula::View<double> kept;
  void keep(mobula::View<double> view) { kept = std::move(view); }
  double sum() const {
    double all = 0;
    for (const double x : kept) all += x;
    return all;
  }
};

struct Two {  // keeps what it was constructed from where it lies
  mobula::View<double> one;
  mobula::View<double> other;
  bool are_one() const { return one.data() == other.data() && one.size() == other.size(); }
  double first() const { return other[0]; }
};

class Total {
 public:
  Total(std::span<const double> values, std::span<const double> more)
      : sum_(std::accumulate(values.begin(), values.end(), 0.0)),
        in_place_(values.data() == more.data()) {}
  explicit Total(const std::vector<int>& numbers)
      : sum_(std::accumulate(numbers.begin(), numbers.end(), 0)) {}
  double sum() const { return sum_; }
  bool in_place() const { return in_place_; }

 private:
  double sum_ = 0;
  bool in_place_ = false;
};

struct Plain {  // an aggregate: no constructor to write
  int a = 0;
  std::string b;
  std::string show() const { return std::to_string(a) + b; }
};

struct Worker {
  int calls = 0;
  int process() const { return static_cast<int>(::getpid()); }
  int count() { return ++calls; }
  int wait_here(std::string entered, std::string gate) {
    open_gate(entered);
    wait_at_gate(gate);
    return ++calls;
  }
  int crash() { return ::kill(::getpid(), SIGKILL); }
  int leave() { ::_exit(7); }
  int fail(int code) { throw std::runtime_error("no " + std::to_string(code)); }
  bool was_restarted() const { return mobula::this_task().was_restarted(); }
  std::string actor_id() const { return mobula::this_task().actor_id; }
  std::string task_name() const { return mobula::this_task().name; }
  double held(const std::string& what) const {
    return amount_of(mobula::this_task().resources, what);
  }
};

struct Fragile {
  explicit Fragile(int n) {
    if (n < 0) throw std::invalid_argument("n is negative");
  }
  int ok() const { return 1; }
};
struct CrashesAtBirth {
  CrashesAtBirth() { ::kill(::getpid(), SIGKILL); }
  int ok() const { return 1; }
};
struct CountsBirths {
  explicit CountsBirths(const std::string& file) {
    mobula::test::count_in(file);
    ::kill(::getpid(), SIGKILL);
  }
  int ok() const { return 1; }
};

int square(int x) { return x * x; }

class Keeper {
 public:
  Keeper(std::string text, Ref<int> later, int more)
      : text_(std::move(text)), later_(std::move(later)), more_(more) {}
  int sum() const { return static_cast<int>(text_.size()) + mobula::get(later_) + more_; }

 private:
  std::string text_;
  Ref<int> later_;
  int more_;
};
int gated(std::string gate, int value) {
  wait_at_gate(gate);
  return value;
}

// An actor that uses others.
struct Front {
  ActorHandle<Counter> counter;
  int count(int k) { return mobula::get(counter.call<&Counter::add>(k)); }
  Ref<int> count_later(int k) { return counter.call<&Counter::add>(k); }
  int squares(int n) {
    std::vector<Ref<int>> refs;
    for (int i = 0; i < n; ++i) refs.push_back(remote<square>(i));
    int sum = 0;
    for (const int value : mobula::get(refs)) sum += value;
    return sum;
  }
};

int add_through(ActorHandle<Counter> counter, int k) {
  return mobula::get(counter.call<&Counter::add>(k));
}
int add_to_all(const std::vector<ActorHandle<Counter>>& counters, int k) {
  int sum = 0;
  for (const auto& counter : counters) sum += mobula::get(counter.call<&Counter::add>(k));
  return sum;
}
ActorHandle<Counter> make_counter(int start) { return actor<Counter>(start); }

// Appends base, base + 1, ... and waits only at the end.
int append_run(ActorHandle<Journal> journal, int base, int count) {
  Ref<int> last;
  for (int i = 0; i < count; ++i) last = journal.call<&Journal::append>(base + i);
  return mobula::get(last);
}

}  // namespace actors
using namespace actors;

TEST_CASE("a View that an actor keeps shows what it showed in the call") {
  const auto onlooker = mobula::actor<actors::Onlooker>();
  mobula::Ref<std::vector<double>> stored = mobula::put(std::vector<double>(10'000, 0.5));

  mobula::get(onlooker.call<&actors::Onlooker::keep>(stored));
  stored = {};
  for (int i = 0; i < 50; ++i) mobula::put(std::vector<double>(10'000, 7));
  CHECK(mobula::get(onlooker.call<&actors::Onlooker::sum>()) == 5000);

  mobula::get(onlooker.call<&actors::Onlooker::keep>(std::vector<double>{1, 2, 3.5}));
  for (int i = 0; i < 50; ++i)
    mobula::get(onlooker.call<&actors::Onlooker::sum>());  // later calls reuse the record
  CHECK(mobula::get(onlooker.call<&actors::Onlooker::sum>()) == 6.5);
}

TEST_CASE("an actor keeps its state between calls") {
  const auto counter = actor<Counter>(10);

  CHECK(mobula::get(counter.call<&Counter::add>(5)) == 15);
  CHECK(mobula::get(counter.call<&Counter::add>(5)) == 20);
  CHECK(mobula::get(counter.call<&Counter::value>()) == 20);
}

TEST_CASE("the constructor's arguments are values or Refs, also of an aggregate") {
  const auto counter = actor<Counter>(remote<square>(4));
  const auto plain = actor<Plain>(7, "seven");
  const auto empty = actor<Plain>();

  CHECK(mobula::get(counter.call<&Counter::value>()) == 16);
  CHECK(mobula::get(plain.call<&Plain::show>()) == "7seven");
  CHECK(mobula::get(empty.call<&Plain::show>()) == "0");
}

TEST_CASE("a constructor that takes views or spans reads the object where it lies") {
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(10'000, 0.5));

  const auto two = actor<Two>(stored, stored);
  const auto mixed = actor<Two>(stored, std::vector{7.0, 8.0});
  const auto total = actor<Total>(stored, stored);
  const auto of_refs = actor<Total>(std::vector{remote<square>(3), remote<square>(4)});

  CHECK(mobula::get(two.call<&Two::are_one>()));
  CHECK(mobula::get(mixed.call<&Two::first>()) == 7);
  CHECK(mobula::get(total.call<&Total::sum>()) == 5000);
  CHECK(mobula::get(total.call<&Total::in_place>()));
  CHECK(mobula::get(of_refs.call<&Total::sum>()) == 25);
}

TEST_CASE("a constructor that takes a Ref gets the Ref, beside others that get values") {
  const Ref<int> value = remote<square>(3);
  const Ref<std::string> text = mobula::put(std::string("four"));

  const auto keeper = actor<Keeper>(text, value, 5);

  CHECK(mobula::get(keeper.call<&Keeper::sum>()) == 4 + 9 + 5);
}

TEST_CASE("a call that waits holds back none of another task in its thread") {
  const auto counter = actor<Counter>(0);
  for (int i = 1, value = 0; i <= 20; ++i) {
    value = 2 * (value + 1);
    CHECK(mobula::get(remote<adds_what_another_adds>(counter), 20s) == value);
  }
}

TEST_CASE("ten thousand calls of one caller run in the order in which they were made") {
  const int count = scaled(10'000, 5000);
  const auto journal = actor<Journal>();
  std::vector<Ref<int>> sizes;
  for (int i = 0; i < count; ++i) sizes.push_back(journal.call<&Journal::append>(i));

  const std::vector<int> all = mobula::get(journal.call<&Journal::all>());

  REQUIRE(all.size() == static_cast<std::size_t>(count));
  int wrong = 0;
  for (int i = 0; i < count; ++i) {
    wrong += all[static_cast<std::size_t>(i)] != i;
    wrong += mobula::get(sizes[static_cast<std::size_t>(i)]) != i + 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("calls keep their order also when an argument is not there yet" * needs_workers()) {
  Scratch scratch;
  const auto journal = actor<Journal>();
  const Ref<int> late = remote<gated>(scratch.file("gate"), 1);

  journal.call<&Journal::append>(0);
  journal.call<&Journal::append>(late);
  journal.call<&Journal::append>(2);
  journal.call<&Journal::append_pair>(late, std::string("abc"));
  const Ref<int> last = journal.call<&Journal::append>(4);
  CHECK_THROWS_AS(mobula::get(last, 30ms), mobula::GetTimeoutError);

  open_gate(scratch.file("gate"));
  CHECK(mobula::get(last) == 6);
  CHECK(mobula::get(journal.call<&Journal::all>()) == std::vector<int>{0, 1, 2, 1, 3, 4});
}

TEST_CASE("two callers interleave, and the order of each is kept") {
  const int count = scaled(500, 100);
  const auto journal = actor<Journal>();

  const Ref<int> a = remote<append_run>(journal, 0, count);
  const Ref<int> b = remote<append_run>(journal, 10'000, count);
  mobula::get(a);
  mobula::get(b);

  int next_a = 0, next_b = 10'000;
  for (const int entry : mobula::get(journal.call<&Journal::all>())) {
    int& next = entry < 10'000 ? next_a : next_b;
    REQUIRE(entry == next++);
  }
  CHECK(next_a == count);
  CHECK(next_b == 10'000 + count);
}

TEST_CASE("const, overloaded, inherited, virtual and noexcept methods can be called") {
  const auto handle = actor<Derived>("!");
  using TakesInt = std::string (Derived::*)(int);
  using TakesString = std::string (Derived::*)(const std::string&);
  using ConstTakesInt = std::string (Derived::*)(int) const;

  CHECK(mobula::get(handle.call<&Derived::twice>(4)) == 8);
  CHECK(mobula::get(handle.call<&Derived::half>(4)) == 2);
  CHECK(mobula::get(handle.call<&Derived::kind>()) == "derived!");
  CHECK(mobula::get(handle.call<&Base::kind>()) == "derived!");
  CHECK(mobula::get(handle.call<&Base::greet>("us")) == "derived! greets us");
  CHECK(mobula::get(handle.call<&Derived::greet>("us")) == "derived! greets us");
  CHECK(mobula::get(handle.call<static_cast<TakesInt>(&Derived::of)>(1)) == "int");
  CHECK(mobula::get(handle.call<static_cast<TakesString>(&Derived::of)>("x")) == "string");
  CHECK(mobula::get(handle.call<static_cast<ConstTakesInt>(&Derived::of)>(1)) == "const int");
  CHECK(mobula::get(handle.call<&Derived::remember>("?")) == "!?");
}

TEST_CASE("the result of a call is an argument of tasks and of other calls") {
  const auto first = actor<Counter>(1);
  const auto second = actor<Counter>(100);
  const Ref<int> three = first.call<&Counter::add>(2);

  CHECK(mobula::get(remote<square>(three)) == 9);
  CHECK(mobula::get(second.call<&Counter::add>(three)) == 103);
}

TEST_CASE("handles are arguments, elements, fields and results") {
  const auto a = actor<Counter>(1);
  const auto b = actor<Counter>(2);

  CHECK(mobula::get(remote<add_through>(a, 10)) == 11);
  CHECK(mobula::get(remote<add_to_all>(std::vector{a, b}, 1)) == 12 + 3);
  CHECK(mobula::get(mobula::put(std::vector{a, b}))[1] == b);
  CHECK(a != b);

  const ActorHandle<Counter> made = mobula::get(remote<make_counter>(50));
  CHECK(mobula::get(made.call<&Counter::add>(1)) == 51);
  CHECK(mobula::get(remote<add_through>(made, 1)) == 52);
}

TEST_CASE("an actor calls another actor and starts tasks") {
  const auto front = actor<Front>(actor<Counter>(7));

  CHECK(mobula::get(front.call<&Front::count>(1)) == 8);
  CHECK(mobula::get(mobula::get(front.call<&Front::count_later>(1))) == 9);
  CHECK(mobula::get(front.call<&Front::squares>(20)) == 2470);
}

TEST_CASE("twenty actors live at once, each in a process of its own" * needs_workers()) {
  std::vector<ActorHandle<Worker>> workers;
  for (int i = 0; i < 20; ++i) workers.push_back(actor<Worker>());
  std::vector<Ref<int>> processes, counts;
  for (const auto& worker : workers) {
    processes.push_back(worker.call<&Worker::process>());
    worker.call<&Worker::count>();
    counts.push_back(worker.call<&Worker::count>());
  }

  const std::vector<int> pids = mobula::get(processes);

  CHECK(std::set<int>(pids.begin(), pids.end()).size() == 20);
  for (const int count : mobula::get(counts)) CHECK(count == 2);
}

TEST_CASE("tasks run beside an actor that is busy" * needs_workers()) {
  Scratch scratch;
  const auto worker = actor<Worker>();
  const Ref<int> busy =
      worker.call<&Worker::wait_here>(scratch.file("entered"), scratch.file("gate"));

  CHECK(mobula::get(remote<square>(5), 20s) == 25);

  open_gate(scratch.file("gate"));
  CHECK(mobula::get(busy) == 1);
}

TEST_CASE("this_task knows the actor, and the resources that it holds" * needs_workers()) {
  const auto worker = actor<Worker>();
  const auto holder = actor<Worker>.with(
      {.num_cpus = 1, .num_gpus = 0.5, .memory = 64 << 20, .resources = {{"lamp", 0.25}}})();

  const std::string id = mobula::get(worker.call<&Worker::actor_id>());
  CHECK(!id.empty());
  CHECK(mobula::get(worker.call<&Worker::actor_id>()) == id);
  CHECK(mobula::get(holder.call<&Worker::actor_id>()) != id);
  CHECK(mobula::get(worker.call<&Worker::task_name>()).find("task_name") != std::string::npos);
  CHECK(mobula::get(worker.call<&Worker::held>("CPU")) == 0);
  for (const auto& [what, amount] : std::map<std::string, double>{
           {"CPU", 1}, {"GPU", 0.5}, {"memory", 64 << 20}, {"lamp", 0.25}}) {
    CAPTURE(what);
    CHECK(mobula::get(holder.call<&Worker::held>(what)) == amount);
    CHECK(eventually(10s, [&] {
      return amount_of(mobula::available_resources(), what) ==
             amount_of(mobula::cluster_resources(), what) - amount;
    }));
  }
}

TEST_CASE("a method that throws fails its call, and the actor goes on") {
  const auto worker = actor<Worker>();
  worker.call<&Worker::count>();

  try {
    mobula::get(worker.call<&Worker::fail>(5));
    FAIL("no error");
  } catch (const mobula::TaskError& e) {
    CHECK(e.message() == "no 5");
    CHECK(e.task_name().find("fail") != std::string::npos);
    CHECK_THROWS_AS(e.rethrow_cause(), std::runtime_error);
  }
  CHECK(mobula::get(worker.call<&Worker::count>()) == 2);
}

TEST_CASE("a call may have a name of its own, which its errors tell") {
  const auto worker = actor<Worker>();
  const auto failing = worker.with({.name = "step 7"}).call<&Worker::fail>(7);
  try {
    mobula::get(failing, 20s);
    FAIL("it threw nothing");
  } catch (const mobula::TaskError& e) {
    CHECK(e.task_name() == "step 7");
  }
}

TEST_CASE("a constructor that throws gives ready() the cause and the calls ActorDiedError") {
  const auto broken = actor<Fragile>(-1);

  CHECK_THROWS_AS(mobula::get(broken.call<&Fragile::ok>()), mobula::ActorDiedError);
  try {
    mobula::get(broken.ready());
    FAIL("no error");
  } catch (const mobula::TaskError& e) {
    CHECK(e.message() == "n is negative");
    CHECK_THROWS_AS(e.rethrow_cause(), std::invalid_argument);
  }
  CHECK_THROWS_AS(mobula::get(broken.call<&Fragile::ok>()), mobula::ActorDiedError);

  const auto whole = actor<Fragile>(1);
  mobula::get(whole.ready());
  CHECK(mobula::get(whole.call<&Fragile::ok>()) == 1);
}

TEST_CASE("a constructor that crashes gives an error in finite time" * needs_workers()) {
  const auto crashing = actor<CrashesAtBirth>();
  const auto stubborn = actor<CrashesAtBirth>.with({.max_restarts = 2})();

  CHECK_THROWS_AS(mobula::get(crashing.call<&CrashesAtBirth::ok>(), 20s), mobula::ActorDiedError);
  CHECK_THROWS_AS(mobula::get(stubborn.call<&CrashesAtBirth::ok>(), 20s), mobula::ActorDiedError);
}

TEST_CASE("an actor that dies again and again is started less and less often" * needs_workers()) {
  Scratch scratch;
  {
    const auto hopeless = actor<CountsBirths>.with({.max_restarts = -1})(scratch.file("births"));
    CHECK_THROWS_AS(mobula::get(hopeless.call<&CountsBirths::ok>(), 700ms),
                    mobula::GetTimeoutError);
    mobula::kill(hopeless);
    CHECK_THROWS_AS(mobula::get(hopeless.call<&CountsBirths::ok>(), 20s), mobula::ActorDiedError);
  }

  // Without a pause it would be hundreds.
  CHECK(mobula::test::count_of(scratch.file("births")) >= 4);
  CHECK(mobula::test::count_of(scratch.file("births")) <= 40);
}

TEST_CASE("kill fails a thousand pending calls in less than a second" * needs_workers()) {
  Scratch scratch;
  const auto worker = actor<Worker>();
  const int pid = mobula::get(worker.call<&Worker::process>());
  std::vector<Ref<int>> pending{
      worker.call<&Worker::wait_here>(scratch.file("entered"), scratch.file("gate"))};
  REQUIRE(eventually(20s, [&] { return mobula::test::gate_is_open(scratch.file("entered")); }));
  for (int i = 0; i < 1000; ++i) pending.push_back(worker.call<&Worker::count>());

  const auto start = Clock::now();
  mobula::kill(worker);
  int died = 0;
  for (const Ref<int>& ref : pending) {
    try {
      mobula::get(ref, 20s);
    } catch (const mobula::ActorDiedError&) {
      ++died;
    }
  }
  const auto took = since(start);

  CHECK(died == 1001);
  CHECK(took < milliseconds(scaled(1000, 10'000)));
  CHECK_THROWS_AS(mobula::get(worker.call<&Worker::count>(), 20s), mobula::ActorDiedError);
  CHECK(eventually(5s, [&] { return is_gone(pid); }));
  mobula::kill(worker);  // twice is once
}

TEST_CASE("an actor without restarts dies with its process" * needs_workers()) {
  const auto worker = actor<Worker>();
  worker.call<&Worker::count>();

  const Ref<int> crash = worker.call<&Worker::crash>();
  const Ref<int> after = worker.call<&Worker::count>();

  CHECK_THROWS_AS(mobula::get(crash, 20s), mobula::ActorDiedError);
  CHECK_THROWS_AS(mobula::get(after, 20s), mobula::ActorDiedError);
  try {
    mobula::get(worker.call<&Worker::count>(), 20s);
    FAIL("no error");
  } catch (const mobula::ActorDiedError& e) {
    CHECK(std::string(e.what()).find("SIGKILL") != std::string::npos);
    CHECK(std::string(e.what()).find("Worker") != std::string::npos);
  }
}

TEST_CASE("an actor that ends its own process is dead, and its exit code is told" *
          needs_workers()) {
  const auto worker = actor<Worker>();

  try {
    mobula::get(worker.call<&Worker::leave>(), 20s);
    FAIL("no error");
  } catch (const mobula::ActorDiedError& e) {
    CHECK(std::string(e.what()).find('7') != std::string::npos);
  }
}

TEST_CASE("an actor with a restart begins anew after a crash, and dies at the next" *
          needs_workers()) {
  const auto worker = actor<Worker>.with({.max_restarts = 1})();
  for (int i = 0; i < 3; ++i) worker.call<&Worker::count>();
  const int first = mobula::get(worker.call<&Worker::process>());
  CHECK(!mobula::get(worker.call<&Worker::was_restarted>()));

  CHECK_THROWS_AS(mobula::get(worker.call<&Worker::crash>(), 20s), mobula::ActorUnavailableError);

  CHECK(mobula::get(worker.call<&Worker::count>(), 20s) == 1);  // a fresh state
  CHECK(mobula::get(worker.call<&Worker::process>(), 20s) != first);
  CHECK(mobula::get(worker.call<&Worker::was_restarted>(), 20s));

  CHECK_THROWS_AS(mobula::get(worker.call<&Worker::crash>(), 20s), mobula::ActorDiedError);
  CHECK_THROWS_AS(mobula::get(worker.call<&Worker::count>(), 20s), mobula::ActorDiedError);
}

TEST_CASE("a restarted actor is constructed from the same arguments" * needs_workers()) {
  const Ref<int> start = remote<square>(6);
  const auto counter = actor<Counter>.with({.max_restarts = 1})(start);
  CHECK(mobula::get(counter.call<&Counter::add>(1)) == 37);

  struct Killer {
    int shoot(int pid) { return ::kill(static_cast<pid_t>(pid), SIGKILL); }
  };
  const auto worker = actor<Worker>.with({.max_restarts = -1})();
  for (int i = 0; i < 3; ++i) {
    const int pid = mobula::get(worker.call<&Worker::process>(), 20s);
    CHECK(mobula::get(actor<Killer>().call<&Killer::shoot>(pid), 20s) == 0);
    // until the death is noticed, a call may still be lost with the process
    CHECK(eventually(20s, [&] {
      const auto now = mobula::try_get(worker.call<&Worker::process>(), 20s);
      return now.has_value() && *now != pid;
    }));
  }
}

TEST_CASE("calls that a crash interrupted are repeated when that is asked for" * needs_workers()) {
  Scratch scratch;
  struct Once {
    int crash_once(std::string file) {
      mobula::test::count_in(file);
      if (mobula::test::count_of(file) == 1) ::kill(::getpid(), SIGKILL);
      return static_cast<int>(mobula::test::count_of(file));
    }
  };
  const auto once = actor<Once>.with({.max_restarts = 2, .max_task_retries = 1})();

  CHECK(mobula::get(once.call<&Once::crash_once>(scratch.file("calls")), 20s) == 2);
}

TEST_CASE("an actor ends when its last handle is gone and its calls are done" * needs_workers()) {
  Scratch scratch;
  int pid = 0;
  Ref<int> pending;
  {
    const auto worker = actor<Worker>();
    pid = mobula::get(worker.call<&Worker::process>());
    pending = worker.call<&Worker::wait_here>(scratch.file("entered"), scratch.file("gate"));
  }
  CHECK(!is_gone(pid));

  open_gate(scratch.file("gate"));

  CHECK(mobula::get(pending, 20s) == 1);
  CHECK(eventually(5s, [&] { return is_gone(pid); }));
}

TEST_CASE("an actor lives while a handle is inside of an object" * needs_workers()) {
  int pid = 0;
  Ref<std::vector<ActorHandle<Worker>>> box;
  {
    const auto worker = actor<Worker>();
    pid = mobula::get(worker.call<&Worker::process>());
    box = mobula::put(std::vector{worker});
  }
  CHECK(mobula::get(mobula::get(box)[0].call<&Worker::process>(), 20s) == pid);

  box = {};

  CHECK(eventually(5s, [&] { return is_gone(pid); }));
}

TEST_CASE("an actor's resources are free again after its end" * needs_workers()) {
  {
    const auto holder = actor<Worker>.with({.num_cpus = 1, .resources = {{"lamp", 1}}})();
    mobula::get(holder.ready());
    const auto held = mobula::available_resources();
    CHECK(amount_of(held, "lamp") == 0);
  }
  CHECK(eventually(10s, [] {
    const auto free = mobula::available_resources();
    return amount_of(free, "CPU") == 2 && amount_of(free, "lamp") == 1;
  }));
  const auto next = actor<Worker>.with({.num_cpus = 1, .resources = {{"lamp", 1}}})();
  CHECK(mobula::get(next.call<&Worker::count>(), 20s) == 1);
}

TEST_CASE("actors come and go by the hundred") {
  const int rounds = scaled(200, 60);
  for (int i = 0; i < rounds; ++i) {
    const auto counter = actor<Counter>(i);
    REQUIRE(mobula::get(counter.call<&Counter::add>(1), 20s) == i + 1);
  }
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2,
                                       .num_gpus = 1,
                                       .resources = {{"lamp", 1}},
                                       .object_store_memory = 256ULL << 20});
}
