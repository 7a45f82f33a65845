#include "machine_limits.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "shm/futex.h"

extern char** environ;

namespace mobula::bench {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

// A forked process that runs `body`; ended and reaped by the destructor.
class Partner {
 public:
  template <class Body>
  explicit Partner(const Body& body) : pid_(::fork()) {
    if (pid_ < 0) fail("fork");
    if (pid_ > 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // the parent may be a driver: its sockets must not look alive because of this process
    ::close_range(3, ~0u, 0);
    body();
    ::_exit(0);
  }
  ~Partner() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Partner(Partner&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Partner& operator=(Partner&&) = delete;

  pid_t pid() const { return pid_; }
  pid_t release() { return std::exchange(pid_, -1); }
  // Reaps it when it ends by itself.
  void join() {
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

// Spins, but gives the core away when its partner has evidently lost its own.
class Patience {
 public:
  void wait() {
    if (++spins_ % 4096 == 0) {
      std::this_thread::yield();
    } else {
      shm::cpu_relax();
    }
  }

 private:
  std::uint32_t spins_ = 0;
};

enum SlotState : std::uint32_t { kEmpty, kReady, kClaimed, kDone };

struct alignas(128) Slot {
  std::atomic<std::uint32_t> state;
  std::uint32_t function;
  std::uint64_t id;
  std::uint64_t args[6];
  std::uint64_t result[4];
};
static_assert(sizeof(Slot) == 128);

using Function = std::uint64_t (*)(const std::uint64_t*);
std::uint64_t add(const std::uint64_t* args) { return args[0] + args[1]; }
constexpr Function kFunctions[] = {add, add, add, add};

constexpr std::uint64_t kSlots = 4096;  // more than two batches, less than a core's cache
static_assert(kSlots >= 2 * kBatch && (kSlots & (kSlots - 1)) == 0);

Slot* slots_in(const WarmMemory& memory, std::uint64_t count) {
  return new (memory.data()) Slot[count]();
}

void submit(Slot& slot, std::uint64_t id) {
  slot.function = id & 3;
  slot.id = id;
  slot.args[0] = id;
  slot.args[1] = 1;
  slot.state.store(kReady, std::memory_order_release);
}

// Claims and runs a ready slot; false: it is not ready.
bool execute(Slot& slot) {
  std::uint32_t expected = kReady;
  if (slot.state.load(std::memory_order_relaxed) != kReady) return false;
  if (!slot.state.compare_exchange_strong(expected, kClaimed, std::memory_order_acquire))
    return false;
  slot.result[0] = kFunctions[slot.function](slot.args);
  slot.state.store(kDone, std::memory_order_release);
  return true;
}

std::uint64_t sum_of_results(std::uint64_t tasks) { return tasks * (tasks + 1) / 2; }

void sleep_until_it_is(std::atomic<std::uint32_t>& word, std::uint32_t wanted) {
  for (std::uint32_t seen; (seen = word.load(std::memory_order_acquire)) != wanted;) {
    shm::futex_wait(shm::futex_word(word), seen, -1);
  }
}

}  // namespace

double quantile(std::vector<double> samples, double q) {
  if (samples.empty()) throw std::runtime_error("a quantile of no samples");
  std::sort(samples.begin(), samples.end());
  const double position = q * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  const double part = position - static_cast<double>(below);
  return samples[below] + part * (samples[above] - samples[below]);
}

WarmMemory::WarmMemory(std::size_t bytes) : size_(bytes) {
  const int fd = ::memfd_create("bench", MFD_CLOEXEC);
  if (fd < 0) fail("memfd_create");
  void* p = MAP_FAILED;
  if (::ftruncate(fd, static_cast<off_t>(bytes)) == 0) {
    p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  }
  ::close(fd);
  if (p == MAP_FAILED) fail("shared memory of " + std::to_string(bytes) + " bytes");
  data_ = static_cast<std::byte*>(p);
  std::memset(data_, 1, bytes);
}

WarmMemory::~WarmMemory() { ::munmap(data_, size_); }

double ledger_loop_per_s(std::uint64_t batches) {
  const WarmMemory memory(kSlots * sizeof(Slot));
  Slot* slots = slots_in(memory, kSlots);
  const std::uint64_t tasks = batches * kBatch;
  Partner executor([&] {
    Patience patience;
    for (std::uint64_t next = 0; next < tasks;) {
      if (execute(slots[next % kSlots])) {
        ++next;
      } else {
        patience.wait();
      }
    }
  });

  std::uint64_t sum = 0;
  std::uint64_t collected = 0;
  const auto collect_batch = [&] {
    Patience patience;
    for (const std::uint64_t end = collected + kBatch; collected < end; ++collected) {
      Slot& slot = slots[collected % kSlots];
      while (slot.state.load(std::memory_order_acquire) != kDone) patience.wait();
      sum += slot.result[0];
    }
  };
  const auto start = Clock::now();
  for (std::uint64_t batch = 0; batch < batches; ++batch) {
    for (std::uint64_t i = 0; i < kBatch; ++i) {
      const std::uint64_t id = batch * kBatch + i;
      submit(slots[id % kSlots], id);
    }
    if (batch > 0) collect_batch();
  }
  collect_batch();
  const double seconds = seconds_since(start);

  executor.join();
  if (sum != sum_of_results(tasks))
    throw std::runtime_error("the raw ledger loop computed a wrong sum");
  return static_cast<double>(tasks) / seconds;
}

double ledger_in_place_per_s(std::uint64_t tasks_each, unsigned processes) {
  struct Figures {
    alignas(64) std::atomic<std::uint32_t> ready;
    std::atomic<std::uint32_t> go;
    std::atomic<std::uint64_t> sum;
  };
  const WarmMemory figures_memory(sizeof(Figures));
  auto* figures = new (figures_memory.data()) Figures();
  const WarmMemory memory(processes * kSlots * sizeof(Slot));
  Slot* all_slots = slots_in(memory, processes * kSlots);
  std::vector<Partner> partners;
  partners.reserve(processes);
  for (unsigned p = 0; p < processes; ++p) {
    partners.emplace_back([=] {
      Slot* slots = all_slots + p * kSlots;
      Patience patience;
      figures->ready.fetch_add(1);
      while (figures->go.load(std::memory_order_acquire) == 0) patience.wait();
      std::uint64_t sum = 0;
      for (std::uint64_t i = 0; i < tasks_each; ++i) {
        Slot& slot = slots[i % kBatch];
        submit(slot, i);
        execute(slot);
        sum += slot.result[0];
      }
      figures->sum.fetch_add(sum);
    });
  }
  Patience patience;
  while (figures->ready.load() < processes) patience.wait();
  const auto start = Clock::now();
  figures->go.store(1, std::memory_order_release);
  for (Partner& partner : partners) partner.join();
  const double seconds = seconds_since(start);
  if (figures->sum.load() != processes * sum_of_results(tasks_each)) {
    throw std::runtime_error("the raw ledger in place computed a wrong sum");
  }
  return static_cast<double>(processes * tasks_each) / seconds;
}

double ledger_read_per_s(std::uint64_t reads) {
  const WarmMemory memory(kBatch * sizeof(Slot));
  Slot* slots = slots_in(memory, kBatch);
  for (std::uint64_t i = 0; i < kBatch; ++i) {
    submit(slots[i], i);
    execute(slots[i]);
  }
  std::uint64_t sum = 0;
  const auto start = Clock::now();
  for (std::uint64_t i = 0; i < reads; ++i) {
    Slot& slot = slots[i % kBatch];
    if (slot.state.load(std::memory_order_acquire) == kDone) sum += slot.result[0];
  }
  const double seconds = seconds_since(start);
  if (sum != reads / kBatch * sum_of_results(kBatch) + sum_of_results(reads % kBatch)) {
    throw std::runtime_error("the raw ledger read a wrong sum");
  }
  return static_cast<double>(reads) / seconds;
}

double spin_round_trip_us(std::uint64_t rounds) {
  struct Words {
    alignas(128) std::atomic<std::uint64_t> ping;
    alignas(128) std::atomic<std::uint64_t> pong;
  };
  const WarmMemory memory(sizeof(Words));
  auto* words = new (memory.data()) Words();
  const std::uint64_t warm_up = rounds / 10 + 1;
  const Partner partner([&] {
    for (std::uint64_t i = 1; i <= rounds + warm_up; ++i) {
      Patience patience;
      while (words->ping.load(std::memory_order_acquire) != i) patience.wait();
      words->pong.store(i, std::memory_order_release);
    }
  });
  std::vector<double> us;
  us.reserve(rounds);
  for (std::uint64_t i = 1; i <= rounds + warm_up; ++i) {
    Patience patience;
    const auto start = Clock::now();
    words->ping.store(i, std::memory_order_release);
    while (words->pong.load(std::memory_order_acquire) != i) patience.wait();
    if (i > warm_up) us.push_back(seconds_since(start) * 1e6);
  }
  return median(std::move(us));
}

double futex_round_trip_us(std::uint64_t rounds, std::chrono::nanoseconds gap) {
  struct Words {
    alignas(128) std::atomic<std::uint32_t> ping;
    alignas(128) std::atomic<std::uint32_t> pong;
  };
  const WarmMemory memory(sizeof(Words));
  auto* words = new (memory.data()) Words();
  const Partner partner([&] {
    for (std::uint32_t i = 1; i <= rounds; ++i) {
      sleep_until_it_is(words->ping, i);
      words->pong.store(i, std::memory_order_release);
      shm::futex_wake(shm::futex_word(words->pong), 1);
    }
  });
  std::vector<double> us;
  us.reserve(rounds);
  for (std::uint32_t i = 1; i <= rounds; ++i) {
    std::this_thread::sleep_for(gap);
    const auto start = Clock::now();
    words->ping.store(i, std::memory_order_release);
    shm::futex_wake(shm::futex_word(words->ping), 1);
    sleep_until_it_is(words->pong, i);
    us.push_back(seconds_since(start) * 1e6);
  }
  return median(std::move(us));
}

double futex_fan_out_us(std::uint64_t rounds, unsigned processes) {
  struct Words {
    alignas(128) std::atomic<std::uint32_t> go;
    alignas(128) std::atomic<std::uint32_t> missing;
    alignas(128) std::atomic<std::uint32_t> done;
  };
  const WarmMemory memory(sizeof(Words));
  auto* words = new (memory.data()) Words();
  std::vector<Partner> partners;
  partners.reserve(processes);
  for (unsigned p = 0; p < processes; ++p) {
    partners.emplace_back([&] {
      for (std::uint32_t i = 1; i <= rounds; ++i) {
        sleep_until_it_is(words->go, i);
        if (words->missing.fetch_sub(1) > 1) continue;
        words->done.store(i, std::memory_order_release);
        shm::futex_wake(shm::futex_word(words->done), 1);
      }
    });
  }
  std::vector<double> us;
  us.reserve(rounds);
  for (std::uint32_t i = 1; i <= rounds; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // all sleep again
    words->missing.store(processes);
    const auto start = Clock::now();
    words->go.store(i, std::memory_order_release);
    shm::futex_wake(shm::futex_word(words->go), static_cast<int>(processes));
    sleep_until_it_is(words->done, i);
    us.push_back(seconds_since(start) * 1e6);
  }
  return median(std::move(us));
}

double memcpy_gb_s(const WarmMemory& target, const void* source, std::size_t bytes) {
  if (bytes > target.size()) throw std::runtime_error("memcpy beyond its target");
  const auto start = Clock::now();
  std::memcpy(target.data(), source, bytes);
  asm volatile("" ::: "memory");  // the copy is not dead, although nobody reads it
  return static_cast<double>(bytes) / seconds_since(start) * 1e-9;
}

SleepingProcesses::SleepingProcesses(unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    pids_.push_back(Partner([] {
                      for (;;) ::pause();
                    }).release());
  }
}

SleepingProcesses::~SleepingProcesses() {
  for (const pid_t pid : pids_) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

double fork_exec_ms(int times) {
  std::vector<double> ms;
  for (int i = 0; i < times; ++i) {
    char program[] = "/proc/self/exe";
    std::string argument = kEndAtOnce;
    char* argv[] = {program, argument.data(), nullptr};
    pid_t pid = 0;
    const auto start = Clock::now();
    if (::posix_spawn(&pid, program, nullptr, nullptr, argv, environ) != 0) {
      throw std::runtime_error("this program cannot be started again");
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    ms.push_back(seconds_since(start) * 1e3);
    if (status != 0)
      throw std::runtime_error("the process that should end at once did not end well");
  }
  return median(std::move(ms));
}

double kill_and_fork_ms(int times) {
  struct Stamps {
    std::atomic<std::int64_t> killed;
    std::atomic<std::int64_t> running;
  };
  const WarmMemory memory(sizeof(Stamps));
  auto* stamps = new (memory.data()) Stamps();
  const auto now_ns = [] {
    return std::int64_t{Clock::now().time_since_epoch() / std::chrono::nanoseconds(1)};
  };
  std::vector<double> ms;
  for (int i = 0; i < times; ++i) {
    Partner first([&] {
      ::usleep(1000);  // the parent sleeps in poll by now, as a daemon would
      stamps->killed.store(now_ns());
      ::kill(::getpid(), SIGKILL);
    });
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, first.pid(), 0));
    if (pidfd < 0) fail("pidfd_open");
    pollfd death{pidfd, POLLIN, 0};
    while (::poll(&death, 1, -1) < 0 && errno == EINTR) {
    }
    Partner second([&] { stamps->running.store(now_ns()); });
    second.join();
    first.join();
    ::close(pidfd);
    ms.push_back(static_cast<double>(stamps->running.load() - stamps->killed.load()) * 1e-6);
  }
  return median(std::move(ms));
}

}  // namespace mobula::bench
