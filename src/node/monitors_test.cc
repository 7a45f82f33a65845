#include "node/monitors.h"

#include <doctest/doctest.h>

#include <set>

#include "node/world_test.h"
#include "shm/holds.h"

using mobula::ActorDeath;
using mobula::DeathReason;
using mobula::node::Monitors;
namespace shm = mobula::shm;

namespace {

struct World final : mobula::node::testing::World, shm::ReadySink {
  std::uint32_t daemon = *tables.open_participant(process());
  std::uint32_t holder = *tables.open_participant(process());
  Monitors monitors{memory, tables, daemon, *this};

  void publish(shm::Record&, shm::Address) override {}
  shm::State state(shm::Address address) const {
    const std::uint64_t seen = memory.record(address.slot).state.load();
    REQUIRE(shm::word::generation(seen) == address.generation);
    return shm::word::state(seen);
  }
  void hold(shm::Address address, int by) {
    shm::holds::open(memory.participant(holder), shm::HoldOp::Hold, address, 0);
    shm::holds::change(memory, holder, memory.record(address.slot), by);
    shm::holds::close(memory.participant(holder));
  }
};

}  // namespace

TEST_CASE("all monitors of an actor are one record, which is Done when it has died") {
  World world;
  const shm::Address record = world.monitors.record_of(3).value();
  CHECK(world.monitors.record_of(3) == record);
  CHECK(!(world.monitors.record_of(4) == record));
  CHECK(world.state(record) == shm::State::Claimed);

  world.monitors.actor_died(3, {DeathReason::Crashed, 11, 0, 2, 4711});
  world.monitors.actor_died(3, {DeathReason::Killed, 9, 0, 0, 1});  // told again: nothing new
  world.monitors.actor_died(5, {});                                 // nobody asked

  CHECK(world.state(record) == shm::State::Done);
  shm::Record& result = world.memory.record(record.slot);
  mobula::Reader reader(result.result_inline, result.result_size);
  const auto death = mobula::decode<ActorDeath>(reader);
  CHECK(death.reason == DeathReason::Crashed);
  CHECK(death.signal == 11);
  CHECK(death.restarts == 2);
  CHECK(death.process_id == 4711);
}

TEST_CASE("a record is used again when its actor is gone and nobody holds it, not before") {
  World world;
  const shm::Address record = world.monitors.record_of(3).value();
  world.hold(record, +1);
  world.monitors.actor_died(3, {});
  world.monitors.forget(3);

  world.monitors.tidy();
  CHECK(world.state(record) == shm::State::Done);
  const shm::Address next = world.monitors.record_of(3).value();  // the class is another actor's
  CHECK(next.slot != record.slot);

  world.hold(record, -1);
  world.monitors.tidy();
  CHECK(world.state(record) == shm::State::Free);
  const shm::Address again = world.monitors.record_of(4).value();
  CHECK(again.slot == record.slot);
  CHECK(again.generation == record.generation + 1);
}

TEST_CASE("thousands of monitored actors have records of their own") {
  World world;
  std::set<std::uint32_t> slots;
  for (std::uint32_t actor = 0; actor < 9000; ++actor)
    slots.insert(world.monitors.record_of(actor).value().slot);
  CHECK(slots.size() == 9000);
}
