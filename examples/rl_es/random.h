// Decides how a seed becomes numbers: by counting, so that any process can make the
// n-th number of a stream without the ones before it. That is why the learning curve
// does not depend on which worker runs what.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace rl_es {

// Scrambles 64 bits (a bijection with good avalanche, as in the splitmix64 generator).
constexpr std::uint64_t scramble(std::uint64_t bits) {
  bits += 0x9e3779b97f4a7c15ull;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  return bits ^ (bits >> 31);
}

// One seed out of several parts; the order of the parts matters.
constexpr std::uint64_t mix_seed(std::initializer_list<std::uint64_t> parts) {
  std::uint64_t seed = 0;
  for (const std::uint64_t part : parts) seed = scramble(seed ^ part);
  return seed;
}

// A stream of numbers from one seed.
class RandomStream {
 public:
  explicit constexpr RandomStream(std::uint64_t seed) : state_(scramble(seed)) {}

  constexpr std::uint64_t next() { return scramble(state_ + 0x9e3779b97f4a7c15ull * ++count_); }

  // Uniform in [low, high).
  constexpr double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53;
  }

 private:
  std::uint64_t state_;
  std::uint64_t count_ = 0;
};

}  // namespace rl_es
