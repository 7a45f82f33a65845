// A worker's life: it takes tasks of the class it is attached to, or the calls of its actor, until
// the daemon lets it go.
#pragma once

#include "runtime/process.h"

namespace mobula::runtime {

// Exit codes by which a worker tells the daemon why it ends of its own accord.
inline constexpr int kExitDone = 0;

[[noreturn]] void run_worker(Process& process);

// Becomes the zygote when the daemon started this program as one; returns in every other program.
void run_zygote_if_asked();

}  // namespace mobula::runtime
