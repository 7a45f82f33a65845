// How a task is cancelled, by a call, with its parent or for its deadline, and how the one that
// runs notices (shm/cancel.h has the change of the record).
#pragma once

#include <cstdint>

#include "runtime/execution.h"

namespace mobula::runtime {

// Cancels a task on behalf of this thread; `how` as in shm/cancel.h. True: it will have no value.
bool cancel(Ledger& ledger, shm::Record& record, shm::Address address, std::uint64_t how);
// Those of a cancelled task, if that was asked for. True: there were some.
bool cancel_children(Frame& frame);
// Cancels a task that this thread runs, for its time is over. Of a method that has answered and
// goes on, the record is final, or another task's.
void expire(Frame& frame);
// Is this thread's innermost task cancelled? Children of all its cancelled tasks are cancelled on
// the way, where that was asked for.
bool should_stop();
[[noreturn]] void throw_stopped();

}  // namespace mobula::runtime
