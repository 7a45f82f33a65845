#include "node/object_memory.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "node/world_test.h"

namespace mobula::node {
namespace {

using namespace testing;
using namespace shm::testing;
using namespace std::chrono_literals;
using shm::State;
using Answer = ObjectMemory::Answer;
using Outcome = ObjectMemory::Outcome;
namespace word = shm::word;
namespace block = shm::block;

constexpr std::uint64_t kBlock = 1024;
constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;

struct Store : World {
  explicit Store(std::size_t capacity = 1 << 20) : World(capacity) {}

  // Time goes on from one request to the next, so that none is kept from looking round.
  Answer ask(std::uint32_t process, std::uint64_t size, std::uint64_t block_size,
             bool spillable = true) {
    now += 50ms;
    return objects.lease(process, size, block_size, spillable, now);
  }
  std::uint32_t lease(std::uint32_t process, std::uint64_t size, std::uint64_t block_size) {
    const Answer answer = ask(process, size, block_size);
    REQUIRE_MESSAGE(answer.outcome == Outcome::Granted, answer.text);
    return answer.extent;
  }
  // A taken block, as a record would name it.
  shm::StoredAt take(std::uint32_t extent, std::uint32_t number) {
    shm::Extent& e = memory.extent(extent);
    const std::uint32_t generation = shm::take_block(memory.block_word(e, number));
    REQUIRE(generation != shm::kNone);
    return {e.block_size, extent, number << 20 | generation};
  }
  bool used(const shm::StoredAt& at) {
    return memory.block_word(memory.extent(at.extent), shm::block_index(at)).load() ==
           block::used(shm::block_generation(at));
  }
  bool look_after() {
    now += 50ms;
    return objects.look_after(now);
  }
  std::uint64_t leased() const { return objects.counts().leased; }

  ObjectMemory::Time now{1s};
  ObjectMemory objects{memory, tables, nullptr, 0};
};

TEST_CASE("a leased extent is cut into blocks, none of which lies outside or in another extent") {
  Store store;
  const std::uint32_t process = store.process();
  struct Row {
    std::uint64_t size;
    std::uint64_t block_size;
    std::uint32_t blocks;
  };
  std::uint64_t leased = 0;
  std::set<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const Row& row :
       {Row{4096, 256, 16}, Row{5000, 0, 1}, Row{8192, 384, 21}, Row{4096, 4096, 1}, Row{1, 0, 1},
        Row{64 << 10, 8, shm::kBlocksPerExtentMax}, Row{4096, 8192, 1}}) {
    CAPTURE(row.size);
    CAPTURE(row.block_size);
    const shm::Extent& e = store.memory.extent(store.lease(process, row.size, row.block_size));
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
  CHECK(store.leased() == leased);
}

TEST_CASE("refusals say what is wanted, what is there, and what to do") {
  Store store;
  const std::uint32_t process = store.process();

  for (const std::uint64_t size : {std::uint64_t{1 << 20} + 1, ~std::uint64_t{0}}) {
    const Answer answer = store.ask(process, size, 0);
    CHECK(answer.outcome == Outcome::Never);
    CHECK(answer.text == "an object of " + std::to_string(size) +
                             " bytes is larger than the object store of 1048576 bytes; "
                             "Config.object_store_memory sets its size");
  }

  store.take(store.lease(process, 1 << 19, 0), 0);
  const Answer answer = store.ask(process, (1 << 19) + 1, 0);
  CHECK(answer.outcome == Outcome::Full);
  CHECK(answer.text ==
        "the object store is full: 524289 bytes are wanted, 524288 of 1048576 are free. "
        "Spilling to disk is off (Config.spill_limit is 0). "
        "Drop refs and views that are not needed, or set Config.object_store_memory");
  CHECK(store.ask(process, 1 << 19, 0).outcome == Outcome::Granted);
}

TEST_CASE("when all entries of extents are taken the refusal says so, and no bytes are lost") {
  constexpr std::uint64_t kCapacity = (std::uint64_t{shm::kExtentsMax} + 16) * shm::kPage;
  Store store(kCapacity);
  const std::uint32_t process = store.process();
  for (std::uint32_t i = 0; i < shm::kExtentsMax; ++i) store.take(store.lease(process, 1, 0), 0);

  for (int attempt = 0; attempt < 3; ++attempt) {
    const Answer answer = store.ask(process, 1, 0);
    CHECK(answer.outcome == Outcome::Full);
    CHECK(answer.text ==
          "the object store has no entry left for another extent (there are 262144)");
    CHECK(store.objects.bytes_available() == 16 * shm::kPage);
  }
}

TEST_CASE("under pressure what processes keep and do not use is taken back, and nothing else") {
  Store store;
  const std::uint32_t ann = store.process();
  const std::uint32_t bob = store.process();
  const std::uint32_t idle = store.lease(ann, 256 << 10, 4096);
  const std::uint32_t busy = store.lease(ann, 256 << 10, 4096);
  const std::uint32_t large = store.lease(ann, 512 << 10, 0);
  const shm::StoredAt kept = store.take(busy, 63);
  store.memory.give_back(store.take(idle, 3));
  store.memory.give_back(store.take(large, 0));
  REQUIRE(store.leased() == 1 << 20);

  CHECK(store.ask(bob, 800 << 10, 0).outcome == Outcome::Full);
  CHECK(store.memory.extent(busy).lessee.load() == ann);
  CHECK(store.used(kept));
  // What it gave up for the large one that did not fit is free for others.
  const std::uint32_t got = store.lease(bob, 512 << 10, 0);
  CHECK(store.memory.extent(got).lessee.load() == bob);
  CHECK(store.used(kept));
  // Its late lessee finds that it is gone; what stayed is as usable as before.
  for (const std::uint32_t extent : {idle, large})
    CHECK(store.memory.extent(extent).lessee.load() != ann);
  store.take(busy, 0);
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
        Store store(64 << 10);
        const std::uint32_t process = store.process();
        const std::uint32_t extent = store.lease(process, before.size, before.block_size);
        shm::StoredAt stale{};
        for (int use = 0; use < uses_before; ++use) {
          stale = store.take(extent, 0);
          store.memory.give_back(stale);
        }
        // The whole store: whatever the entry stood for is taken back first.
        store.memory.give_back(store.take(store.lease(process, 64 << 10, 0), 0));
        std::uint32_t again = store.lease(process, after.size, after.block_size);
        if (again != extent) again = store.lease(process, after.size, after.block_size);
        REQUIRE(again == extent);

        for (int use = 0; use < 8; ++use) {
          const shm::StoredAt live = store.take(extent, 0);
          store.memory.give_back(stale);
          CAPTURE(before.name);
          CAPTURE(after.name);
          CAPTURE(uses_before);
          CAPTURE(use);
          CHECK(store.used(live));
          store.memory.give_back(live);
        }
      }
    }
  }
}

// ---- Deaths

TEST_CASE("of a dead process's extents, blocks that no record names are taken back at once") {
  Store store;
  const std::uint32_t dead = store.process();
  const std::uint32_t living = store.process();
  store.take(store.lease(dead, 64 << 10, kBlock), 5);
  store.take(store.lease(dead, 128 << 10, 0), 0);
  const shm::StoredAt not_its = store.take(store.lease(living, 64 << 10, kBlock), 5);

  store.objects.process_died(dead);

  CHECK_FALSE(store.look_after());
  CHECK(store.leased() == 64 << 10);
  CHECK(store.used(not_its));
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
    Store store;
    const std::uint32_t dead = store.process();
    const std::uint32_t living = store.process();
    const std::uint32_t segment =
        *store.tables.lease_segment(*store.tables.open_participant(living));
    shm::Record& record = make_task(store.memory, {segment * shm::kRecordsPerSegment + 17, 3});
    const std::uint32_t extent = store.lease(dead, 64 << 10, kBlock);
    const shm::StoredAt named = store.take(extent, 9);
    const shm::StoredAt unnamed = store.take(extent, 10);
    if (row.argument) {
      record.flags = shm::flag::kArgsStored;
      record.args_at() = named;
    } else {
      record.result_kind = shm::ResultKind::Stored;
      record.result_at() = named;
    }
    record.state.store(word::make(3, row.state));

    store.objects.process_died(dead);

    CHECK(store.look_after() == row.kept);
    CHECK(store.leased() == (row.kept ? 64 << 10 : 0));
    if (!row.kept) continue;
    CHECK(store.used(named));
    CHECK_FALSE(store.used(unnamed));
    CHECK(store.look_after());
    store.memory.give_back(named);
    CHECK_FALSE(store.look_after());
    CHECK(store.leased() == 0);
  }
}

TEST_CASE("what an earlier use of a block is called does not keep the block") {
  Store store;
  const std::uint32_t dead = store.process();
  const std::uint32_t segment = *store.tables.lease_segment(*store.tables.open_participant(dead));
  shm::Record& record = make_task(store.memory, {segment * shm::kRecordsPerSegment + 17, 3});
  const std::uint32_t extent = store.lease(dead, 64 << 10, kBlock);
  const shm::StoredAt earlier = store.take(extent, 9);
  store.memory.give_back(earlier);
  const shm::StoredAt later = store.take(extent, 9);
  record.result_kind = shm::ResultKind::Stored;
  record.result_at() = earlier;
  record.state.store(word::make(3, State::Done));

  store.objects.process_died(dead);
  CHECK_FALSE(store.used(later));
  CHECK(store.leased() == 0);
}

TEST_CASE("a process killed between taking a block and naming it loses no memory of the store") {
  Store store;
  const std::uint32_t process = store.process();
  const std::uint32_t extent = store.lease(process, 64 << 10, kBlock);

  Child child = store.session.start([&](const shm::Memory& memory) {
    die_at(shm::CrashPoint::AllocateTaken, 30);
    shm::Extent& e = memory.extent(extent);
    for (std::uint32_t b = 0;; b = (b + 1) % e.blocks) {
      if (shm::take_block(memory.block_word(e, b)) != shm::kNone)
        shm::crash_point(shm::CrashPoint::AllocateTaken);
    }
  });
  REQUIRE(child.end() == kKilled);
  CHECK(store.leased() == 64 << 10);

  store.objects.process_died(process);
  CHECK(store.leased() == 0);
}

TEST_CASE("pins of a killed process end with it, those of others do not") {
  Store store;
  const std::uint32_t dead = store.process();
  const std::uint32_t living = store.process();
  const std::uint32_t owner = store.process();
  const std::uint32_t both = store.lease(owner, 64 << 10, 0);
  const std::uint32_t its = store.lease(owner, 64 << 10, 0);

  Child child = store.session.start([&](const shm::Memory& memory) {
    MOBULA_CHECK(shm::pin(memory.extent(both), memory.pins(dead, both)));
    MOBULA_CHECK(shm::pin(memory.extent(its), memory.pins(dead, its)));
    ::raise(SIGKILL);
  });
  REQUIRE(shm::pin(store.memory.extent(both), store.memory.pins(living, both)));
  REQUIRE(child.end() == kKilled);
  store.objects.process_died(owner);  // nobody uses them, but they are pinned
  CHECK(store.look_after());
  CHECK(store.leased() == 128 << 10);

  store.objects.process_died(dead);
  CHECK(store.look_after());
  CHECK(store.leased() == 64 << 10);
  shm::unpin(store.memory.pins(living, both));
  CHECK_FALSE(store.look_after());
  CHECK(store.leased() == 0);
}

TEST_CASE("a lessee at work and a daemon under pressure never both have an extent") {
  constexpr int kRounds = 3000;
  Store store(256 << 10);
  const std::uint32_t lessee = store.process();
  const std::uint32_t extent = store.lease(lessee, 256 << 10, 64 << 10);
  const std::uint64_t flags = *store.tables.ring_storage(2);
  const auto flag = [&](const shm::Memory& memory, int i) -> std::atomic<std::uint64_t>& {
    return reinterpret_cast<std::atomic<std::uint64_t>*>(memory.heap(flags))[i];
  };
  Child child = store.session.start([&](const shm::Memory& memory) {
    shm::Extent& e = memory.extent(extent);
    std::atomic<std::uint32_t>& pins = memory.pins(lessee, extent);
    while (flag(memory, 0).load() == 0) {
      for (std::uint32_t b = 0; b < 4; ++b) {
        std::atomic<std::uint32_t>& w = memory.block_word(e, b);
        const bool ours = shm::pin(e, pins) && e.lessee.load() == lessee;
        const std::uint32_t generation = ours ? shm::take_block(w) : shm::kNone;
        shm::unpin(pins);
        if (generation == shm::kNone) continue;
        flag(memory, 1).fetch_add(1);
        MOBULA_CHECK(shm::give_block(w, generation));  // nobody has leased it meanwhile
      }
    }
  });
  REQUIRE(eventually([&] { return flag(store.memory, 1).load() > 100; }));

  for (int round = 0; round < kRounds; ++round) {
    // Granted only in a moment when it uses no block; then the entry is its own again, anew.
    Answer again;
    REQUIRE(eventually([&] {
      again = store.ask(lessee, 256 << 10, 64 << 10);
      return again.outcome == Outcome::Granted;
    }));
    REQUIRE(again.extent == extent);
  }
  flag(store.memory, 0).store(1);
  CHECK(child.end() == kWell);
}

}  // namespace
}  // namespace mobula::node
