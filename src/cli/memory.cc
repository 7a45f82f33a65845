// mobula memory: where the memory of each job is; what mobula::memory_report() tells the program.
#include <cstdio>

#include "cli/commands.h"
#include "cli/tables.h"

namespace mobula::cli {
namespace {

double number(std::uint64_t n) { return static_cast<double>(n); }

}  // namespace

int memory(const Arguments& arguments) {
  const Sessions sessions = read_sessions(arguments.text("job").value_or(""));
  if (sessions.empty()) throw NotFound("no job runs");
  Table table{{"JOB", "CAPACITY", "LEASED", "USED", "WARM", "SPILLED", "ON DISK"}, {}};
  for (const auto& session : sessions) {
    const MemoryReport report = session->memory_report();
    const MemoryReport::Store& store = report.store;
    table.rows.push_back({session->id(), number(store.capacity), number(store.leased),
                          number(store.used), number(store.warm), number(store.spilled),
                          number(store.on_disk)});
    if (!arguments.has("json"))
      std::printf("job %s\n\n%s\n", session->id().c_str(), report.text().c_str());
  }
  if (arguments.has("json")) print(table, true);
  return 0;
}

}  // namespace mobula::cli
