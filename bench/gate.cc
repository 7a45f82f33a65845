#include "gate.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace mobula::bench {
namespace {

void check(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string("gate: ") + what + ": " + std::strerror(errno));
}

int open_of(const GateAddress& gate, int descriptor, int flags) {
  const std::string path =
      "/proc/" + std::to_string(gate.process) + "/fd/" + std::to_string(descriptor);
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  check(fd >= 0, path.c_str());
  return fd;
}

}  // namespace

Gate::Gate() {
  check(::pipe2(arrivals_, O_CLOEXEC) == 0, "pipe");
  check(::pipe2(passes_, O_CLOEXEC) == 0, "pipe");
}

Gate::~Gate() {
  for (const int fd : {arrivals_[0], arrivals_[1], passes_[0], passes_[1]}) ::close(fd);
}

GateAddress Gate::address() const { return {::getpid(), arrivals_[1], passes_[0]}; }

void Gate::await_arrivals(unsigned tasks) const {
  char byte = 0;
  for (unsigned i = 0; i < tasks; ++i) check(::read(arrivals_[0], &byte, 1) == 1, "read");
}

void Gate::let_pass(unsigned tasks) const {
  for (unsigned i = 0; i < tasks; ++i) check(::write(passes_[1], "p", 1) == 1, "write");
}

std::uint64_t wait_at_gate(GateAddress gate) {
  const int arrivals = open_of(gate, gate.arrivals, O_WRONLY);
  const int passes = open_of(gate, gate.passes, O_RDONLY);
  check(::write(arrivals, "a", 1) == 1, "write");
  char byte = 0;
  check(::read(passes, &byte, 1) == 1, "read");
  ::close(arrivals);
  ::close(passes);
  return static_cast<std::uint64_t>(::getpid());
}

}  // namespace mobula::bench
