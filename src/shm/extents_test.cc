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

TEST_CASE("a block is taken once, by the lessee only, and again after it was given back") {
  for (const std::uint32_t blocks : {1u, kBlocks}) {
    CAPTURE(blocks);
    Session session;
    lease(session, kMe, blocks);
    Extent& extent = session.memory().extent(0);
    for (std::uint32_t b = 0; b < blocks; ++b) {
      std::atomic<std::uint32_t>& w = session.memory().block_word(extent, b);

      CHECK(take_block(extent, w, kOther) == kNone);
      CHECK(take_block(extent, w, kMe) == 1);
      CHECK(take_block(extent, w, kMe) == kNone);
      CHECK(give_block(w, 1));
      CHECK(take_block(extent, w, kMe) == 2);
    }
  }
}

TEST_CASE("giving back twice, or by a stale generation, does nothing") {
  Session session;
  lease(session, kMe, kBlocks);
  Extent& extent = session.memory().extent(0);
  std::atomic<std::uint32_t>& w = session.memory().block_word(extent, 5);
  REQUIRE(take_block(extent, w, kMe) == 1);

  CHECK(give_block(w, 1));
  CHECK_FALSE(give_block(w, 1));
  REQUIRE(take_block(extent, w, kMe) == 2);
  CHECK_FALSE(give_block(w, 1));
  CHECK_FALSE(give_block(w, 3));
  CHECK(take_block(extent, w, kMe) == kNone);  // still used
}

TEST_CASE("a generation counts on from 0 after 2^20 uses") {
  Session session;
  lease(session, kMe, 1);
  Extent& extent = session.memory().extent(0);
  extent.word_one.store(block::free(block::kGenerationMask));

  CHECK(take_block(extent, extent.word_one, kMe) == 0);
  CHECK(give_block(extent.word_one, 0));
  CHECK(take_block(extent, extent.word_one, kMe) == 1);
}

TEST_CASE("a free block can be revoked, and then no longer be taken; a used one cannot") {
  Session session;
  lease(session, kMe, kBlocks);
  Extent& extent = session.memory().extent(0);
  std::atomic<std::uint32_t>& used = session.memory().block_word(extent, 0);
  std::atomic<std::uint32_t>& free = session.memory().block_word(extent, 1);
  REQUIRE(take_block(extent, used, kMe) == 1);

  CHECK_FALSE(revoke_block(used));
  CHECK(revoke_block(free));
  CHECK(revoke_block(free));
  CHECK(take_block(extent, free, kMe) == kNone);
  CHECK(give_block(used, 1));
}

TEST_CASE("where a value lies names its extent, its block and the block's use") {
  Session session;
  lease(session, kMe, kBlocks);
  Extent& extent = session.memory().extent(0);
  extent.offset = 3 * kPage;
  const std::uint32_t generation = take_block(extent, session.memory().block_word(extent, 7), kMe);
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

// Two processes believe to lease the extent and take blocks; two others give back, each block
// twice; the daemon takes the extent away when it is unused and leases it to the other one.
TEST_CASE("no block is ever given to two, while lessees, givers and the daemon race") {
  constexpr std::uint32_t kTakes = 20'000;
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Session session;
    lease(session, kMe, kBlocks);
    const Counters owners(session, kBlocks);       // who writes into the block; 0: nobody
    const Counters given_away(session,
                              kBlocks);  // generation + 1 of a block that waits to be given back
    const Counters totals(session, 4);  // takes, gives, leases, end
    const Shared<std::uint32_t> bytes(session,
                                      kBlocks);  // the payload: one word per block, not atomic

    side_by_side(session, crew, 5, [&](const Memory& memory, int i) {
      auto* owner = owners.in(memory);
      auto* away = given_away.in(memory);
      auto* total = totals.in(memory);
      Extent& extent = memory.extent(0);
      const auto ended = [&] { return total[3].load() != 0; };
      if (i < 2) {  // a lessee, or one that was
        const std::uint32_t me = i == 0 ? kMe : kOther;
        MOBULA_CHECK(eventually([&] {
          for (std::uint32_t b = 0; b < kBlocks; ++b) {
            const std::uint32_t generation = take_block(extent, memory.block_word(extent, b), me);
            if (generation == kNone) continue;
            std::uint32_t nobody = 0;
            // relaxed: the block's own word must order the bytes
            MOBULA_CHECK(owner[b].compare_exchange_strong(nobody, me, std::memory_order_relaxed));
            bytes.in(memory)[b] = generation;
            away[b].store(generation + 1, std::memory_order_release);
            total[0].fetch_add(1);
          }
          return ended();
        }));
      } else if (i < 4) {  // owners of records that name blocks
        MOBULA_CHECK(eventually([&] {
          for (std::uint32_t b = 0; b < kBlocks; ++b) {
            const std::uint32_t waiting = away[b].exchange(0, std::memory_order_acquire);
            if (waiting == 0) continue;
            const std::uint32_t generation = waiting - 1;
            MOBULA_CHECK(bytes.in(memory)[b] == generation);
            owner[b].store(0, std::memory_order_relaxed);
            MOBULA_CHECK(give_block(memory.block_word(extent, b), generation));
            MOBULA_CHECK(!give_block(memory.block_word(extent, b), generation));
            if (total[1].fetch_add(1) + 1 >= kTakes && total[2].load() >= 20) total[3].store(1);
          }
          return ended();
        }));
      } else {  // the daemon
        std::uint32_t lessee = kMe;
        MOBULA_CHECK(eventually([&] {
          for (std::uint32_t b = 0; b < kBlocks; ++b) {
            if (revoke_block(memory.block_word(extent, b))) continue;
            while (b-- > 0) memory.block_word(extent, b).fetch_and(~block::kRevoked);
            return ended();
          }
          for (std::uint32_t b = 0; b < kBlocks; ++b) MOBULA_CHECK(owner[b].load() == 0);
          extent.lessee.store(kNone);
          lessee = lessee == kMe ? kOther : kMe;
          for (std::uint32_t b = 0; b < kBlocks; ++b) {
            std::atomic<std::uint32_t>& w = memory.block_word(extent, b);
            w.store(block::free(block::generation(w.load()) + 1));
          }
          extent.lessee.store(lessee);
          total[2].fetch_add(1);
          return ended();
        }));
      }
    });
    const auto* total = totals.in(session.memory());
    CHECK(total[1].load() >= kTakes);
    CHECK(total[2].load() >= 20);
  }
}

}  // namespace
}  // namespace mobula::shm
