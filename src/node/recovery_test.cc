#include "node/recovery.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string_view>

#include "mobula/error.h"
#include "shm/cancel.h"
#include "shm/holds.h"
#include "shm/journal.h"
#include "shm/processes_test.h"

namespace mobula::node {
namespace {

using namespace shm::testing;
using shm::Address;
using shm::CrashPoint;
using shm::HoldOp;
using shm::Kind;
using shm::Record;
using shm::State;
namespace word = shm::word;

constexpr std::uint32_t kSubmission = 1u << shm::dependents::kSubmissionBit;
constexpr ProcessEnd kCrash{4711, SIGSEGV, 0};

// A process as the node sees it: its entry, its thread, the thread's segment of records.
struct Member {
  std::uint32_t process;
  std::uint32_t participant;
  std::uint32_t segment;
  Address slot(std::uint32_t i, std::uint32_t generation = 1) const {
    return {segment * shm::kRecordsPerSegment + i, generation};
  }
};

// A daemon's shared memory with one scheduling class, a driver and a worker.
struct World {
  World() {
    const std::uint32_t self = *tables.open_process(shm::ProcessRole::Daemon);
    daemon = *tables.open_participant(self);
    recovery.emplace(memory, tables, objects, daemon);
    driver = join(shm::ProcessRole::Driver);
    worker = join(shm::ProcessRole::Worker);
    cls = open_class(shm::ClassKind::Task);
  }
  Member join(shm::ProcessRole role) {
    const std::uint32_t process = *tables.open_process(role);
    const std::uint32_t participant = *tables.open_participant(process);
    const std::uint32_t segment = *tables.lease_segment(participant);
    memory.segment_ready(segment).store(shm::kRecordsPerSegment);  // as if it had used them all
    return {process, participant, segment};
  }
  std::uint32_t open_class(shm::ClassKind kind) {
    const std::uint32_t id = *tables.open_class();
    shm::SchedulingClass& c = memory.scheduling_class(id);
    c.kind.store(static_cast<std::uint32_t>(kind));
    c.state.store(static_cast<std::uint32_t>(shm::ClassState::Open));
    for (auto& process : c.slot_process) process.store(shm::kNone);
    recovery->open_class_ring(id);
    return id;
  }
  Record& record(Address address) { return memory.record(address.slot); }
  Record& make(Address address, Kind kind = Kind::Task) {
    Record& r = make_task(memory, address);
    r.kind = kind;
    r.scheduling_class = cls;
    r.retries = kind == Kind::ActorCall ? shm::kRetriesOfActor : std::int16_t{3};
    return r;
  }
  void set(Address address, State state) {
    record(address).state.store(word::make(address.generation, state));
  }
  State state(Address address) {
    const std::uint64_t seen = record(address).state.load();
    REQUIRE(word::generation(seen) == address.generation);
    return word::state(seen);
  }
  void claim_by(Member& member, Address address) {
    shm::claim::intend(memory.participant(member.participant), address);
    REQUIRE(shm::claim::take(record(address), address, member.participant));
  }
  shm::RingHeader& ring(std::uint64_t offset) { return ring_at(memory, offset); }
  shm::RingHeader& daemon_ring(std::uint32_t id) {
    return ring(memory.scheduling_class(id).rings.load());
  }

  // Takes everything that the class's rings hold, as a worker would, and completes it. Returns the
  // records in order.
  std::vector<Address> run_all(std::uint32_t id, shm::claim::Order order = shm::claim::Order::Any) {
    const Member runner = join(shm::ProcessRole::Worker);
    shm::Participant& me = memory.participant(runner.participant);
    std::vector<Address> ran;
    for (std::uint64_t at = memory.scheduling_class(id).rings.load(); at != 0;
         at = ring(at).next.load()) {
      while (const Address address =
                 shm::claim::next(memory, ring(at), me, runner.participant, order)) {
        ran.push_back(address);
        shm::claim::complete(memory, me, record(address), address, State::Done, *recovery);
        shm::claim::forget(me);
      }
    }
    return ran;
  }
  std::uint32_t holds(Address address) { return shm::holds::count(record(address).refs.load()); }
  shm::HoldEntry& line(const Member& member, std::uint32_t i) {
    return reinterpret_cast<shm::HoldEntry*>(
        memory.segment(memory.process(member.process).hold_segments[0].load()))[i];
  }
  void hold(const Member& member, std::uint32_t i, Address address, Address container = {}) {
    line(member, i).container.store(container.packed());
    shm::holds::open(memory.participant(member.participant), HoldOp::Hold, address, i);
    shm::holds::change(memory, member.participant, record(address), +1);
    line(member, i).record.store(address.packed());
    shm::holds::close(memory.participant(member.participant));
  }

  Session session;
  shm::Memory& memory = session.memory();
  Tables tables{memory, 1, 2};
  ObjectMemory objects{memory, tables, nullptr, 0};
  std::uint32_t daemon = 0;
  std::optional<Recovery> recovery;
  Member driver{};
  Member worker{};
  std::uint32_t cls = 0;
};

// ---- Claims

TEST_CASE("a task whose worker was killed for want of memory fails with what was known of it") {
  World world;
  const Address address = world.driver.slot(1);
  Record& record = world.make(address);
  record.retries = 0;
  make_ready(record, address);
  world.claim_by(world.worker, address);
  const shm::DeathCause cause{shm::Death::OutOfMemory, 3, 1 << 20, 0xffffff};

  world.recovery->repair(world.worker.process, {4711, SIGKILL, 0, cause}, nullptr);

  CHECK(world.state(address) == State::Failed);
  CHECK(record.error().code == static_cast<std::uint32_t>(ErrorCode::kOutOfMemory));
  const auto told = shm::DeathCause::unpack(record.error().detail);
  CHECK(told.death == shm::Death::OutOfMemory);
  CHECK(told.memory_scope == 3);
  CHECK(told.used_mib == 1 << 20);
  CHECK(told.limit_mib == 0xffffff);
}

TEST_CASE(
    "a worker that really dies at any step of a claim costs no record, and its claimed one is run "
    "again") {
  for (const CrashPoint point :
       {CrashPoint::ClaimIntent, CrashPoint::ClaimTaken, CrashPoint::ClaimMoved,
        CrashPoint::CompleteDone, CrashPoint::CompleteWoken}) {
    for (const int reach : {1, 7}) {
      CAPTURE(shm::crash_point_info(point).name);
      CAPTURE(reach);
      World world;
      const std::uint64_t offset = *world.tables.open_ring(world.driver.participant, world.cls);
      constexpr std::uint32_t kRecords = 10;
      for (std::uint32_t i = 1; i <= kRecords; ++i) {
        const Address address = world.driver.slot(i);
        make_ready(world.make(address), address);
        shm::ring::push(world.memory, world.ring(offset), address);
      }
      Child child = world.session.start([&](const shm::Memory& memory) {
        die_at(point, reach);
        shm::Participant& me = memory.participant(world.worker.participant);
        NoSink sink;
        while (const Address address =
                   shm::claim::next(memory, ring_at(memory, offset), me, world.worker.participant,
                                    shm::claim::Order::Any)) {
          shm::claim::complete(memory, me, memory.record(address.slot), address, State::Done, sink);
          shm::claim::forget(me);
        }
      });
      REQUIRE(child.end() == kKilled);

      world.recovery->repair(world.worker.process, kCrash, nullptr);

      const std::vector<Address> ran = world.run_all(world.cls);
      const bool completed =
          point == CrashPoint::CompleteDone || point == CrashPoint::CompleteWoken;
      CHECK(ran.size() == kRecords - static_cast<std::uint32_t>(reach) + (completed ? 0 : 1));
      std::uint32_t attempts = 0;
      for (std::uint32_t i = 1; i <= kRecords; ++i) {
        CHECK(world.state(world.driver.slot(i)) == State::Done);
        attempts += word::attempt(world.record(world.driver.slot(i)).state.load());
      }
      CHECK(attempts ==
            (point == CrashPoint::ClaimTaken || point == CrashPoint::ClaimMoved ? 1 : 0));
      CHECK_FALSE(world.recovery->settle_orphans());
    }
  }
}

TEST_CASE(
    "a claimed task is tried again while retries are left, and then fails with what is known of "
    "the end") {
  struct Row {
    std::int16_t retries;
    std::uint32_t attempt;
    bool again;
  };
  for (const Row& row : {Row{0, 0, false}, Row{1, 0, true}, Row{1, 1, false}, Row{3, 2, true},
                         Row{3, 3, false}, Row{-1, 0, true}, Row{-1, 200, true}}) {
    CAPTURE(row.retries);
    CAPTURE(row.attempt);
    World world;
    const Address address = world.driver.slot(1, 5);
    Record& record = world.make(address);
    record.retries = row.retries;
    std::uint64_t ready = word::make(5, State::Ready);
    for (std::uint32_t i = 0; i < row.attempt; ++i) ready = word::with_next_attempt(ready);
    record.state.store(ready | word::kAnyWaiter);
    world.claim_by(world.worker, address);
    record.result_kind = shm::ResultKind::Stored;  // half done
    record.flags |= shm::flag::kResultHasRefs;

    world.recovery->repair(world.worker.process, kCrash, nullptr);

    CHECK((record.flags & shm::flag::kResultHasRefs) == 0);
    if (row.again) {
      CHECK(world.state(address) == State::Ready);
      CHECK(word::attempt(record.state.load()) == row.attempt + 1);
      CHECK((record.state.load() & word::kAnyWaiter) != 0);
      CHECK(record.result_kind == shm::ResultKind::None);
      CHECK(world.run_all(world.cls) == std::vector{address});
    } else {
      CHECK(world.state(address) == State::Failed);
      REQUIRE(record.result_kind == shm::ResultKind::ErrorCode);
      CHECK(record.error().code == static_cast<std::uint32_t>(ErrorCode::kWorkerCrashed));
      CHECK(record.error().attempts == row.attempt + 1);
      CHECK(record.error().signal == SIGSEGV);
      CHECK(record.error().pid == 4711);
      CHECK(world.run_all(world.cls).empty());
    }
  }
}

TEST_CASE(
    "all claims of nested execution are opened again, also those deeper than the list of intents") {
  World world;
  constexpr std::uint32_t kDepth = shm::kIntentsMax + 10;
  for (std::uint32_t i = 1; i <= kDepth; ++i) {
    make_ready(world.make(world.driver.slot(i)), world.driver.slot(i));
    world.claim_by(world.worker, world.driver.slot(i));
  }

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  CHECK(world.run_all(world.cls).size() == kDepth);
}

TEST_CASE("an intent for a record that somebody else took, or that is recycled, changes nothing") {
  World world;
  const Member other = world.join(shm::ProcessRole::Worker);
  const Address taken = world.driver.slot(1);
  const Address recycled = world.driver.slot(2);
  world.make(taken).state.store(
      word::with_claimer(word::make(1, State::Claimed), other.participant));
  world.make(recycled).state.store(word::make(2, State::Waiting));
  shm::claim::intend(world.memory.participant(world.worker.participant), taken);
  shm::claim::intend(world.memory.participant(world.worker.participant), recycled);

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  CHECK(word::claimer(world.record(taken).state.load()) == other.participant);
  CHECK(world.state(taken) == State::Claimed);
  CHECK(word::state(world.record(recycled).state.load()) == State::Waiting);
  CHECK(world.run_all(world.cls).empty());
}

TEST_CASE("a dependent whose walker died at any step becomes ready, and runs once") {
  for (const CrashPoint point :
       {CrashPoint::CompleteDone, CrashPoint::WalkCursor, CrashPoint::WalkSatisfied,
        CrashPoint::WalkReady, CrashPoint::WalkFinished}) {
    CAPTURE(shm::crash_point_info(point).name);
    World world;
    const Address target = world.driver.slot(1);
    const Address dependent = world.driver.slot(2);
    make_ready(world.make(target), target);
    Record& waiting = world.make(dependent);
    waiting.dependencies = 1;
    waiting.dependency[0].target = target.packed();
    waiting.join.store(shm::dependents::join_word(1, 1));
    world.set(dependent, State::Waiting);
    REQUIRE(shm::dependents::hang(world.record(target), waiting, dependent.slot, 0));
    const std::uint64_t offset = *world.tables.open_ring(world.worker.participant, world.cls);
    Child child = world.session.start([&](const shm::Memory& memory) {
      struct Sink final : shm::ReadySink {
        Sink(const shm::Memory& m, shm::RingHeader& r) : memory(m), ring(r) {}
        void publish(Record&, Address address) override { shm::ring::push(memory, ring, address); }
        const shm::Memory& memory;
        shm::RingHeader& ring;
      } sink(memory, ring_at(memory, offset));
      die_at(point);
      shm::Participant& me = memory.participant(world.worker.participant);
      shm::claim::intend(me, target);
      MOBULA_CHECK(shm::claim::take(memory.record(target.slot), target, world.worker.participant));
      shm::claim::complete(memory, me, memory.record(target.slot), target, State::Done, sink);
    });
    REQUIRE(child.end() == kKilled);

    world.recovery->repair(world.worker.process, kCrash, nullptr);
    CHECK(world.run_all(world.cls) == std::vector{dependent});
    CHECK((world.record(target).state.load() & word::kHasDependents) == 0);
    CHECK_FALSE(world.recovery->settle_orphans());
  }
}

// ---- What the dead had submitted

TEST_CASE(
    "what a dead submitter left is published if it was whole, given up if nobody can know of it, "
    "and settles") {
  struct Row {
    std::string_view name;
    Kind kind;
    State state;
    std::uint32_t open;  // bits of its join word
    bool runs;
    State after;  // of the repair
  };
  for (const Row& row :
       {Row{"fields written, still free", Kind::Task, State::Free, 0, false, State::Free},
        Row{"ready, in no ring", Kind::Task, State::Ready, 0, true, State::Ready},
        Row{"hung, submission open", Kind::Task, State::Waiting, kSubmission, false, State::Failed},
        Row{"last edge closed, not ready yet", Kind::Task, State::Waiting, 0, true, State::Ready},
        Row{"a join, submission open", Kind::Join, State::Waiting, kSubmission, false, State::Done},
        Row{"a call that is in no ring", Kind::ActorCall, State::Ready, 0, false, State::Failed},
        Row{"a call, submission open", Kind::ActorCall, State::Waiting, kSubmission, false,
            State::Failed}}) {
    CAPTURE(row.name);
    World world;
    const Address address = world.worker.slot(1);
    Record& record = world.make(address, row.kind);
    if (row.kind == Kind::Join)
      record.function = shm::dependents::link(world.driver.slot(1).slot, 0);
    record.join.store(shm::dependents::join_word(1, row.open));
    record.state.store(word::make(row.state == State::Free ? 0 : 1, row.state));

    world.recovery->repair(world.worker.process, kCrash, nullptr);

    if (row.state != State::Free) CHECK(world.state(address) == row.after);
    if (row.after == State::Failed)
      CHECK(record.error().code == static_cast<std::uint32_t>(ErrorCode::kTaskCancelled));
    CHECK(world.run_all(world.cls) == (row.runs ? std::vector{address} : std::vector<Address>{}));
    CHECK_FALSE(world.recovery->settle_orphans());
    CHECK(word::state(record.state.load()) == State::Free);
    CHECK(world.memory.process(world.worker.process).role.load() ==
          static_cast<std::uint32_t>(shm::ProcessRole::None));
  }
}

TEST_CASE(
    "a join whose submitter died before passing it up makes its parent ready, whoever owns the "
    "parent") {
  World world;
  const Address parent = world.driver.slot(1);
  const Address join = world.worker.slot(1);
  Record& waiting = world.make(parent);
  waiting.dependencies = 1;
  waiting.join.store(shm::dependents::join_word(1, 1));
  world.set(parent, State::Waiting);
  Record& record = world.make(join, Kind::Join);
  record.function = shm::dependents::link(parent.slot, 0);
  record.scheduling_class = 1;  // the parent's generation
  record.join.store(shm::dependents::join_word(1, 0));
  world.set(join, State::Waiting);

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  CHECK(world.run_all(world.cls) == std::vector{parent});
  CHECK_FALSE(world.recovery->settle_orphans());
}

TEST_CASE(
    "a dead process's ledger stays while a record of it runs, waits, is walked or is held, and "
    "goes when none does") {
  struct Row {
    std::string_view name;
    State state;
    std::uint64_t bits;
    bool held;
    bool settled;
  };
  for (const Row& row :
       {Row{"done", State::Done, 0, false, true}, Row{"failed", State::Failed, 0, false, true},
        Row{"done and held", State::Done, 0, true, false},
        Row{"claimed by a living worker", State::Claimed, 0, false, false},
        Row{"done, its dependents not told", State::Done, word::kHasDependents, false, false}}) {
    CAPTURE(row.name);
    World world;
    const Address address = world.worker.slot(9);
    Record& record = world.make(address);
    record.state.store(word::make(1, row.state) | row.bits);
    REQUIRE(world.tables.lease_holds(world.driver.process, 0));
    if (row.held) world.hold(world.driver, 0, address);
    const std::uint64_t own_ring = *world.tables.open_ring(world.worker.participant, world.cls);

    world.recovery->repair(world.worker.process, kCrash, nullptr);
    CHECK(world.recovery->settle_orphans() == !row.settled);
    CHECK(word::state(record.state.load()) == (row.settled ? State::Free : row.state));
    if (row.settled) {
      CHECK(world.ring(own_ring).participant.load() == shm::kNone);
      continue;
    }
    // The reason goes away.
    record.state.store(word::make(1, State::Done));
    if (row.held) {
      world.recovery->repair(world.driver.process, kCrash, nullptr);
      CHECK(world.recovery->settle_orphans());  // the holder goes first
    }
    CHECK_FALSE(world.recovery->settle_orphans());
    CHECK(word::state(record.state.load()) == State::Free);
    CHECK(word::generation(record.state.load()) == 1);  // the next use is of another generation
    CHECK(record.refs.load() == 0);
  }
}

TEST_CASE("a cancelled task of a dead worker ends as cancelled, and its children with it") {
  struct Row {
    std::string_view name;
    std::uint64_t how;
    bool children;
    bool condemned;
  };
  for (const Row& row :
       {Row{"alone", 0, false, false}, Row{"with its children", word::kCancelChildren, true, false},
        Row{"with them, by force", word::kCancelChildren | word::kForce, true, true}}) {
    CAPTURE(row.name);
    World world;
    const Address task = world.driver.slot(1);
    Record& record = world.make(task);
    record.parent = 5;
    record.index = 6;
    make_ready(record, task);
    world.claim_by(world.worker, task);
    record.state.fetch_or(word::kCancelled | row.how);
    Member other = world.join(shm::ProcessRole::Worker);
    const Address queued = world.worker.slot(1);
    const Address running = world.worker.slot(2);
    const Address strange = world.worker.slot(3);
    for (const Address child : {queued, running, strange}) {
      world.make(child).parent = child == strange ? 9 : record.identity();
      make_ready(world.record(child), child);
    }
    world.claim_by(other, running);

    world.recovery->repair(world.worker.process, kCrash, nullptr);

    CHECK(world.state(task) == State::Failed);
    CHECK((record.state.load() & word::kCancelled) != 0);
    CHECK(world.state(queued) == (row.children ? State::Failed : State::Ready));
    CHECK(world.state(running) == State::Claimed);
    CHECK(((world.record(running).state.load() & word::kCancelled) != 0) == row.children);
    CHECK(world.state(strange) == State::Ready);
    CHECK(world.recovery->take_condemned() ==
          (row.condemned ? std::vector{running} : std::vector<Address>{}));
  }
}

TEST_CASE("a process killed at any step of a cancel leaves nobody waiting for the task") {
  struct Row {
    CrashPoint point;
    State state;  // that the cancel finds
    bool dependent_runs;
  };
  for (const Row& row : {Row{CrashPoint::CancelDone, State::Ready, true},
                         Row{CrashPoint::CancelDone, State::Waiting, true},
                         Row{CrashPoint::CompleteWoken, State::Ready, true},
                         Row{CrashPoint::WalkCursor, State::Ready, true},
                         Row{CrashPoint::WalkSatisfied, State::Ready, true},
                         Row{CrashPoint::WalkReady, State::Ready, true},
                         Row{CrashPoint::WalkFinished, State::Ready, true},
                         Row{CrashPoint::CancelAsked, State::Claimed, false}}) {
    CAPTURE(shm::crash_point_info(row.point).name);
    World world;
    const Address task = world.driver.slot(1);
    const Address dependent = world.driver.slot(2);
    world.make(task);
    world.set(task, State::Ready);
    Member runner = world.join(shm::ProcessRole::Worker);
    if (row.state == State::Claimed) world.claim_by(runner, task);
    if (row.state == State::Waiting) world.set(task, State::Waiting);
    Record& waiting = world.make(dependent);
    waiting.dependencies = 1;
    waiting.dependency[0].target = task.packed();
    waiting.join.store(shm::dependents::join_word(1, 1));
    world.set(dependent, State::Waiting);
    REQUIRE(shm::dependents::hang(world.record(task), waiting, dependent.slot, 0));
    const std::uint64_t ring = *world.tables.open_ring(world.worker.participant, world.cls);
    Child child = world.session.start([&](const shm::Memory& memory) {
      die_at(row.point);
      struct Sink final : shm::ReadySink {
        Sink(const shm::Memory& m, std::uint64_t r) : memory(m), ring(r) {}
        void publish(Record&, Address address) override {
          shm::ring::push(memory, ring_at(memory, ring), address);
        }
        const shm::Memory& memory;
        std::uint64_t ring;
      } sink(memory, ring);
      shm::Participant& me = memory.participant(world.worker.participant);
      shm::claim::intend(me, task);
      shm::cancellation::cancel(memory, me, world.worker.participant, memory.record(task.slot),
                                task, word::kForce, sink);
    });
    REQUIRE(child.end() == kKilled);

    world.recovery->repair(world.worker.process, kCrash, nullptr);

    CHECK((world.record(task).state.load() & word::kCancelled) != 0);
    CHECK(world.run_all(world.cls) ==
          (row.dependent_runs ? std::vector{dependent} : std::vector<Address>{}));
    // Nobody may have told the daemon to end the worker of one that runs.
    CHECK(world.recovery->take_condemned() ==
          (row.state == State::Claimed ? std::vector{task} : std::vector<Address>{}));
    if (row.state != State::Claimed) CHECK(world.state(task) == State::Failed);
  }
}

TEST_CASE(
    "a failed record is not freed while an edge of it hangs on a record that was not walked") {
  World world;
  const Address target = world.driver.slot(1);
  const Address dependent = world.worker.slot(1);
  make_ready(world.make(target), target);
  Record& waiting = world.make(dependent);
  waiting.dependencies = 1;
  waiting.dependency[0].target = target.packed();
  waiting.join.store(shm::dependents::join_word(1, 1 | kSubmission));
  world.set(dependent, State::Waiting);
  REQUIRE(shm::dependents::hang(world.record(target), waiting, dependent.slot, 0));

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  CHECK(world.state(dependent) == State::Failed);
  CHECK(world.recovery->settle_orphans());
  const Member runner = world.join(shm::ProcessRole::Worker);
  world.claim_by(world.driver, target);
  shm::claim::complete(world.memory, world.memory.participant(runner.participant),
                       world.record(target), target, State::Done, *world.recovery);
  CHECK_FALSE(world.recovery->settle_orphans());
  CHECK(world.run_all(world.cls).empty());
}

// ---- Holds

TEST_CASE("a process that dies at any step of holding or releasing holds, in the end, nothing") {
  for (const CrashPoint point : {CrashPoint::HoldIntent, CrashPoint::HoldCounted,
                                 CrashPoint::ReleaseIntent, CrashPoint::ReleaseCounted}) {
    for (const int reach : {1, 2, 3}) {
      CAPTURE(shm::crash_point_info(point).name);
      CAPTURE(reach);
      World world;
      const Address held = world.driver.slot(1);
      world.make(held);
      world.set(held, State::Done);
      REQUIRE(world.tables.lease_holds(world.worker.process, 0));
      const Member other = world.join(shm::ProcessRole::Worker);
      REQUIRE(world.tables.lease_holds(other.process, 0));
      world.hold(other, 0, held);
      Child child = world.session.start([&](const shm::Memory& memory) {
        die_at(point, reach);
        shm::Participant& me = memory.participant(world.worker.participant);
        auto* lines = reinterpret_cast<shm::HoldEntry*>(
            memory.segment(memory.process(world.worker.process).hold_segments[0].load()));
        for (std::uint32_t i = 0; i < 6; ++i) {
          shm::holds::open(me, HoldOp::Hold, held, i);
          shm::crash_point(CrashPoint::HoldIntent);
          shm::holds::change(memory, world.worker.participant, memory.record(held.slot), +1);
          shm::crash_point(CrashPoint::HoldCounted);
          lines[i].record.store(held.packed());
          shm::holds::close(me);
          if (i % 2 == 0) continue;  // stays held
          shm::holds::open(me, HoldOp::Release, held, i);
          shm::crash_point(CrashPoint::ReleaseIntent);
          shm::holds::change(memory, world.worker.participant, memory.record(held.slot), -1);
          shm::crash_point(CrashPoint::ReleaseCounted);
          lines[i].record.store(0);
          shm::holds::close(me);
        }
      });
      REQUIRE(child.end() == kKilled);

      world.recovery->repair(world.worker.process, kCrash, nullptr);
      CHECK_FALSE(world.recovery->settle_orphans());
      CHECK(world.holds(held) == 1);  // the other's
    }
  }
}

TEST_CASE(
    "holds on their way into a result stay if the result was published, and go if it was not") {
  struct Row {
    std::string_view name;
    std::uint64_t container;  // its state word
    bool kept;
  };
  World shape;
  const std::uint32_t dead = shape.worker.participant;
  for (const Row& row :
       {Row{"still running", word::with_claimer(word::make(2, State::Claimed), dead), false},
        Row{"done", word::make(2, State::Done), true},
        Row{"done and recycled", word::make(2, State::Free), true},
        Row{"done, recycled and used again", word::make(3, State::Claimed), true}}) {
    CAPTURE(row.name);
    World world;
    const Address container = world.driver.slot(1, 2);
    const Address inner = world.driver.slot(2);
    world.make(container).state.store(row.container);
    world.make(inner);
    world.set(inner, State::Done);
    REQUIRE(world.tables.lease_holds(world.worker.process, 0));
    world.hold(world.worker, 0, inner, container);
    world.hold(world.worker, 1, inner);  // its own

    world.recovery->repair(world.worker.process, kCrash, nullptr);
    world.recovery->settle_orphans();
    CHECK(world.holds(inner) == (row.kept ? 1 : 0));
  }
}

TEST_CASE("two dead processes that hold records of each other both go") {
  World world;
  Member other = world.join(shm::ProcessRole::Worker);
  const Address mine = world.worker.slot(1);
  const Address theirs = other.slot(1);
  for (const Address address : {mine, theirs}) {
    world.make(address);
    world.set(address, State::Done);
  }
  REQUIRE(world.tables.lease_holds(world.worker.process, 0));
  REQUIRE(world.tables.lease_holds(other.process, 0));
  world.hold(world.worker, 0, theirs);
  world.hold(other, 0, mine);

  for (const Member& dead : {world.worker, other}) {
    world.recovery->repair(dead.process, kCrash, nullptr);
  }
  for (int look = 0; look < 3; ++look) world.recovery->settle_orphans();
  CHECK_FALSE(world.recovery->settle_orphans());
  CHECK(word::state(world.record(mine).state.load()) == State::Free);
  CHECK(word::state(world.record(theirs).state.load()) == State::Free);
}

TEST_CASE("a result may hold records of its own dead ledger, and an actor made there ends") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  const Address container = world.worker.slot(2);
  const Address inner = world.worker.slot(1);
  const Address creation = world.worker.slot(3);
  world.make(creation, Kind::ActorCreate).scheduling_class = actor;
  world.memory.scheduling_class(actor).creation.store(creation.packed());
  Record& result = world.make(container);
  const std::uint64_t table[] = {inner.packed(), 1};  // the refs, and how many
  std::memcpy(result.result_inline, table, sizeof table);
  result.result_kind = shm::ResultKind::Inline;
  result.result_size = sizeof table;
  result.flags = shm::flag::kResultHasRefs;
  world.make(inner);
  shm::holds::change(world.memory, world.worker.participant, world.record(inner), +1);
  for (const Address address : {container, inner, creation}) world.set(address, State::Done);

  world.recovery->repair(world.worker.process, kCrash, nullptr);

  CHECK_FALSE(world.recovery->settle_orphans());
  for (const Address address : {container, inner, creation})
    CHECK(world.state(address) == State::Free);
  CHECK(world.memory.scheduling_class(actor).kill_request.load() == shm::kLastHandleGone);
}

TEST_CASE("who dies with a hold on an actor that it has made itself does not keep it") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  const Address creation = world.worker.slot(3);
  world.make(creation, Kind::ActorCreate).scheduling_class = actor;
  world.set(creation, State::Done);
  world.memory.scheduling_class(actor).creation.store(creation.packed());
  world.tables.lease_holds(world.worker.process, 0);
  auto& request = world.memory.scheduling_class(actor).kill_request;
  REQUIRE(world.recovery->give_hold(world.worker.process, 0, creation, &request));

  world.recovery->repair(world.worker.process, kCrash, nullptr);

  CHECK_FALSE(world.recovery->settle_orphans());
  CHECK(request.load() == shm::kLastHandleGone);
}

TEST_CASE("a hold on an actor's creation is given until its last handle is gone or it is to end") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  const Address creation = world.driver.slot(3);
  Record& record = world.make(creation, Kind::ActorCreate);
  record.scheduling_class = actor;
  world.set(creation, State::Done);
  auto& request = world.memory.scheduling_class(actor).kill_request;
  const std::uint32_t asker = world.worker.process;
  world.tables.lease_holds(asker, 0);
  const auto& line = reinterpret_cast<const shm::HoldEntry*>(
      world.memory.segment(world.memory.process(asker).hold_segments[0].load()))[7];

  CHECK_FALSE(world.recovery->give_hold(asker, shm::kHoldsPerSegment, creation, &request));
  CHECK(world.recovery->give_hold(asker, 7, creation, &request));
  CHECK(shm::holds::count(record.refs.load()) == 1);
  CHECK(line.record.load() == creation.packed());

  world.recovery->repair(asker, kCrash, nullptr);  // it dies before it knows of it
  world.recovery->settle_orphans();
  CHECK(shm::holds::count(record.refs.load()) == 0);

  const std::uint32_t other = world.driver.process;
  world.tables.lease_holds(other, 0);
  request.store(shm::kKillOnce);
  CHECK(world.recovery->give_hold(other, 1, creation, &request));
  for (const std::uint64_t end : {shm::kKill, shm::kLeave, shm::kLastHandleGone}) {
    request.store(end);
    CHECK_FALSE(world.recovery->give_hold(other, 2, creation, &request));
  }
  request.store(0);
  record.refs.store(shm::holds::make(shm::holds::kClosed, world.driver.participant, 5));
  CHECK_FALSE(world.recovery->give_hold(other, 2, creation, &request));
}

TEST_CASE("an actor whose class was another's before does not end with that one's creator") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  const Address earlier = world.worker.slot(1);  // given up by its owner, but not yet free
  world.make(earlier, Kind::ActorCreate).scheduling_class = actor;
  world.set(earlier, State::Done);
  world.memory.scheduling_class(actor).creation.store(world.driver.slot(1).packed());

  world.recovery->repair(world.worker.process, kCrash, nullptr);

  CHECK_FALSE(world.recovery->settle_orphans());
  CHECK(world.state(earlier) == State::Free);
  CHECK(world.memory.scheduling_class(actor).kill_request.load() == 0);
}

TEST_CASE("what a dead process's put refers to is held for as long as somebody holds the put") {
  World world;
  const Address put = world.worker.slot(1);
  const Address inner = world.driver.slot(2);
  world.make(inner);
  world.set(inner, State::Done);
  Record& record = world.make(put, Kind::Put);
  const std::uint64_t table[2] = {inner.packed(), 1};
  std::memcpy(record.result_inline, table, sizeof table);
  record.result_size = sizeof table;
  record.result_kind = shm::ResultKind::Inline;
  record.flags |= shm::flag::kResultHasRefs;
  world.set(put, State::Done);
  REQUIRE(world.tables.lease_holds(world.worker.process, 0));
  REQUIRE(world.tables.lease_holds(world.driver.process, 0));
  world.hold(world.worker, 0, inner);
  world.hold(world.driver, 0, put);

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  for (int look = 0; look < 3; ++look) CHECK(world.recovery->settle_orphans());
  CHECK(world.holds(inner) == 1);
  shm::holds::open(world.memory.participant(world.driver.participant), HoldOp::Release, put, 0);
  shm::holds::change(world.memory, world.driver.participant, record, -1);
  world.line(world.driver, 0).record.store(0);
  shm::holds::close(world.memory.participant(world.driver.participant));
  for (int look = 0; look < 3; ++look) world.recovery->settle_orphans();
  CHECK_FALSE(world.recovery->settle_orphans());
  CHECK(world.holds(inner) == 0);
}

TEST_CASE("holds for the result of an attempt that died go, though another attempt succeeds") {
  World world;
  const Address container = world.driver.slot(1);
  const Address inner = world.driver.slot(2);
  make_ready(world.make(container), container);
  world.make(inner);
  world.set(inner, State::Done);
  REQUIRE(world.tables.lease_holds(world.worker.process, 0));
  world.claim_by(world.worker, container);
  world.hold(world.worker, 0, inner, container);

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  CHECK(world.run_all(world.cls) == std::vector{container});  // its result refers to nothing now
  CHECK_FALSE(world.recovery->settle_orphans());
  CHECK(world.holds(inner) == 0);
}

TEST_CASE(
    "the refs inside a result that was being recycled are released once each, wherever its owner "
    "died") {
  constexpr std::uint32_t kRefs = 3;
  for (const CrashPoint point : {CrashPoint::RecycleStarted, CrashPoint::ReleaseIntent,
                                 CrashPoint::ReleaseCounted, CrashPoint::RecyclePayload}) {
    for (int reach = 1; reach <= static_cast<int>(kRefs); ++reach) {
      if (reach > 1 && (point == CrashPoint::RecycleStarted || point == CrashPoint::RecyclePayload))
        continue;
      CAPTURE(shm::crash_point_info(point).name);
      CAPTURE(reach);
      World world;
      const Address container = world.worker.slot(1);
      Record& record = world.make(container);
      record.result_kind = shm::ResultKind::Inline;
      record.flags |= shm::flag::kResultHasRefs;
      record.refs_released = 0;
      record.result_size = 8 * (kRefs + 1);
      std::uint64_t table[kRefs + 1];
      for (std::uint32_t i = 0; i < kRefs; ++i) {
        const Address inner = world.driver.slot(10 + i);
        world.make(inner);
        world.set(inner, State::Done);
        world.record(inner).refs.store(shm::holds::make(1, 0, 0));  // the container's
        table[i] = inner.packed();
      }
      table[kRefs] = kRefs;
      std::memcpy(record.result_inline, table, sizeof table);
      world.set(container, State::Done);
      Child child = world.session.start([&](const shm::Memory& memory) {
        die_at(point, reach);
        Record& r = memory.record(container.slot);
        shm::Participant& me = memory.participant(world.worker.participant);
        shm::crash_point(CrashPoint::RecycleStarted);
        for (std::uint32_t i = 0; i < kRefs; ++i) {
          const Address inner = Address::unpack(table[i]);
          shm::holds::open(me, HoldOp::ReleaseContained, inner, i, container);
          shm::crash_point(CrashPoint::ReleaseIntent);
          shm::holds::change(memory, world.worker.participant, memory.record(inner.slot), -1);
          shm::crash_point(CrashPoint::ReleaseCounted);
          r.refs_released = i + 1;
          shm::holds::close(me);
        }
        shm::crash_point(CrashPoint::RecyclePayload);
      });
      REQUIRE(child.end() == kKilled);

      world.recovery->repair(world.worker.process, kCrash, nullptr);
      CHECK_FALSE(world.recovery->settle_orphans());
      for (std::uint32_t i = 0; i < kRefs; ++i) CHECK(world.holds(world.driver.slot(10 + i)) == 0);
    }
  }
}

// ---- Actors

TEST_CASE("an actor's interrupted call is repeated before all others, as often as it may be") {
  struct Row {
    std::string_view name;
    bool restarts;
    int max_task_retries;
    std::uint32_t attempt;
    bool again;
    ErrorCode code;
    bool replays = false;
    std::int16_t own = shm::kRetriesOfActor;
  };
  for (const Row& row :
       {Row{"restarts, one retry left", true, 1, 0, true, ErrorCode::kNone},
        Row{"restarts, none left", true, 1, 1, false, ErrorCode::kActorUnavailable},
        Row{"restarts, no retries", true, 0, 0, false, ErrorCode::kActorUnavailable},
        Row{"restarts, retries without end", true, -1, 100, true, ErrorCode::kNone},
        Row{"restarts, replays", true, 0, 9, true, ErrorCode::kNone, true},
        Row{"does not restart, replays", false, 0, 0, false, ErrorCode::kActorDied, true},
        Row{"does not restart", false, -1, 0, false, ErrorCode::kActorDied},
        Row{"one retry of its own", true, 0, 0, true, ErrorCode::kNone, false, 1},
        Row{"its own one is used", true, 9, 1, false, ErrorCode::kActorUnavailable, false, 1},
        Row{"its own without end", true, 0, 200, true, ErrorCode::kNone, false, -1},
        Row{"none of its own", true, -1, 0, false, ErrorCode::kActorUnavailable, false, 0},
        Row{"none of its own, replays", true, 0, 0, true, ErrorCode::kNone, true, 0}}) {
    CAPTURE(row.name);
    World world;
    const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
    const std::uint64_t offset = *world.tables.open_ring(world.driver.participant, actor);
    for (std::uint32_t i = 1; i <= 3; ++i) {
      Record& record = world.make(world.driver.slot(i), Kind::ActorCall);
      record.scheduling_class = actor;
      make_ready(record, world.driver.slot(i));
      shm::ring::push(world.memory, world.ring(offset), world.driver.slot(i));
    }
    Record& first = world.record(world.driver.slot(1));
    first.retries = row.own;
    std::uint64_t state = first.state.load();
    for (std::uint32_t i = 0; i < row.attempt; ++i) state = word::with_next_attempt(state);
    first.state.store(state);
    shm::Participant& me = world.memory.participant(world.worker.participant);
    REQUIRE(shm::claim::next(world.memory, world.ring(offset), me, world.worker.participant,
                             shm::claim::Order::AsSubmitted) == world.driver.slot(1));

    world.memory.scheduling_class(actor).lasting.options = row.replays ? shm::kReplays : 0;
    const Recovery::ActorFate fate{row.restarts, row.max_task_retries, actor};
    world.recovery->repair(world.worker.process, kCrash, &fate);

    std::vector<Address> rest{world.driver.slot(2), world.driver.slot(3)};
    if (row.again) {
      rest.insert(rest.begin(), world.driver.slot(1));
    } else {
      CHECK(world.state(world.driver.slot(1)) == State::Failed);
      CHECK(first.error().code == static_cast<std::uint32_t>(row.code));
    }
    CHECK(world.run_all(actor, shm::claim::Order::AsSubmitted) == rest);
  }
}

TEST_CASE("calls that wait for their answer are repeated first, in the order of their caller") {
  constexpr std::uint32_t kOpen = 400;  // more than a ring's first stage
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  Member other = world.worker;  // a second thread of the same process
  other.participant = *world.tables.open_participant(world.worker.process);
  const auto call = [&](std::uint32_t slot, std::uint64_t index) {
    const Address address = world.driver.slot(slot);
    Record& record = world.make(address, Kind::ActorCall);
    record.scheduling_class = actor;
    record.parent = 5;
    record.index = index;
    make_ready(record, address);
    return address;
  };
  std::vector<Address> expected(kOpen + 1);
  for (std::uint32_t i = 0; i < kOpen; ++i) {
    const Address address = call(i + 1, kOpen - 1 - i);  // the last slot was called first
    Member& thread = i % 3 == 0 ? other : world.worker;
    world.claim_by(thread, address);
    world.record(address).flags |= shm::flag::kOpen;
    world.memory.process(thread.process).open_calls.fetch_add(1);
    if (i % 7 != 0) shm::claim::forget(world.memory.participant(thread.participant));
    expected[kOpen - 1 - i] = address;
  }
  const Address running = call(kOpen + 1, kOpen);
  world.claim_by(world.worker, running);
  expected[kOpen] = running;

  const Recovery::ActorFate fate{true, 1};
  world.recovery->repair(world.worker.process, kCrash, &fate);

  CHECK(world.run_all(actor, shm::claim::Order::AsSubmitted) == expected);
  CHECK(world.memory.process(world.worker.process).open_calls.load() == 0);
  CHECK((world.record(running).flags & shm::flag::kOpen) == 0);
}

TEST_CASE("calls that are repeated keep their order when the next life does not come to them") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  const Recovery::ActorFate fate{true, -1, actor};
  std::vector<Address> calls;
  for (std::uint32_t slot = 1; slot <= 4; ++slot) {
    calls.push_back(world.driver.slot(slot));
    Record& record = world.make(calls.back(), Kind::ActorCall);
    record.scheduling_class = actor;
    record.index = slot;
    make_ready(record, calls.back());
    world.claim_by(world.worker, calls.back());
    record.flags |= shm::flag::kOpen;
    world.memory.process(world.worker.process).open_calls.fetch_add(1);
    shm::claim::forget(world.memory.participant(world.worker.participant));
  }
  world.recovery->repair(world.worker.process, kCrash, &fate);

  // The next life has the first one open, runs the second, and does not come to the others, of
  // which one is cancelled.
  const Member next = world.join(shm::ProcessRole::Actor);
  shm::Participant& me = world.memory.participant(next.participant);
  for (const std::size_t which : {0u, 1u}) {
    REQUIRE(shm::claim::next(world.memory, world.daemon_ring(actor), me, next.participant,
                             shm::claim::Order::AsSubmitted) == calls[which]);
    if (which == 0) shm::claim::forget(me);
  }
  world.record(calls[0]).flags |= shm::flag::kOpen;
  world.memory.process(next.process).open_calls.fetch_add(1);
  world.set(calls[2], State::Failed);
  world.recovery->repair(next.process, kCrash, &fate);

  CHECK(world.run_all(actor, shm::claim::Order::AsSubmitted) ==
        std::vector{calls[0], calls[1], calls[3]});
}

TEST_CASE("what a dead process would have run later fails; that of the living goes on") {
  World world;
  const std::uint32_t callbacks = world.open_class(shm::ClassKind::Callback);
  const auto callback = [&](const Member& owner, std::uint32_t slot, State state) {
    const Address address = owner.slot(slot);
    world.make(address, Kind::Callback).scheduling_class = callbacks;
    world.set(address, state);
    return address;
  };
  const Address ready = callback(world.worker, 1, State::Ready);
  const Address waiting = callback(world.worker, 2, State::Waiting);
  const Address running = callback(world.worker, 3, State::Ready);
  world.record(running).retries = 0;
  world.claim_by(world.worker, running);
  const Address living = callback(world.driver, 1, State::Ready);
  world.recovery->publish(world.record(ready), ready);
  world.recovery->publish(world.record(living), living);

  world.recovery->repair(world.worker.process, kCrash, nullptr);

  for (const Address address : {ready, waiting, running})
    CHECK(world.state(address) == State::Failed);
  CHECK(world.run_all(callbacks) == std::vector{living});
}

TEST_CASE("what an actor's dead process had submitted stays until its calls are covered") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  shm::LastingState& state = world.memory.scheduling_class(actor).lasting;
  REQUIRE(world.tables.lease_journal(actor, 0));
  const Address call = world.driver.slot(1);
  world.make(call, Kind::ActorCall).scheduling_class = actor;
  CHECK(shm::journal::take(world.memory, state, world.record(call), call) == 0);
  world.set(call, State::Done);
  const Address child = world.worker.slot(1);
  world.make(child, Kind::Put);
  world.set(child, State::Done);

  const Recovery::ActorFate fate{true, 0, actor};
  world.recovery->repair(world.worker.process, kCrash, &fate);

  CHECK(world.recovery->settle_orphans());
  CHECK(world.state(child) == State::Done);
  CHECK(world.recovery->past_segments(actor) == std::vector<std::uint32_t>{world.worker.segment});
  CHECK(shm::journal::needs(world.memory, world.record(call)));
  state.covered.store(1);
  CHECK_FALSE(shm::journal::needs(world.memory, world.record(call)));
  while (world.recovery->settle_orphans()) {
  }
  CHECK(world.state(child) == State::Free);
  CHECK(world.recovery->past_segments(actor).empty());
}

TEST_CASE("a checkpoint of a dead process stays while its actor names it, and what it refers to") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  shm::LastingState& state = world.memory.scheduling_class(actor).lasting;
  const Address inner = world.worker.slot(1);
  world.make(inner, Kind::Put);
  world.set(inner, State::Done);
  const Address checkpoint = world.worker.slot(2);
  Record& record = world.make(checkpoint, Kind::Put);
  const std::uint64_t table[] = {inner.packed(), 1};
  std::memcpy(record.result_inline, table, sizeof table);
  record.result_kind = shm::ResultKind::Inline;
  record.result_size = sizeof table;
  record.flags |= shm::flag::kResultHasRefs;
  world.set(checkpoint, State::Done);
  state.checkpoint[1].store(checkpoint.packed());

  const Recovery::ActorFate fate{true, 0, actor};
  world.recovery->repair(world.worker.process, kCrash, &fate);

  CHECK(world.recovery->settle_orphans());
  CHECK(world.state(checkpoint) == State::Done);
  CHECK(world.state(inner) == State::Done);
  state.checkpoint[1].store(0);
  while (world.recovery->settle_orphans()) {
  }
  CHECK(world.state(checkpoint) == State::Free);
  CHECK(world.state(inner) == State::Free);
}

TEST_CASE("calls to an actor that stays dead fail with its end, wherever they wait") {
  World world;
  const std::uint32_t actor = world.open_class(shm::ClassKind::Actor);
  shm::SchedulingClass& cls = world.memory.scheduling_class(actor);
  const std::uint64_t offset = *world.tables.open_ring(world.driver.participant, actor);
  const Address creation = world.driver.slot(10);
  world.make(creation, Kind::ActorCreate).scheduling_class = actor;
  world.set(creation, State::Waiting);
  cls.creation.store(creation.packed());
  cls.death = {static_cast<std::uint32_t>(shm::Death::Crashed), SIGKILL, 0, 99};
  const State states[] = {State::Ready, State::Waiting, State::Done, State::Ready};
  for (std::uint32_t i = 0; i < 4; ++i) {
    world.make(world.driver.slot(i + 1), Kind::ActorCall).scheduling_class = actor;
    world.set(world.driver.slot(i + 1), states[i]);
    shm::ring::push(world.memory, world.ring(offset), world.driver.slot(i + 1));
  }
  world.record(world.driver.slot(4))
      .state.store(word::make(2, State::Ready));  // its entry is of generation 1

  world.recovery->fail_calls(actor);

  for (const Address failed : {creation, world.driver.slot(1), world.driver.slot(2)}) {
    CHECK(world.state(failed) == State::Failed);
    const shm::CompactError& error = world.record(failed).error();
    CHECK(error.code == static_cast<std::uint32_t>(ErrorCode::kActorDied));
    CHECK(error.signal == SIGKILL);
    CHECK(error.pid == 99);
    CHECK(error.detail == static_cast<std::uint64_t>(shm::Death::Crashed));
  }
  CHECK(world.state(world.driver.slot(3)) == State::Done);
  CHECK(world.state(world.driver.slot(4, 2)) == State::Ready);
  CHECK(world.ring(offset).empty());
}

TEST_CASE(
    "tasks of a removed placement group fail: ready, waiting, or made ready by the dead later") {
  World world;
  shm::SchedulingClass& cls = world.memory.scheduling_class(world.cls);
  const Address ready = world.driver.slot(1);
  const Address waiting = world.driver.slot(2);
  const Address other = world.driver.slot(3);
  const Address running = world.driver.slot(4);
  const Address pushed_late = world.worker.slot(1);
  const std::uint32_t other_class = world.open_class(shm::ClassKind::Task);
  for (const Address task : {ready, waiting, other, running}) make_ready(world.make(task), task);
  world.set(waiting, State::Waiting);
  world.record(other).scheduling_class = other_class;
  world.claim_by(world.worker, running);

  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Dead));
  world.recovery->fail_tasks({world.cls});

  const auto failed = [&](Address task) {
    return world.state(task) == State::Failed &&
           world.record(task).error().code ==
               static_cast<std::uint32_t>(ErrorCode::kPlacementGroupRemoved);
  };
  CHECK(failed(ready));
  CHECK(failed(waiting));
  CHECK(world.state(other) == State::Ready);
  CHECK(world.state(running) == State::Claimed);

  make_ready(world.make(pushed_late), pushed_late);
  world.recovery->repair(world.worker.process, kCrash, nullptr);

  CHECK(failed(running));  // though it has retries left
  CHECK(failed(pushed_late));
  CHECK(world.run_all(world.cls).empty());
}

TEST_CASE("a creation that was never submitted is no later task's address") {
  World world;
  const Address first = world.worker.slot(1);
  const Address later = world.worker.slot(2, 8);
  world.set(world.worker.slot(2, 7), State::Free);
  const Address submitted = world.worker.slot(3);
  make_ready(world.make(submitted, Kind::ActorCreate), submitted);

  for (const Address creation : {first, later}) {
    CHECK_FALSE(world.recovery->withdraw_creation(creation, world.driver.process));
    CHECK(world.recovery->withdraw_creation(creation, world.worker.process));
    CHECK(world.state(creation) == State::Free);  // the next tenant takes the generation after it
    CHECK_FALSE(world.recovery->withdraw_creation(creation, world.worker.process));
  }
  CHECK_FALSE(world.recovery->withdraw_creation(submitted, world.worker.process));
  CHECK(world.state(submitted) == State::Ready);
}

TEST_CASE(
    "more tasks than the daemon's ring holds are opened again when their submitter and claimers "
    "die") {
  World world;
  constexpr std::uint32_t kRecords = 3000;
  for (std::uint32_t i = 1; i <= kRecords; ++i)
    make_ready(world.make(world.worker.slot(i)), world.worker.slot(i));

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  CHECK(world.daemon_ring(world.cls).stages.load() > 1);
  CHECK(world.run_all(world.cls).size() == kRecords);
  CHECK_FALSE(world.recovery->settle_orphans());
}

TEST_CASE("everybody who sleeps looks again after a death") {
  World world;
  const std::uint32_t any = world.memory.header().any_bell.value.load();
  const std::uint32_t own = world.memory.process(world.driver.process).bell.value.load();
  const std::uint32_t completions =
      world.memory.participant(world.driver.participant).completions.value.load();

  world.recovery->repair(world.worker.process, kCrash, nullptr);
  CHECK(world.memory.header().any_bell.value.load() != any);
  CHECK(world.memory.process(world.driver.process).bell.value.load() != own);
  CHECK(world.memory.participant(world.driver.participant).completions.value.load() != completions);
}

}  // namespace
}  // namespace mobula::node
