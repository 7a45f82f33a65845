#include "shm/ring.h"

#include <doctest/doctest.h>

#include <string_view>

#include "shm/claim.h"
#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;

constexpr std::uint32_t kMany = 100'000;
constexpr std::uint32_t kFirstParticipant = 10;

// Pushes, and does for the pusher what the daemon would: hands it storage for larger stages.
class Pusher {
 public:
  Pusher(const Memory& memory, std::uint64_t ring, std::uint64_t storage)
      : memory_(memory), ring_(ring_at(memory, ring)), storage_(storage) {}

  void push(Address address) {
    if (!ring::has_room(ring_)) {
      const std::uint64_t entries = 2 * (ring_.stage[ring_.stages.load() - 1].mask.load() + 1);
      ring::grow(ring_, storage_, entries);
      storage_ += entries * 8;
    }
    ring::push(memory_, ring_, address);
  }

 private:
  const Memory& memory_;
  RingHeader& ring_;
  std::uint64_t storage_;
};

std::uint64_t storage_for(Session& session, std::uint64_t entries) {
  return session.take_heap(4 * entries * 8);
}

// Takes what the ring gives until all is done, and counts each claim.
void claim_until(const Memory& memory, RingHeader& ring, std::uint32_t participant,
                 std::atomic<std::uint32_t>* claims, const std::atomic<std::uint32_t>& done,
                 std::atomic<std::uint32_t>& finished, std::uint32_t wanted) {
  Participant& me = memory.participant(participant);
  NoSink sink;
  MOBULA_CHECK(eventually([&] {
    const Address address = claim::next(memory, ring, me, participant, claim::Order::Any);
    if (!address) return done.load() != 0 && finished.load() >= wanted;
    Record& record = memory.record(address.slot);
    MOBULA_CHECK(record.function == address.slot * 3ull);  // the pusher's fields came first
    MOBULA_CHECK(word::claimer(record.state.load()) == participant);
    claims[address.slot].fetch_add(1);
    claim::complete(memory, me, record, address, State::Done, sink);
    claim::forget(me);
    finished.fetch_add(1);
    return false;
  }));
}

TEST_CASE("each of 100000 records of one pusher is claimed by exactly one of four claimers") {
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Session session;
    const std::uint64_t ring = open_ring(session);
    const std::uint64_t storage = storage_for(session, kMany);
    const Counters claims(session, kMany + 1);
    const Counters totals(session, 2);  // all pushed, records done
    for (std::uint32_t slot = 0; slot < kSegmentsMax; ++slot)
      session.memory().segment_owner(slot).store(kNone);

    side_by_side(session, crew, 5, [&](const Memory& memory, int i) {
      auto* total = totals.in(memory);
      if (i > 0) {
        claim_until(memory, ring_at(memory, ring),
                    kFirstParticipant + static_cast<std::uint32_t>(i), claims.in(memory), total[0],
                    total[1], kMany);
        return;
      }
      Pusher pusher(memory, ring, storage);
      for (std::uint32_t slot = 1; slot <= kMany; ++slot) {
        make_ready(make_task(memory, {slot, 1}, slot * 3ull), {slot, 1});
        pusher.push({slot, 1});
      }
      total[0].store(1);
    });

    std::uint32_t wrong = 0;
    for (std::uint32_t slot = 1; slot <= kMany; ++slot) {
      wrong += claims.in(session.memory())[slot].load() != 1;
      wrong += word::state(session.memory().record(slot).state.load()) != State::Done;
    }
    CHECK(wrong == 0);
    CHECK(ring_at(session.memory(), ring).empty());
  }
}

TEST_CASE("a ring that nobody empties grows by stages of twice the size, and keeps its order") {
  Session session;
  const Memory& memory = session.memory();
  const std::uint64_t offset = open_ring(session);
  RingHeader& ring = ring_at(memory, offset);
  Pusher pusher(memory, offset, storage_for(session, kMany));
  Participant& me = memory.participant(kFirstParticipant);

  for (std::uint32_t slot = 1; slot <= kMany; ++slot) {
    make_ready(make_task(memory, {slot, 1}), {slot, 1});
    pusher.push({slot, 1});
  }
  // 256 + 512 + ... reaches 100000 with the ninth doubling.
  CHECK(ring.stages.load() == 9);
  CHECK(ring.depth() == kMany);

  std::uint32_t wrong = 0;
  for (std::uint32_t slot = 1; slot <= kMany; ++slot) {
    wrong += claim::next(memory, ring, me, kFirstParticipant, claim::Order::AsSubmitted) !=
             Address{slot, 1};
    claim::forget(me);
  }
  CHECK(wrong == 0);
  CHECK(ring.empty());
  CHECK(ring.depth() == 0);
  CHECK_FALSE(claim::next(memory, ring, me, kFirstParticipant, claim::Order::AsSubmitted));
}

TEST_CASE("a ring that is emptied in time never grows, however much goes through it") {
  Session session;
  const Memory& memory = session.memory();
  const std::uint64_t offset = open_ring(session);
  RingHeader& ring = ring_at(memory, offset);
  Participant& me = memory.participant(kFirstParticipant);

  std::uint32_t slot = 0;
  for (int round = 0; round < 50; ++round) {
    const std::uint32_t first = slot + 1;
    while (ring::has_room(ring)) {
      ++slot;
      make_ready(make_task(memory, {slot, 1}), {slot, 1});
      ring::push(memory, ring, {slot, 1});
    }
    REQUIRE(slot - first + 1 == kRingFirstEntries);
    for (std::uint32_t next = first; next <= slot; ++next) {
      REQUIRE(claim::next(memory, ring, me, kFirstParticipant, claim::Order::Any).slot == next);
      claim::forget(me);
    }
  }
  CHECK(ring.stages.load() == 1);
  CHECK(ring.head.load() == 50 * kRingFirstEntries);
}

TEST_CASE("entries that name another generation, or a record that somebody has, are skipped") {
  Session session;
  const Memory& memory = session.memory();
  RingHeader& ring = ring_at(memory, open_ring(session));
  Participant& me = memory.participant(kFirstParticipant);
  make_ready(make_task(memory, {1, 2}), {1, 2});
  make_task(memory, {2, 1}).state.store(word::with_claimer(word::make(1, State::Claimed), 99));
  make_task(memory, {3, 1}).state.store(word::make(1, State::Done));
  make_task(memory, {4, 1}).state.store(word::make(1, State::Free));
  for (const Address address :
       {Address{1, 1}, Address{1, 3}, Address{2, 1}, Address{3, 1}, Address{4, 1}, Address{1, 2}}) {
    ring::push(memory, ring, address);
  }

  for (const claim::Order order : {claim::Order::Any, claim::Order::AsSubmitted}) {
    ring.tail.store(0);
    make_ready(memory.record(1), {1, 2});
    CHECK(claim::next(memory, ring, me, kFirstParticipant, order) == Address{1, 2});
    CHECK(me.depth.load() == 1);
    claim::forget(me);
    CHECK_FALSE(claim::next(memory, ring, me, kFirstParticipant, order));
    CHECK(me.depth.load() == 0);
  }
  CHECK(word::claimer(memory.record(2).state.load()) == 99);
}

TEST_CASE("a call that waits holds back the calls behind it, until it is ready or fails") {
  Session session;
  const Memory& memory = session.memory();
  RingHeader& ring = ring_at(memory, open_ring(session));
  Participant& me = memory.participant(kFirstParticipant);
  const auto next = [&] {
    const Address address =
        claim::next(memory, ring, me, kFirstParticipant, claim::Order::AsSubmitted);
    if (address) claim::forget(me);
    return address;
  };
  make_task(memory, {1, 5}).state.store(word::make(5, State::Waiting));
  make_ready(make_task(memory, {2, 5}), {2, 5});
  make_task(memory, {3, 5}).state.store(word::make(5, State::Waiting));
  make_ready(make_task(memory, {4, 5}), {4, 5});
  make_task(memory, {5, 6})
      .state.store(word::make(6, State::Waiting));  // its entry is of generation 5
  make_ready(make_task(memory, {6, 5}), {6, 5});
  for (std::uint32_t slot = 1; slot <= 6; ++slot) ring::push(memory, ring, {slot, 5});

  CHECK_FALSE(next());
  make_ready(memory.record(1), {1, 5});
  CHECK(next().slot == 1);
  CHECK(next().slot == 2);
  CHECK_FALSE(next());
  memory.record(3).state.store(word::make(5, State::Failed));
  CHECK(next().slot == 4);
  CHECK(next().slot == 6);
  CHECK_FALSE(next());
}

TEST_CASE(
    "an intent says which record was about to be claimed, also when nesting is deeper than its "
    "list") {
  Session session;
  const Memory& memory = session.memory();
  Participant& me = memory.participant(kFirstParticipant);

  for (std::uint32_t depth = 0; depth < kIntentsMax + 5; ++depth) claim::intend(me, {depth + 1, 1});
  CHECK(me.depth.load() == kIntentsMax + 5);
  for (std::uint32_t depth = 0; depth < kIntentsMax; ++depth) {
    CHECK(Address::unpack(me.executing[depth].load()).slot == depth + 1);
  }
  for (std::uint32_t depth = 0; depth < kIntentsMax + 5; ++depth) claim::forget(me);
  CHECK(me.depth.load() == 0);
}

// What the daemon does for the claims of a dead thread: opens each again, by its intents alone.
// Returns how many.
std::uint32_t reopen_claims(const Memory& memory, std::uint32_t participant, Pusher& pusher) {
  Participant& dead = memory.participant(participant);
  std::uint32_t reopened = 0;
  const std::uint32_t listed = std::min(dead.depth.load() + 1, kIntentsMax);
  for (std::uint32_t i = 0; i < listed; ++i) {
    const Address address = Address::unpack(dead.executing[i].load());
    if (!address) continue;
    Record& record = memory.record(address.slot);
    std::uint64_t state = record.state.load();
    if (word::state(state) != State::Claimed || word::claimer(state) != participant) continue;
    REQUIRE(record.state.compare_exchange_strong(
        state, word::with_next_attempt(word::with_state(state, State::Ready))));
    pusher.push(address);
    ++reopened;
  }
  for (auto& entry : dead.executing) entry.store(0);
  dead.depth.store(0);
  return reopened;
}

std::uint32_t claimed_by(const Memory& memory, std::uint32_t participant, std::uint32_t records) {
  std::uint32_t n = 0;
  for (std::uint32_t slot = 1; slot <= records; ++slot) {
    const std::uint64_t state = memory.record(slot).state.load();
    n += word::state(state) == State::Claimed && word::claimer(state) == participant;
  }
  return n;
}

TEST_CASE(
    "a claimer killed at any step of a claim leaves a record that its intents find or the ring "
    "still has") {
  struct Row {
    CrashPoint point;
    bool claimed;  // by the dead
    bool moved;    // the tail
  };
  for (const Row& row :
       {Row{CrashPoint::ClaimIntent, false, false}, Row{CrashPoint::ClaimTaken, true, false},
        Row{CrashPoint::ClaimMoved, true, true}}) {
    for (const int reach : {1, 2, 50}) {
      CAPTURE(crash_point_info(row.point).name);
      CAPTURE(reach);
      Session session;
      const Memory& memory = session.memory();
      const std::uint64_t offset = open_ring(session);
      const std::uint64_t daemons = open_ring(session);
      Pusher pusher(memory, offset, 0);
      Pusher daemon(memory, daemons, 0);
      constexpr std::uint32_t kRecords = 60;
      for (std::uint32_t slot = 1; slot <= kRecords; ++slot) {
        memory.segment_owner(0).store(kNone);
        make_ready(make_task(memory, {slot, 1}), {slot, 1});
        pusher.push({slot, 1});
      }

      Child child = session.start([&](const Memory& mine) {
        die_at(row.point, reach);
        NoSink sink;
        Participant& me = mine.participant(kFirstParticipant);
        while (const Address address = claim::next(mine, ring_at(mine, offset), me,
                                                   kFirstParticipant, claim::Order::Any)) {
          claim::complete(mine, me, mine.record(address.slot), address, State::Done, sink);
          claim::forget(me);
        }
      });
      REQUIRE(child.end() == kKilled);

      const auto at = static_cast<std::uint32_t>(reach);
      const Participant& dead = memory.participant(kFirstParticipant);
      CHECK(dead.depth.load() == 1);
      CHECK(Address::unpack(dead.executing[0].load()) == Address{at, 1});
      CHECK(ring_at(memory, offset).tail.load() == at - (row.moved ? 0 : 1));
      CHECK(claimed_by(memory, kFirstParticipant, kRecords) == (row.claimed ? 1 : 0));
      CHECK(reopen_claims(memory, kFirstParticipant, daemon) == (row.claimed ? 1 : 0));
      CHECK(claimed_by(memory, kFirstParticipant, kRecords) == 0);

      std::vector<int> claims(kRecords + 1);
      Participant& me = memory.participant(kFirstParticipant + 1);
      for (const std::uint64_t r : {daemons, offset}) {
        while (const Address address = claim::next(memory, ring_at(memory, r), me,
                                                   kFirstParticipant + 1, claim::Order::Any)) {
          ++claims[address.slot];
          claim::forget(me);
        }
      }
      for (std::uint32_t slot = 1; slot <= kRecords; ++slot) {
        CAPTURE(slot);
        CHECK(claims[slot] == (slot < at ? 0 : 1));
      }
    }
  }
}

TEST_CASE("claimers killed at random lose no record and double none") {
  const std::uint64_t random_seed = seed();
  INFO("replay with MOBULA_SEED=" << random_seed);
  std::mt19937_64 random(random_seed);
  Session session;
  const Memory& memory = session.memory();
  constexpr std::uint32_t kRecords = 60'000;
  constexpr std::uint32_t kClaimers = 4;
  constexpr int kKills = 80;
  const std::uint64_t offset = open_ring(session);
  const std::uint64_t daemons = open_ring(session);
  Pusher daemon(memory, daemons, storage_for(session, kRecords));
  const std::uint64_t storage = storage_for(session, kRecords);
  const Counters claims(session, kRecords + 1);
  const Counters completions(session, 1);
  for (std::uint32_t segment = 0; segment < kSegmentsMax; ++segment)
    memory.segment_owner(segment).store(kNone);

  Child pusher = session.start([&](const Memory& mine) {
    Pusher push(mine, offset, storage);
    for (std::uint32_t slot = 1; slot <= kRecords; ++slot) {
      make_ready(make_task(mine, {slot, 1}), {slot, 1});
      push.push({slot, 1});
    }
  });
  const auto start_claimer = [&](std::uint32_t i) {
    return session.start([&, i](const Memory& mine) {
      NoSink sink;
      const std::uint32_t participant = kFirstParticipant + i;
      Participant& me = mine.participant(participant);
      for (;;) {
        Address address;
        for (const std::uint64_t r : {daemons, offset}) {
          if (!address)
            address = claim::next(mine, ring_at(mine, r), me, participant, claim::Order::Any);
        }
        if (!address) {
          ::sched_yield();
          continue;
        }
        claims.in(mine)[address.slot].fetch_add(1);
        claim::complete(mine, me, mine.record(address.slot), address, State::Done, sink);
        completions.in(mine)[0].fetch_add(1);
        claim::forget(me);
      }
    });
  };
  std::vector<Child> claimers;
  for (std::uint32_t i = 0; i < kClaimers; ++i) claimers.push_back(start_claimer(i));

  std::uint32_t reopened = 0;
  std::uint32_t found = 0;
  const std::atomic<std::uint32_t>& completed = completions.in(memory)[0];
  for (int kill = 0; kill < kKills; ++kill) {
    // Somewhere in the next stretch of work: where exactly, the machine decides.
    const std::uint32_t from = completed.load();
    const auto stretch = static_cast<std::uint32_t>(random() % (kRecords / kKills));
    REQUIRE(eventually([&] {
      return completed.load() >= std::min(from + stretch, kRecords - kClaimers * 2 - kKills);
    }));
    const auto i = static_cast<std::uint32_t>(random() % kClaimers);
    claimers[i].kill();
    REQUIRE(claimers[i].end() == kKilled);
    const std::uint32_t participant = kFirstParticipant + i;
    found += claimed_by(memory, participant, kRecords);
    reopened += reopen_claims(memory, participant, daemon);
    CHECK(claimed_by(memory, participant, kRecords) == 0);
    claimers[i] = start_claimer(i);
  }
  CHECK(found == reopened);
  REQUIRE(pusher.end() == kWell);
  const auto all_done = [&] {
    for (std::uint32_t slot = 1; slot <= kRecords; ++slot) {
      if (!word::is_final(memory.record(slot).state.load())) return false;
    }
    return true;
  };
  REQUIRE(eventually(all_done));

  std::uint32_t wrong = 0;
  std::uint32_t attempts = 0;
  for (std::uint32_t slot = 1; slot <= kRecords; ++slot) {
    const std::uint64_t state = memory.record(slot).state.load();
    const std::uint32_t times = claims.in(memory)[slot].load();
    wrong += word::state(state) != State::Done;  // a second completion would add once more
    wrong += times > 1 + word::attempt(state);   // claimed again only after it was opened again
    attempts += word::attempt(state);
  }
  CHECK(wrong == 0);
  CHECK(attempts == reopened);
}

// ---- complete()

TEST_CASE("completing adds to the state and keeps what others have set in it") {
  Session session;
  const Memory& memory = session.memory();
  memory.segment_owner(0).store(kNone);
  NoSink sink;
  for (const State final_state : {State::Done, State::Failed}) {
    Record& record = make_task(memory, {1, 7});
    const std::uint64_t claimed =
        word::with_next_attempt(word::with_claimer(word::make(7, State::Claimed), 12)) |
        word::kWaiters;
    record.state.store(claimed);

    claim::complete(memory, memory.participant(12), record, {1, 7}, final_state, sink);

    CHECK(record.state.load() == word::with_state(claimed, final_state));
  }
}

TEST_CASE("completing rings for who waits for any record, and only then") {
  Session session;
  const Memory& memory = session.memory();
  constexpr std::uint32_t kOwner = 30;
  NoSink sink;
  struct Row {
    std::string_view name;
    std::uint64_t bit;
    std::uint32_t owner;
    std::uint32_t any_rings;
    std::uint32_t owner_rings;
  };
  for (const Row& row :
       {Row{"nobody waits", 0, kOwner, 0, 0},
        Row{"waits for this one", word::kWaiters, kOwner, 0, 0},
        Row{"waits for any", word::kAnyWaiter, kOwner, 1, 1},
        Row{"waits for any, ledger without owner", word::kAnyWaiter, kNone, 1, 0}}) {
    CAPTURE(row.name);
    memory.segment_owner(0).store(row.owner);
    memory.header().any_bell.value.store(0);
    memory.participant(kOwner).completions.value.store(0);
    Record& record = make_task(memory, {1, 1});
    record.state.store(word::with_claimer(word::make(1, State::Claimed), 12) | row.bit);

    claim::complete(memory, memory.participant(12), record, {1, 1}, State::Done, sink);

    CHECK(memory.header().any_bell.value.load() == row.any_rings);
    CHECK(memory.participant(kOwner).completions.value.load() == row.owner_rings);
  }
}

TEST_CASE("a process asleep on a record's state is woken when another one completes it") {
  Session session;
  const Memory& memory = session.memory();
  memory.segment_owner(0).store(kNone);
  Record& record = make_task(memory, {1, 1});
  record.state.store(word::with_claimer(word::make(1, State::Claimed), 12));

  Child waiter = session.start([](const Memory& mine) {
    Record& awaited = mine.record(1);
    const std::uint64_t seen = awaited.state.fetch_or(word::kWaiters) | word::kWaiters;
    const std::int64_t begin = now_ns();
    if (!word::is_final(seen)) {
      futex_wait(reinterpret_cast<const std::uint32_t*>(&awaited.state),
                 static_cast<std::uint32_t>(seen), kPatienceNs);
    }
    MOBULA_CHECK(now_ns() - begin < kPatienceNs);
    MOBULA_CHECK(word::state(awaited.state.load()) == State::Done);
  });
  REQUIRE(eventually([&] { return (record.state.load() & word::kWaiters) != 0; }));
  NoSink sink;
  claim::complete(memory, memory.participant(12), record, {1, 1}, State::Done, sink);

  CHECK(waiter.end() == kWell);
}

}  // namespace
}  // namespace mobula::shm
