// What the parts of class Node share (node.cc, node_answers.cc, node_workers.cc, node_actors.cc).
#pragma once

#include <cstdint>
#include <string_view>

#include "wire/local_protocol.h"

namespace mobula::node {

// What epoll reports: the process whose socket it is, or one of these.
inline constexpr std::uint64_t kTagDriver = 1ull << 32;
inline constexpr std::uint64_t kTagZygote = 2ull << 32;
inline constexpr std::uint64_t kTagBell = 3ull << 32;
inline constexpr std::uint64_t kTagWorker = 4ull << 32;  // | process
inline constexpr std::uint64_t kTagDriverEnd = 5ull << 32;
inline constexpr std::uint64_t kTagSpiller = 6ull << 32;

inline constexpr std::uint32_t kDriverProcess = 1;  // the daemon's own entry is 0
inline constexpr int kWorkersMax = 1200;

// A process by descriptor: its number may be another's by now, this is not.
int open_pidfd(std::uint32_t pid);

inline void refuse(wire::Message& message, wire::Status status, std::string_view why) {
  message.status = status;
  message.set_text(why);
}

}  // namespace mobula::node
