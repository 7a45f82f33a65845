// Which program a process runs, as users are told.
#pragma once

#include <sys/types.h>

#include <string>

namespace mobula::wire {

// The file name of its program; empty if it has ended, whether or not it has been waited for;
// "unknown" if the kernel does not say.
std::string program_of(pid_t pid);

}  // namespace mobula::wire
