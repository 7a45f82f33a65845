// What the parts of class Node share (node*.cc), and the daemon of a node that stays (head.cc).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "core/resources.h"
#include "wire/local_protocol.h"

namespace mobula::node {

// What epoll reports: the process whose socket it is, or one of these.
inline constexpr std::uint64_t kTagDriver = 1ull << 32;
inline constexpr std::uint64_t kTagZygote = 2ull << 32;
inline constexpr std::uint64_t kTagBell = 3ull << 32;
inline constexpr std::uint64_t kTagWorker = 4ull << 32;  // | process
inline constexpr std::uint64_t kTagDriverEnd = 5ull << 32;
inline constexpr std::uint64_t kTagSpiller = 6ull << 32;

inline constexpr std::uint64_t kTagNode = 7ull << 32;  // that stays, and that this one is of
inline constexpr std::uint64_t kTagTools = 8ull << 32;  // listening
inline constexpr std::uint64_t kTagTool = 9ull << 32;  // | descriptor
inline constexpr std::uint64_t kTagZygoteEnd = 10ull << 32;

inline constexpr std::uint32_t kDriverProcess = 1;  // the daemon's own entry is 0
inline constexpr int kWorkersMax = 1200;

// A process by descriptor: its number may be another's by now, this is not.
int open_pidfd(std::uint32_t pid);

std::uint64_t random_id();  // not zero; throws std::runtime_error

// Amounts as daemons tell each other: "CPU=20000\n", in units, so that nothing is rounded.
std::string format_units(const core::ResourceAmounts& amounts);
core::ResourceAmounts parse_units(std::string_view text);

template <std::size_t N>
void copy_text(char (&to)[N], std::string_view text) {
  const std::size_t n = std::min(text.size(), N - 1);
  std::memcpy(to, text.data(), n);
  to[n] = 0;
}

inline void refuse(wire::Message& message, wire::Status status, std::string_view why) {
  message.status = status;
  message.set_text(why);
}

}  // namespace mobula::node
