// Tasks and objects as a user meets them: what docs and headers promise about remote, get, wait,
// put and views, over one session with two CPUs.
#include "support/scenario.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <complex>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::amount_of;
using mobula::test::Clock;
using mobula::test::eventually;
using mobula::test::needs_workers;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::since;
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
std::string spell(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += word;
  return text;
}
std::vector<int> sorted(std::vector<int> values) {
  std::sort(values.begin(), values.end());
  return values;
}
int longest(std::vector<std::vector<int>>&& rows) {
  std::size_t most = 0;
  for (const std::vector<int>& row : rows) most = std::max(most, row.size());
  return static_cast<int>(most);
}

// A node of a task graph. The value depends on every input and on its place among them, so that an
// edge that is missed, doubled or confused with another one shows in all that follows.
std::uint64_t node(std::uint64_t salt, const std::vector<std::uint64_t>& inputs) {
  std::uint64_t hash = salt * 0x9e3779b97f4a7c15u + 1;
  for (const std::uint64_t input : inputs) hash = (hash ^ input) * 0x100000001b3u + (hash >> 29);
  return hash;
}
std::uint64_t link(std::uint64_t salt, std::uint64_t input) { return node(salt, {input}); }
std::uint64_t pair(std::uint64_t salt, std::uint64_t a, std::uint64_t b) {
  return node(salt, {a, b});
}
std::uint64_t gated_number(std::string gate, std::uint64_t value) {
  wait_at_gate(gate);
  return value;
}
std::uint64_t gated_failure(std::string gate) {
  wait_at_gate(gate);
  throw std::out_of_range("the first of them failed");
}
int sum(const std::vector<int>& values) { return std::accumulate(values.begin(), values.end(), 0); }
class Adder {
 public:
  int add(const std::vector<int>& values) { return total_ += sum(values); }

 private:
  int total_ = 0;
};
template <class... T>
long sum_of(T... values) {
  return (static_cast<long>(values) + ...);
}

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
int sum_refs(const std::vector<Ref<int>>& refs) {
  int all = 0;
  for (const Ref<int>& ref : refs) all += mobula::get(ref);
  return all;
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

int gated(std::string gate, int value) {
  wait_at_gate(gate);
  return value;
}
int gated_noting(std::string gate, std::string entered) {
  open_gate(entered);
  wait_at_gate(gate);
  return 1;
}
int fail(int code) { throw std::runtime_error("failed with " + std::to_string(code)); }

std::tuple<int, std::string, std::vector<double>> three_things(int n) {
  return {n, std::string(static_cast<std::size_t>(n), 'x'), std::vector<double>(3, n)};
}

// The place of what a task reads: inside of its node's memory, or a copy of its own.
double sum_span(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}
std::size_t length_of(std::string_view text) { return text.size(); }
double sum_view(mobula::View<double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}
double sum_const_view(const mobula::View<double>& values) { return values[0] + values[1]; }
int count_bytes(std::span<const std::byte> bytes) { return static_cast<int>(bytes.size()); }
std::uintptr_t distance_of_two(std::span<const double> a, std::span<const double> b) {
  return static_cast<std::uintptr_t>(
      std::abs(reinterpret_cast<const char*>(a.data()) - reinterpret_cast<const char*>(b.data())));
}
void scribble(std::span<const double> values) {
  auto* memory = const_cast<double*>(values.data());
  *static_cast<volatile double*>(memory) = 1;
}

std::string reverse(std::string text) { return {text.rbegin(), text.rend()}; }
std::vector<std::uint8_t> complement(std::vector<std::uint8_t> bytes) {
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(~byte);
  return bytes;
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

// --- remote ---

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

TEST_CASE("a diamond of data edges meets in one value") {
  const Ref<int> top = remote<tasks::square>(3);
  const Ref<int> left = remote<tasks::increment>(top);
  const Ref<int> right = remote<tasks::square>(top);
  const Ref<int> bottom = remote<tasks::add>(left, right);

  CHECK(mobula::get(bottom) == 10 + 81);
}

TEST_CASE("one task waits for 50 others") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 50; ++i) refs.push_back(remote<tasks::square>(i));
  const int expected = 49 * 50 * 99 / 6;

  const Ref<long> edges = [&]<std::size_t... I>(std::index_sequence<I...>) {
    return remote<tasks::sum_of<decltype(static_cast<int>(I))...>>(refs[I]...);
  }(std::make_index_sequence<50>{});

  CHECK(mobula::get(edges) == expected);
  CHECK(mobula::get(remote<tasks::sum_refs>(refs)) == expected);
}

TEST_CASE("a thousand tasks hang on one value and all get it" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<int> one = remote<tasks::gated>(gate, 5);
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 1000; ++i) refs.push_back(remote<tasks::add>(one, i));

  open_gate(gate);

  const std::vector<int> values = mobula::get(refs);
  for (int i = 0; i < 1000; ++i) REQUIRE(values[static_cast<std::size_t>(i)] == 5 + i);
}

TEST_CASE("a chain of a thousand tasks ends with all steps done" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  Ref<int> last = remote<tasks::gated>(gate, 0);
  for (int i = 0; i < 1000; ++i) last = remote<tasks::increment>(last);

  open_gate(gate);

  CHECK(mobula::get(last) == 1000);
}

// --- task graphs ---

namespace {

std::vector<std::uint64_t> numbers(std::uint64_t first, std::uint64_t count) {
  std::vector<std::uint64_t> all(count);
  std::iota(all.begin(), all.end(), first);
  return all;
}

template <class T>
bool is_pending(const Ref<T>& ref) {
  return mobula::wait(std::vector{ref}, {.timeout = 0ms}).ready.empty();
}

}  // namespace

TEST_CASE("a vector of Refs stands for a vector of values") {
  const std::vector<Ref<std::string>> words{mobula::put("to "), mobula::put("be "),
                                            mobula::put(std::string(5000, 'e'))};
  const std::vector<Ref<int>> squares{remote<tasks::square>(3), remote<tasks::square>(-1),
                                      remote<tasks::square>(2)};
  const std::vector<Ref<std::vector<int>>> rows{mobula::put(std::vector{1, 2}),
                                                remote<tasks::sorted>(squares)};
  const auto adder = mobula::actor<tasks::Adder>();

  CHECK(mobula::get(remote<tasks::spell>(words)) == "to be " + std::string(5000, 'e'));
  CHECK(mobula::get(remote<tasks::spell>(std::vector{words[1], words[0], words[1]})) ==
        "be to be ");
  CHECK(mobula::get(remote<tasks::sorted>(squares)) == std::vector{1, 4, 9});
  CHECK(mobula::get(remote<tasks::longest>(rows)) == 3);
  CHECK(mobula::get(remote<tasks::sum>(std::vector<Ref<int>>{})) == 0);
  CHECK(mobula::get(remote<tasks::sum>(remote<tasks::sorted>(squares))) == 14);
  CHECK(mobula::get(adder.call<&tasks::Adder::add>(squares)) == 14);
  CHECK(mobula::get(adder.call<&tasks::Adder::add>(std::vector{squares[0]})) == 23);
  CHECK(mobula::get(remote<tasks::sum_refs>(squares)) == 14);  // a parameter of Refs gets these
  CHECK_THROWS_AS(remote<tasks::sum>(std::vector<Ref<int>>(2)), mobula::Error);
}

TEST_CASE("a task waits for ten thousand values and gets each in its place" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<std::uint64_t> first = remote<tasks::gated_number>(gate, 7u);
  std::vector<Ref<std::uint64_t>> refs;
  std::vector<std::uint64_t> expected;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    // every third is there already
    refs.push_back(i % 3 == 0 ? mobula::put(i) : remote<tasks::link>(i, first));
    expected.push_back(i % 3 == 0 ? i : tasks::link(i, 7));
  }

  const Ref<std::uint64_t> all = remote<tasks::node>(1u, refs);
  refs.clear();  // the call keeps what it needs

  CHECK(is_pending(all));
  open_gate(gate);
  CHECK(mobula::get(all) == tasks::node(1, expected));
}

TEST_CASE("a hundred thousand tasks depend on one value" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<std::uint64_t> first = remote<tasks::gated_number>(gate, 3u);
  const auto count = static_cast<std::uint64_t>(scaled(100'000, 10'000));
  std::vector<Ref<std::uint64_t>> refs;
  for (std::uint64_t i = 0; i < count; ++i) refs.push_back(remote<tasks::link>(i, first));

  CHECK(is_pending(refs.back()));
  open_gate(gate);

  const std::vector<std::uint64_t> values = mobula::get(refs);
  for (std::uint64_t i = 0; i < count; ++i) REQUIRE(values[i] == tasks::link(i, 3));
}

TEST_CASE("a hundred thousand tasks wait each for the one before" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto count = static_cast<std::uint64_t>(scaled(100'000, 10'000));
  Ref<std::uint64_t> last = remote<tasks::gated_number>(gate, 5u);
  std::uint64_t expected = 5;
  for (const std::uint64_t i : numbers(0, count)) {
    last = remote<tasks::link>(i, last);
    expected = tasks::link(i, expected);
  }

  CHECK(is_pending(last));
  open_gate(gate);
  CHECK(mobula::get(last) == expected);
}

TEST_CASE("a thousand diamonds hang on each other" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  Ref<std::uint64_t> top = remote<tasks::gated_number>(gate, 9u);
  std::uint64_t expected = 9;
  for (const std::uint64_t i : numbers(0, 1000)) {
    const Ref<std::uint64_t> left = remote<tasks::link>(2 * i, top);
    const Ref<std::uint64_t> right = remote<tasks::link>(2 * i + 1, top);
    top = remote<tasks::pair>(i, left, right);
    expected = tasks::pair(i, tasks::link(2 * i, expected), tasks::link(2 * i + 1, expected));
  }

  open_gate(gate);
  CHECK(mobula::get(top) == expected);
}

TEST_CASE("a graph of thirty thousand tasks is submitted before anything of it runs" *
          needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto count = static_cast<std::uint64_t>(scaled(30'000, 3'000));
  std::vector<Ref<std::uint64_t>> refs{remote<tasks::gated_number>(gate, 11u)};
  std::vector<std::uint64_t> expected{11};
  std::mt19937_64 random(4117);
  for (std::uint64_t i = 1; i < count; ++i) {
    // mostly what is near, now and then something from the beginning; up to 30 inputs
    const std::uint64_t reach = std::min<std::uint64_t>(i, random() % 8 == 0 ? i : 100);
    std::vector<Ref<std::uint64_t>> inputs;
    std::vector<std::uint64_t> values;
    for (std::uint64_t n = 1 + random() % 30; n > 0; --n) {
      const std::uint64_t from = i - 1 - random() % reach;
      inputs.push_back(refs[from]);
      values.push_back(expected[from]);
    }
    refs.push_back(remote<tasks::node>(i, inputs));
    expected.push_back(tasks::node(i, values));
  }

  CHECK(is_pending(refs[1]));
  open_gate(gate);
  CHECK(mobula::get(refs) == expected);
}

TEST_CASE("a failed input fails all that depend on it, however far, with its own error" *
          needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<std::uint64_t> bad = remote<tasks::gated_failure>(gate);
  const Ref<std::uint64_t> good = remote<tasks::gated_number>(gate, 2u);
  std::vector<Ref<std::uint64_t>> many(1000, good);
  many.push_back(bad);
  std::vector<Ref<std::uint64_t>> failing{
      remote<tasks::node>(1u, many),
      remote<tasks::node>(2u, std::vector{good, bad}),
      remote<tasks::link>(3u, bad),
  };
  for (std::uint64_t i = 0; i < 100; ++i) {
    const std::size_t from = failing.size() - 3;
    failing.push_back(remote<tasks::link>(i, failing[from]));
    failing.push_back(remote<tasks::pair>(i, good, failing[from + 1]));
    failing.push_back(remote<tasks::node>(i, std::vector{good, failing[from + 2], good}));
  }
  const Ref<std::uint64_t> apart = remote<tasks::node>(4u, std::vector{good, good});

  open_gate(gate);

  for (const Ref<std::uint64_t>& ref : failing) {
    try {
      mobula::get(ref);
      FAIL("it has a value");
    } catch (const mobula::TaskError& error) {
      REQUIRE(error.type_name() == "std::out_of_range");
      REQUIRE(std::string(error.what()).find("the first of them failed") != std::string::npos);
      REQUIRE(error.task_name().find("gated_failure") != std::string::npos);
    }
  }
  CHECK(mobula::get(apart) == tasks::node(4, {2, 2}));
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

TEST_CASE("span, string_view and View parameters take values and Refs") {
  const std::vector<double> values{1, 2, 3.5};
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(10'000, 0.5));

  CHECK(mobula::get(remote<tasks::sum_span>(values)) == 6.5);
  CHECK(mobula::get(remote<tasks::sum_span>(stored)) == 5000);
  CHECK(mobula::get(remote<tasks::sum_view>(values)) == 6.5);
  CHECK(mobula::get(remote<tasks::sum_view>(stored)) == 5000);
  CHECK(mobula::get(remote<tasks::sum_const_view>(stored)) == 1);
  CHECK(mobula::get(remote<tasks::length_of>("hello")) == 5);
  CHECK(mobula::get(remote<tasks::length_of>(mobula::put(std::string(50'000, 'a')))) == 50'000);
  CHECK(mobula::get(remote<tasks::sum_span>(std::vector<double>{})) == 0);
  CHECK(mobula::get(remote<tasks::sum_span>(std::span<const double>(values).first(2))) == 3);
}

TEST_CASE("a span parameter reads the object where it lies") {
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(10'000, 0.5));

  // given twice, a copy would lie at two places
  CHECK(mobula::get(remote<tasks::distance_of_two>(stored, stored)) == 0);
}

TEST_CASE("a write into a shared object ends the task that tried, and nothing else" *
          needs_workers()) {
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(100'000, 0.5));

  const Ref<void> crash = remote<tasks::scribble>.with({.max_retries = 0})(stored);

  CHECK_THROWS_AS(mobula::get(crash), mobula::WorkerCrashedError);
  CHECK(mobula::get_view(stored)[0] == 0.5);
  CHECK(mobula::get(remote<tasks::sum_span>(stored)) == 50'000);
}

TEST_CASE("values of all sizes arrive as they were sent") {
  const std::vector<std::size_t> sizes{
      0,    1,    7,      8,         9,       23,
      24,   25,   31,     32,        33,      47,
      48,   49,   63,     64,        65,      100,
      127,  128,  129,    1000,      1023,    1024,
      1025, 4096, 65'536, 1'000'000, 1 << 20, static_cast<std::size_t>(scaled(64 << 20, 4 << 20))};
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    std::vector<std::uint8_t> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::uint8_t>(i * 31 + i / 251);
    std::vector<std::uint8_t> expected = bytes;
    for (auto& byte : expected) byte = static_cast<std::uint8_t>(~byte);

    const auto stored = mobula::put(bytes);
    const auto by_ref = remote<tasks::complement>(stored);
    const auto by_value = remote<tasks::complement>(bytes);

    CHECK((mobula::get(stored) == bytes));
    CHECK((mobula::get(by_ref) == expected));
    CHECK((mobula::get(by_value) == expected));
  }
}

// --- get ---

TEST_CASE("get of a vector keeps the order, and throws the first failure in it") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 200; ++i) refs.push_back(remote<tasks::square>(i));

  const std::vector<int> values = mobula::get(refs);

  REQUIRE(values.size() == 200);
  for (int i = 0; i < 200; ++i) REQUIRE(values[static_cast<std::size_t>(i)] == i * i);
  CHECK(mobula::get(std::vector<Ref<int>>{}).empty());

  refs[50] = remote<tasks::fail>(50);
  refs[20] = remote<tasks::fail>(20);
  try {
    mobula::get(refs);
    FAIL("no error");
  } catch (const mobula::TaskError& e) {
    CHECK(e.message() == "failed with 20");
  }
}

TEST_CASE("try_get gives errors as values" * needs_workers()) {
  Scratch scratch;
  const Ref<int> good = remote<tasks::square>(3);
  const Ref<int> bad = remote<tasks::fail>(1);
  const Ref<int> late = remote<tasks::gated>(scratch.file("gate"), 1);

  const mobula::Result<int> ok = mobula::try_get(good);
  const mobula::Result<int> failed = mobula::try_get(bad, 10s);
  const mobula::Result<int> unready = mobula::try_get(late, 1ms);
  const mobula::Result<void> done = mobula::try_get(remote<tasks::nothing>());

  REQUIRE(ok.has_value());
  CHECK(*ok == 9);
  CHECK(done.has_value());
  REQUIRE(!failed.has_value());
  CHECK(failed.error().code() == mobula::ErrorCode::kTaskError);
  CHECK_THROWS_AS(failed.value(), mobula::TaskError);
  CHECK(failed.value_or(-1) == -1);
  REQUIRE(!unready);
  CHECK(unready.error().code() == mobula::ErrorCode::kGetTimeout);
  open_gate(scratch.file("gate"));
  CHECK(mobula::get(late) == 1);
}

TEST_CASE("get with a timeout throws when the time is over, and not before" * needs_workers()) {
  Scratch scratch;
  const Ref<int> late = remote<tasks::gated>(scratch.file("gate"), 42);

  const auto start = Clock::now();
  CHECK_THROWS_AS(mobula::get(late, 50ms), mobula::GetTimeoutError);
  const auto took = since(start);
  CHECK(took >= 50ms);
  CHECK(took < 2000ms);

  const auto poll = Clock::now();
  CHECK_THROWS_AS(mobula::get(late, 0ms), mobula::GetTimeoutError);
  CHECK(since(poll) < 1000ms);
  CHECK_THROWS_AS(mobula::get(late, -1ms), mobula::Error);
  try {
    mobula::get(late, -1ms);
  } catch (const mobula::Error& e) {
    CHECK(e.code() == mobula::ErrorCode::kError);  // misuse, and no timeout
  }

  open_gate(scratch.file("gate"));
  CHECK(mobula::get(late, 20s) == 42);
  CHECK(mobula::get(late, 0ms) == 42);
}

// --- wait ---

TEST_CASE("wait parts the refs by readiness and keeps their order" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<int> slow = remote<tasks::gated>(gate, 1);
  const Ref<int> a = remote<tasks::square>(2);
  const Ref<int> b = remote<tasks::square>(3);
  mobula::get(a);
  mobula::get(b);

  auto [ready, pending] = mobula::wait(std::vector{slow, b, a}, {.num_returns = 2});

  CHECK(ready == std::vector{b, a});
  CHECK(pending == std::vector{slow});
  open_gate(gate);
  auto [all, none] = mobula::wait(std::vector{slow, b, a}, {.num_returns = 3});
  CHECK(all == std::vector{slow, b, a});
  CHECK(none.empty());
}

TEST_CASE("wait gives at most num_returns refs, also when more are ready") {
  const std::vector<Ref<int>> refs{mobula::put(1), mobula::put(2), mobula::put(3)};

  auto [ready, pending] = mobula::wait(refs);

  CHECK(ready == std::vector{refs[0]});
  CHECK(pending == std::vector{refs[1], refs[2]});
}

TEST_CASE("wait returns at its timeout with what is ready" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const std::vector<Ref<int>> refs{remote<tasks::gated>(gate, 1), mobula::put(2)};

  const auto start = Clock::now();
  auto [ready, pending] = mobula::wait(refs, {.num_returns = 2, .timeout = 50ms});
  CHECK(since(start) >= 50ms);
  CHECK(ready == std::vector{refs[1]});
  CHECK(pending == std::vector{refs[0]});

  auto [now, later] = mobula::wait(refs, {.num_returns = 2, .timeout = 0ms});
  CHECK(now == std::vector{refs[1]});
  CHECK(later == std::vector{refs[0]});
  open_gate(gate);
  CHECK(mobula::wait(refs, {.num_returns = 2}).ready.size() == 2);
}

TEST_CASE("a failed task is ready for wait") {
  const std::vector<Ref<int>> refs{remote<tasks::fail>(3)};

  CHECK(mobula::wait(refs).ready.size() == 1);
}

TEST_CASE("wait refuses what makes no sense" * needs_workers()) {
  const Ref<int> a = mobula::put(1);
  const Ref<int> b = mobula::put(2);

  CHECK_THROWS_AS(mobula::wait(std::vector<Ref<int>>{}), mobula::Error);
  CHECK_THROWS_AS(mobula::wait(std::vector{a, b}, {.num_returns = 0}), mobula::Error);
  CHECK_THROWS_AS(mobula::wait(std::vector{a, b}, {.num_returns = 3}), mobula::Error);
  CHECK_THROWS_AS(mobula::wait(std::vector{a, b, a}), mobula::Error);
  CHECK_THROWS_AS(mobula::wait(std::vector{a, Ref<int>{}}), mobula::Error);
  CHECK_THROWS_AS(mobula::wait(std::vector{a, b}, {.timeout = -1ms}), mobula::Error);
}

TEST_CASE("wait finds a ref given twice among a thousand, also when others have copies") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 1000; ++i) refs.push_back(mobula::put(i));
  const std::vector<Ref<int>> copies = refs;

  CHECK(mobula::wait(refs, {.num_returns = 1000}).ready == copies);
  refs.push_back(refs[500]);
  CHECK_THROWS_AS(mobula::wait(refs), mobula::Error);
  CHECK_THROWS_AS(mobula::wait(std::move(refs)), mobula::Error);
  CHECK(refs.size() == 1001);  // what it refuses it leaves as it is
  CHECK(refs[1000] == copies[500]);
}

TEST_CASE("a list that is moved into wait comes back in its parts" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<int> slow = remote<tasks::gated>(gate, 1);
  const Ref<int> slower = remote<tasks::gated>(gate, 2);
  const std::vector<Ref<int>> there{mobula::put(3), mobula::put(4), mobula::put(5)};
  std::vector<Ref<int>> refs{there[0], slow, there[1], slower, there[2]};
  const Ref<int>* const storage = refs.data();

  auto [ready, pending] = mobula::wait(std::move(refs), {.num_returns = 3});

  CHECK(ready == there);
  CHECK(pending == std::vector{slow, slower});
  CHECK(pending.data() == storage);  // nothing was copied
  open_gate(gate);
  CHECK(mobula::get(pending) == std::vector{1, 2});
  CHECK(mobula::get(ready) == std::vector{3, 4, 5});
}

TEST_CASE("a thousand refs are taken by wait as they come, each once") {
  std::vector<Ref<int>> pending;
  for (int i = 0; i < 1000; ++i) pending.push_back(remote<tasks::square>(i));
  std::set<int> seen;

  while (!pending.empty()) {
    auto [ready, rest] =
        mobula::wait(pending, {.num_returns = std::min<std::size_t>(pending.size(), 50)});
    for (const int value : mobula::get(ready)) CHECK(seen.insert(value).second);
    pending = rest;
  }

  CHECK(seen.size() == 1000);
}

// --- put and views ---

TEST_CASE("put stores any value") {
  CHECK(mobula::get(mobula::put(5)) == 5);
  CHECK(mobula::get(mobula::put("text")) == "text");
  CHECK(mobula::get(mobula::put(std::vector<std::string>{"a", "b"})) ==
        std::vector<std::string>{"a", "b"});
  CHECK(mobula::get(remote<tasks::sum>(mobula::put(std::vector{1, 2, 3}))) == 6);
}

TEST_CASE("memory_report tells what is held, where it is and who has it" * needs_workers()) {
  constexpr std::size_t kSize = 3 << 20;
  const auto puts = [](const mobula::MemoryReport& report) {
    const auto it = std::find_if(report.origins.begin(), report.origins.end(),
                                 [](const auto& origin) { return origin.name == "(put)"; });
    return it == report.origins.end() ? mobula::MemoryReport::Origin{} : *it;
  };
  const mobula::MemoryReport before = mobula::memory_report();
  auto held = mobula::put(std::vector<char>(kSize));
  auto view = mobula::get_view(held);

  const mobula::MemoryReport report = mobula::memory_report();
  CHECK(puts(report).count == puts(before).count + 1);
  CHECK(puts(report).bytes >= puts(before).bytes + kSize);
  CHECK(report.store.used >= before.store.used + kSize);
  CHECK(report.store.leased >= report.store.used);
  REQUIRE(!report.largest.empty());
  CHECK(report.largest[0].size >= kSize);
  CHECK(report.largest[0].owner_pid == static_cast<std::uint32_t>(::getpid()));
  const auto me = std::find_if(report.processes.begin(), report.processes.end(),
                               [](const auto& process) { return process.role == "driver"; });
  REQUIRE(me != report.processes.end());
  CHECK(me->pid == static_cast<std::uint32_t>(::getpid()));
  CHECK(me->pins >= 1);
  CHECK(me->private_memory > 0);
  CHECK(report.text().find("(put)") != std::string::npos);

  view = {};
  held = {};
  const mobula::MemoryReport after = mobula::memory_report();
  CHECK(puts(after).count == puts(before).count);
  CHECK(after.store.used <= report.store.used - kSize);
}

TEST_CASE("bytes are stored by put_buffer and read by get_view") {
  std::vector<std::byte> bytes(100'000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);

  const Ref<mobula::Buffer> ref = mobula::put_buffer(bytes);
  const mobula::View<std::byte> view = mobula::get_view(ref);

  REQUIRE(view.size() == bytes.size());
  CHECK(std::memcmp(view.data(), bytes.data(), bytes.size()) == 0);
  CHECK(mobula::get(remote<tasks::count_bytes>(ref)) == 100'000);
  for (const std::size_t size : {0, 1, 5, 24, 25, 100, 1023, 1024, 1025, 5000}) {
    CAPTURE(size);
    const auto part = mobula::get_view(mobula::put_buffer(std::span(bytes).first(size)));
    REQUIRE(part.size() == size);
    CHECK(std::equal(part.begin(), part.end(), bytes.begin()));
  }
}

TEST_CASE("a buffer is written in the store itself, and is an object once sealed") {
  mobula::Buffer buffer = mobula::create_buffer(1 << 20);
  REQUIRE(buffer.size() == 1 << 20);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
  std::memset(buffer.data(), 42, buffer.size());

  const Ref<mobula::Buffer> ref = buffer.seal();

  CHECK(mobula::get(remote<tasks::count_bytes>(ref)) == 1 << 20);
  const auto view = mobula::get_view(ref);
  CHECK(view[0] == std::byte{42});
  CHECK(view[view.size() - 1] == std::byte{42});
  CHECK_THROWS_AS(buffer.seal(), mobula::Error);  // only once
}

TEST_CASE("a buffer that is never sealed gives its memory back") {
  const int rounds = scaled(200, 30);
  for (int i = 0; i < rounds; ++i) {  // together far more than the store holds
    mobula::Buffer buffer = mobula::create_buffer(16 << 20);
    buffer.data()[0] = std::byte{1};
  }
}

TEST_CASE("objects that nobody holds give their memory back") {
  const int rounds = scaled(100, 30);
  const std::vector<std::uint8_t> block(16 << 20, 9);
  for (int i = 0; i < rounds; ++i) {
    const auto ref = mobula::put(block);
    CHECK(mobula::get_view(ref)[1000] == 9);
  }
}

TEST_CASE("a view outlives its Ref") {
  mobula::View<double> view;
  {
    const Ref<std::vector<double>> ref = mobula::put(std::vector<double>(50'000, 2.5));
    view = mobula::get_view(ref);
  }
  for (int i = 0; i < 50; ++i)
    mobula::put(std::vector<double>(50'000, 1.0));  // would reuse its place

  REQUIRE(view.size() == 50'000);
  CHECK(std::accumulate(view.begin(), view.end(), 0.0) == 125'000);
}

TEST_CASE("views read strings, small values and results of tasks") {
  const auto text = mobula::get_view(mobula::put("abc"));
  CHECK(std::string(text.begin(), text.end()) == "abc");
  const auto bytes = mobula::get_view(remote<tasks::complement>(std::vector<std::uint8_t>{1, 2}));
  REQUIRE(bytes.size() == 2);
  CHECK(bytes[0] == 254);
  CHECK_THROWS_AS(
      mobula::get_view(remote<[]() -> std::vector<int> { throw std::runtime_error("no"); }>()),
      mobula::TaskError);
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

// --- types ---

namespace types {

enum class Colour : std::uint8_t { kRed = 1, kBlue = 200 };
struct Point {
  double x = 0;
  double y = 0;
  bool operator==(const Point&) const = default;
};
struct Robot {
  std::string name;
  Point place;
  float matrix[4] = {};
  std::vector<Point> path;
  std::optional<Colour> colour;
  bool operator==(const Robot&) const = default;
};
class Celsius {
 public:
  explicit Celsius(double degrees) : degrees_(degrees) {}
  double degrees() const { return degrees_; }
  bool operator==(const Celsius&) const = default;

 private:
  double degrees_;
};

template <class T>
bool returns_unchanged(const T& value) {
  const T by_value = mobula::get(remote<tasks::echo<T>>(value));
  const T by_ref = mobula::get(remote<tasks::echo<T>>(mobula::put(value)));
  return by_value == value && by_ref == value;
}

}  // namespace types

template <>
struct mobula::codec<types::Celsius> {
  static void encode(Writer& writer, const types::Celsius& value) { writer.raw(value.degrees()); }
  static types::Celsius decode(Reader& reader) { return types::Celsius(reader.raw<double>()); }
};

TEST_CASE("numbers, enums and texts travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(true));
  CHECK(returns_unchanged('c'));
  CHECK(returns_unchanged(std::int8_t{-5}));
  CHECK(returns_unchanged(std::uint64_t{0xffff'ffff'ffff'fffe}));
  CHECK(returns_unchanged(1.5F));
  CHECK(returns_unchanged(-2.25));
  CHECK(returns_unchanged(types::Colour::kBlue));
  CHECK(returns_unchanged(std::string("text with a \0 byte", 18)));
  CHECK(returns_unchanged(std::complex<double>(1, -1)));
}

TEST_CASE("containers travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(std::vector<int>{1, 2, 3}));
  CHECK(returns_unchanged(std::vector<std::string>{"", "a", std::string(500, 'b')}));
  CHECK(returns_unchanged(
      std::vector<bool>{true, false, true, true, false, false, true, false, true}));
  CHECK(returns_unchanged(std::vector<std::vector<double>>{{}, {1}, {1, 2}}));
  CHECK(returns_unchanged(std::array<double, 3>{1, 2, 3}));
  CHECK(returns_unchanged(std::array<std::string, 2>{"x", "y"}));
  CHECK(returns_unchanged(std::deque<int>{1, 2}));
  CHECK(returns_unchanged(std::list<std::string>{"l"}));
  CHECK(returns_unchanged(std::map<std::string, int>{{"a", 1}, {"b", 2}}));
  CHECK(returns_unchanged(std::multimap<int, int>{{1, 1}, {1, 2}}));
  CHECK(returns_unchanged(std::unordered_map<int, std::string>{{1, "one"}, {2, "two"}}));
  CHECK(returns_unchanged(std::set<std::string>{"s", "t"}));
  CHECK(returns_unchanged(std::unordered_set<int>{5, 6, 7}));
}

TEST_CASE("optional, variant, pair, tuple, pointers and times travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(std::optional<int>{}));
  CHECK(returns_unchanged(std::optional<std::string>{"there"}));
  CHECK(returns_unchanged(std::variant<int, std::string>{7}));
  CHECK(returns_unchanged(std::variant<int, std::string>{"seven"}));
  CHECK(returns_unchanged(std::pair<int, std::string>{1, "p"}));
  CHECK(returns_unchanged(std::tuple<int, double, std::string>{1, 2.0, "t"}));
  CHECK(returns_unchanged(std::tuple<>{}));
  CHECK(returns_unchanged(std::chrono::milliseconds(1500)));
  CHECK(returns_unchanged(std::chrono::system_clock::now()));

  const auto pointer =
      mobula::get(remote<tasks::echo<std::unique_ptr<int>>>(std::make_unique<int>(9)));
  REQUIRE(pointer);
  CHECK(*pointer == 9);
  CHECK(!mobula::get(remote<tasks::echo<std::unique_ptr<int>>>(std::unique_ptr<int>())));
}

TEST_CASE("a user's types travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(types::Point{1, 2}));
  CHECK(returns_unchanged(
      types::Robot{"r2", {1, 2}, {1, 2, 3, 4}, {{5, 6}, {7, 8}}, types::Colour::kRed}));
  CHECK(returns_unchanged(types::Celsius(36.6)));
  CHECK(returns_unchanged(std::vector<types::Celsius>{types::Celsius(1), types::Celsius(2)}));
  CHECK(returns_unchanged(std::map<int, types::Robot>{{1, {}}}));
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
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .resources = {{"lamp", 1}}, .object_store_memory = 512ULL << 20});
}
