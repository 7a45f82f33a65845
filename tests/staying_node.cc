// A node that stays: drivers join it, share its resources and do not harm each other; nobody else
// gets in; and nothing of it is left, however it ends.
#include "support/scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "support/staying_node.h"

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::eventually;
using mobula::test::family_of;
using mobula::test::gate_is_open;
using mobula::test::milliseconds;
using mobula::test::nodes_of;
using mobula::test::open_gate;
using mobula::test::OwnPlace;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::StayingNode;
using mobula::test::text_of;
using mobula::test::wait_at_gate;
using mobula::test::workers_of;

namespace fs = std::filesystem;

namespace joined {

int square(int x) { return x * x; }

// One line of what a task saw, and two of when it ran, in the order of all drivers' tasks.
void note(const std::string& file, const std::string& text) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (::write(fd, text.data(), text.size()) < 0) std::abort();
  ::close(fd);
}
int noted(std::string file, std::string who, int ms) {
  note(file, who + "+");
  std::this_thread::sleep_for(milliseconds(ms));
  note(file, who + "-");
  return 1;
}
std::string surroundings() {
  const char* variable = std::getenv("JOINED_TEST");
  std::puts("said by a worker");
  return fs::current_path().string() + " " + (variable ? variable : "(none)");
}
struct Holder {
  int answer() const { return 42; }
};

void say(const std::string& word) {
  std::puts(word.c_str());
  std::fflush(stdout);
}

// Keeps as many tasks in flight as there are CPUs, and two more, until the gate opens.
int busy(const std::string& file, const std::string& who, const std::string& gate) {
  std::vector<Ref<int>> flying;
  int done = 0;
  while (!gate_is_open(gate)) {
    while (flying.size() < 4) flying.push_back(remote<noted>(file, who, 5));
    auto [ready, rest] = mobula::wait(std::move(flying));
    done += static_cast<int>(ready.size());
    flying = std::move(rest);
  }
  for (const int one : mobula::get(flying)) done += one;
  say("did " + std::to_string(done));
  return 0;
}

int holds_gpu(const std::string& gate) {
  const auto holder = mobula::actor<Holder>.with({.num_gpus = 1})();
  mobula::get(holder.ready());
  say("holds");
  wait_at_gate(gate);
  return mobula::get(holder.call<&Holder::answer>()) == 42 ? 0 : 1;
}

// The group waits for the other driver's tasks, and keeps both CPUs until the gate opens.
int holds_group(const std::string& gate) {
  const auto group = mobula::placement_group({{{"CPU", 1}}, {{"CPU", 1}}});
  if (!group.wait(20s)) return 1;
  say("holds");
  wait_at_gate(gate);
  const auto task = remote<square>.with({.scheduling = mobula::PlacementGroupScheduling{group, 1}});
  if (mobula::get(task(3), 20s) != 9) return 2;
  mobula::remove_placement_group(group);
  say("removed");
  return 0;
}

int wants_all_cpus() {
  const auto both = remote<square>.with({.num_cpus = 2});
  for (int i = 0; i < 3; ++i) {
    if (mobula::get(both(i), 20s) != i * i) return 1;
  }
  say("had both");
  return 0;
}

// Whatever the node does to it is told as an error of its own type.
int loses_node(const std::string& file, int ms) {
  const Ref<int> ends = remote<noted>(file, "x", ms);
  const Ref<int> never = remote<noted>.with({.num_cpus = 2})(file, "y", 20'000);
  if (!eventually(10s, [&] { return !text_of(file).empty(); })) return 2;
  say("ready");
  try {
    mobula::get(never);
  } catch (const mobula::NodeDiedError&) {
    say("lost");
    return 0;
  }
  return 3;
}

int tells_resources(const std::string& gate) {
  say("all " + std::to_string(mobula::cluster_resources().at("GPU")));
  const auto free = [] { return mobula::test::amount_of(mobula::available_resources(), "GPU"); };
  if (!eventually(5s, [&] { return free() == 0; })) return 1;
  say("none free");
  wait_at_gate(gate);
  return eventually(5s, [&] { return free() == 1; }) ? 0 : 2;
}

int run(int argc, char** argv) {
  const std::vector<std::string> words(argv + 2, argv + argc);
  const std::string& what = words.at(0);
  mobula::Config config;
  if (what == "large_store") config.object_store_memory = 200 << 20;
  if (what == "many_cpus") config.num_cpus = 64;
  if (what == "one_cpu") config.num_cpus = 1;
  try {
    const mobula::Session session(argc, argv, config);
    if (what == "busy") return busy(words.at(1), words.at(2), words.at(3));
    if (what == "holds_gpu") return holds_gpu(words.at(1));
    if (what == "holds_group") return holds_group(words.at(1));
    if (what == "wants_all_cpus") return wants_all_cpus();
    if (what == "loses_node") return loses_node(words.at(1), std::atoi(words.at(2).c_str()));
    if (what == "tells_resources") return tells_resources(words.at(1));
    if (what == "surroundings") {
      say(mobula::get(remote<surroundings>()));
      return 0;
    }
    if (what == "one_cpu") say("cpus " + std::to_string(mobula::cluster_resources().at("CPU")));
    if (what == "large_store") {
      say("stored");
      wait_at_gate(words.at(1));
    }
    say("squared " + std::to_string(mobula::get(remote<square>(7))));
    say("on " + mobula::nodes().at(0).node_id);
    return 0;
  } catch (const mobula::NodeDiedError&) {
    return 4;
  } catch (const mobula::Error& e) {
    say(std::string("error: ") + e.what());
    return 9;
  }
}

Child start(const OwnPlace& place, const std::vector<std::string>& words,
            const std::string& address = "test") {
  std::vector<std::string> all{"--driver"};
  all.insert(all.end(), words.begin(), words.end());
  auto variables = place.variables(address);
  variables["JOINED_TEST"] = "from the driver";
  return {mobula::test::own_program(), all, variables};
}

// How many tasks of `who` ran at most at a time, and how many began, in this part of the notes.
struct Seen {
  int most = 0;
  int began = 0;
};
Seen seen_of(const std::string& notes, std::size_t from, char who) {
  Seen seen;
  int running = 0;
  for (std::size_t i = 0; i + 1 < notes.size(); i += 2) {
    if (notes[i] != who) continue;
    running += notes[i + 1] == '+' ? 1 : -1;
    if (i < from) continue;
    seen.most = std::max(seen.most, running);
    seen.began += notes[i + 1] == '+';
  }
  return seen;
}
int most_of_all(const std::string& notes) {
  int running = 0;
  int most = 0;
  for (std::size_t i = 0; i + 1 < notes.size(); i += 2)
    most = std::max(most, running += notes[i + 1] == '+' ? 1 : -1);
  return most;
}

}  // namespace joined

TEST_CASE("a driver joins by a name, by auto, by a socket's path, and by its command line") {
  const OwnPlace place;
  StayingNode node(place);
  std::set<std::string> nodes;
  for (const std::string& address : {std::string("test"), std::string("auto"), node.socket()}) {
    CAPTURE(address);
    Child driver = joined::start(place, {"square"}, address);

    const auto ending = driver.wait(20s);

    INFO(driver.output());
    REQUIRE(ending.has_value());
    CHECK(ending->code == 0);
    CHECK(driver.output().find("squared 49") != std::string::npos);
    const std::size_t id = driver.output().find("on ") + 3;
    nodes.insert(driver.output().substr(id, 16));
  }
  // All of them were on the same node, which is called so by the tools as well.
  REQUIRE(nodes.size() == 1);
  CHECK(place.run({"list", "nodes"}).output.find(*nodes.begin()) != std::string::npos);
  Child by_option = joined::start(place, {"square", "--mobula-address=test"}, "no-such-node");
  REQUIRE(by_option.wait(20s).has_value());
  CHECK(by_option.output().find("squared 49") != std::string::npos);
}

TEST_CASE("an address that leads nowhere is an error that names what there is") {
  const OwnPlace place;
  Child lonely = joined::start(place, {"square"}, "auto");
  REQUIRE(lonely.wait(20s).has_value());
  CHECK(lonely.output().find("mobula start --head") != std::string::npos);

  StayingNode a(place, {}, "ann");
  StayingNode b(place, {}, "bob");
  for (const std::string address : {"auto", "cid"}) {
    Child lost = joined::start(place, {"square"}, address);
    REQUIRE(lost.wait(20s).has_value());
    CHECK(lost.output().find("ann, bob") != std::string::npos);
  }
  Child own = joined::start(place, {"square"}, "local");
  REQUIRE(own.wait(20s).has_value());
  CHECK(own.output().find("squared 49") != std::string::npos);
}

TEST_CASE("workers find the driver's folder and environment, and print where it prints") {
  const OwnPlace place;
  StayingNode node(place);
  Child driver = joined::start(place, {"surroundings"});

  REQUIRE(driver.wait(20s).has_value());

  INFO(driver.output());
  CHECK(driver.output().find(fs::current_path().string() + " from the driver") !=
        std::string::npos);
  CHECK(driver.output().find("said by a worker") != std::string::npos);
}

TEST_CASE("two busy drivers on two CPUs have one each; one that is alone has both") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  const std::string notes = scratch.file("notes");
  Child a = joined::start(place, {"busy", notes, "a", scratch.file("stop_a")});
  const auto has = [&](char who, int most) {
    const std::size_t from = text_of(notes).size();
    return eventually(20s, [&] {
      const auto seen = joined::seen_of(text_of(notes), from, who);
      return seen.began >= 10 && seen.most >= most;
    });
  };
  CHECK(has('a', 2));

  Child b = joined::start(place, {"busy", notes, "b", scratch.file("stop_b")});
  CHECK(has('b', 1));
  // From some moment on, 30 tasks of each begin, and never two of one at a time.
  bool shared = false;
  for (int tries = 0; tries < 20 && !shared; ++tries) {
    const std::size_t from = text_of(notes).size() / 2 * 2;
    REQUIRE(eventually(20s, [&] {
      const std::string text = text_of(notes);
      return joined::seen_of(text, from, 'a').began >= 30 &&
             joined::seen_of(text, from, 'b').began >= 30;
    }));
    const std::string text = text_of(notes);
    shared =
        joined::seen_of(text, from, 'a').most == 1 && joined::seen_of(text, from, 'b').most == 1;
  }
  CHECK(shared);

  open_gate(scratch.file("stop_b"));
  CHECK(b.wait(20s).has_value());
  CHECK(has('a', 2));
  open_gate(scratch.file("stop_a"));
  const auto ending = a.wait(20s);
  INFO(a.output());
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
  CHECK(joined::most_of_all(text_of(notes)) == 2);  // and never more than the node has
}

TEST_CASE("a task that wants all CPUs gets its turn beside a driver that is always busy") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  Child busy = joined::start(place, {"busy", scratch.file("notes"), "a", scratch.file("stop")});
  REQUIRE(eventually(20s, [&] { return text_of(scratch.file("notes")).size() > 20; }));

  Child wide = joined::start(place, {"wants_all_cpus"});
  const auto ending = wide.wait(60s);

  INFO(wide.output());
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
  open_gate(scratch.file("stop"));
  CHECK(busy.wait(20s).has_value());
}

TEST_CASE("what an actor holds is another driver's only when the actor has ended") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place, {"--num-gpus=1"});
  Child first = joined::start(place, {"holds_gpu", scratch.file("first")});
  REQUIRE(first.says("holds", 20s));
  Child looks = joined::start(place, {"tells_resources", scratch.file("freed")});
  REQUIRE(looks.says("none free", 20s));
  Child second = joined::start(place, {"holds_gpu", scratch.file("second")});
  CHECK(!second.says("holds", 500ms));

  open_gate(scratch.file("first"));

  REQUIRE(first.wait(20s).has_value());
  CHECK(second.says("holds", 20s));
  open_gate(scratch.file("second"));
  CHECK(second.wait(20s).has_value());
  open_gate(scratch.file("freed"));
  const auto ending = looks.wait(20s);
  INFO(looks.output());
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
  CHECK(looks.output().find("all 1") != std::string::npos);
}

TEST_CASE("a placement group gets its CPUs from a driver that is always busy, and keeps them") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  const std::string notes = scratch.file("notes");
  Child busy = joined::start(place, {"busy", notes, "a", scratch.file("stop")});
  REQUIRE(eventually(20s, [&] { return text_of(notes).size() > 20; }));

  Child group = joined::start(place, {"holds_group", scratch.file("gate")});
  REQUIRE(group.says("holds", 60s));
  const std::size_t noted = text_of(notes).size();
  CHECK_FALSE(eventually(200ms, [&] { return text_of(notes).size() != noted; }));

  open_gate(scratch.file("gate"));
  CHECK(eventually(20s, [&] { return text_of(notes).size() > noted + 20; }));
  const auto ending = group.wait(20s);
  INFO(group.output());
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
  open_gate(scratch.file("stop"));
  CHECK(busy.wait(20s).has_value());
}

TEST_CASE("a driver may take less than the node has, and is refused more, with both numbers") {
  const OwnPlace place;
  StayingNode node(place);
  Child one = joined::start(place, {"one_cpu"});
  REQUIRE(one.wait(20s).has_value());
  CHECK(one.output().find("cpus 1") != std::string::npos);

  Child many = joined::start(place, {"many_cpus"});
  REQUIRE(many.wait(20s).has_value());

  CHECK(many.output().find("the amount of CPU is 64, more than the 2") != std::string::npos);
}

TEST_CASE("object memory that is not there is refused, with sizes, until another driver ends") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  Child large = joined::start(place, {"large_store", scratch.file("end")});
  REQUIRE(large.says("stored", 20s));

  Child second = joined::start(place, {"large_store", scratch.file("end")});
  const auto refused = second.wait(20s);
  INFO(second.output());
  REQUIRE(refused.has_value());
  CHECK(refused->code == 9);
  CHECK(
      second.output().find("200 MiB are wanted, and of the 256 MiB of node test 56 MiB are left") !=
      std::string::npos);

  open_gate(scratch.file("end"));
  CHECK(large.wait(20s).has_value());
  CHECK(eventually(10s, [&] {
    Child again = joined::start(place, {"large_store", scratch.file("end")});
    const auto ending = again.wait(20s);
    return ending && ending->code == 0;
  }));
}

TEST_CASE("kill -9 of one driver ends its session alone") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  Child dies = joined::start(place, {"busy", scratch.file("n1"), "a", scratch.file("stop")});
  Child lives = joined::start(place, {"busy", scratch.file("n2"), "b", scratch.file("stop")});
  REQUIRE(eventually(20s, [&] { return text_of(scratch.file("n1")).size() > 20; }));
  REQUIRE(eventually(20s, [&] { return text_of(scratch.file("n2")).size() > 20; }));

  dies.send(SIGKILL);

  // The node's two processes and the other session's daemon.
  CHECK(eventually(5s, [&] {
    return family_of(dies.tag()).empty() && nodes_of(node.keeper().tag()).size() == 3;
  }));
  INFO(mobula::test::describe(family_of(node.keeper().tag())));
  CHECK(std::distance(fs::directory_iterator(place.folder()), fs::directory_iterator()) == 2);
  open_gate(scratch.file("stop"));
  const auto ending = lives.wait(20s);
  REQUIRE(ending.has_value());
  CHECK(ending->code == 0);
}

TEST_CASE("kill -9 of a session's daemon is told to its driver, and leaves no file") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  Child driver = joined::start(place, {"loses_node", scratch.file("notes"), "20000"});
  REQUIRE(driver.says("ready", 20s));
  const pid_t head = node.head();
  for (const auto& seen : family_of(node.keeper().tag())) {
    if (seen.parent == head) REQUIRE(::kill(seen.pid, SIGKILL) == 0);
  }

  CHECK(driver.says("lost", 5s));

  CHECK(driver.wait(10s).has_value());
  CHECK(eventually(5s, [&] {
    return std::distance(fs::directory_iterator(place.folder()), fs::directory_iterator()) == 1;
  }));
  Child next = joined::start(place, {"square"});
  REQUIRE(next.wait(20s).has_value());
  CHECK(next.output().find("squared 49") != std::string::npos);
}

TEST_CASE("kill -9 of the node ends its sessions, and leaves no process and no file") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  Child driver = joined::start(place, {"loses_node", scratch.file("notes"), "20000"});
  REQUIRE(driver.says("ready", 20s));
  const auto start = Clock::now();

  REQUIRE(::kill(node.head(), SIGKILL) == 0);

  CHECK(driver.says("lost", 5s));
  const auto nothing_left = [&] {
    return family_of(node.keeper().tag()).empty() && workers_of(driver.tag()).empty() &&
           !fs::exists(place.folder());
  };
  CHECK(eventually(5s, nothing_left));
  std::printf("nothing was left %d ms after kill -9 of the node\n",
              static_cast<int>(since(start).count()));
}

TEST_CASE("a node that is killed with its keeper is replaced by the next one of its name") {
  const OwnPlace place;
  {
    StayingNode node(place);
    const pid_t head = node.head();
    node.keeper().send(SIGSTOP);  // it shall not clean up
    REQUIRE(::kill(head, SIGKILL) == 0);
    node.keeper().send(SIGKILL);
    REQUIRE(node.keeper().wait(10s).has_value());
    CHECK(eventually(5s, [&] { return family_of(node.keeper().tag()).empty(); }));
    CHECK(fs::exists(node.socket()));  // stale
  }
  CHECK(place.run({"status"}).code == 3);

  StayingNode again(place);

  Child driver = joined::start(place, {"square"});
  REQUIRE(driver.wait(20s).has_value());
  INFO(driver.output());
  CHECK(driver.output().find("squared 49") != std::string::npos);
}

TEST_CASE("SIGTERM lets running tasks end, tells the drivers, and exits with 0") {
  const OwnPlace place;
  const Scratch scratch;
  StayingNode node(place);
  const std::string notes = scratch.file("notes");
  Child driver = joined::start(place, {"loses_node", notes, "700"});
  REQUIRE(driver.says("ready", 20s));

  node.keeper().send(SIGTERM);

  const auto ending = node.keeper().wait(10s);
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 0);
  CHECK(driver.says("lost", 5s));
  INFO(driver.output());
  const auto lost = driver.wait(5s);
  CHECK((lost && lost->code == 0));
  CHECK(text_of(notes) == "x+x-");  // it ended, and the next one did not begin
  CHECK(!fs::exists(place.folder()));
}

TEST_CASE("a second node of the same name is refused, and the first one goes on") {
  const OwnPlace place;
  StayingNode node(place);

  const auto second = place.run({"start", "--head", "--name", "test"});

  CHECK(second.code == 1);
  CHECK(second.output.find("runs already") != std::string::npos);
  CHECK(place.run({"status"}).code == 0);
}

// As another user: the exit code of what is done in a child.
template <class Action>
int as_nobody(const Action& action) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(100);
    ::_exit(action());
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

// 0: connected and then closed by the other side; else errno.
int try_to_talk(const std::string& path) {
  const int socket = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return errno;
  char byte = 0;
  return ::recv(socket, &byte, 1, 0) == 0 ? 0 : 102;
}

TEST_CASE("another user neither enters a node's folder nor is heard, however open it is made") {
  if (::geteuid() != 0) return;  // only root can be somebody else
  const OwnPlace place;
  StayingNode node(place);
  fs::permissions(place.home().path(), fs::perms(0755));
  struct stat info{};
  REQUIRE(::stat(node.socket().c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  REQUIRE(::stat(node.folder().c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
  CHECK(as_nobody([&] { return try_to_talk(node.socket()); }) == EACCES);

  for (const fs::path& path : {place.folder(), node.folder(), fs::path(node.socket())})
    REQUIRE(::chmod(path.c_str(), 0777) == 0);
  CHECK(as_nobody([&] { return try_to_talk(node.socket()); }) == 0);  // hung up on

  // Nor does a driver use a folder that others can write to.
  Child driver = joined::start(place, {"square"});
  REQUIRE(driver.wait(20s).has_value());
  CHECK(driver.output().find("open to other users") != std::string::npos);
}

TEST_CASE("a folder that another user has made in our name is not used") {
  if (::geteuid() != 0) return;  // only root can make one
  const OwnPlace place;
  REQUIRE(::mkdir(place.folder().c_str(), 0777) == 0);
  REQUIRE(::chown(place.folder().c_str(), 65534, 65534) == 0);

  const auto refused = place.run({"start", "--head"});

  CHECK(refused.code == 1);
  CHECK(refused.output.find("belongs to another user") != std::string::npos);
}

int main(int argc, char** argv) {
  if (argc >= 3 && std::string_view(argv[1]) == "--driver") return joined::run(argc, argv);
  doctest::Context context(argc, argv);
  return context.run();
}
