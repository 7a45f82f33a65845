// Real processes over a real session's memory, for the unit tests of what processes share.
//
// A child maps the memory for itself, at an address of its own, and checks by MOBULA_CHECK, whose
// abort its parent sees. It is bounded by alarm(), dies with its parent, and is killed and reaped
// by pid when its test leaves. Threads stand in for processes where a sanitizer shall see the
// memory orders, since it cannot see into another process.
#pragma once

#include <doctest/doctest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shm/check.h"
#include "shm/claim.h"
#include "shm/crash_point.h"
#include "shm/memory.h"
#include "shm/ring.h"

namespace mobula::shm::testing {

inline constexpr unsigned kChildSeconds = 100;
inline constexpr std::int64_t kPatienceNs = 60'000'000'000;

inline std::int64_t now_ns() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
}

// Looks until `is_true`, for a bounded time. False: it did not become true.
template <class Look>
bool eventually(const Look& is_true) {
  const std::int64_t end = now_ns() + kPatienceNs;
  while (!is_true()) {
    if (now_ns() > end) return false;
    ::sched_yield();
  }
  return true;
}

// A fresh seed each run; MOBULA_SEED=... replays one.
inline std::uint64_t seed() {
  if (const char* given = ::getenv("MOBULA_SEED")) return ::strtoull(given, nullptr, 10);
  return std::random_device{}();
}

struct Ending {
  int signal = 0;
  int code = 0;  // meaningful when signal is 0
  friend bool operator==(const Ending&, const Ending&) = default;
};
inline doctest::String toString(const Ending& end) {
  const std::string text = end.signal != 0 ? "signal " + std::to_string(end.signal)
                                           : "exit code " + std::to_string(end.code);
  return text.c_str();
}
inline constexpr Ending kWell{};
inline constexpr Ending kKilled{SIGKILL, 0};

class Child {
 public:
  template <class Body>
  explicit Child(const Body& body) {
    ::fflush(nullptr);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::alarm(kChildSeconds);
    // A fault or a failed check ends it as it ends any program: doctest's handlers are the
    // parent's, a sanitizer's would exit.
    for (const int fault : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTERM})
      ::signal(fault, SIG_DFL);
    body();
    ::_exit(0);
  }
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }
  ~Child() {
    if (pid_ <= 0) return;
    kill();
    end();
  }

  // At whatever instruction it is.
  void kill() const { ::kill(pid_, SIGKILL); }

  Ending end() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    if (WIFSIGNALED(status)) return {WTERMSIG(status), 0};
    return {0, WEXITSTATUS(status)};
  }

 private:
  pid_t pid_ = -1;
};

// In a child: dies at the n-th reach of a point.
inline void die_at(CrashPoint point, int reach = 1) {
  const std::string text =
      std::string(crash_point_info(point).name) + ":" + std::to_string(reach) + "@worker";
  ::setenv("MOBULA_CRASH_POINT", text.c_str(), 1);
  arm_crash_points("worker");
}

// A session's memory with a valid header, and what the daemon would hand out of its heap.
class Session {
 public:
  explicit Session(std::size_t object_capacity = 1 << 20) : capacity_(object_capacity) {
    REQUIRE(Memory::create(capacity_, &control_, &objects_));
    REQUIRE(memory_.map(control_, objects_, capacity_, true) == nullptr);
    memory_.header().layout_hash = layout_hash();
    memory_.header().cores = 2;
    memory_.header().magic = kMagic;
  }
  ~Session() {
    ::close(control_);
    ::close(objects_);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Memory& memory() const { return memory_; }
  Memory& memory() { return memory_; }
  int control() const { return control_; }
  int objects() const { return objects_; }
  std::size_t object_capacity() const { return capacity_; }

  // Heap offset of `size` bytes, all zero.
  std::uint64_t take_heap(std::uint64_t size) {
    const std::uint64_t at = heap_end_;
    heap_end_ += (size + kCacheLine - 1) / kCacheLine * kCacheLine;
    return at;
  }

  // A child with a view of its own: body(memory).
  template <class Body>
  Child start(const Body& body) const {
    return Child([&] {
      Memory mine;
      MOBULA_CHECK(mine.map(control_, objects_, capacity_, false) == nullptr);
      MOBULA_CHECK(&mine.header() != &memory_.header());
      body(static_cast<const Memory&>(mine));
    });
  }

 private:
  std::size_t capacity_;
  int control_ = -1;
  int objects_ = -1;
  Memory memory_;
  std::uint64_t heap_end_ = kPage;  // offset 0 means "none"
};

// An array in the shared heap, which each process finds through its own view.
template <class T>
class Shared {
 public:
  Shared(Session& session, std::size_t n) : offset_(session.take_heap(n * sizeof(T))) {}
  T* in(const Memory& memory) const { return reinterpret_cast<T*>(memory.heap(offset_)); }

 private:
  std::uint64_t offset_;
};
using Counters = Shared<std::atomic<std::uint32_t>>;

enum class Crew { Processes, Threads };

// Runs body(memory, i) for each i below n at the same time; returns when all have ended well.
template <class Body>
void side_by_side(Session& session, Crew crew, int n, const Body& body) {
  if (crew == Crew::Processes) {
    std::vector<Child> children;
    for (int i = 0; i < n; ++i) {
      children.push_back(session.start([&](const Memory& memory) { body(memory, i); }));
    }
    for (Child& child : children) CHECK(child.end() == kWell);
    return;
  }
  struct Start {
    const Memory* memory;
    const Body* body;
    int i;
  };
  std::vector<Start> starts;
  std::vector<pthread_t> threads(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) starts.push_back({&session.memory(), &body, i});
  for (int i = 0; i < n; ++i) {
    const auto run = [](void* p) -> void* {
      const Start& start = *static_cast<const Start*>(p);
      (*start.body)(*start.memory, start.i);
      return nullptr;
    };
    const auto at = static_cast<std::size_t>(i);
    REQUIRE(::pthread_create(&threads[at], nullptr, run, &starts[at]) == 0);
  }
  for (const pthread_t thread : threads) ::pthread_join(thread, nullptr);
}

inline std::string_view name_of(Crew crew) {
  return crew == Crew::Processes ? "processes" : "threads";
}

// A ring as the daemon opens it.
inline std::uint64_t open_ring(Session& session, std::uint64_t entries = kRingFirstEntries) {
  const std::uint64_t offset = session.take_heap(sizeof(RingHeader));
  auto& ring = *reinterpret_cast<RingHeader*>(session.memory().heap(offset));
  ring.participant.store(kNone);
  ring.stage[0].storage.store(session.take_heap(entries * 8));
  ring.stage[0].mask.store(entries - 1);
  ring.stages.store(1, std::memory_order_release);
  return offset;
}
inline RingHeader& ring_at(const Memory& memory, std::uint64_t offset) {
  return *reinterpret_cast<RingHeader*>(memory.heap(offset));
}

inline Record& make_task(const Memory& memory, Address address, std::uint64_t function = 0) {
  Record& record = memory.record(address.slot);
  record.kind = Kind::Task;
  record.function = function;
  record.flags = 0;
  record.dependencies = 0;
  record.result_kind = ResultKind::None;
  record.dependents.store(0, std::memory_order_relaxed);
  record.join.store(dependents::join_word(address.generation, 0), std::memory_order_relaxed);
  return record;
}

// Makes it Ready; whoever claims it sees its fields.
inline void make_ready(Record& record, Address address) {
  record.state.store(word::make(address.generation, State::Ready), std::memory_order_release);
}

class NoSink final : public ReadySink {
 public:
  void publish(Record&, Address) override { MOBULA_CHECK(!"nothing was to become ready"); }
};

}  // namespace mobula::shm::testing
