// How actors run their calls: answered later, by other threads, by what comes in between, beside
// each other.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Ref;
using mobula::remote;
using mobula::Reply;
using mobula::Result;
using mobula::test::eventually;
using mobula::test::is_gone;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace exec {

int twice(int x) { return 2 * x; }
int at_gate(const std::string& gate, int value) {
  wait_at_gate(gate);
  return value;
}
int fails(const std::string& words) { throw std::invalid_argument(words); }

// Calls wait here until somebody knows.
struct Board {
  std::map<int, std::vector<Reply<int>>> waiting;
  std::map<int, Ref<int>> refs;
  std::vector<std::thread> threads;
  std::vector<std::string> seen;
  Reply<std::string> kept;
  ~Board() {
    for (std::thread& thread : threads) thread.join();
  }

  int process() const { return ::getpid(); }
  int open() const {
    int all = 0;
    for (const auto& [key, replies] : waiting) all += static_cast<int>(replies.size());
    return all;
  }
  void ask(Reply<int> reply, int key) { waiting[key].push_back(std::move(reply)); }
  int tell(int key, int value) {
    std::vector<Reply<int>> replies = std::move(waiting[key]);
    waiting.erase(key);
    for (Reply<int>& reply : replies) reply.set(value);
    return static_cast<int>(replies.size());
  }
  void at_once(Reply<int> reply, int value) { reply.set(value); }
  // Answers in time, and then is at work beyond its deadline.
  void answers_and_goes_on(Reply<int> reply, const std::string& gate, int value) {
    reply.set(value);
    wait_at_gate(gate);
    seen.push_back(mobula::this_task().should_cancel() ? "cancelled" : "goes on");
  }
  void early(Reply<std::string> reply, const std::string& text) {
    reply.set(text);
    const mobula::TaskInfo me = mobula::this_task();
    seen.push_back(me.name);
    std::this_thread::sleep_for(1ms);
    if (me.should_cancel()) seen.push_back("cancelled");
  }
  std::vector<std::string> all_seen() const { return seen; }
  void by_thread(Reply<std::vector<int>> reply, int n) {
    threads.emplace_back([reply = std::move(reply), n]() mutable {
      std::vector<int> values(static_cast<std::size_t>(n));
      std::iota(values.begin(), values.end(), 0);
      reply.set(values);
    });
  }
  void nothing(Reply<void> reply) { reply.set(); }
  void refs_inside(Reply<std::vector<Ref<int>>> reply, int n) {
    std::vector<Ref<int>> made;
    for (int i = 0; i < n; ++i) made.push_back(remote<twice>(i));
    reply.set(made);
  }
  void sum_in_place(Reply<long> reply, std::span<const int> values) {
    threads.emplace_back([reply = std::move(reply), values]() mutable {
      std::this_thread::sleep_for(5ms);
      reply.set(std::accumulate(values.begin(), values.end(), 0L));
    });
  }

  void drops(Reply<int>) {}
  void drops_later(Reply<int> reply) {
    threads.emplace_back([reply = std::move(reply)] { std::this_thread::sleep_for(2ms); });
  }
  void refuses(Reply<int> reply, const std::string& words) { reply.fail(std::out_of_range(words)); }
  void throws(Reply<int> reply) {
    static_cast<void>(reply);
    throw std::domain_error("not here");
  }
  void throws_after_passing_on(Reply<int> reply, int key) {
    ask(std::move(reply), key);
    throw std::domain_error("too late to ask");
  }
  std::string answers_twice(int key) {
    Reply<int> reply = std::move(waiting[key].front());
    waiting.erase(key);
    reply.set(1);
    try {
      reply.set(2);
    } catch (const mobula::Error& e) {
      return e.what();
    }
    return "";
  }
  bool is_cancelled(int key) { return waiting[key].front().cancelled(); }
  void listens(Reply<int> reply, int key) {
    ask(std::move(reply), key);
    waiting[key].front().on_cancel([this, key] {
      seen.push_back("hook");
      tell(key, -1);
    });
  }

  // Asks another one, and answers when that has answered.
  void forwards(Reply<int> reply, const ActorHandle<Board>& other, int key) {
    mobula::then(other.call<&Board::ask>(key),
                 [reply = std::move(reply)](Result<int> value) mutable {
                   if (value) {
                     reply.set(*value + 1);
                   } else {
                     reply.fail(value.exception());
                   }
                 });
  }
  // Two calls of one another that would block each other if they waited.
  void ping(Reply<int> reply, const ActorHandle<Board>& other, const ActorHandle<Board>& self,
            int depth) {
    if (depth == 0) return reply.set(0);
    mobula::then(
        other.call<&Board::ping>(self, other, depth - 1),
        [reply = std::move(reply)](Result<int> below) mutable { reply.set(below.value() + 1); });
  }
  void note_when_ready(Ref<int> ref) {
    mobula::then(ref, [this, thread = std::this_thread::get_id()](Result<int> value) {
      seen.push_back(value ? std::to_string(*value) : value.error().what());
      if (std::this_thread::get_id() != thread) seen.push_back("on another thread");
    });
  }
  void after(Reply<std::string> reply) {
    mobula::call_after(20ms, [this] { seen.push_back("later"); });
    mobula::call_after(0ms, [this] { seen.push_back("soon"); });
    mobula::call_after(40ms, [this, reply = std::move(reply)]() mutable {
      std::string all;
      for (const std::string& word : seen) all += word + " ";
      reply.set(all);
    });
  }
  void throws_in_callback(Reply<int> reply, Ref<int> ref) {
    mobula::then(ref, [](Result<int>) { throw std::runtime_error("of a callback"); });
    mobula::then(
        ref, [reply = std::move(reply)](Result<int> value) mutable { reply.set(value.value()); });
  }
};

// Several threads run its calls: what they share is guarded.
struct Hall {
  std::mutex mutex;
  std::vector<int> order;
  std::set<std::thread::id> threads;
  int inside = 0;
  int most_inside = 0;

  int process() const { return ::getpid(); }
  int passes(const std::string& gate, int k) {
    {
      const std::lock_guard lock(mutex);
      most_inside = std::max(most_inside, ++inside);
      threads.insert(std::this_thread::get_id());
    }
    wait_at_gate(gate);
    const std::lock_guard lock(mutex);
    --inside;
    return k;
  }
  int notes(int k) {
    const std::lock_guard lock(mutex);
    order.push_back(k);
    return k;
  }
  // Submits, waits and asks who it is, like any task.
  int works(int k) {
    const mobula::TaskInfo me = mobula::this_task();
    const int value = mobula::get(remote<twice>(k));
    return me.name.find("works") != std::string::npos && !me.actor_id.empty() ? value : -1;
  }
  int asks_itself(const ActorHandle<Hall>& self, int k) {
    return mobula::get(self.call<&Hall::works>(k));
  }
  void later(Reply<int> reply, const Ref<int>& ref) {
    mobula::then(
        ref, [reply = std::move(reply)](Result<int> value) mutable { reply.set(value.value()); });
  }
  int entered() {
    const std::lock_guard lock(mutex);
    return inside;
  }
  int most() {
    const std::lock_guard lock(mutex);
    return most_inside;
  }
  int threads_seen() {
    const std::lock_guard lock(mutex);
    return static_cast<int>(threads.size());
  }
  std::vector<int> all() {
    const std::lock_guard lock(mutex);
    return order;
  }
};

int then_in_a_task(int n) {
  std::atomic<int> sum{0};
  std::atomic<int> ran{0};
  for (int i = 0; i < n; ++i) {
    mobula::then(remote<twice>(i), [&](Result<int> value) {
      sum += *value;
      ++ran;
    });
  }
  eventually(20s, [&] { return ran == n; });
  return sum;
}

}  // namespace exec

using exec::Board;
using exec::Hall;

TEST_CASE("a call is answered when its Reply is, by a later call") {
  const auto board = actor<Board>();
  const Ref<int> first = board.call<&Board::ask>(1);
  const Ref<int> second = board.call<&Board::ask>(1);
  const Ref<int> other = board.call<&Board::ask>(2);
  CHECK(mobula::get(board.call<&Board::open>(), 20s) == 3);
  CHECK_THROWS_AS(mobula::get(first, 0s), mobula::GetTimeoutError);

  CHECK(mobula::get(board.call<&Board::tell>(1, 11), 20s) == 2);

  CHECK(mobula::get(first, 20s) == 11);
  CHECK(mobula::get(second, 20s) == 11);
  CHECK(mobula::wait(std::vector{other}, {.timeout = 0s}).ready.empty());
  mobula::get(board.call<&Board::tell>(2, 22), 20s);
  CHECK(mobula::get(other, 20s) == 22);
}

TEST_CASE("a Reply takes whatever a method could have returned, from any thread") {
  const auto board = actor<Board>();

  const auto at_once = board.call<&Board::at_once>(3);
  const auto large = board.call<&Board::by_thread>(100'000);
  const auto refs = board.call<&Board::refs_inside>(20);
  const auto in_place = board.call<&Board::sum_in_place>(mobula::put(std::vector<int>(50'000, 2)));

  CHECK(mobula::get(at_once, 20s) == 3);
  CHECK(mobula::get(large, 20s)[99'999] == 99'999);
  const std::vector<Ref<int>> inside = mobula::get(refs, 20s);
  for (int i = 0; i < 20; ++i)
    CHECK(mobula::get(inside[static_cast<std::size_t>(i)], 20s) == 2 * i);
  CHECK(mobula::get(in_place, 20s) == 100'000);
  CHECK_NOTHROW(mobula::get(board.call<&Board::nothing>(), 20s));
}

TEST_CASE("a method that has answered goes on and is still told who it is") {
  const auto board = actor<Board>();
  for (int i = 0; i < scaled(300, 50); ++i) {
    const std::string text = std::string(static_cast<std::size_t>(i), 'x');
    REQUIRE(mobula::get(board.call<&Board::early>(text), 20s) == text);
  }

  const auto seen = mobula::get(board.call<&Board::all_seen>(), 20s);

  for (const std::string& name : seen) REQUIRE(name.find("early") != std::string::npos);
  mobula::get(board.with({.name = "step 7"}).call<&Board::early>(""), 20s);
  CHECK(mobula::get(board.call<&Board::all_seen>(), 20s).back() == "step 7");
}

TEST_CASE("an answer that came in time stands, and the method's deadline is nobody else's") {
  Scratch scratch;
  const auto board = actor<Board>();
  mobula::get(board.ready());

  const Ref<int> answered =
      board.with({.deadline = 200ms}).call<&Board::answers_and_goes_on>(scratch.file("gate"), 21);
  CHECK(mobula::get(answered, 20s) == 21);
  std::this_thread::sleep_for(250ms);
  open_gate(scratch.file("gate"));

  CHECK(mobula::get(board.call<&Board::all_seen>(), 20s) == std::vector<std::string>{"goes on"});
  CHECK_FALSE(mobula::cancel(answered));
  CHECK(mobula::get(answered) == 21);
}

TEST_CASE("an answer may be an error, and none is one, too") {
  const auto board = actor<Board>();
  const auto words_of = [](const Ref<int>& ref) -> std::string {
    try {
      mobula::get(ref, 20s);
    } catch (const mobula::TaskError& e) {
      return e.type_name() + ": " + e.message() + " in " + e.task_name();
    }
    return "";
  };
  const auto has = [](const std::string& text, const char* words) {
    INFO(text);
    return text.find(words) != std::string::npos;
  };

  CHECK(has(words_of(board.call<&Board::refuses>("why")), "std::out_of_range: why in "));
  CHECK(has(words_of(board.call<&Board::throws>()), "std::domain_error: not here in "));
  CHECK(has(words_of(board.call<&Board::throws_after_passing_on>(5)), "too late to ask"));
  CHECK(has(words_of(board.call<&Board::drops>()), "Reply was dropped without an answer"));
  CHECK(has(words_of(board.call<&Board::drops_later>()), "Reply was dropped without an answer"));
  CHECK(mobula::get(board.call<&Board::tell>(5, 1), 20s) == 1);  // nobody's answer: ignored
  const Ref<int> once = board.call<&Board::ask>(6);
  CHECK(has(mobula::get(board.call<&Board::answers_twice>(6), 20s), "a call is answered once"));
  CHECK(mobula::get(once, 20s) == 1);
}

TEST_CASE("ten thousand calls wait in one actor for their answers") {
  const int calls = scaled(10'000, 1'000);
  const auto board = actor<Board>();
  std::vector<Ref<int>> refs;
  for (int i = 0; i < calls; ++i) refs.push_back(board.call<&Board::ask>(i % 10));
  CHECK(mobula::get(board.call<&Board::open>(), 60s) == calls);

  for (int key = 0; key < 10; ++key)
    CHECK(mobula::get(board.call<&Board::tell>(key, key), 20s) == calls / 10);

  for (int i = 0; i < calls; ++i)
    REQUIRE(mobula::get(refs[static_cast<std::size_t>(i)], 20s) == i % 10);
}

TEST_CASE("a call that waits for its answer can be cancelled, and its actor is told") {
  const auto board = actor<Board>();
  const Ref<int> silent = board.call<&Board::ask>(1);
  const Ref<int> listening = board.call<&Board::listens>(2);
  CHECK(mobula::get(board.call<&Board::open>(), 20s) == 2);
  CHECK(!mobula::get(board.call<&Board::is_cancelled>(1), 20s));

  CHECK(mobula::cancel(silent));
  CHECK(mobula::cancel(listening));

  CHECK_THROWS_AS(mobula::get(listening, 20s), mobula::TaskCancelledError);  // the hook answered
  CHECK(mobula::get(board.call<&Board::all_seen>(), 20s) == std::vector<std::string>{"hook"});
  CHECK(mobula::get(board.call<&Board::is_cancelled>(1), 20s));
  CHECK_THROWS_AS(mobula::get(silent, 0s), mobula::GetTimeoutError);  // it decides when
  mobula::get(board.call<&Board::tell>(1, 7), 20s);
  CHECK_THROWS_AS(mobula::get(silent, 20s), mobula::TaskCancelledError);
}

TEST_CASE("an actor stays until all its calls are answered, though nobody has its handle") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  Ref<int> answer;
  int pid = 0;
  {
    const auto first = actor<Board>();
    const auto second = actor<Board>();
    pid = mobula::get(first.call<&Board::process>(), 20s);
    answer = first.call<&Board::forwards>(second, 1);
    const Ref<int> value = remote<exec::at_gate>(gate, 41);
    mobula::then(value, [second](Result<int> v) { second.call<&Board::tell>(1, *v); });
    CHECK(eventually(20s, [&] { return mobula::get(second.call<&Board::open>(), 20s) == 1; }));
  }
  std::this_thread::sleep_for(50ms);
  CHECK(!is_gone(pid));

  open_gate(gate);

  CHECK(mobula::get(answer, 20s) == 42);
  CHECK(eventually(10s, [&] { return is_gone(pid); }));
}

TEST_CASE(
    "calls that wait for their answer fail with their actor, or are repeated in their order") {
  const auto mortal = actor<Board>();
  const auto restarted = actor<Board>.with({.max_restarts = 1})();
  const auto repeated = actor<Board>.with({.max_restarts = 1, .max_task_retries = 1})();
  const int calls = scaled(700, 300);  // more than the first stage of a ring
  std::vector<Ref<int>> lost;
  std::vector<Ref<int>> unavailable;
  std::vector<Ref<int>> again;
  for (int i = 0; i < calls; ++i) {
    lost.push_back(mortal.call<&Board::ask>(1));
    unavailable.push_back(restarted.call<&Board::ask>(1));
    again.push_back(repeated.call<&Board::ask>(i));
  }

  for (const auto& board : {mortal, restarted, repeated}) {
    CHECK(mobula::get(board.call<&Board::open>(), 20s) == calls);
    ::kill(mobula::get(board.call<&Board::process>(), 20s), SIGKILL);
  }

  for (const Ref<int>& ref : lost) CHECK_THROWS_AS(mobula::get(ref, 20s), mobula::ActorDiedError);
  for (const Ref<int>& ref : unavailable)
    CHECK_THROWS_AS(mobula::get(ref, 20s), mobula::ActorUnavailableError);
  CHECK(mobula::get(repeated.call<&Board::open>(), 20s) == calls);
  for (int i = 0; i < calls; ++i) CHECK(mobula::get(repeated.call<&Board::tell>(i, i), 20s) == 1);
  for (int i = 0; i < calls; ++i) CHECK(mobula::get(again[static_cast<std::size_t>(i)], 20s) == i);
}

TEST_CASE("actors that answer each other's calls later do not wait for each other") {
  const auto a = actor<Board>();
  const auto b = actor<Board>();

  CHECK(mobula::get(a.call<&Board::ping>(b, a, 60), 20s) == 60);
  CHECK(mobula::get(a.call<&Board::ping>(a, a, 20), 20s) == 20);  // itself, too
}

TEST_CASE("then runs on the actor's own thread, for values and for errors, soon or later") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto board = actor<Board>();
  const Ref<int> later = remote<exec::at_gate>(gate, 5);
  const Ref<int> now = mobula::put(3);
  const std::vector<Ref<int>> refs{later, now, remote<exec::fails>("no value")};

  for (const Ref<int>& ref : refs) mobula::get(board.call<&Board::note_when_ready>(ref), 20s);
  const auto seen = [&] { return mobula::get(board.call<&Board::all_seen>(), 20s); };
  CHECK(eventually(20s, [&] { return seen().size() == 2; }));
  open_gate(gate);
  CHECK(eventually(20s, [&] { return seen().size() == 3; }));

  CHECK(seen().back() == "5");
  CHECK(mobula::get(board.call<&Board::throws_in_callback>(now), 20s) == 3);
  const std::string words = mobula::get(board.call<&Board::after>(), 20s);
  CHECK(words.find("soon later ") != std::string::npos);
  CHECK(words.find("another thread") == std::string::npos);
}

TEST_CASE("then in a driver or task runs on one thread of the library") {
  const int n = scaled(1000, 100);
  std::mutex mutex;
  std::vector<int> values;
  std::vector<std::thread::id> threads;
  for (int i = 0; i < n; ++i) {
    mobula::then(remote<exec::twice>(i), [&](Result<int> value) {
      const std::lock_guard lock(mutex);
      values.push_back(*value);
      threads.push_back(std::this_thread::get_id());
    });
  }

  const auto all_ran = [&] {
    const std::lock_guard lock(mutex);
    return values.size() == static_cast<std::size_t>(n);
  };
  CHECK(eventually(20s, all_ran));
  CHECK(std::accumulate(values.begin(), values.end(), 0) == n * (n - 1));
  for (const std::thread::id thread : threads) {
    REQUIRE(thread == threads[0]);
    REQUIRE(thread != std::this_thread::get_id());
  }
  CHECK(mobula::get(remote<exec::then_in_a_task>(100), 30s) == 9900);
  std::atomic<bool> ran{false};
  mobula::call_after(5ms, [&] { ran = true; });
  CHECK(eventually(20s, [&] { return ran.load(); }));
  CHECK_THROWS_AS(mobula::call_after(-1ms, [] {}), mobula::Error);
  CHECK_THROWS_AS(mobula::then(Ref<int>(), [](Result<int>) {}), mobula::Error);
}

TEST_CASE("what waits for a ref dies with its process, and nothing of it is left") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<int> value = remote<exec::at_gate>(gate, 5);
  {
    const auto board = actor<Board>.with({.max_restarts = 1})();
    for (int i = 0; i < 20; ++i) mobula::get(board.call<&Board::note_when_ready>(value), 20s);
    ::kill(mobula::get(board.call<&Board::process>(), 20s), SIGKILL);
    CHECK(eventually(20s, [&] {
      const auto seen = mobula::try_get(board.call<&Board::all_seen>(), 20s);
      return seen.has_value() && seen->empty();
    }));
    open_gate(gate);
    mobula::get(value, 20s);
    CHECK(mobula::get(board.call<&Board::all_seen>(), 20s).empty());
  }
  CHECK(eventually(10s, [] {
    const auto records = mobula::memory_report().records;
    return records.waiting + records.ready + records.running == 0;
  }));
}

TEST_CASE("max_concurrency calls of an actor run beside each other, and no more") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto hall = actor<Hall>.with({.max_concurrency = 3, .concurrency_groups = {{"look", 1}}})();
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 10; ++i) refs.push_back(hall.call<&Hall::passes>(gate, i));
  const auto looking = hall.with({.concurrency_group = "look"});

  CHECK(eventually(20s, [&] { return mobula::get(looking.call<&Hall::entered>(), 20s) == 3; }));
  open_gate(gate);

  for (int i = 0; i < 10; ++i) CHECK(mobula::get(refs[static_cast<std::size_t>(i)], 20s) == i);
  CHECK(mobula::get(hall.call<&Hall::most>(), 20s) == 3);
  CHECK(mobula::get(hall.call<&Hall::threads_seen>(), 20s) == 3);
}

TEST_CASE("calls of one group run in their caller's order, and do not wait for another group") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto hall = actor<Hall>.with({.concurrency_groups = {{"io", 1}, {"compute", 2}}})();
  const auto io = hall.with({.concurrency_group = "io"});
  const Ref<int> blocks = hall.call<&Hall::passes>(gate, 1);
  for (int i = 0; i < 500; ++i) hall.call<&Hall::notes>(-1);  // behind it

  for (int i = 0; i < 500; ++i) io.call<&Hall::notes>(i);

  std::vector<int> expected(500);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(mobula::get(io.call<&Hall::all>(), 20s) == expected);
  open_gate(gate);
  CHECK(mobula::get(blocks, 20s) == 1);
  CHECK(mobula::get(hall.call<&Hall::all>(), 20s).size() == 1000);
}

TEST_CASE("the order of calls holds when they have waited for a restart") {
  const int calls = 200;
  std::vector<int> expected(calls);
  std::iota(expected.begin(), expected.end(), 0);
  const auto hall = actor<Hall>.with({.max_restarts = 3, .concurrency_groups = {{"io", 1}}})();
  const auto io = hall.with({.concurrency_group = "io"});
  for (int life = 0; life < 3; ++life) {
    // These stop at another place of the ring's storage in each life.
    for (int i = 0; i < 100 + 50 * life; ++i)
      CHECK(mobula::get(io.call<&Hall::notes>(i), 20s) == i);

    const int pid = mobula::get(io.call<&Hall::process>(), 20s);
    ::kill(pid, SIGKILL);
    CHECK(eventually(10s, [&] { return is_gone(pid); }));
    for (int i = 0; i < calls; ++i) io.call<&Hall::notes>(i);

    CHECK(mobula::get(io.call<&Hall::all>(), 20s) == expected);
  }
}

TEST_CASE("calls in all threads of an actor submit, wait, answer later, and know who they are") {
  const auto hall = actor<Hall>.with({.max_concurrency = 4})();
  const int n = scaled(500, 60);
  std::vector<Ref<int>> refs;
  for (int i = 0; i < n; ++i) {
    refs.push_back(hall.call<&Hall::works>(i));
    refs.push_back(hall.call<&Hall::later>(remote<exec::twice>(i)));
  }

  for (int i = 0; i < 2 * n; ++i)
    REQUIRE(mobula::get(refs[static_cast<std::size_t>(i)], 30s) == i / 2 * 2);
  CHECK(mobula::get(hall.call<&Hall::asks_itself>(hall, 4), 20s) == 8);
}

TEST_CASE("out of order, a call that waits for its argument holds back nobody") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  for (const int threads : {1, 2}) {
    const auto hall =
        actor<Hall>.with({.max_concurrency = threads, .allow_out_of_order_execution = true})();
    const Ref<int> argument = remote<exec::at_gate>(gate + std::to_string(threads), 7);
    const Ref<int> waits = hall.call<&Hall::notes>(argument);

    const Ref<int> passes = hall.call<&Hall::notes>(1);

    CHECK(mobula::get(passes, 20s) == 1);
    open_gate(gate + std::to_string(threads));
    CHECK(mobula::get(waits, 20s) == 7);
    CHECK(mobula::get(hall.call<&Hall::all>(), 20s) == std::vector<int>{1, 7});
  }
}

TEST_CASE("a call that no thread has begun is cancelled, killed and restarted like a queued one") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto hall = actor<Hall>.with(
      {.max_restarts = 1, .max_concurrency = 2, .concurrency_groups = {{"look", 1}}})();
  const auto looking = hall.with({.concurrency_group = "look"});
  const std::vector<Ref<int>> running{hall.call<&Hall::passes>(gate, 1),
                                      hall.call<&Hall::passes>(gate, 2)};
  std::vector<Ref<int>> queued;
  for (int i = 0; i < 100; ++i) queued.push_back(hall.call<&Hall::notes>(i));
  CHECK(eventually(20s, [&] { return mobula::get(looking.call<&Hall::entered>(), 20s) == 2; }));

  CHECK(mobula::cancel(queued[0]));
  CHECK_THROWS_AS(mobula::get(queued[0], 1s), mobula::TaskCancelledError);  // while others run
  ::kill(mobula::get(looking.call<&Hall::process>(), 20s), SIGKILL);

  for (const Ref<int>& ref : running)
    CHECK_THROWS_AS(mobula::get(ref, 20s), mobula::ActorUnavailableError);
  for (int i = 1; i < 100; ++i) CHECK(mobula::get(queued[static_cast<std::size_t>(i)], 20s) == i);
  const std::string other = scratch.file("other");
  const Ref<int> blocked[] = {hall.call<&Hall::passes>(other, 1),
                              hall.call<&Hall::passes>(other, 2)};
  const Ref<int> never = hall.call<&Hall::notes>(1000);
  CHECK(eventually(20s, [&] { return mobula::get(looking.call<&Hall::entered>(), 20s) == 2; }));
  mobula::kill(hall);
  for (const Ref<int>& ref : blocked)
    CHECK_THROWS_AS(mobula::get(ref, 20s), mobula::ActorDiedError);
  CHECK_THROWS_AS(mobula::get(never, 20s), mobula::ActorDiedError);
}

TEST_CASE("an actor of several threads ends with its last handle, when its calls are done") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  int pid = 0;
  Ref<int> last;
  {
    const auto hall = actor<Hall>.with({.max_concurrency = 2})();
    pid = mobula::get(hall.call<&Hall::process>(), 20s);
    last = hall.call<&Hall::passes>(gate, 3);
  }
  std::this_thread::sleep_for(30ms);
  CHECK(!is_gone(pid));

  open_gate(gate);

  CHECK(mobula::get(last, 20s) == 3);
  CHECK(eventually(10s, [&] { return is_gone(pid); }));
}

TEST_CASE("numbers of threads and names of groups that make no sense are refused at the call") {
  const auto refused = [](mobula::ActorOptions options) {
    CHECK_THROWS_AS(actor<Hall>.with(std::move(options))(), mobula::Error);
  };
  refused({.max_concurrency = 0});
  refused({.max_concurrency = 1001});
  refused({.concurrency_groups = {{"", 1}}});
  refused({.concurrency_groups = {{"io", 0}}});
  refused({.concurrency_groups = {{"a=b", 1}}});
  refused({.concurrency_groups = {{std::string(300, 'x'), 1}}});
  const auto hall = actor<Hall>.with({.concurrency_groups = {{"io", 1}}})();
  CHECK_THROWS_AS(hall.with({.concurrency_group = "oi"}).call<&Hall::most>(), mobula::Error);
  CHECK_THROWS_AS(actor<Hall>().with({.concurrency_group = "io"}).call<&Hall::most>(),
                  mobula::Error);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2, .object_store_memory = 256ULL << 20});
}
