#include <doctest/doctest.h>

#include <string_view>

#include "shm/claim.h"
#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;

constexpr std::uint32_t kClass = 0;
constexpr std::uint32_t kFirstProcess = 20;
constexpr std::int64_t kSliceNs = 5'000'000'000;

// Worker i of the class has class slot i and process kFirstProcess + i.
SchedulingClass& open_class(Session& session, std::uint32_t workers) {
  SchedulingClass& cls = session.memory().scheduling_class(kClass);
  for (auto& process : cls.slot_process) process.store(kNone);
  for (std::uint32_t i = 0; i < workers; ++i) cls.slot_process[i].store(kFirstProcess + i);
  cls.attached.store(workers);
  return cls;
}
std::uint32_t rings_of(const Memory& memory, std::uint32_t worker) {
  return memory.process(kFirstProcess + worker).bell.value.load();
}

TEST_CASE("each call wakes one sleeper of the class, wherever its bit is, until none is left") {
  Session session;
  SchedulingClass& cls = open_class(session, 256);
  const std::vector<std::uint32_t> asleep = {0, 1, 63, 64, 130, 255};
  for (const std::uint32_t slot : asleep) doorbell::announce_sleep(cls, slot);

  for (std::size_t left = asleep.size(); left > 0; --left) {
    CHECK(doorbell::sleepers(cls) == left);
    CHECK(doorbell::wake_one(session.memory(), cls));
  }
  CHECK_FALSE(doorbell::wake_one(session.memory(), cls));
  CHECK(doorbell::sleepers(cls) == 0);
  for (std::uint32_t slot = 0; slot < 256; ++slot) {
    CAPTURE(slot);
    CHECK(rings_of(session.memory(), slot) ==
          (std::find(asleep.begin(), asleep.end(), slot) != asleep.end() ? 1 : 0));
  }
}

TEST_CASE("who takes back its announcement learns whether somebody woke it meanwhile") {
  Session session;
  SchedulingClass& cls = open_class(session, 2);

  doorbell::announce_sleep(cls, 1);
  CHECK(doorbell::withdraw_sleep(cls, 1));
  CHECK_FALSE(doorbell::withdraw_sleep(cls, 1));
  doorbell::announce_sleep(cls, 1);
  REQUIRE(doorbell::wake_one(session.memory(), cls));
  CHECK_FALSE(doorbell::withdraw_sleep(cls, 1));
}

TEST_CASE(
    "a submission wakes a sleeper unless somebody searches, or an awake worker will come soon") {
  struct Row {
    std::string_view name;
    std::uint32_t searcher;
    std::uint32_t quick;
    std::uint64_t depth;
    std::uint32_t asleep;  // of two workers
    std::uint32_t woken;
  };
  for (const Row& row :
       {Row{"everybody sleeps", 0, 0, 1, 2, 1}, Row{"one sleeps, tasks are slow", 0, 0, 1, 1, 1},
        Row{"one sleeps, tasks are quick", 0, 1, 1, 1, 0},
        Row{"everybody sleeps, tasks were quick", 0, 1, 1, 2, 1},
        Row{"quick, but the backlog is deep", 0, 1, doorbell::kDeepBacklog, 1, 1},
        Row{"somebody searches", kFirstProcess + 1, 0, 1, 2, 0},
        Row{"nobody sleeps", 0, 0, 1, 0, 0}}) {
    for (const std::uint32_t attention : {0u, 1u}) {
      CAPTURE(row.name);
      CAPTURE(attention);
      Session session;
      SchedulingClass& cls = open_class(session, 2);
      cls.searcher.store(row.searcher);
      cls.quick.store(row.quick);
      cls.attention.store(attention);
      for (std::uint32_t i = 0; i < row.asleep; ++i) doorbell::announce_sleep(cls, i);

      CHECK(doorbell::ring(session.memory(), cls, row.depth) == (attention == 1));
      CHECK(rings_of(session.memory(), 0) + rings_of(session.memory(), 1) == row.woken);
      CHECK(doorbell::sleepers(cls) == row.asleep - row.woken);
    }
  }
}

TEST_CASE("sleeping processes are woken one by one, each exactly once") {
  constexpr std::uint32_t kSleepers = 6;
  Session session;
  const Memory& memory = session.memory();
  SchedulingClass& cls = open_class(session, kSleepers);
  const Counters awake(session, 1);
  std::vector<Child> sleepers;
  for (std::uint32_t i = 0; i < kSleepers; ++i) {
    sleepers.push_back(session.start([&, i](const Memory& mine) {
      Bell& bell = mine.process(kFirstProcess + i).bell;
      const std::uint32_t rung = bell.value.load();
      doorbell::announce_sleep(mine.scheduling_class(kClass), i);
      MOBULA_CHECK(eventually([&] {
        futex_wait(futex_word(bell.value), rung, kSliceNs);
        return bell.value.load() != rung;
      }));
      awake.in(mine)[0].fetch_add(1);
    }));
  }
  REQUIRE(eventually([&] { return doorbell::sleepers(cls) == kSleepers; }));

  for (std::uint32_t woken = 1; woken <= kSleepers; ++woken) {
    REQUIRE(doorbell::wake_one(memory, cls));
    REQUIRE(eventually([&] { return awake.in(memory)[0].load() == woken; }));
    CHECK(doorbell::sleepers(cls) == kSleepers - woken);
  }
  CHECK_FALSE(doorbell::wake_one(memory, cls));
  for (std::uint32_t i = 0; i < kSleepers; ++i) {
    CHECK(sleepers[i].end() == kWell);
    CHECK(rings_of(memory, i) == 1);
  }
}

TEST_CASE("wakers that race for the same sleepers share them out, and none is woken twice") {
  constexpr std::uint32_t kWorkers = 256;
  constexpr std::uint32_t kRounds = 200;
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Session session;
    open_class(session, kWorkers);
    const Counters totals(session, 2);  // woken, arrivals

    side_by_side(session, crew, 4, [&](const Memory& memory, int i) {
      SchedulingClass& cls = memory.scheduling_class(kClass);
      auto* total = totals.in(memory);
      for (std::uint32_t round = 0; round < kRounds; ++round) {
        if (i == 0) {
          for (std::uint32_t slot = 0; slot < kWorkers; ++slot) doorbell::announce_sleep(cls, slot);
        }
        while (doorbell::wake_one(memory, cls)) total[0].fetch_add(1);
        // Each round ends when everybody has found nobody asleep after the announcements.
        total[1].fetch_add(1);
        MOBULA_CHECK(eventually([&] { return total[1].load() >= 4 * (round + 1); }));
      }
    });
    while (doorbell::wake_one(session.memory(), session.memory().scheduling_class(kClass)))
      totals.in(session.memory())[0].fetch_add(1);

    // A bit set before the last taker of its round looked is taken in that round or a later one,
    // always once.
    CHECK(totals.in(session.memory())[0].load() == kWorkers * kRounds);
    std::uint32_t wrong = 0;
    for (std::uint32_t i = 0; i < kWorkers; ++i) wrong += rings_of(session.memory(), i) != kRounds;
    CHECK(wrong == 0);
  }
}

TEST_CASE("a sleeper that was killed swallows one wake-up, and the next one reaches a living one") {
  Session session;
  const Memory& memory = session.memory();
  SchedulingClass& cls = open_class(session, 2);
  const auto start = [&](std::uint32_t i) {
    return session.start([i](const Memory& mine) {
      Bell& bell = mine.process(kFirstProcess + i).bell;
      const std::uint32_t rung = bell.value.load();
      doorbell::announce_sleep(mine.scheduling_class(kClass), i);
      MOBULA_CHECK(eventually([&] {
        futex_wait(futex_word(bell.value), rung, kSliceNs);
        return bell.value.load() != rung;
      }));
    });
  };
  Child dead = start(0);
  REQUIRE(eventually([&] { return doorbell::sleepers(cls) == 1; }));
  dead.kill();
  REQUIRE(dead.end() == kKilled);
  CHECK(doorbell::sleepers(cls) == 1);
  Child living = start(1);
  REQUIRE(eventually([&] { return doorbell::sleepers(cls) == 2; }));

  CHECK(doorbell::wake_one(memory, cls));
  CHECK(doorbell::sleepers(cls) == 1);
  CHECK(doorbell::wake_one(memory, cls));
  CHECK(living.end() == kWell);
}

TEST_CASE(
    "a waker killed between choosing and waking leaves the sleeper unlisted, and listed again by "
    "its next look") {
  Session session;
  const Memory& memory = session.memory();
  SchedulingClass& cls = open_class(session, 1);
  doorbell::announce_sleep(cls, 0);

  Child waker = session.start([](const Memory& mine) {
    die_at(CrashPoint::WakeTaken);
    doorbell::wake_one(mine, mine.scheduling_class(kClass));
  });

  CHECK(waker.end() == kKilled);
  CHECK(doorbell::sleepers(cls) == 0);
  CHECK(rings_of(memory, 0) == 0);  // the daemon rings for the dead
  CHECK_FALSE(doorbell::withdraw_sleep(cls, 0));  // so the sleeper knows that it must look
  doorbell::announce_sleep(cls, 0);
  CHECK(doorbell::wake_one(memory, cls));
}

TEST_CASE("at most one worker of a class searches, and a dead one is known by its name") {
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Session session;
    open_class(session, 4);
    const Counters searching(session, 2);  // now, ever
    side_by_side(session, crew, 4, [&](const Memory& memory, int i) {
      SchedulingClass& cls = memory.scheduling_class(kClass);
      auto* count = searching.in(memory);
      for (int round = 0; round < 5000; ++round) {
        if (!doorbell::become_searcher(cls, kFirstProcess + static_cast<std::uint32_t>(i)))
          continue;
        MOBULA_CHECK(count[0].fetch_add(1) == 0);
        MOBULA_CHECK(cls.searcher.load() == kFirstProcess + static_cast<std::uint32_t>(i) + 1);
        count[1].fetch_add(1);
        count[0].fetch_sub(1);
        doorbell::stop_searching(cls);
      }
    });
    CHECK(searching.in(session.memory())[1].load() >= 1);
  }

  Session session;
  SchedulingClass& cls = open_class(session, 4);
  Child searcher = session.start([](const Memory& mine) {
    die_at(CrashPoint::SearchTaken);
    doorbell::become_searcher(mine.scheduling_class(kClass), kFirstProcess + 2);
  });
  CHECK(searcher.end() == kKilled);
  CHECK_FALSE(doorbell::become_searcher(cls, kFirstProcess));
  CHECK(cls.searcher.load() == kFirstProcess + 2 + 1);
}

// A submitter hands over one record a round and waits for it on its state word; workers go through
// the protocol of their loop: search, announce, look, sleep. Whoever sleeps a whole slice with work
// before it has lost a wake-up.
TEST_CASE("no wake-up is lost in 10000 rounds of submitting and sleeping") {
  constexpr std::uint32_t kRounds = 10'000;
  constexpr std::uint32_t kSlots = 64;
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    for (const bool search : {false, true}) {
      CAPTURE(name_of(crew));
      CAPTURE(search);
      Session session;
      open_class(session, 2);
      session.memory().segment_owner(0).store(kNone);
      const std::uint64_t offset = open_ring(session);
      const Counters totals(session, 4);  // over, claims, lost by workers, lost by the submitter

      side_by_side(session, crew, 3, [&](const Memory& memory, int i) {
        SchedulingClass& cls = memory.scheduling_class(kClass);
        RingHeader& ring = ring_at(memory, offset);
        auto* total = totals.in(memory);
        NoSink sink;
        if (i == 2) {
          for (std::uint32_t round = 0; round < kRounds; ++round) {
            const Address address{1 + round % kSlots, 1 + round / kSlots};
            Record& record = make_task(memory, address);
            make_ready(record, address);
            MOBULA_CHECK(ring::has_room(ring));
            ring::push(memory, ring, address);
            doorbell::ring(memory, cls, ring.depth());
            const std::uint64_t seen = record.state.fetch_or(word::kWaiters) | word::kWaiters;
            MOBULA_CHECK(eventually([&] {
              const std::uint64_t state = record.state.load();
              if (word::is_final(state)) return true;
              const std::int64_t begin = now_ns();
              futex_wait(reinterpret_cast<const std::uint32_t*>(&record.state),
                         static_cast<std::uint32_t>(state), kSliceNs);
              if (now_ns() - begin >= kSliceNs && word::is_final(record.state.load()))
                total[3].fetch_add(1);
              return false;
            }));
            static_cast<void>(seen);
          }
          total[0].store(1);
          for (std::uint32_t worker = 0; worker < 2; ++worker) {
            Bell& bell = memory.process(kFirstProcess + worker).bell;
            bell.value.fetch_add(1);
            futex_wake_all(futex_word(bell.value));
          }
          return;
        }
        const auto worker = static_cast<std::uint32_t>(i);
        const std::uint32_t participant = 40 + worker;
        Participant& me = memory.participant(participant);
        Bell& bell = memory.process(kFirstProcess + worker).bell;
        while (total[0].load() == 0) {
          const Address address = claim::next(memory, ring, me, participant, claim::Order::Any);
          if (address) {
            total[1].fetch_add(1);
            claim::complete(memory, me, memory.record(address.slot), address, State::Done, sink);
            claim::forget(me);
            continue;
          }
          if (search && doorbell::become_searcher(cls, kFirstProcess + worker)) {
            for (int look = 0; look < 100 && ring.empty(); ++look) cpu_relax();
            doorbell::stop_searching(cls);
          }
          const std::uint32_t rung = bell.value.load(std::memory_order_acquire);
          doorbell::announce_sleep(cls, worker);
          if (ring.empty() && total[0].load() == 0) {
            const std::int64_t begin = now_ns();
            futex_wait(futex_word(bell.value), rung, kSliceNs);
            if (now_ns() - begin >= kSliceNs && !ring.empty()) total[2].fetch_add(1);
          }
          doorbell::withdraw_sleep(cls, worker);
        }
      });

      const auto* total = totals.in(session.memory());
      CHECK(total[1].load() == kRounds);
      CHECK(total[2].load() == 0);
      CHECK(total[3].load() == 0);
    }
  }
}

}  // namespace
}  // namespace mobula::shm
