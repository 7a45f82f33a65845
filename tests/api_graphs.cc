// Tasks that wait for values of others, in graphs of all shapes, over one session with two CPUs.
#include "support/scenario.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::needs_workers;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace graphs {

int square(int x) { return x * x; }
int add(int a, int b) { return a + b; }
int increment(const int& x) { return x + 1; }
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
int sum_refs(const std::vector<Ref<int>>& refs) {
  int all = 0;
  for (const Ref<int>& ref : refs) all += mobula::get(ref);
  return all;
}

int gated(std::string gate, int value) {
  wait_at_gate(gate);
  return value;
}

}  // namespace graphs

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

TEST_CASE("a diamond of data edges meets in one value") {
  const Ref<int> top = remote<graphs::square>(3);
  const Ref<int> left = remote<graphs::increment>(top);
  const Ref<int> right = remote<graphs::square>(top);
  const Ref<int> bottom = remote<graphs::add>(left, right);

  CHECK(mobula::get(bottom) == 10 + 81);
}

TEST_CASE("one task waits for 50 others") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 50; ++i) refs.push_back(remote<graphs::square>(i));
  const int expected = 49 * 50 * 99 / 6;

  const Ref<long> edges = [&]<std::size_t... I>(std::index_sequence<I...>) {
    return remote<graphs::sum_of<decltype(static_cast<int>(I))...>>(refs[I]...);
  }(std::make_index_sequence<50>{});

  CHECK(mobula::get(edges) == expected);
  CHECK(mobula::get(remote<graphs::sum_refs>(refs)) == expected);
}

TEST_CASE("a thousand tasks hang on one value and all get it" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<int> one = remote<graphs::gated>(gate, 5);
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 1000; ++i) refs.push_back(remote<graphs::add>(one, i));

  open_gate(gate);

  const std::vector<int> values = mobula::get(refs);
  for (int i = 0; i < 1000; ++i) REQUIRE(values[static_cast<std::size_t>(i)] == 5 + i);
}

TEST_CASE("a chain of a thousand tasks ends with all steps done" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  Ref<int> last = remote<graphs::gated>(gate, 0);
  for (int i = 0; i < 1000; ++i) last = remote<graphs::increment>(last);

  open_gate(gate);

  CHECK(mobula::get(last) == 1000);
}

TEST_CASE("a vector of Refs stands for a vector of values") {
  const std::vector<Ref<std::string>> words{mobula::put("to "), mobula::put("be "),
                                            mobula::put(std::string(5000, 'e'))};
  const std::vector<Ref<int>> squares{remote<graphs::square>(3), remote<graphs::square>(-1),
                                      remote<graphs::square>(2)};
  const std::vector<Ref<std::vector<int>>> rows{mobula::put(std::vector{1, 2}),
                                                remote<graphs::sorted>(squares)};
  const auto adder = mobula::actor<graphs::Adder>();

  CHECK(mobula::get(remote<graphs::spell>(words)) == "to be " + std::string(5000, 'e'));
  CHECK(mobula::get(remote<graphs::spell>(std::vector{words[1], words[0], words[1]})) ==
        "be to be ");
  CHECK(mobula::get(remote<graphs::sorted>(squares)) == std::vector{1, 4, 9});
  CHECK(mobula::get(remote<graphs::longest>(rows)) == 3);
  CHECK(mobula::get(remote<graphs::sum>(std::vector<Ref<int>>{})) == 0);
  CHECK(mobula::get(remote<graphs::sum>(remote<graphs::sorted>(squares))) == 14);
  CHECK(mobula::get(adder.call<&graphs::Adder::add>(squares)) == 14);
  CHECK(mobula::get(adder.call<&graphs::Adder::add>(std::vector{squares[0]})) == 23);
  CHECK(mobula::get(remote<graphs::sum_refs>(squares)) == 14);  // a parameter of Refs gets these
  CHECK_THROWS_AS(remote<graphs::sum>(std::vector<Ref<int>>(2)), mobula::Error);
}

TEST_CASE("a task waits for ten thousand values and gets each in its place" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<std::uint64_t> first = remote<graphs::gated_number>(gate, 7u);
  std::vector<Ref<std::uint64_t>> refs;
  std::vector<std::uint64_t> expected;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    // every third is there already
    refs.push_back(i % 3 == 0 ? mobula::put(i) : remote<graphs::link>(i, first));
    expected.push_back(i % 3 == 0 ? i : graphs::link(i, 7));
  }

  const Ref<std::uint64_t> all = remote<graphs::node>(1u, refs);
  refs.clear();  // the call keeps what it needs

  CHECK(is_pending(all));
  open_gate(gate);
  CHECK(mobula::get(all) == graphs::node(1, expected));
}

TEST_CASE("a hundred thousand tasks depend on one value" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<std::uint64_t> first = remote<graphs::gated_number>(gate, 3u);
  const auto count = static_cast<std::uint64_t>(scaled(100'000, 10'000));
  std::vector<Ref<std::uint64_t>> refs;
  for (std::uint64_t i = 0; i < count; ++i) refs.push_back(remote<graphs::link>(i, first));

  CHECK(is_pending(refs.back()));
  open_gate(gate);

  const std::vector<std::uint64_t> values = mobula::get(refs);
  for (std::uint64_t i = 0; i < count; ++i) REQUIRE(values[i] == graphs::link(i, 3));
}

TEST_CASE("a hundred thousand tasks wait each for the one before" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto count = static_cast<std::uint64_t>(scaled(100'000, 10'000));
  Ref<std::uint64_t> last = remote<graphs::gated_number>(gate, 5u);
  std::uint64_t expected = 5;
  for (const std::uint64_t i : numbers(0, count)) {
    last = remote<graphs::link>(i, last);
    expected = graphs::link(i, expected);
  }

  CHECK(is_pending(last));
  open_gate(gate);
  CHECK(mobula::get(last) == expected);
}

TEST_CASE("a thousand diamonds hang on each other" * needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  Ref<std::uint64_t> top = remote<graphs::gated_number>(gate, 9u);
  std::uint64_t expected = 9;
  for (const std::uint64_t i : numbers(0, 1000)) {
    const Ref<std::uint64_t> left = remote<graphs::link>(2 * i, top);
    const Ref<std::uint64_t> right = remote<graphs::link>(2 * i + 1, top);
    top = remote<graphs::pair>(i, left, right);
    expected = graphs::pair(i, graphs::link(2 * i, expected), graphs::link(2 * i + 1, expected));
  }

  open_gate(gate);
  CHECK(mobula::get(top) == expected);
}

TEST_CASE("a graph of thirty thousand tasks is submitted before anything of it runs" *
          needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const auto count = static_cast<std::uint64_t>(scaled(30'000, 3'000));
  std::vector<Ref<std::uint64_t>> refs{remote<graphs::gated_number>(gate, 11u)};
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
    refs.push_back(remote<graphs::node>(i, inputs));
    expected.push_back(graphs::node(i, values));
  }

  CHECK(is_pending(refs[1]));
  open_gate(gate);
  CHECK(mobula::get(refs) == expected);
}

TEST_CASE("a failed input fails all that depend on it, however far, with its own error" *
          needs_workers()) {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  const Ref<std::uint64_t> bad = remote<graphs::gated_failure>(gate);
  const Ref<std::uint64_t> good = remote<graphs::gated_number>(gate, 2u);
  std::vector<Ref<std::uint64_t>> many(1000, good);
  many.push_back(bad);
  std::vector<Ref<std::uint64_t>> failing{
      remote<graphs::node>(1u, many),
      remote<graphs::node>(2u, std::vector{good, bad}),
      remote<graphs::link>(3u, bad),
  };
  for (std::uint64_t i = 0; i < 100; ++i) {
    const std::size_t from = failing.size() - 3;
    failing.push_back(remote<graphs::link>(i, failing[from]));
    failing.push_back(remote<graphs::pair>(i, good, failing[from + 1]));
    failing.push_back(remote<graphs::node>(i, std::vector{good, failing[from + 2], good}));
  }
  const Ref<std::uint64_t> apart = remote<graphs::node>(4u, std::vector{good, good});

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
  CHECK(mobula::get(apart) == graphs::node(4, {2, 2}));
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .resources = {{"lamp", 1}}, .object_store_memory = 512ULL << 20});
}
