#include "node/node_parts.h"

#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <stdexcept>

namespace mobula::node {

int open_pidfd(std::uint32_t pid) {
  return static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
}

std::uint64_t random_id() {
  std::uint64_t id = 0;
  while (id == 0) {
    if (::getrandom(&id, sizeof id, 0) != sizeof id)
      throw std::runtime_error("no random numbers from the system");
  }
  return id;
}

std::string format_units(const core::ResourceAmounts& amounts) {
  std::string text;
  for (const auto& [name, units] : amounts.by_name())
    text += name + "=" + std::to_string(units) + "\n";
  return text;
}

core::ResourceAmounts parse_units(std::string_view text) {
  core::ResourceAmounts amounts;
  while (!text.empty()) {
    const std::string line(text.substr(0, text.find('\n')));
    if (const std::size_t equals = line.rfind('='); equals != std::string::npos)
      amounts.set_units(line.substr(0, equals), ::strtoll(line.c_str() + equals + 1, nullptr, 10));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return amounts;
}

}  // namespace mobula::node
