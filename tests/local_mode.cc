// Config.local_mode: everything runs in the calling thread, in the same order each time. Since
// tasks and tests share a process, tasks tell by plain variables what they did.
#include "support/scenario.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"
#include "support/staying_node.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Ref;
using mobula::remote;

namespace local {

std::vector<std::string> told;
std::vector<std::string> what_was_told() { return std::exchange(told, {}); }

int leaf(std::string name) {
  told.push_back(name);
  return 1;
}
std::atomic<int> come{0};
int meet(int all) {
  ++come;
  for (int seen = come; seen < all; seen = come) come.wait(seen);
  come.notify_all();
  return all;
}
int next(int n) { return n + 1; }
int branch(std::string name) {
  told.push_back(name + " begins");
  const Ref<int> a = remote<leaf>(name + " left");
  const Ref<int> b = remote<leaf>(name + " right");
  told.push_back(name + " ends");
  return mobula::get(a) + mobula::get(b);
}
std::string own_id() { return mobula::this_task().task_id; }
std::vector<std::string> ids_of_a_family() {
  return {own_id(), mobula::get(remote<own_id>()), mobula::get(remote<own_id>())};
}
int increment(int x) { return x + 1; }
int fails(int code) { throw std::out_of_range("code " + std::to_string(code)); }
int fails_at_first(int x) {
  if (mobula::this_task().attempt == 0) throw std::runtime_error("not yet");
  return x + mobula::this_task().attempt;
}
int fibonacci(int n) {
  if (n < 2) return n;
  const Ref<int> a = remote<fibonacci>(n - 1);
  return mobula::get(a) + mobula::get(remote<fibonacci>(n - 2));
}

int alive = 0;
struct Counter {
  int n;
  explicit Counter(int start) : n(start) {
    if (start < 0) throw std::invalid_argument("below zero");
    ++alive;
  }
  ~Counter() { --alive; }
  int add(int k) { return n += k; }
  int value() const { return n; }
};
int add_by_task(const ActorHandle<Counter>& counter, int k) {
  return mobula::get(counter.call<&Counter::add>(k));
}

Ref<int> hung;
int cancels_itself(int x) {
  mobula::cancel(hung, {.force = true});
  told.push_back(mobula::this_task().should_cancel() ? "stops" : "goes on");
  return x;
}

void numbers(mobula::Sink<int>& out, int n) {
  for (int i = 0; i < n; ++i) out.push(i);
}
void squares(mobula::Sink<int>& out, int n) {
  for (const int i : remote<numbers>.with({.max_unread = 4})(n)) out.push(i * i);
}

// Calls itself: what it calls runs when the method that calls has ended.
struct Loop {
  ActorHandle<Loop> self;
  int calls = 0;
  void know(const ActorHandle<Loop>& me) { self = me; }
  void count_up(mobula::Sink<int>& out, int n) {
    for (int i = 0; i < n; ++i) out.push(++calls);
  }
  int count() {
    told.push_back("count");
    return ++calls;
  }
  int read_own() { return *self.call<&Loop::count_up>(3).next(); }
  int wait_for_self() { return mobula::get(self.call<&Loop::count>()); }
  int wait_for_a_task() { return mobula::get(remote<Loop::ask>(self)); }
  static int ask(const ActorHandle<Loop>& loop) { return mobula::get(loop.call<&Loop::count>()); }
  int wait_for_what_depends_on_it() {
    return mobula::get(remote<increment>(self.call<&Loop::count>()));
  }
  int have_patience() {
    const Ref<int> later = self.call<&Loop::count>();
    try {
      return mobula::get(later, 1ms);
    } catch (const mobula::GetTimeoutError&) {
      return -1;
    }
  }
  Ref<int> chain(int length) {
    Ref<int> last = self.call<&Loop::count>();
    for (int i = 0; i < length; ++i) last = remote<increment>(last);
    told.push_back("chain is hung");
    return last;
  }
  void hang_a_task_that_cancels_itself() {
    hung = remote<cancels_itself>(self.call<&Loop::count>());
  }
  void look_after_next_count() {
    mobula::then(self.call<&Loop::count>(), [](const mobula::Result<int>& value) {
      told.push_back("then " + std::to_string(*value));
    });
    told.push_back("method ends");
  }
  bool cancel_own() {
    const Ref<int> call = self.call<&Loop::count>();
    return mobula::cancel(call);
  }
  void kill_self() {
    mobula::kill(self);
    told.push_back("still here");
  }
};
ActorHandle<Loop> make_loop() {
  const auto loop = actor<Loop>();
  loop.call<&Loop::know>(loop);
  return loop;
}

struct Seen {
  std::string colour;
  std::string folder;
  bool operator==(const Seen&) const = default;
};
Seen look() {
  const char* colour = ::getenv("MOBULA_TEST_COLOUR");
  return {colour ? colour : "", std::filesystem::current_path().string()};
}
Seen look_by_task() { return mobula::get(remote<look>()); }
Seen look_after(int) { return look(); }
struct Box {
  mobula::Reply<int> waiting;
  void receive(mobula::Reply<int> reply) { waiting = std::move(reply); }
  void send(int x) { waiting.set(x); }
};
void send_to(const ActorHandle<Box>& box) { mobula::get(box.call<&Box::send>(1)); }
std::vector<Seen> look_here_and_there(const mobula::RuntimeEnv& there) {
  const Seen before = look();
  const Seen elsewhere = mobula::get(remote<look>.with({.runtime_env = there})());
  return {before, elsewhere, look()};
}
struct Looker {
  Seen first = look();
  Seen at_first() const { return first; }
  Seen now() const { return look(); }
  Seen by_task() const { return look_by_task(); }
};

struct Leaver {
  ~Leaver() { told.push_back("left"); }
  int leave() {
    mobula::exit_actor();
    return 42;
  }
};
int counts(int n) {
  const mobula::Counter counter("counted_locally");
  const mobula::Progress progress = mobula::progress(n, "locally");
  for (int i = 0; i < n; ++i) {
    counter.add();
    progress.add();
  }
  return n;
}

}  // namespace local
using namespace local;

TEST_CASE("a task runs in the thread of its call, before the call returns") {
  const Ref<int> sum = remote<branch>("a");

  CHECK(what_was_told() == std::vector<std::string>{"a begins", "a left", "a right", "a ends"});
  CHECK(mobula::get(sum) == 2);
  CHECK(mobula::get(remote<::getpid>()) == ::getpid());
}

TEST_CASE("no process is there but the program and its node") {
  mobula::get(actor<Counter>(1).ready());
  mobula::get(remote<leaf>("x"));
  what_was_told();

  CHECK(mobula::test::workers_of(::getenv(mobula::test::kTagVariable)).empty());
}

TEST_CASE("recursion is as in a program without Mobula") {
  CHECK(mobula::get(remote<fibonacci>(15)) == 610);
}

TEST_CASE("each actor is an object of its own in this process") {
  const int before = alive;
  {
    const auto a = actor<Counter>(10);
    const auto b = actor<Counter>(20);
    CHECK(alive == before + 2);

    CHECK(mobula::get(a.call<&Counter::add>(1)) == 11);
    CHECK(mobula::get(remote<add_by_task>(b, 5)) == 25);
    CHECK(mobula::get(a.call<&Counter::value>()) == 11);
  }
  CHECK(alive == before);
}

TEST_CASE("actors come and go by the hundred") {
  const int before = alive;
  for (int i = 0; i < 500; ++i)
    CHECK(mobula::get(actor<Counter>(i).call<&Counter::add>(1)) == i + 1);
  CHECK(alive == before);
}

TEST_CASE("a call that an actor makes of itself runs when its method has ended") {
  const auto loop = make_loop();
  const Ref<Ref<int>> chain = loop.call<&Loop::chain>(3);

  CHECK(what_was_told() == std::vector<std::string>{"chain is hung", "count"});
  CHECK(mobula::get(mobula::get(chain)) == 4);
}

TEST_CASE("a chain of a hundred thousand tasks that waits needs no deep stack") {
  const int length = mobula::test::scaled(100'000, 20'000);
  const auto loop = make_loop();

  CHECK(mobula::get(mobula::get(loop.call<&Loop::chain>(length))) == length + 1);
  what_was_told();
}

TEST_CASE("an actor that waits for itself is told so at once, and goes on") {
  const auto loop = make_loop();
  for (const Ref<int>& waits :
       {loop.call<&Loop::wait_for_self>(), loop.call<&Loop::wait_for_a_task>(),
        loop.call<&Loop::wait_for_what_depends_on_it>()}) {
    CHECK_THROWS_WITH_AS(mobula::get(waits), doctest::Contains("its actor is at work"),
                         mobula::Error);
  }
  CHECK(mobula::get(loop.call<&Loop::have_patience>()) == -1);
  CHECK(mobula::get(loop.call<&Loop::count>()) == 2);  // the call that it had no patience for came
  what_was_told();
}

TEST_CASE("an exception is a TaskError, also of what depends on it, and is tried again") {
  const Ref<int> failed = remote<fails>(3);
  CHECK_THROWS_WITH_AS(mobula::get(failed), doctest::Contains("std::out_of_range: code 3"),
                       mobula::TaskError);
  CHECK_THROWS_AS(mobula::get(remote<increment>(failed)), mobula::TaskError);
  CHECK(mobula::get(remote<fails_at_first>.with({.retry_exceptions = true})(7)) == 8);
}

TEST_CASE("a constructor that throws gives ready() the cause and the calls ActorDiedError") {
  const auto broken = actor<Counter>(-1);
  CHECK_THROWS_WITH_AS(mobula::get(broken.ready()), doctest::Contains("below zero"),
                       mobula::TaskError);
  CHECK_THROWS_WITH_AS(mobula::get(broken.call<&Counter::value>()),
                       doctest::Contains("could not be constructed"), mobula::ActorDiedError);
}

TEST_CASE("kill ends the object at once, and its later calls fail") {
  const int before = alive;
  const auto counter = actor<Counter>(1);

  mobula::kill(counter);

  CHECK(alive == before);
  CHECK_THROWS_WITH_AS(mobula::get(counter.call<&Counter::value>()),
                       doctest::Contains("was killed"), mobula::ActorDiedError);
}

TEST_CASE("a method that kills its own actor goes on to its end, and is the last") {
  const auto loop = make_loop();
  mobula::get(loop.call<&Loop::kill_self>());

  CHECK(what_was_told() == std::vector<std::string>{"still here"});
  CHECK_THROWS_AS(mobula::get(loop.call<&Loop::count>()), mobula::ActorDiedError);
}

TEST_CASE("a call that is cancelled before it runs never does; force ends no process") {
  const auto loop = make_loop();
  CHECK(mobula::get(loop.call<&Loop::cancel_own>()));
  CHECK(what_was_told().empty());

  const Ref<int> done = remote<leaf>("done");
  CHECK_FALSE(mobula::cancel(done, {.force = true}));
  mobula::get(loop.call<&Loop::hang_a_task_that_cancels_itself>());
  CHECK_THROWS_AS(mobula::get(std::exchange(hung, {})), mobula::TaskCancelledError);
  CHECK(what_was_told() == std::vector<std::string>{"done", "count", "stops"});
}

TEST_CASE("an actor has a name, leaves by itself, and its monitors are told") {
  const auto leaver = actor<Leaver>.with({.name = "leaver"})();
  const auto end = mobula::monitor(leaver);
  const auto found = mobula::get_actor<Leaver>("leaver");
  CHECK(found == leaver);

  CHECK(mobula::get(found.call<&Leaver::leave>()) == 42);

  CHECK_THROWS_WITH_AS(mobula::get(leaver.call<&Leaver::leave>()),
                       doctest::Contains("left by itself"), mobula::ActorDiedError);
  CHECK(mobula::get(end, 20s).reason == mobula::DeathReason::Left);
  CHECK_THROWS_AS(mobula::get_actor<Leaver>("leaver"), mobula::ActorNotFoundError);
  CHECK(what_was_told() == std::vector<std::string>{"left"});
}

TEST_CASE("metrics and progress count here, too") {
  CHECK(mobula::get(remote<counts>(3)) == 3);
  for (const auto& sample : mobula::metrics()) {
    if (sample.name == "counted_locally") CHECK(sample.value == 3);
    if (sample.name == "mobula_tasks_run_total") CHECK(sample.value > 0);
  }
}

TEST_CASE("what then() is given runs after what runs, or beside the program") {
  std::atomic<int> seen{0};
  mobula::then(remote<increment>(1), [&](const mobula::Result<int>& value) { seen = *value; });
  CHECK(mobula::test::eventually(20s, [&] { return seen == 2; }));

  const auto loop = make_loop();
  mobula::get(loop.call<&Loop::look_after_next_count>());
  CHECK(what_was_told() == std::vector<std::string>{"method ends", "count", "then 1"});
}

TEST_CASE("a stream has a thread of its own beside its reader") {
  int sum = 0;
  for (const int square : remote<squares>.with({.max_unread = 4})(100)) sum += square;
  CHECK(sum == 328350);

  const auto loop = make_loop();
  auto counted = loop.call<&Loop::count_up>(10'000);
  for (int i = 1; i <= 5'000; ++i) REQUIRE(*counted.next(20s) == i);
  counted.stop();
  CHECK(mobula::get(loop.call<&Loop::count>(), 20s) > 5'000);
  what_was_told();
}

TEST_CASE("an actor that reads a stream of its own is told so at once, and goes on") {
  const auto loop = make_loop();

  CHECK_THROWS_WITH_AS(mobula::get(loop.call<&Loop::read_own>()),
                       doctest::Contains("can never run"), mobula::TaskError);
  CHECK(mobula::get(loop.call<&Loop::count>()) == 1);
  what_was_told();
}

TEST_CASE("tasks and actors find the environment that they were given, and leave none behind") {
  const mobula::test::Scratch scratch;
  const std::string there = std::filesystem::canonical(scratch.path()).string();
  const std::string here = std::filesystem::current_path().string();
  const mobula::RuntimeEnv green{.env_vars = {{"MOBULA_TEST_COLOUR", "green"}}};
  const mobula::RuntimeEnv elsewhere{.env_vars = {{"MOBULA_TEST_COLOUR", "red"}, {"HOME", "/no"}},
                                     .working_dir = scratch.path().string()};
  const std::string home = ::getenv("HOME") ? ::getenv("HOME") : "";
  const auto look_there = remote<look>.with({.runtime_env = elsewhere});

  CHECK(mobula::get(look_there()) == Seen{"red", there});
  CHECK(look() == Seen{"", here});
  CHECK((::getenv("HOME") ? ::getenv("HOME") : "") == home);
  CHECK(mobula::get(remote<look>()) == Seen{"", here});
  // What a task submits is in its environment, unless it gives another one.
  CHECK(mobula::get(remote<look_by_task>.with({.runtime_env = green})()) == Seen{"green", here});
  const auto both =
      mobula::get(remote<look_here_and_there>.with({.runtime_env = green})(elsewhere));
  CHECK(both == std::vector{Seen{"green", here}, Seen{"red", there}, Seen{"green", here}});
  // One that was submitted elsewhere is not, though a task lets it go on.
  const auto box = mobula::actor<Box>();
  const Ref<Seen> late = remote<look_after>(box.call<&Box::receive>());
  mobula::get(remote<send_to>.with({.runtime_env = green})(box));
  CHECK(mobula::get(late) == Seen{"", here});

  const auto actor = mobula::actor<Looker>.with({.runtime_env = green})();
  CHECK(mobula::get(actor.call<&Looker::at_first>()) == Seen{"green", here});
  CHECK(mobula::get(actor.call<&Looker::now>()) == Seen{"green", here});
  CHECK(mobula::get(actor.call<&Looker::by_task>()) == Seen{"green", here});
  CHECK(look() == Seen{"", here});
  what_was_told();
}

TEST_CASE("threads of the program share actors, whose calls run one at a time") {
  const int count = mobula::test::scaled(2'000, 500);
  const auto counter = actor<Counter>(0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < count; ++i) {
        mobula::get(counter.call<&Counter::add>(1));
        mobula::get(remote<add_by_task>(counter, 1));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  CHECK(mobula::get(counter.call<&Counter::value>()) == 8 * count);
}

TEST_CASE("what no node could run is refused as always") {
  CHECK_THROWS_AS(remote<leaf>.with({.num_gpus = 3})("x"), mobula::UnschedulableError);
  CHECK_THROWS_AS(actor<Counter>.with({.num_gpus = 3})(1), mobula::UnschedulableError);
}

TEST_CASE("a program may return from main() without a shutdown") {
  const mobula::test::OwnPlace place;
  mobula::test::Child child(mobula::test::own_program(), {"--no-shutdown"}, place.variables());
  const auto ending = child.wait(20s);
  INFO(child.output());
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 3);
  CHECK(mobula::test::eventually(5s, [&] { return !std::filesystem::exists(place.folder()); }));
}

namespace {

int end_without_shutdown(int argc, char** argv) {
  mobula::init(argc, argv, {.local_mode = true, .local_threads = true});
  return mobula::get(remote<next>(2), 20s);
}

std::vector<std::string> ids_of_a_session(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.local_mode = true});
  std::vector<std::string> ids = mobula::get(remote<ids_of_a_family>());
  const auto counter = actor<Counter>(1);
  ids.push_back(mobula::get(remote<own_id>()));
  ids.push_back(mobula::get(actor<Loop>().call<&Loop::count>()) == 1 ? "1" : "-");
  return ids;
}

// With local_threads: tasks that meet, more than there are cores, and graphs of them.
bool tasks_run_beside_each_other(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.local_mode = true, .local_threads = true});
  std::vector<Ref<int>> meeting;
  for (int i = 0; i < 8; ++i) meeting.push_back(remote<meet>(8));
  Ref<int> chain = remote<next>(0);
  for (int i = 1; i < 1'000; ++i) chain = remote<next>(chain);
  const auto counter = actor<Counter>(0);
  std::vector<Ref<int>> adding;
  for (int i = 0; i < 100; ++i) adding.push_back(remote<add_by_task>(counter, 1));
  for (const Ref<int>& one : meeting) {
    if (mobula::get(one, 20s) != 8) return false;
  }
  mobula::get(adding);
  return mobula::get(chain, 20s) == 1'000 && mobula::get(counter.call<&Counter::value>()) == 100;
}

}  // namespace

int main(int argc, char** argv) {
  mobula::test::tag_this_family();
  if (argc > 1 && std::string_view(argv[1]) == "--no-shutdown")
    return end_without_shutdown(argc, argv);
  // Outside of the session of the other cases, since a process has one at a time.
  const std::vector<std::string> first = ids_of_a_session(argc, argv);
  if (first != ids_of_a_session(argc, argv) || alive != 0) {
    std::fprintf(stderr, "two sessions of the same program gave different ids\n");
    return 1;
  }
  if (!tasks_run_beside_each_other(argc, argv)) {
    std::fprintf(stderr, "with local_threads not every task had a thread\n");
    return 1;
  }
  local::what_was_told();
  const int failed = mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .object_store_memory = 256ULL << 20, .local_mode = true});
  return failed != 0 ? failed : local::alive;  // the session's end destroys what was left
}
