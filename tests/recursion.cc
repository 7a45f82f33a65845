// Tasks that wait for tasks, on one CPU: as deep as they like, with frames of any size, across
// classes of resources. Nobody overflows a stack, and nobody waits for what he holds himself.
#include "support/scenario.h"

#include <string>
#include <vector>

#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::amount_of;
using mobula::test::eventually;
using mobula::test::scaled;

namespace {

constexpr auto kLong = 60s;

int depth(int n) { return n == 0 ? 0 : mobula::get(remote<depth>(n - 1)) + 1; }

// Fills as much stack at each level as a function may elsewhere that has eight megabytes.
template <std::size_t kBytes>
int wide(int n) {
  std::vector<Ref<int>> below;
  if (n > 0) below.push_back(remote<wide<kBytes>>(n - 1));
  volatile char frame[kBytes];
  for (std::size_t i = 0; i < kBytes; i += 4096) frame[i] = 1;
  int sum = frame[0];
  for (const Ref<int>& ref : below) sum += mobula::get(ref);
  return sum;
}

// One level needs the lamp, the next one does not.
int with_lamp(int n);
int without_lamp(int n) {
  if (n == 0) return 0;
  return mobula::get(remote<with_lamp>.with({.resources = {{"lamp", 1}}})(n - 1)) + 1;
}
int with_lamp(int n) { return n == 0 ? 0 : mobula::get(remote<without_lamp>(n - 1)) + 1; }

// Each level needs what the level above it does not have, and the one before that has.
int needs_desk(int n);
int needs_lamp(int n) {
  if (n == 0) return 0;
  return mobula::get(remote<needs_desk>.with({.resources = {{"desk", 1}}})(n - 1)) + 1;
}
int needs_desk(int n) {
  if (n == 0) return 0;
  return mobula::get(remote<needs_lamp>.with({.resources = {{"lamp", 1}}})(n - 1)) + 1;
}

void shines(mobula::Sink<int>& out, int n) {
  for (int i = 0; i < n; ++i) out.push(i);
}
int reads_by_lamplight(int n) {
  int sum = 0;
  for (const int i : remote<shines>.with({.resources = {{"lamp", 1}}, .max_unread = 1})(n))
    sum += i;
  return sum;
}

int fib(int n) {
  if (n < 2) return n;
  const Ref<int> a = remote<fib>(n - 1);
  const Ref<int> b = remote<fib>.with({.resources = {{"lamp", 0.5}}})(n - 2);
  return mobula::get(a) + mobula::get(b);
}

bool all_is_free() {
  return eventually(10s, [] {
    const auto free = mobula::available_resources();
    return amount_of(free, "CPU") == 1 && amount_of(free, "lamp") == 1 &&
           amount_of(free, "desk") == 1;
  });
}

}  // namespace

TEST_CASE("ten thousand tasks that each wait for the next one end on one CPU") {
  const int levels = scaled(10'000, 1'000);
  CHECK(mobula::get(remote<depth>(levels), kLong) == levels);
}

TEST_CASE("a hundred thousand do, too: what does not fit on one stack goes on in another process") {
  const int levels = scaled(100'000, 3'000);
  CHECK(mobula::get(remote<depth>(levels), kLong) == levels);
}

TEST_CASE("a task that runs inside of a waiting one has as much stack as anywhere") {
  CHECK(mobula::get(remote<wide<100'000>>(2000), kLong) == 2001);
  CHECK(mobula::get(remote<wide<4'000'000>>.with({.max_retries = 0})(60), kLong) == 61);
}

TEST_CASE("tasks wait for tasks of other resources a thousand levels deep") {
  const int levels = scaled(1'000, 100);
  CHECK(mobula::get(remote<without_lamp>(levels), kLong) == levels);
  CHECK(mobula::get(remote<fib>(scaled(14, 8)), kLong) == scaled(377, 21));
  CHECK(all_is_free());
}

TEST_CASE("what a waiting task holds is not lent to others, who need not wait for ever") {
  mobula::test::Scratch scratch;
  const std::string gate = scratch.file("gate");
  const std::string file = scratch.file("file");
  const mobula::TaskOptions lamp{.resources = {{"lamp", 1}}};
  const Ref<int> holder = remote<[](const std::string& g) {
                            return mobula::get(remote<[](const std::string& inner) {
                              mobula::test::wait_at_gate(inner);
                              return 1;
                            }>(g));
                          }>.with(lamp)(gate);
  const Ref<void> other = remote<mobula::test::count_in>.with(lamp)(file);

  CHECK_THROWS_AS(mobula::get(other, 500ms), mobula::GetTimeoutError);
  CHECK(mobula::test::count_of(file) == 0);
  mobula::test::open_gate(gate);

  CHECK(mobula::get(holder, kLong) == 1);
  mobula::get(other, kLong);
  CHECK(mobula::test::count_of(file) == 1);
}

TEST_CASE("who waits for a task that needs what he holds lends it") {
  const int levels = scaled(30, 6);
  CHECK(mobula::get(remote<needs_lamp>.with({.resources = {{"lamp", 1}}})(levels), kLong) ==
        levels);
  CHECK(all_is_free());
}

TEST_CASE("who reads a stream whose producer needs what he holds lends it") {
  const auto reader = remote<reads_by_lamplight>.with({.resources = {{"lamp", 1}}});
  CHECK(mobula::get(reader(20), kLong) == 190);
  CHECK(all_is_free());
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 1, .resources = {{"lamp", 1}, {"desk", 1}}});
}
