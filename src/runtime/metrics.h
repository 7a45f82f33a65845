// How metrics are read from a session's daemon: by its own processes, and by the tools.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mobula/codec.h"
#include "mobula/metrics.h"
#include "wire/local_protocol.h"

namespace mobula::runtime {

// `ask(offset)` returns the daemon's answer to ReadMetrics.
template <class Ask>
std::vector<MetricSample> read_metrics(const Ask& ask) {
  std::string bytes;
  for (;;) {
    const wire::Message message = ask(std::uint64_t{bytes.size()});
    bytes += message.text_view();
    if (bytes.size() >= message.d || message.text_size == 0) break;
  }
  Reader reader(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
  return decode<std::vector<MetricSample>>(reader);
}

}  // namespace mobula::runtime
