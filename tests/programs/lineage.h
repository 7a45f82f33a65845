// What values are in random programs: hashes of all that led to them.
//
// A value that is wrong, stale, swapped or torn is then seen by comparing 8 bytes; large values are
// filled from their hash, and whoever reads one checks every word of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>

namespace mobula::programs {

using Hash = std::uint64_t;

constexpr Hash mix(Hash x) {  // splitmix64's finalizer
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Order matters: fold(fold(a, b), c) differs from fold(fold(a, c), b).
constexpr Hash fold(Hash all, Hash next) { return mix(all * 0x9e3779b97f4a7c15u + next + 1); }
constexpr Hash fold(Hash all, std::initializer_list<Hash> next) {
  for (const Hash hash : next) all = fold(all, hash);
  return all;
}

// The i-th child of what has this id: a step of a plan, a task of a task.
constexpr Hash child(Hash id, std::uint64_t i) { return mix(id + (i + 1) * 0xd1b54a32d192ed03u); }

// A block is a hash and the words that follow from it.
inline void fill_block(std::span<Hash> words, Hash hash) {
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = i == 0 ? hash : mix(hash + i);
}
// The hash of a block, or nothing if any word of it is not as it was written.
inline std::optional<Hash> read_block(std::span<const Hash> words) {
  if (words.empty()) return {};
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i] != mix(words[0] + i)) return {};
  }
  return words[0];
}
// What a block stands for in the lineage of others.
constexpr Hash block_value(Hash hash, std::uint64_t words) { return fold(hash, words); }

// Seeded, and the same everywhere (the standard's distributions are not).
class Dice {
 public:
  explicit Dice(Hash seed) : state_(seed) {}
  Hash next() { return mix(state_ += 0x9e3779b97f4a7c15u); }
  std::uint32_t below(std::uint32_t limit) {
    return static_cast<std::uint32_t>((next() >> 32) * limit >> 32);
  }
  std::uint32_t between(std::uint32_t least, std::uint32_t most) {
    return least + below(most - least + 1);
  }
  bool percent(std::uint32_t chance) { return below(100) < chance; }

 private:
  Hash state_;
};

}  // namespace mobula::programs
