// A gate at which tasks wait inside of a system call, holding their CPU, until the driver opens it.
//
// For rows that need workers to be busy for exactly as long as the driver wants: a get would give
// the CPU back, and sleeping would guess. Tasks reach the driver's pipes through /proc, so nothing
// is left behind.
#pragma once

#include <cstdint>

namespace mobula::bench {

struct GateAddress {
  int process;
  int arrivals;  // descriptors in that process
  int passes;
};

class Gate {
 public:
  Gate();
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  GateAddress address() const;
  void await_arrivals(unsigned tasks) const;
  void let_pass(unsigned tasks) const;

 private:
  int arrivals_[2];
  int passes_[2];
};

// Waits at the gate; returns the process id of the worker. A remote function.
std::uint64_t wait_at_gate(GateAddress gate);

}  // namespace mobula::bench
