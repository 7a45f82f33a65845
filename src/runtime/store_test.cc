#include "runtime/store.h"

#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "mobula/error.h"
#include "runtime/hand_daemon_test.h"

namespace mobula::runtime {
namespace {

using namespace testing;
using shm::testing::kWell;

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;

// In the child: the bytes of a place lie in its block, and its block in its extent.
void check_place(Process& process, const Store::Place& place, std::uint64_t size) {
  const shm::Extent& e = process.memory().extent(place.at.extent);
  const std::uint64_t offset = process.memory().object_offset(place.at);
  MOBULA_CHECK(place.at.size == size);
  MOBULA_CHECK(size <= e.block_size);
  MOBULA_CHECK(shm::block_index(place.at) < e.blocks);
  MOBULA_CHECK(offset >= e.offset && offset + size <= e.offset + e.size);
  MOBULA_CHECK(place.data == process.memory().object_window(offset));
  detail::Pin pin;
  MOBULA_CHECK(process.store().read(place.at, pin) == process.memory().object(offset));
  MOBULA_CHECK(offset % 64 == 0);
}

TEST_CASE(
    "values of all sizes get places of their own, which are written in one view and read in the "
    "other") {
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    struct Written {
      Store::Place place;
      int byte;
    };
    std::vector<Written> all;
    int byte = 0;
    for (int round = 0; round < 3; ++round) {
      for (const std::uint64_t size :
           {std::uint64_t{1}, std::uint64_t{256}, std::uint64_t{257}, 4 * kKiB, 100 * kKiB,
            Store::kBlockMax, Store::kBlockMax + 1, 2 * kMiB}) {
        Store::Place place = process.store().allocate(size, false);
        check_place(process, place, size);
        byte = byte % 255 + 1;
        std::memset(place.data, byte, size);
        all.push_back({std::move(place), byte});
      }
    }
    for (const Written& written : all) {
      detail::Pin pin;
      const std::byte* read = process.store().read(written.place.at, pin);
      for (std::uint64_t i = 0; i < written.place.at.size; ++i)
        MOBULA_CHECK(std::to_integer<int>(read[i]) == written.byte);
    }
  });
  CHECK(end == kWell);
}

TEST_CASE("memory that was given back is used again before more is leased") {
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    for (int round = 0; round < 1000; ++round) {
      for (const std::uint64_t size : {std::uint64_t{300}, 1 * kMiB}) {
        const Store::Place place = process.store().allocate(size, false);
        check_place(process, place, size);
        process.memory().give_back(place.at);
      }
    }
  });
  CHECK(end == kWell);
  CHECK(daemon.requests[wire::Kind::LeaseExtent] == 2);
}

TEST_CASE("a large value does not take memory of more than twice its size") {
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    process.memory().give_back(process.store().allocate(8 * kMiB, false).at);
    check_place(process, process.store().allocate(1 * kMiB, false), 1 * kMiB);
    check_place(process, process.store().allocate(5 * kMiB, false), 5 * kMiB);
  });
  CHECK(end == kWell);
  CHECK(daemon.requests[wire::Kind::LeaseExtent] == 2);
}

// The daemon takes an unused extent back and leases its entry to the same process again.
struct Again {
  const char* name;
  std::uint64_t first;   // size of the values that were there
  std::uint64_t second;  // and of those that come
};

TEST_CASE("an entry that was leased anew for values of another size is not taken for the old one") {
  for (const Again& again : {Again{"large blocks, then small ones", 200 * kKiB, 300},
                             Again{"small blocks, then large ones", 300, 200 * kKiB},
                             Again{"one block, then small ones", 3 * kMiB, 300},
                             Again{"small blocks, then one", 300, 3 * kMiB},
                             Again{"one block, then blocks", 3 * kMiB, 200 * kKiB},
                             Again{"blocks, then one", 200 * kKiB, 3 * kMiB}}) {
    INFO(std::string(again.name));
    HandDaemon daemon;
    int leases = 0;
    const auto end = daemon.run(
        [&](Process& process) {
          process.memory().give_back(process.store().allocate(again.first, false).at);
          const Store::Place second = process.store().allocate(again.second, false);
          check_place(process, second, again.second);
          MOBULA_CHECK(second.at.extent == 0);  // the same entry by now
          for (int i = 0; i < 5; ++i) {
            check_place(process, process.store().allocate(again.first, false), again.first);
            check_place(process, process.store().allocate(again.second, false), again.second);
          }
          process.memory().give_back(second.at);
          for (int i = 0; i < 5; ++i)
            check_place(process, process.store().allocate(again.first, false), again.first);
        },
        [&](wire::Message& message) {
          if (message.kind != wire::Kind::LeaseExtent) return false;
          // The first two leases are of entry 0; the size is such that either use would fit into
          // it.
          message.a = leases < 2 ? 0 : static_cast<std::uint32_t>(leases);
          const std::uint64_t size = std::max(shm::whole_pages(message.c), 4 * kMiB);
          daemon.lease_extent(message.a, message.a * 4 * kMiB, size, message.d);
          ++leases;
          return true;
        });
    CHECK(end == kWell);
    CHECK(leases >= 3);
  }
}

TEST_CASE("an entry that was leased anew for values without refs gets none with refs") {
  for (const std::uint64_t size : {std::uint64_t{300}, 1 * kMiB}) {
    CAPTURE(size);
    HandDaemon daemon;
    int leases = 0;
    const auto end = daemon.run(
        [&](Process& process) {
          process.memory().give_back(process.store().allocate(size, true).at);
          // The daemon has taken the entry back and leases it anew, cut as it was.
          const Store::Place plain = process.store().allocate(size, false);
          MOBULA_CHECK(plain.at.extent == 0);
          process.memory().give_back(plain.at);
          const Store::Place with_refs = process.store().allocate(size, true);
          MOBULA_CHECK(with_refs.at.extent == 1);
          MOBULA_CHECK(process.memory().extent(1).spillable == 0);
        },
        [&](wire::Message& message) {
          if (message.kind != wire::Kind::LeaseExtent) return false;
          message.a = leases < 2 ? 0 : 1;
          daemon.lease_extent(message.a, message.a * 4 * kMiB, shm::whole_pages(message.c),
                              message.d, message.b != wire::kHoldsRefs);
          ++leases;
          return true;
        });
    CHECK(end == kWell);
    CHECK(leases == 3);
  }
}

// Pins of a test's own process.
std::uint32_t pins(Process& process, std::uint32_t extent) {
  return process.memory().pins(kProcess, extent).load();
}

TEST_CASE("a place is pinned while somebody holds it, and its copies count") {
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    for (const std::uint64_t size : {std::uint64_t{300}, 1 * kMiB}) {
      Store::Place place = process.store().allocate(size, false);
      const std::uint32_t extent = place.at.extent;
      MOBULA_CHECK(pins(process, extent) == 1);
      {
        const Store::Place copy = place;
        detail::Pin read;
        process.store().read(place.at, read);
        MOBULA_CHECK(pins(process, extent) == 3);
        const detail::Pin moved = std::move(read);
        MOBULA_CHECK(pins(process, extent) == 3);
      }
      MOBULA_CHECK(pins(process, extent) == 1);
      place = {};
      MOBULA_CHECK(pins(process, extent) == 0);
    }
  });
  CHECK(end == kWell);
}

TEST_CASE("a reader waits until its object is back, and is told when it cannot be") {
  HandDaemon daemon;
  shm::Memory& memory = daemon.session.memory();
  const auto set = [&](shm::Residency residency) {
    memory.extent(0).residency.store(static_cast<std::uint32_t>(residency));
  };
  int asked = 0;
  const auto end = daemon.run(
      [&](Process& process) {
        const shm::StoredAt at = process.store().allocate(1 * kMiB, false).at;
        detail::Pin pin;
        set(shm::Residency::Spilled);
        MOBULA_CHECK(process.store().read(at, pin) == process.memory().object(0));
        MOBULA_CHECK(memory.extent(0).residency.load() ==
                     static_cast<std::uint32_t>(shm::Residency::Resident));
        pin = {};
        set(shm::Residency::Lost);
        try {
          process.store().read(at, pin);
          MOBULA_CHECK(!"it is lost");
        } catch (const ObjectLostError& e) {
          MOBULA_CHECK(std::string_view(e.what()) == "damaged");
        }
        pin = {};
        MOBULA_CHECK(pins(process, 0) == 0);
      },
      [&](wire::Message& message) {
        if (message.kind != wire::Kind::RestoreExtent) return false;
        MOBULA_CHECK(message.a == 0);
        // First there is no memory, then it is on its way, then there.
        switch (++asked) {
          case 1: message.status = wire::Status::Later; break;
          case 2: set(shm::Residency::Resident); break;
          default: message.status = wire::Status::ObjectLost; message.set_text("damaged");
        }
        return true;
      });
  CHECK(end == kWell);
  CHECK(asked == 3);
}

TEST_CASE(
    "an entry that was leased anew with fewer blocks of the same size gives no block beyond its "
    "end") {
  constexpr std::uint32_t kMany = 128;
  constexpr std::uint32_t kFew = 64;
  constexpr std::uint64_t kSize = 4 * kKiB;
  HandDaemon daemon;
  int leases = 0;
  const auto end = daemon.run(
      [&](Process& process) {
        std::vector<Store::Place> first;
        for (std::uint32_t i = 0; i < kMany; ++i)
          first.push_back(process.store().allocate(kSize, false));
        for (std::uint32_t i = 0; i < 100; ++i) process.memory().give_back(first[i].at);
        for (std::uint32_t i = 0; i < 100; ++i) first[i] = process.store().allocate(kSize, false);
        // Full: the daemon is asked, and by then everything was given back and the entry leased
        // anew.
        std::set<std::uint64_t> offsets;
        for (std::uint32_t i = 0; i < 2 * kFew; ++i) {
          const Store::Place place = process.store().allocate(kSize, false);
          check_place(process, place, kSize);
          MOBULA_CHECK(offsets.insert(process.memory().object_offset(place.at)).second);
        }
      },
      [&](wire::Message& message) {
        if (message.kind != wire::Kind::LeaseExtent) return false;
        MOBULA_CHECK(message.d == kSize);
        message.a = leases < 2 ? 0 : static_cast<std::uint32_t>(leases);
        daemon.lease_extent(message.a, message.a * kMiB, (leases == 0 ? kMany : kFew) * kSize,
                            kSize);
        ++leases;
        return true;
      });
  CHECK(end == kWell);
  CHECK(leases == 3);
}

TEST_CASE(
    "a full store is asked again for a while; what the daemon says of it reaches the caller") {
  HandDaemon daemon;
  int refusals = 0;
  const auto end = daemon.run(
      [](Process& process) {
        check_place(process, process.store().allocate(100, false), 100);
        try {
          process.store().allocate(1 * kMiB, false);
          MOBULA_CHECK(!"it was refused");
        } catch (const ObjectStoreFullError& e) {
          MOBULA_CHECK(std::string_view(e.what()).find("larger than the store") !=
                       std::string_view::npos);
        }
      },
      [&](wire::Message& message) {
        if (message.kind != wire::Kind::LeaseExtent) return false;
        if (message.c > 512 * kKiB) {
          message.status = wire::Status::TooLarge;
          message.set_text("larger than the store");
          return true;
        }
        if (refusals++ >= 3) return false;
        message.status = wire::Status::StoreFull;
        message.set_text("full");
        return true;
      });
  CHECK(end == kWell);
  CHECK(refusals == 4);
}

TEST_CASE("a process whose daemon is gone is told so") {
  shm::testing::Session session;
  int sockets[2];
  REQUIRE(wire::make_pair(sockets));
  shm::testing::Child child([&] {
    wire::Message welcome;
    welcome.c = session.object_capacity();
    welcome.descriptors[0] = ::fcntl(session.control(), F_DUPFD_CLOEXEC, 0);
    welcome.descriptors[1] = ::fcntl(session.objects(), F_DUPFD_CLOEXEC, 0);
    welcome.descriptors[2] = ::eventfd(0, EFD_CLOEXEC);
    ::close(sockets[0]);
    Process process(sockets[1], welcome, shm::ProcessRole::Driver, nullptr);
    MOBULA_CHECK(shm::testing::eventually([&] { return !process.daemon().alive(); }));
    try {
      process.store().allocate(100, false);
      MOBULA_CHECK(!"nobody answers");
    } catch (const NodeDiedError&) {
    }
  });
  ::close(sockets[1]);
  ::close(sockets[0]);
  CHECK(child.end() == kWell);
}

}  // namespace
}  // namespace mobula::runtime
