// Programs written for Ray's C++ API run: this one includes ray/api.h and nothing of Mobula's.
#include "support/scenario.h"

#include <ray/api.h>

#include <unistd.h>

#include <any>
#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

int one() { return 1; }
int increment(int x) { return x + 1; }
int add(int a, int b) { return a + b; }
std::string shout(const std::string& text) { return text + "!"; }
void nothing() {}
int overloaded(int x) { return 10 * x; }
int overloaded(int x, int y) { return 100 * x + y; }
int throw_logic_error() { throw std::logic_error("on purpose"); }
int end_the_process() { ::_exit(7); }
int sleep_ms(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  return ms;
}
std::array<int, 100'000> big(std::array<int, 100'000> values) { return values; }
bool session_runs() { return ray::IsInitialized(); }
std::string name_space() { return ray::GetNamespace(); }
std::string variable(const std::string& name) {
  const char* value = ::getenv(name.c_str());
  return value ? value : "";
}
int not_registered() { return 0; }

// Refused but in local mode: there the parameter is the ref itself.
std::string through_ref(ray::ObjectRef<std::string> ref) { return *ref.Get(); }
int through_two_refs(ray::ObjectRef<ray::ObjectRef<int>> outer) {
  const auto inner = *outer.Get();
  return *inner.Get();
}
std::vector<std::shared_ptr<int>> all_of(int, std::vector<ray::ObjectRef<int>> refs) {
  return ray::Get(refs);
}

class Money {  // no aggregate: a private field, and constructors
 public:
  Money() = default;
  Money(std::string currency, int cents) : currency_(std::move(currency)), cents_(cents) {}
  std::string text() const { return std::to_string(cents_) + " " + currency_; }
  MSGPACK_DEFINE(currency_, cents_);

 private:
  std::string currency_;
  int cents_ = 0;
};
class Tip : public Money {
 public:
  Tip() = default;
  Tip(std::string currency, int cents, bool is_generous)
      : Money(std::move(currency), cents), generous(is_generous) {}
  bool generous = false;
  MSGPACK_DEFINE(MSGPACK_BASE(Money), generous);
};
struct Guest {
  std::string name;
  Money due;
  MSGPACK_DEFINE(name, due);
};
Guest charge(Guest guest, const Tip& tip) {
  guest.due = Money("cents", tip.generous ? 200 : 100);
  return guest;
}
std::promise<int> gate;
int waits_for_gate() { return gate.get_future().get(); }
int opens_gate(ray::ObjectRef<int> waits) {
  if (!ray::Wait(std::vector<ray::ObjectRef<int>>{waits}, 1, 10).ready.empty()) return -1;
  gate.set_value(7);
  return *waits.Get();
}
// What is shown of all metrics after counting in a worker.
std::string count_episode() {
  ray::Counter episodes("ray_episodes", "that were simulated", "pcs", {"map"});
  ray::Gauge depth("ray_depth", "of the tree", "");
  ray::Histogram rewards("ray_rewards", "", "", {1, 10});
  ray::Sum steps("ray_steps", "", "");
  episodes.Inc(2, {{"map", "ice"}});
  depth.Set(7, {});
  rewards.Observe(3, {});
  ray::Metric& any = steps;
  any.Record(2.5, {});
  return mobula::metrics_text();
}
std::vector<std::any> echo(const std::vector<std::any>& values) { return values; }

RAY_REMOTE(one, increment, add, shout, nothing, throw_logic_error, end_the_process, sleep_ms, big)
RAY_REMOTE(waits_for_gate, opens_gate, session_runs, name_space, variable, through_ref,
           through_two_refs, all_of, charge, count_episode, echo)
RAY_REMOTE(RAY_FUNC(overloaded, int), RAY_FUNC(overloaded, int, int))
RAY_REMOTE(one)  // once more, as from a header

class Base {
 public:
  virtual ~Base() = default;
  virtual int kind() { return 1; }
  int twice(int x) { return 2 * x; }
};
struct Second {
  int second = 2;
  int get_second() { return second; }
};
class Account : public Base, public Second {
 public:
  explicit Account(int start) : balance_(start) {}
  static Account* create() { return new Account(0); }
  static Account* create(int start) { return new Account(start); }
  static Account* create_broken() { throw std::invalid_argument("no account today"); }

  int kind() override { return 2; }
  int deposit(int amount) { return balance_ += amount; }
  int deposit_of(ray::ObjectRef<int> amount) { return deposit(*amount.Get()); }
  int balance() const { return balance_; }
  int pid() { return ::getpid(); }
  void fail() { throw std::runtime_error("overdrawn"); }
  std::string variable_here(const std::string& name) { return variable(name); }
  // How many of its calls are at work at once, if these come to be two within ten seconds.
  int meet() {
    ++inside_;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (inside_ < 2 && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return inside_;
  }
  bool restarted() { return ray::WasCurrentActorRestarted(); }
  int crash() { ::_exit(3); }
  int leave() {
    ray::ExitActor();
    return 1;
  }
  int balance_of(ray::ActorHandle<Account> other) {
    return *other.Task(&Account::balance).Remote().Get();
  }
  ray::ActorHandle<Account> open_other(int start) {
    return ray::Actor(RAY_FUNC(Account::create, int)).Remote(start);
  }
  int keep_and_ask(int start) {
    kept_ = open_other(start);
    return *kept_.Task(&Account::balance).Remote().Get();
  }

 private:
  int balance_;
  std::atomic<int> inside_{0};
  ray::ActorHandle<Account> kept_;
};
RAY_REMOTE(RAY_FUNC(Account::create), RAY_FUNC(Account::create, int), Account::create_broken,
           &Account::deposit, &Account::deposit_of, &Account::balance, &Account::pid,
           &Account::fail, &Account::restarted, &Account::crash, &Account::leave,
           &Account::balance_of, &Account::open_other, &Account::keep_and_ask,
           &Account::variable_here, &Account::meet, &Base::kind, &Base::twice, &Second::get_second)

}  // namespace

TEST_CASE("values are put and got, alone and in lists") {
  const auto number = ray::Put(12345);
  const auto text = ray::Put(std::string("abc"));

  CHECK(*number.Get() == 12345);
  CHECK(*ray::Get(number) == 12345);
  CHECK(*ray::Get(text, 1000) == "abc");
  const auto all = ray::Get(std::vector<ray::ObjectRef<int>>{number, number});
  REQUIRE(all.size() == 2);
  CHECK(*all[1] == 12345);
  CHECK(number == ray::ObjectRef<int>(number));
  CHECK(!number.ID().empty());
  CHECK(number.ID() != ray::Put(12345).ID());
}

TEST_CASE("tasks take values and refs of them") {
  const auto a = ray::Task(one).Remote();
  const auto b = ray::Task(increment).Remote(a);
  const auto c = ray::Task(add).Remote(b, 3);

  CHECK(*c.Get() == 5);
  CHECK(*ray::Task(shout).Remote("hey").Get() == "hey!");
  ray::Task(nothing).Remote().Get();
  CHECK(*ray::Task(RAY_FUNC(overloaded, int)).Remote(4).Get() == 40);
  CHECK(*ray::Task(RAY_FUNC(overloaded, int, int)).Remote(4, 5).Get() == 405);
  CHECK(*ray::Task(add).SetName("sum").SetResources({{"CPU", 1.0}}).Remote(1, 1).Get() == 2);
  CHECK(*ray::Task(one).SetResource("token", 2).Remote().Get() == 1);
  std::array<int, 100'000> values{};
  values[99'999] = 7;
  CHECK(*ray::Task(big).Remote(ray::Put(values)).Get() == values);
}

TEST_CASE("a parameter that is a ref is refused at the call, and lists of refs travel") {
  const auto number = ray::Put(42);

  CHECK_THROWS_AS(ray::Task(through_ref).Remote(ray::Put(std::string("aaa"))),
                  std::invalid_argument);
  CHECK_THROWS_AS(ray::Task(through_two_refs).Remote(ray::Put(number)), std::invalid_argument);
  auto account = ray::Actor(RAY_FUNC(Account::create, int)).Remote(3);
  CHECK_THROWS_AS(account.Task(&Account::deposit_of).Remote(number), std::invalid_argument);
  CHECK(*account.Task(&Account::balance).Remote().Get() == 3);
  const std::vector<ray::ObjectRef<int>> list{number, number};
  const auto values = *ray::Task(all_of).Remote(number, list).Get();
  REQUIRE(values.size() == 2);
  CHECK(*values[0] == 42);
}

TEST_CASE("classes with MSGPACK_DEFINE and a std::any travel") {
  const auto paid = *ray::Task(charge).Remote(Guest{"Ann", {}}, Tip("cents", 5, true)).Get();
  CHECK(paid.name == "Ann");
  CHECK(paid.due.text() == "200 cents");

  const std::vector<std::any> values{true, std::uint64_t{1} << 63, std::string("s"), 0.5, {}};
  const auto back = *ray::Task(echo).Remote(values).Get();
  REQUIRE(back.size() == 5);
  CHECK(std::any_cast<bool>(back[0]));
  CHECK(std::any_cast<std::uint64_t>(back[1]) == std::uint64_t{1} << 63);
  CHECK(std::any_cast<std::string>(back[2]) == "s");
  CHECK(std::any_cast<double>(back[3]) == 0.5);
  CHECK(!back[4].has_value());
}

TEST_CASE("Wait parts what is ready from what is not") {
  const std::vector<ray::ObjectRef<int>> objects{ray::Task(one).Remote(),
                                                 ray::Task(sleep_ms).Remote(60'000)};

  const auto first = ray::Wait(objects, 1, 20'000);
  REQUIRE(first.ready.size() == 1);
  CHECK(first.ready.front() == objects[0]);
  CHECK(first.unready.front() == objects[1]);
  const auto both = ray::Wait(objects, 2, 20);
  CHECK(both.ready.size() == 1);
  CHECK(both.unready.size() == 1);
  CHECK_THROWS_AS(objects[1].Get(20), ray::internal::RayTimeoutException);
  CHECK_THROWS_AS(ray::Get(objects, 20), ray::internal::RayTimeoutException);
  CHECK_THROWS_AS(ray::Wait(objects, 3, 20), ray::internal::RayException);
}

TEST_CASE("actors are made by factories, keep their state, and each caller's order") {
  ray::ActorHandle<Account> account = ray::Actor(RAY_FUNC(Account::create, int)).Remote(10);
  const auto a = account.Task(&Account::deposit).Remote(5);
  const auto b = account.Task(&Account::deposit).SetName("second").Remote(a);

  CHECK(*b.Get() == 30);
  CHECK(*account.Task(&Account::balance).Remote().Get() == 30);
  CHECK(*account.Task(&Account::pid).Remote().Get() != ::getpid());
  CHECK(!*account.Task(&Account::restarted).Remote().Get());
  CHECK(*account.Task(&Base::kind).Remote().Get() == 2);
  CHECK(*account.Task(&Base::twice).Remote(4).Get() == 8);
  CHECK_THROWS_AS(account.Task(&Second::get_second), ray::internal::RayException);
  CHECK(!account.ID().empty());
  CHECK(*ray::Task(session_runs).Remote().Get());
  CHECK(*ray::Task(name_space).Remote().Get() == "bank");
  CHECK(ray::GetNamespace() == "bank");
}

TEST_CASE("handles travel, and actors live on without them") {
  auto account = ray::Actor(RAY_FUNC(Account::create, int)).Remote(7);
  auto other = ray::Actor(RAY_FUNC(Account::create)).Remote();

  CHECK(*other.Task(&Account::balance_of).Remote(account).Get() == 7);
  auto child = *other.Task(&Account::open_other).Remote(3).Get();
  CHECK(*child.Task(&Account::deposit).Remote(1).Get() == 4);
  CHECK(*other.Task(&Account::keep_and_ask).Remote(9).Get() == 9);
}

TEST_CASE("errors are Ray's exceptions") {
  using namespace ray::internal;
  auto account = ray::Actor(RAY_FUNC(Account::create)).Remote();
  auto broken = ray::Actor(Account::create_broken).Remote();

  try {
    ray::Task(throw_logic_error).Remote().Get();
    FAIL("it threw nothing");
  } catch (const RayTaskException& e) {
    CHECK(std::string(e.what()).find("std::logic_error") != std::string::npos);
  }
  CHECK_THROWS_AS(account.Task(&Account::fail).Remote().Get(), RayTaskException);
  CHECK_THROWS_AS(broken.Task(&Account::balance).Remote().Get(), RayActorException);
  CHECK_THROWS_AS(ray::Task(end_the_process).Remote().Get(), RayWorkerException);
  CHECK_THROWS_AS(ray::Task(not_registered), RayFunctionNotFound);
  CHECK_THROWS_AS(ray::ObjectRef<int>().Get(), RayException);

  account.Kill();
  CHECK_THROWS_AS(account.Task(&Account::balance).Remote().Get(), RayActorException);
}

TEST_CASE("an actor that crashed starts again as often as SetMaxRestarts says") {
  auto account = ray::Actor(RAY_FUNC(Account::create, int)).SetMaxRestarts(1).Remote(5);
  CHECK(*account.Task(&Account::deposit).Remote(1).Get() == 6);

  CHECK_THROWS_AS(account.Task(&Account::crash).Remote().Get(), ray::internal::RayActorException);
  CHECK(*account.Task(&Account::deposit).Remote(1).Get() == 6);
  CHECK(*account.Task(&Account::restarted).Remote().Get());
}

TEST_CASE("actors have names, in namespaces, and are killed with and without a restart") {
  auto account =
      ray::Actor(RAY_FUNC(Account::create, int)).SetName("savings").SetMaxRestarts(1).Remote(5);
  ray::Actor(RAY_FUNC(Account::create, int)).SetName("savings", "elsewhere").Remote(6);

  boost::optional<ray::ActorHandle<Account>> found = ray::GetActor<Account>("savings");
  REQUIRE(found);
  CHECK(*found->Task(&Account::deposit).Remote(1).Get() == 6);
  CHECK(*account.Task(&Account::balance).Remote().Get() == 6);
  CHECK(*ray::GetActor<Account>("savings", "elsewhere")->Task(&Account::balance).Remote().Get() ==
        6);
  CHECK(!ray::GetActor<Account>("no such"));
  CHECK(!ray::GetActor<Account>("savings", "nowhere"));

  account.Kill(false);
  CHECK(mobula::test::eventually(std::chrono::seconds(20), [&] {
    try {
      return *account.Task(&Account::restarted).Remote().Get();
    } catch (const ray::internal::RayActorException&) {
      return false;  // it is starting
    }
  }));
  CHECK(*account.Task(&Account::balance).Remote().Get() == 5);
  account.Kill();
  CHECK_THROWS_AS(account.Task(&Account::balance).Remote().Get(), ray::internal::RayActorException);
  CHECK(!ray::GetActor<Account>("savings"));
}

TEST_CASE("SetName, SetRuntimeEnv and SetMaxConcurrency do what they say") {
  const auto words_of = [](const auto& object) -> std::string {
    try {
      object.Get();
    } catch (const ray::internal::RayTaskException& e) {
      return e.what();
    }
    return "";
  };
  ray::RuntimeEnv env;
  env.Set("env_vars", std::map<std::string, std::string>{{"OF_ONE", "yes"}});
  auto account =
      ray::Actor(RAY_FUNC(Account::create, int)).SetRuntimeEnv(env).SetMaxConcurrency(2).Remote(1);

  CHECK(words_of(ray::Task(throw_logic_error).SetName("odd one").Remote()).find("task odd one (") !=
        std::string::npos);
  CHECK(words_of(account.Task(&Account::fail).SetName("dear call").Remote())
            .find("task dear call (") != std::string::npos);
  CHECK(*ray::Task(variable).SetRuntimeEnv(env).Remote("OF_ONE").Get() == "yes");
  CHECK(ray::Task(variable).Remote("OF_ONE").Get()->empty());
  CHECK(*account.Task(&Account::variable_here).Remote("OF_ONE").Get() == "yes");
  const auto first = account.Task(&Account::meet).Remote();
  const auto second = account.Task(&Account::meet).Remote();
  CHECK(*first.Get() == 2);
  CHECK(*second.Get() == 2);
}

TEST_CASE("ExitActor ends the actor, and its call has no result") {
  auto account = ray::Actor(RAY_FUNC(Account::create)).Remote();

  CHECK_THROWS_AS(account.Task(&Account::leave).Remote().Get(), ray::internal::RayActorException);
  CHECK_THROWS_AS(account.Task(&Account::balance).Remote().Get(), ray::internal::RayActorException);
  CHECK_THROWS_AS(ray::ExitActor(), ray::internal::RayException);
}

TEST_CASE("what demands more than there is waits, as in Ray, and never runs") {
  const auto task = ray::Task(one).SetResource("CPU", 10'000).Remote();
  auto actor = ray::Actor(RAY_FUNC(Account::create)).SetResource("CPU", 10'000).Remote();
  const auto call = actor.Task(&Account::balance).Remote();

  const auto waited = ray::Wait(std::vector<ray::ObjectRef<int>>{task, call}, 1, 50);
  CHECK(waited.ready.empty());
  CHECK(waited.unready.size() == 2);
  CHECK_THROWS_AS(task.Get(20), ray::internal::RayTimeoutException);
  CHECK_THROWS_AS(task.Get(), ray::internal::RayException);
  CHECK_THROWS_AS(ray::Task(increment).Remote(task), ray::internal::RayException);
  CHECK(ray::Wait(std::vector<ray::ObjectRef<int>>{task, ray::Put(1)}, 1, 20'000).ready.size() ==
        1);
}

TEST_CASE("resources are checked as Ray checks them") {
  using ray::internal::CheckTaskOptions;
  CHECK_THROWS_AS(CheckTaskOptions({{"", 1}}), ray::internal::RayException);
  CHECK_THROWS_AS(CheckTaskOptions({{"dummy", 0}}), ray::internal::RayException);
  CHECK_THROWS_AS(CheckTaskOptions({{"dummy", 2.5}}), ray::internal::RayException);
  CHECK_NOTHROW(CheckTaskOptions({{"dummy", 2.0}, {"half", 0.5}}));
  CHECK(ray::internal::parse_resources(R"({"a": 1, "b" :0.5})") ==
        std::map<std::string, double>{{"a", 1}, {"b", 0.5}});
  CHECK(ray::internal::parse_resources("{}").empty());
  for (const char* broken : {"", "{", "[1]", R"({"a"})", R"({"a":x})", R"({"a":1 "b":2})"})
    CHECK_THROWS_AS(ray::internal::parse_resources(broken), ray::internal::RayException);
}

TEST_CASE("a runtime environment takes what it understands, and says what it does not") {
  ray::RuntimeEnv env;
  CHECK(env.Empty());
  env.Set("env_vars", std::map<std::string, std::string>{{"KEY", "value"}});
  env.Set("working_dir", "/tmp");
  CHECK(env.Get<std::string>("working_dir") == "/tmp");
  CHECK(env.understood().env_vars.at("KEY") == "value");
  CHECK(env.understood().working_dir == "/tmp");
  CHECK_THROWS_AS(env.Get<std::string>("pip"), ray::internal::RayRuntimeEnvException);
  CHECK(env.Remove("working_dir"));
  CHECK(!env.Remove("working_dir"));

  env.Set("conda", std::string("py310"));
  CHECK_THROWS_AS(ray::Task(one).SetRuntimeEnv(env), ray::internal::RayRuntimeEnvException);
}

TEST_CASE("metrics are counted, and bad ones are refused") {
  const std::string shown = *ray::Task(count_episode).Remote().Get();
  CHECK(shown.find("# HELP ray_episodes that were simulated (pcs)\n") != std::string::npos);
  CHECK(shown.find("ray_episodes{map=\"ice\"} 2\n") != std::string::npos);
  CHECK(shown.find("ray_depth 7\n") != std::string::npos);
  CHECK(shown.find("ray_rewards_bucket{le=\"10\"} 1\n") != std::string::npos);
  CHECK(shown.find("ray_steps 2.5\n") != std::string::npos);

  using ray::internal::RayException;
  ray::Counter counter("ray_counter", "", "", {"map"});
  CHECK(counter.GetName() == "ray_counter");
  CHECK_THROWS_AS(counter.Inc(1, {{"lake", "ice"}}), RayException);
  CHECK_THROWS_AS(counter.Inc(-1, {}), RayException);
  CHECK_THROWS_AS(ray::Gauge("no name", "", ""), RayException);
}

TEST_CASE("what is not built is refused at the call") {
  using ray::internal::RayException;
  CHECK_THROWS_AS(ray::Task(ray::PyFunction<int>{"module", "f"}).Remote(1), RayException);
  CHECK_THROWS_AS(ray::Task(ray::JavaFunction<int>{"Class", "f"}).Remote(1), RayException);
  CHECK_THROWS_AS(ray::Actor(ray::PyActorClass{"module", "Class"}).Remote(1), RayException);
}

namespace {
ray::PlacementGroup group_of(const std::string& group_name, double cpus) {
  return ray::CreatePlacementGroup(
      {group_name, {{{"CPU", cpus}}}, ray::PlacementStrategy::STRICT_PACK});
}
}  // namespace

TEST_CASE("placement groups are made, found, used by tasks and actors, and removed") {
  ray::PlacementGroup group = group_of("rack", 1);
  CHECK(group.Wait(20));
  CHECK(group.GetState() == ray::PlacementGroupState::CREATED);
  CHECK(group.GetName() == "rack");
  CHECK(group.GetStrategy() == ray::PlacementStrategy::STRICT_PACK);
  CHECK(group.GetBundles().size() == 1);
  CHECK(ray::GetPlacementGroup("rack").GetID() == group.GetID());
  CHECK(ray::GetPlacementGroupById(group.GetID()).GetBundles()[0].at("CPU") == 1);
  CHECK(ray::GetAllPlacementGroups().size() == 1);
  CHECK(ray::GetPlacementGroup("shelf").Empty());
  CHECK_THROWS_AS(group_of("rack", 1), ray::internal::RayException);

  CHECK(*ray::Task(one).SetResource("CPU", 1).SetPlacementGroup(group, 0).Remote().Get() == 1);
  auto account = ray::Actor(RAY_FUNC(Account::create, int))
                     .SetResource("CPU", 1)
                     .SetPlacementGroup(group, -1)
                     .Remote(3);
  CHECK(*account.Task(&Account::deposit).Remote(1).Get(20'000) == 4);
  const auto too_much = ray::Task(one).SetResource("CPU", 2).SetPlacementGroup(group, 0).Remote();
  CHECK(ray::Wait(std::vector<ray::ObjectRef<int>>{too_much}, 1, 20).unready.size() == 1);

  ray::RemovePlacementGroup(group.GetID());
  ray::RemovePlacementGroup(group.GetID());
  CHECK(ray::GetPlacementGroupById(group.GetID()).GetState() == ray::PlacementGroupState::REMOVED);
  CHECK(!group.Wait(1));
  CHECK_THROWS_AS(account.Task(&Account::balance).Remote().Get(), ray::internal::RayActorException);
  CHECK(ray::GetAllPlacementGroups().empty());
  CHECK(ray::PlacementGroup().GetState() == ray::PlacementGroupState::UNRECOGNIZED);
}

TEST_CASE(
    "a placement group that can never be had stays pending, and so does what is placed in it") {
  ray::PlacementGroup group = group_of("palace", 10'000);

  CHECK(!group.Wait(0));
  CHECK(group.GetState() == ray::PlacementGroupState::PENDING);
  CHECK_THROWS_AS(group_of("palace", 1), ray::internal::RayException);
  const auto task = ray::Task(one).SetPlacementGroup(group, 0).Remote();
  CHECK(ray::Wait(std::vector<ray::ObjectRef<int>>{task}, 1, 20).unready.size() == 1);

  ray::RemovePlacementGroup(group.GetID());
  CHECK(ray::GetPlacementGroupById(group.GetID()).GetState() == ray::PlacementGroupState::REMOVED);
  CHECK(ray::GetPlacementGroup("palace").Empty());
  CHECK(!group.Wait(0));
}

TEST_CASE("the job's environment variables are the workers', and not the driver's") {
  CHECK(*ray::Task(variable).Remote("OF_THE_JOB").Get() == "1");
  CHECK(variable("OF_THE_JOB").empty());
}

TEST_CASE("a further session has its own namespace and environment") {
  ray::Shutdown();
  CHECK(!ray::IsInitialized());
  ray::RayConfig config;
  config.ray_namespace = "other";
  ray::Init(config);

  CHECK(*ray::Task(name_space).Remote().Get() == "other");
  CHECK(ray::Task(variable).Remote("OF_THE_JOB").Get()->empty());
}

TEST_CASE("in local mode a task may wait for what another one does to the process") {
  ray::Shutdown();
  ray::RayConfig config;
  config.local_mode = true;
  ray::Init(config);

  const auto waits = ray::Task(waits_for_gate).Remote();
  const auto opens = ray::Task(opens_gate).Remote(waits);

  CHECK(*opens.Get(20'000) == 7);
}

TEST_CASE("in local mode a parameter that is a ref gets the ref") {
  ray::Shutdown();
  ray::RayConfig config;
  config.local_mode = true;
  ray::Init(config);

  CHECK(*ray::Task(through_ref).Remote(ray::Put(std::string("aaa"))).Get() == "aaa");
  CHECK(*ray::Task(through_two_refs).Remote(ray::Put(ray::Put(42))).Get() == 42);
}

int main(int argc, char** argv) {
  const mobula::test::WorkerReports reports;
  ray::RayConfig config;
  config.head_args = {"--num-cpus", "2", "--resources", R"({"token": 2})"};
  config.ray_namespace = "bank";
  ray::RuntimeEnv env;
  env.Set("env_vars", std::map<std::string, std::string>{{"OF_THE_JOB", "1"}});
  config.runtime_env = env;
  ray::Init(config, argc, argv);
  ray::Init();  // once more does nothing
  doctest::Context context(argc, argv);
  const int failed = context.run();
  ray::Shutdown();
  return failed != 0 ? failed : reports.none_unexpected() ? 0 : 1;
}
