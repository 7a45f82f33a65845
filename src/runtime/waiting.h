// Waiting for something that is not a record: a thread sleeps on a bell, and lends its CPU as one
// does that waits in get.
#pragma once

#include <functional>
#include <optional>

#include "mobula/detail/runtime.h"
#include "runtime/process.h"

namespace mobula::runtime {

struct BellWait {
  shm::WaitReason reason;
  RefAddress producer;  // whose stream it is, for tools and for who cancels
  shm::Bell& bell;
  std::atomic<std::uint32_t>& sleepers;  // set to 1 before each sleep; the waker sets it to 0
};

// Until `there()` is true: looks for some microseconds, then sleeps. False: the time is over.
// Throws TaskCancelledError when the task that waits is cancelled, NodeDiedError.
bool wait_at_bell(Process& process, const BellWait& wait, const std::function<bool()>& there,
                  std::optional<Duration> timeout);

}  // namespace mobula::runtime
