// Prints rows: as a table for people, or one JSON object per line for scripts.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace mobula::cli {

using Cell = std::variant<std::string, double>;  // numbers are not quoted in JSON

struct Table {
  std::vector<std::string> columns;  // in capitals; JSON has them in small letters
  std::vector<std::vector<Cell>> rows;
};

// On a terminal lines are cut at its width, elsewhere never.
void print(const Table& table, bool json);

// "1.5 GiB"
std::string describe_bytes(double bytes);
// "3 min", "2 h"
std::string describe_seconds(double seconds);

}  // namespace mobula::cli
