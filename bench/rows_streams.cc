// Rows about streams: many small items, and large ones.
#include "mobula/mobula.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

void numbers(Sink<std::uint64_t>& out, std::uint64_t n) {
  for (std::uint64_t i = 0; i < n; ++i) out.push(i);
}

void measure_items(const Runs& runs) {
  const std::uint64_t items = runs.size(2'000'000, 50'000);
  const auto rate = [](std::uint64_t n) {
    std::uint64_t sum = 0;
    StreamRef<std::uint64_t> stream = remote<numbers>(n);
    sum += stream.next().value();  // its producer has begun
    const auto start = Clock::now();
    for (const std::uint64_t item : stream) sum += item;
    const double seconds = seconds_since(start);
    expect_equal(sum, n * (n - 1) / 2, "the sum of all items");
    return static_cast<double>(n - 1) / seconds;
  };
  rate(items / 10);
  runs.interleave([&] { return rate(items); }, [&] { return ledger_loop_per_s(items / kBatch); });
}

constexpr std::size_t kMegabyte = 1 << 20;

// Each item is written into the store by the producer and copied out of it by the reader.
void megabytes(Sink<std::vector<std::byte>>& out, std::uint64_t n) {
  std::vector<std::byte> item(kMegabyte);
  for (std::uint64_t i = 0; i < n; ++i) {
    item.front() = item.back() = static_cast<std::byte>(i);
    out.push(item);
  }
}

void measure_megabytes(const Runs& runs) {
  const std::uint64_t items = runs.size(1000, 50);
  const auto rate = [](std::uint64_t n) {
    StreamRef<std::vector<std::byte>> stream = remote<megabytes>(n);
    std::uint64_t i = 0;
    const auto start = Clock::now();
    for (const std::vector<std::byte>& item : stream) {
      if (item.front() != static_cast<std::byte>(i) || item.back() != static_cast<std::byte>(i))
        throw std::runtime_error("an item of the stream has wrong bytes");
      ++i;
    }
    const double seconds = seconds_since(start);
    expect_equal(i, n, "the number of items");
    return static_cast<double>(n) * kMegabyte / seconds / 1e9;
  };
  rate(items / 10 + 100);
  const WarmMemory target(kMegabyte);
  const std::vector<std::byte> source(kMegabyte, std::byte{1});
  runs.interleave([&] { return rate(items); },
                  [&] { return memcpy_gb_s(target, source.data(), kMegabyte); });
}

}  // namespace

void add_stream_rows(std::vector<Row>& rows) {
  rows.push_back({"stream_items", "8-byte items of one stream, read by the driver", "1/s",
                  Better::Higher, "raw ledger loop", "", measure_items});
  rows.push_back({"stream_1MB", "items of 1 MiB of one stream, copied out by the driver", "GB/s",
                  Better::Higher, "memcpy to warm memory", "", measure_megabytes});
}

}  // namespace mobula::bench
