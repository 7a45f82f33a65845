// mobula metrics: what each job counts; what mobula::metrics() tells the program.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <tuple>

#include "cli/commands.h"
#include "cli/tables.h"
#include "mobula/metrics.h"

namespace mobula::cli {
namespace {

void print_text(const Sessions& sessions) {
  for (const auto& session : sessions)
    std::printf("job %s\n\n%s\n", session->id().c_str(), to_table(session->metrics()).c_str());
}

void print_json(const Sessions& sessions) {
  static constexpr const char* kKinds[] = {"counter", "gauge", "histogram"};
  Table table{{"JOB", "METRIC", "TAGS", "KIND", "VALUE", "COUNT"}, {}};
  for (const auto& session : sessions) {
    for (const MetricSample& sample : session->metrics()) {
      std::string tags;
      for (const auto& [key, value] : sample.tags)
        tags += (tags.empty() ? "" : ",") + key + "=" + value;
      const auto count =
          std::accumulate(sample.counts.begin(), sample.counts.end(), std::uint64_t{0});
      table.rows.push_back({session->id(), sample.name, tags,
                            kKinds[static_cast<std::size_t>(sample.kind)], sample.value,
                            static_cast<double>(count)});
    }
  }
  print(table, true);
}

void print_prometheus(const Sessions& sessions) {
  std::vector<MetricSample> all;
  for (const auto& session : sessions) {
    for (MetricSample& sample : session->metrics()) {
      sample.tags["job"] = session->id();
      all.push_back(std::move(sample));
    }
  }
  // The samples of one name are to stand together.
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::tie(a.name, a.tags) < std::tie(b.name, b.tags);
  });
  std::fputs(to_prometheus(all).c_str(), stdout);
}

}  // namespace

int metrics(const Arguments& arguments) {
  const bool json = arguments.has("json");
  const bool prometheus = arguments.has("prometheus");
  if (json && prometheus) throw UsageError("--json or --prometheus, not both");
  const Sessions sessions = read_sessions(arguments.text("job").value_or(""));
  if (sessions.empty()) throw NotFound("no job runs");
  if (json) {
    print_json(sessions);
  } else if (prometheus) {
    print_prometheus(sessions);
  } else {
    print_text(sessions);
  }
  return 0;
}

}  // namespace mobula::cli
