// mobula status: the nodes that stay, what of them is free, and the jobs that run.
//
//   NODE  ID                PID   FREE        OBJECT MEMORY        JOBS
//   main  0f42c8a97be31d56  4711  CPU 1 of 2  3.5 GiB of 4.7 GiB   1
//
//   JOB               DRIVER  PROGRAM  NODE   TIME   WORKERS  ACTORS  OBJECT MEMORY
//   5be24d9c01f6a7b3  4720    train    main   3 min  2        1       1.2 GiB
#include <cstdio>
#include <stdexcept>

#include "cli/commands.h"
#include "cli/node_reader.h"
#include "cli/output.h"
#include "cli/tables.h"
#include "wire/rendezvous.h"

namespace mobula::cli {

int status(const Arguments& arguments) {
  const bool json = arguments.has("json");
  const Table nodes = nodes_table(json);
  const Table jobs = jobs_table(read_sessions(), json);
  if (json) {
    for (const auto& [kind, table] : {std::pair{"node", &nodes}, {"job", &jobs}}) {
      Table marked{{"KIND"}, {}};
      marked.columns.insert(marked.columns.end(), table->columns.begin(), table->columns.end());
      for (auto row : table->rows) {
        row.insert(row.begin(), std::string(kind));
        marked.rows.push_back(std::move(row));
      }
      print(marked, true);
    }
  } else {
    if (nodes.rows.empty()) {
      std::printf("no node stays here; start one: mobula start --head\n");
    } else {
      print(nodes, false);
    }
    std::printf("\n");
    if (jobs.rows.empty()) {
      std::printf("no job runs\n");
    } else {
      print(jobs, false);
    }
  }
  return nodes.rows.empty() && jobs.rows.empty() ? 3 : 0;
}

}  // namespace mobula::cli
