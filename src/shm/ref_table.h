// The table of refs that ends a value which contains some, read by who has the value and by the
// daemon, when its owner is dead:
//
//   [bytes] [zeros to 8] [packed address of each ref] [u64 number of refs]
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace mobula::shm {

constexpr std::uint64_t size_with_refs(std::uint64_t size, std::size_t refs) {
  return refs == 0 ? size : (size + 7) / 8 * 8 + 8 * refs + 8;
}

// Packed addresses; the value has at least one.
inline std::span<const std::uint64_t> trailing_refs(const std::byte* data, std::uint64_t size) {
  std::uint64_t count = 0;
  const std::byte* end = data + size - sizeof count;
  std::memcpy(&count, end, sizeof count);
  return {reinterpret_cast<const std::uint64_t*>(end) - count, count};
}

}  // namespace mobula::shm
