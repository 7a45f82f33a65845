#include "node/tables.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <set>

#include "node/world_test.h"
#include "shm/stream.h"

namespace mobula::node {
namespace {

using namespace testing;
using namespace shm::testing;
using shm::State;
namespace word = shm::word;

TEST_CASE("the header that the daemon writes lets processes in") {
  World world;

  const shm::ControlHeader& header = world.memory.header();
  CHECK(header.session == 77);
  CHECK(header.cores == 2);
  CHECK(header.object_capacity == 1 << 20);
  CHECK(header.daemon_pid == static_cast<std::uint32_t>(::getpid()));
  Child child = world.session.start(
      [](const shm::Memory& memory) { MOBULA_CHECK(memory.header().session == 77); });
  CHECK(child.end() == kWell);
}

TEST_CASE("entries are handed out once each, and again when they were closed") {
  World world;
  const std::uint32_t process = world.process();
  const std::uint32_t other = world.process();
  CHECK(process != other);
  const auto a = world.tables.open_participant(process);
  const auto b = world.tables.open_participant(process);
  const auto c = world.tables.open_participant(other);
  REQUIRE((a && b && c));
  CHECK(std::set{*a, *b, *c}.size() == 3);
  CHECK(*a != 0);  // 0 is nobody in a hold count
  CHECK(world.tables.participants_of(process) == std::vector{*a, *b});
  CHECK(world.memory.participant(*b).process.load() == process);

  world.tables.close_participant(*b);
  CHECK(world.tables.participants_of(process) == std::vector{*a});
  CHECK(world.tables.open_participant(other) == b);
  world.tables.close_process(process);
  CHECK(world.memory.process(process).role.load() ==
        static_cast<std::uint32_t>(shm::ProcessRole::None));
  CHECK(world.process() == process);
  const auto cls = world.tables.open_class();
  CHECK(world.tables.open_class() != cls);
  world.tables.close_class(*cls);
  CHECK(world.tables.open_class() == cls);
}

TEST_CASE("each table ends at its limit, with nothing, and goes on when an entry comes back") {
  World world;
  for (std::uint32_t i = 0; i < shm::kProcessesMax; ++i)
    REQUIRE(world.tables.open_process(shm::ProcessRole::Worker));
  CHECK_FALSE(world.tables.open_process(shm::ProcessRole::Worker));
  world.tables.close_process(9);
  CHECK(world.tables.open_process(shm::ProcessRole::Worker) == 9);

  for (std::uint32_t i = 1; i < shm::kParticipantsMax; ++i)
    REQUIRE(world.tables.open_participant(0));
  CHECK_FALSE(world.tables.open_participant(0));
  world.tables.close_participant(100);
  CHECK(world.tables.open_participant(1) == 100);

  for (std::uint32_t i = 0; i < shm::kClassesMax; ++i) REQUIRE(world.tables.open_class());
  CHECK_FALSE(world.tables.open_class());
}

TEST_CASE(
    "segments of records change hands with their generations, and are listed under their ledger") {
  World world;
  const std::uint32_t process = world.process();
  const std::uint32_t a = *world.tables.open_participant(process);
  const std::uint32_t b = *world.tables.open_participant(process);
  world.tables.prepare_segment();
  const auto first = world.tables.lease_segment(a);
  const auto second = world.tables.lease_segment(a);
  REQUIRE((first && second));
  CHECK(first != second);
  CHECK(world.memory.segment_owner(*first).load() == a);
  CHECK(world.tables.segments_of(a) == std::vector{*first, *second});
  CHECK(world.tables.segments_of(b).empty());
  CHECK(world.tables.record_segments() == std::vector{*first, *second});
  world.memory.record(*second * shm::kRecordsPerSegment + 5)
      .state.store(word::make(41, State::Free));

  world.tables.close_participant(a);
  CHECK(world.memory.segment_owner(*second).load() == shm::kNone);
  CHECK(world.tables.record_segments().empty());
  const auto again = world.tables.lease_segment(b);
  const auto again_too = world.tables.lease_segment(b);
  CHECK(std::set{again, again_too} == std::set{first, second});
  CHECK(word::generation(world.memory.record(*second * shm::kRecordsPerSegment + 5).state.load()) ==
        41);
}

TEST_CASE("the records that a leased segment is said to have can be written without a page fault") {
  World world;
  const std::uint32_t participant = *world.tables.open_participant(world.process());
  world.tables.prepare_segment();
  const std::uint32_t first = *world.tables.lease_segment(participant);
  const std::uint32_t prepared = *world.tables.lease_segment(participant);
  CHECK(world.memory.segment_ready(first).load() == shm::kRecordsAtFirst);
  CHECK(world.memory.segment_ready(prepared).load() == shm::kRecordsPerSegment);

  for (const std::uint32_t segment : {first, prepared}) {
    const std::size_t size = world.memory.segment_ready(segment).load() * shm::kRecordSize;
    std::vector<unsigned char> present(size / shm::kPage);
    REQUIRE(::mincore(world.memory.segment(segment), size, present.data()) == 0);
    CHECK(std::all_of(present.begin(), present.end(),
                      [](unsigned char page) { return (page & 1) != 0; }));
  }
}

TEST_CASE("streams change hands with their numbers, and begin free") {
  World world;
  const std::uint32_t process = world.process();
  const auto a = world.tables.lease_stream(process);
  const auto b = world.tables.lease_stream(process);
  REQUIRE((a && b));
  CHECK(a != b);
  CHECK(world.tables.stream_limit() == 2);
  shm::Stream& stream = shm::stream::at(world.memory, *b);
  CHECK_FALSE(shm::stream::pushed(stream, 0));
  CHECK_FALSE(shm::stream::pushed(stream, shm::kStreamSlots - 1));
  shm::stream::open(stream, {5, 1}, 10);
  shm::stream::publish(stream, 0);
  shm::stream::close(stream, {5, 1}, 1, [](shm::StreamSlot&, std::uint64_t) {});

  world.tables.return_streams(process);
  const std::uint32_t other = world.process();
  CHECK(std::set{world.tables.lease_stream(other), world.tables.lease_stream(other)} ==
        std::set{a, b});
  shm::stream::open(stream, {6, 1}, 10);
  CHECK(stream.first == 1);
  CHECK_FALSE(shm::stream::pushed(stream, 1));
}

TEST_CASE("segments of hold tables come back empty, and never become records") {
  World world;
  const std::uint32_t process = world.process();
  const std::uint32_t other = world.process();
  const std::uint32_t participant = *world.tables.open_participant(other);
  const auto holds = world.tables.lease_holds(process, 0);
  const auto more = world.tables.lease_holds(process, 1);
  REQUIRE((holds && more));
  CHECK(world.memory.process(process).hold_segments[1].load() == *more);
  CHECK_FALSE(world.tables.lease_holds(process, shm::kHoldSegmentsMax));
  auto* lines = reinterpret_cast<shm::HoldEntry*>(world.memory.segment(*holds));
  lines[7].record.store(1);
  lines[shm::kHoldsPerSegment - 1].container.store(2);

  world.tables.return_holds(process);
  for (const auto& entry : world.memory.process(process).hold_segments)
    CHECK(entry.load() == shm::kNone);
  CHECK(lines[7].record.load() == 0);
  CHECK(lines[shm::kHoldsPerSegment - 1].container.load() == 0);
  for (int i = 0; i < 4; ++i) {
    const auto segment = world.tables.lease_segment(participant);
    CHECK(segment != holds);
    CHECK(segment != more);
  }
  CHECK(std::set{holds, more} ==
        std::set{world.tables.lease_holds(other, 0), world.tables.lease_holds(other, 1)});
}

TEST_CASE(
    "a class's rings follow each other in the order of opening, and a dead pusher's empty one is "
    "reused") {
  World world;
  const std::uint32_t process = world.process();
  const std::uint32_t a = *world.tables.open_participant(process);
  const std::uint32_t b = *world.tables.open_participant(process);
  const std::uint32_t cls = *world.tables.open_class();
  const auto ring = [&](std::uint64_t offset) -> shm::RingHeader& {
    return ring_at(world.memory, offset);
  };

  const std::uint64_t first = *world.tables.open_ring(a, cls);
  const std::uint64_t second = *world.tables.open_ring(b, cls);
  CHECK(world.memory.scheduling_class(cls).rings.load() == first);
  CHECK(ring(first).next.load() == second);
  CHECK(ring(second).next.load() == 0);
  CHECK(ring(second).participant.load() == b);
  CHECK(ring(second).scheduling_class.load() == cls);
  CHECK(shm::ring::has_room(ring(second)));

  shm::ring::push(world.memory, ring(first), {1, 1});
  ring(first).participant.store(shm::kNone);
  const std::uint64_t third = *world.tables.open_ring(a, cls);
  CHECK(third != first);  // it holds work
  CHECK(ring(second).next.load() == third);
  ring(first).tail.store(1);
  CHECK(world.tables.open_ring(b, cls) == first);
  CHECK(ring(first).participant.load() == b);
}

TEST_CASE("storage for a ring's next stage overlaps nothing, and too much of it is refused") {
  World world;
  const std::uint32_t participant = *world.tables.open_participant(world.process());
  const std::uint32_t cls = *world.tables.open_class();
  const std::uint64_t ring = *world.tables.open_ring(participant, cls);
  const std::uint64_t ring_end = ring + sizeof(shm::RingHeader) + shm::kRingFirstEntries * 8;

  const auto a = world.tables.ring_storage(512);
  const auto b = world.tables.ring_storage(1024);
  REQUIRE((a && b));
  CHECK(*a >= ring_end);
  CHECK((*a + 512 * 8 <= *b || *b + 1024 * 8 <= *a));
  CHECK_FALSE(world.tables.ring_storage(shm::kHeapSize));
}

}  // namespace
}  // namespace mobula::node
