#include "shm/memory.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;

constexpr Ending kFaulted{SIGSEGV, 0};

// Pages of [p, p + size) that are in memory.
std::size_t pages_present(void* p, std::size_t size) {
  std::vector<unsigned char> present(size / kPage);
  REQUIRE(::mincore(p, size, present.data()) == 0);
  return static_cast<std::size_t>(
      std::count_if(present.begin(), present.end(), [](unsigned char c) { return c & 1; }));
}

TEST_CASE("both memories refuse to shrink, to grow and to be sealed again, for any holder") {
  Session session;

  Child child([&] {
    for (const int fd : {session.control(), session.objects()}) {
      for (const off_t size : {off_t{0}, off_t{4096}, off_t{1} << 45}) {
        MOBULA_CHECK(::ftruncate(fd, size) != 0 && errno == EPERM);
      }
      MOBULA_CHECK(::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0);
      MOBULA_CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    }
  });

  CHECK(child.end() == kWell);
}

TEST_CASE("a store larger than the machine's addresses is refused") {
  int control = -1;
  int objects = -1;
  // So large that the size of its addresses is no number any more, or no file's.
  for (const int bits : {63, 59, 58})
    CHECK_FALSE(Memory::create(std::size_t{1} << bits, &control, &objects));
}

TEST_CASE("a process of another layout does not join, and is told why") {
  Session session;
  struct Row {
    std::string_view name;
    std::uint64_t magic;
    std::uint64_t layout;
    bool joins;
  };
  for (const Row& row : {Row{"the same build", kMagic, layout_hash(), true},
                         Row{"another layout", kMagic, layout_hash() + 1, false},
                         Row{"another magic", kMagic + 1, layout_hash(), false},
                         Row{"not ready yet", 0, 0, false}}) {
    CAPTURE(row.name);
    session.memory().header().magic = row.magic;
    session.memory().header().layout_hash = row.layout;

    Child child([&] {
      Memory mine;
      const char* problem =
          mine.map(session.control(), session.objects(), session.object_capacity(), false);
      MOBULA_CHECK(mine.mapped() == row.joins);
      if (row.joins) {
        MOBULA_CHECK(problem == nullptr);
      } else {
        MOBULA_CHECK(problem &&
                     std::string_view(problem).find("another layout") != std::string_view::npos);
      }
    });
    CHECK(child.end() == kWell);
  }
}

TEST_CASE("what one process writes, another one reads at another address") {
  Session session;
  session.memory().object_window(100)[0] = std::byte{1};  // the daemon's window is open as a whole

  Child child = session.start([](const Memory& memory) {
    MOBULA_CHECK(memory.object(100)[0] == std::byte{1});
    MOBULA_CHECK(memory.open_window(kPage, kPage));
    memory.object_window(kPage)[5] = std::byte{2};
    memory.header().any_bell.value.store(3);
  });

  CHECK(child.end() == kWell);
  CHECK(session.memory().object(kPage)[5] == std::byte{2});
  CHECK(session.memory().header().any_bell.value.load() == 3);
}

TEST_CASE("a write through the read-only view faults in its author and changes nothing") {
  Session session;

  Child child = session.start([](const Memory& memory) {
    *const_cast<volatile std::byte*>(memory.object(0)) = std::byte{1};
  });

  CHECK(child.end() == kFaulted);
  CHECK(session.memory().object(0)[0] == std::byte{0});
}

TEST_CASE("of the object window only what was opened can be written, or even read") {
  Session session;
  const auto touch = [&](bool open, std::uint64_t at, bool write) {
    Child child = session.start([=](const Memory& memory) {
      if (open) MOBULA_CHECK(memory.open_window(2 * kPage, kPage));
      volatile std::byte* byte = memory.object_window(at);
      if (write) {
        *byte = std::byte{7};
      } else {
        static_cast<void>(std::to_integer<int>(*byte));
      }
    });
    return child.end();
  };

  CHECK(touch(false, 2 * kPage, true) == kFaulted);
  CHECK(touch(false, 2 * kPage, false) == kFaulted);
  CHECK(touch(true, 2 * kPage, true) == kWell);
  CHECK(touch(true, 3 * kPage - 1, true) == kWell);
  CHECK(touch(true, 2 * kPage - 1, true) == kFaulted);
  CHECK(touch(true, 3 * kPage, true) == kFaulted);
}

TEST_CASE("a window that was closed again is out of reach, and keeps its bytes") {
  Session session;

  Child child = session.start([](const Memory& memory) {
    MOBULA_CHECK(memory.open_window(0, 2 * kPage));
    memory.object_window(0)[0] = std::byte{9};
    memory.close_window(0, kPage);
    MOBULA_CHECK(memory.object(0)[0] == std::byte{9});
    memory.object_window(kPage)[0] = std::byte{8};
    *static_cast<volatile std::byte*>(memory.object_window(0)) = std::byte{1};
  });

  CHECK(child.end() == kFaulted);
  CHECK(session.memory().object(0)[0] == std::byte{9});
  CHECK(session.memory().object(kPage)[0] == std::byte{8});
}

TEST_CASE("memory is taken when it is populated, not before, and whole pages at a time") {
  Session session;
  std::byte* const segment = session.memory().segment(7);
  REQUIRE(pages_present(segment, kSegmentSize) == 0);

  CHECK(Memory::populate(segment + 10, 2 * kPage));
  CHECK(pages_present(segment, kSegmentSize) == 3);
  CHECK(Memory::populate(segment, kSegmentSize));
  CHECK(pages_present(segment, kSegmentSize) == kSegmentSize / kPage);
}

TEST_CASE("populating what is not mapped fails instead of faulting") {
  void* gone = ::mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(gone != MAP_FAILED);

  CHECK_FALSE(Memory::populate(gone, kPage));
  ::munmap(gone, kPage);
}

TEST_CASE("unmapping twice is harmless, and mapping again sees the same bytes") {
  Session session;
  Memory view;
  REQUIRE(view.map(session.control(), session.objects(), session.object_capacity(), false) ==
          nullptr);
  view.header().session_over.store(1);

  view.unmap();
  view.unmap();
  CHECK_FALSE(view.mapped());
  CHECK(view.map(session.control(), session.objects(), session.object_capacity(), false) ==
        nullptr);
  CHECK(view.header().session_over.load() == 1);
}

}  // namespace
}  // namespace mobula::shm
