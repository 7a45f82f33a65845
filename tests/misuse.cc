// Misuse is answered at the call, by a typed error that says what to do.
//
// A process has one session at a time and workers run main() again, so each case about sessions
// is a program of its own: this one, started anew with the name of the case.
#include "support/scenario.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <typeinfo>
#include <vector>

#include "mobula/future.h"
#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Config;
using mobula::Error;
using mobula::ErrorCode;
using mobula::Ref;
using mobula::remote;
using mobula::Session;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::kSanitized;
using mobula::test::since;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::uint64_t kMegabyte = 1 << 20;

}  // namespace

namespace misuse {

int square(int x) { return x * x; }
std::size_t size_of(std::span<const std::uint8_t> bytes) { return bytes.size(); }
std::vector<std::uint8_t> block(std::size_t size) { return std::vector<std::uint8_t>(size, 1); }
std::tuple<int, int> pair_of(int x) { return {x, x}; }
void numbers(mobula::Sink<int>& out, int n) {
  for (int i = 0; i < n; ++i) out.push(i);
}
int until_cancelled() {
  const mobula::TaskInfo me = mobula::this_task();
  while (!me.should_cancel()) std::this_thread::sleep_for(1ms);
  return 1;
}
struct Counter {
  int n = 0;
  int add(int k) { return n += k; }
};

// A child has no doctest: what does not hold ends it with the line.
void require(bool holds, const char* what, int line) {
  if (holds) return;
  std::fprintf(stderr, "misuse.cc:%d: does not hold: %s\n", line, what);
  std::exit(1);
}
#define HOLDS(condition) require((condition), #condition, __LINE__)

// The error that `call` throws, if its type is exactly E.
template <class E, class Call>
std::optional<std::string> error_of(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    if (typeid(e) == typeid(E)) return e.what();
    std::fprintf(stderr, "another error (code %u): %s\n", static_cast<unsigned>(e.code()),
                 e.what());
    return {};
  }
  std::fprintf(stderr, "no error\n");
  return {};
}
template <class E, class Call>
bool throws(const Call& call) {
  const auto text = error_of<E>(call);
  if (text && text->size() < 10)
    std::fprintf(stderr, "a message without help: %s\n", text->c_str());
  return text && text->size() >= 10;
}

const Config kSmall{.num_cpus = 2, .object_store_memory = 64 * kMegabyte};

int no_session(int, char**) {
  HOLDS(!mobula::is_initialized());
  HOLDS(throws<Error>([] { remote<square>(1); }));
  HOLDS(throws<Error>([] { mobula::put(1); }));
  HOLDS(throws<Error>([] { mobula::put(std::vector<int>(100'000)); }));
  HOLDS(throws<Error>([] { mobula::create_buffer(100); }));
  HOLDS(throws<Error>([] { mobula::put_buffer({}); }));
  HOLDS(throws<Error>([] { mobula::actor<Counter>(); }));
  HOLDS(throws<Error>([] { mobula::get(Ref<int>{}); }));
  HOLDS(throws<Error>([] { mobula::wait(std::vector{Ref<int>{}}); }));
  HOLDS(throws<Error>([] { mobula::cluster_resources(); }));
  HOLDS(throws<Error>([] { mobula::available_resources(); }));
  HOLDS(throws<Error>([] { mobula::nodes(); }));
  HOLDS(throws<Error>([] { mobula::this_task(); }));
  HOLDS(throws<Error>([] { mobula::memory_report(); }));
  HOLDS(throws<Error>([] { mobula::metrics(); }));
  HOLDS(throws<Error>([] { mobula::get_actor<Counter>("nobody"); }));
  HOLDS(throws<Error>([] { mobula::list_named_actors(); }));
  HOLDS(throws<Error>([] { mobula::exit_actor(); }));
  HOLDS(throws<Error>([] { mobula::checkpoint(); }));
  HOLDS(throws<Error>([] { mobula::call_after(0ms, [] {}); }));
  HOLDS(throws<Error>([] { mobula::then(Ref<int>{}, [](const mobula::Result<int>&) {}); }));
  HOLDS(throws<Error>([] { mobula::cancel(Ref<int>{}); }));
  HOLDS(throws<Error>([] { mobula::StreamRef<int>().next(); }));
  HOLDS(throws<Error>([] { remote<square>.with({.num_cpus = 0.5})(1); }));
  HOLDS(throws<Error>([] { remote<pair_of>.unpacked(1); }));
  HOLDS(throws<Error>([] { remote<numbers>(1); }));
  HOLDS(throws<Error>([] { mobula::mesh<Counter>(2); }));
  HOLDS(throws<Error>([] { mobula::get(std::vector{Ref<int>{}}); }));
  HOLDS(throws<Error>([] { mobula::get_each(std::vector{Ref<int>{}}, [](int) {}); }));
  HOLDS(throws<Error>([] { mobula::get_view(Ref<std::string>{}); }));
  HOLDS(throws<Error>([] { mobula::to_future(Ref<int>{}); }));
  HOLDS(throws<Error>([] { mobula::monitor(mobula::ActorHandle<Counter>{}); }));
  HOLDS(throws<Error>([] { mobula::placement_group({{{"CPU", 1}}}); }));
  HOLDS(throws<Error>([] { mobula::get_placement_group("train"); }));
  HOLDS(throws<Error>([] { mobula::remove_placement_group({.id = 1}); }));
  HOLDS(throws<Error>([] { mobula::placement_groups(); }));
  HOLDS(throws<Error>([] { mobula::PlacementGroup{.id = 1}.ready(); }));
  HOLDS(throws<Error>([] { mobula::PlacementGroup{.id = 1}.wait(0s); }));
  HOLDS(throws<Error>([] { mobula::metrics_text(); }));
  // What tells others of a program may stand in code that also runs without a session.
  mobula::log("nobody shows progress here");
  mobula::progress(3, "unseen").add();
  mobula::Counter("uncounted").add();
  mobula::shutdown();  // nothing to do
  mobula::shutdown();
  return 0;
}

// Two functions that could not be told apart end the program while it starts, since the second one
// to be registered is refused.
int same_key(int, char**) {
  const pid_t child = ::fork();
  if (child == 0) {
    mobula::detail::register_function("int meant_twice(int)", "a.cc", "meant_twice",
                                      [](mobula::detail::Execution&) {});
    mobula::detail::register_function("int meant_twice(int)", "b.cc", "meant_twice",
                                      [](mobula::detail::Execution&) { std::abort(); });
    ::_exit(0);
  }
  int status = 0;
  HOLDS(::waitpid(child, &status, 0) == child);
  HOLDS(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  return 0;
}

int second_session(int argc, char** argv) {
  const Session session(argc, argv, kSmall);
  HOLDS(mobula::is_initialized());
  HOLDS(throws<Error>([&] { const Session another(argc, argv, kSmall); }));
  HOLDS(throws<Error>([&] { mobula::init(argc, argv, kSmall); }));
  HOLDS(mobula::get(remote<square>(3)) == 9);  // the first goes on
  return 0;
}

int after_shutdown(int argc, char** argv) {
  mobula::init(argc, argv, kSmall);
  const Ref<int> ready = remote<square>(3);
  HOLDS(mobula::get(ready) == 9);
  const Ref<std::vector<int>> large = mobula::put(std::vector<int>(100'000, 1));
  const auto counter = mobula::actor<Counter>();
  HOLDS(mobula::get(counter.call<&Counter::add>(2)) == 2);
  std::future<int> late = mobula::to_future(remote<until_cancelled>());
  bool called = false;
  mobula::then(remote<until_cancelled>(), [&](const mobula::Result<int>&) { called = true; });
  mobula::shutdown();

  HOLDS(late.wait_for(20s) == std::future_status::ready);
  try {
    late.get();
    HOLDS(!"the future has a value");
  } catch (const std::future_error& e) {
    HOLDS(e.code() == std::future_errc::broken_promise);
  }
  HOLDS(!called);
  HOLDS(!mobula::is_initialized());
  HOLDS(throws<Error>([] { remote<square>(1); }));
  HOLDS(throws<Error>([&] { mobula::get(ready); }));
  HOLDS(throws<Error>([&] { mobula::get_view(large); }));
  HOLDS(throws<Error>([&] { mobula::wait(std::vector{ready}); }));
  HOLDS(throws<Error>([&] { counter.call<&Counter::add>(1); }));
  HOLDS(throws<Error>([&] { mobula::kill(counter); }));
  HOLDS(!mobula::try_get(ready).has_value());
  const Ref<int> copy = ready;  // harmless
  HOLDS(copy == ready);
  mobula::shutdown();
  return 0;
}

int ref_of_ended_session(int argc, char** argv) {
  Ref<int> old;
  mobula::ActorHandle<Counter> old_actor;
  {
    const Session session(argc, argv, kSmall);
    old = remote<square>(5);
    old_actor = mobula::actor<Counter>();
    HOLDS(mobula::get(old) == 25);
  }
  const Session session(argc, argv, kSmall);
  HOLDS(throws<Error>([&] { mobula::get(old); }));
  HOLDS(throws<Error>([&] { remote<square>(old); }));
  HOLDS(throws<Error>([&] { mobula::wait(std::vector{old}); }));
  HOLDS(throws<Error>([&] { mobula::put(std::vector{old}); }));
  HOLDS(throws<Error>([&] { old_actor.call<&Counter::add>(1); }));
  old = {};
  old_actor = {};
  HOLDS(mobula::get(remote<square>(4)) == 16);
  return 0;
}

int sessions_in_sequence(int argc, char** argv) {
  for (int round = 0; round < 5; ++round) {
    const Session session(argc, argv, kSmall);
    HOLDS(mobula::get(remote<square>(round)) == round * round);
    const auto counter = mobula::actor<Counter>();
    HOLDS(mobula::get(counter.call<&Counter::add>(round)) == round);
    HOLDS(mobula::get_view(mobula::put(std::vector<int>(10'000, round)))[7] == round);
  }
  HOLDS(!mobula::is_initialized());
  return 0;
}

int empty_refs(int argc, char** argv) {
  const Session session(argc, argv, kSmall);
  const mobula::ActorHandle<Counter> nobody;
  HOLDS(throws<Error>([] { mobula::get(Ref<int>{}); }));
  HOLDS(throws<Error>([] { mobula::get_view(Ref<std::string>{}); }));
  HOLDS(throws<Error>([] { remote<square>(Ref<int>{}); }));
  HOLDS(throws<Error>([&] { nobody.call<&Counter::add>(1); }));
  HOLDS(throws<Error>([&] { mobula::kill(nobody); }));
  HOLDS(!mobula::get(mobula::put(std::vector<Ref<int>>(3)))[1]);  // inside of a value it may be
  HOLDS(mobula::get(remote<square>(4)) == 16);
  return 0;
}

// Absent: for ever; 0: only look; negative: an error, at once, also for what is ready.
int timeouts(int argc, char** argv) {
  const Session session(argc, argv, kSmall);
  const Ref<int> ready = mobula::put(1);
  const Ref<int> never = remote<until_cancelled>.with({.num_cpus = 0})();
  const auto group = mobula::placement_group({{{"CPU", 2}}});
  mobula::StreamRef<int> stream = remote<numbers>.with({.num_cpus = 0})(1);
  const auto mesh = mobula::mesh<Counter>(2);
  const mobula::MeshRef<int> results = mesh.call<&Counter::add>(1);
  const auto refused = [](const auto& call) {
    const auto start = Clock::now();
    const auto text = error_of<Error>(call);  // no GetTimeoutError, which is another type
    return text && text->find("negative") != std::string::npos && since(start) < 5s;
  };

  HOLDS(refused([&] { mobula::get(ready, -1ns); }));
  HOLDS(refused([&] { mobula::get(never, -1h); }));
  HOLDS(refused([&] { mobula::try_get(ready, -1ms).value(); }));
  HOLDS(refused([&] { mobula::try_get(never, -1ms).value(); }));
  HOLDS(refused([&] { mobula::get_view(mobula::put("text"), -1ms); }));
  HOLDS(refused([&] { mobula::wait(std::vector{ready}, {.timeout = -1ms}); }));
  HOLDS(refused([&] { mobula::wait(std::vector{never}, {.timeout = -1ms}); }));
  HOLDS(refused([&] { stream.next(-1ms); }));
  HOLDS(refused([&] { stream.try_next(-1ms).value(); }));
  HOLDS(refused([&] { group.wait(-1ms); }));
  HOLDS(refused([&] { mobula::get(results, -1ms); }));
  HOLDS(refused([&] { mobula::try_get(results, -1ms)[0].value(); }));
  HOLDS(refused([&] { mobula::call_after(-1ms, [] {}); }));
  HOLDS(refused([&] { remote<square>.with({.deadline = -1ms})(1); }));
  HOLDS(refused([&] { mesh.member(0).with({.deadline = -1ms}).call<&Counter::add>(1); }));

  HOLDS(mobula::get(ready, 0ms) == 1);
  HOLDS(throws<mobula::GetTimeoutError>([&] { mobula::get(never, 0ms); }));

  constexpr mobula::Duration kLongest = mobula::Duration::max();
  const auto soon = [] {
    return remote<[] {
    std::this_thread::sleep_for(20ms);
    return 1;
  }>.with({.num_cpus = 0})();
  };
  HOLDS(mobula::get(soon(), kLongest) == 1);
  HOLDS(mobula::wait(std::vector{soon()}, {.timeout = kLongest}).ready.size() == 1);
  HOLDS(stream.next(kLongest) == 0);
  mobula::cancel(never);
  return 0;
}

int unschedulable(int argc, char** argv) {
  using mobula::UnschedulableError;
  const Session session(argc, argv, kSmall);
  const auto start = Clock::now();
  HOLDS(throws<UnschedulableError>([] { remote<square>.with({.num_cpus = 1e6})(1); }));
  HOLDS(throws<UnschedulableError>([] { remote<square>.with({.num_cpus = 2.5})(1); }));
  HOLDS(throws<UnschedulableError>([] { remote<square>.with({.num_gpus = 1})(1); }));
  HOLDS(
      throws<UnschedulableError>([] { remote<square>.with({.resources = {{"unicorn", 1}}})(1); }));
  HOLDS(throws<UnschedulableError>([] { mobula::actor<Counter>.with({.num_cpus = 1e6})(); }));
  HOLDS(throws<UnschedulableError>(
      [] { mobula::actor<Counter>.with({.resources = {{"unicorn", 1}}})(); }));
  HOLDS(since(start) < 5s);
  const auto text =
      error_of<UnschedulableError>([] { remote<square>.with({.resources = {{"unicorn", 1}}})(1); });
  HOLDS(text && text->find("unicorn") != std::string::npos);
  HOLDS(mobula::get(remote<square>(4)) == 16);
  return 0;
}

int nonsense_options(int argc, char** argv) {
  const Session session(argc, argv, kSmall);
  for (const double amount : {-1.0, -0.001, kNan, kInfinity, -kInfinity}) {
    HOLDS(throws<Error>([&] { remote<square>.with({.num_cpus = amount})(1); }));
    HOLDS(throws<Error>([&] { remote<square>.with({.num_gpus = amount})(1); }));
    HOLDS(throws<Error>([&] { remote<square>.with({.memory = amount})(1); }));
    HOLDS(throws<Error>([&] { remote<square>.with({.resources = {{"lamp", amount}}})(1); }));
    HOLDS(throws<Error>([&] { mobula::actor<Counter>.with({.num_cpus = amount})(); }));
  }
  for (const int retries : {-2, 251, 1 << 16}) {
    HOLDS(throws<Error>([&] { remote<square>.with({.max_retries = retries})(1); }));
    HOLDS(throws<Error>([&] { mobula::actor<Counter>.with({.max_restarts = retries})(); }));
    HOLDS(throws<Error>([&] { mobula::actor<Counter>.with({.max_task_retries = retries})(); }));
  }
  for (const char* name : {"CPU", "GPU", "memory"})  // have options of their own
    HOLDS(throws<Error>([&] { remote<square>.with({.resources = {{name, 1}}})(1); }));
  HOLDS(throws<Error>([] { remote<square>.with({.resources = {{"lamp", 1e-9}}})(1); }));
  HOLDS(throws<Error>([] { remote<square>.with({.resources = {{"two\nlines", 1}}})(1); }));
  HOLDS(throws<Error>([] { remote<square>.with({.resources = {{"", 1}}})(1); }));
  for (const int retries : {-2, 251, 1 << 16}) {
    HOLDS(throws<Error>([&] {
      mobula::actor<Counter>().with({.max_task_retries = retries}).call<&Counter::add>(1);
    }));
  }
  HOLDS(mobula::get(remote<square>(4)) == 16);
  return 0;
}

int nonsense_config(int argc, char** argv) {
  const std::vector<Config> configs{
      {.num_cpus = -1},
      {.num_cpus = kNan},
      {.num_cpus = kInfinity},
      {.num_gpus = -1},
      {.resources = {{"lamp", -1}}},
      {.resources = {{"lamp", kNan}}},
      {.resources = {{"", 1}}},
      {.resources = {{"config.spill_limit", 1e9}}},  // would be taken for the setting
      {.resources = {{"config.lamp", 1}}},
      {.object_store_memory = 0},
      {.object_store_memory = 1},
      {.object_store_memory = ~0ULL},
      {.memory_limit = 0},
      {.memory_limit = 1},
      {.memory_limit = ~0ULL},
      {.memory_threshold = 0},
      {.memory_threshold = -1},
      {.memory_threshold = 1.01},
      {.memory_threshold = kNan},
      {.address = "nowhere"},
      {.address = "256.0.0.1:99999"},
  };
  for (std::size_t i = 0; i < configs.size(); ++i) {
    const bool refused = throws<Error>([&] { const Session session(argc, argv, configs[i]); });
    if (!refused) std::fprintf(stderr, "configuration %zu was accepted\n", i);
    HOLDS(refused);
    HOLDS(!mobula::is_initialized());
  }
  const Session session(argc, argv, kSmall);  // a failed start leaves nothing in the way
  HOLDS(mobula::get(remote<square>(4)) == 16);
  return 0;
}

int too_large(int argc, char** argv) {
  using mobula::ObjectStoreFullError;
  const Session session(argc, argv, kSmall);
  const std::vector<std::uint8_t> large(100 * kMegabyte, 1);
  const auto start = Clock::now();
  HOLDS(throws<ObjectStoreFullError>([&] { mobula::put(large); }));
  HOLDS(throws<ObjectStoreFullError>([] { mobula::create_buffer(100 * kMegabyte); }));
  HOLDS(throws<ObjectStoreFullError>([] { mobula::create_buffer(~std::size_t{0}); }));
  HOLDS(throws<ObjectStoreFullError>([] { mobula::create_buffer(~std::size_t{0} - 100); }));
  HOLDS(throws<ObjectStoreFullError>([&] { remote<size_of>(large); }));
  HOLDS(since(start) < (kSanitized ? 20s : 2s));  // at once: waiting could not help

  // A result can be too large as well: the task failed, and the cause says why.
  const Ref<std::vector<std::uint8_t>> result = remote<block>(100 * kMegabyte);
  HOLDS(throws<ObjectStoreFullError>([&] {
    try {
      mobula::get(result);
    } catch (const mobula::TaskError& e) {
      e.rethrow_cause();
    }
  }));
  HOLDS(mobula::get(remote<square>(4)) == 16);
  HOLDS(mobula::get(remote<size_of>(mobula::put(std::vector<std::uint8_t>(kMegabyte)))) ==
        kMegabyte);
  return 0;
}

int store_full(int argc, char** argv) {
  using mobula::ObjectStoreFullError;
  mobula::Config config = kSmall;
  config.spill_limit = 0;  // otherwise the disk takes what does not fit
  const Session session(argc, argv, config);
  const std::vector<std::uint8_t> block_of_8(8 * kMegabyte, 7);
  std::vector<Ref<std::vector<std::uint8_t>>> held;
  std::optional<std::string> text;
  while (held.size() < 10 && !text) {
    try {
      held.push_back(mobula::put(block_of_8));
    } catch (const ObjectStoreFullError& e) {
      text = e.what();
    }
  }
  HOLDS(text.has_value());
  HOLDS(held.size() >= 5);  // most of the store is for objects
  // It says how much was wanted and how much there is.
  int numbers = 0;
  for (std::size_t i = 0; i < text->size(); ++i) {
    const auto digit = [&](std::size_t at) { return (*text)[at] >= '0' && (*text)[at] <= '9'; };
    numbers += digit(i) && (i == 0 || !digit(i - 1));
  }
  std::fprintf(stderr, "%s\n", text->c_str());
  HOLDS(numbers >= 2);

  for (const auto& ref : held) HOLDS(mobula::get_view(ref)[1000] == 7);  // nothing held was dropped
  HOLDS(mobula::get(remote<square>(4)) == 16);
  held.clear();
  for (int i = 0; i < 30; ++i) mobula::put(block_of_8);  // and there is room again
  return 0;
}

const std::map<std::string_view, int (*)(int, char**)> kCases{
    {"no_session", no_session},
    {"same_key", same_key},
    {"second_session", second_session},
    {"after_shutdown", after_shutdown},
    {"ref_of_ended_session", ref_of_ended_session},
    {"sessions_in_sequence", sessions_in_sequence},
    {"empty_refs", empty_refs},
    {"timeouts", timeouts},
    {"unschedulable", unschedulable},
    {"nonsense_options", nonsense_options},
    {"nonsense_config", nonsense_config},
    {"too_large", too_large},
    {"store_full", store_full},
};

// Runs the case as a program; it ends well, and nothing of it is left.
void check_case(const std::string& name) {
  Child child(mobula::test::own_program(), {"--case", name});
  const auto ending = child.wait(30s);
  INFO(child.output());
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 0);
  const bool alone =
      mobula::test::eventually(2s, [&] { return mobula::test::family_of(child.tag()).empty(); });
  INFO(mobula::test::describe(mobula::test::family_of(child.tag())));
  CHECK(alone);
}

}  // namespace misuse
using misuse::check_case;

TEST_CASE("calls outside of a session throw Error") { check_case("no_session"); }
TEST_CASE("functions that could not be told apart end the program when it starts") {
  check_case("same_key");
}
TEST_CASE("a process has one session at a time") { check_case("second_session"); }
TEST_CASE("after shutdown everything throws Error, and nothing crashes") {
  check_case("after_shutdown");
}
TEST_CASE("a ref of an ended session throws Error in the next one") {
  check_case("ref_of_ended_session");
}
TEST_CASE("a program can have one session after another") { check_case("sessions_in_sequence"); }
TEST_CASE("empty refs and handles throw Error at the call") { check_case("empty_refs"); }
TEST_CASE("negative timeouts and deadlines are refused at the call; the longest are long") {
  check_case("timeouts");
}
TEST_CASE("a demand that no node can meet is refused at the call") { check_case("unschedulable"); }
TEST_CASE("options that make no sense are refused at the call") { check_case("nonsense_options"); }
TEST_CASE("a configuration that makes no sense is refused") { check_case("nonsense_config"); }
TEST_CASE("an object larger than the store is refused at once") { check_case("too_large"); }
TEST_CASE("a full store says so with sizes, and keeps what is held") { check_case("store_full"); }

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--case") {
    return misuse::kCases.at(argv[2])(argc, argv);
  }
  doctest::Context context(argc, argv);
  return context.run();
}
