// For each actor that somebody monitors, a record that becomes Done when the actor is dead for
// good; and for each placement group that somebody waits for, one that becomes Done when the group
// has its resources, or Failed when it will not.
//
// The records lie in a ledger of the daemon's own, so a monitor outlives the process that asked for
// it, and all monitors of an actor share one. A record that is waited for costs its 256 bytes. It
// is used again when its actor is gone and nobody holds it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "mobula/actor.h"
#include "node/tables.h"
#include "shm/dependents.h"
#include "shm/memory.h"

namespace mobula::node {

class Monitors {
 public:
  // `sink`: where tasks go that waited for an actor's end.
  Monitors(shm::Memory& memory, Tables& tables, std::uint32_t daemon_participant,
           shm::ReadySink& sink);

  // The record of this actor's end; nothing: no memory is left.
  std::optional<shm::Address> record_of(std::uint32_t actor);
  // It is dead for good. May be told again.
  void actor_died(std::uint32_t actor, const ActorDeath& death);
  // Its class will be another actor's, or group's.
  void forget(std::uint32_t actor);

  // Of groups, which have classes of their own. May be told again; what was told first counts.
  void granted(std::uint32_t group);
  void group_removed(std::uint32_t group);
  // Frees what nobody holds any more.
  void tidy();

 private:
  void complete(std::uint32_t group, shm::State state);
  std::optional<std::uint32_t> take_slot();
  bool find_slots();

  shm::Memory& memory_;
  Tables& tables_;
  const std::uint32_t me_;
  shm::ReadySink& sink_;
  std::map<std::uint32_t, shm::Address> records_;  // by actor
  std::vector<shm::Address> forgotten_;  // final; somebody may still hold them
  std::vector<std::uint32_t> free_;
  std::uint32_t segment_ = shm::kNone;  // the newest
  std::uint32_t used_ = shm::kRecordsPerSegment;  // its records that were ever free
};

}  // namespace mobula::node
