// mobula metrics: what each job counts; what mobula::metrics() tells the program.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <tuple>

#include "cli/commands.h"
#include "cli/tables.h"
#include "mobula/metrics.h"

namespace mobula::cli {

int metrics(const Arguments& arguments) {
  const bool json = arguments.has("json");
  const bool prometheus = arguments.has("prometheus");
  if (json && prometheus) throw UsageError("--json or --prometheus, not both");
  const Sessions sessions = read_sessions(arguments.text("job").value_or(""));
  if (sessions.empty()) throw NotFound("no job runs");
  static constexpr const char* kKinds[] = {"counter", "gauge", "histogram"};
  Table table{{"JOB", "METRIC", "TAGS", "KIND", "VALUE", "COUNT"}, {}};
  std::vector<MetricSample> of_all;
  for (const auto& session : sessions) {
    const std::vector<MetricSample> samples = session->metrics();
    if (!json && !prometheus)
      std::printf("job %s\n\n%s\n", session->id().c_str(), to_table(samples).c_str());
    for (const MetricSample& sample : samples) {
      std::string tags;
      for (const auto& [key, value] : sample.tags)
        tags += (tags.empty() ? "" : ",") + key + "=" + value;
      const auto count =
          std::accumulate(sample.counts.begin(), sample.counts.end(), std::uint64_t{0});
      table.rows.push_back({session->id(), sample.name, tags,
                            kKinds[static_cast<std::size_t>(sample.kind)], sample.value,
                            static_cast<double>(count)});
      of_all.push_back(sample);
      of_all.back().tags["job"] = session->id();
    }
  }
  if (json) print(table, true);
  // The samples of one name are to stand together.
  std::sort(of_all.begin(), of_all.end(), [](const auto& a, const auto& b) {
    return std::tie(a.name, a.tags) < std::tie(b.name, b.tags);
  });
  if (prometheus) std::fputs(to_prometheus(of_all).c_str(), stdout);
  return 0;
}

}  // namespace mobula::cli
