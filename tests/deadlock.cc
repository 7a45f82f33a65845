// Actors that wait for themselves round some corners get an error instead of waiting for ever; and
// whoever merely waits long does not.
#include "support/scenario.h"

#include <string>
#include <thread>
#include <vector>

#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorDeadlockError;
using mobula::ActorHandle;
using mobula::Ref;
using mobula::remote;
using mobula::test::Clock;
using mobula::test::open_gate;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;

namespace {

constexpr auto kLong = 20s;

int twice(int x) { return 2 * x; }
int slow(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  return ms;
}
int gated(const std::string& gate) {
  wait_at_gate(gate);
  return 3;
}

struct Clerk;
int asks(const ActorHandle<Clerk>& clerk);

struct Clerk {
  ActorHandle<Clerk> self;
  ActorHandle<Clerk> other;

  void know(const ActorHandle<Clerk>& me, const ActorHandle<Clerk>& them) {
    self = me;
    other = them;
  }
  int one() { return 1; }
  int total() { return mobula::get(self.call<&Clerk::one>()) + 1; }
  int by_other() { return mobula::get(other.call<&Clerk::asks_back>()); }
  int asks_back() { return mobula::get(other.call<&Clerk::one>()); }
  int round(int hops) {
    return hops == 0 ? 0 : mobula::get(other.call<&Clerk::round>(hops - 1)) + 1;
  }
  int by_task() { return mobula::get(remote<asks>(self)); }
  int by_argument() { return mobula::get(remote<twice>(self.call<&Clerk::one>())); }
  int by_held_call() {
    // What the other one is asked for second can run only after the first, which needs us.
    other.call<&Clerk::take>(self.call<&Clerk::one>());
    return mobula::get(other.call<&Clerk::one>());
  }
  int take(int x) { return x; }
  int either_of_two() {
    const std::vector<Ref<int>> calls{self.call<&Clerk::one>(), self.call<&Clerk::one>()};
    return static_cast<int>(mobula::wait(calls).ready.size());
  }
  int self_or_task(int ms) {
    const std::vector<Ref<int>> calls{self.call<&Clerk::one>(), remote<slow>(ms)};
    return static_cast<int>(mobula::wait(calls).ready.size());
  }
  int both(int ms) {
    const std::vector<Ref<int>> calls{self.call<&Clerk::one>(), remote<slow>(ms)};
    return static_cast<int>(mobula::wait(calls, {.num_returns = 2}).ready.size());
  }
  int with_timeout() {
    try {
      return mobula::get(self.call<&Clerk::one>(), 300ms);
    } catch (const mobula::GetTimeoutError&) {
      return -1;
    }
  }
  int forgives() {
    try {
      return total();
    } catch (const ActorDeadlockError&) {
      return -1;
    }
  }
  int waits_for(const std::vector<Ref<int>>& refs) { return mobula::get(refs[0]); }

  static int sum_of(mobula::StreamRef<int> items) {
    int sum = 0;
    for (const int item : items) sum += item;
    return sum;
  }
  void counts(mobula::Sink<int>& out, int n) {
    for (int i = 0; i < n; ++i) out.push(i);
  }
  // Asks somebody for each of its items.
  void asks_for_each(mobula::Sink<int>& out, int n) {
    for (int i = 0; i < n; ++i) out.push(mobula::get(other.call<&Clerk::one>()));
  }
  int reads_own() { return sum_of(self.call<&Clerk::counts>(3)); }
  int reads_who_asks_back() { return sum_of(other.call<&Clerk::asks_for_each>(3)); }
  int reads_a_task_that_asks_back() { return sum_of(remote<asks_as_stream>(self)); }
  static void asks_as_stream(mobula::Sink<int>& out, const ActorHandle<Clerk>& clerk) {
    out.push(5);
    out.push(mobula::get(clerk.call<&Clerk::one>()));
  }
  int reads(mobula::StreamRef<int> items) { return sum_of(items); }
  int reads_with_patience(mobula::StreamRef<int> items) {
    while (!items.try_next(300ms)) {
    }
    return 1;
  }
};
void slow_items(mobula::Sink<int>& out, const ActorHandle<Clerk>& clerk, int n) {
  for (int i = 0; i < n; ++i) {
    std::this_thread::sleep_for(20ms);
    out.push(mobula::get(clerk.call<&Clerk::one>()));
  }
}

int asks(const ActorHandle<Clerk>& clerk) { return mobula::get(clerk.call<&Clerk::one>()); }

// Clerks that each know the next one, the last the first.
std::vector<ActorHandle<Clerk>> circle_of(int n) {
  std::vector<ActorHandle<Clerk>> clerks;
  for (int i = 0; i < n; ++i) clerks.push_back(actor<Clerk>());
  for (std::size_t i = 0; i < clerks.size(); ++i)
    clerks[i].call<&Clerk::know>(clerks[i], clerks[(i + 1) % clerks.size()]);
  for (const auto& clerk : clerks) mobula::get(clerk.call<&Clerk::one>());
  return clerks;
}

// The deadlock's words, through the TaskErrors of the methods that did not catch it.
std::string circle_told_by(const Ref<int>& ref) {
  try {
    mobula::get(ref, kLong);
  } catch (const mobula::TaskError& e) {
    return e.what();
  } catch (const ActorDeadlockError& e) {
    return e.what();
  }
  return "";
}
bool has(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("an actor that waits for itself is told so, with the circle, in less than five seconds") {
  const auto clerks = circle_of(1);
  const auto begin = Clock::now();

  const Ref<int> total = clerks[0].call<&Clerk::total>();
  const std::string words = circle_told_by(total);

  CHECK(since(begin) < 5s);
  CAPTURE(words);
  CHECK(has(words, "ActorDeadlockError"));
  CHECK(has(words, ") in "));
  CHECK(has(words, "total -> actor "));
  CHECK(has(words, "asked for "));
  CHECK(has(words, "Clerk"));
  CHECK(has(words, "one"));
  std::printf("told after %d ms: %s\n", static_cast<int>(since(begin).count()), words.c_str());
  try {
    mobula::get(total);
  } catch (const mobula::TaskError& e) {
    CHECK_THROWS_AS(e.rethrow_cause(), ActorDeadlockError);
  }
}

TEST_CASE("whatever the way back to the actor is, it is found") {
  struct Row {
    const char* name;
    int actors;
    Ref<int> (*call)(const ActorHandle<Clerk>&);
    const char* words;
  };
  for (const Row& row :
       {Row{"another actor", 2, [](const auto& a) { return a.template call<&Clerk::by_other>(); },
            "asks_back -> actor "},
        Row{"ten actors", 10, [](const auto& a) { return a.template call<&Clerk::round>(10); },
            "round -> actor "},
        Row{"thirty actors", 30, [](const auto& a) { return a.template call<&Clerk::round>(30); },
            " -> .. -> actor "},
        Row{"a task", 1, [](const auto& a) { return a.template call<&Clerk::by_task>(); },
            "-> task "},
        Row{"a task's argument", 1,
            [](const auto& a) { return a.template call<&Clerk::by_argument>(); }, "by_argument"},
        Row{"a call that holds back another", 2,
            [](const auto& a) { return a.template call<&Clerk::by_held_call>(); }, "by_held_call"},
        Row{"a stream of its own", 1,
            [](const auto& a) { return a.template call<&Clerk::reads_own>(); }, "reads_own"},
        Row{"a stream of who asks back", 2,
            [](const auto& a) { return a.template call<&Clerk::reads_who_asks_back>(); },
            "asks_for_each -> actor "},
        Row{"a stream of a task that asks back", 1,
            [](const auto& a) { return a.template call<&Clerk::reads_a_task_that_asks_back>(); },
            "asks_as_stream"},
        Row{"either of two calls", 1,
            [](const auto& a) { return a.template call<&Clerk::either_of_two>(); }, ""},
        Row{"a call, and a task that ends", 1,
            [](const auto& a) { return a.template call<&Clerk::both>(100); }, ""}}) {
    CAPTURE(row.name);
    const auto clerks = circle_of(row.actors);
    const auto begin = Clock::now();

    const Ref<int> call = row.call(clerks[0]);
    std::string words;
    try {
      words = std::to_string(mobula::get(call, kLong));  // wait() gives the failed call as ready
    } catch (const mobula::GetTimeoutError&) {
      words = "it waits for ever";
    } catch (const mobula::Error& e) {
      words = e.what();
    }

    CAPTURE(words);
    CHECK(has(words, row.words));
    CHECK(!has(words, "for ever"));
    CHECK(since(begin) < 5s);
    // Nobody is lost, and what was queued is done.
    for (const auto& clerk : clerks) CHECK(mobula::get(clerk.call<&Clerk::one>(), kLong) == 1);
  }
}

TEST_CASE("an actor that catches the error goes on, and may run into it again") {
  const auto clerks = circle_of(1);
  for (int i = 0; i < 100; ++i)  // more often than circles are kept
    CHECK(mobula::get(clerks[0].call<&Clerk::forgives>(), kLong) == -1);
  CHECK(mobula::get(clerks[0].call<&Clerk::one>()) == 1);
}

TEST_CASE("two actors that ask each other at the same time do not both wait") {
  const auto clerks = circle_of(2);
  for (int i = 0; i < 20; ++i) {
    const Ref<int> a = clerks[0].call<&Clerk::asks_back>();
    const Ref<int> b = clerks[1].call<&Clerk::asks_back>();
    // They may have missed each other; then both are right. Otherwise one of them is told.
    int right = 0;
    for (const Ref<int>& ref : {a, b}) right += mobula::try_get(ref, kLong).has_value();
    CHECK(right >= 1);
  }
}

TEST_CASE("who waits with a timeout, for any of several, or for long only, is not disturbed") {
  const auto clerks = circle_of(2);

  CHECK(mobula::get(clerks[0].call<&Clerk::with_timeout>(), kLong) == -1);
  CHECK(mobula::get(clerks[0].call<&Clerk::self_or_task>(300), kLong) == 1);
  Scratch scratch;
  const std::vector<Ref<int>> gate{remote<gated>(scratch.file("gate"))};
  const Ref<int> held = clerks[1].call<&Clerk::waits_for>(gate);
  const Ref<int> behind = clerks[0].call<&Clerk::asks_back>();  // queued at the other one
  CHECK_THROWS_AS(mobula::get(behind, 500ms), mobula::GetTimeoutError);
  open_gate(scratch.file("gate"));

  CHECK(mobula::get(held, kLong) == 3);
  CHECK(mobula::get(behind, kLong) == 1);
}

TEST_CASE("a reader whose producer still makes items is not disturbed") {
  const auto clerks = circle_of(3);
  // The items are slow, and their producer waits for another actor again and again.
  const mobula::StreamRef<int> items = remote<slow_items>(clerks[1], 30);
  const Ref<int> sum = clerks[0].call<&Clerk::reads>(items);
  const Ref<int> behind = clerks[2].call<&Clerk::asks_back>();  // waits for the reader

  CHECK(mobula::get(sum, kLong) == 30);
  CHECK(mobula::get(behind, kLong) == 1);
  // Who gives up after a while is in no circle: the stream of its own begins afterwards.
  CHECK(mobula::get(clerks[0].call<&Clerk::reads_with_patience>(clerks[0].call<&Clerk::counts>(1)),
                    kLong) == 1);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv, {.num_cpus = 2});
}
