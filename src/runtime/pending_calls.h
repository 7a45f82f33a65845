// How many calls of this process an actor has not finished, where ActorOptions.max_pending_calls
// bounds them.
//
// Only calls of actors that have such a bound come here. They are listed, and looked at again when
// the list is full; so an answer costs nothing, and neither does an actor without a bound.
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <unordered_map>

#include "shm/memory.h"

namespace mobula::runtime {

class PendingCalls {
 public:
  // Lists the call. Throws PendingCallsLimitError, with nothing listed, if as many as the actor's
  // class allows are not finished.
  void admit(const shm::Memory& memory, std::uint32_t actor, shm::Address call);

 private:
  struct Calls {
    std::uint64_t creation = 0;  // of which actor: classes are used again
    std::deque<shm::Address> unfinished;  // when it was looked at last
  };
  std::mutex mutex_;
  std::unordered_map<std::uint32_t, Calls> by_actor_;
};

}  // namespace mobula::runtime
