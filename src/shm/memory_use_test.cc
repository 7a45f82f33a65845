#include "shm/memory_use.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "support/scratch.h"

namespace mobula::shm {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

std::uint64_t own_memory() { return private_memory(static_cast<std::uint32_t>(::getpid())); }

// The kernel's files, as a test wants them.
class PretendKernel {
 public:
  PretendKernel() {
    file("/proc/meminfo", "MemTotal:  1048576 kB\nMemFree:  1 kB\nMemAvailable:  786432 kB\n");
    file("/proc/vmstat", "nr_free_pages 5\noom_kill 7\n");
  }
  void file(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root() + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  void unified_group(const std::string& path, const std::string& limit, std::uint64_t used) {
    file("/sys/fs/cgroup" + path + "/memory.max", limit + "\n");
    file("/sys/fs/cgroup" + path + "/memory.current", std::to_string(used) + "\n");
    file("/sys/fs/cgroup" + path + "/memory.stat", "anon 5\ninactive_file 1048576\n");
    file("/sys/fs/cgroup" + path + "/memory.events", "oom 4\noom_kill 3\n");
  }
  std::string root() const { return scratch_.path().string(); }

 private:
  test::Scratch scratch_;
};

// What ThreadSanitizer notes of shared pages is memory of the process's own.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MOBULA_TEST_NOTES_PAGES true
#endif
#endif
#ifndef MOBULA_TEST_NOTES_PAGES
#define MOBULA_TEST_NOTES_PAGES false
#endif

TEST_CASE("a process's own memory grows by what it writes, and not by what it shares") {
  constexpr std::uint64_t kSize = 64 * kMiB;
  const std::uint64_t before = own_memory();
  const auto map = [](int sharing) {
    void* memory = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    std::memset(memory, 1, kSize);
    return memory;
  };

  void* shared = map(MAP_SHARED);
  CHECK((MOBULA_TEST_NOTES_PAGES || own_memory() < before + kSize / 2));
  void* own = map(MAP_PRIVATE);
  CHECK(own_memory() > before + kSize / 2);
  ::munmap(shared, kSize);
  ::munmap(own, kSize);
  CHECK((MOBULA_TEST_NOTES_PAGES || own_memory() < before + kSize / 2));
}

TEST_CASE("a process that is not there uses nothing") { CHECK(private_memory(0x7fffffff) == 0); }

TEST_CASE("without a limited group the machine's memory counts, less what is available") {
  PretendKernel kernel;
  kernel.file("/proc/self/cgroup", "0::/jobs/one\n");
  kernel.unified_group("/jobs/one", "max", 5 * kMiB);
  const MemoryGauge gauge(kernel.root());

  CHECK(gauge.machine().limit == 1024 * kMiB);
  CHECK(gauge.machine().used == 256 * kMiB);
  CHECK_FALSE(gauge.control_group().has_value());
  CHECK(gauge.limit() == 1024 * kMiB);
  CHECK(gauge.kernel_kills() == 7);
}

TEST_CASE("the group with the least room counts, less the cached files that nobody uses") {
  PretendKernel kernel;
  kernel.file("/proc/self/cgroup", "0::/jobs/one\n");
  kernel.unified_group("/jobs/one", std::to_string(500 * kMiB), 400 * kMiB);
  kernel.unified_group("/jobs", std::to_string(600 * kMiB), 550 * kMiB);
  const MemoryGauge gauge(kernel.root());

  CHECK(gauge.control_group()->limit == 600 * kMiB);
  CHECK(gauge.control_group()->used == 549 * kMiB);
  CHECK(gauge.limit() == 600 * kMiB);
  CHECK(gauge.kernel_kills() == 3);
}

TEST_CASE("groups of version 1 count too, by the topmost folder where the path leads nowhere") {
  PretendKernel kernel;
  kernel.file("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/on/the/host\n");
  const std::string folder = "/sys/fs/cgroup/memory";
  kernel.file(folder + "/memory.limit_in_bytes", std::to_string(300 * kMiB));
  kernel.file(folder + "/memory.usage_in_bytes", std::to_string(200 * kMiB));
  kernel.file(folder + "/memory.stat", "inactive_file 9\ntotal_inactive_file 2097152\n");
  kernel.file(folder + "/memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 2\n");
  const MemoryGauge gauge(kernel.root());

  CHECK(gauge.control_group()->limit == 300 * kMiB);
  CHECK(gauge.control_group()->used == 198 * kMiB);
  CHECK(gauge.kernel_kills() == 2);
}

TEST_CASE(
    "a group's limit above the machine's memory, and files that are not there, limit nothing") {
  PretendKernel kernel;
  kernel.file("/proc/self/cgroup", "4:memory:nonsense\n4:memory:/\nnonsense\n");
  kernel.file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");

  CHECK(MemoryGauge(kernel.root()).limit() == 1024 * kMiB);
  CHECK(MemoryGauge("/nowhere").limit() == 0);
}

}  // namespace
}  // namespace mobula::shm
