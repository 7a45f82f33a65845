#include "core/free_space.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

namespace mobula::core {
namespace {

constexpr std::uint64_t kPage = FreeSpace::kGranule;

TEST_CASE("sizes are rounded up to pages, and the lowest address is used first") {
  FreeSpace space{10 * kPage};

  CHECK(space.allocate(1) == 0);
  CHECK(space.allocate(kPage + 1) == kPage);
  CHECK(space.allocate(kPage) == 3 * kPage);
  CHECK(space.free_bytes() == 6 * kPage);
  CHECK(space.largest() == 6 * kPage);
}

TEST_CASE("the smallest extent that fits is taken") {
  FreeSpace space{20 * kPage};
  REQUIRE(space.allocate(20 * kPage) == 0);
  REQUIRE(space.release(0, 5 * kPage));
  REQUIRE(space.release(6 * kPage, 2 * kPage));
  REQUIRE(space.release(10 * kPage, 3 * kPage));

  CHECK(space.allocate(2 * kPage) == 6 * kPage);
  CHECK(space.allocate(2 * kPage) == 10 * kPage);
  CHECK(space.allocate(2 * kPage) == 0);
}

TEST_CASE("among equal fits the one freed last is taken, and a never used one comes last") {
  FreeSpace space{8 * kPage};
  REQUIRE(space.allocate(6 * kPage) == 0);
  REQUIRE(space.release(4 * kPage, kPage));
  REQUIRE(space.release(0, kPage));
  REQUIRE(space.release(2 * kPage, kPage));
  REQUIRE(space.allocate(kPage, 2 * kPage) == 2 * kPage);
  REQUIRE(space.allocate(kPage, 2 * kPage) == 0);
  REQUIRE(space.release(0, kPage));

  CHECK(space.allocate(kPage) == 0);
  CHECK(space.allocate(kPage) == 4 * kPage);
  CHECK(space.allocate(kPage) == 6 * kPage);
}

TEST_CASE("released neighbours become one extent, in whichever order they come") {
  const std::vector<std::vector<int>> orders = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}};
  for (const auto& order : orders) {
    CAPTURE(order[0]);
    FreeSpace space{3 * kPage};
    REQUIRE(space.allocate(3 * kPage) == 0);

    for (const int page : order) {
      CHECK(space.release(static_cast<std::uint64_t>(page) * kPage, kPage));
    }

    CHECK(space.extents() == 1);
    CHECK(space.allocate(3 * kPage) == 0);
  }
}

TEST_CASE("releasing what is free, outside or misplaced is refused and changes nothing") {
  constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();
  FreeSpace space{8 * kPage};
  REQUIRE(space.allocate(4 * kPage) == 0);
  REQUIRE(space.release(kPage, kPage));
  struct Row {
    const char* name;
    std::uint64_t offset;
    std::uint64_t size;
  };
  const Row rows[] = {
      {"twice", kPage, kPage},
      {"overlaps the free one before", kPage, 2 * kPage},
      {"overlaps the free one after", 0, 2 * kPage},
      {"spans a free one", 0, 3 * kPage},
      {"never taken", 6 * kPage, kPage},
      {"runs into the free tail", 3 * kPage, 2 * kPage},
      {"beyond the end", 8 * kPage, kPage},
      {"across the end", 7 * kPage, 2 * kPage},
      {"wraps round", kHuge - kPage + 1, kPage},
      {"huge", 0, kHuge},
      {"empty", 0, 0},
      {"not a granule's", 100, kPage},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    CHECK_FALSE(space.release(row.offset, row.size));
    CHECK(space.free_bytes() == 5 * kPage);
    CHECK(space.extents() == 2);
  }
}

TEST_CASE("what cannot be given is refused") {
  FreeSpace space{4 * kPage};

  CHECK_FALSE(space.allocate(0));
  CHECK_FALSE(space.allocate(4 * kPage + 1));
  CHECK_FALSE(space.allocate(std::numeric_limits<std::uint64_t>::max()));
  CHECK_FALSE(space.allocate(kPage, 0));
  CHECK_FALSE(space.allocate(kPage, 3 * kPage));
  CHECK(space.free_bytes() == 4 * kPage);
  CHECK_FALSE(FreeSpace{}.allocate(1));
}

TEST_CASE("a larger alignment is honoured, and the bytes before it stay free") {
  FreeSpace space{64 * kPage};
  REQUIRE(space.allocate(kPage) == 0);

  CHECK(space.allocate(2 * kPage, 16 * kPage) == 16 * kPage);

  CHECK(space.free_bytes() == 61 * kPage);
  CHECK(space.allocate(15 * kPage) == kPage);
  CHECK(space.allocate(kPage, std::uint64_t{1} << 63) == std::nullopt);
}

TEST_CASE("growing adds to the free tail, and shrinking is refused") {
  FreeSpace space{4 * kPage};
  REQUIRE(space.allocate(3 * kPage) == 0);

  CHECK(space.grow(8 * kPage + 5));

  CHECK(space.end() == 8 * kPage);
  CHECK(space.largest() == 5 * kPage);
  CHECK(space.extents() == 1);
  CHECK(space.grow(8 * kPage));
  CHECK_FALSE(space.grow(7 * kPage));
  CHECK(space.end() == 8 * kPage);
}

TEST_CASE("fragmentation is the share of free bytes outside of the largest extent") {
  FreeSpace space{8 * kPage};
  CHECK(space.fragmentation() == 0.0);
  REQUIRE(space.allocate(8 * kPage) == 0);
  CHECK(space.fragmentation() == 0.0);

  REQUIRE(space.release(0, kPage));
  REQUIRE(space.release(2 * kPage, 3 * kPage));

  CHECK(space.fragmentation() == doctest::Approx(0.25));
}

TEST_CASE("after any sequence of operations the free bytes are exactly those not taken") {
  struct Taken {
    std::uint64_t first;
    std::uint64_t pages;
  };
  for (unsigned seed = 1; seed <= 50; ++seed) {
    CAPTURE(seed);
    std::mt19937 random{seed};
    FreeSpace space{64 * kPage};
    std::vector<bool> taken(64, false);  // one per page: what a page map would say
    std::vector<Taken> held;
    for (int operation = 0; operation < 400; ++operation) {
      const auto choice = random() % 100;
      if (choice < 55) {
        const std::uint64_t pages = 1 + random() % 9;
        const std::uint64_t align_pages = std::uint64_t{1} << (random() % 4);
        const auto offset = space.allocate(pages * kPage - random() % 100, align_pages * kPage);
        if (offset) {
          REQUIRE(*offset % (align_pages * kPage) == 0);
          for (std::uint64_t page = *offset / kPage; page < *offset / kPage + pages; ++page) {
            REQUIRE_FALSE(taken.at(page));
            taken[page] = true;
          }
          held.push_back({*offset / kPage, pages});
        } else {
          std::uint64_t run = 0;  // no aligned run of free pages may be long enough
          for (std::uint64_t start = 0; start < taken.size(); start += align_pages) {
            run = 0;
            while (start + run < taken.size() && !taken[start + run]) ++run;
            REQUIRE(run < pages);
          }
        }
      } else if (choice < 98 && !held.empty()) {
        const std::size_t which = random() % held.size();
        const Taken gone = held[which];
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
        REQUIRE(space.release(gone.first * kPage, gone.pages * kPage));
        REQUIRE_FALSE(space.release(gone.first * kPage, gone.pages * kPage));
        for (std::uint64_t page = gone.first; page < gone.first + gone.pages; ++page) {
          taken[page] = false;
        }
      } else if (taken.size() < 128) {
        taken.resize(taken.size() + 4, false);
        REQUIRE(space.grow(taken.size() * kPage));
      }

      std::uint64_t free_pages = 0;
      std::uint64_t longest = 0;
      std::uint64_t run = 0;
      std::size_t runs = 0;
      for (const bool is_taken : taken) {
        if (is_taken) {
          run = 0;
          continue;
        }
        if (run == 0) ++runs;
        ++free_pages;
        longest = std::max(longest, ++run);
      }
      REQUIRE(space.free_bytes() == free_pages * kPage);
      REQUIRE(space.largest() == longest * kPage);
      REQUIRE(space.extents() == runs);
    }
  }
}

}  // namespace
}  // namespace mobula::core
