// Workers come and go with the work, and memory stays within its limits.
#include "support/scenario.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "shm/memory_use.h"
#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::ErrorCode;
using mobula::OutOfMemoryError;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::eventually;
using mobula::test::is_gone;
using mobula::test::open_gate;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::wait_at_gate;
using mobula::test::workers_of;

namespace churn {

constexpr std::size_t kMiB = 1 << 20;
std::string tag;

int own_pid() { return static_cast<int>(::getpid()); }
int square(int x) { return x * x; }

// Memory that is really used: each page of it is written.
struct Ballast {
  explicit Ballast(std::size_t n) : size(n) {
    bytes = static_cast<char*>(
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (bytes == MAP_FAILED) throw std::bad_alloc();
    std::memset(bytes, 1, size);
  }
  ~Ballast() { ::munmap(bytes, size); }
  Ballast(const Ballast&) = delete;
  Ballast& operator=(const Ballast&) = delete;
  char* bytes;
  std::size_t size;
};

int pass_gate(std::string gate) {
  wait_at_gate(gate);
  return own_pid();
}
// Each of 8 MiB.
Ref<std::vector<int>> put_block(std::string gate, int value) {
  wait_at_gate(gate);
  return mobula::put(std::vector<int>(2 * kMiB, value));
}
int wait_for(Ref<int> ref) { return mobula::get(ref) * 0 + own_pid(); }

// Keeps 10 MiB more each time.
int leak(int x) {
  static std::vector<std::vector<char>> leaked;
  leaked.emplace_back(10 * kMiB, 'x');
  return x * 0 + own_pid();
}
// Leaves many small holes behind.
int litter(int x) {
  std::vector<std::vector<char>> crumbs;
  for (int i = 0; i < 20'000; ++i) crumbs.emplace_back(4'000, 'x');
  static std::vector<char> kept_between = crumbs.back();
  return x * 0 + own_pid();
}

int use(std::size_t mib, int milliseconds) {
  const Ballast ballast(mib * kMiB);
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  return static_cast<int>(mib);
}
int use_counted(std::string attempts, std::size_t mib, int milliseconds) {
  mobula::test::count_in(attempts);
  return use(mib, milliseconds);
}
// Grows as long as it lives.
int use_without_end(std::string attempts) {
  mobula::test::count_in(attempts);
  std::vector<std::unique_ptr<Ballast>> all;
  for (;;) {
    all.push_back(std::make_unique<Ballast>(4 * kMiB));
    std::this_thread::sleep_for(1ms);
  }
}

struct Hoarder {
  std::vector<std::unique_ptr<Ballast>> all;
  int process() const { return own_pid(); }
  int hoard(std::size_t mib) {
    for (std::size_t i = 0; i < mib; i += 4) {
      all.push_back(std::make_unique<Ballast>(4 * kMiB));
      std::this_thread::sleep_for(1ms);
    }
    return static_cast<int>(all.size());
  }
};

// What a task throws, as text; empty: it threw nothing, or something else.
template <class E, class T>
std::string error_text(const Ref<T>& ref) {
  try {
    mobula::get(ref, 60s);
  } catch (const E& e) {
    std::printf("%s\n", e.what());
    return e.what();
  }
  return {};
}
std::vector<int> get_all(const std::vector<Ref<int>>& refs) {
  std::vector<int> values;
  for (const Ref<int>& ref : refs) values.push_back(mobula::get(ref, 60s));
  return values;
}
bool says(const std::string& text, const std::vector<std::string>& words) {
  return std::all_of(words.begin(), words.end(),
                     [&](const std::string& word) { return text.find(word) != std::string::npos; });
}

// How many workers, and how much memory of their own they have together, at most.
class Watch {
 public:
  Watch()
      : thread_([this](std::stop_token stop) {
          while (!stop.stop_requested()) {
            look();
            std::this_thread::sleep_for(5ms);
          }
        }) {}
  void look() {
    const std::vector<pid_t> now = workers_of(tag);
    std::uint64_t used = 0;
    for (const pid_t pid : now)
      used += mobula::shm::private_memory(static_cast<std::uint32_t>(pid));
    workers_ = std::max(workers_, now.size());
    bytes_ = std::max(bytes_, used);
  }
  std::size_t most_workers() {
    stop();
    return workers_;
  }
  std::uint64_t most_mib() {
    stop();
    return bytes_ / kMiB;
  }

 private:
  void stop() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
  }
  std::size_t workers_ = 0;
  std::uint64_t bytes_ = 0;
  std::jthread thread_;
};

}  // namespace churn
using namespace churn;

// A task of this class holds a lamp, and no CPU.
const mobula::TaskOptions kLit{.num_cpus = 0, .resources = {{"lamp", 1}}};

TEST_CASE("workers that a burst of blocked tasks started go again, and come back warm") {
  for (int burst = 0; burst < 2; ++burst) {
    Scratch scratch;
    const std::string gate = scratch.file("gate");
    const auto start = Clock::now();
    const Ref<int> last = remote<pass_gate>(gate);
    std::vector<Ref<int>> blocked;
    for (int i = 0; i < 40; ++i) blocked.push_back(remote<wait_for>(last));
    REQUIRE(eventually(20s, [] { return workers_of(tag).size() >= 30; }));
    std::printf("30 workers after %d ms\n", static_cast<int>(since(start).count()));
    open_gate(gate);
    get_all(blocked);

    CHECK(eventually(20s, [] { return workers_of(tag).size() == 2; }));
  }
}

TEST_CASE("what a worker made outlives it, and its memory comes back in the end") {
  {
    Scratch scratch;
    const std::string gate = scratch.file("gate");
    std::vector<Ref<Ref<std::vector<int>>>> made;
    for (int i = 0; i < 4; ++i) made.push_back(remote<put_block>.with(kLit)(gate, i));
    REQUIRE(eventually(20s, [] { return workers_of(tag).size() >= 4; }));
    open_gate(gate);
    std::vector<Ref<std::vector<int>>> blocks;
    for (const auto& ref : made) blocks.push_back(mobula::get(ref, 20s));
    REQUIRE(eventually(20s, [] { return workers_of(tag).size() == 2; }));

    for (int i = 0; i < 4; ++i) {
      CHECK(mobula::get(blocks[static_cast<std::size_t>(i)], 20s) == std::vector<int>(2 * kMiB, i));
    }
  }
  CHECK(mobula::create_buffer(48 * kMiB).size() == 48 * kMiB);  // of 64
}

TEST_CASE("idle workers of a class with resources of its own go, too") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  std::vector<Ref<int>> lit;
  for (int i = 0; i < 4; ++i) lit.push_back(remote<pass_gate>.with(kLit)(gate));
  REQUIRE(eventually(20s, [] { return workers_of(tag).size() >= 4; }));
  open_gate(gate);
  get_all(lit);

  CHECK(eventually(20s, [] { return workers_of(tag).size() == 2; }));
  CHECK(mobula::get(remote<square>.with(kLit)(3), 20s) == 9);
}

TEST_CASE(
    "a short task behind a long one gets the CPU that an idle worker of another class keeps") {
  // Two workers, one in a class of its own, idle; the other one is busy for long.
  REQUIRE(eventually(20s, [] { return workers_of(tag).size() == 2; }));
  for (int round = 0; round < 5; ++round) {
    Scratch scratch;
    const std::string gate = scratch.file("gate");
    mobula::get(remote<square>.with({.num_cpus = 0.5 + 0.01 * round})(3), 20s);
    const Ref<int> late = remote<pass_gate>(gate);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // so that it has begun

    CHECK(mobula::try_get(remote<square>(4), 5s).value_or(0) == 16);

    open_gate(gate);
    mobula::get(late, 20s);
  }
}

TEST_CASE("what a task freed goes back to the system, and its worker stays") {
  std::set<int> pids;
  for (int i = 0; i < 30; ++i) pids.insert(mobula::get(remote<litter>(i), 60s));

  CHECK(pids.size() <= 2);
  CHECK(eventually(20s, [&] {
    return std::all_of(pids.begin(), pids.end(), [](int pid) {
      return mobula::shm::private_memory(static_cast<std::uint32_t>(pid)) < 60 * kMiB;
    });
  }));
}

TEST_CASE("tasks that leak do not fill the machine: their workers are replaced in time") {
  Watch watch;
  std::set<int> pids;
  for (int i = 0; i < 30; ++i) {
    std::vector<Ref<int>> refs;
    for (int k = 0; k < 10; ++k) refs.push_back(remote<leak>.with({.max_retries = 0})(k));
    for (const int pid : get_all(refs)) pids.insert(pid);
  }

  std::printf("3000 MiB leaked by %zu workers, at most %d MiB at a time\n", pids.size(),
              static_cast<int>(watch.most_mib()));
  CHECK(pids.size() >= 10);
  CHECK(watch.most_mib() < 512);
}

TEST_CASE("a task that takes all memory is killed, tried again, and fails with OutOfMemoryError") {
  Scratch scratch;
  const std::string attempts = scratch.file("attempts");
  const auto bystander = remote<use>(std::size_t{8}, 200);
  Watch watch;

  const auto text = error_text<OutOfMemoryError>(
      remote<use_without_end>.with({.max_retries = 2, .name = "the glutton"})(attempts));

  CHECK(says(text, {"the glutton", "out of memory", "Config.memory_limit", "512 MiB",
                    "tried 3 times", "TaskOptions.memory"}));
  CHECK(mobula::test::count_of(attempts) == 3);
  CHECK(watch.most_mib() < 1024);
  CHECK(mobula::get(bystander, 20s) == 8);
  CHECK(mobula::get(remote<square>(4), 20s) == 16);
}

TEST_CASE("tasks that fit one at a time, but not together, all end well") {
  Scratch scratch;
  const std::string attempts = scratch.file("attempts");
  // A demand of its own: those of other tests may be held back already.
  const auto careless = remote<use_counted>.with({.num_cpus = 0.9});
  std::vector<Ref<int>> refs;
  for (int i = 0; i < 8; ++i) refs.push_back(careless(attempts, std::size_t{300}, 100));

  for (const int mib : get_all(refs)) CHECK(mib == 300);
  const auto tried = mobula::test::count_of(attempts);
  CHECK(tried > 8);  // two of them met
  CHECK(tried <= 12);  // and then no more: the next would come after 10 s
}

TEST_CASE("a task that can be tried again is killed before a younger one that cannot") {
  Scratch scratch;
  const std::string attempts = scratch.file("attempts");
  const auto glutton = remote<use_without_end>.with({.max_retries = 0})(attempts);
  REQUIRE(eventually(20s, [&] { return mobula::test::count_of(attempts) == 1; }));
  const auto precious = remote<use>.with({.max_retries = 0})(std::size_t{100}, 3000);
  const auto humble = remote<use>.with({.num_cpus = 0, .max_retries = 9})(std::size_t{150}, 500);

  CHECK(mobula::get(humble, 60s) == 150);
  CHECK(!error_text<OutOfMemoryError>(glutton).empty());
  CHECK(mobula::get(precious, 60s) == 100);
}

TEST_CASE("an actor that takes all memory dies of it, and says so") {
  const auto mortal = mobula::actor<Hoarder>();
  const auto text = error_text<mobula::ActorDiedError>(mortal.call<&Hoarder::hoard>(4096));
  CHECK(says(text, {"Hoarder", "want of memory", "Config.memory_limit"}));

  const auto reborn = mobula::actor<Hoarder>.with({.max_restarts = 1})();
  const int first = mobula::get(reborn.call<&Hoarder::process>(), 20s);
  const auto lost = error_text<mobula::ActorUnavailableError>(reborn.call<&Hoarder::hoard>(4096));
  CHECK(says(lost, {"is started again, since its process", "want of memory"}));
  CHECK(mobula::get(reborn.call<&Hoarder::process>(), 20s) != first);
  CHECK(mobula::get(reborn.call<&Hoarder::hoard>(8), 20s) == 2);
}

// A task that spawns ten, each of which spawns ten, and so on, and each waits for its own.
int spawn(int depth) {
  if (depth == 0) return 1;
  std::vector<Ref<int>> children;
  for (int i = 0; i < 10; ++i) children.push_back(remote<spawn>(depth - 1));
  int sum = 1;
  for (const Ref<int>& child : children) sum += mobula::get(child);
  return sum;
}

TEST_CASE("a hundred thousand nested tasks end, with few workers") {
  Watch watch;
  const auto start = Clock::now();

  CHECK(mobula::get(remote<spawn>(5), 60s) == 111'111);
  std::printf("111111 nested tasks in %d ms, with at most %zu workers at a time\n",
              static_cast<int>(since(start).count()), watch.most_workers());
  CHECK(watch.most_workers() <= 64);
}

// The same, but each generation wants something else than the one before, so that a task that
// waits cannot run its children itself.
int spawn_others(int depth) {
  if (depth == 0) return 1;
  std::vector<Ref<int>> children;
  constexpr double kCpus[] = {1, 0.5, 0.4, 0.2, 0.1, 0.05};
  const mobula::TaskOptions options{.num_cpus = kCpus[depth]};
  for (int i = 0; i < 10; ++i) children.push_back(remote<spawn_others>.with(options)(depth - 1));
  int sum = 1;
  for (const Ref<int>& child : children) sum += mobula::get(child);
  return sum;
}
TEST_CASE("nested tasks that cannot run inside of each other start no storm of workers") {
  Watch watch;
  const auto start = Clock::now();

  CHECK(mobula::get(remote<spawn_others>(5), 60s) == 111'111);
  std::printf("111111 nested tasks in %d ms, with at most %zu workers at a time\n",
              static_cast<int>(since(start).count()), watch.most_workers());
  CHECK(watch.most_workers() <= 400);
}

// ---- Programs of their own: sessions with other limits.

// A control group for what this process starts, or nothing where that is not allowed.
class ControlGroup {
 public:
  explicit ControlGroup(std::uint64_t limit) {
    const std::string name = "/mobula-test-" + std::to_string(::getpid());
    for (const char* base : {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"}) {
      folder_ = base + name;
      if (::mkdir(folder_.c_str(), 0700) != 0) continue;
      if (write(folder_ + "/memory.limit_in_bytes", limit) || write(folder_ + "/memory.max", limit))
        return;
      ::rmdir(folder_.c_str());
    }
    folder_.clear();
    MESSAGE("not tested: no right to make a control group");
  }
  ~ControlGroup() {
    if (exists()) CHECK(eventually(5s, [&] { return ::rmdir(folder_.c_str()) == 0; }));
  }
  ControlGroup(const ControlGroup&) = delete;
  ControlGroup& operator=(const ControlGroup&) = delete;
  bool exists() const { return !folder_.empty(); }
  const std::string& folder() const { return folder_; }
  static bool write(const std::string& file, std::uint64_t number) {
    const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const std::string text = std::to_string(number);
    const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::close(fd);
    return written;
  }

 private:
  std::string folder_;
};

// Each prints the error of a task that takes all memory, and whether the node goes on.
int exhaust(int argc, char** argv, mobula::Config config) {
  if (argc > 3 && !ControlGroup::write(std::string(argv[3]) + "/cgroup.procs",
                                       static_cast<std::uint64_t>(::getpid())))
    return 1;
  config.num_cpus = 1;
  config.object_store_memory = 16ULL << 20;
  const mobula::Session session(argc, argv, config);
  Scratch scratch;
  error_text<OutOfMemoryError>(
      remote<use_without_end>.with({.max_retries = 1})(scratch.file("attempts")));
  return mobula::test::count_of(scratch.file("attempts")) == 2 ? 0 : 2;
}
int exhaust_to_threshold(int argc, char** argv) {
  return exhaust(argc, argv, {.memory_threshold = argc > 3 ? 0.8 : 0.001});
}
int exhaust_the_kernel(int argc, char** argv) {
  return exhaust(argc, argv, {.memory_threshold = 1});
}

std::string output_of_case(const std::string& name, const std::string& group = {}) {
  std::vector<std::string> arguments{"--case", name};
  if (!group.empty()) arguments.push_back(group);
  Child child(mobula::test::own_program(), arguments);
  const auto ending = child.wait(60s);
  INFO(child.output());
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 0);
  return child.output();
}

TEST_CASE("when the machine has little memory left, workers are killed whoever uses it") {
  const std::string text = output_of_case("threshold");
  CHECK(says(text, {"use_without_end", "want of memory", "Config.memory_threshold"}));
}

TEST_CASE("a control group's limit counts as the machine's") {
  const ControlGroup group(200 * kMiB);
  if (!group.exists()) return;

  const std::string text = output_of_case("threshold", group.folder());
  CHECK(says(text, {"all of the control group more than 160 MiB"}));
}

TEST_CASE("the kernel takes the worker before the driver and the node, and the error says so") {
  const ControlGroup group(200 * kMiB);
  if (!group.exists()) return;

  const std::string text = output_of_case("kernel", group.folder());
  CHECK(says(text, {"ran out of memory", "was killed by the kernel", "tried 2 times"}));
}

int main(int argc, char** argv) {
  churn::tag = mobula::test::tag_this_family();
  if (argc >= 3 && std::string_view(argv[1]) == "--case") {
    return std::string_view(argv[2]) == "kernel" ? exhaust_the_kernel(argc, argv)
                                                 : exhaust_to_threshold(argc, argv);
  }
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2,
                                       .resources = {{"lamp", 4}},
                                       .object_store_memory = 64ULL << 20,
                                       .memory_limit = 512ULL << 20});
}
