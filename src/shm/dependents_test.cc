#include "shm/dependents.h"

#include <doctest/doctest.h>

#include "shm/claim.h"
#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;

constexpr std::uint32_t kSubmission = 1u << dependents::kSubmissionBit;
constexpr std::uint32_t kDaemon = 9;
constexpr std::uint32_t kWalker = 10;

// Counts what is published, by slot. A record is also claimed there and then, as a worker would: a
// second claim fails.
class Sink final : public ReadySink {
 public:
  Sink(const Memory& memory, std::atomic<std::uint32_t>* published,
       std::atomic<std::uint32_t>* claimed)
      : memory_(memory), published_(published), claimed_(claimed) {}
  void publish(Record& record, Address address) override {
    published_[address.slot].fetch_add(1);
    if (claim::take(record, address, kWalker)) claimed_[address.slot].fetch_add(1);
    MOBULA_CHECK(&record == &memory_.record(address.slot));
  }

 private:
  const Memory& memory_;
  std::atomic<std::uint32_t>* published_;
  std::atomic<std::uint32_t>* claimed_;
};

// A session with room to count publications of the first `slots` records.
class Graph {
 public:
  explicit Graph(std::uint32_t slots)
      : slots_(slots), published_(session, slots), claimed_(session, slots) {
    for (std::uint32_t segment = 0; segment <= slots / kRecordsPerSegment; ++segment) {
      session.memory().segment_owner(segment).store(kNone);
    }
  }

  Sink sink(const Memory& memory) const {
    return {memory, published_.in(memory), claimed_.in(memory)};
  }
  std::uint32_t published(std::uint32_t slot) const {
    return published_.in(session.memory())[slot].load();
  }
  std::uint32_t claimed(std::uint32_t slot) const {
    return claimed_.in(session.memory())[slot].load();
  }
  State state(std::uint32_t slot) const {
    return word::state(session.memory().record(slot).state.load());
  }
  std::uint32_t open_bits(std::uint32_t slot) const {
    return static_cast<std::uint32_t>(session.memory().record(slot).join.load());
  }
  void forget_counts() {
    for (std::uint32_t slot = 0; slot < slots_; ++slot) {
      published_.in(session.memory())[slot].store(0);
      claimed_.in(session.memory())[slot].store(0);
    }
  }

  Session session;

 private:
  std::uint32_t slots_;
  Counters published_;
  Counters claimed_;
};

// A record that somebody runs at present, and may complete.
void run(const Memory& memory, Address address) {
  Record& record = make_task(memory, address);
  record.state.store(word::with_claimer(word::make(address.generation, State::Claimed), kWalker),
                     std::memory_order_release);
}
void complete(const Memory& memory, std::uint32_t walker, Address address, ReadySink& sink) {
  claim::complete(memory, memory.participant(walker), memory.record(address.slot), address,
                  State::Done, sink);
}

// Hangs a new record on its targets the way a submission does.
void submit(const Memory& memory, Record& record, Address address,
            const std::vector<Address>& targets, ReadySink& sink) {
  const auto edges = static_cast<std::uint32_t>(targets.size());
  record.dependencies = static_cast<std::uint8_t>(edges);
  record.join.store(dependents::join_word(address.generation, ((1u << edges) - 1) | kSubmission),
                    std::memory_order_relaxed);
  record.state.store(word::make(address.generation, State::Waiting), std::memory_order_release);
  for (std::uint32_t i = 0; i < edges; ++i) {
    record.edge(i).target = targets[i].packed();
    if (targets[i] && !dependents::hang(memory.record(targets[i].slot), record, address.slot, i)) {
      dependents::satisfy(memory, address.slot, address.generation, i, sink);
    }
  }
}
void submit_task(const Memory& memory, Address address, const std::vector<Address>& targets,
                 ReadySink& sink) {
  submit(memory, make_task(memory, address), address, targets, sink);
  dependents::satisfy(memory, address.slot, address.generation, dependents::kSubmissionBit, sink);
}
// A join over `targets` that stands for edge `edge` of its parent.
void submit_join(const Memory& memory, Address address, Address parent, std::uint32_t edge,
                 const std::vector<Address>& targets, ReadySink& sink) {
  Record& join = make_task(memory, address);
  join.kind = Kind::Join;
  join.function = dependents::link(parent.slot, edge);
  join.scheduling_class = parent.generation;
  submit(memory, join, address, targets, sink);
  dependents::satisfy(memory, address.slot, address.generation, dependents::kSubmissionBit, sink);
}

// What the daemon does for a dead walker: goes on with the walk of a record that it had made final.
void repair(const Memory& memory, std::uint32_t dead, Address target, ReadySink& sink) {
  const std::uint64_t state = memory.record(target.slot).state.load();
  REQUIRE(word::generation(state) == target.generation);
  if (!word::is_final(state)) {
    complete(memory, kDaemon, target, sink);
  } else if (state & word::kHasDependents) {
    dependents::resume_walk(memory, memory.participant(dead), memory.participant(kDaemon),
                            memory.record(target.slot), target, sink);
  }
}

TEST_CASE("an edge's name gives its record and number back, and is never 0") {
  for (const std::uint32_t slot : {1u, 12345u, kSegmentsMax * kRecordsPerSegment - 1}) {
    for (const std::uint32_t edge : {0u, 3u, 11u, 31u}) {
      CHECK(dependents::link_slot(dependents::link(slot, edge)) == slot);
      CHECK(dependents::link_edge(dependents::link(slot, edge)) == edge);
      CHECK(dependents::link(slot, edge) != 0);
      CHECK((dependents::link(slot, edge) & dependents::kClosed) == 0);
    }
  }
}

TEST_CASE("a record waits until the last of its targets is final") {
  Graph graph(10);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  for (std::uint32_t slot = 1; slot <= 4; ++slot) run(memory, {slot, 1});
  submit_task(memory, {5, 1}, {{1, 1}, {2, 1}, {3, 1}, {4, 1}}, sink);

  for (const std::uint32_t slot : {3u, 1u, 4u}) {
    complete(memory, kWalker, {slot, 1}, sink);
    CHECK(graph.state(5) == State::Waiting);
  }
  CHECK(graph.published(5) == 0);
  complete(memory, kWalker, {2, 1}, sink);
  CHECK(graph.published(5) == 1);
  CHECK(graph.claimed(5) == 1);
  CHECK(graph.open_bits(5) == 0);
}

TEST_CASE("a failed target is final, too") {
  Graph graph(10);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  run(memory, {1, 1});
  submit_task(memory, {2, 1}, {{1, 1}}, sink);

  claim::complete(memory, memory.participant(kWalker), memory.record(1), {1, 1}, State::Failed,
                  sink);
  CHECK(graph.claimed(2) == 1);
}

TEST_CASE(
    "nothing is hung on a final record, and the submission makes its dependent ready at once") {
  Graph graph(10);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  run(memory, {1, 1});
  complete(memory, kWalker, {1, 1}, sink);

  submit_task(memory, {2, 1}, {{1, 1}}, sink);
  CHECK(graph.claimed(2) == 1);
  CHECK(memory.record(1).dependents.load() == 0);
  CHECK((memory.record(1).state.load() & word::kHasDependents) == 0);
}

TEST_CASE("a record with the same target twice is published once") {
  Graph graph(10);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  run(memory, {1, 1});
  submit_task(memory, {2, 1}, {{1, 1}, {1, 1}}, sink);

  complete(memory, kWalker, {1, 1}, sink);
  CHECK(graph.published(2) == 1);
}

TEST_CASE("ticking off an edge of another generation, or one that is closed, does nothing") {
  Graph graph(10);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  run(memory, {1, 4});
  submit_task(memory, {2, 4}, {{1, 4}}, sink);

  dependents::satisfy(memory, 2, 3, 0, sink);
  dependents::satisfy(memory, 2, 5, 0, sink);
  dependents::satisfy(memory, 2, 5, 0, sink, /*repair=*/true);
  dependents::satisfy(memory, 2, 4, 1, sink);
  dependents::satisfy(memory, 2, 4, 1, sink, /*repair=*/true);
  CHECK(graph.state(2) == State::Waiting);
  complete(memory, kWalker, {1, 4}, sink);
  dependents::satisfy(memory, 2, 4, 0, sink);
  CHECK(graph.published(2) == 1);
}

TEST_CASE("the fourth corner of a diamond runs once, whichever of its two sides ends last") {
  constexpr std::uint32_t kRounds = 3000;
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Graph graph(10);
    const Counters arrivals(graph.session, 3);
    side_by_side(graph.session, crew, 2, [&](const Memory& memory, int i) {
      Sink sink = graph.sink(memory);
      auto* arrived = arrivals.in(memory);
      const auto meet = [&](int at, std::uint32_t round) {
        arrived[at].fetch_add(1);
        MOBULA_CHECK(eventually([&] { return arrived[at].load() >= 2 * round; }));
      };
      for (std::uint32_t round = 1; round <= kRounds; ++round) {
        const auto side = static_cast<std::uint32_t>(i);
        if (i == 0) {
          run(memory, {1, round});
          submit_task(memory, {2, round}, {{1, round}}, sink);
          submit_task(memory, {3, round}, {{1, round}}, sink);
          submit_task(memory, {4, round}, {{2, round}, {3, round}}, sink);
          complete(memory, kWalker, {1, round}, sink);  // its sink claims both sides
        }
        meet(0, round);
        complete(memory, kWalker + side, {2 + side, round}, sink);
        meet(1, round);
      }
    });
    for (const std::uint32_t slot : {2u, 3u, 4u}) {
      CHECK(graph.published(slot) == kRounds);
      CHECK(graph.claimed(slot) == kRounds);
    }
  }
}

TEST_CASE("a thousand records that are hung on one target while it completes run once each") {
  constexpr std::uint32_t kDependents = 1000;
  constexpr std::uint32_t kRounds = 20;
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    Graph graph(kDependents + 10);
    const Counters meeting(graph.session, 3);
    side_by_side(graph.session, crew, 3, [&](const Memory& memory, int i) {
      Sink sink = graph.sink(memory);
      auto* at = meeting.in(memory);
      for (std::uint32_t round = 1; round <= kRounds; ++round) {
        if (i == 0) {
          run(memory, {1, round});
          at[0].store(round);
          // Somewhere among the submissions: later each round.
          const std::uint32_t before =
              kDependents * (round - 1) + kDependents * (round - 1) / kRounds;
          MOBULA_CHECK(eventually([&] { return at[1].load() >= before; }));
          complete(memory, kWalker, {1, round}, sink);
        } else {
          MOBULA_CHECK(eventually([&] { return at[0].load() >= round; }));
          for (std::uint32_t d = static_cast<std::uint32_t>(i - 1); d < kDependents; d += 2) {
            submit_task(memory, {2 + d, round}, {{1, round}}, sink);
            at[1].fetch_add(1);
          }
          at[2].fetch_add(1);
        }
        MOBULA_CHECK(eventually([&] {
          if (at[2].load() < 2 * round) return false;
          const std::uint64_t state = memory.record(1).state.load();
          return word::generation(state) > round ||
                 (word::generation(state) == round && word::is_final(state) &&
                  (state & word::kHasDependents) == 0);
        }));
      }
    });
    std::uint32_t wrong = 0;
    for (std::uint32_t slot = 2; slot < 2 + kDependents; ++slot) {
      wrong += graph.published(slot) != kRounds || graph.claimed(slot) != kRounds ||
               graph.open_bits(slot) != 0;
    }
    CHECK(wrong == 0);
  }
}

// Slot of the parent of a fan-in, its four joins, and 40 targets.
constexpr Address kParent{1, 1};
constexpr std::uint32_t kTargets = 40;
constexpr std::uint32_t kFirstTarget = 10;
void fan_in(const Memory& memory, ReadySink& sink) {
  Record& parent = make_task(memory, kParent);
  for (std::uint32_t t = 0; t < kTargets; ++t) run(memory, {kFirstTarget + t, 1});
  submit(memory, parent, kParent, {{}, {}, {}, {}}, sink);  // each edge stands for a join
  for (std::uint32_t edge = 0; edge < kDependenciesMax; ++edge) {
    std::vector<Address> share;
    for (std::uint32_t t = edge; t < kTargets; t += kDependenciesMax)
      share.push_back({kFirstTarget + t, 1});
    submit_join(memory, {2 + edge, 1}, kParent, edge, share, sink);
  }
  dependents::satisfy(memory, kParent.slot, kParent.generation, dependents::kSubmissionBit, sink);
}

TEST_CASE("a fan-in of 40 through join records waits for the last, whoever completes it") {
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    for (int round = 0; round < 50; ++round) {
      CAPTURE(name_of(crew));
      Graph graph(60);
      const Memory& memory = graph.session.memory();
      Sink own = graph.sink(memory);
      fan_in(memory, own);
      side_by_side(graph.session, crew, 4, [&](const Memory& mine, int i) {
        Sink sink = graph.sink(mine);
        // All but the last target, each by one of the four.
        for (auto t = static_cast<std::uint32_t>(i); t + 1 < kTargets; t += 4) {
          complete(mine, kWalker + static_cast<std::uint32_t>(i), {kFirstTarget + t, 1}, sink);
        }
      });
      REQUIRE(graph.state(kParent.slot) == State::Waiting);
      REQUIRE(graph.published(kParent.slot) == 0);
      complete(memory, kWalker, {kFirstTarget + kTargets - 1, 1}, own);
      REQUIRE(graph.claimed(kParent.slot) == 1);
      REQUIRE(graph.published(kParent.slot) == 1);
      for (std::uint32_t join = 2; join < 2 + kDependenciesMax; ++join)
        REQUIRE(graph.state(join) == State::Done);
    }
  }
}

TEST_CASE("joins of joins pass the last completion up to the task") {
  Graph graph(20);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  run(memory, {10, 1});
  run(memory, {11, 1});
  submit(memory, make_task(memory, {1, 1}), {1, 1}, {{}}, sink);
  Record& outer = make_task(memory, {2, 1});
  outer.kind = Kind::Join;
  outer.function = dependents::link(1, 0);
  outer.scheduling_class = 1;
  submit(memory, outer, {2, 1}, {{}}, sink);
  submit_join(memory, {3, 1}, {2, 1}, 0, {{10, 1}, {11, 1}}, sink);
  dependents::satisfy(memory, 2, 1, dependents::kSubmissionBit, sink);
  dependents::satisfy(memory, 1, 1, dependents::kSubmissionBit, sink);

  complete(memory, kWalker, {10, 1}, sink);
  CHECK(graph.published(1) == 0);
  complete(memory, kWalker, {11, 1}, sink);
  CHECK(graph.claimed(1) == 1);
  CHECK(graph.state(2) == State::Done);
  CHECK(graph.state(3) == State::Done);
}

// ---- Walkers that die.

constexpr CrashPoint kWalkSteps[] = {CrashPoint::CompleteDone, CrashPoint::CompleteWoken,
                                     CrashPoint::WalkCursor,   CrashPoint::WalkSatisfied,
                                     CrashPoint::WalkReady,    CrashPoint::WalkFinished};

TEST_CASE(
    "a walk that was cut off at any step is finished by the daemon, and tells each dependent "
    "once") {
  constexpr std::uint32_t kOne = 20;  // dependents with this edge only
  constexpr std::uint32_t kTwo = 5;  // dependents that also wait for record 2
  constexpr std::uint32_t kFirstOne = 10;
  constexpr std::uint32_t kFirstTwo = 40;
  constexpr Address kJoinParent{50, 1};
  for (const CrashPoint point : kWalkSteps) {
    int deaths = 0;
    for (int reach = 1; reach <= 30; ++reach) {
      CAPTURE(crash_point_info(point).name);
      CAPTURE(reach);
      Graph graph(60);
      const Memory& memory = graph.session.memory();
      Sink sink = graph.sink(memory);
      run(memory, {1, 1});
      run(memory, {2, 1});
      for (std::uint32_t d = 0; d < kOne; ++d)
        submit_task(memory, {kFirstOne + d, 1}, {{1, 1}}, sink);
      for (std::uint32_t d = 0; d < kTwo; ++d)
        submit_task(memory, {kFirstTwo + d, 1}, {{1, 1}, {2, 1}}, sink);
      submit(memory, make_task(memory, kJoinParent), kJoinParent, {{}}, sink);
      submit_join(memory, {51, 1}, kJoinParent, 0, {{1, 1}}, sink);
      dependents::satisfy(memory, kJoinParent.slot, 1, dependents::kSubmissionBit, sink);

      Child walker = graph.session.start([&](const Memory& mine) {
        die_at(point, reach);
        Sink own = graph.sink(mine);
        complete(mine, kWalker, {1, 1}, own);
      });
      const Ending end = walker.end();
      if (end == kKilled) {
        ++deaths;
        repair(memory, kWalker, {1, 1}, sink);
      } else {
        REQUIRE(end == kWell);
      }

      CHECK((memory.record(1).state.load() & word::kHasDependents) == 0);
      for (std::uint32_t d = 0; d < kOne; ++d) {
        REQUIRE(graph.claimed(kFirstOne + d) == 1);
        REQUIRE(graph.published(kFirstOne + d) <= 2);  // once more by the repair
      }
      for (std::uint32_t d = 0; d < kTwo; ++d) {
        REQUIRE(graph.state(kFirstTwo + d) == State::Waiting);
        REQUIRE(graph.published(kFirstTwo + d) == 0);
      }
      CHECK(graph.claimed(kJoinParent.slot) == 1);
      CHECK(graph.state(51) == State::Done);
      complete(memory, kWalker, {2, 1}, sink);
      for (std::uint32_t d = 0; d < kTwo; ++d) REQUIRE(graph.claimed(kFirstTwo + d) == 1);
    }
    // CompleteDone, CompleteWoken and WalkFinished come once in a walk, the others for each edge,
    // or each that was the last.
    CAPTURE(crash_point_info(point).name);
    CHECK(deaths == (point == CrashPoint::WalkCursor      ? 26
                     : point == CrashPoint::WalkReady     ? 21
                     : point == CrashPoint::WalkSatisfied ? 22
                                                          : 1));
  }
}

TEST_CASE("nothing is hung on a record while it is being walked, also when its walker is dead") {
  Graph graph(20);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  run(memory, {1, 1});
  submit_task(memory, {5, 1}, {{1, 1}}, sink);
  Child walker = graph.session.start([&](const Memory& mine) {
    die_at(CrashPoint::WalkCursor);
    Sink own = graph.sink(mine);
    complete(mine, kWalker, {1, 1}, own);
  });
  REQUIRE(walker.end() == kKilled);
  REQUIRE((memory.record(1).state.load() & word::kHasDependents) != 0);

  submit_task(memory, {6, 1}, {{1, 1}}, sink);
  CHECK(graph.claimed(6) == 1);
  repair(memory, kWalker, {1, 1}, sink);
  CHECK(graph.claimed(5) == 1);
  CHECK(graph.published(6) == 1);
}

TEST_CASE(
    "a record whose last edge is closed is made ready by who closed it, or by its repairer, and "
    "nobody else") {
  Graph graph(20);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  make_task(memory, {5, 1})
      .state.store(word::make(1, State::Waiting));  // all edges closed, and its closer died

  dependents::satisfy(memory, 5, 1, 0, sink);
  CHECK(graph.state(5) == State::Waiting);
  dependents::satisfy(memory, 5, 1, 0, sink, /*repair=*/true);
  CHECK(graph.claimed(5) == 1);
  dependents::satisfy(memory, 5, 1, 0, sink, /*repair=*/true);
  CHECK(graph.published(5) == 1);  // claimed by now: there is nothing to repair
}

TEST_CASE("a walk that is resumed by the note of an earlier walk starts from the beginning") {
  Graph graph(20);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  for (std::uint32_t generation = 1; generation <= 2; ++generation) {
    run(memory, {1, generation});
    for (std::uint32_t slot = 5; slot < 10; ++slot)
      submit_task(memory, {slot, generation}, {{1, generation}}, sink);
    if (generation == 1) complete(memory, kWalker, {1, 1}, sink);  // leaves its note behind
  }
  graph.forget_counts();

  Child walker = graph.session.start([&](const Memory& mine) {
    die_at(CrashPoint::CompleteDone);
    Sink own = graph.sink(mine);
    complete(mine, kWalker, {1, 2}, own);
  });
  REQUIRE(walker.end() == kKilled);
  repair(memory, kWalker, {1, 2}, sink);

  for (std::uint32_t slot = 5; slot < 10; ++slot) CHECK(graph.claimed(slot) == 1);
}

TEST_CASE(
    "repairing what a walker had finished with its last step publishes nothing that has run "
    "since") {
  Graph graph(20);
  const Memory& memory = graph.session.memory();
  Sink sink = graph.sink(memory);
  run(memory, {1, 1});
  submit_task(memory, {5, 1}, {{1, 1}}, sink);
  Child walker = graph.session.start([&](const Memory& mine) {
    die_at(CrashPoint::WalkFinished);
    Sink own = graph.sink(mine);
    complete(mine, kWalker, {1, 1}, own);
  });
  REQUIRE(walker.end() == kKilled);
  REQUIRE(graph.claimed(5) == 1);
  // Its dependent is run, recycled and used again, waiting for something else.
  complete(memory, kWalker, {5, 1}, sink);
  run(memory, {2, 1});
  submit_task(memory, {5, 2}, {{2, 1}}, sink);

  repair(memory, kWalker, {1, 1}, sink);
  CHECK(graph.state(5) == State::Waiting);
  CHECK(graph.published(5) == 1);
  CHECK(graph.open_bits(5) == 1);
}

// Four walkers complete four targets of 400 records that each wait for all four; one is killed, and
// the daemon goes on in its place while the others still walk.
TEST_CASE(
    "a walker that dies among three living ones leaves each common dependent to run exactly once") {
  const std::uint64_t random_seed = seed();
  INFO("replay with MOBULA_SEED=" << random_seed);
  std::mt19937_64 random(random_seed);
  constexpr std::uint32_t kDependents = 400;
  constexpr std::uint32_t kFirst = 10;
  int deaths = 0;
  // How often the others leave it so much to walk is chance.
  for (int round = 0; round < 120 || (deaths <= 10 && round < 2000); ++round) {
    CAPTURE(round);
    Graph graph(kFirst + kDependents);
    const Memory& memory = graph.session.memory();
    Sink sink = graph.sink(memory);
    const Counters go(graph.session, 1);
    for (std::uint32_t t = 1; t <= 4; ++t) run(memory, {t, 1});
    for (std::uint32_t d = 0; d < kDependents; ++d) {
      // Each with its targets in another order, so that the lists cross.
      std::vector<Address> targets;
      for (std::uint32_t t = 0; t < 4; ++t) targets.push_back({1 + (t + d) % 4, 1});
      submit_task(memory, {kFirst + d, 1}, targets, sink);
    }
    const CrashPoint point = kWalkSteps[random() % std::size(kWalkSteps)];
    const int reach =
        1 + static_cast<int>(random() %
                             (point == CrashPoint::WalkCursor ? kDependents : kDependents / 4));
    std::vector<Child> walkers;
    for (std::uint32_t i = 0; i < 4; ++i) {
      walkers.push_back(graph.session.start([&, i](const Memory& mine) {
        if (i == 0) die_at(point, reach);
        MOBULA_CHECK(eventually([&] { return go.in(mine)[0].load() != 0; }));
        Sink own = graph.sink(mine);
        claim::complete(mine, mine.participant(kWalker + i), mine.record(1 + i), {1 + i, 1},
                        State::Done, own);
      }));
    }
    go.in(memory)[0].store(1);
    const Ending end = walkers[0].end();
    if (end == kKilled) {
      ++deaths;
      repair(memory, kWalker, {1, 1}, sink);  // the others may be walking still
    }
    for (std::uint32_t i = 1; i < 4; ++i) REQUIRE(walkers[i].end() == kWell);

    std::uint32_t wrong = 0;
    for (std::uint32_t slot = kFirst; slot < kFirst + kDependents; ++slot) {
      wrong += graph.claimed(slot) != 1 || graph.published(slot) < 1 || graph.open_bits(slot) != 0;
    }
    REQUIRE(wrong == 0);
  }
  CHECK(deaths > 10);
}

TEST_CASE("a walker killed at a random instruction leaves each dependent to run exactly once") {
  const std::uint64_t random_seed = seed();
  INFO("replay with MOBULA_SEED=" << random_seed);
  std::mt19937_64 random(random_seed);
  constexpr std::uint32_t kDependents = 2000;
  constexpr std::uint32_t kFirst = 10;
  Graph graph(kFirst + kDependents);
  const Memory& memory = graph.session.memory();
  for (std::uint32_t round = 1; round <= 60; ++round) {
    CAPTURE(round);
    graph.forget_counts();
    Sink sink = graph.sink(memory);
    run(memory, {1, round});
    for (std::uint32_t d = 0; d < kDependents; ++d)
      submit_task(memory, {kFirst + d, round}, {{1, round}}, sink);
    // The list begins with what was hung last, so the walk has come to `until` when the kill is
    // sent.
    const std::uint32_t until = kFirst + static_cast<std::uint32_t>(random() % kDependents);

    Child walker = graph.session.start([&](const Memory& mine) {
      Sink own = graph.sink(mine);
      complete(mine, kWalker, {1, round}, own);
    });
    REQUIRE(eventually([&] { return graph.state(until) != State::Waiting; }));
    walker.kill();
    const Ending end = walker.end();
    REQUIRE((end == kKilled || end == kWell));
    repair(memory, kWalker, {1, round}, sink);

    std::uint32_t wrong = 0;
    for (std::uint32_t slot = kFirst; slot < kFirst + kDependents; ++slot) {
      // The walker may have died between publishing and its sink's claim; then the record is still
      // to be had.
      const bool taken = word::state(memory.record(slot).state.load()) == State::Claimed;
      wrong += !taken || graph.claimed(slot) > 1 || graph.published(slot) < 1 ||
               graph.open_bits(slot) != 0;
    }
    REQUIRE(wrong == 0);
    REQUIRE((memory.record(1).state.load() & word::kHasDependents) == 0);
  }
}

}  // namespace
}  // namespace mobula::shm
