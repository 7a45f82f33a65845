// Whatever a task does, its caller gets the right error, and the node lives.
#include "support/scenario.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::TaskError;
using mobula::WorkerCrashedError;
using mobula::test::Clock;
using mobula::test::count_in;
using mobula::test::count_of;
using mobula::test::kSanitized;
using mobula::test::open_gate;
using mobula::test::Scratch;
using mobula::test::since;

namespace faulty {

// --- exceptions ---

struct Custom : std::exception {
  int code = 17;
  const char* what() const noexcept override { return "custom trouble"; }
};
struct NotAnException {
  int code = 3;
};
struct ThrowsWhenCopied {
  ThrowsWhenCopied() = default;
  ThrowsWhenCopied(const ThrowsWhenCopied&) { throw std::runtime_error("copied"); }
};
struct WithoutWords : std::exception {
  const char* what() const noexcept override { return nullptr; }
};

int throw_runtime_error(int n) { throw std::runtime_error("bad number " + std::to_string(n)); }
int throw_out_of_range(int n) {
  return static_cast<int>(std::vector<int>(1).at(static_cast<std::size_t>(n)));
}
int throw_custom(int) { throw Custom(); }
int throw_own_error(int) { throw mobula::ObjectStoreFullError("a task's own"); }
struct Registered : std::runtime_error {
  using std::runtime_error::runtime_error;
};
int throw_registered(int) { throw Registered("registered"); }
int throw_int(int n) { throw n; }
int throw_text(int) { throw "plain text"; }
int throw_null_text(int) { throw static_cast<const char*>(nullptr); }
int throw_string(int) { throw std::string("a string"); }
int throw_struct(int) { throw NotAnException(); }
int throw_when_copied(int) { throw ThrowsWhenCopied(); }
int throw_without_words(int) { throw WithoutWords(); }
int throw_bad_alloc(int) { throw std::bad_alloc(); }
int throw_long_text(int) { throw std::runtime_error(std::string(100'000, 'x')); }
int throw_nested(int n) {
  try {
    throw std::logic_error("inner");
  } catch (...) {
    std::throw_with_nested(std::runtime_error("outer " + std::to_string(n)));
  }
}

int succeed(int n) { return n; }
int double_it(int n) { return 2 * n; }
int add(int a, int b) { return a + b; }
int get_inner(int n) { return mobula::get(remote<throw_runtime_error>(n)); }

int fail_twice() {
  const int attempt = mobula::this_task().attempt;
  if (attempt < 2) throw std::runtime_error("too early");
  return attempt;
}
// Mostly runs what it waits for in place, each attempt.
int get_patiently(int times) {
  int all = 0;
  for (int i = 0; i < times; ++i) {
    all += mobula::get(remote<fail_twice>.with({.max_retries = 3, .retry_exceptions = true})());
  }
  return all;
}
int fail_until_attempt(int wanted, std::string file) {
  count_in(file);
  if (mobula::this_task().attempt < wanted) throw std::runtime_error("too early");
  return mobula::this_task().attempt;
}

// --- crashes ---

int exhaust_stack(volatile int* depth) {
  volatile char block[4096];
  block[0] = static_cast<char>(*depth);
  *depth = *depth + 1;
  if (*depth == -1) return 0;
  return exhaust_stack(depth) + block[0];
}

enum class Way {
  kExit0,
  kExit3,
  kQuickExit,
  kUnderscoreExit,
  kAbort,
  kSegfault,
  kStackOverflow,
  kKill,
  kTerminate,
  kTerm
};

int crash_by(Way way, std::string file) {
  count_in(file);
  switch (way) {
    case Way::kExit0: ::exit(0);
    case Way::kExit3: ::exit(3);
    case Way::kQuickExit: ::quick_exit(4);
    case Way::kUnderscoreExit: ::_exit(5);
    case Way::kAbort: ::abort();
    case Way::kSegfault: {
      volatile int* volatile nowhere = nullptr;
      *nowhere = 1;
      break;
    }
    case Way::kStackOverflow: {
      volatile int depth = 0;
      return exhaust_stack(&depth);
    }
    case Way::kKill:
      ::kill(::getpid(), SIGKILL);
      ::pause();
      break;
    case Way::kTerminate: std::terminate();
    case Way::kTerm: ::raise(SIGTERM); break;
  }
  return 0;
}
int crash_until_attempt(int wanted, std::string file) {
  count_in(file);
  if (mobula::this_task().attempt < wanted) ::kill(::getpid(), SIGKILL);
  return mobula::this_task().attempt;
}
struct Mortal {
  int die() { return ::kill(::getpid(), SIGKILL); }
  int wait_at(const std::string& gate) {
    mobula::test::wait_at_gate(gate);
    return 1;
  }
};
int wait_at(const std::string& gate) { return Mortal().wait_at(gate); }
std::tuple<int, std::string> throw_instead_of_two(int n) { return {throw_runtime_error(n), ""}; }
int throw_own_description(int) {
  const mobula::TaskInfo me = mobula::this_task();
  throw std::runtime_error(me.task_id + " " + me.name + " " + std::to_string(me.attempt) + " " +
                           std::to_string(::getpid()) + " " + me.node_id);
}
int throw_from_noexcept(int n) noexcept { return throw_runtime_error(n); }

// Its destructor throws after the function has returned.
struct ThrowsAtEnd {
  int value = 1;
  ThrowsAtEnd() = default;
  explicit ThrowsAtEnd(int v) : value(v) {}
  ThrowsAtEnd(const ThrowsAtEnd&) = default;
  ThrowsAtEnd& operator=(const ThrowsAtEnd&) = default;
  ~ThrowsAtEnd() noexcept(false) {
    if (value == 13) throw std::runtime_error("destructor");
  }
};
struct DestructorTerminates {
  int value = 1;
  DestructorTerminates() = default;
  explicit DestructorTerminates(int v) : value(v) {}
  DestructorTerminates(const DestructorTerminates&) = default;
  DestructorTerminates& operator=(const DestructorTerminates&) = default;
  ~DestructorTerminates() {
    if (value == 13) std::terminate();
  }
};
int local_throws_at_end(int n) {
  ThrowsAtEnd local(n);
  return local.value;
}
int local_terminates(int n) {
  DestructorTerminates local(n);
  return local.value;
}

bool node_works() {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 20; ++i) refs.push_back(remote<succeed>(i));
  int sum = 0;
  for (const Ref<int>& ref : refs) sum += mobula::get(ref, 20s);
  return sum == 190;
}

}  // namespace faulty
using namespace faulty;

TEST_CASE("a task's exception arrives as a TaskError with type, message and origin") {
  try {
    mobula::get(remote<throw_runtime_error>(4));
    FAIL("no error");
  } catch (const TaskError& e) {
    CHECK(e.message() == "bad number 4");
    CHECK(e.type_name() == "std::runtime_error");
    CHECK(e.task_name().find("throw_runtime_error") != std::string::npos);
    CHECK(e.task_id().size() == 32);
    CHECK(e.attempt() == 0);
    CHECK(e.code() == mobula::ErrorCode::kTaskError);
    const std::string what = e.what();
    CHECK(what.find("bad number 4") != std::string::npos);
    CHECK(what.find("std::runtime_error") != std::string::npos);
    CHECK(what.find(e.task_id()) != std::string::npos);
    CHECK(e.node_id() == mobula::nodes().at(0).node_id);
    CHECK(what.find("process " + std::to_string(e.process_id()) + " of node " + e.node_id()) !=
          std::string::npos);
  }
  CHECK(node_works());
}

TEST_CASE("a TaskError says of its task what this_task() said in it, and the name that was given") {
  const auto retried = remote<throw_own_description>.with(
      {.max_retries = 1, .retry_exceptions = true, .name = "the second one"});
  try {
    mobula::get(retried(0), 20s);
    FAIL("no error");
  } catch (const TaskError& e) {
    CHECK(e.task_name() == "the second one");
    CHECK(e.message() == e.task_id() + " " + e.task_name() + " " + std::to_string(e.attempt()) +
                             " " + std::to_string(e.process_id()) + " " + e.node_id());
    CHECK(e.attempt() == 1);
    CHECK(std::string(e.what()).find("the second one (id " + e.task_id()) != std::string::npos);
  }
}

TEST_CASE("whatever is thrown arrives, with the words that it has") {
  struct Row {
    std::string name;
    Ref<int> ref;
    const char* type;
    const char* message;
  };
  const std::vector<Row> rows{
      {"out_of_range", remote<throw_out_of_range>(5), "std::out_of_range", "vector"},
      {"own exception", remote<throw_custom>(0), "faulty::Custom", "custom trouble"},
      {"int", remote<throw_int>(42), "int", "42"},
      {"text", remote<throw_text>(0), "char const*", "plain text"},
      {"string", remote<throw_string>(0), "std::string", "a string"},
      {"struct", remote<throw_struct>(0), "faulty::NotAnException", ""},
      {"throwing copy", remote<throw_when_copied>(0), "faulty::ThrowsWhenCopied", ""},
      {"bad_alloc", remote<throw_bad_alloc>(0), "std::bad_alloc", "bad_alloc"},
      {"long text", remote<throw_long_text>(0), "std::runtime_error", "xxxxxxxxxx"},
      {"nested", remote<throw_nested>(7), "", "outer 7"},
      {"what() gives null", remote<throw_without_words>(0), "faulty::WithoutWords", ""},
      {"null text", remote<throw_null_text>(0), "char const*", ""},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    try {
      mobula::get(row.ref, 20s);
      FAIL_CHECK("no error");
    } catch (const TaskError& e) {
      CHECK(e.type_name().find(row.type) != std::string::npos);
      CHECK(e.message().find(row.message) != std::string::npos);
    } catch (const mobula::Error& e) {
      FAIL_CHECK("another error: ", std::string(e.what()));
    }
  }
  CHECK(node_works());
}

TEST_CASE("all errors are Errors") {
  using namespace mobula;
  const auto is_error = []<class... E>(std::type_identity<E>...) {
    return (std::is_base_of_v<Error, E> && ...);
  };
  static_assert(is_error(
      std::type_identity<TaskError>{}, std::type_identity<WorkerCrashedError>{},
      std::type_identity<ActorDiedError>{}, std::type_identity<ActorUnavailableError>{},
      std::type_identity<TaskCancelledError>{}, std::type_identity<ObjectLostError>{},
      std::type_identity<ReconstructionFailedError>{}, std::type_identity<GetTimeoutError>{},
      std::type_identity<ObjectStoreFullError>{}, std::type_identity<OutOfMemoryError>{},
      std::type_identity<OutOfDiskError>{}, std::type_identity<UnschedulableError>{},
      std::type_identity<FunctionNotFoundError>{}, std::type_identity<NodeDiedError>{},
      std::type_identity<ActorDeadlockError>{}, std::type_identity<AuthenticationError>{},
      std::type_identity<VersionMismatchError>{}, std::type_identity<PendingCallsLimitError>{}));
  static_assert(std::is_base_of_v<std::exception, Error>);
  CHECK_THROWS_AS(mobula::get(remote<faulty::throw_int>(7)), Error);
}

TEST_CASE("rethrow_cause throws the cause in its own type where that is known here") {
  const auto error_of = [](const Ref<int>& ref) {
    try {
      mobula::get(ref);
    } catch (const TaskError& e) {
      return e;
    }
    throw std::logic_error("no error");
  };

  CHECK_THROWS_AS(error_of(remote<throw_runtime_error>(1)).rethrow_cause(), std::runtime_error);
  CHECK_THROWS_AS(error_of(remote<throw_out_of_range>(1)).rethrow_cause(), std::out_of_range);
  CHECK_THROWS_AS(error_of(remote<throw_bad_alloc>(1)).rethrow_cause(), std::bad_alloc);
  CHECK_THROWS_AS(error_of(remote<throw_string>(1)).rethrow_cause(), std::string);
  CHECK_THROWS_AS(error_of(remote<throw_custom>(1)).rethrow_cause(), TaskError);
  CHECK_THROWS_AS(error_of(remote<throw_own_error>(1)).rethrow_cause(),
                  mobula::ObjectStoreFullError);
  CHECK_THROWS_AS(error_of(remote<throw_registered>(1)).rethrow_cause(), TaskError);
  mobula::register_exception<Registered>();
  CHECK_THROWS_AS(error_of(remote<throw_registered>(1)).rethrow_cause(), Registered);
  try {
    error_of(remote<throw_int>(42)).rethrow_cause();
  } catch (const int number) {
    CHECK(number == 42);
  }
}

TEST_CASE("an error can be asked for again and again") {
  const Ref<int> ref = remote<throw_int>(1);

  for (int i = 0; i < 5; ++i) CHECK_THROWS_AS(mobula::get(ref), TaskError);
}

TEST_CASE("who depends on a failed value fails with the original cause") {
  const Ref<int> bad = remote<throw_runtime_error>(9);
  const Ref<int> next = remote<double_it>(bad);
  const Ref<int> last = remote<add>(remote<succeed>(1), remote<double_it>(next));

  for (const Ref<int>& ref : {next, last}) {
    try {
      mobula::get(ref, 20s);
      FAIL("no error");
    } catch (const TaskError& e) {
      CHECK(e.message() == "bad number 9");
      CHECK(e.task_name().find("throw_runtime_error") != std::string::npos);
    }
  }
  CHECK_THROWS_AS(mobula::get(remote<double_it>(bad), 20s),
                  TaskError);  // also when it failed before
}

TEST_CASE("each part of a tuple that was not returned has the error") {
  const auto [number, text] = remote<throw_instead_of_two>.unpacked(5);
  const Ref<int> dependent = remote<double_it>(number);

  CHECK_THROWS_WITH_AS(mobula::get(number, 20s), doctest::Contains("bad number 5"), TaskError);
  CHECK_THROWS_WITH_AS(mobula::get(text, 20s), doctest::Contains("bad number 5"), TaskError);
  CHECK_THROWS_WITH_AS(mobula::get(dependent, 20s), doctest::Contains("bad number 5"), TaskError);
}

TEST_CASE("an error of a nested task that nobody catches is the parent's") {
  try {
    mobula::get(remote<get_inner>(3), 20s);
    FAIL("no error");
  } catch (const TaskError& e) {
    CHECK(std::string(e.what()).find("bad number 3") != std::string::npos);
  }
}

TEST_CASE("an exception is final unless retry_exceptions asks for more") {
  Scratch scratch;
  const auto file = [&](const char* name) { return scratch.file(name); };

  CHECK_THROWS_AS(mobula::get(remote<fail_until_attempt>(1, file("a"))), TaskError);
  CHECK(count_of(file("a")) == 1);

  const auto patient =
      remote<fail_until_attempt>.with({.max_retries = 3, .retry_exceptions = true});
  CHECK(mobula::get(patient(2, file("b")), 20s) == 2);
  CHECK(count_of(file("b")) == 3);

  const auto twice = remote<fail_until_attempt>.with({.max_retries = 2, .retry_exceptions = true});
  try {
    mobula::get(twice(99, file("c")), 20s);
    FAIL("no error");
  } catch (const TaskError& e) {
    CHECK(e.attempt() == 2);
  }
  CHECK(count_of(file("c")) == 3);
}

TEST_CASE(
    "a task that waits for one whose exceptions are tried again gets the last attempt's value") {
  CHECK(mobula::get(remote<get_patiently>(100), 20s) == 200);
}

TEST_CASE(
    "a crashed attempt is tried three times more, then WorkerCrashedError tells how it ended") {
  Scratch scratch;
  struct Row {
    std::string name;
    Way way;
    int signal;
    int code;
  };
  const std::vector<Row> rows{
      {"exit(0)", Way::kExit0, 0, 0},
      {"exit(3)", Way::kExit3, 0, 3},
      {"quick_exit(4)", Way::kQuickExit, 0, 4},
      {"_exit(5)", Way::kUnderscoreExit, 0, 5},
      {"abort", Way::kAbort, SIGABRT, 0},
      {"segfault", Way::kSegfault, SIGSEGV, 0},
      {"stack overflow", Way::kStackOverflow, SIGSEGV, 0},
      {"kill -9", Way::kKill, SIGKILL, 0},
      {"terminate", Way::kTerminate, SIGABRT, 0},
      {"SIGTERM", Way::kTerm, SIGTERM, 0},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const std::string file = scratch.file(row.name);
    try {
      mobula::get(remote<crash_by>(row.way, file), 25s);
      FAIL_CHECK("no error");
    } catch (const WorkerCrashedError& e) {
      if (!kSanitized) {  // a sanitizer reports and exits in its own way
        CHECK(e.signal() == row.signal);
        CHECK(e.exit_code() == row.code);
      }
      CHECK(std::string(e.what()).find("crash_by") != std::string::npos);
    } catch (const mobula::Error& e) {
      FAIL_CHECK("another error: ", std::string(e.what()));
    }
    CHECK(count_of(file) == 4);
    CHECK(node_works());
  }
}

TEST_CASE("what the runtime itself finds wrong is told with name, id and node") {
  Scratch scratch;
  const std::string node = " of node " + mobula::nodes().at(0).node_id;
  const auto words_of = [](const auto& ref) -> std::string {
    try {
      mobula::get(ref, 20s);
    } catch (const mobula::Error& e) {
      return e.what();
    }
    return {};
  };
  const auto has_id = [](const std::string& words) {
    const std::size_t at = words.find("(id ");
    return at != std::string::npos && words.find(')', at) - at > 16;
  };

  const std::string crashed =
      words_of(remote<crash_by>.with({.max_retries = 0})(Way::kExit3, scratch.file("attempts")));
  CHECK(has_id(crashed));
  CHECK(crashed.find(node + ") that ran task ") != std::string::npos);

  const auto mortal = mobula::actor<Mortal>();
  const Ref<int> call = mortal.call<&Mortal::die>();
  const std::string died = words_of(call);
  CHECK(has_id(died));
  CHECK(died.find(node + " was killed by SIGKILL") != std::string::npos);
  CHECK(died.find("die (id ") != std::string::npos);

  const std::string late =
      words_of(remote<crash_by>.with({.deadline = 1us})(Way::kExit3, scratch.file("late")));
  CHECK(late.find("crash_by (id ") != std::string::npos);
}

TEST_CASE("what a caller is told of a wait, a cancel or an actor names the task and the actor") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto actor = mobula::actor<Mortal>.with(
      {.name = "the mortal", .max_restarts = 1, .max_pending_calls = 1})();
  const auto has = [](const mobula::Error& e, const std::vector<std::string>& all) {
    const std::string text = e.what();
    INFO(text);
    for (const std::string& words : all) CHECK(text.find(words) != std::string::npos);
  };
  const std::string named = "Mortal \"the mortal\" (id ";
  const auto error_of = [](const auto& call) {
    try {
      call();
    } catch (const mobula::Error& e) {
      return e;
    }
    return mobula::Error("no error");
  };

  const Ref<int> waits = remote<wait_at>.with({.name = "the waiter"})(gate);
  has(error_of([&] { mobula::get(waits, 1ms); }), {"the waiter (id ", "was not there in time"});
  mobula::cancel(waits, {.force = true});
  has(error_of([&] { mobula::get(waits, 20s); }), {"the waiter (id ", "was cancelled"});

  const Ref<int> call = actor.call<&Mortal::wait_at>(gate);
  has(error_of([&] { actor.call<&Mortal::die>(); }),
      {named, "max_pending_calls allows", "get or wait for some"});
  open_gate(gate);
  mobula::get(call, 20s);
  has(error_of([&] { mobula::get(actor.call<&Mortal::die>(), 20s); }),
      {named, " of node " + mobula::nodes().at(0).node_id, "die (id ", "max_task_retries"});
  mobula::kill(actor);
  has(error_of([&] { mobula::get(actor.call<&Mortal::die>(), 20s); }),
      {named, "was killed by mobula::kill", "die (id "});
}

TEST_CASE("max_retries sets how often a crashed attempt is tried again") {
  Scratch scratch;
  const auto file = [&](const char* name) { return scratch.file(name); };

  const auto once = remote<crash_by>.with({.max_retries = 0});
  CHECK_THROWS_AS(mobula::get(once(Way::kKill, file("once")), 20s), WorkerCrashedError);
  CHECK(count_of(file("once")) == 1);

  CHECK(mobula::get(remote<crash_until_attempt>(3, file("default")), 20s) == 3);
  CHECK(count_of(file("default")) == 4);

  const auto endless = remote<crash_until_attempt>.with({.max_retries = -1});
  CHECK(mobula::get(endless(8, file("endless")), 25s) == 8);
  CHECK(count_of(file("endless")) == 9);
  CHECK(node_works());
}

TEST_CASE("a crash takes only the task that crashed") {
  Scratch scratch;
  const std::string file = scratch.file("attempts");
  std::vector<Ref<int>> good;
  std::vector<Ref<int>> bad;
  for (int i = 0; i < 100; ++i) {
    good.push_back(remote<double_it>(i));
    if (i % 20 == 0) bad.push_back(remote<crash_by>.with({.max_retries = 0})(Way::kAbort, file));
  }

  for (int i = 0; i < 100; ++i) {
    CHECK(mobula::get(good[static_cast<std::size_t>(i)], 20s) == 2 * i);
  }
  for (const Ref<int>& ref : bad) CHECK_THROWS_AS(mobula::get(ref, 20s), WorkerCrashedError);
  CHECK(count_of(file) == bad.size());
}

TEST_CASE("who depends on a crashed task gets its error") {
  Scratch scratch;
  const Ref<int> crash =
      remote<crash_by>.with({.max_retries = 0})(Way::kExit3, scratch.file("attempts"));

  try {
    mobula::get(remote<double_it>(remote<double_it>(crash)), 20s);
    FAIL("no error");
  } catch (const WorkerCrashedError& e) {
    if (!kSanitized) CHECK(e.exit_code() == 3);
  }
}

TEST_CASE("destructors and noexcept functions that throw are contained") {
  CHECK_THROWS_AS(mobula::get(remote<local_throws_at_end>(13), 20s), TaskError);
  CHECK(mobula::get(remote<local_throws_at_end>(12), 20s) == 12);
  const auto once = [](auto call) { return call.with({.max_retries = 0})(13); };
  CHECK_THROWS_AS(mobula::get(once(remote<local_terminates>), 20s), WorkerCrashedError);
  CHECK_THROWS_AS(mobula::get(once(remote<throw_from_noexcept>), 20s), WorkerCrashedError);
  CHECK(node_works());
}

TEST_CASE("a crash while others wait for the result reaches them all") {
  Scratch scratch;
  const Ref<int> crash =
      remote<crash_by>.with({.max_retries = 0})(Way::kSegfault, scratch.file("attempts"));
  std::vector<Ref<int>> waiting;
  for (int i = 0; i < 50; ++i) waiting.push_back(remote<add>(crash, i));

  const auto start = Clock::now();
  for (const Ref<int>& ref : waiting) CHECK_THROWS_AS(mobula::get(ref, 20s), WorkerCrashedError);
  CHECK(since(start) < 20s);
  CHECK(mobula::wait(waiting, {.num_returns = 50, .timeout = 0ms}).ready.size() == 50);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .object_store_memory = 256ULL << 20, .log_to_driver = false});
}
