// mobula: looks at what runs on this machine, and starts and stops nodes that stay.
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "cli/commands.h"

namespace {

using namespace mobula::cli;

struct Command {
  const char* name;
  const char* summary;
  const char* help;  // usage, options, examples
  Arguments::Known known;
  int (*run)(const Arguments&);
};

const std::vector<Command> kCommands = {
    {"start",
     "start a node that stays, for drivers to join",
     "Usage: mobula start --head [OPTIONS]\n\n"
     "Starts a node on this machine and returns when drivers can join it. Each driver has its own\n"
     "object memory and workers; they share the CPUs and other resources.\n\n"
     "  --name NAME                 how drivers call it; default: main\n"
     "  --num-cpus N                default: the cores this process may run on\n"
     "  --num-gpus N                default: 0\n"
     "  --resources LIST            your own, such as lamp=2,desk=0.5\n"
     "  --object-store-memory SIZE  for all drivers together, such as 8G; default: 30 % of memory\n"
     "  --block                     stay in the foreground; Ctrl-C ends the node\n"
     "  --json                      one JSON object\n\n"
     "Examples:\n"
     "  mobula start --head\n"
     "  MOBULA_ADDRESS=main ./train\n"
     "  mobula start --head --name small --num-cpus 1 --object-store-memory 256M\n",
     {{"name", "num-cpus", "num-gpus", "resources", "object-store-memory"},
      {"head", "block", "json"},
      0},
     start},
    {"stop",
     "end a node that stays",
     "Usage: mobula stop [NAME] [OPTIONS]\n\n"
     "Without a name, the only one that runs. Drivers can no longer join; running tasks may end;\n"
     "then the drivers' calls throw NodeDiedError. Returns when nothing is left of it.\n\n"
     "  --grace SECONDS   how long tasks may run on; default: 5\n"
     "  --all             all nodes that stay\n\n"
     "Examples:\n"
     "  mobula stop\n"
     "  mobula stop main --grace 60\n",
     {{"grace"}, {"all"}, 1},
     stop},
    {"status",
     "nodes that stay, what of them is free, and jobs",
     "Usage: mobula status [--json]\n\n"
     "Exit code 3 when no node stays and no job runs.\n\n"
     "Examples:\n"
     "  mobula status\n"
     "  mobula status --json\n",
     {{}, {"json"}, 0},
     status},
    {"list",
     "tasks, actors, objects, workers, placement-groups, jobs or nodes",
     "Usage: mobula list tasks|actors|objects|workers|placement-groups|jobs|nodes [OPTIONS]\n\n"
     "Of all running jobs of yours, those with a node of their own, too. A task that has finished\n"
     "is listed as long as somebody holds its Ref.\n\n"
     "  --state STATE   tasks: waiting (for arguments), ready (for a worker), running, finished,\n"
     "                  failed, cancelled; actors: pending, alive, restarting, dead;\n"
     "                  placement-groups: pending, created, ending\n"
     "  --job JOB       a job's id, the beginning of one, or its driver's process\n"
     "  --limit N       rows at most; default: 100\n"
     "  --json          one JSON object per line, sizes in bytes\n\n"
     "Examples:\n"
     "  mobula list tasks --state running\n"
     "  mobula list objects --limit 10 --json\n",
     {{"state", "job", "limit"}, {"json"}, 1},
     list},
    {"memory",
     "where the memory of jobs is",
     "Usage: mobula memory [--job JOB] [--json]\n\n"
     "The object store, what of it is on disk, records, processes, and values by who made them.\n\n"
     "  --job JOB   a job's id, the beginning of one, or its driver's process\n"
     "  --json      one JSON object per job, sizes in bytes\n\n"
     "Examples:\n"
     "  mobula memory\n"
     "  mobula memory --job 4711 --json\n",
     {{"job"}, {"json"}, 0},
     memory},
    {"metrics",
     "what jobs count",
     "Usage: mobula metrics [--job JOB] [--prometheus | --json]\n\n"
     "Counters, gauges and histograms of the programs, and the nodes' own (mobula_..), summed up\n"
     "over each job's processes at this moment.\n\n"
     "  --prometheus   as Prometheus reads it, with a tag for the job\n"
     "  --json         one JSON object per line; the value of a histogram is the sum\n"
     "  --job JOB      a job's id, the beginning of one, or its driver's process\n\n"
     "Examples:\n"
     "  mobula metrics\n"
     "  mobula metrics --prometheus > /var/lib/node_exporter/mobula.prom\n",
     {{"job"}, {"prometheus", "json"}, 0},
     metrics},
    {"logs",
     "what workers and actors have printed",
     "Usage: mobula logs [NAME] [OPTIONS]\n\n"
     "NAME is a part of a file's name: worker-7, actor, .err. Logs go with their job.\n\n"
     "  --follow    go on until the jobs have ended\n"
     "  --job JOB   a job's id, the beginning of one, or its driver's process\n"
     "  --json      one JSON object per line\n\n"
     "Examples:\n"
     "  mobula logs\n"
     "  mobula logs actor --follow\n",
     {{"job"}, {"follow", "json"}, 1},
     logs},
    {"why",
     "why a task or an actor does not run",
     "Usage: mobula why ID [--job JOB] [--json]\n\n"
     "ID is that of a task, a call, an actor or a placement group, as `mobula list` and errors\n"
     "show them. What it waits for is followed to where it ends.\n\n"
     "  --job JOB   a job's id, the beginning of one, or its driver's process\n"
     "  --json      one JSON object per line, with the level of its indentation\n\n"
     "Examples:\n"
     "  mobula why 3c5a0f2e9b1d4c7700000000000000a4\n",
     {{"job"}, {"json"}, 1},
     why},
};

void print_help(FILE* to) {
  std::fprintf(
      to,
      "mobula looks at what runs on this machine, and starts and stops nodes that stay.\n\n"
      "Usage: mobula COMMAND [ARGUMENTS]\n\n");
  for (const Command& command : kCommands)
    std::fprintf(to, "  %-8s %s\n", command.name, command.summary);
  std::fprintf(to,
               "\nmobula COMMAND --help tells more. Exit codes: 0 done, 1 failed, 2 the command "
               "line makes no\nsense, 3 what was asked for is not there.\n");
}

int run(const Command& command, std::vector<std::string> words) {
  for (const std::string& word : words) {
    if (word != "--help" && word != "-h") continue;
    std::fputs(command.help, stdout);
    return 0;
  }
  try {
    return command.run(Arguments(command.known, words));
  } catch (const UsageError& e) {
    std::fprintf(stderr, "mobula %s: %s. Try: mobula %s --help\n", command.name, e.what(),
                 command.name);
    return 2;
  } catch (const NotFound& e) {
    std::fprintf(stderr, "mobula %s: %s\n", command.name, e.what());
    return 3;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "mobula %s: %s\n", command.name, e.what());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    print_help(stderr);
    return 2;
  }
  const std::string_view name(argv[1]);
  if (name == "--help" || name == "-h" || name == "help") {
    print_help(stdout);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (name == command.name) return run(command, {argv + 2, argv + argc});
  }
  std::fprintf(stderr, "mobula: there is no command '%s'. Try: mobula --help\n", argv[1]);
  return 2;
}
