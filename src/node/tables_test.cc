#include "node/tables.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "shm/processes_test.h"

namespace mobula::node {
namespace {

using namespace shm::testing;
using shm::Address;
using shm::State;
namespace word = shm::word;
namespace block = shm::block;

constexpr std::uint64_t kBlock = 1024;

struct World {
  explicit World(std::size_t object_capacity = 1 << 20) : session(object_capacity) {}

  std::uint32_t process() { return tables.open_process(shm::ProcessRole::Worker).value(); }
  std::uint32_t lease(std::uint32_t process, std::uint64_t size, std::uint64_t block_size) {
    Tables::ExtentRefusal refusal;
    return tables.lease_extent(process, size, block_size, refusal).value();
  }
  // A taken block, as a record would name it.
  shm::StoredAt take(std::uint32_t extent, std::uint32_t number, std::uint32_t process) {
    shm::Extent& e = memory.extent(extent);
    const std::uint32_t generation = shm::take_block(e, memory.block_word(e, number), process);
    REQUIRE(generation != shm::kNone);
    return {e.block_size, extent, number << 20 | generation};
  }
  bool used(const shm::StoredAt& at) {
    return memory.block_word(memory.extent(at.extent), shm::block_index(at)).load() ==
           block::used(shm::block_generation(at));
  }

  Session session;
  shm::Memory& memory = session.memory();
  Tables tables{memory, 77, 2};
};

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

TEST_CASE(
    "a leased segment can be written to its end by a process that could take no page itself") {
  World world;
  const std::uint32_t participant = *world.tables.open_participant(world.process());
  const std::uint32_t segment = *world.tables.lease_segment(participant);

  std::vector<unsigned char> present(shm::kSegmentSize / shm::kPage);
  REQUIRE(::mincore(world.memory.segment(segment), shm::kSegmentSize, present.data()) == 0);
  CHECK(std::all_of(present.begin(), present.end(),
                    [](unsigned char page) { return (page & 1) != 0; }));
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

// ---- Extents

TEST_CASE("a leased extent is cut into blocks, none of which lies outside or in another extent") {
  World world;
  const std::uint32_t process = world.process();
  struct Row {
    std::uint64_t size;
    std::uint64_t block_size;
    std::uint32_t blocks;
  };
  std::uint64_t leased = 0;
  std::set<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const Row& row :
       {Row{4096, 256, 16}, Row{5000, 0, 1}, Row{8192, 384, 21}, Row{4096, 4096, 1}, Row{1, 0, 1},
        Row{64 << 10, 8, shm::kBlocksPerExtentMax}}) {
    CAPTURE(row.size);
    const shm::Extent& e = world.memory.extent(world.lease(process, row.size, row.block_size));
    CHECK(e.blocks == row.blocks);
    CHECK(e.size >= row.size);
    CHECK(e.size % shm::kPage == 0);
    CHECK(e.blocks * e.block_size <= e.size);
    CHECK(e.block_size >= std::min(row.size, std::max<std::uint64_t>(row.block_size, 1)));
    CHECK(e.lessee.load() == process);
    CHECK(e.in_use.load() == 1);
    for (const auto& [begin, end] : ranges) CHECK((e.offset + e.size <= begin || end <= e.offset));
    ranges.emplace(e.offset, e.offset + e.size);
    leased += e.size;
  }
  CHECK(world.tables.object_bytes_free() == (1 << 20) - leased);
}

TEST_CASE("an extent whose blocks would be larger than itself is refused or holds one") {
  World world;
  Tables::ExtentRefusal refusal;

  const auto extent = world.tables.lease_extent(world.process(), 4096, 8192, refusal);
  if (extent) CHECK(world.memory.extent(*extent).blocks >= 1);
}

TEST_CASE("refusals say what is wanted, what is there, and what to do") {
  World world;
  const std::uint32_t process = world.process();
  Tables::ExtentRefusal refusal;

  for (const std::uint64_t size : {std::uint64_t{1 << 20} + 1, ~std::uint64_t{0}}) {
    CHECK_FALSE(world.tables.lease_extent(process, size, 0, refusal));
    CHECK(refusal.never);
    CHECK(refusal.text == "an object of " + std::to_string(size) +
                              " bytes is larger than the object store of 1048576 bytes; "
                              "Config.object_store_memory sets its size");
  }

  world.take(world.lease(process, 1 << 19, 0), 0, process);
  CHECK_FALSE(world.tables.lease_extent(process, (1 << 19) + 1, 0, refusal));
  CHECK_FALSE(refusal.never);
  CHECK(refusal.text ==
        "the object store is full: 524289 bytes are wanted, 524288 of 1048576 are free (the "
        "largest piece has 524288). Drop refs "
        "that are not needed, or set Config.object_store_memory");
  CHECK(world.tables.lease_extent(process, 1 << 19, 0, refusal));
}

TEST_CASE("when all entries of extents are taken the refusal says so, and no bytes are lost") {
  constexpr std::uint64_t kCapacity = (std::uint64_t{shm::kExtentsMax} + 16) * shm::kPage;
  World world(kCapacity);
  const std::uint32_t process = world.process();
  for (std::uint32_t i = 0; i < shm::kExtentsMax; ++i)
    world.take(world.lease(process, 1, 0), 0, process);

  Tables::ExtentRefusal refusal;
  for (int attempt = 0; attempt < 3; ++attempt) {
    CHECK_FALSE(world.tables.lease_extent(process, 1, 0, refusal));
    CHECK_FALSE(refusal.never);
    CHECK(refusal.text ==
          "the object store has no entry left for another extent (there are 65536)");
    CHECK(world.tables.object_bytes_free() == 16 * shm::kPage);
  }
}

TEST_CASE("under pressure what processes keep and do not use is taken back, and nothing else") {
  World world;
  const std::uint32_t ann = world.process();
  const std::uint32_t bob = world.process();
  const std::uint32_t idle = world.lease(ann, 256 << 10, 4096);
  const std::uint32_t busy = world.lease(ann, 256 << 10, 4096);
  const std::uint32_t large = world.lease(ann, 512 << 10, 0);
  const shm::StoredAt kept = world.take(busy, 63, ann);
  world.memory.give_back(world.take(idle, 3, ann));
  world.memory.give_back(world.take(large, 0, ann));
  REQUIRE(world.tables.object_bytes_free() == 0);
  Tables::ExtentRefusal refusal;

  CHECK_FALSE(world.tables.lease_extent(bob, 800 << 10, 0, refusal));
  CHECK(world.memory.extent(busy).lessee.load() == ann);
  CHECK(world.used(kept));
  // What it gave up for the large one that did not fit is free for smaller ones.
  const auto got = world.tables.lease_extent(bob, 512 << 10, 0, refusal);
  REQUIRE(got);
  CHECK(world.memory.extent(*got).lessee.load() == bob);
  CHECK(world.used(kept));
  // Its late lessee finds that it is gone.
  for (const std::uint32_t extent : {idle, large}) {
    shm::Extent& e = world.memory.extent(extent);
    if (e.lessee.load() != ann)
      CHECK(shm::take_block(e, world.memory.block_word(e, 0), ann) == shm::kNone);
  }
  // The blocks that stayed are as usable as before.
  world.take(busy, 0, ann);
}

TEST_CASE("giving a block back twice is harmless, whatever its extent's entry stands for by then") {
  struct Shape {
    std::string_view name;
    std::uint64_t size;
    std::uint64_t block_size;
  };
  const std::vector<Shape> shapes = {
      {"one block", 64 << 10, 0}, {"16 blocks", 16 << 10, kBlock}, {"64 blocks", 64 << 10, kBlock}};
  for (const Shape& before : shapes) {
    for (const Shape& after : shapes) {
      for (int uses_before = 1; uses_before <= 4; ++uses_before) {
        World world(64 << 10);
        const std::uint32_t process = world.process();
        const std::uint32_t extent = world.lease(process, before.size, before.block_size);
        shm::StoredAt stale{};
        for (int use = 0; use < uses_before; ++use) {
          stale = world.take(extent, 0, process);
          world.memory.give_back(stale);
        }
        // The whole store: whatever the entry stood for is taken back first.
        world.memory.give_back(world.take(world.lease(process, 64 << 10, 0), 0, process));
        std::uint32_t again = world.lease(process, after.size, after.block_size);
        if (again != extent) again = world.lease(process, after.size, after.block_size);
        REQUIRE(again == extent);

        for (int use = 0; use < 8; ++use) {
          const shm::StoredAt live = world.take(extent, 0, process);
          world.memory.give_back(stale);
          CAPTURE(before.name);
          CAPTURE(after.name);
          CAPTURE(uses_before);
          CAPTURE(use);
          CHECK(world.used(live));
          world.memory.give_back(live);
        }
      }
    }
  }
}

TEST_CASE("of a dead process's extents, blocks that no record names are taken back at once") {
  World world;
  const std::uint32_t dead = world.process();
  const std::uint32_t living = world.process();
  world.take(world.lease(dead, 64 << 10, kBlock), 5, dead);
  world.take(world.lease(dead, 128 << 10, 0), 0, dead);
  const shm::StoredAt not_its = world.take(world.lease(living, 64 << 10, kBlock), 5, living);

  world.tables.orphan_extents(dead);

  CHECK_FALSE(world.tables.sweep_orphans());
  CHECK(world.tables.object_bytes_free() == (1 << 20) - (64 << 10));
  CHECK(world.used(not_its));
}

TEST_CASE(
    "a dead process's block that a record names stays until it is given back, then its extent is "
    "free") {
  struct Row {
    std::string_view name;
    bool argument;
    State state;
    bool kept;
  };
  for (const Row& row :
       {Row{"argument of a waiting task", true, State::Waiting, true},
        Row{"argument of a ready task", true, State::Ready, true},
        Row{"result of a done task", false, State::Done, true},
        Row{"result of a task that another worker runs again", false, State::Claimed, true},
        Row{"result of a recycled task", false, State::Free, false},
        Row{"argument of a task that was not submitted", true, State::Free, false}}) {
    CAPTURE(row.name);
    World world;
    const std::uint32_t dead = world.process();
    const std::uint32_t living = world.process();
    const std::uint32_t segment =
        *world.tables.lease_segment(*world.tables.open_participant(living));
    shm::Record& record = make_task(world.memory, {segment * shm::kRecordsPerSegment + 17, 3});
    const std::uint32_t extent = world.lease(dead, 64 << 10, kBlock);
    const shm::StoredAt named = world.take(extent, 9, dead);
    const shm::StoredAt unnamed = world.take(extent, 10, dead);
    if (row.argument) {
      record.flags = shm::flag::kArgsStored;
      record.args_at() = named;
    } else {
      record.result_kind = shm::ResultKind::Stored;
      record.result_at() = named;
    }
    record.state.store(word::make(3, row.state));

    world.tables.orphan_extents(dead);

    CHECK(world.tables.sweep_orphans() == row.kept);
    CHECK(world.tables.object_bytes_free() == (1 << 20) - (row.kept ? 64 << 10 : 0));
    if (!row.kept) continue;
    CHECK(world.used(named));
    CHECK_FALSE(world.used(unnamed));
    CHECK(world.tables.sweep_orphans());
    world.memory.give_back(named);
    CHECK_FALSE(world.tables.sweep_orphans());
    CHECK(world.tables.object_bytes_free() == 1 << 20);
  }
}

TEST_CASE("what an earlier use of a block is called does not keep the block") {
  World world;
  const std::uint32_t dead = world.process();
  const std::uint32_t segment = *world.tables.lease_segment(*world.tables.open_participant(dead));
  shm::Record& record = make_task(world.memory, {segment * shm::kRecordsPerSegment + 17, 3});
  const std::uint32_t extent = world.lease(dead, 64 << 10, kBlock);
  const shm::StoredAt earlier = world.take(extent, 9, dead);
  world.memory.give_back(earlier);
  const shm::StoredAt later = world.take(extent, 9, dead);
  record.result_kind = shm::ResultKind::Stored;
  record.result_at() = earlier;
  record.state.store(word::make(3, State::Done));

  world.tables.orphan_extents(dead);
  CHECK_FALSE(world.used(later));
  CHECK(world.tables.object_bytes_free() == 1 << 20);
}

TEST_CASE("a process killed between taking a block and naming it loses no memory of the store") {
  World world;
  const std::uint32_t process = world.process();
  const std::uint32_t extent = world.lease(process, 64 << 10, kBlock);

  Child child = world.session.start([&](const shm::Memory& memory) {
    die_at(shm::CrashPoint::AllocateTaken, 30);
    shm::Extent& e = memory.extent(extent);
    for (std::uint32_t b = 0;; b = (b + 1) % e.blocks) {
      if (shm::take_block(e, memory.block_word(e, b), process) != shm::kNone)
        shm::crash_point(shm::CrashPoint::AllocateTaken);
    }
  });
  REQUIRE(child.end() == kKilled);
  CHECK(world.tables.object_bytes_free() == (1 << 20) - (64 << 10));

  world.tables.orphan_extents(process);
  CHECK(world.tables.object_bytes_free() == 1 << 20);
}

TEST_CASE("a lessee at work and a daemon under pressure never both have an extent") {
  constexpr int kRounds = 3000;
  World world(256 << 10);
  const std::uint32_t lessee = world.process();
  const std::uint32_t extent = world.lease(lessee, 256 << 10, 64 << 10);
  const std::uint64_t flags = *world.tables.ring_storage(2);
  const auto flag = [&](const shm::Memory& memory, int i) -> std::atomic<std::uint64_t>& {
    return reinterpret_cast<std::atomic<std::uint64_t>*>(memory.heap(flags))[i];
  };
  Child child = world.session.start([&](const shm::Memory& memory) {
    shm::Extent& e = memory.extent(extent);
    while (flag(memory, 0).load() == 0) {
      for (std::uint32_t b = 0; b < 4; ++b) {
        std::atomic<std::uint32_t>& w = memory.block_word(e, b);
        const std::uint32_t generation = shm::take_block(e, w, lessee);
        if (generation == shm::kNone) continue;
        flag(memory, 1).fetch_add(1);
        MOBULA_CHECK(shm::give_block(w, generation));  // nobody has leased it meanwhile
      }
    }
  });
  REQUIRE(eventually([&] { return flag(world.memory, 1).load() > 100; }));

  Tables::ExtentRefusal refusal;
  for (int round = 0; round < kRounds; ++round) {
    // Granted only in a moment when it uses no block; then the entry is its own again, anew.
    std::optional<std::uint32_t> again;
    REQUIRE(eventually([&] {
      again = world.tables.lease_extent(lessee, 256 << 10, 64 << 10, refusal);
      return again.has_value();
    }));
    REQUIRE(*again == extent);
  }
  flag(world.memory, 0).store(1);
  CHECK(child.end() == kWell);
}

}  // namespace
}  // namespace mobula::node
