// What the daemon knows of the object memory, and its file of spilled objects.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "runtime/process.h"
#include "wire/local_protocol.h"

namespace mobula::test {

// In a session: amounts by the names of node::ObjectMemory::Counts, bytes.
inline std::map<std::string, double> object_memory() {
  wire::Message message;
  message.kind = wire::Kind::ObjectMemory;
  runtime::current_process()->daemon().ask(message);
  return wire::parse_amounts(message.text_view());
}

// Path under /proc of the node's file of spilled objects, which has no other; empty: none is open.
inline std::string spill_file(pid_t node, const std::filesystem::path& folder) {
  std::error_code gone;
  const std::filesystem::path open = "/proc/" + std::to_string(node) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(open, gone)) {
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.starts_with(folder.string() + "/") && target.ends_with("(deleted)"))
      return entry.path().string();
  }
  return {};
}

}  // namespace mobula::test
