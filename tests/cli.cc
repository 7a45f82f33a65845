// The `mobula` command, as it is run by people and by scripts.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "support/session_view.h"
#include "support/staying_node.h"
#include "wire/local_protocol.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::CommandRun;
using mobula::test::eventually;
using mobula::test::open_gate;
using mobula::test::OwnPlace;
using mobula::test::Scratch;
using mobula::test::StayingNode;
using mobula::test::wait_at_gate;

namespace shown {

int gated(std::string gate) {
  std::puts("at the gate");
  std::fflush(stdout);
  wait_at_gate(gate, 60s);
  return 1;
}
int after(int x) { return x; }
int fails(int x) {
  if (x > 0) throw std::runtime_error("as asked");
  return x;
}
struct Keeper {
  int hold(std::string gate) const { return gated(std::move(gate)); }
};

// Says which process cleans up after it, and waits.
int run_idle(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  std::printf("daemon=%d ready\n", static_cast<int>(mobula::test::SessionView().node()));
  std::fflush(stdout);
  wait_at_gate(argv[2], 60s);
  return 0;
}

// One of each: a task that runs, one that waits for it, one that waits for a CPU, one that failed,
// an actor with a call that runs and one that waits, an actor that was killed, a large object.
int run(int argc, char** argv) {
  const std::string gate = argv[2];
  mobula::Config config{.object_store_memory = 64 << 20};
  if (!std::getenv("MOBULA_ADDRESS") || !*std::getenv("MOBULA_ADDRESS")) config.num_cpus = 1;
  const mobula::Session session(argc, argv, config);
  const mobula::Gauge gates("gates", "that are to open", {{"open", "no"}});
  gates.set(2);
  const mobula::Histogram sizes("sizes", "", {3, 5});
  for (const double size : {2.5, 4.5}) sizes.observe(size);
  const Ref<int> failed = remote<fails>.with({.max_retries = 0})(1);
  if (mobula::try_get(failed)) return 2;
  const auto killed = mobula::actor<Keeper>();
  mobula::get(killed.ready());
  mobula::kill(killed);
  const auto keeper = mobula::actor<Keeper>.with({.name = "the_keeper"})();
  const auto holds = keeper.call<&Keeper::hold>(gate);
  const auto queued = keeper.call<&Keeper::hold>(gate);
  const Ref<int> running = remote<gated>(gate);
  std::this_thread::sleep_for(100ms);  // it has the CPU: what comes now waits for it
  const Ref<int> waiting = remote<after>(running);
  const Ref<int> ready = remote<gated>.with({.num_cpus = 0.5})(gate);
  const auto group =
      mobula::placement_group({{{"CPU", 0.5}}}, mobula::Strategy::Pack, {.name = "later"});
  const auto large = mobula::put(std::vector<char>(3 << 20, 'x'));
  std::puts("ready");
  std::fflush(stdout);
  wait_at_gate(gate);
  mobula::remove_placement_group(group);
  return mobula::get(waiting) + mobula::get(ready) + mobula::get(holds) + mobula::get(queued) == 4
             ? 0
             : 1;
}

// Never gets beyond its constructor.
struct Mayfly {
  Mayfly() { ::kill(::getpid(), SIGKILL); }
};
int run_restless(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.num_cpus = 1});
  const auto mayfly = mobula::actor<Mayfly>.with({.max_restarts = -1})();
  std::puts("ready");
  std::fflush(stdout);
  wait_at_gate(argv[2], 60s);
  return 0;
}

// A job of its own node, in which everything has come to a stand.
class Job {
 public:
  explicit Job(const OwnPlace& place, const std::string& address = {})
      : place_(place),
        child_(mobula::test::own_program(), {"--job", scratch_.file("gate")},
               place.variables(address)) {
    if (!child_.says("ready", 20s)) throw std::runtime_error("no job: " + child_.output());
    const auto stands = [&] {
      return rows("list tasks --json --state running").size() == 2 &&
             rows("list tasks --json --state ready").size() >= 2;
    };
    if (!eventually(10s, stands))
      throw std::runtime_error("no stand: " + command("list tasks").output);
  }
  bool ends() {
    open_gate(scratch_.file("gate"));
    const auto ending = child_.wait(20s);
    return ending && ending->signal == 0 && ending->code == 0;
  }
  Child& child() { return child_; }

  CommandRun command(const std::string& line) const {
    std::vector<std::string> words;
    for (std::size_t at = 0; at < line.size();) {
      const std::size_t end = std::min(line.find(' ', at), line.size());
      words.push_back(line.substr(at, end - at));
      at = end + 1;
    }
    return place_.run(words);
  }
  std::vector<std::string> rows(const std::string& line) const {
    std::vector<std::string> rows;
    const std::string output = command(line).output;
    for (std::size_t at = 0; at < output.size();) {
      const std::size_t end = std::min(output.find('\n', at), output.size());
      rows.push_back(output.substr(at, end - at));
      at = end + 1;
    }
    return rows;
  }

 private:
  const OwnPlace& place_;
  Scratch scratch_;
  Child child_;
};

// The text of a field of a row in JSON: "id": "3f" -> 3f, "pid": 12 -> 12.
std::string field(const std::string& row, const std::string& name) {
  const std::string key = "\"" + name + "\": ";
  const std::size_t at = row.find(key);
  if (at == std::string::npos) return "(no " + name + ")";
  const std::size_t begin = at + key.size();
  if (row[begin] == '"') return row.substr(begin + 1, row.find('"', begin + 1) - begin - 1);
  return row.substr(begin, row.find_first_of(",}", begin) - begin);
}
// The first row that has all these words.
std::string row_with(const std::vector<std::string>& rows, const std::vector<std::string>& words) {
  for (const std::string& row : rows) {
    bool all = true;
    for (const std::string& word : words) all = all && row.find(word) != std::string::npos;
    if (all) return row;
  }
  return {};
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace shown
using shown::field;
using shown::has;
using shown::Job;
using shown::row_with;

TEST_CASE("help has examples, and a wrong command line is told what is wrong with it") {
  const OwnPlace place;
  CHECK(place.run({}).code == 2);
  CHECK(place.run({"--help"}).code == 0);
  for (const std::string command :
       {"start", "stop", "status", "list", "memory", "metrics", "logs", "why"}) {
    CAPTURE(command);
    const auto help = place.run({command, "--help"});
    CHECK(help.code == 0);
    CHECK(has(help.output, "Usage: mobula " + command));
    const std::size_t examples = help.output.find("\nExamples:\n  ");
    REQUIRE(examples != std::string::npos);
    CHECK(help.output.find("mobula " + command, examples) != std::string::npos);
  }
  struct Row {
    std::vector<std::string> words;
    std::string told;
  };
  for (const Row& row : std::vector<Row>{
           {{"strat"}, "there is no command 'strat'"},
           {{"start"}, "--head"},
           {{"start", "--head", "--num-cpu=1"}, "there is no option --num-cpu"},
           {{"start", "--head", "--num-cpus"}, "--num-cpus needs a value"},
           {{"start", "--head", "--num-cpus=many"}, "--num-cpus is 'many'"},
           {{"start", "--head", "--num-cpus=-1"}, "--num-cpus is '-1'"},
           {{"start", "--head", "--name=a/b"}, "--name is 'a/b'"},
           {{"start", "--head", "--name=auto"}, "neither auto nor local"},
           {{"start", "--head", "--resources=lamp"}, "'lamp'"},
           {{"start", "--head", "--resources=CPU=1"}, "CPU has an option of its own"},
           {{"start", "--head", "--object-store-memory=5Q"}, "such as 512M or 2G"},
           {{"start", "--head", "--object-store-memory=1M"}, "from 16 MiB"},
           {{"start", "--head", "--json=1"}, "--json takes no value"},
           {{"list"}, "list what?"},
           {{"list", "cats"}, "no cats to list"},
           {{"list", "tasks", "--state", "runing"}, "tasks are waiting, ready, running"},
           {{"list", "actors", "--state", "running"}, "actors are pending, alive"},
           {{"list", "jobs", "--state", "running"}, "--state is for tasks, actors"},
           {{"list", "tasks", "--limit", "many"}, "--limit is 'many'"},
           {{"stop", "main", "--all"}, "a name or --all"},
           {{"stop", "--grace=-1"}, "--grace is '-1'"},
           {{"list", "tasks", "jobs"}, "'jobs' is one word too many"},
           {{"why"}, "why what?"},
       }) {
    CAPTURE(row.words);
    const auto run = place.run(row.words);
    INFO(run.output);
    CHECK(run.code == 2);
    CHECK(has(run.output, row.told));
  }
}

TEST_CASE("what is not there is exit code 3, and says so") {
  const OwnPlace place;
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"status"},
                                             {"stop"},
                                             {"stop", "main"},
                                             {"memory"},
                                             {"metrics"},
                                             {"logs"},
                                             {"why", "00ff"},
                                             {"list", "tasks", "--job", "77"}}) {
    CAPTURE(words);
    const auto run = place.run(words);
    CHECK(run.code == 3);
    CHECK(!run.output.empty());
  }
  CHECK(place.run({"list", "tasks"}).code == 0);  // none, which is an answer
}

TEST_CASE("start returns when drivers can join, status shows it, and stop leaves nothing") {
  const OwnPlace place;
  Child started(
      mobula::test::mobula_command(),  // and what it leaves running is its family
      {"start", "--head", "--num-cpus=2", "--resources", "lamp=1", "--object-store-memory=128M"},
      place.variables());
  const auto ending = started.wait(20s);
  INFO(started.output());
  REQUIRE(ending.has_value());
  REQUIRE(ending->code == 0);
  CHECK(has(started.output(), "MOBULA_ADDRESS=main"));

  const auto status = place.run({"status"});
  CHECK(status.code == 0);
  CHECK(has(status.output, "CPU 2 of 2, lamp 1 of 1"));
  const auto json = place.run({"status", "--json"});
  CHECK(field(json.output, "kind") == "node");
  CHECK(field(json.output, "node") == "main");
  CHECK(place.run({"start", "--head"}).code == 1);  // the name is taken
  Child other(mobula::test::mobula_command(),
              {"start", "--head", "--name=other", "--object-store-memory=64M", "--json"},
              place.variables());
  REQUIRE(other.wait(20s).has_value());
  CHECK(field(other.output(), "node") == "other");
  CHECK(std::filesystem::exists(field(other.output(), "socket")));
  CHECK(place.run({"stop", "other"}).code == 0);
  const pid_t gone = std::stoi(field(other.output(), "pid"));
  CHECK(eventually(5s, [&] { return mobula::test::is_gone(gone); }));

  const auto stopped = place.run({"stop"});
  INFO(stopped.output);
  CHECK(stopped.code == 0);
  CHECK(has(stopped.output, "node main has ended"));
  CHECK(!std::filesystem::exists(place.folder()));
  const pid_t head = std::stoi(field(json.output, "pid"));
  CHECK(eventually(5s, [&] { return mobula::test::is_gone(head); }));
}

TEST_CASE("stop tells which drivers' jobs ended with the node") {
  const OwnPlace place;
  StayingNode node(place, {"--num-cpus=1"});
  Job job(place, "test");

  const auto stopped = place.run({"stop", "--grace=0.1"});

  INFO(stopped.output);
  CHECK(stopped.code == 0);
  CHECK(has(stopped.output, "driver " + std::to_string(job.child().pid()) + " (scenario_cli)"));
  CHECK(node.keeper().wait(10s).has_value());
}

TEST_CASE("a driver that ended before the node is not told as one that ended with it") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  Child driver(mobula::test::own_program(), {"--idle", scratch.file("gate")},
               place.variables("test"));
  REQUIRE(driver.says("ready", 20s));
  const std::string said = driver.output();
  const pid_t daemon = std::stoi(said.substr(said.find("daemon=") + 7));
  REQUIRE(::kill(daemon, SIGSTOP) == 0);  // its job is there for as long as that takes
  driver.send(SIGKILL);
  REQUIRE(driver.wait(10s).has_value());

  Child stop(mobula::test::mobula_command(), {"stop"}, place.variables());
  std::this_thread::sleep_for(200ms);
  ::kill(daemon, SIGCONT);

  REQUIRE(stop.wait(20s).has_value());
  CHECK(stop.output() == "node test has ended\n");
}

TEST_CASE("stop ends the node that is named, or all, and asks which one of several is meant") {
  const OwnPlace place;
  StayingNode ann(place, {}, "ann");
  StayingNode bob(place, {}, "bob");

  const auto which = place.run({"stop"});
  CHECK(which.code == 3);
  CHECK(has(which.output, "ann, bob"));
  CHECK(place.run({"stop", "cid"}).code == 3);
  CHECK(ann.answers());

  CHECK(place.run({"stop", "ann"}).code == 0);
  CHECK(!ann.answers());
  CHECK(bob.answers());

  StayingNode cid(place, {}, "cid");
  const auto all = place.run({"stop", "--all"});
  CHECK(all.code == 0);
  CHECK(has(all.output, "node bob has ended"));
  CHECK(has(all.output, "node cid has ended"));
  CHECK(place.run({"status"}).code == 3);
}

TEST_CASE("list shows tasks, actors, objects, workers and jobs of a driver with its own node") {
  const OwnPlace place;
  Job job(place);

  const auto tasks = job.rows("list tasks --json");
  for (const auto& [name, state] :
       std::vector<std::pair<std::string, std::string>>{{"gated", "running"},
                                                        {"after", "waiting"},
                                                        {"gated", "ready"},
                                                        {"fails", "failed"},
                                                        {"Keeper::hold", "running"},
                                                        {"Keeper::hold", "ready"}}) {
    CAPTURE(name);
    CAPTURE(state);
    CHECK(!row_with(tasks, {name, "\"state\": \"" + state + "\""}).empty());
  }
  const pid_t runner = std::stoi(field(row_with(tasks, {"::gated\"", "running"}), "pid"));
  CHECK(!mobula::test::is_gone(runner));

  const auto actors = job.rows("list actors --json");
  const std::string alive = row_with(actors, {"Keeper", "alive"});
  CHECK(std::stoi(field(alive, "pid")) > 0);
  CHECK(field(alive, "name") == "the_keeper");
  CHECK(!row_with(actors, {"Keeper", "dead"}).empty());
  CHECK(job.rows("list actors --json --state dead").size() == 1);

  const auto objects = job.rows("list objects --json");
  REQUIRE(!objects.empty());
  CHECK(field(objects[0], "name") == "(put)");
  CHECK(std::stoi(field(objects[0], "size")) >= 3 << 20);
  CHECK(field(objects[0], "owner") == std::to_string(job.child().pid()));

  const auto workers = job.rows("list workers --json");
  CHECK(field(row_with(workers, {"\"worker\"", "busy"}), "pid") == std::to_string(runner));
  CHECK(!row_with(workers, {"\"actor\"", "busy", "Keeper"}).empty());

  const auto groups = job.rows("list placement-groups --json");
  REQUIRE(groups.size() == 1);
  CHECK(field(groups[0], "name") == "later");
  CHECK(field(groups[0], "state") == "pending");
  CHECK(has(groups[0], "Pack: {CPU 0.5}"));
  CHECK(job.rows("list placement-groups --json --state created").empty());

  const auto jobs = job.rows("list jobs --json");
  REQUIRE(jobs.size() == 1);
  CHECK(field(jobs[0], "driver") == std::to_string(job.child().pid()));
  CHECK(field(jobs[0], "program") == "scenario_cli");
  CHECK(field(jobs[0], "node") == "(own)");
  CHECK(job.rows("list tasks --json --job " + field(jobs[0], "job")).size() == tasks.size());
  CHECK(job.command("list tasks --limit 1").output.find("1 of ") != std::string::npos);
  CHECK(has(job.command("list tasks").output, "STATE"));  // for people

  CHECK(job.ends());
}

TEST_CASE("why follows what a task waits for to where it ends") {
  const OwnPlace place;
  Job job(place);
  const auto tasks = job.rows("list tasks --json");
  const auto why = [&](const std::vector<std::string>& words, const char* id = "task") {
    return job.command("why " + field(row_with(tasks, words), id)).output;
  };
  const std::string running = field(row_with(tasks, {"::gated\"", "running"}), "pid");

  const std::string waits = why({"after", "waiting"});
  INFO(waits);
  CHECK(has(waits, "waits for 1 of its arguments\n  task"));
  CHECK(has(waits, "runs in process " + running));
  const auto rows =
      job.rows("why " + field(row_with(tasks, {"after", "waiting"}), "task") + " --json");
  REQUIRE(rows.size() == 2);
  CHECK(field(rows[0], "level") == "0");
  CHECK(has(field(rows[0], "text"), "waits for 1 of its arguments"));
  CHECK(field(rows[1], "level") == "1");
  CHECK(has(field(rows[1], "text"), "runs in process " + running));

  const std::string ready = why({"::gated\"", "ready"});
  INFO(ready);
  CHECK(has(ready, "waits for CPU 0.5: 1 of 1 is held by tasks of CPU 1, such as shown::gated "));

  const std::string queued = why({"Keeper::hold", "ready"});
  INFO(queued);
  CHECK(has(queued, "waits for its turn in its actor\n  actor "));
  CHECK(has(queued, "    call "));

  CHECK(has(why({"fails"}), "has thrown"));
  const auto actors = job.rows("list actors --json");
  const std::string dead = field(row_with(actors, {"dead"}), "actor");
  CHECK(has(job.command("why " + dead).output, "was killed by mobula::kill"));
  const std::string group = field(job.rows("list placement-groups --json").at(0), "group");
  const std::string pending = job.command("why " + group).output;
  INFO(pending);
  CHECK(
      has(pending, "placement group \"later\" (" + group + ") waits for CPU 0.5: 1 of 1 is held"));
  CHECK(job.ends());
}

TEST_CASE("memory, metrics and logs show what the job's processes keep, count and print") {
  const OwnPlace place;
  Job job(place);

  const auto memory = job.command("memory");
  CHECK(memory.code == 0);
  CHECK(has(memory.output, "object store"));
  CHECK(has(memory.output, "(put)"));
  CHECK(field(job.command("memory --json").output, "capacity") == std::to_string(64 << 20));

  const auto metrics = job.command("metrics");
  CHECK(metrics.code == 0);
  CHECK(has(metrics.output, "gates{open=\"no\"}"));
  CHECK(has(metrics.output, "  2 values, mean 3.5, p50 <= 3, p99 <= 5\n"));
  const std::string gates = row_with(job.rows("metrics --json"), {"gates"});
  CHECK(field(gates, "tags") == "open=no");
  CHECK(field(gates, "kind") == "gauge");
  CHECK(field(gates, "value") == "2");
  CHECK(has(job.command("metrics --prometheus").output,
            "gates{job=\"" + field(gates, "job") + "\",open=\"no\"} 2\n"));
  CHECK(job.command("metrics --prometheus --json").code == 2);

  CHECK(eventually(5s, [&] { return has(job.command("logs").output, ".out: at the gate\n"); }));
  CHECK(job.command("logs no-such-log").code == 3);
  const std::string said = row_with(job.rows("logs worker --json"), {"at the gate"});
  CHECK(field(said, "job") == field(gates, "job"));
  CHECK(field(said, "log").ends_with(".out"));
  CHECK(field(said, "line") == "at the gate");
  Child follows(mobula::test::mobula_command(), {"logs", "actor", "--follow"}, place.variables());
  CHECK(follows.says("at the gate", 5s));
  CHECK(job.ends());
  const auto ending = follows.wait(5s);  // with the job
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
}

TEST_CASE("why says how often an actor has died at its start, and logs that nobody has printed") {
  const OwnPlace place;
  const Scratch scratch;
  Child job(mobula::test::own_program(), {"--restless", scratch.file("gate")}, place.variables());
  REQUIRE(job.says("ready", 20s));
  const std::string actor = field(place.run({"list", "actors", "--json"}).output, "actor");

  std::string told;
  CHECK(eventually(20s, [&] {
    told = place.run({"why", actor}).output;
    return has(told, " times in a row within 1000 ms of its start; the next start is due in ");
  }));
  INFO(told);
  const std::string deaths = "is restarting: its process died ";
  REQUIRE(has(told, deaths));
  CHECK(std::stoi(told.substr(told.find(deaths) + deaths.size())) > 3);

  const auto logs = place.run({"logs"});
  CHECK(logs.code == 0);
  CHECK(logs.output == "mobula: nothing has been printed yet\n");
  open_gate(scratch.file("gate"));
  CHECK(job.wait(20s).has_value());
}

TEST_CASE("a stranger's words to a session's socket are refused, and harm nothing") {
  const OwnPlace place;
  Job job(place);
  std::string folder;
  for (const auto& entry : std::filesystem::directory_iterator(place.folder()))
    folder = entry.path().string();
  for (const auto kind : {mobula::wire::Kind::Leave, mobula::wire::Kind::LeaseExtent,
                          mobula::wire::Kind::OpenClass, mobula::wire::Kind::Joined}) {
    const int socket = mobula::wire::connect_in(folder);
    mobula::wire::Message message;
    message.kind = kind;
    REQUIRE(mobula::wire::send(socket, message));
    REQUIRE(mobula::wire::receive(socket, message) == mobula::wire::Received::Message);
    CHECK(message.status == mobula::wire::Status::Invalid);
    ::close(socket);
  }
  std::vector<int> sockets;  // more than it listens to
  for (int i = 0; i < 40; ++i) sockets.push_back(mobula::wire::connect_in(folder));
  for (const int socket : sockets) ::close(socket);
  CHECK(eventually(5s, [&] { return job.rows("list jobs --json").size() == 1; }));
  CHECK(job.ends());
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--job") return shown::run(argc, argv);
  if (argc == 3 && std::string_view(argv[1]) == "--idle") return shown::run_idle(argc, argv);
  if (argc == 3 && std::string_view(argv[1]) == "--restless")
    return shown::run_restless(argc, argv);
  doctest::Context context(argc, argv);
  return context.run();
}
