// Rows about the object store: put, get, writing in place, views.
#include <cstring>

#include "mobula/mobula.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

constexpr std::size_t kMB = 1'000'000;
constexpr std::size_t kGB = 1'000'000'000;

std::uint64_t get_all(const std::vector<Ref<std::uint64_t>>& refs) {
  std::uint64_t sum = 0;
  for (const Ref<std::uint64_t>& ref : refs) sum += get(ref);
  return sum;
}

// Each batch is dropped before the next: a store that never gives back would not do.
void measure_put_small(const Runs& runs) {
  const std::uint64_t batches = runs.size(1000, 100);
  const auto rate = [&] {
    std::vector<Ref<std::uint64_t>> refs;
    refs.reserve(kBatch);
    const auto start = Clock::now();
    for (std::uint64_t batch = 0; batch < batches; ++batch) {
      refs.clear();
      for (std::uint64_t i = 0; i < kBatch; ++i) refs.push_back(put(batch * kBatch + i));
    }
    const double seconds = seconds_since(start);
    const std::uint64_t first = (batches - 1) * kBatch;
    expect_equal(get_all(refs), first * kBatch + kBatch * (kBatch - 1) / 2,
                 "the sum of the last batch");
    return static_cast<double>(batches * kBatch) / seconds;
  };
  rate();
  runs.interleave(rate, [&] { return ledger_in_place_per_s(batches * kBatch, 1); });
}

void measure_get_small(const Runs& runs) {
  const std::uint64_t rounds = runs.size(2000, 200);
  std::vector<Ref<std::uint64_t>> refs;
  refs.reserve(kBatch);
  for (std::uint64_t i = 0; i < kBatch; ++i) refs.push_back(put(i));
  const auto rate = [&] {
    std::uint64_t sum = 0;
    const auto start = Clock::now();
    for (std::uint64_t round = 0; round < rounds; ++round) sum += get_all(refs);
    const double seconds = seconds_since(start);
    expect_equal(sum, rounds * (kBatch * (kBatch - 1) / 2), "the sum of all values");
    return static_cast<double>(rounds * kBatch) / seconds;
  };
  rate();
  runs.interleave(rate, [&] { return ledger_read_per_s(rounds * kBatch); });
}

// Stores the same vector again and again, marked each time so that a stale copy is noticed, and
// copies it into warm shared memory in between.
void measure_put_large(const Runs& runs, std::size_t bytes, std::uint64_t times) {
  constexpr std::size_t kStride = 512;  // words: one mark in each page
  std::vector<std::uint64_t> source(bytes / sizeof(std::uint64_t), 7);
  const WarmMemory target(bytes);
  std::uint64_t mark = 0;
  const auto mark_source = [&] {
    ++mark;
    for (std::size_t i = 0; i < source.size(); i += kStride) source[i] = mark;
    source.back() = mark;
  };
  const auto copy_gb_s = [&] {
    mark_source();  // both find the source in the same state of the caches
    return memcpy_gb_s(target, source.data(), bytes);
  };
  const auto put_gb_s = [&] {
    mark_source();
    const auto start = Clock::now();
    const auto ref = put(source);
    const double seconds = seconds_since(start);
    const auto view = get_view(ref);
    expect_equal(view.size(), source.size(), "the size of the object");
    for (std::size_t i = 0; i < source.size(); i += kStride)
      expect_equal(view[i], mark, "a word of the object");
    expect_equal(view[view.size() - 1], mark, "the last word of the object");
    return static_cast<double>(bytes) / seconds * 1e-9;
  };
  for (int i = 0; i < 3; ++i) {  // the store's pages become warm, as the target's are
    put_gb_s();
    copy_gb_s();
  }
  runs.each([&] {
    std::vector<double> puts;
    std::vector<double> copies;
    for (std::uint64_t i = 0; i < times; ++i) {
      if (i % 2 == 0) puts.push_back(put_gb_s());
      copies.push_back(copy_gb_s());
      if (i % 2 == 1) puts.push_back(put_gb_s());
    }
    return Sample{median(puts), median(copies)};
  });
}

// What the store adds to the user's own writing: asking for the memory and sealing it. How fast the
// user can write into it is noted beside, as a share of memcpy to warm memory.
void measure_create_seal(const Runs& runs) {
  constexpr std::size_t kBytes = 100 * kMB;
  const std::vector<std::byte> source(kBytes, std::byte{5});
  const WarmMemory target(kBytes);
  std::vector<double> shares;
  const auto create_seal_us = [&] {
    const auto start = Clock::now();
    Buffer buffer = create_buffer(kBytes);
    const double created = seconds_since(start);

    const auto writing = Clock::now();
    std::memcpy(buffer.data(), source.data(), kBytes);
    const double written = seconds_since(writing);

    const auto sealing = Clock::now();
    const Ref<Buffer> ref = buffer.seal();
    const double sealed = seconds_since(sealing);

    const View<std::byte> view = get_view(ref);
    expect_equal(view.size(), kBytes, "the size of the object");
    expect_equal(std::to_integer<int>(view[kBytes - 1]), 5, "the last byte of the object");
    shares.push_back(static_cast<double>(kBytes) / written * 1e-9 /
                     memcpy_gb_s(target, source.data(), kBytes));
    return (created + sealed) * 1e6;
  };
  for (int i = 0; i < 3; ++i) create_seal_us();
  const std::uint64_t times = runs.size(11, 3);
  runs.interleave(
      [&] {
        shares.clear();
        const double us = median(repeat(times, create_seal_us));
        runs.note("write_share", median(shares));
        return us;
      },
      [&] { return 1e6 / ledger_in_place_per_s(200'000, 1); });
}

void measure_get_view(const Runs& runs, std::size_t bytes) {
  Buffer buffer = create_buffer(bytes);
  std::memset(buffer.data(), 3, bytes);
  const Ref<Buffer> ref = buffer.seal();
  const std::uint64_t views = runs.size(20'000, 2'000);
  const auto view_us = [&] {
    std::vector<double> us;
    us.reserve(views);
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < views; ++i) {
      const auto start = Clock::now();
      {
        const View<std::byte> view = get_view(ref);
        sum += std::to_integer<std::uint64_t>(view[view.size() - 1]);
      }
      us.push_back(seconds_since(start) * 1e6);
    }
    expect_equal(sum, 3 * views, "the sum of the last bytes");
    return median(us);
  };
  view_us();
  runs.interleave(view_us, [] { return 1e6 / ledger_read_per_s(2'000'000); });
}

Config store_of(std::uint64_t bytes) {
  Config config;
  config.object_store_memory = bytes;
  return config;
}

}  // namespace

void add_object_rows(std::vector<Row>& rows) {
  const std::string copy = "memcpy to warm shared memory";
  const auto large = [&](const char* key, const char* title, std::size_t bytes, std::uint64_t times,
                         std::uint64_t quick_times) {
    Row row{key, title, "GB/s", Better::Higher, copy, "12.8 GB/s", [=](const Runs& runs) {
              measure_put_large(runs, bytes, runs.size(times, quick_times));
            }};
    // the row's own object, the one before it that is still being given back, and room to move
    row.config = store_of(3 * bytes + kGB / 4);
    row.memory_needed = 5 * bytes + kGB / 4;
    return row;
  };
  const auto view = [&](const char* key, const char* title, std::size_t bytes) {
    Row row{key,
            title,
            "us",
            Better::Lower,
            "a read of one raw ledger slot",
            "",
            [=](const Runs& runs) { measure_get_view(runs, bytes); }};
    row.config = store_of(2 * bytes + kGB / 4);
    row.memory_needed = 2 * bytes + kGB / 4;
    return row;
  };
  rows.push_back({"put_8B", "put of 8 bytes", "1/s", Better::Higher,
                  "raw ledger in place, one core", "4,632/s", measure_put_small});
  rows.push_back({"get_8B", "get of 8 bytes", "1/s", Better::Higher, "reads of raw ledger slots",
                  "10,618/s", measure_get_small});
  rows.push_back(large("put_1MB", "put of 1 MB", kMB, 400, 40));
  rows.push_back(large("put_100MB", "put of 100 MB", 100 * kMB, 9, 3));
  rows.push_back(large("put_1GB", "put of 1 GB", kGB, 2, 1));
  rows.push_back({"create_seal_100MB", "create_buffer and seal of 100 MB, without the writing",
                  "us", Better::Lower, "a write of one raw ledger slot", "", measure_create_seal});
  rows.back().memory_needed = kGB;
  rows.push_back(view("get_view_100MB", "view of 100 MB", 100 * kMB));
  rows.push_back(view("get_view_1GB", "view of 1 GB", kGB));
}

}  // namespace mobula::bench
