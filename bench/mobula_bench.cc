// mobula-bench: the table of figures, each row beside the limit of this machine.
//
// Each row runs in a process of its own, this program started again with --child: a row that
// crashes, hangs or computes a wrong sum costs its own line and not the table, no row sees memory
// that another one warmed, and rows that need an odd session get one. The first process has no
// session; it starts rows, bounds their time and writes what they say.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>
#include <string_view>

#include "machine_limits.h"
#include "mobula/mobula.h"
#include "processes.h"
#include "report.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

constexpr const char* kHelp =
    R"(Usage: mobula-bench [OPTIONS] [ROW ...]

Measures Mobula through its public API, beside what this machine can do at best, taken in the same moment.
Without ROW: all rows but the long ones.

  --list        the rows, and what each measures
  --runs N      runs of each row, 1 to 100; the median is shown (default 5, with --quick 3)
  --quick       small runs, to see that all works: figures are rough
  --json FILE   also writes one JSON object per row and line to FILE
  --help        this text

Exit code: 0 when all rows were measured or skipped, 1 when one failed, 2 when the command line makes no sense.
)";

struct CommandLine {
  bool quick = false;
  bool list = false;
  bool help = false;
  std::optional<int> runs;
  std::string json;
  std::vector<std::string> rows;
  std::string error;

  int runs_of_each() const { return runs.value_or(quick ? 3 : 5); }
};

const Row* find_row(std::string_view key) {
  const auto& rows = all_rows();
  const auto it =
      std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.key == key; });
  return it == rows.end() ? nullptr : &*it;
}

CommandLine parse(const std::vector<std::string>& arguments) {
  CommandLine line;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--quick") {
      line.quick = true;
    } else if (argument == "--list") {
      line.list = true;
    } else if (argument == "--help" || argument == "-h") {
      line.help = true;
    } else if (argument == "--runs" || argument == "--json") {
      if (++i == arguments.size()) {
        line.error = argument + " needs a value";
        return line;
      }
      const std::string& value = arguments[i];
      if (argument == "--json") {
        line.json = value;
        continue;
      }
      int runs = 0;
      const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), runs);
      if (problem != std::errc() || end != value.data() + value.size() || runs < 1 || runs > 100) {
        line.error = "--runs takes a number from 1 to 100, not " + value;
        return line;
      }
      line.runs = runs;
    } else if (argument.starts_with('-')) {
      line.error = "unknown option " + argument;
      return line;
    } else if (!find_row(argument)) {
      line.error = "there is no row " + argument + " (try: --list)";
      return line;
    } else {
      line.rows.push_back(argument);
    }
  }
  return line;
}

// ---- The row's own process. What it says, line by line: "sample VALUE LIMIT", "note NAME VALUE",
// "error TEXT", "end".

void say(const std::string& text) {
  std::cout << text << '\n' << std::flush;
  if (!std::cout) std::_Exit(1);  // whoever wanted to know is gone
}

int child_main(int argc, char** argv) {
  const Row* row = find_row(argv[2]);
  if (!row) return 2;
  const int runs = std::atoi(argv[3]);
  const bool quick = std::strcmp(argv[4], "quick") == 0;
  char text[96];
  const Runs::Listener listener{
      [&](Sample sample) {
        std::snprintf(text, sizeof text, "sample %.17g %.17g", sample.value, sample.limit);
        say(text);
      },
      [&](const std::string& name, double value) {
        std::snprintf(text, sizeof text, "note %s %.17g", name.c_str(), value);
        say(text);
      }};
  try {
    std::optional<Session> session;
    if (row->sessions == Sessions::One) session.emplace(argc, argv, row->config);
    row->measure(Runs(runs, quick, listener));
  } catch (const std::exception& error) {
    std::string what = error.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    say("error " + what);
    return 1;
  }
  say("end");
  return 0;
}

// `first_result`: from here to the first result, in ms. `task_rate CPUS BATCHES`: empty tasks per
// second.
int probe_main(int argc, char** argv) {
  const std::string_view what = argv[2];
  const auto start = Clock::now();
  if (what == "first_result") {
    const Session session(argc, argv);
    const std::uint64_t result = get(remote<same>(std::uint64_t{42}));
    const double ms = seconds_since(start) * 1e3;
    expect_equal<std::uint64_t>(result, 42, "the first result");
    std::cout << "figure " << ms << '\n';
    return 0;
  }
  Config config;
  config.num_cpus = std::atoi(argv[3]);
  const Session session(argc, argv, config);
  const auto batches = static_cast<std::uint64_t>(std::atoll(argv[4]));
  const auto submit = [](std::uint64_t i) { return remote<same>(i); };
  stream_of_calls(batches, submit);  // the node starts workers as they are needed
  std::cout << "figure " << calls_per_s(batches, submit) << '\n';
  return 0;
}

// ---- The first process.

class Progress {
 public:
  explicit Progress(std::size_t rows) : rows_(rows), terminal_(::isatty(STDERR_FILENO) == 1) {}

  void row(const std::string& key) {
    ++row_;
    key_ = key;
    if (!terminal_) std::fprintf(stderr, "%zu/%zu %s\n", row_, rows_, key.c_str());
  }
  void show(std::size_t run, int runs) const {
    if (terminal_)
      std::fprintf(stderr, "\r\033[K  %zu/%zu %s  run %zu of %d", row_, rows_, key_.c_str(), run,
                   runs);
  }
  void clear() const {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }

 private:
  std::size_t rows_;
  bool terminal_;
  std::size_t row_ = 0;
  std::string key_;
};

Outcome run_row(const Row& row, const CommandLine& line, const Progress& progress) {
  Outcome outcome;
  if (row.memory_needed > available_bytes()) {
    outcome.skipped =
        "needs " + std::to_string(row.memory_needed / 1'000'000) + " MB of free memory";
    return outcome;
  }
  const int runs = line.runs_of_each();
  const auto bound = std::chrono::seconds(row.only_by_name ? 600 * runs : 60 + 10 * runs);
  bool ended = false;
  try {
    ChildProgram child({"--child", row.key, std::to_string(runs), line.quick ? "quick" : "full"},
                       std::to_string(::getpid()) + "." + row.key);
    progress.show(0, runs);
    const auto deadline = Clock::now() + bound;
    while (const auto said = child.read_line(deadline)) {
      double value = 0;
      double limit = 0;
      char name[48];
      if (std::sscanf(said->c_str(), "sample %lg %lg", &value, &limit) == 2) {
        outcome.samples.push_back({value, limit});
        progress.show(outcome.samples.size(), runs);
      } else if (std::sscanf(said->c_str(), "note %47s %lg", name, &value) == 2) {
        outcome.notes[name].push_back(value);
      } else if (said->starts_with("error ")) {
        outcome.error = said->substr(6);
      } else if (*said == "end") {
        ended = true;
        break;
      } else {
        std::fprintf(stderr, "%s\n", said->c_str());
      }
    }
    const std::string end = child.wait(Clock::now() + std::chrono::seconds(10));
    if (outcome.error.empty() && !end.empty()) outcome.error = end;
  } catch (const std::exception& error) {
    outcome.error = error.what();
  }
  if (outcome.error.empty() && !ended) outcome.error = "it ended without a word";
  return outcome;
}

int list_rows() {
  for (const Row& row : all_rows()) {
    std::printf("%-22s %s%s\n", row.key.c_str(), row.title.c_str(),
                row.only_by_name ? " (long: only when named)" : "");
  }
  return 0;
}

int bench_main(const CommandLine& line) {
  if (!line.error.empty()) {
    std::fprintf(stderr, "mobula-bench: %s\n", line.error.c_str());
    return 2;
  }
  if (line.help) {
    std::printf("%s", kHelp);
    return 0;
  }
  if (line.list) return list_rows();
  std::vector<const Row*> chosen;
  for (const Row& row : all_rows()) {
    const bool named = std::find(line.rows.begin(), line.rows.end(), row.key) != line.rows.end();
    if (named || (line.rows.empty() && !row.only_by_name)) chosen.push_back(&row);
  }
  std::ofstream json;
  if (!line.json.empty()) {
    json.open(line.json);
    if (!json) {
      std::fprintf(stderr, "mobula-bench: cannot write %s: %s\n", line.json.c_str(),
                   std::strerror(errno));
      return 1;
    }
  }
  const TableStyle style{::isatty(STDOUT_FILENO) == 1};
  Progress progress(chosen.size());
  std::printf("%s\n", table_head(style).c_str());
  bool failed = false;
  for (const Row* row : chosen) {
    std::fflush(stdout);
    progress.row(row->key);
    const Outcome outcome = run_row(*row, line, progress);
    progress.clear();
    failed = failed || !outcome.error.empty();
    std::printf("%s\n", table_line(*row, outcome, style).c_str());
    if (json.is_open()) json << json_line(*row, outcome) << '\n' << std::flush;
  }
  std::printf(
      "\nMedian of %d runs%s. ratio: the figure divided by the limit of the same run. Ray: "
      "published figures, on 64 vCPUs.\n",
      line.runs_of_each(), line.quick ? " (quick: rough)" : "");
  if (json.is_open() && !json) {
    std::fprintf(stderr, "mobula-bench: writing %s failed\n", line.json.c_str());
    failed = true;
  }
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace mobula::bench

int main(int argc, char** argv) {
  using namespace mobula::bench;
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == kEndAtOnce) return 0;
  try {
    if (first == "--child" && argc == 5) return child_main(argc, argv);
    if (first == "--probe" && argc >= 3) return probe_main(argc, argv);
    return bench_main(parse({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mobula-bench: %s\n", error.what());
    return 1;
  }
}
