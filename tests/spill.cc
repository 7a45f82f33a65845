// Objects that do not fit into memory go to disk and come back, and nobody can tell, but for time.
//
// What cannot work ends in a typed error that says what was reached, and the session goes on.
#include "support/scenario.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/object_memory.h"
#include "support/processes.h"
#include "support/scratch.h"
#include "support/session_folder.h"

using namespace std::chrono_literals;
using mobula::Buffer;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::Clock;
using mobula::test::eventually;
using mobula::test::kSanitized;
using mobula::test::nodes_of;
using mobula::test::object_memory;
using mobula::test::open_gate;
using mobula::test::scaled;
using mobula::test::Scratch;
using mobula::test::since;
using mobula::test::spill_file;
using mobula::test::wait_at_gate;

namespace spilling {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kStore = 64 * kMiB;
constexpr std::size_t kBlock = kMiB / sizeof(int);  // elements

std::string tag;
std::string folder;  // for spilled objects of the session in which the tests run

using Block = std::vector<int>;
// No two blocks are alike, nor two parts of one.
int first_of(int seed) { return seed % 10'000 * 100'003; }
Block block(int seed, std::size_t elements = kBlock) {
  Block made(elements);
  std::iota(made.begin(), made.end(), first_of(seed));
  return made;
}
bool is_block(std::span<const int> seen, int seed, std::size_t elements = kBlock) {
  if (seen.size() != elements) return false;
  for (std::size_t i = 0; i < elements; ++i)
    if (seen[i] != first_of(seed) + static_cast<int>(i)) return false;
  return true;
}
std::string text(int seed, std::size_t size) {
  std::string made(size, ' ');
  for (std::size_t i = 0; i < size; ++i)
    made[i] = static_cast<char>('a' + (static_cast<std::size_t>(seed) + i * 7) % 26);
  return made;
}

bool block_is_right(std::span<const int> seen, int seed) { return is_block(seen, seed); }
bool part_is_right(const Block& seen, int seed, std::string gate) {
  wait_at_gate(gate);
  return is_block(seen, seed, 16'000);
}
int throws_much(int seed) { throw std::runtime_error(text(seed, 700'000)); }

struct Keeper {
  std::vector<Ref<Block>> kept;
  Block own = block(77);
  int keep(Ref<Block> ref) {
    kept.push_back(ref);
    return static_cast<int>(kept.size());
  }
  bool all_right() const {
    for (std::size_t i = 0; i < kept.size(); ++i)
      if (!is_block(mobula::get_view(kept[i]), static_cast<int>(i))) return false;
    return is_block(own, 77);
  }
  Block copy(int i) const { return mobula::get(kept[static_cast<std::size_t>(i)]); }
};

struct Onlooker {
  mobula::View<int> kept;
  void keep(mobula::View<int> view) { kept = std::move(view); }
  bool is_right(int seed) const { return is_block(kept, seed); }
};

// Takes more than all memory of the store, so that what was there before is on disk.
std::vector<Ref<Block>> push_out() {
  std::vector<Ref<Block>> filler;
  for (int i = 0; i < 72; ++i) filler.push_back(mobula::put(block(5000 + i)));
  return filler;
}

template <class Failure, class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Failure& e) {
    return e.what();
  } catch (const std::exception& e) {
    return std::string("another error: ") + e.what();
  }
  return "no error";
}
bool contains(const std::string& message, std::string_view words) {
  return message.find(words) != std::string::npos;
}

// All of the store can be had in one piece, so nothing of it is leaked or in use.
bool all_can_be_had() {
  return eventually(20s, [] {
    try {
      return mobula::create_buffer(kStore - 4096).size() == kStore - 4096;
    } catch (const mobula::ObjectStoreFullError&) {
      return false;
    }
  });
}

int dies_reading(std::span<const int> values, std::string gate) {
  mobula::test::count_in(gate);
  std::this_thread::sleep_for(20s);
  return values[0];
}
int dies_writing(std::string gate) {
  Buffer buffer = mobula::create_buffer(12 * kMiB);
  std::memset(buffer.data(), 1, buffer.size());
  mobula::test::count_in(gate);
  std::this_thread::sleep_for(20s);
  return 0;
}
int reads_all(std::vector<Ref<Block>> refs, std::string gate) {
  mobula::test::count_in(gate);
  const auto end = Clock::now() + 20s;
  for (std::size_t i = 0; Clock::now() < end; i = (i + 1) % refs.size())
    if (!is_block(mobula::get_view(refs[i]), static_cast<int>(i))) return 1;
  return 0;
}

}  // namespace spilling
using namespace spilling;

// ---- Values

TEST_CASE("values of all kinds are right after they were on disk") {
  const auto before = object_memory();
  std::vector<Ref<Block>> blocks;
  std::vector<Ref<std::string>> texts;
  std::vector<Ref<Block>> results;
  std::vector<Ref<int>> errors;
  std::vector<Ref<Buffer>> buffers;
  std::vector<Ref<std::string>> small;
  const auto keeper = mobula::actor<Keeper>();
  for (int i = 0; i < 8; ++i) {
    blocks.push_back(mobula::put(block(i)));
    texts.push_back(mobula::put(text(i, 300'000)));
    results.push_back(remote<block>(i, kBlock));
    errors.push_back(remote<throws_much>(i));
    const Block bytes = block(i);
    buffers.push_back(mobula::put_buffer(std::as_bytes(std::span(bytes))));
    mobula::get(keeper.call<&Keeper::keep>(blocks.back()));
  }
  for (int i = 0; i < 3000; ++i)
    small.push_back(mobula::put(text(i, 33 + static_cast<std::size_t>(i * i) % 5000)));

  for (int round = 0; round < 2; ++round) {
    const auto filler = push_out();
    for (int i = 0; i < 8; ++i) {
      const auto at = static_cast<std::size_t>(i);
      CHECK(is_block(mobula::get(blocks[at]), i));
      CHECK(is_block(mobula::get_view(blocks[at]), i));
      CHECK(mobula::get(texts[at]) == text(i, 300'000));
      CHECK(is_block(mobula::get(results[at]), i));
      CHECK(contains(message_of<mobula::TaskError>([&] { mobula::get(errors[at]); }),
                     text(i, 700'000)));
      const auto view = mobula::get_view(buffers[at]);
      const Block bytes = block(i);
      CHECK(view.size() == kMiB);
      CHECK(std::memcmp(view.data(), bytes.data(), kMiB) == 0);
      CHECK(mobula::get(remote<block_is_right>(blocks[at], i)));
      CHECK(mobula::get(remote<block_is_right>(results[at], i)));
      CHECK(is_block(mobula::get(keeper.call<&Keeper::copy>(i)), i));
    }
    CHECK(mobula::get(keeper.call<&Keeper::all_right>()));
    int wrong = 0;
    for (int i = 0; i < 3000; ++i) {
      wrong += mobula::get(small[static_cast<std::size_t>(i)]) !=
               text(i, 33 + static_cast<std::size_t>(i * i) % 5000);
    }
    CHECK(wrong == 0);
    for (std::size_t i = 0; i < filler.size(); ++i)
      CHECK(is_block(mobula::get_view(filler[i]), 5000 + static_cast<int>(i)));
  }
  const auto after = object_memory();
  CHECK(after.at("spilled_ever") - before.at("spilled_ever") > 60e6);
  CHECK(after.at("restored_ever") - before.at("restored_ever") > 60e6);
}

TEST_CASE("arguments of queued tasks may be three times the store") {
  Scratch scratch;
  const std::string gate = scratch.file("gate");
  std::vector<Ref<bool>> right;
  for (int i = 0; i < 3000; ++i) right.push_back(remote<part_is_right>(block(i, 16'000), i, gate));
  CHECK(object_memory().at("spilled") > 100e6);

  open_gate(gate);
  const std::vector<bool> all = mobula::get(right);
  CHECK(std::count(all.begin(), all.end(), true) == 3000);
}

TEST_CASE("what a view shows stays where it is while everything else goes") {
  const auto large = mobula::put(block(1, 2 * kBlock));
  const auto small = mobula::put(text(2, 1000));
  auto view = mobula::get_view(large);
  const auto letters = mobula::get_view(small);
  const int* const first = view.data();

  for (int round = 0; round < 2; ++round) {
    push_out();
    CHECK(is_block(view, 1, 2 * kBlock));
    CHECK(std::string(letters.begin(), letters.end()) == text(2, 1000));
    const auto again = mobula::get_view(large);
    CHECK(again.data() == first);
  }
  // Copies keep it, too.
  const auto copy = view;
  view = {};
  push_out();
  CHECK(is_block(copy, 1, 2 * kBlock));
}

TEST_CASE("so does what a view shows that an actor was given and keeps") {
  const auto onlooker = mobula::actor<Onlooker>();
  mobula::get(onlooker.call<&Onlooker::keep>(mobula::put(block(3))), 20s);

  for (int round = 0; round < 2; ++round) {
    push_out();
    CHECK(mobula::get(onlooker.call<&Onlooker::is_right>(3), 20s));
  }
}

TEST_CASE("many processes may ask for the same spilled objects at the same moment") {
  std::vector<Ref<Block>> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(mobula::put(block(i)));
  for (int round = 0; round < scaled(10, 3); ++round) {
    push_out();
    std::vector<Ref<bool>> right;
    for (int reader = 0; reader < 8; ++reader)
      for (int i = 0; i < 6; ++i)
        right.push_back(remote<block_is_right>(blocks[static_cast<std::size_t>(i)], i));
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 6; ++i)
          wrong += !is_block(mobula::get_view(blocks[static_cast<std::size_t>(i)]), i);
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    for (const bool one : mobula::get(right)) CHECK(one);
  }
}

TEST_CASE("producers that are faster than the disk wait for it, and nothing fails") {
  std::vector<Ref<Block>> made;
  for (int i = 0; i < 60; ++i) made.push_back(remote<block>(i, 4 * kBlock));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&wrong, t] {
      std::vector<Ref<Block>> mine;
      for (int i = 0; i < 40; ++i) mine.push_back(mobula::put(block(t * 100 + i)));
      for (int i = 0; i < 40; ++i)
        wrong += !is_block(mobula::get(mine[static_cast<std::size_t>(i)]), t * 100 + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 60; ++i)
    wrong += !is_block(mobula::get(made[static_cast<std::size_t>(i)]), i, 4 * kBlock);
  CHECK(wrong == 0);
}

// ---- Limits

TEST_CASE("a store full of what is being read says so, and goes on when the views are gone") {
  std::vector<mobula::View<int>> views;
  const std::string message = message_of<mobula::ObjectStoreFullError>([&] {
    for (int i = 0; i < 70; ++i) views.push_back(mobula::get_view(mobula::put(block(i))));
  });
  CHECK(contains(message, "being read or written"));
  CHECK(views.size() >= 60);
  for (std::size_t i = 0; i < views.size(); ++i) CHECK(is_block(views[i], static_cast<int>(i)));

  views.clear();
  CHECK(is_block(mobula::get(mobula::put(block(1))), 1));
  CHECK(all_can_be_had());
}

TEST_CASE("an object may be as large as the store, and not larger") {
  const auto others = push_out();
  Buffer buffer = mobula::create_buffer(kStore - 4096);  // a page: less goes before the bytes
  std::memset(buffer.data(), 42, buffer.size());
  auto whole = buffer.seal();
  for (int round = 0; round < 2; ++round) {
    {
      const auto view = mobula::get_view(whole);
      CHECK(std::all_of(view.begin(), view.end(), [](std::byte b) { return b == std::byte{42}; }));
    }
    for (std::size_t i = 0; i < others.size(); ++i)
      CHECK(is_block(mobula::get_view(others[i]), 5000 + static_cast<int>(i)));
  }

  const auto start = Clock::now();
  CHECK(
      contains(message_of<mobula::ObjectStoreFullError>([] { mobula::create_buffer(kStore - 63); }),
               "larger than the object store"));
  CHECK(contains(
      message_of<mobula::ObjectStoreFullError>([] { mobula::put(std::string(kStore + 1, 'x')); }),
      "larger than the object store"));
  CHECK(since(start) < 3s);
}

// ---- Deaths

TEST_CASE("readers, writers and waiters that are killed leave a store that is usable in full") {
  std::vector<Ref<Block>> blocks;
  for (int i = 0; i < 90; ++i) blocks.push_back(mobula::put(block(i)));
  for (int round = 0; round < 4; ++round) {
    Scratch scratch;
    const std::string gate = scratch.file("gate");
    std::vector<Ref<int>> dying;
    dying.push_back(remote<dies_reading>.with({.max_retries = 0})(blocks[3], gate));
    dying.push_back(remote<dies_writing>.with({.max_retries = 0})(gate));
    dying.push_back(remote<reads_all>.with({.max_retries = 0})(blocks, gate));
    dying.push_back(remote<reads_all>.with({.max_retries = 0})(blocks, gate));
    REQUIRE(eventually(20s, [&] { return mobula::test::count_of(gate) == 4; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(10 * round));
    for (const pid_t pid : mobula::test::workers_of(tag)) ::kill(pid, SIGKILL);
    for (const auto& one : dying)
      CHECK_THROWS_AS(mobula::get(one, 20s), mobula::WorkerCrashedError);
  }
  for (std::size_t i = 0; i < blocks.size(); ++i)
    CHECK(is_block(mobula::get_view(blocks[i]), static_cast<int>(i)));
  blocks.clear();
  CHECK(all_can_be_had());
  CHECK(eventually(5s, [] { return object_memory().at("on_disk") == 0; }));
}

// ---- Disks

TEST_CASE("a disk that takes no more is a typed error; when there is room again all goes on") {
  const pid_t node = nodes_of(tag).at(0);
  const auto before = push_out();
  rlimit old;
  REQUIRE(::prlimit(node, RLIMIT_FSIZE, nullptr, &old) == 0);
  const rlimit none{4096, old.rlim_max};
  REQUIRE(::prlimit(node, RLIMIT_FSIZE, &none, nullptr) == 0);
  std::vector<Ref<Block>> kept;
  const std::string message = message_of<mobula::OutOfDiskError>([&] {
    for (int i = 0; i < 200; ++i) kept.push_back(mobula::put(block(i)));
  });
  const std::string task_message =
      message_of<mobula::OutOfDiskError>([] { mobula::get(remote<block>(1, 8 * kBlock)); });
  REQUIRE(::prlimit(node, RLIMIT_FSIZE, &old, nullptr) == 0);

  CHECK(contains(message, "File too large in " + folder));
  CHECK(contains(task_message, "its result could not be stored"));
  CHECK(kept.size() < 70);
  for (std::size_t i = 0; i < kept.size(); ++i)
    CHECK(is_block(mobula::get(kept[i]), static_cast<int>(i)));
  for (int i = 0; i < 70; ++i) kept.push_back(mobula::put(block(i)));
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(is_block(mobula::get_view(before[i]), 5000 + static_cast<int>(i)));
}

TEST_CASE("bytes that were damaged on disk are never a value") {
  std::vector<Ref<Block>> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(mobula::put(block(i)));
  std::vector<Ref<bool>> waiting;
  const auto filler = push_out();
  const std::string path = spill_file(nodes_of(tag).at(0), folder);
  REQUIRE(!path.empty());
  CHECK(std::filesystem::is_empty(folder));
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(file >= 0);
  // One byte in each page that it has.
  const off_t end = ::lseek(file, 0, SEEK_END);
  for (off_t at = ::lseek(file, 0, SEEK_DATA); at >= 0 && at < end; at += 4096)
    REQUIRE(::pwrite(file, "?", 1, at + 1234) == 1);
  ::close(file);

  int lost = 0, wrong = 0;
  const auto look = [&](const Ref<Block>& ref, int seed) {
    try {
      wrong += !is_block(mobula::get(ref), seed);
    } catch (const mobula::ObjectLostError& e) {
      ++lost;
      wrong += !contains(e.what(), "checksum");
      CHECK_THROWS_AS(mobula::get(remote<block_is_right>(ref, seed)), mobula::ObjectLostError);
    }
  };
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 8; ++i) look(blocks[static_cast<std::size_t>(i)], i);
    for (std::size_t i = 0; i < filler.size(); ++i) look(filler[i], 5000 + static_cast<int>(i));
  }
  CHECK(wrong == 0);
  CHECK(lost >= 8);
  const auto after = push_out();
  for (std::size_t i = 0; i < after.size(); ++i)
    CHECK(is_block(mobula::get(after[i]), 5000 + static_cast<int>(i)));
}

// ---- Sessions of their own: this program, started anew.

namespace drivers {

constexpr std::uint64_t kSmallStore = 32 * kMiB;

void require(bool holds, const char* what, const std::string& seen = {}) {
  if (holds) return;
  std::printf("does not hold: %s %s\n", what, seen.c_str());
  std::fflush(stdout);
  ::_exit(3);
}

// Fills memory, and disk as far as that may be; all of it is still right; less works again.
void fills_up(bool disk) {
  std::vector<Ref<Block>> kept;
  const auto fill = [&] {
    for (int i = 0; i < 200; ++i) kept.push_back(mobula::put(block(static_cast<int>(kept.size()))));
  };
  const auto start = Clock::now();
  const std::string message = disk ? message_of<mobula::OutOfDiskError>(fill)
                                   : message_of<mobula::ObjectStoreFullError>(fill);
  const auto took = since(start);
  require(contains(message,
                   disk ? "Config.spill_limit allows 16777216 bytes" : "Config.spill_limit is 0"),
          "the message names the limit:", message);
  require(took > 4s && took < 60s, "there is a time of grace");
  require(kept.size() > (disk ? 40 : 28), "it was full", std::to_string(kept.size()));
  // A third of the values goes, so that there is room for those that are read.
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < kept.size(); ++i) {
      if (i % 3 == 0) kept[i] = {};
    }
    for (std::size_t i = 0; i < kept.size(); ++i) {
      if (i % 3 == 0) {
        kept[i] = mobula::put(block(static_cast<int>(i)));
        continue;
      }
      if (disk && round == 0 && i % 2 == 0) continue;
      require(is_block(mobula::get(kept[i]), static_cast<int>(i)), "the value is right");
    }
  }
}

// Says so when it is spilling, and goes on.
void spills() {
  std::vector<Ref<Block>> kept;
  bool said = false;
  for (int i = 0;; ++i) {
    kept.push_back(mobula::put(block(i)));
    if (kept.size() > 200) kept.erase(kept.begin());
    if (said || object_memory().at("on_disk") < 50e6) continue;
    said = true;
    std::puts("ready");
    std::fflush(stdout);
  }
}

int run(int argc, char** argv) {
  const std::string_view name = argv[2];
  mobula::Config config{.num_cpus = 2,
                        .object_store_memory = kSmallStore,
                        .spill_directory = argv[3],
                        .log_to_driver = false};
  if (name == "limit") config.spill_limit = 16 * kMiB;
  if (name == "memory_only") config.spill_limit = 0;
  if (name == "largest_limit") config.spill_limit = ~std::uint64_t{0};
  std::optional<mobula::Session> session;
  try {
    session.emplace(argc, argv, config);
  } catch (const mobula::Error& e) {
    std::printf("refused: %s\n", e.what());
    return 5;
  }
  if (name == "limit") fills_up(true);
  if (name == "memory_only") fills_up(false);
  if (name == "largest_limit") {
    std::vector<Ref<Block>> kept;
    for (int i = 0; i < 100; ++i) kept.push_back(mobula::put(block(i)));
    for (int i = 0; i < 100; ++i)
      require(is_block(mobula::get(kept[static_cast<std::size_t>(i)]), i), "the value is right");
  }
  if (name == "spills") spills();
  return 0;
}

Child start(const std::string& name, const std::string& spill_folder,
            const std::map<std::string, std::string>& variables = {}) {
  return {mobula::test::own_program(), {"--driver", name, spill_folder}, variables};
}

}  // namespace drivers

TEST_CASE("a limit of the disk, or of memory alone, is an error that names it, and not the end") {
  for (const char* name : {"limit", "memory_only", "largest_limit"}) {
    CAPTURE(name);
    Scratch scratch;
    Child driver = drivers::start(name, scratch.path());
    const auto ending = driver.wait(100s);
    INFO(driver.output());
    REQUIRE(ending.has_value());
    CHECK(ending->signal == 0);
    CHECK(ending->code == 0);
  }
}

TEST_CASE("a folder for spilled objects that does not serve is refused by the session, by name") {
  Scratch scratch;
  const std::string file = scratch.file("file");
  open_gate(file);
  for (const std::string& wrong : {scratch.file("missing"), file}) {
    Child driver = drivers::start("idle", wrong);
    const auto ending = driver.wait(20s);
    INFO(driver.output());
    REQUIRE(ending.has_value());
    CHECK(ending->code == 5);
    CHECK(contains(driver.output(), "refused: "));
    CHECK(contains(driver.output(), "Config.spill_directory: " + wrong));
  }
}

TEST_CASE("a driver that is killed while it spills leaves no file, process or disk space") {
  for (int round = 0; round < 3; ++round) {
    Scratch scratch;
    Scratch home;
    Child driver =
        drivers::start("spills", scratch.path(), mobula::test::session_folder_variables(home));
    REQUIRE(driver.says("ready", 60s));
    const auto nodes = nodes_of(driver.tag());
    REQUIRE(nodes.size() == 1);
    CHECK(!spill_file(nodes[0], scratch.path()).empty());
    CHECK(std::filesystem::is_empty(scratch.path()));

    driver.send(SIGKILL);
    const auto start = Clock::now();
    // The file has no name: when nobody has it open, its space is free.
    CHECK(eventually(kSanitized ? 10s : 1s, [&] {
      return mobula::test::family_of(driver.tag()).empty() &&
             mobula::test::session_folders(home).empty();
    }));
    std::printf("nothing was left %d ms after a driver was killed that spilled\n",
                static_cast<int>(since(start).count()));
    CHECK(std::filesystem::is_empty(scratch.path()));
  }
}

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--driver") return drivers::run(argc, argv);
  spilling::tag = mobula::test::tag_this_family();
  const bool worker = ::getenv("MOBULA_TEST_SPILL_FOLDER") != nullptr;
  std::optional<Scratch> scratch;
  if (!worker) {
    scratch.emplace();
    ::setenv("MOBULA_TEST_SPILL_FOLDER", scratch->path().c_str(), 1);
  }
  spilling::folder = ::getenv("MOBULA_TEST_SPILL_FOLDER");
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 4,
                                       .object_store_memory = spilling::kStore,
                                       .spill_directory = spilling::folder,
                                       .log_to_driver = false});
}
