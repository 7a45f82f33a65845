#include "node/wait_survey.h"

#include <doctest/doctest.h>

#include <functional>
#include <string_view>

#include "shm/claim.h"
#include "shm/processes_test.h"
#include "shm/stream.h"

namespace mobula::node {
namespace {

using namespace shm::testing;
using shm::Address;
using shm::Kind;
using shm::Record;
using shm::State;
namespace word = shm::word;

// An actor whose method (record 1) waits for a call of itself (record 2).
struct World {
  World() {
    cls = *tables.open_class();
    memory.scheduling_class(cls).kind.store(static_cast<std::uint32_t>(shm::ClassKind::Actor));
    process = *tables.open_process(shm::ProcessRole::Actor);
    participant = *tables.open_participant(process);
    segment = *tables.lease_segment(participant);
    for (const Address address : {method(), call()}) {
      Record& record = make_task(memory, address);
      record.kind = Kind::ActorCall;
      record.scheduling_class = cls;
      make_ready(record, address);
    }
    shm::claim::intend(thread(), method());
    REQUIRE(shm::claim::take(record(method()), method(), participant));
    thread().wait.record[0].store(call().packed());
    thread().wait.count.store(1);
    thread().wait.needed.store(1);
    thread().wait.reason.store(static_cast<std::uint32_t>(shm::WaitReason::Task));
  }
  Address method() const { return {segment * shm::kRecordsPerSegment + 1, 1}; }
  Address call() const { return {segment * shm::kRecordsPerSegment + 2, 1}; }
  Record& record(Address address) { return memory.record(address.slot); }
  shm::Participant& thread() { return memory.participant(participant); }
  std::vector<WaitSurvey::Deadlock> look() {
    return survey.look({{{cls, process}}, {process}, {}});
  }

  Session session;
  shm::Memory& memory = session.memory();
  Tables tables{memory, 4711, 2};
  WaitSurvey survey{memory, tables};
  std::uint32_t cls, process, participant, segment;
};

TEST_CASE("a circle is reported when it is seen for the second time, with what its threads run") {
  World world;

  CHECK(world.look().empty());
  CHECK(world.survey.suspects());
  const auto found = world.look();

  REQUIRE(found.size() == 1);
  CHECK(found[0].call == world.call());
  CHECK(found[0].steps == std::vector{world.method(), world.call()});
}

// The method reads the stream that the call is to fill.
struct StreamWorld : World {
  StreamWorld() {
    number = *tables.lease_stream(process);
    shm::stream::open(stream(), call(), 4);
    record(call()).result_word = number;
    record(call()).flags |= shm::flag::kStream;
    thread().wait.reason.store(static_cast<std::uint32_t>(shm::WaitReason::StreamItem));
  }
  shm::Stream& stream() { return shm::stream::at(memory, number); }
  std::uint32_t number = 0;
};

TEST_CASE("a circle through a stream is one while nothing of the stream can be read") {
  StreamWorld world;

  CHECK(world.look().empty());
  const auto found = world.look();

  REQUIRE(found.size() == 1);
  CHECK(found[0].call == world.call());

  StreamWorld pushed;
  REQUIRE(pushed.look().empty());
  shm::stream::publish(pushed.stream(), pushed.stream().first);
  CHECK(pushed.look().empty());
  CHECK(shm::stream::take(pushed.stream(), pushed.participant));
  CHECK(pushed.look().empty());  // seen for the first time again
  CHECK(pushed.look().size() == 1);

  StreamWorld stopped;
  REQUIRE(stopped.look().empty());
  shm::stream::stop(stopped.stream());
  CHECK(stopped.look().empty());

  StreamWorld reused;
  REQUIRE(reused.look().empty());
  reused.stream().record.store(reused.method().packed());
  CHECK(reused.look().empty());
}

TEST_CASE("what may end by itself is no deadlock, though it was suspected") {
  struct Row {
    std::string_view name;
    std::function<void(World&)> change;
  };
  for (const Row& row :
       {Row{"the call was done",
            [](World& w) { w.record(w.call()).state.store(word::make(1, State::Done)); }},
        Row{"its slot serves another task",
            [](World& w) { w.record(w.call()).state.store(word::make(2, State::Ready)); }},
        Row{"the wait is over", [](World& w) { w.thread().wait.reason.store(0); }},
        Row{"it waits for memory",
            [](World& w) {
              w.thread().wait.reason.store(static_cast<std::uint32_t>(shm::WaitReason::Memory));
            }},
        Row{"it waits with a timeout", [](World& w) { w.thread().wait.ends_by_itself.store(1); }},
        Row{"it waits for more than it lists",
            [](World& w) { w.thread().wait.count.store(shm::kWaitsListed + 1); }},
        Row{"the method was cancelled",
            [](World& w) { w.record(w.method()).state.fetch_or(word::kCancelled); }},
        Row{"the call was claimed, by a thread that is awake", [](World& w) {
              const std::uint32_t other =
                  *w.tables.open_participant(*w.tables.open_process(shm::ProcessRole::Actor));
              shm::claim::take(w.record(w.call()), w.call(), other);
            }}}) {
    CAPTURE(row.name);
    World world;
    REQUIRE(world.look().empty());

    row.change(world);

    CHECK(world.look().empty());
    CHECK_FALSE(world.survey.suspects());
  }
}

}  // namespace
}  // namespace mobula::node
