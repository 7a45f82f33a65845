// Calls that their actor's death interrupted, and that are run again: how often, and in which
// order.
#include "support/scenario.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "shm/crash_point.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Ref;
using mobula::remote;
using mobula::test::eventually;
using mobula::test::open_gate;
using mobula::test::Scratch;
using mobula::test::text_of;
using mobula::test::wait_at_gate;

namespace retries {

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  ::_exit(1);
}

int attempt() { return mobula::this_task().attempt; }

// Words that outlive their writer, in the order in which they were written.
void note(const std::string& file, const std::string& word) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string text = word + " ";
  if (fd < 0 || ::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    ::abort();
  ::close(fd);
}
std::string noted(const std::string& name, int attempt) {
  return name + "." + std::to_string(attempt);
}

int at_gate(const std::string& gate) {
  wait_at_gate(gate);
  return 0;
}

struct Mortal {
  std::string file;
  int calls = 0;

  // Notes "name.attempt", and dies in each of its first attempts.
  int run(const std::string& name, int deaths) {
    ++calls;
    note(file, noted(name, attempt()));
    if (attempt() < deaths) die();
    return attempt();
  }
  int run_after(int, const std::string& name, int deaths) { return run(name, deaths); }
  int throws() {
    note(file, noted("throws", attempt()));
    throw std::runtime_error("each time");
  }
  void push(mobula::Sink<int>& out, int deaths) {
    for (int i = 0; i < 10; ++i) {
      if (i == 5 && attempt() < deaths) die();
      out.push(i);
    }
  }
  int made() const { return calls; }
  // Its process dies at the point, when that is reached for the given time from now on. A session
  // lets each place of the list crash once.
  int dies_at(const std::string& point, int reach, int place) {
    std::string list;
    for (int i = 0; i < place; ++i) list += "claim.taken@nobody,";
    ::setenv("MOBULA_CRASH_POINT", (list + point + ":" + std::to_string(reach)).c_str(), 1);
    mobula::shm::arm_crash_points("actor");
    return 0;
  }
};

// Makes its calls from a process of its own. What they gave.
std::vector<int> call_many(const ActorHandle<Mortal>& mortal, const std::string& name, int count) {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < count; ++i) {
    const std::string call = name + std::to_string(i);
    refs.push_back(i % 4 == 1 ? mortal.with({.max_task_retries = 2}).call<&Mortal::run>(call, i % 3)
                              : mortal.call<&Mortal::run>(call, 0));
  }
  return mobula::get(refs);
}

}  // namespace retries

namespace {

using namespace retries;

std::vector<std::string> words_of(const std::string& text, const std::string& prefix = "") {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) {
    if (word.starts_with(prefix)) words.push_back(word);
  }
  return words;
}

}  // namespace

TEST_CASE("an interrupted call is run again as often as it says, or else as its actor says") {
  struct Row {
    int of_actor;
    std::optional<int> of_call;
    int deaths;
    int runs;
    bool ends;  // with a value
  };
  for (const Row& row : {Row{0, {}, 1, 1, false}, Row{2, {}, 2, 3, true}, Row{2, {}, 9, 3, false},
                         Row{-1, {}, 4, 5, true}, Row{0, 2, 2, 3, true}, Row{0, 2, 9, 3, false},
                         Row{5, 0, 9, 1, false}, Row{-1, 1, 9, 2, false}, Row{0, -1, 4, 5, true}}) {
    CAPTURE(row.of_actor);
    CAPTURE(row.of_call.value_or(-99));
    CAPTURE(row.deaths);
    Scratch scratch;
    const auto mortal = actor<Mortal>.with({.max_restarts = -1, .max_task_retries = row.of_actor})(
        scratch.file("notes"), 0);

    const Ref<int> value =
        mortal.with({.max_task_retries = row.of_call}).call<&Mortal::run>("a", row.deaths);

    if (row.ends) {
      CHECK(mobula::get(value, 20s) == row.runs - 1);
    } else {
      CHECK_THROWS_AS(mobula::get(value, 20s), mobula::ActorUnavailableError);
    }
    std::vector<std::string> expected;
    for (int i = 0; i < row.runs; ++i) expected.push_back(noted("a", i));
    CHECK(words_of(text_of(scratch.file("notes"))) == expected);
    CHECK(mobula::get(mortal.call<&Mortal::made>(), 20s) == (row.ends ? 1 : 0));
  }
}

TEST_CASE("without a restart there is no other attempt") {
  Scratch scratch;
  const auto mortal = actor<Mortal>.with({.max_restarts = 1})(scratch.file("notes"), 0);

  const Ref<int> twice = mortal.with({.max_task_retries = -1}).call<&Mortal::run>("a", 2);

  CHECK_THROWS_AS(mobula::get(twice, 20s), mobula::ActorDiedError);
  CHECK(words_of(text_of(scratch.file("notes"))) == std::vector<std::string>{"a.0", "a.1"});
}

TEST_CASE("a method's exception is final, however many retries its call has") {
  Scratch scratch;
  const auto mortal = actor<Mortal>.with({.max_restarts = -1})(scratch.file("notes"), 0);

  CHECK_THROWS_AS(mobula::get(mortal.with({.max_task_retries = 3}).call<&Mortal::throws>(), 20s),
                  mobula::TaskError);
  CHECK(words_of(text_of(scratch.file("notes"))) == std::vector<std::string>{"throws.0"});
}

TEST_CASE("a call that is run again keeps its place in its caller's order") {
  Scratch scratch;
  const auto mortal = actor<Mortal>.with({.max_restarts = -1})(scratch.file("notes"), 0);
  const int count = 12;

  const Ref<std::vector<int>> other = remote<call_many>(mortal, "b", count);
  std::vector<Ref<int>> values;
  std::vector<std::string> expected;
  std::vector<std::string> expected_of_other;
  for (int i = 0; i < count; ++i) {
    // One waits for its argument while those before it are run again.
    const std::string name = "a" + std::to_string(i);
    const int deaths = i % 6 == 2 ? 2 : i % 6 == 3 ? 1 : 0;
    const auto with = mortal.with({.max_task_retries = 2});
    values.push_back(i == count / 2 ? with.call<&Mortal::run_after>(
                                          remote<at_gate>(scratch.file("gate")), name, deaths)
                                    : with.call<&Mortal::run>(name, deaths));
    for (int run = 0; run <= deaths; ++run) expected.push_back(noted(name, run));
    for (int run = 0; run <= (i % 4 == 1 ? i % 3 : 0); ++run)
      expected_of_other.push_back(noted("b" + std::to_string(i), run));
  }
  CHECK(eventually(20s, [&] {
    return static_cast<int>(words_of(text_of(scratch.file("notes")), "a").size()) >= count / 2;
  }));
  open_gate(scratch.file("gate"));

  for (const Ref<int>& value : values) mobula::get(value, 20s);
  CHECK(static_cast<int>(mobula::get(other, 20s).size()) == count);
  CHECK(words_of(text_of(scratch.file("notes")), "a") == expected);
  CHECK(words_of(text_of(scratch.file("notes")), "b") == expected_of_other);
}

TEST_CASE("a stream's call that is run again goes on behind what it had pushed") {
  Scratch scratch;
  const auto mortal = actor<Mortal>.with({.max_restarts = -1})(scratch.file("notes"), 0);

  auto stream = mortal.with({.max_task_retries = 2}).call<&Mortal::push>(2);

  for (int i = 0; i < 10; ++i) CHECK(stream.next(20s) == i);
  CHECK(stream.next(20s) == std::nullopt);
}

TEST_CASE("wherever in a call its actor dies, it runs once more if it may, and no more than that") {
  struct Row {
    const char* point;
    int reach;  // 2: the call that arms the point reaches it, too
    int runs;
    int attempt;
    bool ends_alone;  // also without retries
  };
  constexpr Row kRows[] = {
      {"claim.intent", 1, 1, 0, true},   {"claim.taken", 1, 1, 1, false},
      {"claim.moved", 1, 1, 1, false},   {"execute.before", 1, 1, 1, false},
      {"execute.after", 2, 2, 1, false}, {"result.written", 2, 2, 1, false},
      {"complete.done", 2, 1, 0, true},  {"complete.finished", 2, 1, 0, true},
  };
  int place = 0;
  for (const int own : {1, 0}) {
    for (const Row& row : kRows) {
      CAPTURE(row.point);
      CAPTURE(own);
      Scratch scratch;
      const auto mortal = actor<Mortal>.with({.max_restarts = -1})(scratch.file("notes"), 0);
      mobula::get(mortal.call<&Mortal::dies_at>(row.point, row.reach, place++), 20s);

      const Ref<int> value = mortal.with({.max_task_retries = own}).call<&Mortal::run>("a", 0);

      const bool ends = own == 1 || row.ends_alone;
      if (ends) {
        CHECK(mobula::get(value, 20s) == row.attempt);
      } else {
        CHECK_THROWS_AS(mobula::get(value, 20s), mobula::ActorUnavailableError);
      }
      // Of the next life.
      const bool in_next = ends && std::string_view(row.point).find("complete.") != 0;
      CHECK(mobula::get(mortal.call<&Mortal::made>(), 20s) == (in_next ? 1 : 0));
      const int runs = own == 1 || row.ends_alone ? row.runs : row.runs - 1;
      CHECK(static_cast<int>(words_of(text_of(scratch.file("notes"))).size()) == runs);
    }
  }
}

TEST_CASE("with Replay an interrupted call is run to its end, whatever its retries") {
  Scratch scratch;
  const auto mortal = actor<Mortal>.with(
      {.max_restarts = -1, .recovery = mobula::Recovery::Replay})(scratch.file("notes"), 0);

  const Ref<int> value = mortal.with({.max_task_retries = 0}).call<&Mortal::run>("a", 3);

  CHECK(mobula::get(value, 20s) == 3);
  CHECK(mobula::get(mortal.call<&Mortal::made>(), 20s) == 1);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 4, .object_store_memory = 64ULL << 20, .log_to_driver = false});
}
