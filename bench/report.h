// How results look: a table for people, one JSON object per row for scripts.
//
// A row's value is the median of its runs, its spread their least and greatest. The ratio is the
// median of value / limit run by run, not the ratio of the medians: each pair was taken within one
// moment of the machine.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "row.h"

namespace mobula::bench {

// What came of one row: samples, or why there are none.
struct Outcome {
  std::vector<Sample> samples;
  std::map<std::string, std::vector<double>> notes;
  std::string error;    // not empty: the row failed
  std::string skipped;  // not empty: the row was not tried
};

struct Summary {
  double value;
  double least;
  double greatest;
  double limit;
  double ratio;  // NaN when the limit is 0
};
Summary summarize(const std::vector<Sample>& samples);

// "2.31 M/s", "840 ns", "12.8 GB/s": three digits that mean something.
std::string with_unit(double value, const std::string& unit);

struct TableStyle {
  bool terminal;  // bold heads, red failures
};
std::string table_head(const TableStyle& style);
std::string table_line(const Row& row, const Outcome& outcome, const TableStyle& style);

// One line: row, value, unit, limit, ratio, spread [least, greatest], runs, limit_name and the
// notes. A failed row has `error` and null figures, a skipped one `skipped`.
std::string json_line(const Row& row, const Outcome& outcome);

}  // namespace mobula::bench
