#include "shm/extents.h"

#include <doctest/doctest.h>

#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;

constexpr std::uint32_t kBlocks = 32;
constexpr std::uint32_t kMe = 3;
constexpr std::uint32_t kOther = 4;

// Leases entry 0 the way the daemon does.
void lease(Session& session, std::uint32_t process, std::uint32_t blocks) {
  Extent& extent = session.memory().extent(0);
  extent.offset = 0;
  extent.block_size = 256;
  extent.size = std::uint64_t{blocks} * 256;
  extent.blocks = blocks;
  if (blocks > 1) extent.words = session.take_heap(blocks * 4);
  extent.lessee.store(process);
  extent.in_use.store(1);
}

void set(Extent& extent, Residency residency) {
  extent.residency.store(static_cast<std::uint32_t>(residency), std::memory_order_seq_cst);
}

TEST_CASE("a block is taken once, and again after it was given back") {
  for (const std::uint32_t blocks : {1u, kBlocks}) {
    CAPTURE(blocks);
    Session session;
    lease(session, kMe, blocks);
    Extent& extent = session.memory().extent(0);
    for (std::uint32_t b = 0; b < blocks; ++b) {
      std::atomic<std::uint32_t>& w = session.memory().block_word(extent, b);

      CHECK(take_block(w) == 1);
      CHECK(take_block(w) == kNone);
      CHECK(give_block(w, 1));
      CHECK(take_block(w) == 2);
    }
  }
}

TEST_CASE("giving back twice, or by a stale generation, does nothing") {
  Session session;
  lease(session, kMe, kBlocks);
  Extent& extent = session.memory().extent(0);
  std::atomic<std::uint32_t>& w = session.memory().block_word(extent, 5);
  REQUIRE(take_block(w) == 1);

  CHECK(give_block(w, 1));
  CHECK_FALSE(give_block(w, 1));
  REQUIRE(take_block(w) == 2);
  CHECK_FALSE(give_block(w, 1));
  CHECK_FALSE(give_block(w, 3));
  CHECK(take_block(w) == kNone);  // still used
}

TEST_CASE("a generation counts on from 0 after 2^20 uses") {
  Session session;
  lease(session, kMe, 1);
  Extent& extent = session.memory().extent(0);
  extent.word_one.store(block::free(block::kGenerationMask));

  CHECK(take_block(extent.word_one) == 0);
  CHECK(give_block(extent.word_one, 0));
  CHECK(take_block(extent.word_one) == 1);
}

TEST_CASE("a pin is counted whatever the residency, which alone says whether the bytes are there") {
  Session session;
  lease(session, kMe, 1);
  Extent& extent = session.memory().extent(0);
  std::atomic<std::uint32_t>& count = session.memory().pins(kMe, 0);
  std::uint32_t pins = 0;
  for (const Residency residency : {Residency::Resident, Residency::Leaving, Residency::Spilled,
                                    Residency::Restoring, Residency::Lost}) {
    const bool there = residency == Residency::Resident;
    CAPTURE(static_cast<int>(residency));
    set(extent, residency);
    extent.touched.store(0);

    CHECK(pin(extent, count) == there);
    CHECK(count.load() == ++pins);
    CHECK(extent.touched.load() == (there ? 1 : 0));
  }
  while (pins > 0) {
    unpin(count);
    CHECK(count.load() == --pins);
  }
}

TEST_CASE("each process counts its pins of each extent apart from all others") {
  Session session;
  const Memory& memory = session.memory();
  for (const std::uint32_t process : {0u, kMe, kOther, kProcessesMax - 1}) {
    for (const std::uint32_t extent : {0u, 1u, 1024u, kExtentsMax - 1})
      CHECK(memory.pins(process, extent).fetch_add(1) == 0);
  }
  CHECK(memory.segment_owner(0).load() == 0);  // the table behind the counts
}

TEST_CASE("where a value lies names its extent, its block and the block's use") {
  Session session;
  lease(session, kMe, kBlocks);
  Extent& extent = session.memory().extent(0);
  extent.offset = 3 * kPage;
  const std::uint32_t generation = take_block(session.memory().block_word(extent, 7));
  const StoredAt at{100, 0, 7u << 20 | generation};

  CHECK(block_index(at) == 7);
  CHECK(block_generation(at) == generation);
  CHECK(session.memory().object_offset(at) == 3 * kPage + 7 * 256);
  session.memory().give_back(at);
  CHECK(session.memory().block_word(extent, 7).load() == block::free(generation));
  session.memory().give_back(at);
  CHECK(session.memory().block_word(extent, 7).load() == block::free(generation));

  const StoredAt last{1, 0, (kBlocksPerExtentMax - 1) << 20 | block::kGenerationMask};
  CHECK(block_index(last) == kBlocksPerExtentMax - 1);
  CHECK(block_generation(last) == block::kGenerationMask);
}

// Two processes believe to lease the extent and take blocks; two others read them and give them
// back, each block twice; the daemon takes the bytes away and brings them back whenever nobody has
// a pin, and leases the extent to the other one when it is unused as well.
TEST_CASE("bytes stay while they are pinned and no block is ever given to two, in a race of all") {
  constexpr std::uint32_t kTakes = 20'000;
  constexpr std::uint32_t kRounds = 20;
  constexpr std::uint32_t kNowhere = 0xdeadbeef;
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Session session;
    lease(session, kMe, kBlocks);
    const Counters owners(session, kBlocks);      // who writes into the block; 0: nobody
    const Counters given_away(session, kBlocks);  // generation + 1 of what waits to be given back
    const Counters totals(session, 5);  // takes, gives, leases, moves, end
    // The payload: one word per block, not atomic.
    const Shared<std::uint32_t> bytes(session, kBlocks);

    side_by_side(session, crew, 5, [&](const Memory& memory, int i) {
      auto* owner = owners.in(memory);
      auto* away = given_away.in(memory);
      auto* total = totals.in(memory);
      auto* payload = bytes.in(memory);
      Extent& extent = memory.extent(0);
      std::atomic<std::uint32_t>& my_pins = memory.pins(kMe + static_cast<std::uint32_t>(i), 0);
      const auto ended = [&] {
        if (total[1].load() >= kTakes && total[2].load() >= kRounds && total[3].load() >= kRounds)
          total[4].store(1);
        return total[4].load() != 0;
      };
      if (i < 2) {  // a lessee, or one that was
        const std::uint32_t me = i == 0 ? kMe : kOther;
        MOBULA_CHECK(eventually([&] {
          for (std::uint32_t b = 0; b < kBlocks; ++b) {
            const bool ours = pin(extent, my_pins) && extent.lessee.load() == me;
            const std::uint32_t generation =
                ours ? take_block(memory.block_word(extent, b)) : kNone;
            if (generation != kNone) {
              std::uint32_t nobody = 0;
              // relaxed: the block's own word must order the bytes
              MOBULA_CHECK(owner[b].compare_exchange_strong(nobody, me, std::memory_order_relaxed));
              payload[b] = generation;
              away[b].store(generation + 1, std::memory_order_release);
              total[0].fetch_add(1);
            }
            unpin(my_pins);
          }
          return ended();
        }));
      } else if (i < 4) {  // owners of records that name blocks
        MOBULA_CHECK(eventually([&] {
          for (std::uint32_t b = 0; b < kBlocks; ++b) {
            const std::uint32_t waiting = away[b].exchange(0, std::memory_order_acquire);
            if (waiting == 0) continue;
            const std::uint32_t generation = waiting - 1;
            const bool resident = pin(extent, my_pins);
            MOBULA_CHECK(resident || eventually([&] {
                           return extent.residency.load(std::memory_order_seq_cst) ==
                                  static_cast<std::uint32_t>(Residency::Resident);
                         }));
            MOBULA_CHECK(payload[b] == generation);
            unpin(my_pins);
            owner[b].store(0, std::memory_order_relaxed);
            MOBULA_CHECK(give_block(memory.block_word(extent, b), generation));
            MOBULA_CHECK(!give_block(memory.block_word(extent, b), generation));
            total[1].fetch_add(1);
          }
          return ended();
        }));
      } else {  // the daemon
        const auto pinned = [&] {
          for (std::uint32_t p = kMe; p < kMe + 5; ++p)
            if (memory.pins(p, 0).load(std::memory_order_seq_cst) != 0) return true;
          return false;
        };
        const auto unused = [&] {
          for (std::uint32_t b = 0; b < kBlocks; ++b)
            if (memory.block_word(extent, b).load(std::memory_order_acquire) & block::kUsed)
              return false;
          return true;
        };
        MOBULA_CHECK(eventually([&] {
          if (pinned()) return ended();
          set(extent, Residency::Leaving);
          if (!pinned()) {
            std::uint32_t disk[kBlocks];
            for (std::uint32_t b = 0; b < kBlocks; ++b)
              disk[b] = std::exchange(payload[b], kNowhere);
            set(extent, Residency::Spilled);
            if (unused()) {
              for (std::uint32_t b = 0; b < kBlocks; ++b) MOBULA_CHECK(owner[b].load() == 0);
              extent.lessee.store(extent.lessee.load() == kMe ? kOther : kMe);
              total[2].fetch_add(1);
            }
            set(extent, Residency::Restoring);
            for (std::uint32_t b = 0; b < kBlocks; ++b) payload[b] = disk[b];
            total[3].fetch_add(1);
          }
          set(extent, Residency::Resident);
          return ended();
        }));
      }
    });
    const auto* total = totals.in(session.memory());
    CHECK(total[1].load() >= kTakes);
    CHECK(total[2].load() >= kRounds);
    CHECK(total[3].load() >= kRounds);
  }
}

}  // namespace
}  // namespace mobula::shm
