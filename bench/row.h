// A row of the table: what is measured, the limit it is held against, and how one run of it looks.
//
// A row states its figure and its limit; how often both are taken, in which order and what becomes
// of the samples is decided here, the same for all. Row and limit alternate within a run, and the
// order turns round from run to run, so that a machine that slows down or speeds up meanwhile does
// not favour either.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "mobula/options.h"

namespace mobula::bench {

// One run of a row; what it returns goes into the table as median and spread.
struct Sample {
  double value;
  double limit;
};

class Runs {
 public:
  // `report` hears of each sample at once; `note` of further figures, by name.
  struct Listener {
    std::function<void(Sample)> sample;
    std::function<void(const std::string& name, double value)> note;
  };
  Runs(int count, bool quick, Listener listener)
      : count_(count), quick_(quick), listener_(std::move(listener)) {}

  // How much work one run does: enough for a steady figure, or just enough to see that it works.
  std::uint64_t size(std::uint64_t full, std::uint64_t quick) const {
    return quick_ ? quick : full;
  }

  void each(const std::function<Sample()>& run) const {
    for (int i = 0; i < count_; ++i) listener_.sample(run());
  }
  void interleave(const std::function<double()>& value,
                  const std::function<double()>& limit) const {
    bool value_first = true;
    each([&] {
      Sample sample{};
      if (value_first) sample.value = value();
      sample.limit = limit();
      if (!value_first) sample.value = value();
      value_first = !value_first;
      return sample;
    });
  }

  // A figure beside the row's own, once per run: "p99".
  void note(const std::string& name, double value) const { listener_.note(name, value); }

 private:
  int count_;
  bool quick_;
  Listener listener_;
};

enum class Better { Higher, Lower };

// Who starts sessions: the row's process before it measures, or probes that the row starts.
enum class Sessions { One, ByProbes };

struct Row {
  std::string key;
  std::string title;
  std::string unit;  // "1/s", "us", "ms", "s", "GB/s", "%"
  Better better;
  std::string limit;  // what the limit is, in a few words
  std::string ray;    // Ray's published figure for the same, or empty
  std::function<void(const Runs&)> measure;

  Sessions sessions = Sessions::One;
  Config config = {};
  bool only_by_name = false;  // takes minutes
  std::uint64_t memory_needed = 0;  // bytes that must be available, beyond small change
};

// All rows, in the order of the table.
const std::vector<Row>& all_rows();

void add_task_rows(std::vector<Row>& rows);
void add_actor_rows(std::vector<Row>& rows);
void add_object_rows(std::vector<Row>& rows);
void add_mesh_rows(std::vector<Row>& rows);
void add_stream_rows(std::vector<Row>& rows);
void add_crowd_rows(std::vector<Row>& rows);
void add_process_rows(std::vector<Row>& rows);
void add_long_rows(std::vector<Row>& rows);

// A figure counts only if what was computed is right.
template <class T>
void expect_equal(const T& got, const T& wanted, const char* what) {
  if (got == wanted) return;
  throw std::runtime_error(std::string("wrong result: ") + what + " is " + std::to_string(got) +
                           " instead of " + std::to_string(wanted));
}

}  // namespace mobula::bench
