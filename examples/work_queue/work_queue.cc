// A queue of work: a stream that several workers read together.
//
// A producer makes ranges of numbers without end, and workers look in them for a number whose hash
// begins with zero bits. The producer is never more than a few ranges ahead of the workers
// (back-pressure), and when one of them has found what is sought, it stops the stream: all other
// workers see its end, and the producer ends at its next push.
#include <mobula/mobula.h>

#include <cstdint>
#include <cstdio>
#include <optional>
#include <vector>

#include "number_options.h"

namespace {

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct Report {
  long ranges = 0;
  std::optional<std::uint64_t> found;
};

const mobula::Counter ranges_made("ranges_made_total", "ranges that the producer has pushed");

// splitmix64: each bit of the result depends on each bit of x.
std::uint64_t hash(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

bool begins_with_zeros(std::uint64_t x, long bits) { return hash(x) >> (64 - bits) == 0; }

// Has no end of its own: push throws StreamStopped when nobody wants more.
void make_ranges(mobula::Sink<Range>& out, std::uint64_t size) {
  for (std::uint64_t begin = 0;; begin += size) {
    out.push(Range{begin, begin + size});
    ranges_made.add();
  }
}

Report look(mobula::StreamRef<Range> ranges, long bits) {
  Report report;
  for (const Range& range : ranges) {  // each range goes to one worker
    ++report.ranges;
    for (std::uint64_t x = range.begin; x < range.end; ++x) {
      if (!begins_with_zeros(x, bits)) continue;
      report.found = x;
      ranges.stop();  // for all workers, and for the producer
      return report;
    }
  }
  return report;
}

long ranges_made_so_far() {
  for (const mobula::MetricSample& sample : mobula::metrics()) {
    if (sample.name == "ranges_made_total") return static_cast<long>(sample.value);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  long workers = 4;
  long size = 10'000;
  long bits = 22;
  long ahead = 8;
  parse_numbers(argc, argv,
                {{"--workers", &workers, 1, "tasks that share the ranges out among them"},
                 {"--size", &size, 1, "numbers in a range"},
                 {"--bits", &bits, 1, "zeros with which the sought hash begins"},
                 {"--ahead", &ahead, 1, "ranges that may lie unread"}});
  const mobula::Session session(argc, argv);

  const mobula::StreamRef<Range> ranges = mobula::remote<make_ranges>.with(
      {.max_unread = static_cast<std::size_t>(ahead)})(static_cast<std::uint64_t>(size));
  std::vector<mobula::Ref<Report>> reports;
  for (long i = 0; i < workers; ++i) reports.push_back(mobula::remote<look>(ranges, bits));

  long searched = 0;
  bool right = true;
  for (const Report& report : mobula::get(reports)) {
    searched += report.ranges;
    if (!report.found) continue;
    right = right && begins_with_zeros(*report.found, bits);
    std::printf("the hash of %llu begins with %ld zeros\n",
                static_cast<unsigned long long>(*report.found), bits);
  }
  std::printf("%ld ranges searched, %ld made: at most %ld lay unread\n", searched,
              ranges_made_so_far(), ahead);
  return right ? 0 : 1;
}
