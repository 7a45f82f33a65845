// Objects as a user meets them: what docs and headers promise about get, wait, put, buffers and
// views, over one session with two CPUs.
#include "support/scenario.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::Clock;
using mobula::test::needs_workers;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;

namespace objects {

void nothing() {}
int square(int x) { return x * x; }
int sum(const std::vector<int>& values) { return std::accumulate(values.begin(), values.end(), 0); }

int gated(std::string gate, int value) {
  wait_at_gate(gate);
  return value;
}
int fail(int code) { throw std::runtime_error("failed with " + std::to_string(code)); }

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
double sum_of_vector(const std::vector<double>& values) { return sum_span(values); }
bool is_passed_on(mobula::View<double> values) {
  return mobula::get(remote<distance_of_two>(values, values)) == 0;
}
double sums_through(mobula::View<double> values) {
  return mobula::get(remote<sum_span>(values)) / 2 + mobula::get(remote<sum_view>(values)) / 2;
}
bool is_one_text(std::string_view a, std::string_view b) { return a.data() == b.data(); }
bool is_one_view(mobula::View<double> a, const mobula::View<double>& b) {
  return a.data() == b.data();
}
void scribble(std::span<const double> values) {
  auto* memory = const_cast<double*>(values.data());
  *static_cast<volatile double*>(memory) = 1;
}
std::vector<std::uint8_t> complement(std::vector<std::uint8_t> bytes) {
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(~byte);
  return bytes;
}

}  // namespace objects

TEST_CASE("span, string_view and View parameters take values and Refs") {
  const std::vector<double> values{1, 2, 3.5};
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(10'000, 0.5));

  CHECK(mobula::get(remote<objects::sum_span>(values)) == 6.5);
  CHECK(mobula::get(remote<objects::sum_span>(stored)) == 5000);
  CHECK(mobula::get(remote<objects::sum_view>(values)) == 6.5);
  CHECK(mobula::get(remote<objects::sum_view>(stored)) == 5000);
  CHECK(mobula::get(remote<objects::sum_const_view>(stored)) == 1);
  CHECK(mobula::get(remote<objects::length_of>("hello")) == 5);
  CHECK(mobula::get(remote<objects::length_of>(mobula::put(std::string(50'000, 'a')))) == 50'000);
  CHECK(mobula::get(remote<objects::sum_span>(std::vector<double>{})) == 0);
  CHECK(mobula::get(remote<objects::sum_span>(std::span<const double>(values).first(2))) == 3);
}

TEST_CASE("span, string_view, View and get_view read the object where it lies") {
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(10'000, 0.5));
  const Ref<std::string> text = mobula::put(std::string(10'000, 'a'));

  // given twice, a copy would lie at two places
  CHECK(mobula::get(remote<objects::distance_of_two>(stored, stored)) == 0);
  CHECK(mobula::get(remote<objects::is_one_text>(text, text)));
  CHECK(mobula::get(remote<objects::is_one_view>(stored, stored)));
  const auto once = mobula::get_view(stored);
  const auto again = mobula::get_view(stored);
  CHECK(once.data() == again.data());
}

TEST_CASE("a View that is an argument stands for its object, which is not copied") {
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(10'000, 0.5));
  const auto view = mobula::get_view(stored);
  const mobula::View<double> none;

  // distance_of_two: at one place, and not at two
  CHECK(mobula::get(remote<objects::distance_of_two>(view, stored)) == 0);
  CHECK(mobula::get(remote<objects::is_passed_on>(stored)));
  CHECK(mobula::get(remote<objects::sum_view>(view)) == 5000);
  CHECK(mobula::get(remote<objects::sum_of_vector>(view)) == 5000);
  CHECK(mobula::get(remote<objects::sum_span>(none)) == 0);
  // what a task was given as a value lies in no object of its type
  CHECK(mobula::get(remote<objects::sums_through>(std::vector{1.0, 2.5})) == 3.5);

  const auto bytes = mobula::get_view(mobula::put_buffer(std::vector<std::byte>(300)));
  CHECK(mobula::get(remote<objects::count_bytes>(bytes)) == 300);
}

TEST_CASE("a write into a shared object ends the task that tried, and nothing else" *
          needs_workers()) {
  const Ref<std::vector<double>> stored = mobula::put(std::vector<double>(100'000, 0.5));

  const Ref<void> crash = remote<objects::scribble>.with({.max_retries = 0})(stored);

  CHECK_THROWS_AS(mobula::get(crash), mobula::WorkerCrashedError);
  CHECK(mobula::get_view(stored)[0] == 0.5);
  CHECK(mobula::get(remote<objects::sum_span>(stored)) == 50'000);
}

// --- get ---

TEST_CASE("get of a vector keeps the order, and throws the first failure in it") {
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 200; ++i) refs.push_back(remote<objects::square>(i));

  const std::vector<int> values = mobula::get(refs);

  REQUIRE(values.size() == 200);
  for (int i = 0; i < 200; ++i) REQUIRE(values[static_cast<std::size_t>(i)] == i * i);
  CHECK(mobula::get(std::vector<Ref<int>>{}).empty());

  refs[50] = remote<objects::fail>(50);
  refs[20] = remote<objects::fail>(20);
  try {
    mobula::get(refs);
    FAIL("no error");
  } catch (const mobula::TaskError& e) {
    CHECK(e.message() == "failed with 20");
  }
}

TEST_CASE("get of many tasks that return nothing waits for all, and throws what one threw") {
  std::vector<Ref<void>> refs;
  for (int i = 0; i < 20; ++i) refs.push_back(remote<objects::nothing>());
  mobula::get(refs);
  CHECK(mobula::wait(refs, {.num_returns = 20, .timeout = 0ms}).ready.size() == 20);

  refs.push_back(remote<[] { throw std::runtime_error("nothing came of it"); }>());
  CHECK_THROWS_WITH_AS(mobula::get(refs), doctest::Contains("nothing came of it"),
                       mobula::TaskError);
}

TEST_CASE("try_get gives errors as values" * needs_workers()) {
  Scratch scratch;
  const Ref<int> good = remote<objects::square>(3);
  const Ref<int> bad = remote<objects::fail>(1);
  const Ref<int> late = remote<objects::gated>(scratch.file("gate"), 1);

  const mobula::Result<int> ok = mobula::try_get(good);
  const mobula::Result<int> failed = mobula::try_get(bad, 10s);
  const mobula::Result<int> unready = mobula::try_get(late, 1ms);
  const mobula::Result<void> done = mobula::try_get(remote<objects::nothing>());

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

TEST_CASE("a Result passes values and errors on, by the names of std::expected") {
  const mobula::Result<int> good = mobula::try_get(remote<objects::square>(3));
  const mobula::Result<int> bad = mobula::try_get(remote<objects::fail>(1));
  const auto half = [](int x) {
    return x % 2 == 0
               ? mobula::Result<int>(x / 2)
               : mobula::Result<int>::failure(std::make_exception_ptr(mobula::Error("it is odd")));
  };
  const auto text = [](int x) { return std::to_string(x); };

  CHECK(good.transform(text).value() == "9");
  CHECK(good.transform([](int x) { return x + 1; }).and_then(half).value() == 5);
  CHECK(std::string(good.and_then(half).error().what()) == "it is odd");
  CHECK(good.or_else([](const mobula::Error&) { return mobula::Result<int>(-1); }).value() == 9);
  CHECK(bad.transform(text).error().code() == mobula::ErrorCode::kTaskError);
  CHECK_THROWS_AS(bad.and_then(half).value(), mobula::TaskError);  // in its own type still
  CHECK(bad.or_else([](const mobula::Error&) { return mobula::Result<int>(-1); }).value() == -1);
  CHECK_FALSE(bad.transform([](int) {}).has_value());
  const auto late = [](const mobula::Error&) { return mobula::GetTimeoutError("late"); };
  CHECK(good.transform_error(late).value() == 9);
  CHECK_THROWS_AS(bad.transform_error(late).value(), mobula::GetTimeoutError);
  CHECK(good.error_or(mobula::Error("none")).what() == std::string("none"));
  CHECK(bad.error_or(mobula::Error("none")).code() == mobula::ErrorCode::kTaskError);
  mobula::Result<int> one = good;
  mobula::Result<int> other = bad;
  one.swap(other);
  CHECK_FALSE(one.has_value());
  CHECK(one.emplace(4) == 4);
  CHECK(*mobula::Result<int>(5) == 5);

  mobula::Result<std::unique_ptr<int>> owner(std::make_unique<int>(7));
  CHECK(std::move(owner).transform([](std::unique_ptr<int> p) { return *p; }).value() == 7);
}

TEST_CASE("a Result of nothing has the same names") {
  mobula::Result<void> done = mobula::try_get(remote<objects::nothing>());
  mobula::Result<void> failed =
      mobula::Result<void>::failure(std::make_exception_ptr(mobula::Error("it failed")));
  const auto three = [] { return 3; };
  const auto odd = [](const mobula::Error&) { return mobula::GetTimeoutError("late"); };

  CHECK(done.transform(three).value() == 3);
  CHECK_FALSE(failed.transform([] {}).has_value());
  CHECK(done.and_then([] { return mobula::Result<int>(2); }).value() == 2);
  CHECK_THROWS_AS(failed.and_then([] { return mobula::Result<int>(2); }).value(), mobula::Error);
  CHECK(failed.or_else([](const mobula::Error&) { return mobula::Result<void>(); }).has_value());
  CHECK_THROWS_AS(failed.transform_error(odd).value(), mobula::GetTimeoutError);
  CHECK(done.error_or(mobula::Error("none")).what() == std::string("none"));
  done.swap(failed);
  CHECK_FALSE(done.has_value());
  done.emplace();
  CHECK(done.has_value());
  *done;
}

TEST_CASE("get with a timeout throws when the time is over, and not before" * needs_workers()) {
  Scratch scratch;
  const Ref<int> late = remote<objects::gated>(scratch.file("gate"), 42);

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
  const Ref<int> slow = remote<objects::gated>(gate, 1);
  const Ref<int> a = remote<objects::square>(2);
  const Ref<int> b = remote<objects::square>(3);
  mobula::get(a);
  mobula::get(b);

  auto [ready, pending] = mobula::wait(std::vector{slow, b, a}, {.num_returns = 2});

  CHECK(ready == std::vector{b, a});
  CHECK(pending == std::vector{slow});
  CHECK(mobula::wait(std::vector{slow, b}, {.fetch_local = false}).ready == std::vector{b});
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
  const std::vector<Ref<int>> refs{remote<objects::gated>(gate, 1), mobula::put(2)};

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
  const std::vector<Ref<int>> refs{remote<objects::fail>(3)};

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
  const Ref<int> slow = remote<objects::gated>(gate, 1);
  const Ref<int> slower = remote<objects::gated>(gate, 2);
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
  for (int i = 0; i < 1000; ++i) pending.push_back(remote<objects::square>(i));
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
  CHECK(mobula::get(remote<objects::sum>(mobula::put(std::vector{1, 2, 3}))) == 6);
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
  CHECK(mobula::get(remote<objects::count_bytes>(ref)) == 100'000);
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

  CHECK(mobula::get(remote<objects::count_bytes>(ref)) == 1 << 20);
  const auto view = mobula::get_view(ref);
  CHECK(view[0] == std::byte{42});
  CHECK(view[view.size() - 1] == std::byte{42});
  CHECK_THROWS_AS(buffer.seal(), mobula::Error);  // only once
}

TEST_CASE("sealing a buffer copies nothing: it takes its memory once, before and after") {
  const auto used = [] { return mobula::memory_report().store.used; };
  const std::uint64_t before = used();
  mobula::Buffer buffer = mobula::create_buffer(32 << 20);
  const std::uint64_t open = used();
  CHECK(open >= before + (32 << 20));

  const Ref<mobula::Buffer> ref = buffer.seal();
  const auto view = mobula::get_view(ref);

  CHECK(used() == open);
}

TEST_CASE("a sealed buffer is read at the place where it was written") {
  // Readers see the store through a window of their own, which is as far from the writers' at each
  // place of it.
  std::set<std::uintptr_t> distances;
  std::vector<mobula::View<std::byte>> views;
  for (const std::size_t size : {100, 2000, 50'000, 5 << 20}) {
    mobula::Buffer buffer = mobula::create_buffer(size);
    const auto written = reinterpret_cast<std::uintptr_t>(buffer.data());
    views.push_back(mobula::get_view(buffer.seal()));
    distances.insert(reinterpret_cast<std::uintptr_t>(views.back().data()) - written);
  }

  CHECK(distances.size() == 1);
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
  const auto bytes = mobula::get_view(remote<objects::complement>(std::vector<std::uint8_t>{1, 2}));
  REQUIRE(bytes.size() == 2);
  CHECK(bytes[0] == 254);
  CHECK_THROWS_AS(
      mobula::get_view(remote<[]() -> std::vector<int> { throw std::runtime_error("no"); }>()),
      mobula::TaskError);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .resources = {{"lamp", 1}}, .object_store_memory = 512ULL << 20});
}
