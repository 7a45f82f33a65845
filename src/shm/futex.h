// Sleeping on a word of shared memory. Plain (not private) futexes: the sleepers are other
// processes.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace mobula::shm {

// Sleeps while *word == expected, at most `timeout_ns` (negative: for ever). Wakes for no reason,
// too: callers look again.
inline void futex_wait(const std::uint32_t* word, std::uint32_t expected, std::int64_t timeout_ns) {
  timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  ::syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? nullptr : &timeout, nullptr, 0);
}

inline void futex_wake(const std::uint32_t* word, int sleepers) {
  ::syscall(SYS_futex, word, FUTEX_WAKE, sleepers, nullptr, nullptr, 0);
}

inline void futex_wake_all(const std::uint32_t* word) { futex_wake(word, INT_MAX); }

inline std::uint32_t* futex_word(std::atomic<std::uint32_t>& word) {
  static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
  return reinterpret_cast<std::uint32_t*>(&word);
}

inline std::uint32_t this_core() { return static_cast<std::uint32_t>(::sched_getcpu()); }

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One step of a bounded spin. Now and then it yields: when the one we wait for was placed on this
// very core, spinning would only keep it from running; when nobody was, a yield costs a fraction of
// a microsecond.
inline void spin_step(int step) {
  constexpr int kStepsBetweenYields = 32;
  if (step % kStepsBetweenYields == kStepsBetweenYields - 1) {
    ::sched_yield();
  } else {
    cpu_relax();
  }
}

}  // namespace mobula::shm
