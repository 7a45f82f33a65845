#include "core/memory_line.h"

#include <doctest/doctest.h>

namespace mobula::core {
namespace {

using namespace std::chrono_literals;
using Asker = MemoryLine::Asker;
using Time = MemoryLine::Time;

constexpr std::uint64_t kSmall = 100;
constexpr std::uint64_t kCapacity = kSmall * MemoryLine::kSmallPart;
constexpr Asker kAnn{1, 5000}, kBob{2, 3000}, kCid{3, 4000};
constexpr Time kStart = 1s;

TEST_CASE("large requests are met in the order in which they came") {
  MemoryLine line(kCapacity);
  line.must_wait(kAnn, false, kStart);
  CHECK_FALSE(line.its_turn(kBob, kStart));
  CHECK_FALSE(line.its_turn(kCid, kStart));

  CHECK(line.its_turn(kAnn, kStart));
  line.leave(kAnn);
  CHECK_FALSE(line.its_turn(kCid, kStart));
  CHECK(line.its_turn(kBob, kStart));
  line.leave(kBob);
  CHECK(line.its_turn(kCid, kStart));
}

TEST_CASE("who finds nobody waiting is served, and stands in nobody's way") {
  MemoryLine line(kCapacity);

  CHECK(line.its_turn(kAnn, kStart));
  CHECK(line.its_turn(kBob, kStart));
}

TEST_CASE("a small request passes everybody") {
  MemoryLine line(kCapacity);
  line.must_wait(kAnn, false, kStart);

  CHECK(line.its_turn({kBob.process, kSmall}, kStart));
  CHECK_FALSE(line.its_turn({kBob.process, kSmall + 1}, kStart));
}

TEST_CASE("a small request that found no room has its place in the line") {
  MemoryLine line(kCapacity);
  line.must_wait({kAnn.process, kSmall}, false, kStart);

  CHECK_FALSE(line.its_turn(kBob, kStart));
  line.leave({kAnn.process, kSmall});
  CHECK(line.its_turn(kBob, kStart));
}

TEST_CASE("who is stuck is passed, and keeps its place") {
  MemoryLine line(kCapacity);
  line.must_wait(kAnn, true, kStart);
  line.must_wait(kBob, true, kStart);

  CHECK(line.its_turn(kCid, kStart));
  CHECK(line.its_turn(kAnn, kStart));  // there may be room for it after all
  line.must_wait(kAnn, false, kStart);
  CHECK_FALSE(line.its_turn(kCid, kStart));
  CHECK_FALSE(line.its_turn(kBob, kStart));
}

TEST_CASE("who has not asked for 200 ms is forgotten") {
  MemoryLine line(kCapacity);
  line.must_wait(kAnn, false, kStart);

  CHECK_FALSE(line.its_turn(kBob, kStart + 200ms));
  CHECK(line.its_turn(kBob, kStart + 200ms + 1ns));
  CHECK_FALSE(line.its_turn(kAnn, kStart + 200ms + 1ns));  // at the end of the line now
}

TEST_CASE("who asks again keeps its place") {
  MemoryLine line(kCapacity);
  line.must_wait(kAnn, false, kStart);
  CHECK(line.its_turn(kAnn, kStart + 150ms));

  CHECK_FALSE(line.its_turn(kBob, kStart + 300ms));
  CHECK(line.its_turn(kAnn, kStart + 300ms));
}

TEST_CASE("requests of one process are told apart by their sizes") {
  MemoryLine line(kCapacity);
  line.must_wait(kAnn, false, kStart);
  const Asker more{kAnn.process, kAnn.bytes + 1};

  CHECK_FALSE(line.its_turn(more, kStart));
  line.leave(more);
  CHECK(line.its_turn(kAnn, kStart));
  CHECK_FALSE(line.its_turn(kBob, kStart));
}

}  // namespace
}  // namespace mobula::core
