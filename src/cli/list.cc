// mobula list KIND: one row for each task, actor, object, worker, placement group, job or node that
// is there now.
//
//   TASK                              NAME    STATE    ATTEMPT  PID   JOB
//   9a0c..000000000000002a            square  running  0        4731  5be24d9c01f6a7b3
#include <algorithm>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/node_reader.h"
#include "cli/tables.h"
#include "runtime/errors.h"
#include "shm/holds.h"
#include "shm/memory_use.h"
#include "wire/program.h"
#include "wire/rendezvous.h"

namespace mobula::cli {
namespace {

constexpr std::size_t kRowsByDefault = 100;

double number(std::uint64_t n) { return static_cast<double>(n); }

Cell bytes_cell(std::uint64_t bytes, bool exact) {
  if (exact) return number(bytes);
  return describe_bytes(number(bytes));
}

std::string program_or_gone(std::uint64_t pid) {
  const std::string program = wire::program_of(static_cast<pid_t>(pid));
  return program.empty() ? "(gone)" : program;
}

// Who has claimed the record.
std::uint32_t pid_of_claimer(const SessionReader& session, std::uint64_t state) {
  if (shm::word::state(state) != shm::State::Claimed) return 0;
  const auto& claimer = session.memory().participant(shm::word::claimer(state));
  const std::uint32_t process = claimer.process.load();
  return process < shm::kProcessesMax ? session.memory().process(process).pid : 0;
}

std::uint32_t pid_of_owner(const SessionReader& session, std::uint32_t slot) {
  const std::uint32_t owner = session.memory().segment_owner(slot / shm::kRecordsPerSegment).load();
  if (owner >= shm::kParticipantsMax) return 0;
  const std::uint32_t process = session.memory().participant(owner).process.load();
  return process < shm::kProcessesMax ? session.memory().process(process).pid : 0;
}

Table tasks_table(const Sessions& sessions, const std::string& wanted_state) {
  Table table{{"TASK", "NAME", "STATE", "ATTEMPT", "PID", "JOB"}, {}};
  for (const auto& session : sessions) {
    session->each_record([&](std::uint32_t, const shm::Record& record, std::uint64_t state) {
      if (record.kind != shm::Kind::Task && record.kind != shm::Kind::ActorCall &&
          record.kind != shm::Kind::ActorCreate)
        return;
      if (!wanted_state.empty() && wanted_state != task_state(state)) return;
      table.rows.push_back({task_id(record), session->name_of(record), task_state(state),
                            number(shm::word::attempt(state)),
                            number(pid_of_claimer(*session, state)), session->id()});
    });
  }
  // What runs or waits first: what has finished is seldom asked for.
  static const std::vector<std::string> kOrder = {"running", "ready",     "waiting",
                                                  "failed",  "cancelled", "finished"};
  auto rows = std::exchange(table.rows, {});
  for (const std::string& state : kOrder) {
    for (auto& row : rows) {
      if (!row.empty() && std::get<std::string>(row[2]) == state)
        table.rows.push_back(std::move(row));
    }
  }
  return table;
}

Table actors_table(const Sessions& sessions, const std::string& wanted_state) {
  Table table{{"ACTOR", "CLASS", "NAME", "STATE", "PID", "RESTARTS", "CALLS", "JOB"}, {}};
  for (const auto& session : sessions) {
    session->each_actor([&](std::uint32_t id, const shm::SchedulingClass& cls) {
      const std::string state = actor_state(*session, id);
      if (!wanted_state.empty() && wanted_state != state) return;
      table.rows.push_back({runtime::actor_id(session->memory(), cls), std::string(cls.name),
                            std::string(cls.given_name), state, number(session->pid_of_actor(id)),
                            number(cls.restarts.load()), number(session->depth_of(cls)),
                            session->id()});
    });
  }
  return table;
}

Table groups_table(const Sessions& sessions, const std::string& wanted_state) {
  Table table{{"GROUP", "NAME", "STATE", "BUNDLES", "ACTORS", "JOB"}, {}};
  for (const auto& session : sessions) {
    session->each_group([&](std::uint32_t, const shm::SchedulingClass& cls) {
      const std::string state = group_state(cls);
      if (!wanted_state.empty() && wanted_state != state) return;
      std::uint64_t actors = 0;
      session->each_actor([&](std::uint32_t, const shm::SchedulingClass& actor) {
        actors += actor.placement_group == cls.placement_group;
      });
      table.rows.push_back({group_id(cls), std::string(cls.group_name), state,
                            std::string(cls.groups), number(actors), session->id()});
    });
  }
  return table;
}

Table objects_table(const Sessions& sessions, bool exact) {
  Table table{{"MADE BY", "NAME", "KIND", "SIZE", "WHERE", "OWNER", "HOLDERS", "JOB"}, {}};
  std::vector<std::pair<std::uint64_t, std::vector<Cell>>> rows;
  for (const auto& session : sessions) {
    session->each_record([&](std::uint32_t slot, const shm::Record& seen, std::uint64_t state) {
      shm::Record& record = session->memory().record(slot);
      if (seen.kind == shm::Kind::Join || seen.kind == shm::Kind::Callback) return;
      const auto add = [&](const shm::StoredAt& at, const char* kind) {
        if (at.extent >= session->count("extents")) return;  // it was recycled meanwhile
        const bool resident =
            static_cast<shm::Residency>(session->memory().extent(at.extent).residency.load()) ==
            shm::Residency::Resident;
        rows.push_back(
            {at.size,
             {task_id(record), session->name_of(record), kind, bytes_cell(at.size, exact),
              resident ? "memory" : "disk", number(pid_of_owner(*session, slot)),
              number(shm::holds::count(record.refs.load())), session->id()}});
      };
      if (record.flags & shm::flag::kArgsStored) add(record.args_at(), "arguments");
      if (shm::word::is_final(state) && record.result_kind == shm::ResultKind::Stored)
        add(record.result_at(), "value");
    });
  }
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  for (auto& [size, row] : rows) table.rows.push_back(std::move(row));
  return table;
}

const char* doing(const shm::Process& process) {
  if (process.role.load() == static_cast<std::uint32_t>(shm::ProcessRole::Driver)) return "";
  if (process.blocked_threads.load() > 0) return "waits in get";
  if (process.sleeping.load() != 0 || process.works_for.load() == shm::kNone) return "idle";
  return "busy";
}

Table workers_table(const Sessions& sessions, bool exact) {
  Table table{{"PID", "ROLE", "STATE", "FOR", "TASKS", "MEMORY", "JOB"}, {}};
  for (const auto& session : sessions) {
    session->each_process([&](std::uint32_t, const shm::Process& process) {
      const auto role = static_cast<shm::ProcessRole>(process.role.load());
      if (role == shm::ProcessRole::Daemon) return;
      const std::uint32_t cls = process.works_for.load();
      table.rows.push_back({number(process.pid),
                            role == shm::ProcessRole::Driver  ? "driver"
                            : role == shm::ProcessRole::Actor ? "actor"
                                                              : "worker",
                            doing(process),
                            role != shm::ProcessRole::Driver && cls < shm::kClassesMax
                                ? std::string(session->memory().scheduling_class(cls).name)
                                : "",
                            number(process.tasks_done.load()),
                            bytes_cell(shm::private_memory(process.pid), exact), session->id()});
    });
  }
  return table;
}

const std::map<std::string, std::vector<std::string>> kStates = {
    {"tasks", {"waiting", "ready", "running", "finished", "failed", "cancelled"}},
    {"actors", {"pending", "alive", "restarting", "dead"}},
    {"placement-groups", {"pending", "created", "ending"}}};

void check_state(const std::string& kind, const std::string& state) {
  const auto known = kStates.find(kind);
  if (known == kStates.end()) throw UsageError("--state is for tasks, actors and placement-groups");
  const std::vector<std::string>& states = known->second;
  if (std::find(states.begin(), states.end(), state) != states.end()) return;
  std::string all;
  for (const std::string& one : states) all += (all.empty() ? "" : ", ") + one;
  throw UsageError("--state is '" + state + "'; " + kind + " are " + all);
}

}  // namespace

Table nodes_table(bool exact) {
  Table table{{"NODE", "ID", "PID", "FREE", "OBJECT MEMORY", "JOBS"}, {}};
  const Sessions sessions = read_sessions();
  for (const std::string& folder : wire::living_folders(wire::kNodePrefix)) {
    try {
      NodeReader node(folder);
      const auto free = node.free_resources();
      const std::uint64_t left = node.object_memory() - node.object_memory_given();
      const auto jobs = std::count_if(sessions.begin(), sessions.end(), [&](const auto& session) {
        return session->node() == node.name();
      });
      table.rows.push_back({node.name(), node.id(), number(node.pid()),
                            describe_resources(free, node.resources()),
                            exact ? Cell(number(left))
                                  : Cell(describe_bytes(number(left)) + " of " +
                                         describe_bytes(number(node.object_memory()))),
                            static_cast<double>(jobs)});
    } catch (const std::runtime_error&) {  // it ends just now
    }
  }
  return table;
}

Table jobs_table(const Sessions& sessions, bool exact) {
  Table table{{"JOB", "DRIVER", "PROGRAM", "NODE", "TIME", "WORKERS", "ACTORS", "OBJECT MEMORY"},
              {}};
  for (const auto& session : sessions) {
    std::uint64_t workers = 0;
    std::uint64_t actors = 0;
    session->each_process([&](std::uint32_t, const shm::Process& process) {
      const auto role = static_cast<shm::ProcessRole>(process.role.load());
      workers += role == shm::ProcessRole::Worker;
      actors += role == shm::ProcessRole::Actor;
    });
    const std::uint64_t seconds = session->count("seconds");
    table.rows.push_back(
        {session->id(), number(session->count("driver")), program_or_gone(session->count("driver")),
         session->node().empty() ? "(own)" : session->node(),
         exact ? Cell(number(seconds)) : Cell(describe_seconds(number(seconds))), number(workers),
         number(actors), bytes_cell(session->count("object_memory"), exact)});
  }
  return table;
}

int list(const Arguments& arguments) {
  if (arguments.words().empty())
    throw UsageError("list what? tasks, actors, objects, workers, placement-groups, jobs or nodes");
  const std::string& kind = arguments.words()[0];
  const bool json = arguments.has("json");
  const std::string state = arguments.text("state").value_or("");
  if (arguments.text("state")) check_state(kind, state);
  const Sessions sessions = read_sessions(arguments.text("job").value_or(""));
  Table table;
  if (kind == "tasks") {
    table = tasks_table(sessions, state);
  } else if (kind == "actors") {
    table = actors_table(sessions, state);
  } else if (kind == "placement-groups") {
    table = groups_table(sessions, state);
  } else if (kind == "objects") {
    table = objects_table(sessions, json);
  } else if (kind == "workers") {
    table = workers_table(sessions, json);
  } else if (kind == "jobs") {
    table = jobs_table(sessions, json);
  } else if (kind == "nodes") {
    table = nodes_table(json);
  } else {
    throw UsageError("there are no " + kind +
                     " to list; there are tasks, actors, objects, workers, placement-groups, jobs "
                     "and nodes");
  }
  const auto limit = static_cast<std::size_t>(
      arguments.number("limit").value_or(static_cast<double>(kRowsByDefault)));
  const std::size_t all = table.rows.size();
  if (all > limit) table.rows.resize(limit);
  print(table, json);
  if (all > limit) {
    std::fprintf(stderr, "%zu of %zu rows; more with --limit %zu\n", limit, all, all);
  }
  return 0;
}

}  // namespace mobula::cli
