// Tasks as a user meets them: what docs and headers promise about remote and its options, over one
// session with two CPUs.
#include "support/scenario.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::amount_of;
using mobula::test::eventually;
using mobula::test::needs_workers;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace tasks {

int seven() { return 7; }
void nothing() {}
int square(int x) { return x * x; }
int busy_then_waits(int x) {
  const auto end = mobula::test::Clock::now() + std::chrono::milliseconds(200);
  while (mobula::test::Clock::now() < end) {
  }
  return mobula::get(remote<square>(remote<square>(x)));  // cannot run both in place
}
int add(int a, int b) { return a + b; }
std::string join(const std::string& a, int b, const std::string& c) {
  return a + std::to_string(b) + c;
}
int increment(const int& x) { return x + 1; }
int append_and_count(std::string& text) {
  text += "!";
  return static_cast<int>(text.size());
}
int quiet(int x) noexcept { return -x; }

// A node of a task graph. The value depends on every input and on its place among them, so that an
// edge that is missed, doubled or confused with another one shows in all that follows.
std::uint64_t node(std::uint64_t salt, const std::vector<std::uint64_t>& inputs) {
  std::uint64_t hash = salt * 0x9e3779b97f4a7c15u + 1;
  for (const std::uint64_t input : inputs) hash = (hash ^ input) * 0x100000001b3u + (hash >> 29);
  return hash;
}
int sum(const std::vector<int>& values) { return std::accumulate(values.begin(), values.end(), 0); }

struct Geometry {
  static double area(double width, double height) { return width * height; }
};

int depth_three() { return 3; }
int depth_two() { return mobula::get(remote<depth_three>()) + 20; }
int depth_one() { return mobula::get(remote<depth_two>()) + 100; }

int fib(int n) {
  if (n < 2) return n;
  const Ref<int> a = remote<fib>(n - 1);
  const Ref<int> b = remote<fib>(n - 2);
  return mobula::get(a) + mobula::get(b);
}

struct Order {
  std::string name;
  Ref<int> price;
  std::vector<Ref<int>> extras;
  std::map<std::string, Ref<std::string>> notes;
};
std::string total(const Order& order) {
  int cost = mobula::get(order.price);
  for (const int extra : mobula::get(order.extras)) cost += extra;
  return order.name + " " + std::to_string(cost) + " " + mobula::get(order.notes.at("to"));
}
Ref<int> square_later(int x) { return remote<square>(x); }
std::vector<Ref<int>> squares_later(int count) {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < count; ++i) refs.push_back(remote<square>(i));
  return refs;
}
Order order_of(int price) {
  return {"tea", mobula::put(price), {remote<square>(2)}, {{"to", mobula::put("you")}}};
}
int get_of(Ref<int> ref) { return mobula::get(ref) + 1000; }
Ref<int> pass_on(Ref<int> ref) { return ref; }
int gated_noting(std::string gate, std::string entered) {
  open_gate(entered);
  wait_at_gate(gate);
  return 1;
}

std::tuple<int, std::string, std::vector<double>> three_things(int n) {
  return {n, std::string(static_cast<std::size_t>(n), 'x'), std::vector<double>(3, n)};
}

struct Seen {
  std::string job, task, actor, node, name;
  int attempt = -1;
  std::map<std::string, double> resources;
  int process = 0;
};
Seen look() {
  const mobula::TaskInfo info = mobula::this_task();
  return {info.job_id, info.task_id, info.actor_id,  info.node_id,
          info.name,   info.attempt, info.resources, static_cast<int>(::getpid())};
}

template <class T>
T echo(T value) {
  return value;
}

}  // namespace tasks

TEST_CASE("a remote call returns what the function returns") {
  const Ref<int> a = remote<tasks::seven>();
  const Ref<void> b = remote<tasks::nothing>();
  const Ref<int> c = remote<tasks::square>(12);

  CHECK(mobula::get(a) == 7);
  mobula::get(b);
  CHECK(mobula::get(c) == 144);
  CHECK(mobula::get(c) == 144);  // a value can be asked for again
}

TEST_CASE("an argument is a value or a Ref of it, in any mixture") {
  const Ref<std::string> first = mobula::put(std::string("a"));
  const Ref<int> second = remote<tasks::square>(5);

  CHECK(mobula::get(remote<tasks::join>(first, second, "c")) == "a25c");
  CHECK(mobula::get(remote<tasks::join>("a", second, first)) == "a25a");
  CHECK(mobula::get(remote<tasks::join>(first, 3, first)) == "a3a");
  CHECK(mobula::get(remote<tasks::add>(second, second)) == 50);
  CHECK(mobula::get(remote<tasks::add>(second, 1)) == 26);
}

TEST_CASE("arguments convert as in a local call") {
  const short small = 3;
  CHECK(mobula::get(remote<tasks::square>(small)) == 9);
  CHECK(mobula::get(remote<tasks::Geometry::area>(2, 1.5F)) == 3.0);
}

TEST_CASE("reference parameters bind to the value that arrived") {
  const Ref<std::string> text = mobula::put("word");

  CHECK(mobula::get(remote<tasks::increment>(1)) == 2);
  CHECK(mobula::get(remote<tasks::append_and_count>("abc")) == 4);
  CHECK(mobula::get(remote<tasks::append_and_count>(text)) == 5);
  CHECK(mobula::get(text) == "word");  // objects are immutable
}

TEST_CASE("tasks start tasks and wait for them, three deep") {
  CHECK(mobula::get(remote<tasks::depth_one>()) == 123);
}

TEST_CASE("recursion by remote calls ends with two workers") {
  CHECK(mobula::get(remote<tasks::fib>(scaled(15, 9))) == scaled(610, 34));
}

TEST_CASE("a worker that another class was promised may still wait for a task of its own") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 2; ++i) refs.push_back(remote<tasks::busy_then_waits>(i));
  std::this_thread::sleep_for(50ms);
  // Wants both CPUs, so the two workers above are told to leave while they run.
  refs.push_back(remote<tasks::square>.with({.num_cpus = 2})(2));

  CHECK(mobula::get(refs[0], 20s) == 0);
  CHECK(mobula::get(refs[1], 20s) == 1);
  CHECK(mobula::get(refs[2], 20s) == 4);
}

TEST_CASE("refs travel inside of structs and containers") {
  const tasks::Order order{"bread",
                           remote<tasks::square>(4),
                           {mobula::put(1), remote<tasks::square>(2)},
                           {{"to", mobula::put("me")}}};

  CHECK(mobula::get(remote<tasks::total>(order)) == "bread 21 me");
  CHECK(mobula::get(remote<tasks::total>(mobula::put(order))) == "bread 21 me");
}

TEST_CASE("refs inside of an object keep what they name alive") {
  Ref<std::vector<Ref<int>>> box;
  {
    std::vector<Ref<int>> inner;
    for (int i = 0; i < 100; ++i) inner.push_back(remote<tasks::square>(i));
    box = mobula::put(inner);
  }
  // other work that would take over records that are wrongly free
  for (int i = 0; i < 300; ++i) mobula::get(remote<tasks::square>(7777));

  const std::vector<int> values = mobula::get(mobula::get(box));

  for (int i = 0; i < 100; ++i) CHECK(values[static_cast<std::size_t>(i)] == i * i);
}

TEST_CASE("a task returns refs, alone, in vectors and in structs") {
  CHECK(mobula::get(mobula::get(remote<tasks::square_later>(6))) == 36);
  CHECK(mobula::get(mobula::get(remote<tasks::squares_later>(4))) == std::vector<int>{0, 1, 4, 9});
  CHECK(mobula::get(remote<tasks::total>(remote<tasks::order_of>(8))) == "tea 12 you");
}

TEST_CASE("a Ref is a value: it can be copied, compared, hashed, and be empty") {
  struct Base {};
  struct Derived : Base {};
  static_assert(std::is_copy_constructible_v<Ref<int>> && std::is_copy_assignable_v<Ref<int>>);
  static_assert(!std::is_convertible_v<Ref<Derived>, Ref<Base>>);
  static_assert(!std::is_convertible_v<Ref<int>, Ref<long>>);

  const Ref<int> a = mobula::put(1);
  const Ref<int> b = mobula::put(1);
  const Ref<int> copy = a;
  CHECK(copy == a);
  CHECK(a != b);  // of another object, though the value is equal
  CHECK(std::unordered_set<Ref<int>>{a, b, copy, Ref<int>{}}.size() == 3);
  CHECK(std::set<Ref<int>>{a, b, copy}.size() == 2);
  CHECK(a);
  CHECK_FALSE(Ref<int>{});
  CHECK(Ref<int>{} == Ref<int>{});
}

TEST_CASE("a parameter Ref<T> gets the ref, and not the value") {
  const Ref<int> ref = remote<tasks::square>(3);

  CHECK(mobula::get(remote<tasks::get_of>(ref)) == 1009);
  CHECK(mobula::get(remote<tasks::get_of>(remote<tasks::square_later>(3))) == 1009);
  CHECK(mobula::get(remote<tasks::pass_on>(ref)) == ref);
}

TEST_CASE("lambdas of one signature in one function do not meet") {
  const Ref<int> plus = remote<[](int x) { return x + 1; }>(10);
  const Ref<int> times = remote<[](int x) { return x * 3; }>(10);
  const Ref<int> minus = remote<[](int x) { return x - 1; }>(10);

  CHECK(mobula::get(plus) == 11);
  CHECK(mobula::get(times) == 30);
  CHECK(mobula::get(minus) == 9);
  // in one line, and out of one macro, too
#define BOTH(a, b) remote<[](int x) { return x + a; }>(1), remote<[](int x) { return x + b; }>(1)
  const std::vector<Ref<int>> both{BOTH(10, 100)};
  CHECK(mobula::get(both) == std::vector{11, 101});
#undef BOTH
}

TEST_CASE("static methods, noexcept functions and templates are remote functions") {
  CHECK(mobula::get(remote<tasks::Geometry::area>(2.0, 4.0)) == 8.0);
  CHECK(mobula::get(remote<tasks::quiet>(4)) == -4);
  CHECK(mobula::get(remote<&tasks::quiet>(5)) == -5);
  CHECK(mobula::get(remote<tasks::echo<std::string>>("template")) == "template");
}

TEST_CASE("with sets the name, the CPUs and the user's resources of a task") {
  const auto seen = mobula::get(
      remote<tasks::look>.with({.num_cpus = 0.5, .resources = {{"lamp", 1}}, .name = "reading"})());

  CHECK(seen.name == "reading");
  CHECK(seen.resources.at("CPU") == 0.5);
  CHECK(seen.resources.at("lamp") == 1);

  CHECK(mobula::get(remote<tasks::square>.with({.num_cpus = 0})(3)) == 9);
  CHECK(mobula::get(remote<tasks::square>.with({.num_cpus = 2})(4)) == 16);
  CHECK(mobula::get(remote<tasks::square>.with({.max_retries = -1})(5)) == 25);
  CHECK(mobula::get(remote<tasks::square>.with({.resources = {{"lamp", 0.25}}})(6)) == 36);
}

TEST_CASE("a tuple's elements become one object each with unpacked") {
  auto [number, text, values] = remote<tasks::three_things>.unpacked(4);

  CHECK(mobula::get(number) == 4);
  CHECK(mobula::get(text) == "xxxx");
  CHECK(mobula::get(values) == std::vector<double>{4, 4, 4});
  CHECK(mobula::get(remote<tasks::square>(number)) == 16);

  auto [again, rest, more] = remote<tasks::three_things>.with({.num_cpus = 0.5}).unpacked(2);
  CHECK(mobula::get(again) == 2);
  CHECK(mobula::get(rest) == "xx");
  CHECK(mobula::get(more).size() == 3);
}

// --- what a task knows, what a node has ---

TEST_CASE("this_task tells what runs, where and as which attempt" * needs_workers()) {
  const tasks::Seen here = mobula::get(remote<tasks::look>());
  const tasks::Seen other = mobula::get(remote<tasks::look>());
  const mobula::TaskInfo driver = mobula::this_task();

  CHECK(here.job.size() == 16);
  CHECK(here.task.size() == 32);
  CHECK(here.job == driver.job_id);
  CHECK(here.task != other.task);
  CHECK(here.actor.empty());
  CHECK(here.node == driver.node_id);
  CHECK(!here.node.empty());
  CHECK(here.name.find("look") != std::string::npos);
  CHECK(here.attempt == 0);
  CHECK(here.resources.at("CPU") == 1);
  CHECK(here.process != ::getpid());
  CHECK(driver.task_id.size() == 32);
}

TEST_CASE("the resources of the node are told, all of them and those not held" * needs_workers()) {
  Scratch scratch;
  const std::map<std::string, double> all = mobula::cluster_resources();
  CHECK(all.at("CPU") == 2);
  CHECK(all.at("lamp") == 1);
  CHECK(all.at("object_store_memory") > 0);
  REQUIRE(mobula::nodes().size() == 1);
  CHECK(mobula::nodes()[0].alive);
  CHECK(mobula::nodes()[0].resources.at("CPU") == 2);

  const Ref<int> holder = remote<tasks::gated_noting>.with({.resources = {{"lamp", 1}}})(
      scratch.file("gate"), scratch.file("entered"));
  REQUIRE(eventually(20s, [&] { return mobula::test::gate_is_open(scratch.file("entered")); }));
  const auto held = mobula::available_resources();
  CHECK(amount_of(held, "CPU") <= 1);
  CHECK(amount_of(held, "lamp") == 0);

  open_gate(scratch.file("gate"));
  mobula::get(holder);
  CHECK(eventually(10s, [] {
    const auto free = mobula::available_resources();
    return amount_of(free, "CPU") == 2 && amount_of(free, "lamp") == 1;
  }));
}

TEST_CASE("a task holds the GPUs and the memory that it asks for") {
  const std::map<std::string, double> all = mobula::cluster_resources();
  CHECK(all.at("GPU") == 1);
  CHECK(all.at("memory") > 64 << 20);

  const auto seen =
      mobula::get(remote<tasks::look>.with({.num_cpus = 1, .num_gpus = 0.5, .memory = 64 << 20})());

  CHECK(seen.resources.at("GPU") == 0.5);
  CHECK(seen.resources.at("memory") == 64 << 20);
  CHECK(mobula::get(remote<tasks::look>()).resources.count("GPU") == 0);
}

TEST_CASE("two tasks that want one lamp do not hold it together") {
  Scratch scratch;
  const std::string light = scratch.file("light");
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 20; ++i) {
    refs.push_back(remote<[](std::string file) {
                     const int fd =
                         ::open(file.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
                     if (fd < 0) return 1;  // somebody else holds the lamp
                     std::this_thread::sleep_for(1ms);
                     ::close(fd);
                     ::unlink(file.c_str());
                     return 0;
                   }>.with({.num_cpus = 0.1, .resources = {{"lamp", 1}}})(light));
  }

  for (const int clash : mobula::get(refs)) CHECK(clash == 0);
}

// --- threads ---

TEST_CASE("threads of the driver submit and get side by side") {
  constexpr int kRounds = scaled(5000, 2000);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t, &wrong] {
      std::vector<Ref<int>> window;
      std::vector<int> expected;
      const auto settle = [&] {
        const std::vector<int> values = mobula::get(window);
        for (std::size_t i = 0; i < values.size(); ++i) wrong += values[i] != expected[i];
        window.clear();
        expected.clear();
      };
      for (int i = 0; i < kRounds; ++i) {
        const int a = i % 1000 + t;
        window.push_back(remote<tasks::add>(remote<tasks::square>(a), t));
        expected.push_back(a * a + t);
        if (window.size() == 50) settle();
        if (i % 10 == 0) wrong += mobula::get(remote<tasks::square>(t)) != t * t;
      }
      settle();
    });
  }
  for (std::thread& thread : threads) thread.join();

  CHECK(wrong == 0);
}

TEST_CASE("threads share refs, and each may get them") {
  const Ref<std::vector<int>> shared = mobula::put(std::vector<int>(1000, 3));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&shared, &wrong] {
      for (int i = 0; i < scaled(500, 300); ++i) {
        const Ref<std::vector<int>> mine = shared;
        wrong += mobula::get(remote<tasks::sum>(mine)) != 3000;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  CHECK(wrong == 0);
}

TEST_CASE("fifty thousand tasks are in flight at once") {
  const int count = scaled(50'000, 20'000);
  std::vector<Ref<int>> refs;
  refs.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) refs.push_back(remote<tasks::increment>(i));

  const std::vector<int> values = mobula::get(refs);

  int wrong = 0;
  for (int i = 0; i < count; ++i) wrong += values[static_cast<std::size_t>(i)] != i + 1;
  CHECK(wrong == 0);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2,
                                       .num_gpus = 1,
                                       .resources = {{"lamp", 1}},
                                       .object_store_memory = 512ULL << 20});
}
