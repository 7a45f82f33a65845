// A daemon's shared memory and its tables, for the unit tests of what hands them out.
#pragma once

#include "node/tables.h"
#include "shm/processes_test.h"

namespace mobula::node::testing {

struct World {
  explicit World(std::size_t object_capacity = 1 << 20) : session(object_capacity) {}

  std::uint32_t process() { return tables.open_process(shm::ProcessRole::Worker).value(); }

  shm::testing::Session session;
  shm::Memory& memory = session.memory();
  Tables tables{memory, 77, 2};
};

}  // namespace mobula::node::testing
