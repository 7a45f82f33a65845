// Which functions this program has: key -> how to call it. Filled before main(), read-only
// afterwards.
#pragma once

#include "mobula/detail/runtime.h"

namespace mobula::runtime {

// nullptr: this program has no such function.
const detail::FunctionInfo* find_function(std::uint64_t key);

}  // namespace mobula::runtime
