#include "shm/cancel.h"

#include <doctest/doctest.h>

#include <string_view>

#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;
using cancellation::Answer;

constexpr std::uint32_t kCanceller = 20;
constexpr std::uint32_t kWorker = 21;
constexpr Address kTask{1, 7};

Answer cancel(const Memory& memory, ReadySink& sink, std::uint64_t how = 0, Address task = kTask) {
  Participant& me = memory.participant(kCanceller);
  claim::intend(me, task);
  const Answer answer =
      cancellation::cancel(memory, me, kCanceller, memory.record(task.slot), task, how, sink);
  claim::forget(me);
  return answer;
}

TEST_CASE("what a cancel does depends on the state that it finds, and its answer says it") {
  constexpr std::uint64_t kCancelled = word::kCancelled;
  constexpr std::uint64_t kBoth = word::kCancelChildren | word::kForce;
  struct Row {
    std::string_view name;
    State state;
    std::uint64_t bits;
    Answer answer;
    State after;
    std::uint64_t bits_after;
    std::uint32_t claimer;
  };
  for (const Row& row :
       {Row{"waiting", State::Waiting, 0, Answer::Never, State::Failed, kCancelled, kCanceller},
        Row{"ready", State::Ready, 0, Answer::Never, State::Failed, kCancelled, kCanceller},
        Row{"running", State::Claimed, 0, Answer::Asked, State::Claimed, kCancelled | kBoth,
            kWorker},
        Row{"running, asked before", State::Claimed, kCancelled, Answer::Asked, State::Claimed,
            kCancelled | kBoth, kWorker},
        Row{"done", State::Done, 0, Answer::TooLate, State::Done, 0, kWorker},
        Row{"failed", State::Failed, 0, Answer::TooLate, State::Failed, 0, kWorker},
        Row{"cancelled", State::Failed, kCancelled, Answer::Never, State::Failed, kCancelled,
            kWorker},
        Row{"free", State::Free, 0, Answer::TooLate, State::Free, 0, kWorker}}) {
    CAPTURE(row.name);
    Session session;
    const Memory& memory = session.memory();
    memory.segment_owner(0).store(kNone);
    NoSink sink;
    Record& record = make_task(memory, kTask);
    record.state.store(word::with_claimer(word::make(kTask.generation, row.state), kWorker) |
                       row.bits);

    CHECK(cancel(memory, sink, kBoth) == row.answer);

    const std::uint64_t after = record.state.load();
    CHECK(word::state(after) == row.after);
    CHECK((after & (kCancelled | kBoth)) == row.bits_after);
    CHECK(word::claimer(after) == row.claimer);
    CHECK(word::generation(after) == kTask.generation);
  }
}

TEST_CASE("a record of another generation is not cancelled") {
  Session session;
  NoSink sink;
  Record& record = make_task(session.memory(), kTask);
  make_ready(record, kTask);

  CHECK(cancel(session.memory(), sink, 0, {1, 6}) == Answer::TooLate);
  CHECK(word::state(record.state.load()) == State::Ready);
}

TEST_CASE("a cancelled task is skipped by who takes from its ring, and the next one is taken") {
  Session session;
  const Memory& memory = session.memory();
  memory.segment_owner(0).store(kNone);
  NoSink sink;
  const std::uint64_t ring = open_ring(session);
  for (const Address task : {kTask, Address{2, 1}}) {
    make_ready(make_task(memory, task), task);
    ring::push(memory, ring_at(memory, ring), task);
  }

  CHECK(cancel(memory, sink) == Answer::Never);

  CHECK(claim::next(memory, ring_at(memory, ring), memory.participant(kWorker), kWorker,
                    claim::Order::AsSubmitted) == Address{2, 1});
}

TEST_CASE("neither a value nor a retry comes after a cancel of a claimed task") {
  Session session;
  const Memory& memory = session.memory();
  memory.segment_owner(0).store(kNone);
  NoSink sink;
  Record& record = make_task(memory, kTask);
  make_ready(record, kTask);
  Participant& worker = memory.participant(kWorker);
  claim::intend(worker, kTask);
  REQUIRE(claim::take(record, kTask, kWorker));

  CHECK(cancel(memory, sink) == Answer::Asked);

  CHECK_FALSE(claim::complete_unless_cancelled(memory, worker, record, kTask, State::Done, sink));
  CHECK(word::state(record.state.load()) == State::Claimed);
  claim::complete(memory, worker, record, kTask, State::Failed, sink);
  CHECK(cancel(memory, sink) == Answer::Never);
}

TEST_CASE("of a worker's claim and a cancel beside it, one wins, and both know which") {
  for (const Crew crew : {Crew::Processes, Crew::Threads}) {
    CAPTURE(name_of(crew));
    constexpr std::uint32_t kRounds = 20'000;
    Session session;
    session.memory().segment_owner(0).store(kNone);
    const Counters round(session, 1);
    const Counters ready(session, 2);
    const Counters outcome(session, 4);  // never, asked, too late; contradictions
    Record& first = make_task(session.memory(), {1, 1});
    make_ready(first, {1, 1});

    side_by_side(session, crew, 2, [&](const Memory& memory, int i) {
      NoSink sink;
      Record& record = memory.record(1);
      for (std::uint32_t r = 1; r <= kRounds; ++r) {
        const Address task{1, r};
        // Both begin a round together; the canceller opens the next one.
        ready.in(memory)[i].store(r);
        MOBULA_CHECK(eventually([&] { return ready.in(memory)[1 - i].load() >= r; }));
        if (i == 0) {
          const Answer answer = cancel(memory, sink, 0, task);
          outcome
              .in(memory)[static_cast<int>(answer == Answer::Asked) +
                          2 * static_cast<int>(answer == Answer::TooLate)]
              .fetch_add(1);
          MOBULA_CHECK(eventually([&] { return round.in(memory)[0].load() >= r; }));
          const std::uint64_t word = record.state.load();
          if (((word & word::kCancelled) != 0) != (answer != Answer::TooLate))
            outcome.in(memory)[3].fetch_add(1);
          if (word::state(word) != (answer == Answer::TooLate ? State::Done : State::Failed))
            outcome.in(memory)[3].fetch_add(1);
          make_task(memory, {1, r + 1});
          make_ready(record, {1, r + 1});
        } else {
          Participant& me = memory.participant(kWorker);
          claim::intend(me, task);
          if (claim::take(record, task, kWorker) &&
              !claim::complete_unless_cancelled(memory, me, record, task, State::Done, sink))
            claim::complete(memory, me, record, task, State::Failed, sink);
          claim::forget(me);
          round.in(memory)[0].store(r);
        }
      }
    });

    const auto* seen = outcome.in(session.memory());
    CHECK(seen[0].load() + seen[1].load() + seen[2].load() == kRounds);
    CHECK(seen[3].load() == 0);
  }
}

}  // namespace
}  // namespace mobula::shm
