#include "shm/holds.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;

constexpr std::uint32_t kAnn = 5;
constexpr std::uint32_t kBob = 6;
constexpr std::uint32_t kSlot = 1;
constexpr std::uint32_t kSequences = 1u << 28;

// A whole change, as a process makes it; `line`: its hold table's.
void hold(const Memory& memory, std::uint32_t participant, std::uint32_t slot, HoldEntry& line) {
  holds::open(memory.participant(participant), HoldOp::Hold, {slot, 1}, 0);
  crash_point(CrashPoint::HoldIntent);
  holds::change(memory, participant, memory.record(slot), +1);
  crash_point(CrashPoint::HoldCounted);
  line.record.store(Address{slot, 1}.packed(), std::memory_order_release);
  holds::close(memory.participant(participant));
}
void release(const Memory& memory, std::uint32_t participant, std::uint32_t slot, HoldEntry& line) {
  holds::open(memory.participant(participant), HoldOp::Release, {slot, 1}, 0);
  crash_point(CrashPoint::ReleaseIntent);
  holds::change(memory, participant, memory.record(slot), -1);
  crash_point(CrashPoint::ReleaseCounted);
  line.record.store(0, std::memory_order_release);
  holds::close(memory.participant(participant));
}

std::uint32_t count_of(const Memory& memory, std::uint32_t slot) {
  return holds::count(memory.record(slot).refs.load());
}

TEST_CASE("a refs word keeps count, author and sequence apart") {
  const std::uint64_t refs = holds::make((1u << 24) - 2, kParticipantsMax - 1, kSequences - 1);
  CHECK(holds::count(refs) == (1u << 24) - 2);
  CHECK(holds::author(refs) == kParticipantsMax - 1);
  CHECK(holds::sequence(refs) == kSequences - 1);
  CHECK(refs == ~(std::uint64_t{1} << 40));

  const std::uint64_t other = holds::make(1, 2, 3);
  CHECK(holds::count(other) == 1);
  CHECK(holds::author(other) == 2);
  CHECK(holds::sequence(other) == 3);
}

TEST_CASE("holding and releasing count up and down, and the last one gets nought") {
  Session session;
  const Memory& memory = session.memory();
  Record& record = memory.record(kSlot);

  holds::open(memory.participant(kAnn), HoldOp::Hold, {kSlot, 1}, 0);
  CHECK(holds::change(memory, kAnn, record, +1) == 1);
  holds::close(memory.participant(kAnn));
  holds::open(memory.participant(kBob), HoldOp::Hold, {kSlot, 1}, 0);
  CHECK(holds::change(memory, kBob, record, +1) == 2);
  CHECK(holds::change(memory, kBob, record, -1) == 1);
  CHECK(holds::change(memory, kBob, record, -1) == 0);
}

TEST_CASE(
    "for a thread killed at any step of a change the truth is known, also after others changed the "
    "count") {
  struct Row {
    CrashPoint point;
    HoldOp op;
    bool applied;
  };
  for (const Row& row : {Row{CrashPoint::HoldIntent, HoldOp::Hold, false},
                         Row{CrashPoint::HoldCounted, HoldOp::Hold, true},
                         Row{CrashPoint::ReleaseIntent, HoldOp::Release, false},
                         Row{CrashPoint::ReleaseCounted, HoldOp::Release, true}}) {
    for (const int reach : {1, 2, 17}) {
      for (const bool others_before : {false, true}) {
        CAPTURE(crash_point_info(row.point).name);
        CAPTURE(reach);
        CAPTURE(others_before);
        Session session;
        const Memory& memory = session.memory();
        const Shared<HoldEntry> lines(session, 2);
        if (others_before) hold(memory, kBob, kSlot, lines.in(memory)[1]);
        const std::uint32_t before = count_of(memory, kSlot);

        Child child = session.start([&](const Memory& mine) {
          die_at(row.point, reach);
          for (;;) {
            hold(mine, kAnn, kSlot, lines.in(mine)[0]);
            release(mine, kAnn, kSlot, lines.in(mine)[0]);
          }
        });
        REQUIRE(child.end() == kKilled);

        const HoldIntent& intent = memory.participant(kAnn).hold;
        CHECK(intent.op.load() == static_cast<std::uint32_t>(row.op));
        CHECK(Address::unpack(intent.record.load()) == Address{kSlot, 1});
        const bool was_held = row.op == HoldOp::Release;
        const bool is_held = was_held != row.applied;
        CHECK(count_of(memory, kSlot) == before + (is_held ? 1 : 0));
        CHECK(holds::applied(memory, kAnn) == row.applied);
        for (int change = 0; change < 3; ++change) {
          hold(memory, kBob, kSlot, lines.in(memory)[1]);
          CHECK(holds::applied(memory, kAnn) == row.applied);
        }
      }
    }
  }
}

TEST_CASE("a closed count is nought, gives nobody a hold, and opens as a word that was not there") {
  Session session;
  const Memory& memory = session.memory();
  const Shared<HoldEntry> lines(session, 1);
  Record& record = memory.record(kSlot);
  hold(memory, kBob, kSlot, lines.in(memory)[0]);
  std::uint64_t seen = record.refs.load();
  release(memory, kBob, kSlot, lines.in(memory)[0]);

  CHECK_FALSE(holds::close_count(memory, kAnn, record, seen));  // somebody has changed it since
  seen = record.refs.load();
  CHECK(holds::close_count(memory, kAnn, record, seen));
  CHECK(holds::is_closed(record.refs.load()));
  CHECK(holds::count(record.refs.load()) == 0);
  std::uint64_t old = seen;
  CHECK_FALSE(holds::try_hold(memory, kBob, record, old));  // as who looked before it was closed
  CHECK(holds::is_closed(old));
  const std::uint64_t next = holds::reopened(record.refs.load());
  CHECK(holds::count(next) == 0);
  CHECK(next != seen);
}

TEST_CASE(
    "of the owner who closes a count and somebody's first hold, one wins, in a race of both") {
  Session session;
  const Memory& memory = session.memory();
  Record& record = memory.record(kSlot);
  constexpr int kRounds = 20'000;
  std::atomic<int> round{0};
  std::atomic<int> done{0};
  bool held = false;
  std::thread finder([&] {
    for (int i = 1; i <= kRounds; ++i) {
      while (round.load() < i) spin_step(0);
      holds::open(memory.participant(kBob), HoldOp::Hold, {kSlot, 1}, 0);
      std::uint64_t seen = record.refs.load(std::memory_order_acquire);
      held = false;
      while (!held && !holds::is_closed(seen)) held = holds::try_hold(memory, kBob, record, seen);
      holds::close(memory.participant(kBob));
      done.store(i);
    }
  });
  int both_or_none = 0;
  for (int i = 1; i <= kRounds; ++i) {
    round.store(i);
    if (i % 3 == 0) spin_step(0);
    const std::uint64_t seen = record.refs.load(std::memory_order_acquire);
    const bool closed = holds::count(seen) == 0 && holds::close_count(memory, kAnn, record, seen);
    while (done.load() < i) std::this_thread::yield();
    both_or_none += closed == held;
    if (held) {
      holds::open(memory.participant(kBob), HoldOp::Release, {kSlot, 1}, 0);
      holds::change(memory, kBob, record, -1);
      holds::close(memory.participant(kBob));
    } else {
      record.refs.store(holds::reopened(record.refs.load()));
    }
  }
  finder.join();

  CHECK(both_or_none == 0);
}

TEST_CASE("an intent that was closed, or not opened yet, raises no question") {
  Session session;
  const Memory& memory = session.memory();
  const Shared<HoldEntry> lines(session, 1);

  hold(memory, kAnn, kSlot, lines.in(memory)[0]);
  CHECK(memory.participant(kAnn).hold.op.load() == static_cast<std::uint32_t>(HoldOp::None));
  release(memory, kAnn, kSlot, lines.in(memory)[0]);
  CHECK(memory.participant(kAnn).hold.op.load() == static_cast<std::uint32_t>(HoldOp::None));
}

TEST_CASE("a change of another record does not pass for the opened one") {
  Session session;
  const Memory& memory = session.memory();
  const Shared<HoldEntry> lines(session, 2);
  hold(memory, kAnn, 1, lines.in(memory)[0]);
  hold(memory, kBob, 1, lines.in(memory)[1]);  // has seen Ann's first change

  holds::open(memory.participant(kAnn), HoldOp::Hold, {2, 1}, 0);
  CHECK_FALSE(holds::applied(memory, kAnn));
  hold(memory, kBob, 2, lines.in(memory)[1]);
  CHECK_FALSE(holds::applied(memory, kAnn));
  holds::change(memory, kAnn, memory.record(2), +1);
  CHECK(holds::applied(memory, kAnn));
  hold(memory, kBob, 2, lines.in(memory)[1]);
  CHECK(holds::applied(memory, kAnn));
}

TEST_CASE("the truth is known while the sequence numbers wrap") {
  Session session;
  const Memory& memory = session.memory();
  const Shared<HoldEntry> lines(session, 2);
  memory.participant(kAnn).hold.sequence.store(kSequences - 4);
  memory.participant(kAnn).hold.acknowledged.store(kSequences - 4);

  for (int change = 0; change < 8; ++change) {
    CAPTURE(change);
    holds::open(memory.participant(kAnn), HoldOp::Hold, {kSlot, 1}, 0);
    CHECK_FALSE(holds::applied(memory, kAnn));
    hold(memory, kBob, kSlot, lines.in(memory)[1]);
    CHECK_FALSE(holds::applied(memory, kAnn));
    holds::change(memory, kAnn, memory.record(kSlot), +1);
    CHECK(holds::applied(memory, kAnn));
    hold(memory, kBob, kSlot, lines.in(memory)[1]);
    CHECK(holds::applied(memory, kAnn));
    holds::close(memory.participant(kAnn));
  }
  CHECK(holds::count(memory.record(kSlot).refs.load()) == 8 + 16);
}

TEST_CASE("a name that stood in a count for very long does not hide its author's newest change") {
  for (const std::uint32_t changes_since : {1000u, (1u << 27) + 10, (1u << 27) + (1u << 26)}) {
    CAPTURE(changes_since);
    Session session;
    const Memory& memory = session.memory();
    const Shared<HoldEntry> lines(session, 2);
    hold(memory, kAnn, 1, lines.in(memory)[0]);
    HoldIntent& ann = memory.participant(kAnn).hold;
    ann.sequence.store(ann.sequence.load() + changes_since);  // of records that nobody else touched

    holds::open(memory.participant(kAnn), HoldOp::Hold, {2, 1}, 0);
    holds::change(memory, kAnn, memory.record(2), +1);
    hold(memory, kBob, 2, lines.in(memory)[1]);
    CHECK(holds::applied(memory, kAnn));
    hold(memory, kBob, 1, lines.in(memory)[1]);  // overwrites the old name
    CHECK(holds::applied(memory, kAnn));
  }
}

// The daemon's question about a dead thread, and its answer for the hold table.
void resolve(const Memory& memory, std::uint32_t participant, HoldEntry* lines) {
  const HoldIntent& intent = memory.participant(participant).hold;
  const auto op = static_cast<HoldOp>(intent.op.load());
  if (op == HoldOp::None) return;
  const Address record = Address::unpack(intent.record.load());
  const bool held = (op == HoldOp::Hold) == holds::applied(memory, participant);
  lines[record.slot].record.store(held ? record.packed() : 0);
  holds::close(memory.participant(participant));
}

TEST_CASE("after any number of kills the counts equal what the hold tables list") {
  const std::uint64_t random_seed = seed();
  INFO("replay with MOBULA_SEED=" << random_seed);
  std::mt19937_64 random(random_seed);
  constexpr std::uint32_t kHolders = 4;
  constexpr std::uint32_t kRecords = 3;  // few, so that names are overwritten all the time
  constexpr int kKills = 150;
  Session session;
  const Memory& memory = session.memory();
  const Shared<HoldEntry> tables(session, kHolders * (kRecords + 1));  // by holder, then slot
  const Counters changes(session, kHolders);
  const auto table_of = [&](const Memory& m, std::uint32_t i) {
    return tables.in(m) + i * (kRecords + 1);
  };
  const auto start = [&](std::uint32_t i, std::uint64_t own_seed) {
    return session.start([&, i, own_seed](const Memory& mine) {
      std::mt19937_64 mine_random(own_seed);
      for (;;) {
        const auto slot = 1 + static_cast<std::uint32_t>(mine_random() % kRecords);
        HoldEntry& line = table_of(mine, i)[slot];
        line.record.load() == 0 ? hold(mine, kAnn + i, slot, line)
                                : release(mine, kAnn + i, slot, line);
        changes.in(mine)[i].fetch_add(1);
      }
    });
  };
  std::vector<Child> holders;
  for (std::uint32_t i = 0; i < kHolders; ++i) holders.push_back(start(i, random()));

  for (int kill = 0; kill < kKills; ++kill) {
    const auto i = static_cast<std::uint32_t>(random() % kHolders);
    const std::uint32_t until =
        changes.in(memory)[i].load() + static_cast<std::uint32_t>(random() % 500);
    REQUIRE(eventually([&] { return changes.in(memory)[i].load() >= until; }));
    holders[i].kill();
    REQUIRE(holders[i].end() == kKilled);
    resolve(memory, kAnn + i, table_of(memory, i));  // while the others go on
    holders[i] = start(i, random());
  }
  for (std::uint32_t i = 0; i < kHolders; ++i) {
    holders[i].kill();
    CHECK(holders[i].end() == kKilled);
  }
  for (std::uint32_t i = 0; i < kHolders; ++i) resolve(memory, kAnn + i, table_of(memory, i));

  for (std::uint32_t slot = 1; slot <= kRecords; ++slot) {
    CAPTURE(slot);
    std::uint32_t held = 0;
    for (std::uint32_t i = 0; i < kHolders; ++i)
      held += table_of(memory, i)[slot].record.load() != 0;
    CHECK(count_of(memory, slot) == held);
  }
}

TEST_CASE(
    "holders killed at each step in turn leave counts that equal the hold tables, beside others at "
    "work") {
  constexpr std::uint32_t kRecords = 2;
  Session session;
  const Memory& memory = session.memory();
  const Shared<HoldEntry> tables(session, 2 * (kRecords + 1));
  HoldEntry* const dying_table = tables.in(memory);
  const Counters stop(session, 1);
  const auto work = [&](const Memory& mine, std::uint32_t i, std::uint64_t own_seed) {
    std::mt19937_64 random(own_seed);
    while (stop.in(mine)[0].load() == 0) {
      const auto slot = 1 + static_cast<std::uint32_t>(random() % kRecords);
      HoldEntry& line = tables.in(mine)[i * (kRecords + 1) + slot];
      line.record.load() == 0 ? hold(mine, kAnn + i, slot, line)
                              : release(mine, kAnn + i, slot, line);
    }
  };
  Child living = session.start([&](const Memory& mine) { work(mine, 1, 1); });

  for (int round = 0; round < 40; ++round) {
    for (const CrashPoint point : {CrashPoint::HoldIntent, CrashPoint::HoldCounted,
                                   CrashPoint::ReleaseIntent, CrashPoint::ReleaseCounted}) {
      Child dying = session.start([&](const Memory& mine) {
        die_at(point, 1 + round * 7);
        work(mine, 0, static_cast<std::uint64_t>(round));
      });
      REQUIRE(dying.end() == kKilled);
      const bool applied = point == CrashPoint::HoldCounted || point == CrashPoint::ReleaseCounted;
      CHECK(holds::applied(memory, kAnn) == applied);
      resolve(memory, kAnn, dying_table);
    }
  }
  stop.in(memory)[0].store(1);
  CHECK(living.end() == kWell);
  for (std::uint32_t slot = 1; slot <= kRecords; ++slot) {
    const std::uint32_t held =
        (dying_table[slot].record.load() != 0 ? 1u : 0u) +
        (tables.in(memory)[kRecords + 1 + slot].record.load() != 0 ? 1u : 0u);
    CHECK(count_of(memory, slot) == held);
  }
}

TEST_CASE("threads that hold and release at the same time lose no change") {
  constexpr std::uint32_t kChanges = 20'000;
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Session session;
    const Shared<HoldEntry> lines(session, 4);
    side_by_side(session, crew, 4, [&](const Memory& memory, int i) {
      for (std::uint32_t change = 0; change < kChanges; ++change) {
        HoldEntry& line = lines.in(memory)[i];
        const std::uint32_t me = kAnn + static_cast<std::uint32_t>(i);
        hold(memory, me, kSlot, line);
        if (change % 4 != 0) release(memory, me, kSlot, line);
      }
    });
    CHECK(count_of(session.memory(), kSlot) == 4 * kChanges / 4);
  }
}

}  // namespace
}  // namespace mobula::shm
