// Meshes as a user meets them: calls to all, dealt arguments, reduction, errors of members.
#include "support/scenario.h"

#include <unistd.h>

#include <numeric>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using mobula::each;
using mobula::mesh;
using mobula::MeshHandle;
using mobula::MeshRef;
using mobula::Ref;
using mobula::remote;
using mobula::test::eventually;
using mobula::test::scaled;

namespace grid {

struct Block {
  int number = 0;
  std::vector<int> cells;
  Block() = default;
  explicit Block(int n) : number(n) {}
  Block(int n, std::vector<int> start) : number(n), cells(std::move(start)) {}

  int process() { return ::getpid(); }
  int id() const { return number; }
  int add(int k) { return number += k; }
  void load(std::vector<int> values) { cells = std::move(values); }
  long sum() const { return std::accumulate(cells.begin(), cells.end(), 0L); }
  long sum_of(std::span<const int> values) const {
    return number + std::accumulate(values.begin(), values.end(), 0L);
  }
  std::string greet(const std::string& name) { return name + std::to_string(number); }
  int odd_only() const {
    if (number % 2 == 0) throw std::invalid_argument("even");
    return number;
  }
  void numbers(mobula::Sink<int>& out, int n) {
    for (int i = 0; i < n; ++i) out.push(number * 100 + i);
  }
};

// Keeps what all members were given, where it lies.
struct Onlooker {
  mobula::View<double> kept;
  mobula::View<double> other;
  bool is_one() const { return kept.data() == other.data() && kept.size() == other.size(); }
};

int plus(int a, int b) { return a + b; }
std::string join(const std::string& a, const std::string& b) { return a + b; }
int all_of(const MeshHandle<Block>& blocks) {
  int sum = 0;
  for (const int each : mobula::get(blocks.call<&Block::id>())) sum += each;
  return sum;
}
int sum_of_refs(const MeshRef<int>& refs) {
  int sum = 0;
  for (const int each : mobula::get(refs)) sum += each;
  return sum;
}
std::vector<int> up_to(int n) {
  std::vector<int> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace grid

using namespace grid;

namespace {
const int kMembers = scaled(20, 6);
MeshHandle<Block> numbered() {
  return mesh<Block>(static_cast<std::size_t>(kMembers), each(up_to(kMembers)));
}
}  // namespace

TEST_CASE("a mesh is so many actors, each in a process of its own") {
  const auto blocks = mesh<Block>(8, 5);

  const std::vector<int> processes = mobula::get(blocks.call<&Block::process>());

  CHECK(blocks.size() == 8);
  CHECK(std::set<int>(processes.begin(), processes.end()).size() == 8);
  CHECK(mobula::get(blocks.call<&Block::id>()) == std::vector<int>(8, 5));
  CHECK_NOTHROW(mobula::get(blocks.ready()));
}

TEST_CASE("a call goes to every member, results come in the members' order") {
  const auto blocks = numbered();

  CHECK(mobula::get(blocks.call<&Block::id>()) == up_to(kMembers));
  std::vector<int> expected = up_to(kMembers);
  for (int& each : expected) each += 1000;
  CHECK(mobula::get(blocks.call<&Block::add>(1000)) == expected);
  CHECK(mobula::get(blocks.member(3).call<&Block::id>()) == 1003);
  CHECK(mobula::get(blocks.call<&Block::greet>("block "))[2] == "block 1002");
}

TEST_CASE("each() deals one value to each member: of a vector, of refs, of an earlier call") {
  const auto blocks = numbered();
  std::vector<std::vector<int>> parts;
  std::vector<Ref<int>> refs;
  for (int i = 0; i < kMembers; ++i) {
    parts.emplace_back(static_cast<std::size_t>(i * 50), 1);
    refs.push_back(remote<plus>(i, i));
  }

  mobula::get(blocks.call<&Block::load>(each(parts)));
  const auto sums = mobula::get(blocks.call<&Block::sum>());
  const auto added = mobula::get(blocks.call<&Block::add>(each(refs)));
  const auto twice = mobula::get(blocks.call<&Block::add>(each(blocks.call<&Block::id>())));

  for (int i = 0; i < kMembers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    CHECK(sums[at] == i * 50);
    CHECK(added[at] == 3 * i);
    CHECK(twice[at] == 6 * i);
  }
  CHECK_THROWS_WITH_AS(blocks.call<&Block::add>(each(std::vector<int>{1, 2})),
                       doctest::Contains("each() has 2 values for"), mobula::Error);
}

TEST_CASE("an argument for all is stored once, however many the members") {
  const auto blocks = numbered();
  const std::vector<int> values(1 << 20, 1);  // 4 MiB
  mobula::get(blocks.ready());

  const auto sums = blocks.call<&Block::sum_of>(values);
  const auto used = mobula::memory_report().store.used;

  CHECK(used < 2 * (4 << 20));
  for (int i = 0; i < kMembers; ++i)
    CHECK(mobula::get(sums[static_cast<std::size_t>(i)]) == (1 << 20) + i);
  const Ref<std::vector<int>> stored = mobula::put(values);
  CHECK(mobula::get(blocks.call<&Block::sum_of>(stored))[1] == (1 << 20) + 1);
  const int three[] = {1, 2, 3};
  CHECK(mobula::get(blocks.call<&Block::sum_of>(std::span(three)))[1] == 7);
}

TEST_CASE("a constructor's arguments are shared or dealt as well") {
  const std::vector<int> cells{1, 2, 3};
  const auto blocks = mesh<Block>(4, each(up_to(4)), cells);

  CHECK(mobula::get(blocks.call<&Block::id>()) == up_to(4));
  CHECK(mobula::get(blocks.call<&Block::sum>()) == std::vector<long>(4, 6));
  const std::vector<mobula::Ref<int>> refs{mobula::put(4), mobula::put(5)};
  const auto from_refs = mesh<Block>(2, each(up_to(2)), refs);
  CHECK(mobula::get(from_refs.call<&Block::sum>()) == std::vector<long>(2, 9));
  CHECK(mobula::get(mesh<Block>(3).call<&Block::id>()) == std::vector<int>(3, 0));
}

TEST_CASE("the options are each member's, and a name gets its number") {
  const auto blocks = mesh<Block>.with({.name = "block", .max_restarts = 1})(3, each(up_to(3)));

  for (int i = 0; i < 3; ++i) {
    const auto member = mobula::get_actor<Block>("block-" + std::to_string(i));
    CHECK(member == blocks.member(static_cast<std::size_t>(i)));
    mobula::kill(member, {.no_restart = false});
    CHECK(eventually(20s, [&] {  // a call that the kill hit has no result
      return mobula::try_get(member.call<&Block::id>(), 20s).value_or(-1) == i;
    }));
  }
}

TEST_CASE("the members' constructors read a Ref's value and a View in place") {
  const auto stored = mobula::put(std::vector<double>(10'000, 0.5));

  const auto by_ref = mesh<Onlooker>(3, stored, stored);
  const auto by_view = mesh<Onlooker>(3, mobula::get_view(stored), stored);
  const auto by_value = mesh<Onlooker>(3, std::vector{1.0}, std::vector{1.0});

  CHECK(mobula::get(by_ref.call<&Onlooker::is_one>()) == std::vector<bool>(3, true));
  CHECK(mobula::get(by_view.call<&Onlooker::is_one>()) == std::vector<bool>(3, true));
  CHECK(mobula::get(by_value.call<&Onlooker::is_one>()) == std::vector<bool>(3, false));
}

TEST_CASE("a slice is a mesh of some of the members") {
  const auto blocks = numbered();

  CHECK(mobula::get(blocks.slice(1, 4).call<&Block::id>()) == std::vector<int>{1, 2, 3});
  CHECK(mobula::get(blocks.slice(0, 6, 2).call<&Block::id>()) == std::vector<int>{0, 2, 4});
  CHECK_THROWS_AS(blocks.slice(3, 3), mobula::Error);
  CHECK_THROWS_AS(blocks.slice(0, 1000), mobula::Error);
  CHECK_THROWS_AS(blocks.slice(0, 2, 0), mobula::Error);
}

TEST_CASE("reduce makes one value of all, in order") {
  const auto blocks = numbered();
  const auto names = blocks.call<&Block::greet>(",");
  std::string all;
  for (int i = 0; i < kMembers; ++i) all += "," + std::to_string(i);

  CHECK(mobula::get(mobula::reduce<plus>(blocks.call<&Block::id>())) ==
        kMembers * (kMembers - 1) / 2);
  CHECK(mobula::get(mobula::reduce<join>(names)) == all);
  CHECK(mobula::get(mobula::reduce<plus>(blocks.slice(3, 4).call<&Block::id>())) == 3);
  CHECK_THROWS_AS(mobula::reduce<plus>(MeshRef<int>()), mobula::Error);
}

TEST_CASE("the first error is thrown in its type with the member's number; try_get has them all") {
  const auto blocks = numbered().slice(1, 5);  // 1, 2, 3, 4

  const auto results = blocks.call<&Block::odd_only>();

  CHECK_THROWS_WITH_AS(mobula::get(results), doctest::Contains("member 1 of 4: task"),
                       mobula::TaskError);
  try {
    mobula::get(results);
  } catch (const mobula::TaskError& e) {
    CHECK(e.message() == "even");
    CHECK_THROWS_AS(e.rethrow_cause(), std::invalid_argument);
  }
  const auto all = mobula::try_get(results);
  REQUIRE(all.size() == 4);
  CHECK(all[0].value() == 1);
  CHECK_FALSE(all[1]);
  CHECK(all[2].value() == 3);
  CHECK_FALSE(all[3]);
  CHECK_THROWS_AS(mobula::get(mobula::reduce<plus>(results)), mobula::TaskError);

  mobula::kill(blocks.member(2));
  CHECK_THROWS_WITH_AS(mobula::get(blocks.call<&Block::id>()), doctest::Contains("member 2 of 4"),
                       mobula::ActorDiedError);
}

TEST_CASE("a timeout is for all members together") {
  const auto blocks = mesh<Block>(3, 1);
  const auto lit = mesh<Block>.with({.resources = {{"lamp", 1}}})(2, 1);
  const Ref<int> never = lit.member(1).call<&Block::id>();  // member 0 has the only lamp
  mobula::get(lit.member(0).ready(), 20s);

  const auto waiting = blocks.call<&Block::add>(each(std::vector<Ref<int>>{never, never, never}));

  CHECK_THROWS_AS(mobula::get(waiting, 50ms), mobula::GetTimeoutError);
  CHECK_FALSE(mobula::try_get(waiting, 0ms)[2]);
}

TEST_CASE("a mesh and the results of its calls can be passed on") {
  const auto blocks = numbered();
  const int sum = kMembers * (kMembers - 1) / 2;

  CHECK(mobula::get(remote<all_of>(blocks), 20s) == sum);
  CHECK(mobula::get(remote<sum_of_refs>(blocks.call<&Block::id>()), 20s) == sum);
}

TEST_CASE("a method that is a producer gives a stream for each member") {
  const auto blocks = numbered().slice(0, 3);

  auto streams = blocks.call<&Block::numbers>(4);

  REQUIRE(streams.size() == 3);
  for (int i = 0; i < 3; ++i) {
    int expected = i * 100;
    for (const int item : streams[static_cast<std::size_t>(i)]) CHECK(item == expected++);
    CHECK(expected == i * 100 + 4);
  }
}

TEST_CASE("kill ends all members") {
  const auto blocks = mesh<Block>(3, 1);
  mobula::get(blocks.ready());

  mobula::kill(blocks);

  for (const auto& result : mobula::try_get(blocks.call<&Block::id>(), 20s))
    CHECK(result.error().code() == mobula::ErrorCode::kActorDied);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2,
                                       .resources = {{"lamp", 1}},
                                       .object_store_memory = 128ULL << 20,
                                       .log_to_driver = false});
}
