// What a program's user sees: lines of log from all processes, and how far tasks have come.
#include "support/scenario.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"
#include "support/session_folder.h"
#include "support/staying_node.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::LogLevel;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::open_gate;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;

namespace shown {

int speak(int n) {
  mobula::log("spoken in a task", {{"n", n}, {"share", 0.5}, {"who", "a b"}, {"pid", "mine"}});
  mobula::log(LogLevel::Debug, "for the curious");
  mobula::log(LogLevel::Error, "went wrong");
  return n;
}
struct Speaker {
  int speak() {
    mobula::log(LogLevel::Warning, "spoken in an actor");
    return 1;
  }
};
struct Ledger {
  int entries = 0;
  int book() {
    mobula::log("booked", {{"entry", ++entries}});
    return entries;
  }
  int pid() const { return ::getpid(); }
};
int twice(int n) { return 2 * n; }
// Each sets callbacks that throw, and returns after these.
struct Listener {
  void listens(mobula::Reply<int> reply, const Ref<int>& value) {
    mobula::then(value,
                 [](const mobula::Result<int>&) { throw std::runtime_error("heard in an actor"); });
    mobula::call_after(0ms, [] { throw std::runtime_error("too late in an actor"); });
    mobula::call_after(20ms, [reply = std::move(reply)]() mutable { reply.set(1); });
  }
};
int listens(const Ref<int>& value, const std::string& words) {
  std::promise<void> over;
  mobula::then(value, [words](const mobula::Result<int>&) { throw std::runtime_error(words); });
  mobula::then(value, [&over](const mobula::Result<int>&) { over.set_value(); });
  over.get_future().wait();
  return 0;
}
// One place floods; the other says one thing before, and one after it.
int flood(int lines) {
  mobula::log("before the flood");
  const auto shout = [](int i) { mobula::log("flood", {{"i", i}}); };
  for (int i = 0; i < lines; ++i) shout(i);
  mobula::log("after the flood");
  std::this_thread::sleep_for(100ms);  // two lines' worth
  shout(-1);
  return 0;
}

int steps(int count, int pause_ms) {
  const mobula::Progress progress = mobula::progress(count, "steps");
  for (int i = 0; i < count; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
    progress.add();
  }
  return count;
}
// Dies half way in its first attempt.
int dies_once(std::string file) {
  const mobula::Progress progress = mobula::progress(10, "fragile");
  for (int i = 0; i < 10; ++i) {
    progress.add();
    if (i == 4 && !mobula::test::gate_is_open(file)) {
      open_gate(file);
      ::kill(::getpid(), SIGKILL);
    }
  }
  return 0;
}
int gives_up() {
  const mobula::Progress progress = mobula::progress(100, "gives up");
  progress.add(3);
  return 0;
}
int prints_between(int count) {
  const mobula::Progress progress = mobula::progress(count, "beside");
  for (int i = 0; i < count; ++i) {
    std::printf("line %d of the task\n", i);
    std::fflush(stdout);
    std::this_thread::sleep_for(60ms);
    progress.add();
  }
  return 0;
}
// Bytes of all kinds and no line's end.
int pours(int megabytes) {
  std::string block(1 << 20, '\0');
  for (std::size_t i = 0; i < block.size(); ++i)
    block[i] = static_cast<char>(i % 251 == '\n' ? 0 : i % 251);
  for (int i = 0; i < megabytes; ++i) std::fwrite(block.data(), 1, block.size(), stdout);
  std::fflush(stdout);
  return megabytes;
}
int node_heap_kib() {
  const std::string pid = std::to_string(::getppid());
  int kib = 0;
  std::istringstream stat(mobula::test::detail::read_all("/proc/" + pid + "/stat"));
  std::string word;
  for (int i = 0; i < 4; ++i) stat >> word;  // the zygote's parent is the node
  const std::string status = mobula::test::detail::read_all("/proc/" + word + "/status");
  const std::size_t at = status.find("RssAnon:");
  if (at != std::string::npos) kib = std::atoi(status.c_str() + at + 8);
  return kib;
}

using Case = std::function<int(int, char**)>;
const std::map<std::string, Case> kCases = {
    {"logs",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 1});
       mobula::log("spoken in the driver");
       mobula::get(remote<speak>(7));
       const auto speaker = actor<Speaker>.with({.name = "the speaker"})();
       mobula::get(speaker.call<&Speaker::speak>());
       return 0;
     }},
    {"logs_replayed",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 1});
       const auto ledger =
           actor<Ledger>.with({.max_restarts = 1, .recovery = mobula::Recovery::Replay})();
       for (int i = 0; i < 3; ++i) mobula::get(ledger.call<&Ledger::book>());
       ::kill(mobula::get(ledger.call<&Ledger::pid>()), SIGKILL);
       return mobula::get(ledger.call<&Ledger::book>(), 20s) == 4 ? 0 : 1;
     }},
    {"logs_json",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv,
                                     {.num_cpus = 1, .log_level = "debug", .log_format = "json"});
       mobula::get(remote<speak>(7));
       return 0;
     }},
    {"printed_before",
     [](int argc, char** argv) {
       std::printf("before the session\n");
       const mobula::Session session(argc, argv, {.num_cpus = 2});
       mobula::get(actor<Ledger>().call<&Ledger::pid>());
       return mobula::get(remote<steps>(1, 1)) == 1 ? 0 : 1;
     }},
    {"logs_outside",
     [](int, char**) {
       mobula::log("spoken outside of a session");
       return 0;
     }},
    {"odd_level",
     [](int argc, char** argv) {
       for (const mobula::Config& config :
            {mobula::Config{.log_level = "loud"}, mobula::Config{.log_format = "xml"}}) {
         try {
           mobula::Session session(argc, argv, config);
           return 1;
         } catch (const mobula::Error&) {
         }
       }
       return 0;
     }},
    {"callbacks",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 1});
       const Ref<int> value = remote<twice>(1);
       mobula::get(actor<Listener>().call<&Listener::listens>(value), 20s);
       mobula::get(remote<listens>(value, "heard in a task"), 20s);
       return listens(value, "heard in the driver");
     }},
    {"flood",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 1});
       mobula::get(remote<flood>(20'000));
       return 0;
     }},
    {"progress",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 2});
       std::vector<Ref<int>> tasks;
       for (int i = 0; i < 4; ++i) tasks.push_back(remote<steps>(25, 1));
       steps(10, 1);
       mobula::get(tasks);
       mobula::get(remote<gives_up>());
       return 0;
     }},
    {"progress_quiet",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 1, .log_to_driver = false});
       mobula::get(remote<steps>(50, 10));
       mobula::get(remote<[] {
         std::puts("a task's own words");
         mobula::log("and its line");
       }>());
       return 0;
     }},
    {"progress_slow",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 1});
       mobula::get(remote<steps>(130, 50));
       return 0;
     }},
    {"progress_killed",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 1});
       const Scratch scratch;  // after the session: what stands before it, workers make, too
       mobula::get(remote<dies_once>(scratch.file("died")));
       return 0;
     }},
    {"terminal",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 2});
       const Ref<int> beside = remote<prints_between>(12);
       mobula::get(remote<steps>(40, 20));
       mobula::get(beside);
       return 0;
     }},
    {"pour",
     [](int argc, char** argv) {
       const mobula::Session session(argc, argv, {.num_cpus = 2});
       const Ref<int> pouring = remote<pours>(80);
       int most = 0;
       while (mobula::wait(std::vector{pouring}, {.timeout = 0s}).ready.empty())
         most = std::max(most, mobula::get(remote<node_heap_kib>(), 20s));
       std::uintmax_t file = 0;
       for (const auto& entry :
            std::filesystem::recursive_directory_iterator(::getenv("MOBULA_TMPDIR"))) {
         if (entry.is_regular_file()) file = std::max(file, entry.file_size());
       }
       std::ofstream(::getenv("MOBULA_TEST_SEEN")) << most << " " << file;
       return mobula::get(pouring) == 80 ? 0 : 1;
     }},
};

// The output of a case that ends well.
std::string output_of(const std::string& name,
                      const std::map<std::string, std::string>& variables = {}) {
  Child child(mobula::test::own_program(), {"--case", name}, variables);
  const auto ending = child.wait(60s);
  INFO(name << ": " << child.output());
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 0);
  return child.output();
}
std::vector<std::string> lines_with(const std::string& output, const std::string& words) {
  std::vector<std::string> found;
  std::istringstream stream(output);
  for (std::string line; std::getline(stream, line);) {
    if (line.find(words) != std::string::npos) found.push_back(line);
  }
  return found;
}
bool has(const std::string& line, const std::string& words) {
  return line.find(words) != std::string::npos;
}

// Runs a case on a terminal of its own, 60 columns wide; what came there.
std::string on_terminal(const std::string& name,
                        const std::map<std::string, std::string>& variables = {}) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(terminal >= 0);
  REQUIRE(::grantpt(terminal) == 0);
  REQUIRE(::unlockpt(terminal) == 0);
  const int other_end = ::open(::ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
  winsize size{24, 60, 0, 0};
  ::ioctl(other_end, TIOCSWINSZ, &size);
  const pid_t pid = ::fork();
  if (pid == 0) {
    for (int fd = 0; fd < 3; ++fd) ::dup2(other_end, fd);
    ::setenv("TERM", "xterm", 1);
    for (const auto& [key, value] : variables) ::setenv(key.c_str(), value.c_str(), 1);
    const std::string program = mobula::test::own_program();
    ::execl(program.c_str(), program.c_str(), "--case", name.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(other_end);
  std::string text;
  char part[4096];
  const auto begin = Clock::now();
  while (since(begin) < 30s) {
    pollfd poll{terminal, POLLIN, 0};
    if (::poll(&poll, 1, 100) == 0) continue;
    const ssize_t n = ::read(terminal, part, sizeof part);
    if (n <= 0) break;  // everybody has left the other end
    text.append(part, static_cast<std::size_t>(n));
  }
  ::kill(pid, SIGKILL);  // a child of ours: gone already, if all is well
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status));
  ::close(terminal);
  return text;
}

// What is on the screen when such text has been written, line by line.
std::vector<std::string> screen(const std::string& text) {
  std::vector<std::string> lines{""};
  std::size_t row = 0;
  std::size_t column = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 3, "\033[K") == 0) {
      lines[row].resize(column);
      i += 2;
    } else if (text.compare(i, 3, "\033[A") == 0) {
      --row;
      i += 2;
    } else if (text[i] == '\r') {
      column = 0;
    } else if (text[i] == '\n') {
      if (++row == lines.size()) lines.emplace_back();
    } else {
      lines[row].resize(std::max(lines[row].size(), column + 1), ' ');
      lines[row][column++] = text[i];
    }
  }
  return lines;
}

}  // namespace shown
using namespace shown;

TEST_CASE("what a callback throws is written with where it ran, whose ref it had, and who set it") {
  const std::string output = output_of("callbacks");

  const auto in_actor = lines_with(output, "heard in an actor");
  REQUIRE(in_actor.size() == 1);
  CHECK(has(in_actor[0], "mobula: in actor shown::Listener (id "));
  CHECK(has(in_actor[0], "), a callback for shown::twice (id "));
  CHECK(has(in_actor[0], "), set in shown::Listener::listens, threw std::runtime_error: heard"));

  const auto late = lines_with(output, "too late in an actor");
  REQUIRE(late.size() == 1);
  CHECK(has(late[0], "), a callback of call_after threw std::runtime_error: too late"));

  const auto in_task = lines_with(output, "heard in a task");
  REQUIRE(in_task.size() == 1);
  CHECK(has(in_task[0], "mobula: in process "));
  CHECK(has(in_task[0], ", a callback for shown::twice (id "));
  CHECK(has(in_task[0], "), set in shown::listens, threw std::runtime_error: heard in a task"));

  const auto in_driver = lines_with(output, "heard in the driver");
  REQUIRE(in_driver.size() == 1);
  CHECK(in_driver[0].find("mobula: in the driver, a callback for shown::twice (id ") == 0);
  CHECK(has(in_driver[0], ") threw std::runtime_error: heard in the driver"));
}

TEST_CASE("a line of log says when, what and where, with the fields that were given") {
  const std::string output = output_of("logs");

  const auto driver = lines_with(output, "spoken in the driver");
  REQUIRE(driver.size() == 1);
  CHECK(driver[0].find("time=20") == 0);
  CHECK(has(driver[0], "Z level=info text=\"spoken in the driver\" pid="));
  CHECK(has(driver[0], " task=(driver) "));

  const auto task = lines_with(output, "spoken in a task");
  REQUIRE(task.size() == 1);
  CHECK(task[0].find("(worker pid=") == 0);
  CHECK(has(task[0], " task=shown::speak task_id="));
  CHECK(has(task[0], " n=7 share=0.5 who=\"a b\" pid_=mine"));
  CHECK(!has(task[0], "actor"));

  const auto in_actor = lines_with(output, "spoken in an actor");
  REQUIRE(in_actor.size() == 1);
  CHECK(in_actor[0].find("(shown::Speaker pid=") == 0);
  CHECK(has(in_actor[0], "level=warning"));
  CHECK(has(in_actor[0], "task=shown::Speaker::speak"));
  CHECK(has(in_actor[0], "actor=shown::Speaker actor_name=\"the speaker\" actor_id="));

  CHECK(lines_with(output, "went wrong").size() == 1);
  CHECK(lines_with(output, "for the curious").empty());
}

TEST_CASE("what was printed before the session is printed by no worker") {
  // by the driver, and by the process from which workers are forked
  CHECK(lines_with(output_of("printed_before"), "before the session").size() == 2);
}

TEST_CASE("what a call has logged is not logged again when it is replayed") {
  const std::string output = output_of("logs_replayed");
  CHECK(lines_with(output, "text=booked").size() == 4);
  CHECK(lines_with(output, "entry=4").size() == 1);
}

TEST_CASE("the level and the form are chosen by Config and by the environment, for all processes") {
  const std::string json = output_of("logs_json", {{"MOBULA_LOG_LEVEL", "error"}});
  CHECK(lines_with(json, "\"level\":\"debug\",\"text\":\"for the curious\"").size() == 1);
  CHECK(lines_with(json, "\"n\":7,\"share\":0.5,\"who\":\"a b\"").size() == 1);

  const std::string errors = output_of("logs", {{"MOBULA_LOG_LEVEL", "error"}});
  CHECK(lines_with(errors, "level=error").size() == 1);
  CHECK(lines_with(errors, "level=").size() == 1);

  const std::string by_variable = output_of("logs", {{"MOBULA_LOG_FORMAT", "json"}});
  CHECK(lines_with(by_variable, "{\"time\":\"20").size() == 4);
  output_of("odd_level");
}

TEST_CASE("log works outside of a session, too") {
  CHECK(lines_with(output_of("logs_outside"), "text=\"spoken outside of a session\" pid=").size() ==
        1);
}

TEST_CASE("a flood from one place leaves the others their say, and tells what it left out") {
  const std::string output = output_of("flood");

  CHECK(lines_with(output, "before the flood").size() == 1);
  CHECK(lines_with(output, "after the flood").size() == 1);
  const auto flooded = lines_with(output, "text=flood");
  CHECK(flooded.size() >= 100);
  CHECK(flooded.size() < 2000);
  CHECK(has(flooded.back(), "suppressed="));
  CHECK(has(flooded.back(), "i=-1"));
}

TEST_CASE("without a terminal the progress of all tasks and the driver is said at the end") {
  const std::string output = output_of("progress");

  const auto lines = lines_with(output, "steps: 110 of 110 (100 %) in ");
  CHECK(lines.size() == 1);
  // What was not done is not waited for.
  CHECK(lines_with(output, "gives up: 3 of 3 (100 %)").size() == 1);
  CHECK(!has(output, "\033"));
}

TEST_CASE("a long progress is said every few seconds") {
  const std::string output = output_of("progress_slow");

  CHECK(lines_with(output, " of 130 (").size() >= 2);
  CHECK(lines_with(output, " left").size() >= 1);
}

TEST_CASE("log_to_driver = false shows neither progress nor what tasks print") {
  const std::string output = output_of("progress_quiet");
  CHECK(lines_with(output, "steps").empty());
  CHECK(lines_with(output, "own words").empty());
  CHECK(lines_with(output, "and its line").empty());
}

TEST_CASE("what a killed attempt had done is not counted twice") {
  CHECK(lines_with(output_of("progress_killed"), "fragile: 10 of 10 (100 %)").size() == 1);
}

void check_terminal(const std::string& text) {
  INFO(text);
  CHECK(has(text, "#"));
  CHECK(has(text, "[A"));  // two at a time
  CHECK(has(text, "steps: "));
  const auto lines = screen(text);
  int printed = 0;
  int ended = 0;
  for (const std::string& line : lines) {
    CHECK(line.size() < 70);
    CHECK(!has(line, "#"));
    printed += has(line, " of the task") && line.find("(worker pid=") == 0;
    ended +=
        line.find("steps: 40 of 40 (100 %)") == 0 || line.find("beside: 12 of 12 (100 %)") == 0;
  }
  CHECK(printed == 12);
  CHECK(ended == 2);
}
TEST_CASE("on a terminal bars stay below what tasks print, and are gone at the end") {
  check_terminal(on_terminal("terminal"));
}

TEST_CASE("drivers that have joined a node see their own bars and lines, in the form they chose") {
  const mobula::test::OwnPlace place;
  const mobula::test::StayingNode node(place);
  auto variables = place.variables("test");

  check_terminal(on_terminal("terminal", variables));
  const std::string json = output_of("logs_json", variables);
  CHECK(lines_with(json, "\"level\":\"debug\",\"text\":\"for the curious\"").size() == 1);
  variables["MOBULA_LOG_LEVEL"] = "error";
  CHECK(lines_with(output_of("logs", variables), "level=").size() == 1);
  CHECK(lines_with(output_of("progress", variables), "steps: 110 of 110 (100 %)").size() == 1);
}

TEST_CASE("a line of 80 MB leaves the node's memory small, and its file bounded") {
  const Scratch home;
  auto variables = mobula::test::session_folder_variables(home);
  const Scratch notes;
  variables["MOBULA_TEST_SEEN"] = notes.file("seen");

  const std::string output = output_of("pour", variables);

  CHECK(output.size() > 80 << 20);
  int heap_kib = 0;
  std::uintmax_t largest_file = 0;
  std::istringstream(mobula::test::text_of(notes.file("seen"))) >> heap_kib >> largest_file;
  CHECK(heap_kib > 0);
  CHECK(heap_kib < 64 << 10);
  CHECK(largest_file > 1 << 20);
  CHECK(largest_file <= 64 << 20);
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--case") return kCases.at(argv[2])(argc, argv);
  doctest::Context context(argc, argv);
  return context.run();
}
