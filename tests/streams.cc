// Streams as a user meets them: order, waiting, ends, sharing, and what crashes leave of them.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::ActorHandle;
using mobula::Ref;
using mobula::remote;
using mobula::Sink;
using mobula::StreamRef;
using mobula::test::eventually;
using mobula::test::scaled;
using mobula::test::Scratch;

namespace streams {

// What producers tell about themselves while they run.
struct Diary {
  int count = 0;
  std::string last;
  void note(const std::string& text) {
    ++count;
    last = text;
  }
  int notes() const { return count; }
  std::string newest() const { return last; }
};

void numbers(Sink<int>& out, int n) {
  for (int i = 0; i < n; ++i) out.push(i);
}
void endless(Sink<long>& out) {
  for (long i = 0;; ++i) out.push(i);
}
// One line in the diary for each push that has returned, and one for the end.
void told(Sink<int>& out, ActorHandle<Diary> diary, int n) {
  try {
    for (int i = 0; i < n; ++i) {
      out.push(i);
      mobula::get(diary.call<&Diary::note>("pushed"));
    }
  } catch (const mobula::StreamStopped& e) {
    mobula::get(diary.call<&Diary::note>(std::string("stopped: ") + e.what()));
    throw;
  }
}
void blocks(Sink<std::vector<int>>& out, int n, std::size_t size) {
  for (int i = 0; i < n; ++i) out.push(std::vector<int>(size, i));
}
void told_blocks(Sink<std::vector<int>>& out, ActorHandle<Diary> diary, int n, std::size_t size) {
  for (int i = 0; i < n; ++i) {
    out.push(std::vector<int>(size, i));
    mobula::get(diary.call<&Diary::note>("pushed"));
  }
}
void words(Sink<std::string>& out) {
  for (std::size_t length = 0; length < 120; ++length) out.push(std::string(length, 'w'));
}
void fails_after(Sink<int>& out, int n) {
  numbers(out, n);
  throw std::runtime_error("no more of them");
}
void waits_first(Sink<int>& out, std::string gate) {
  out.push(1);
  mobula::test::wait_at_gate(gate);
  out.push(2);
}

// What a push may carry in all ways that there are.
struct Piece {
  int number = 0;
  Ref<int> small;
  Ref<std::vector<int>> large;
  std::vector<int> more;
};
Piece piece(int i) {
  return {i, mobula::put(i), mobula::put(std::vector<int>(5000, i)),
          std::vector<int>(static_cast<std::size_t>(i % 3 * 300), i)};
}
void pieces(Sink<Piece>& out, int n) {
  for (int i = 0; i < n; ++i) out.push(piece(i));
}
bool is_piece(const Piece& seen, int i) {
  return seen.number == i && mobula::get(seen.small) == i &&
         mobula::get_view(seen.large)[4999] == i &&
         seen.more == std::vector<int>(static_cast<std::size_t>(i % 3 * 300), i);
}

void die() { ::kill(::getpid(), SIGKILL); }

// The first attempt dies after so many items.
void dies_once(Sink<Piece>& out, int n, int after) {
  for (int i = 0; i < n; ++i) {
    if (i == after && mobula::this_task().attempt == 0) die();
    out.push(piece(i));
  }
}
void throws_once(Sink<int>& out, int n) {
  for (int i = 0; i < n; ++i) {
    if (i == n / 2 && mobula::this_task().attempt == 0) throw std::runtime_error("once");
    out.push(i);
  }
}

std::vector<int> reads(StreamRef<int> stream, int n) {
  std::vector<int> seen;
  while (static_cast<int>(seen.size()) < n) {
    const auto item = stream.next();
    if (!item) break;
    seen.push_back(*item);
  }
  return seen;
}
// Its first attempt dies with what it has read.
std::vector<int> reads_and_dies_once(StreamRef<int> stream, int n) {
  std::vector<int> seen = reads(stream, n);
  if (mobula::this_task().attempt == 0) die();
  return seen;
}
void dies_over_items(StreamRef<Piece> stream) {
  stream.next();
  const auto second = stream.next();
  die();
}

StreamRef<int> from_elsewhere(int n) { return remote<numbers>(n); }
int one() { return 1; }
int process_id() { return ::getpid(); }

struct Source {
  int made = 0;
  void some(Sink<int>& out, int n) {
    for (int i = 0; i < n; ++i) out.push(made++);
  }
  void some_and_die(Sink<int>& out, int n) {
    some(out, n);
    die();
  }
  int count() const { return made; }
};

}  // namespace streams

using namespace streams;

namespace {

template <class T>
std::vector<T> rest_of(StreamRef<T> stream) {
  std::vector<T> items;
  while (auto item = stream.next(20s)) items.push_back(std::move(*item));
  return items;
}
std::vector<int> up_to(int n) {
  std::vector<int> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

bool nothing_is_stored() {
  return eventually(10s, [] {
    const auto report = mobula::memory_report();
    return report.store.used == 0;
  });
}

}  // namespace

TEST_CASE("items come in the order in which they were pushed") {
  StreamRef<int> stream = remote<numbers>(scaled(20'000, 5000));
  int expected = 0;

  for (const int item : stream) REQUIRE(item == expected++);

  CHECK(expected == scaled(20'000, 5000));
  CHECK_FALSE(stream.next());
}

TEST_CASE("an item can be read while its producer goes on") {
  const Scratch scratch;
  const std::string gate = (scratch.path() / "gate").string();
  StreamRef<int> stream = remote<waits_first>(gate);

  CHECK(stream.next(20s) == 1);
  CHECK_THROWS_AS(stream.next(50ms), mobula::GetTimeoutError);
  CHECK_THROWS_AS(stream.next(0ms), mobula::GetTimeoutError);
  CHECK(stream.try_next(0ms).error().code() == mobula::ErrorCode::kGetTimeout);
  mobula::test::open_gate(gate);
  CHECK(stream.next(20s) == 2);
  CHECK_FALSE(stream.next(20s));
}

TEST_CASE("items may be of any size, and contain refs") {
  const auto all_words = rest_of(StreamRef<std::string>(remote<words>()));
  REQUIRE(all_words.size() == 120);
  for (std::size_t i = 0; i < all_words.size(); ++i) CHECK(all_words[i] == std::string(i, 'w'));

  auto large = remote<blocks>(20, std::size_t{300'000});
  for (int i = 0; i < 20; ++i) CHECK(large.next(20s) == std::vector<int>(300'000, i));
  CHECK_FALSE(large.next());

  StreamRef<Piece> made = remote<pieces>(30);
  for (int i = 0; i < 30; ++i) {
    const auto item = made.next(20s);
    REQUIRE(item);
    CHECK(is_piece(*item, i));
  }
  CHECK_FALSE(made.next());
}

TEST_CASE("a producer waits when max_unread items lie unread") {
  const auto diary = actor<Diary>();
  StreamRef<int> stream = remote<told>.with({.max_unread = 5})(diary, 12);
  const auto notes = [&] { return mobula::get(diary.call<&Diary::notes>()); };

  CHECK(eventually(10s, [&] { return notes() == 5; }));
  std::this_thread::sleep_for(50ms);
  CHECK(notes() == 5);
  CHECK(stream.next(20s) == 0);
  CHECK(stream.next(20s) == 1);
  CHECK(eventually(10s, [&] { return notes() == 7; }));
  CHECK(rest_of(stream).size() == 10);
}

TEST_CASE("of large items no more than a quarter of the store lies unread") {
  const auto diary = actor<Diary>();
  auto stream = remote<told_blocks>(diary, 100, std::size_t{1 << 18});  // 1 MiB each; 16 MiB
  const auto notes = [&] { return mobula::get(diary.call<&Diary::notes>()); };

  CHECK(eventually(10s, [&] { return notes() == 15; }));
  std::this_thread::sleep_for(50ms);
  CHECK(notes() == 15);
  CHECK(rest_of(stream).size() == 100);
}

TEST_CASE("a waiting producer or reader gives its CPU to others") {
  std::vector<StreamRef<long>> stuck;
  for (int i = 0; i < 4; ++i) stuck.push_back(remote<endless>());
  for (auto& stream : stuck) CHECK(stream.next(20s) == 0);

  CHECK(mobula::get(remote<one>(), 20s) == 1);

  const Scratch scratch;
  const std::string gate = (scratch.path() / "gate").string();
  const StreamRef<int> late = remote<waits_first>.with({.num_cpus = 0})(gate);
  std::vector<Ref<std::vector<int>>> readers;
  for (int i = 0; i < 4; ++i) readers.push_back(remote<reads>(late, 9));
  CHECK(mobula::get(remote<one>(), 20s) == 1);
  mobula::test::open_gate(gate);
  std::size_t seen = 0;
  for (const auto& items : mobula::get(readers)) seen += items.size();
  CHECK(seen == 2);
}

TEST_CASE("stop ends the stream for its readers and its producer") {
  const auto diary = actor<Diary>();
  StreamRef<int> stream = remote<told>(diary, 1'000'000);
  CHECK(stream.next(20s) == 0);

  stream.stop();

  CHECK_FALSE(stream.next(20s));
  CHECK(eventually(10s, [&] {
    return mobula::get(diary.call<&Diary::newest>()).starts_with("stopped: nobody reads");
  }));
  CHECK_NOTHROW(mobula::get(stream.producer(), 20s));  // it ended well
}

TEST_CASE("a producer ends when the last StreamRef is gone") {
  const auto diary = actor<Diary>();
  const auto stopped = [&] {
    return mobula::get(diary.call<&Diary::newest>()).starts_with("stopped: nobody reads");
  };
  {
    StreamRef<int> stream = remote<told>(diary, 1'000'000);
    CHECK(stream.next(20s) == 0);
  }
  CHECK(eventually(10s, stopped));

  mobula::get(diary.call<&Diary::note>("again"));
  {
    Ref<std::vector<int>> read;
    {
      StreamRef<int> stream = remote<told>(diary, 1'000'000);
      read = remote<reads>(stream, 100);
    }
    CHECK(mobula::get(read, 20s) == up_to(100));  // a reader elsewhere kept it
  }
  CHECK(eventually(10s, stopped));
}

TEST_CASE("what the producer throws comes after its items") {
  StreamRef<int> stream = remote<fails_after>(3);

  for (int i = 0; i < 3; ++i) CHECK(stream.next(20s) == i);
  CHECK_THROWS_WITH_AS(stream.next(20s), doctest::Contains("no more of them"), mobula::TaskError);
  CHECK_FALSE(stream.try_next(20s).has_value());
}

TEST_CASE("a cancelled producer's readers get its items, then TaskCancelledError") {
  StreamRef<long> stream = remote<endless>();
  CHECK(stream.next(20s) == 0);

  CHECK(mobula::cancel(stream));

  const auto drain = [&] {
    while (stream.next(20s)) {
    }
  };
  CHECK_THROWS_AS(drain(), mobula::TaskCancelledError);
}

TEST_CASE("a producer's deadline ends its stream, after the items that it had pushed") {
  StreamRef<long> stream = remote<endless>.with({.deadline = 100ms, .max_unread = 4})();
  CHECK(stream.next(20s) == 0);

  const auto drain = [&] {
    while (stream.next(20s)) {
    }
  };
  CHECK_THROWS_AS(drain(), mobula::DeadlineExceededError);

  const auto source = actor<Source>();
  auto late = source.with({.deadline = 0s}).call<&Source::some>(5);
  CHECK_THROWS_AS(late.next(20s), mobula::DeadlineExceededError);
  CHECK(mobula::get(source.call<&Source::count>(), 20s) == 0);
}

TEST_CASE("readers share the items of a stream: each goes to one of them, in order") {
  const int n = scaled(20'000, 4000);
  StreamRef<int> stream = remote<numbers>.with({.num_cpus = 0})(n);
  std::vector<Ref<std::vector<int>>> readers;
  for (int i = 0; i < 3; ++i) readers.push_back(remote<reads>(stream, n));
  const std::vector<int> here = rest_of(stream);

  auto parts = mobula::get(readers);
  parts.push_back(here);
  std::vector<int> all;
  for (const auto& part : parts) {
    CHECK(std::is_sorted(part.begin(), part.end()));
    all.insert(all.end(), part.begin(), part.end());
  }
  std::sort(all.begin(), all.end());
  CHECK(all == up_to(n));
}

TEST_CASE("a stream that is passed on goes on where it was read to") {
  StreamRef<int> stream = mobula::get(remote<from_elsewhere>(100), 20s);
  CHECK(stream.next(20s) == 0);
  CHECK(mobula::get(remote<reads>(stream, 9), 20s).back() == 9);
  CHECK(stream.next(20s) == 10);
  CHECK(rest_of(stream).size() == 89);
}

TEST_CASE("an actor's method can be a producer, and later calls come after it") {
  const auto source = actor<Source>();
  auto first = source.call<&Source::some>(5);
  auto second = source.with({.max_unread = 2}).call<&Source::some>(5);
  const Ref<int> count = source.call<&Source::count>();

  CHECK(rest_of(first) == up_to(5));
  CHECK_THROWS_AS(mobula::get(count, 50ms), mobula::GetTimeoutError);
  CHECK(rest_of(second) == std::vector<int>{5, 6, 7, 8, 9});
  CHECK(mobula::get(count, 20s) == 10);
}

TEST_CASE("an actor that dies leaves the items that it had pushed, then its error") {
  const auto source = actor<Source>();
  auto stream = source.call<&Source::some_and_die>(4);
  auto never = source.call<&Source::some>(4);

  for (int i = 0; i < 4; ++i) CHECK(stream.next(20s) == i);
  CHECK_THROWS_AS(stream.next(20s), mobula::ActorDiedError);
  CHECK_THROWS_AS(never.next(20s), mobula::ActorDiedError);
}

TEST_CASE("a producer that crashes is run again, and readers see neither gap nor double") {
  for (const int after : {0, 1, 7, 40}) {
    CAPTURE(after);
    StreamRef<Piece> stream = remote<dies_once>.with({.max_unread = 16})(50, after);
    for (int i = 0; i < 50; ++i) {
      const auto item = stream.next(20s);
      REQUIRE(item);
      REQUIRE(is_piece(*item, i));
    }
    CHECK_FALSE(stream.next(20s));
  }
  CHECK(rest_of(StreamRef<int>(remote<throws_once>.with({.retry_exceptions = true})(100))) ==
        up_to(100));
}

TEST_CASE("a producer that crashes without retries leaves what it had pushed, then its error") {
  StreamRef<Piece> stream = remote<dies_once>.with({.max_retries = 0})(50, 8);

  for (int i = 0; i < 8; ++i) {
    const auto item = stream.next(20s);
    REQUIRE(item);
    // The refs inside were its process's own puts, and live on.
    CHECK(is_piece(*item, i));
  }
  CHECK_THROWS_AS(stream.next(20s), mobula::WorkerCrashedError);
}

TEST_CASE("a reader that dies takes along what it had taken; run again it goes on with the next") {
  const StreamRef<int> stream = remote<numbers>.with({.num_cpus = 0})(100);

  const std::vector<int> seen = mobula::get(remote<reads_and_dies_once>(stream, 30), 20s);

  CHECK(seen.front() == 30);
  CHECK(seen.back() == 59);
  CHECK(rest_of(stream).front() == 60);
}

TEST_CASE("a stream outlives the process that began it") {
  StreamRef<int> stream;
  {
    const auto began = remote<from_elsewhere>(5000);
    stream = mobula::get(began, 20s);
  }
  CHECK(stream.next(20s) == 0);
  // All workers die that are there; the producer is run again, its submitter is gone for good.
  for (int i = 0; i < 4; ++i) {
    const int pid = mobula::get(remote<process_id>(), 20s);
    ::kill(pid, SIGKILL);
  }
  const std::vector<int> items = rest_of(stream);
  REQUIRE(items.size() == 4999);
  CHECK(items.front() == 1);
  CHECK(items.back() == 4999);
}

TEST_CASE("nothing is left of streams that nobody has read to their end") {
  REQUIRE(nothing_is_stored());
  for (int round = 0; round < 3; ++round) {
    StreamRef<Piece> unread = remote<pieces>(20);
    StreamRef<Piece> stopped = remote<pieces>(20);
    StreamRef<Piece> crashed = remote<dies_once>.with({.max_retries = 0})(20, 10);
    auto large = remote<blocks>(40, std::size_t{100'000});
    stopped.next(20s);
    stopped.stop();
    large.next(20s);
    mobula::get(remote<one>(), 20s);
    const Ref<void> reader = remote<dies_over_items>.with({.max_retries = 0})(unread);
    CHECK_THROWS_AS(mobula::get(reader, 20s), mobula::WorkerCrashedError);
  }
  CHECK(nothing_is_stored());
}

TEST_CASE("memory_report tells what of a stream nobody has read") {
  const auto unread = [](const std::string& maker) {
    for (const auto& origin : mobula::memory_report().origins) {
      if (origin.is_item && origin.name.find(maker) != std::string::npos) return origin;
    }
    return mobula::MemoryReport::Origin{};
  };
  auto large = remote<blocks>.with({.max_unread = 3})(5, std::size_t{1 << 16});
  auto small = remote<numbers>.with({.max_unread = 10})(20);

  CHECK(eventually(20s, [&] { return unread("blocks").count == 3; }));
  CHECK(unread("blocks").bytes >= 3 << 18);
  CHECK(eventually(20s, [&] { return unread("numbers").count == 10; }));
  CHECK(unread("numbers").bytes == 10 * sizeof(int));
  const mobula::MemoryReport report = mobula::memory_report();
  REQUIRE(!report.largest.empty());
  CHECK(report.largest[0].is_item);
  CHECK(report.largest[0].size >= 1 << 18);
  CHECK(report.largest[0].holders >= 1);
  CHECK(report.text().find("items") != std::string::npos);

  CHECK(rest_of(large).size() == 5);
  CHECK(rest_of(small).size() == 20);
  CHECK(unread("blocks").count == 0);
  CHECK(unread("numbers").count == 0);
}

TEST_CASE("many streams at once keep apart") {
  std::vector<StreamRef<int>> all;
  for (int i = 0; i < 30; ++i) all.push_back(remote<numbers>.with({.num_cpus = 0})(i));
  for (int i = 0; i < 30; ++i) CHECK(rest_of(all[static_cast<std::size_t>(i)]) == up_to(i));
}

TEST_CASE("misuse of a stream is reported at the call") {
  CHECK_THROWS_WITH_AS(remote<numbers>.with({.max_unread = 0})(1),
                       doctest::Contains("from 1 to 1024"), mobula::Error);
  CHECK_THROWS_AS(remote<numbers>.with({.max_unread = 1025})(1), mobula::Error);
  StreamRef<int> none;
  CHECK_THROWS_WITH_AS(none.next(), doctest::Contains("empty"), mobula::Error);
  StreamRef<int> stream = remote<numbers>(1);
  CHECK_THROWS_WITH_AS(stream.next(-1ms), doctest::Contains("negative"), mobula::Error);
  CHECK(stream.next(20s) == 0);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .object_store_memory = 64ULL << 20, .log_to_driver = false});
}
