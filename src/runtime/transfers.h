// Holds for the refs inside of a value on its way: they are its container's (a result's record, or
// the mark of a stream's item) once that is published, and given up if the process dies before.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/ledger.h"
#include "runtime/process.h"

namespace mobula::runtime {

class Transfers {
 public:
  void hold(Ledger& ledger, std::span<const RefAddress> refs, shm::Address container);
  void give_up(Ledger& ledger);
  void forget(Process& process);  // it is published

 private:
  std::vector<std::uint32_t> lines_;  // of the hold table
};

}  // namespace mobula::runtime
