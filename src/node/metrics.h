// Which process counts which metric where, and the sums.
//
// A process counts in cells of pages that are its own, so processes never share a cache line; only
// it adds there, and only the daemon reads it. When it has died, its counters are added to what is
// kept, and its pages serve another one.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "mobula/metrics.h"
#include "node/tables.h"
#include "shm/memory.h"
#include "wire/local_protocol.h"

namespace mobula::node {

class Metrics {
 public:
  Metrics(shm::Memory& memory, Tables& tables) : memory_(memory), tables_(tables) {}

  struct Opened {
    std::uint64_t cells = 0;  // heap offset of the process's, all 0 when they are new
    std::string problem;  // if not empty, there are none
  };
  // `series.value` and `.counts` do not matter.
  Opened open(std::uint32_t process, std::uint32_t kind, const MetricSample& series);
  void process_died(std::uint32_t process);

  std::vector<MetricSample> samples() const;

  // Of a progress (wire::kProgress): all that was begun under its name.
  struct Progress {
    std::string name;
    double done = 0;
    double total = 0;
    bool open = false;  // somebody is at it
  };
  std::vector<Progress> progress() const;

 private:
  struct Series {
    std::uint32_t kind;
    MetricSample shown;
    std::vector<double> kept;  // of processes that are gone
    std::map<std::uint32_t, std::uint64_t> cells;  // by process, heap offsets
  };
  struct Pages {
    std::vector<std::uint64_t> pages;
    std::uint32_t used = 0;  // cells of the newest
  };
  std::atomic<double>* at(std::uint64_t cells) const {
    return reinterpret_cast<std::atomic<double>*>(memory_.heap(cells));
  }
  std::uint64_t take_cells(std::uint32_t process, std::uint32_t count);
  std::vector<double> sum(const Series& series) const;

  shm::Memory& memory_;
  Tables& tables_;
  std::map<std::string, std::map<MetricTags, Series>> series_;  // by name
  std::map<std::uint32_t, Pages> pages_;  // by process
  std::vector<std::uint64_t> free_pages_;
};

}  // namespace mobula::node
