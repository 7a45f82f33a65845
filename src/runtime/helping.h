// Help first: who waits for a task that nobody has begun runs it in place, in the CPU that it holds
// (as in Cilk's and leapfrogging's waits).
#pragma once

#include <cstdint>

#include "runtime/ledger.h"
#include "runtime/process.h"

namespace mobula::runtime {

// Claims and runs a task that this thread waits for, in place, if it may. True: it is final.
bool may_help(Process& process, const shm::Record& record);
bool help(Process& process, shm::Record& record, shm::Address address);

// Set by a worker at its start: the class whose tasks, and those that demand no more, it may run
// while it waits (kNone: none, as in an actor).
void set_help_class(std::uint32_t scheduling_class);
void set_stack_limit(const char* lowest);  // below it no further task is run in place

}  // namespace mobula::runtime
