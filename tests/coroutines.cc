// Methods that are coroutines, as a user meets them. Built by a compiler that does these right.
#include "support/scenario.h"

#include <chrono>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "mobula/coroutine.h"
#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Async;
using mobula::Ref;
using mobula::remote;
using mobula::test::eventually;
using mobula::test::is_gone;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace coro {

int twice(int x) { return 2 * x; }
void nothing() {}
int at_gate(const std::string& gate, int value) {
  wait_at_gate(gate);
  return value;
}
int fails(const std::string& words) { throw std::invalid_argument(words); }

// How many of them have ended, in whatever way.
struct Ended {
  std::string file;
  ~Ended() { mobula::test::count_in(file); }
};
mobula::Stream<std::string> words(int n, std::string ended) {
  const Ended at_end{ended};
  for (int i = 0; i < n; ++i) co_yield std::string(static_cast<std::size_t>(i % 100), 'w');
  if (n == 3) throw std::invalid_argument("three");
}
struct Numbers {
  int next = 0;
  mobula::Stream<int> some(int n) {
    for (int i = 0; i < n; ++i) co_yield next++;
  }
};

struct Worker {
  std::vector<std::string> seen;
  int inside = 0;

  int count() const { return inside; }
  std::vector<std::string> all() const { return seen; }
  int process() const { return ::getpid(); }

  Async<int> waits_for(Ref<int> ref) {
    ++inside;
    const int value = co_await ref;
    --inside;
    co_return value + 1;
  }
  Async<int> loops(int n) {
    int sum = 0;
    for (int i = 0; i < n; ++i) sum += co_await remote<twice>(i);
    co_return sum;
  }
  Async<void> notes(std::string word) {
    co_await remote<nothing>();
    seen.push_back(word);
  }
  // References and spans stay good until the end.
  Async<long> sums(const std::string& word, std::span<const int> values) {
    co_await mobula::sleep_for(5ms);
    long sum = static_cast<long>(word.size());
    for (const int value : values) sum += value;
    co_return sum;
  }
  Async<int> at_once(int x) { co_return x; }
  Async<int> inner(int depth) {
    if (depth == 0) co_return co_await remote<twice>(1);
    co_return co_await inner(depth - 1) + 1;
  }
  Async<int> catches_inner() {
    try {
      co_await throws_inside();
    } catch (const mobula::TaskError& e) {
      seen.push_back(e.message());
    }
    co_return 1;
  }
  Async<int> throws_inside() { co_return co_await remote<fails>("inside"); }
  Async<int> throws(std::string words) {
    co_await mobula::sleep_for(1ms);
    throw std::out_of_range(words);
  }
  Async<std::string> all_of(std::vector<Ref<int>> refs) {
    const std::vector<int> values = co_await mobula::when_all(refs);
    const auto [a, b, none] =
        co_await mobula::when_all(refs[0], remote<twice>(4), remote<nothing>());
    static_cast<void>(none);
    int sum = 0;
    for (const int value : values) sum += value;
    co_return std::to_string(sum) + " " + std::to_string(a) + " " + std::to_string(b);
  }
  // Also those behind a failure are waited for.
  Async<std::string> all_or_why(std::vector<Ref<int>> refs) {
    try {
      co_await mobula::when_all(refs);
    } catch (const mobula::TaskError& e) {
      co_return e.message();
    }
    co_return "all";
  }
  Async<std::size_t> first_of(std::vector<Ref<int>> refs) {
    const std::size_t first = co_await mobula::when_any(refs);
    const std::size_t again = co_await mobula::when_any(refs[first], refs[0]);
    co_return again == 0 ? first : 1000;
  }
  Async<long> sleeps(int ms) {
    const auto begin = std::chrono::steady_clock::now();
    co_await mobula::sleep_for(std::chrono::milliseconds(ms));
    co_return std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - begin)
        .count();
  }
  Async<std::vector<std::string>> who() {
    std::vector<std::string> ids{mobula::this_task().task_id};
    co_await mobula::sleep_for(1ms);
    ids.push_back(mobula::this_task().task_id);
    co_await remote<twice>(1);
    ids.push_back(mobula::this_task().task_id);
    ids.push_back(mobula::this_task().name);
    co_return ids;
  }
  Async<int> tidies_when_cancelled(Ref<int> ref) {
    ++inside;
    try {
      co_await ref;
    } catch (const mobula::TaskCancelledError&) {
      seen.push_back(mobula::this_task().should_cancel() ? "cancelled" : "?");
    }
    --inside;
    co_return 1;
  }
  Async<int> ping(ActorHandle<Worker> other, ActorHandle<Worker> self, int depth) {
    if (depth == 0) co_return 0;
    co_return co_await other.call<&Worker::ping>(self, other, depth - 1) + 1;
  }
  Async<int> same_thread() {
    const auto thread = std::this_thread::get_id();
    co_await remote<twice>(1);
    co_return std::this_thread::get_id() == thread ? 1 : 0;
  }
};

}  // namespace coro

using coro::Worker;

TEST_CASE("coroutines of an actor interleave where they wait") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto worker = actor<Worker>();
  const Ref<int> value = remote<coro::at_gate>(gate, 41);
  const int calls = scaled(1000, 100);
  std::vector<Ref<int>> refs;
  for (int i = 0; i < calls; ++i) refs.push_back(worker.call<&Worker::waits_for>(value));

  CHECK(mobula::get(worker.call<&Worker::count>(), 20s) == calls);
  CHECK(mobula::get(worker.call<&Worker::loops>(20), 20s) == 380);
  open_gate(gate);

  for (const Ref<int>& ref : refs) REQUIRE(mobula::get(ref, 20s) == 42);
  CHECK(mobula::get(worker.call<&Worker::count>(), 20s) == 0);
}

TEST_CASE("a coroutine gives a value, nothing, or what it threw") {
  const auto worker = actor<Worker>();

  CHECK(mobula::get(worker.call<&Worker::at_once>(3), 20s) == 3);
  mobula::get(worker.call<&Worker::notes>("a word"), 20s);
  CHECK(mobula::get(worker.call<&Worker::all>(), 20s) == std::vector<std::string>{"a word"});
  CHECK_THROWS_WITH_AS(mobula::get(worker.call<&Worker::throws>("why"), 20s),
                       doctest::Contains("why"), mobula::TaskError);
  CHECK(mobula::get(worker.call<&Worker::sums>(std::string(40, 'x'),
                                               mobula::put(std::vector<int>(10'000, 2))),
                    20s) == 20'040);
}

TEST_CASE("coroutines await each other, and errors pass through them") {
  const auto worker = actor<Worker>();

  CHECK(mobula::get(worker.call<&Worker::inner>(50), 20s) == 52);
  CHECK(mobula::get(worker.call<&Worker::catches_inner>(), 20s) == 1);
  CHECK(mobula::get(worker.call<&Worker::all>(), 20s) == std::vector<std::string>{"inside"});
  const auto other = actor<Worker>();
  CHECK(mobula::get(worker.call<&Worker::ping>(other, worker, 40), 20s) == 40);
}

TEST_CASE("a coroutine waits for all, for any, and for a time") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto worker = actor<Worker>();
  const std::vector<Ref<int>> refs{remote<coro::at_gate>(gate, 1), remote<coro::twice>(5),
                                   mobula::put(7)};

  const Ref<std::string> all = worker.call<&Worker::all_of>(refs);
  const std::size_t first = mobula::get(worker.call<&Worker::first_of>(refs), 20s);
  CHECK((first == 1 || first == 2));
  CHECK(mobula::get(worker.call<&Worker::sleeps>(30), 20s) >= 30);
  CHECK_THROWS_AS(mobula::get(all, 0s), mobula::GetTimeoutError);
  open_gate(gate);
  CHECK(mobula::get(all, 20s) == "18 1 8");
  CHECK_THROWS_AS(mobula::get(worker.call<&Worker::first_of>(std::vector<Ref<int>>()), 20s),
                  mobula::TaskError);
  CHECK_THROWS_AS(mobula::get(worker.call<&Worker::sleeps>(-1), 20s), mobula::TaskError);
}

TEST_CASE("a coroutine that waits for all gets the first failure, for any also a failed one") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto worker = actor<Worker>();
  const std::vector<Ref<int>> refs{remote<coro::twice>(1), remote<coro::fails>("the first"),
                                   remote<coro::fails>("the second"),
                                   remote<coro::at_gate>(gate, 1)};
  mobula::wait(std::vector{refs[1], refs[2]}, {.num_returns = 2, .timeout = 20s});

  const Ref<std::string> why = worker.call<&Worker::all_or_why>(refs);
  const auto any = worker.call<&Worker::first_of>(std::vector{refs[3], refs[2]});
  CHECK(mobula::get(any, 20s) == 1);
  CHECK_THROWS_AS(mobula::get(why, 50ms), mobula::GetTimeoutError);
  open_gate(gate);

  CHECK(mobula::get(why, 20s) == "the first");
  CHECK_THROWS_AS(mobula::get(worker.call<&Worker::all_or_why>(std::vector{Ref<int>()}), 20s),
                  mobula::TaskError);
}

TEST_CASE("a cancelled coroutine is told where it waits") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto worker = actor<Worker>();
  const Ref<int> never = remote<coro::at_gate>(gate, 1);
  const Ref<int> tidy = worker.call<&Worker::tidies_when_cancelled>(never);
  const Ref<int> plain = worker.call<&Worker::waits_for>(never);
  CHECK(mobula::get(worker.call<&Worker::count>(), 20s) == 2);

  CHECK(mobula::cancel(tidy));
  CHECK(mobula::cancel(plain));

  CHECK_THROWS_AS(mobula::get(tidy, 20s), mobula::TaskCancelledError);
  CHECK_THROWS_AS(mobula::get(plain, 20s), mobula::TaskCancelledError);
  CHECK(mobula::get(worker.call<&Worker::all>(), 20s) == std::vector<std::string>{"cancelled"});
  open_gate(gate);
  mobula::get(never, 20s);
  CHECK(mobula::get(worker.call<&Worker::loops>(5), 20s) == 20);  // the late wake-ups do no harm
}

TEST_CASE("this_task is the call in all parts of a coroutine, and one thread runs them") {
  const auto worker = actor<Worker>();
  const auto threaded = actor<Worker>.with({.max_concurrency = 3})();

  const auto who = mobula::get(worker.call<&Worker::who>(), 20s);

  CHECK(who[0] == who[1]);
  CHECK(who[0] == who[2]);
  CHECK(who[3].find("who") != std::string::npos);
  CHECK(mobula::get(worker.call<&Worker::same_thread>(), 20s) == 1);
  CHECK(mobula::get(threaded.call<&Worker::same_thread>(), 20s) == 1);
  CHECK(mobula::get(threaded.call<&Worker::inner>(10), 20s) == 12);
}

TEST_CASE("an actor with coroutines under way ends when they have, or dies with them") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<int> value = remote<coro::at_gate>(gate, 1);
  Ref<int> last;
  int pid = 0;
  {
    const auto worker = actor<Worker>();
    pid = mobula::get(worker.call<&Worker::process>(), 20s);
    last = worker.call<&Worker::waits_for>(value);
  }
  const auto mortal = actor<Worker>();
  const Ref<int> lost = mortal.call<&Worker::waits_for>(value);
  CHECK(mobula::get(mortal.call<&Worker::count>(), 20s) == 1);

  mobula::kill(mortal);
  CHECK_THROWS_AS(mobula::get(lost, 20s), mobula::ActorDiedError);
  CHECK(!is_gone(pid));
  open_gate(gate);

  CHECK(mobula::get(last, 20s) == 2);
  CHECK(eventually(10s, [&] { return is_gone(pid); }));
}

TEST_CASE("a producer that is a coroutine yields the items of its stream") {
  const Scratch scratch;
  const std::string ended = (scratch.path() / "ended").string();
  const auto times = [&] {
    std::error_code none;
    const auto size = std::filesystem::file_size(ended, none);
    return none ? 0 : size;
  };

  mobula::StreamRef<std::string> all = remote<coro::words>(2000, ended);
  for (std::size_t i = 0; i < 2000; ++i) REQUIRE(all.next(20s) == std::string(i % 100, 'w'));
  CHECK_FALSE(all.next(20s));
  CHECK(times() == 1);

  mobula::StreamRef<std::string> fails = remote<coro::words>(3, ended);
  for (int i = 0; i < 3; ++i) CHECK(fails.next(20s));
  CHECK_THROWS_WITH_AS(fails.next(20s), doctest::Contains("three"), mobula::TaskError);
  CHECK(times() == 2);

  mobula::StreamRef<std::string> stopped = remote<coro::words>.with({.max_unread = 4})(999, ended);
  CHECK(stopped.next(20s));
  stopped.stop();
  CHECK(eventually(10s, [&] { return times() == 3; }));  // what it holds is destroyed

  const auto numbers = actor<coro::Numbers>();
  auto first = numbers.call<&coro::Numbers::some>(2);
  auto second = numbers.call<&coro::Numbers::some>(1);
  CHECK(first.next(20s) == 0);
  CHECK(first.next(20s) == 1);
  CHECK_FALSE(first.next(20s));
  CHECK(second.next(20s) == 2);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2, .object_store_memory = 256ULL << 20});
}
