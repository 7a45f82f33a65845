// Sizes from a byte up, mixed at random for a long time: no put is refused while there is room, the
// memory in use stays in proportion to what is alive, and at the end all of it is there again.
//
// `scenario_fragmentation --minutes N` runs for N minutes over sizes up to 1 GB; without it, for
// some seconds over a smaller store. The store may not spill: what fits must fit into memory.
#include "support/scenario.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "support/object_memory.h"

using namespace std::chrono_literals;
using mobula::Buffer;
using mobula::Ref;
using mobula::remote;
using mobula::test::Clock;
using mobula::test::kSanitized;
using mobula::test::object_memory;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

struct Extent {  // of the run
  Clock::duration time = kSanitized ? 10s : 6s;
  std::uint64_t store = 256 * kMiB;
  std::uint64_t largest = 96 * kMiB;
} extent;

// Of what is alive; the rest of the store is for rounding and for holes.
constexpr double kLivePart = 0.6;
// Bytes that nobody else could have, of each live byte, at most, once enough is alive for a ratio
// to mean something: blocks are up to half larger than their values, extents of blocks may be
// partly used, and each process has its own.
constexpr double kTakenPerLive = 2.5;

std::uint64_t mix(std::uint64_t x) {  // splitmix64's finalizer
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Bytes that depend on the seed and their place, and a sum over all of them.
void fill(std::span<std::byte> bytes, std::uint64_t seed) {
  std::uint64_t word = mix(seed);
  for (std::size_t i = 0; i < bytes.size(); i += 8, word = word * 6364136223846793005u + seed)
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, bytes.size() - i));
}
bool is_filled(std::span<const std::byte> bytes, std::uint64_t seed) {
  std::uint64_t word = mix(seed);
  for (std::size_t i = 0; i < bytes.size(); i += 8, word = word * 6364136223846793005u + seed)
    if (std::memcmp(bytes.data() + i, &word, std::min<std::size_t>(8, bytes.size() - i)) != 0)
      return false;
  return true;
}

struct Value {
  std::uint64_t seed;
  std::uint64_t size;
  Ref<Buffer> buffer;  // written in place by this process, or
  Ref<std::string> made;  // the result of a task, in memory that a worker leases
};

std::string made_by_task(std::uint64_t seed, std::uint64_t size) {
  std::string text(size, 0);
  fill(std::as_writable_bytes(std::span(text)), seed);
  return text;
}

bool is_right(const Value& value) {
  if (value.made) {
    const auto text = mobula::get_view(value.made);
    return text.size() == value.size &&
           is_filled(std::as_bytes(std::span(text.data(), text.size())), value.seed);
  }
  const auto bytes = mobula::get_view(value.buffer);
  return bytes.size() == value.size && is_filled({bytes.data(), bytes.size()}, value.seed);
}

}  // namespace

TEST_CASE("under a random mix of sizes no put fails, and memory follows what is alive") {
  const char* const given = std::getenv("MOBULA_SEED");
  const std::uint64_t seed =
      given ? std::strtoull(given, nullptr, 10) : std::uint64_t{std::random_device{}()};
  INFO("replay with MOBULA_SEED=" << seed);
  std::mt19937_64 random(seed);
  const auto live_max = static_cast<std::uint64_t>(static_cast<double>(extent.store) * kLivePart);
  const double decades = std::log2(static_cast<double>(extent.largest));
  std::vector<Value> values;
  std::uint64_t live = 0, puts = 0, bytes_put = 0, most_live = 0;
  double worst_ratio = 0, most_resident = 0;
  int wrong = 0;
  const auto drop_one = [&] {
    // The larger of some: small ones stay for long, and lie between the large ones.
    std::size_t i = random() % values.size();
    for (int others = 0; others < 3; ++others) {
      const std::size_t other = random() % values.size();
      if (values[other].size > values[i].size) i = other;
    }
    // One of several is looked at before it goes: large ones always, so that bytes are checked
    // about as often as they are written.
    if (values[i].size > kMiB || random() % 4 == 0) wrong += !is_right(values[i]);
    if (wrong) std::printf("W %d %zu made %d\n", wrong, values[i].size, bool(values[i].made));
    live -= values[i].size;
    std::swap(values[i], values.back());
    values.pop_back();
  };

  const auto start = Clock::now();
  while (Clock::now() - start < extent.time) {
    const double exponent = std::uniform_real_distribution<>(0, decades)(random);
    const auto size = static_cast<std::uint64_t>(std::exp2(exponent));
    while (live + size > live_max || values.size() > 20'000) drop_one();
    Value value{random(), size, {}, {}};
    if (random() % 4 == 0) {
      value.made = remote<made_by_task>(value.seed, size);
      mobula::get_view(value.made);  // so that it counts from now on
    } else {
      Buffer buffer = mobula::create_buffer(size);
      fill({buffer.data(), buffer.size()}, value.seed);
      value.buffer = buffer.seal();
    }
    values.push_back(std::move(value));
    live += size;
    ++puts;
    bytes_put += size;
    most_live = std::max(most_live, live);
    if (puts % 16 == 0) {
      const auto memory = object_memory();
      most_resident = std::max(most_resident, memory.at("leased") + memory.at("warm"));
      const double taken = static_cast<double>(extent.store) -
                           mobula::available_resources().at("object_store_memory");
      if (live * 4 > live_max)
        worst_ratio = std::max(worst_ratio, taken / static_cast<double>(live));
    }
  }
  for (const Value& value : values) wrong += !is_right(value);
  const std::size_t left = values.size();
  values.clear();

  std::printf(
      "%llu values, %.1f GB in %.0f s; at most %.0f MB alive, %.0f MB of %.0f with pages; taken "
      "per "
      "live byte at worst %.2f; %zu values at the end\n",
      static_cast<unsigned long long>(puts), static_cast<double>(bytes_put) / 1e9,
      std::chrono::duration<double>(Clock::now() - start).count(),
      static_cast<double>(most_live) / 1e6, most_resident / 1e6,
      static_cast<double>(extent.store) / 1e6, worst_ratio, left);
  CHECK(wrong == 0);
  CHECK(worst_ratio > 0);
  CHECK(worst_ratio < kTakenPerLive);
  CHECK(most_resident <= static_cast<double>(extent.store));
  CHECK(object_memory().at("spilled_ever") == 0);
  // All but a page for what goes before the bytes; throws if anything was kept.
  CHECK(mobula::create_buffer(extent.store - 4096).size() == extent.store - 4096);
}

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::string_view(argv[i]) != "--minutes") continue;
    extent = {std::chrono::minutes(std::atoi(argv[i + 1])), 2048 * kMiB, 1024 * kMiB};
  }
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2,
                                       .object_store_memory = extent.store,
                                       .log_to_driver = false,
                                       .spill_limit = 0});
}
