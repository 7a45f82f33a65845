#include "node/object_memory.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string_view>

#include "node/world_test.h"

namespace mobula::node {
namespace {

using namespace testing;
using namespace shm::testing;
using namespace std::chrono_literals;
using shm::Residency;
using shm::State;
using Answer = ObjectMemory::Answer;
using Outcome = ObjectMemory::Outcome;
namespace word = shm::word;
namespace block = shm::block;

constexpr std::uint64_t kBlock = 1024;
constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 40;

struct Store : World {
  explicit Store(std::size_t capacity = 1 << 20, std::uint64_t spill_limit = 0)
      : World(capacity),
        spiller(spill_limit > 0 ? std::make_unique<Spiller>(memory, folder.path) : nullptr),
        objects(memory, tables, spiller.get(), spill_limit) {}

  // Time goes on from one request to the next, so that none is kept from looking round.
  Answer ask(std::uint32_t process, std::uint64_t size, std::uint64_t block_size,
             bool spillable = true) {
    now += 50ms;
    return objects.lease(process, size, block_size, spillable, now);
  }
  std::uint32_t lease(std::uint32_t process, std::uint64_t size, std::uint64_t block_size) {
    const Answer answer = ask(process, size, block_size);
    REQUIRE_MESSAGE(answer.outcome == Outcome::Granted, answer.text);
    shm::unpin(memory.pins(process, answer.extent));
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

  // ---- With a disk.

  // A value of one block that fills `size` bytes with its extent's number.
  std::uint32_t put(std::uint32_t process, std::uint64_t size) {
    const std::uint32_t extent = lease_when_there_is_room(process, size);
    take(extent, 0);
    std::memset(memory.object_window(memory.extent(extent).offset), fill(extent), size);
    return extent;
  }
  std::uint32_t lease_when_there_is_room(std::uint32_t process, std::uint64_t size) {
    Answer answer;
    REQUIRE(eventually([&] {
      answer = ask(process, size, 0);
      objects.look_after(now);
      return answer.outcome != Outcome::Later;
    }));
    REQUIRE_MESSAGE(answer.outcome == Outcome::Granted, answer.text);
    shm::unpin(memory.pins(process, answer.extent));
    return answer.extent;
  }
  bool intact(std::uint32_t extent) {
    const shm::Extent& e = memory.extent(extent);
    const std::byte* bytes = memory.object(e.offset);
    return std::all_of(bytes, bytes + e.size,
                       [&](std::byte b) { return std::to_integer<int>(b) == fill(extent); });
  }
  static int fill(std::uint32_t extent) { return static_cast<int>(extent % 255 + 1); }
  void drop(std::uint32_t extent) {
    memory.give_back({1, extent, block::generation(memory.extent(extent).word_one.load())});
  }
  Residency residency(std::uint32_t extent) {
    return static_cast<Residency>(memory.extent(extent).residency.load());
  }
  // The disk has done what it was told.
  bool comes_to_be(std::uint32_t extent, Residency wanted) {
    return eventually([&] {
      objects.look_after(now);
      return residency(extent) == wanted;
    });
  }
  Answer restore(std::uint32_t process, std::uint32_t extent) {
    now += 50ms;
    return objects.restore(process, extent, now);
  }
  Answer restored(std::uint32_t process, std::uint32_t extent) {
    Answer answer;
    REQUIRE(eventually([&] {
      answer = restore(process, extent);
      objects.look_after(now);
      return answer.outcome == Outcome::Granted ? residency(extent) == Residency::Resident
                                                : answer.outcome != Outcome::Later;
    }));
    return answer;
  }
  void pin(std::uint32_t process, std::uint32_t extent) {
    shm::pin(memory.extent(extent), memory.pins(process, extent));
  }
  void unpin(std::uint32_t process, std::uint32_t extent) {
    shm::unpin(memory.pins(process, extent));
  }

  Folder folder;
  ObjectMemory::Time now{1s};
  std::unique_ptr<Spiller> spiller;
  ObjectMemory objects;
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
        "the object store is full: 528384 bytes are wanted, 524288 of 1048576 are free. "
        "Spilling to disk is off (Config.spill_limit is 0). "
        "Drop refs and views that are not needed, or set Config.object_store_memory");
  CHECK(store.ask(process, 1 << 19, 0).outcome == Outcome::Granted);
}

TEST_CASE("a detached actor's store is not sized by an option, and refusals say by what") {
  Store store;
  store.memory.header().hosts.store(7);

  CHECK(store.ask(store.process(), std::uint64_t{1} << 40, 0)
            .text.ends_with("; MOBULA_DETACHED_OBJECT_MEMORY in the environment of the detached "
                            "actor's creator sets its size"));
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
    shm::unpin(store.memory.pins(lessee, extent));
  }
  flag(store.memory, 0).store(1);
  CHECK(child.end() == kWell);
}

// ---- To disk and back

TEST_CASE("what was not used for longest makes room, keeps its addresses, and comes back whole") {
  Store store(4 * kMiB, kNoLimit);
  const std::uint32_t process = store.process();
  std::vector<std::uint32_t> extents;
  for (int i = 0; i < 12; ++i) extents.push_back(store.put(process, kMiB));

  REQUIRE(eventually([&] {  // spilling ahead may still be under way
    store.objects.look_after(store.now);
    return store.objects.counts().on_disk == store.objects.counts().spilled;
  }));
  const ObjectMemory::Counts full = store.objects.counts();
  CHECK(full.leased + full.warm <= 4 * kMiB);
  CHECK(full.leased + full.spilled == 12 * kMiB);
  CHECK(full.spilled_ever == full.spilled);
  CHECK(store.residency(extents.front()) == Residency::Spilled);
  CHECK(store.residency(extents.back()) == Residency::Resident);
  CHECK(store.memory.extent(extents.front()).lessee.load() == shm::kNone);

  for (const std::uint32_t extent : extents) {
    const std::uint64_t offset = store.memory.extent(extent).offset;
    REQUIRE(store.restored(process, extent).outcome == Outcome::Granted);
    CHECK(store.residency(extent) == Residency::Resident);
    CHECK(store.memory.extent(extent).offset == offset);
    CHECK(store.intact(extent));
  }
  CHECK(store.objects.counts().leased + store.objects.counts().warm <= 4 * kMiB);
  for (const std::uint32_t extent : extents) store.drop(extent);
  store.objects.process_died(process);
  CHECK(eventually([&] { return !store.look_after(); }));
  const ObjectMemory::Counts after = store.objects.counts();
  CHECK(after.leased == 0);
  CHECK(after.spilled == 0);
  CHECK(after.on_disk == 0);
  CHECK(after.restored_ever >= 8 * kMiB);
}

TEST_CASE("what is pinned stays, and when everything is, that is said") {
  Store store(4 * kMiB, kNoLimit);
  const std::uint32_t process = store.process();
  std::vector<std::uint32_t> pinned;
  for (int i = 0; i < 4; ++i) {
    pinned.push_back(store.put(process, kMiB));
    store.pin(process, pinned.back());
  }

  const Answer answer = store.ask(process, kMiB, 0);
  CHECK(answer.outcome == Outcome::Full);
  CHECK(answer.text.find("is being read or written, or contains refs") != std::string::npos);
  for (const std::uint32_t extent : pinned) CHECK(store.residency(extent) == Residency::Resident);

  store.unpin(process, pinned[2]);
  store.put(process, kMiB);
  CHECK(store.residency(pinned[2]) == Residency::Spilled);
  for (const int i : {0, 1, 3}) {
    CHECK(store.residency(pinned[static_cast<std::size_t>(i)]) == Residency::Resident);
    CHECK(store.intact(pinned[static_cast<std::size_t>(i)]));
  }
}

TEST_CASE("values that contain refs are never spilled") {
  Store store(4 * kMiB, kNoLimit);
  const std::uint32_t process = store.process();
  const Answer with_refs = store.ask(process, 2 * kMiB, 0, /*spillable=*/false);
  REQUIRE(with_refs.outcome == Outcome::Granted);
  CHECK(store.memory.extent(with_refs.extent).spillable == 0);
  store.take(with_refs.extent, 0);
  store.unpin(process, with_refs.extent);

  for (int i = 0; i < 8; ++i) store.put(process, kMiB);
  CHECK(store.residency(with_refs.extent) == Residency::Resident);
  CHECK(store.ask(process, 3 * kMiB, 0).outcome != Outcome::Granted);
}

TEST_CASE("a lease cannot be taken back before its lessee had the time to take a block") {
  Store store(1 * kMiB, kNoLimit);
  const std::uint32_t slow = store.process();
  const std::uint32_t quick = store.process();
  const Answer granted = store.ask(slow, 700 * kKiB, 0);
  REQUIRE(granted.outcome == Outcome::Granted);

  CHECK(store.ask(quick, 700 * kKiB, 0).outcome == Outcome::Full);
  CHECK(store.memory.extent(granted.extent).lessee.load() == slow);

  store.unpin(slow, granted.extent);  // it took none, after all
  CHECK(store.ask(quick, 700 * kKiB, 0).outcome == Outcome::Granted);
}

TEST_CASE("only what is in use of an extent goes to disk, and only that comes back") {
  Store store(1 * kMiB, kNoLimit);
  const std::uint32_t process = store.process();
  const std::uint32_t extent = store.lease(process, 256 * kKiB, 64 * kKiB);
  for (const std::uint32_t b : {0u, 1u, 3u}) {
    store.take(extent, b);
    std::memset(store.memory.object_window(store.memory.extent(extent).offset + b * 64 * kKiB),
                static_cast<int>(b + 1), 64 * kKiB);
  }

  store.put(process, 1 * kMiB);
  CHECK(store.residency(extent) == Residency::Spilled);
  CHECK(store.objects.counts().spilled == 256 * kKiB);
  CHECK(store.objects.counts().on_disk == 192 * kKiB);
  REQUIRE(store.restored(process, extent).outcome == Outcome::Granted);
  const std::byte* bytes = store.memory.object(store.memory.extent(extent).offset);
  for (const std::uint32_t b : {0u, 1u, 3u}) {
    for (std::uint64_t i = 0; i < 64 * kKiB; ++i)
      REQUIRE(std::to_integer<std::uint32_t>(bytes[b * 64 * kKiB + i]) == b + 1);
  }
}

TEST_CASE("pages of what was freed are used again, or dropped when others are needed") {
  Store store(4 * kMiB);
  const std::uint32_t process = store.process();
  std::vector<std::uint32_t> extents;
  for (int i = 0; i < 4; ++i) {
    extents.push_back(store.lease(process, kMiB, 0));
    store.take(extents.back(), 0);
  }
  const std::uint64_t freed = store.memory.extent(extents[1]).offset;
  store.drop(extents[1]);
  store.drop(extents[3]);

  const std::uint32_t again = store.lease(process, kMiB, 0);
  store.take(again, 0);
  const std::set<std::uint64_t> both = {freed, store.memory.extent(extents[3]).offset};
  CHECK(both.contains(store.memory.extent(again).offset));
  CHECK(store.objects.counts().warm == kMiB);

  // Neither range of a megabyte holds it, but there are bytes and addresses enough.
  store.drop(again);
  store.lease(process, 2 * kMiB, 0);
  CHECK(store.objects.counts().warm == 0);
  CHECK(store.leased() == 4 * kMiB);
}

TEST_CASE("what was brought back drives nothing else out as long as all of it fits") {
  Store store(10 * kMiB, kNoLimit);
  const std::uint32_t process = store.process();
  std::vector<std::uint32_t> extents;
  for (int i = 0; i < 9; ++i) extents.push_back(store.put(process, kMiB));
  REQUIRE(store.comes_to_be(extents[0], Residency::Spilled));  // ahead of need
  CHECK(store.objects.counts().spilled == kMiB);

  for (int round = 0; round < 20; ++round) {
    for (const std::uint32_t extent : extents) {
      if (store.residency(extent) != Residency::Resident)
        REQUIRE(store.restored(process, extent).outcome == Outcome::Granted);
      store.pin(process, extent);
      store.unpin(process, extent);
    }
    store.look_after();
  }
  CHECK(store.objects.counts().restored_ever <= 2 * kMiB);
  CHECK(store.objects.counts().leased == 9 * kMiB);
}

// ---- The line

TEST_CASE("large requests are met in the order of their coming, and small ones pass") {
  Store store(64 * kMiB, kNoLimit);
  const std::uint32_t ann = store.process();
  const std::uint32_t bob = store.process();
  for (int i = 0; i < 64; ++i) store.put(bob, kMiB);
  const auto ask = [&](std::uint32_t process, std::uint64_t size) {
    store.now += 5ms;
    return store.objects.lease(process, size, 0, true, store.now);
  };
  const std::uint64_t small = 900 * kKiB;

  REQUIRE(ask(ann, 32 * kMiB).outcome == Outcome::Later);
  bool small_passed = false;
  REQUIRE(eventually([&] {
    // There may be room for the later one before there is for the earlier one.
    CHECK(ask(bob, 8 * kMiB).outcome == Outcome::Later);
    if (!small_passed && ask(bob, small).outcome == Outcome::Granted) small_passed = true;
    store.objects.look_after(store.now);
    const Outcome outcome = ask(ann, 32 * kMiB).outcome;
    CHECK((outcome == Outcome::Later || outcome == Outcome::Granted));
    return outcome == Outcome::Granted;
  }));
  CHECK(small_passed);
  CHECK(eventually([&] {
    store.objects.look_after(store.now);
    return ask(bob, 8 * kMiB).outcome == Outcome::Granted;
  }));
}

TEST_CASE("who waits for what cannot be had holds up nobody, nor does who no longer asks") {
  Store store(8 * kMiB, kNoLimit);
  const std::uint32_t ann = store.process();
  const std::uint32_t bob = store.process();
  const std::uint32_t kept = store.put(ann, 4 * kMiB);
  store.pin(ann, kept);
  store.put(ann, 2 * kMiB);

  // There are 4 MiB that are not pinned.
  REQUIRE(eventually([&] {
    store.objects.look_after(store.now);
    store.now += 5ms;
    return store.objects.lease(ann, 6 * kMiB, 0, true, store.now).outcome == Outcome::Full;
  }));
  store.now += 5ms;
  CHECK(store.objects.lease(bob, 1 * kMiB, 0, true, store.now).outcome == Outcome::Granted);
}

TEST_CASE("a reader that finds its object brought back by another one leaves the line") {
  Store store(8 * kMiB, kNoLimit);
  const std::uint32_t ann = store.process();
  const std::uint32_t bob = store.process();
  std::vector<std::uint32_t> extents;
  for (int i = 0; i < 8; ++i) extents.push_back(store.put(ann, 2 * kMiB));
  const std::uint32_t gone = extents[0];
  REQUIRE(store.residency(gone) == Residency::Spilled);

  store.restore(ann, gone);
  store.restore(bob, gone);  // both stand in line
  REQUIRE(store.restored(ann, gone).outcome == Outcome::Granted);
  store.now += 1ms;
  REQUIRE(store.objects.restore(bob, gone, store.now).outcome == Outcome::Granted);

  store.now += 1ms;
  CHECK(eventually([&] {  // time does not move: nobody is forgotten
    store.objects.look_after(store.now);
    return store.objects.lease(ann, 3 * kMiB, 0, true, store.now).outcome == Outcome::Granted;
  }));
}

// ---- Disks that refuse, or lie

TEST_CASE("when the disk may take no more that is said; dropping what lies there helps at once") {
  Store store(4 * kMiB, 3 * kMiB);
  const std::uint32_t process = store.process();
  std::vector<std::uint32_t> extents;
  for (int i = 0; i < 7; ++i) extents.push_back(store.put(process, kMiB));
  REQUIRE(store.objects.counts().on_disk == 3 * kMiB);

  for (int attempt = 0; attempt < 50; ++attempt) {
    const Answer answer = store.ask(process, kMiB, 0);
    store.look_after();
    REQUIRE(answer.outcome == Outcome::NoDisk);
    CHECK(answer.text.find("Config.spill_limit allows 3145728 bytes, 3145728 are in use") !=
          std::string::npos);
  }
  // Reading what is on disk needs as much room as anything else.
  CHECK(store.restore(process, extents[0]).outcome == Outcome::NoDisk);
  CHECK(store.objects.counts().leased == 4 * kMiB);

  store.drop(extents[0]);
  store.look_after();
  const std::uint32_t more = store.put(process, kMiB);
  CHECK(store.intact(more));
}

TEST_CASE(
    "a disk that refuses is an error that names its folder, and is tried again after a pause") {
  Store store(4 * kMiB, kNoLimit);
  const std::uint32_t process = store.process();
  REQUIRE(::rmdir(store.folder.path.c_str()) == 0);
  std::vector<std::uint32_t> extents;
  for (int i = 0; i < 4; ++i) extents.push_back(store.put(process, kMiB));

  Answer answer;
  const auto ask = [&] {
    store.objects.look_after(store.now);
    answer = store.objects.lease(process, kMiB, 0, true, store.now);
    return answer.outcome;
  };
  REQUIRE(eventually([&] { return ask() == Outcome::NoDisk; }));
  CHECK(answer.text.find("No such file or directory in " + store.folder.path) != std::string::npos);
  for (const std::uint32_t extent : extents) {
    CHECK(store.comes_to_be(extent, Residency::Resident));
    CHECK(store.intact(extent));
  }
  CHECK(store.objects.counts().on_disk == 0);
  CHECK(store.objects.counts().leased == 4 * kMiB);

  // Tried again after a pause; meanwhile nobody is told that there is hope.
  for (int i = 0; i < 20; ++i) {
    store.now += 100ms;
    REQUIRE(ask() == Outcome::NoDisk);
  }
  REQUIRE(::mkdir(store.folder.path.c_str(), 0700) == 0);
  CHECK(eventually([&] {
    store.now += 1ms;
    return ask() == Outcome::Granted;
  }));
}

TEST_CASE("what comes back damaged is lost, for each reader, and its memory is not") {
  Store store(4 * kMiB, kNoLimit);
  const std::uint32_t process = store.process();
  std::vector<std::uint32_t> extents;
  for (int i = 0; i < 8; ++i) extents.push_back(store.put(process, kMiB));
  REQUIRE(store.residency(extents[0]) == Residency::Spilled);
  store.folder.damage(12345);

  std::size_t lost = 0;
  for (const std::uint32_t extent : extents) {
    const Answer first = store.restored(process, extent);
    if (store.residency(extent) == Residency::Lost) {
      ++lost;
      const Answer again = store.restore(process, extent);
      CHECK(again.outcome == Outcome::Lost);
      CHECK(again.text.find("checksum") != std::string::npos);
    } else {
      REQUIRE(first.outcome == Outcome::Granted);
      CHECK(store.intact(extent));
    }
  }
  CHECK(lost == 1);
  for (const std::uint32_t extent : extents) store.drop(extent);
  store.objects.process_died(process);
  CHECK(eventually([&] { return !store.look_after(); }));
  CHECK(store.objects.counts().leased == 0);
  CHECK(store.objects.counts().on_disk == 0);
  store.put(store.process(), 4 * kMiB);
}

TEST_CASE("of a process that died, what no record names leaves the disk, too") {
  Store store(4 * kMiB, kNoLimit);
  const std::uint32_t dead = store.process();
  const std::uint32_t living = store.process();
  for (int i = 0; i < 8; ++i) store.put(dead, kMiB);
  const std::uint32_t other = store.put(living, kMiB);
  REQUIRE(store.objects.counts().spilled >= 4 * kMiB);

  store.objects.process_died(dead);

  CHECK(eventually([&] {
    store.look_after();
    return store.objects.counts().leased + store.objects.counts().spilled == kMiB;
  }));
  CHECK(store.residency(other) == Residency::Resident);
  CHECK(store.intact(other));
  CHECK(store.objects.counts().on_disk == 0);
}

// Everything at once, in a random order; what is believed of each value is looked up after each
// step.
TEST_CASE("random puts, reads, pins, drops and deaths: counts add up and no value is ever wrong") {
  const std::uint64_t chosen = seed();
  INFO("replay with MOBULA_SEED=" << chosen);
  std::mt19937_64 random(chosen);
  constexpr std::uint64_t kCapacity = 4 * kMiB;
  Store store(kCapacity, 16 * kMiB);
  struct Value {
    std::uint32_t extent;
    int pins;
  };
  const std::uint32_t owner = store.process();
  std::uint32_t reader = store.process();
  std::vector<Value> values;
  const auto drop = [&](std::size_t i) {
    for (; values[i].pins > 0; --values[i].pins) store.unpin(reader, values[i].extent);
    store.drop(values[i].extent);
    values.erase(values.begin() + static_cast<std::ptrdiff_t>(i));
  };
  for (int step = 0; step < 4'000; ++step) {
    const std::size_t i = values.empty() ? 0 : random() % values.size();
    switch (random() % 8) {
      case 0:
      case 1:
      case 2: {
        const std::uint64_t size = (std::uint64_t{1} << (random() % 9)) * shm::kPage;
        const Answer answer = store.ask(owner, size, 0);
        REQUIRE((answer.outcome == Outcome::Granted || answer.outcome == Outcome::Later ||
                 answer.outcome == Outcome::Full || answer.outcome == Outcome::NoDisk));
        if (answer.outcome != Outcome::Granted) break;
        const shm::Extent& e = store.memory.extent(answer.extent);
        store.take(answer.extent, 0);
        std::memset(store.memory.object_window(e.offset), Store::fill(answer.extent), e.size);
        store.unpin(owner, answer.extent);
        values.push_back({answer.extent, 0});
        break;
      }
      case 3:
        if (!values.empty()) drop(i);
        break;
      case 4:
      case 5: {
        if (values.empty()) break;
        Value& value = values[i];
        store.pin(reader, value.extent);
        ++value.pins;
        const Answer answer = store.restored(reader, value.extent);
        REQUIRE((answer.outcome == Outcome::Granted || answer.outcome == Outcome::Full ||
                 answer.outcome == Outcome::NoDisk));
        if (answer.outcome == Outcome::Granted) REQUIRE(store.intact(value.extent));
        break;
      }
      case 6:
        if (values.empty() || values[i].pins == 0) break;
        store.unpin(reader, values[i].extent);
        --values[i].pins;
        break;
      default:
        if (random() % 50 != 0) break;
        store.objects.process_died(reader);
        store.tables.close_process(reader);
        reader = store.process();
        for (Value& value : values) value.pins = 0;
    }
    store.look_after();
    for (const Value& value : values) {
      if (value.pins > 0 && store.residency(value.extent) == Residency::Resident)
        REQUIRE(store.intact(value.extent));
    }
    const ObjectMemory::Counts counts = store.objects.counts();
    REQUIRE(counts.leased + counts.warm <= kCapacity);
    REQUIRE(counts.on_disk <= 16 * kMiB);
  }
  while (!values.empty()) drop(0);
  store.objects.process_died(owner);
  CHECK(eventually([&] { return !store.look_after(); }));
  CHECK(store.objects.counts().leased == 0);
  CHECK(store.objects.counts().spilled == 0);
  CHECK(store.objects.counts().on_disk == 0);
}

}  // namespace
}  // namespace mobula::node
