// Reads where a session's memory is, for the program itself and for tools that look from outside.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "mobula/memory.h"
#include "runtime/process.h"
#include "shm/memory.h"

namespace mobula::runtime {

struct MemorySource {
  const shm::Memory& memory;
  const std::map<std::string, double>& counts;  // the daemon's answer to ObjectMemory
  std::function<std::string(std::uint64_t key)> function_name;
  RefCounts* own_refs;  // of the process that asks; nullptr: it has none
};
MemoryReport read_memory(const MemorySource& source);

}  // namespace mobula::runtime
