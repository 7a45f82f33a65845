#include "shm/stream.h"

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace mobula::shm {
namespace {

constexpr Address kProducer{5, 7};
constexpr std::uint32_t kAnn = 1;
constexpr std::uint32_t kBob = 2;

std::unique_ptr<Stream> empty_stream() {
  auto s = std::make_unique<Stream>();
  for (std::uint64_t n = 0; n < kStreamSlots; ++n)
    s->slots[n].word.store(slot::make(n, slot::State::Free));
  stream::open(*s, kProducer, kStreamSlots);
  return s;
}
void push(Stream& s, std::uint64_t n) {
  s.slot_of(n).size = static_cast<std::uint16_t>(n % 40);
  stream::publish(s, n);
  s.head.store(n + 1);
}

}  // namespace

TEST_CASE("items are taken in the order in which they were pushed, and none before") {
  const auto s = empty_stream();
  CHECK_FALSE(stream::take(*s, kAnn));
  for (std::uint64_t n = 0; n < 3; ++n) push(*s, n);

  CHECK(stream::take(*s, kAnn) == 0u);
  CHECK(stream::take(*s, kBob) == 1u);
  CHECK(stream::take(*s, kAnn) == 2u);
  CHECK_FALSE(stream::take(*s, kBob));
  CHECK(slot::reader(s->slot_of(1).word.load()) == kBob);
}

TEST_CASE("a slot is the next item's when its reader has freed it, also out of order") {
  const auto s = empty_stream();
  for (std::uint64_t n = 0; n < kStreamSlots; ++n) push(*s, n);
  stream::take(*s, kAnn);
  stream::take(*s, kBob);

  stream::free(*s, 1);

  CHECK(stream::is_free(*s, 1));
  CHECK_FALSE(stream::is_free(*s, 0));
  stream::free(*s, 0);
  CHECK(stream::is_free(*s, 0));
  push(*s, kStreamSlots);
  CHECK(stream::pushed(*s, kStreamSlots));
  CHECK_FALSE(stream::pushed(*s, kStreamSlots + 1));
}

TEST_CASE("who died before moving head or tail is caught up with") {
  const auto s = empty_stream();
  for (std::uint64_t n = 0; n < 4; ++n) push(*s, n);
  s->head.store(2);  // the producer pushed 2 and 3, and did not say so
  stream::take(*s, kAnn);
  stream::take(*s, kAnn);
  s->tail.store(0);

  CHECK(stream::next_item(*s) == 4);
  CHECK(stream::take(*s, kBob) == 2u);
}

TEST_CASE("an item's mark tells whether the item was pushed, whatever became of it since") {
  // The mark names a slot of a session's stream; here only its number counts.
  const Address mark = stream::mark(3, kStreamSlots + 5);
  CHECK(stream::is_mark(mark));
  CHECK_FALSE(stream::is_mark(kProducer));
  CHECK(mark.slot % kStreamSlots == 5);
  CHECK(mark.generation == kStreamSlots + 5);
}

TEST_CASE(
    "closing drops what nobody has taken, and leaves the stream right for the next producer") {
  const auto s = empty_stream();
  for (std::uint64_t n = 0; n < 10; ++n) push(*s, n);
  stream::free(*s, *stream::take(*s, kAnn));
  std::vector<std::uint64_t> dropped;

  stream::close(*s, {6, 7}, kAnn, [&](StreamSlot&, std::uint64_t n) { dropped.push_back(n); });
  CHECK(dropped.empty());  // another record's by now
  stream::close(*s, kProducer, kAnn, [&](StreamSlot&, std::uint64_t n) { dropped.push_back(n); });

  CHECK(dropped == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(s->record.load() == 0);
  stream::open(*s, {6, 8}, 10);
  CHECK(s->first == 10);
  CHECK(stream::next_item(*s) == 10);
  push(*s, 10);
  CHECK(stream::take(*s, kBob) == 10u);
}

TEST_CASE("readers at once get each item once, while the producer goes round the ring") {
  const auto s = empty_stream();
  constexpr std::uint64_t kItems = 30'000;
  std::vector<std::atomic<int>> taken(kItems);
  std::atomic<std::uint64_t> all{0};
  const auto read = [&](std::uint32_t me) {
    while (all.load() < kItems) {
      if (const auto n = stream::take(*s, me)) {
        taken[*n].fetch_add(s->slot_of(*n).size == *n % 40 ? 1 : 100);
        stream::free(*s, *n);
        all.fetch_add(1);
      } else {
        std::this_thread::yield();
      }
    }
  };
  std::thread ann(read, kAnn), bob(read, kBob);
  for (std::uint64_t n = 0; n < kItems; ++n) {
    while (n >= kStreamSlots && !stream::is_free(*s, n - kStreamSlots)) std::this_thread::yield();
    push(*s, n);
  }
  ann.join();
  bob.join();

  for (const auto& times : taken) REQUIRE(times.load() == 1);
}

}  // namespace mobula::shm
