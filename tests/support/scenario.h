// What a scenario program shares with the others: doctest, the size of its workload, and waiting.
//
// A program that holds a session constructs it before doctest looks at anything, because each
// worker process runs main() again up to that line. Exactly one source file of a program may
// include this header: doctest itself is compiled here.
#pragma once

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "mobula/mobula.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOBULA_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MOBULA_TEST_SANITIZED 1
#endif
#endif

namespace mobula::test {

#ifdef MOBULA_TEST_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Sanitizers cost a factor of 5 to 20: the same truth is then told with fewer repetitions.
constexpr int scaled(int full, int sanitized) { return kSanitized ? sanitized : full; }

inline milliseconds since(Clock::time_point start) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - start);
}

// Asks until it is true. False: the limit passed first.
template <class Predicate>
bool eventually(milliseconds limit, const Predicate& predicate) {
  const auto end = Clock::now() + limit;
  while (!predicate()) {
    if (Clock::now() >= end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

// What is there of a resource; none of it may mean that its name is missing.
inline double amount_of(const std::map<std::string, double>& resources, const std::string& name) {
  const auto at = resources.find(name);
  return at == resources.end() ? 0 : at->second;
}

// Runs the test cases inside of one session. In a worker it does not return.
inline int run_in_session(int argc, char** argv, Config config) {
  const Session session(argc, argv, std::move(config));
  doctest::Context context(argc, argv);
  return context.run();
}

}  // namespace mobula::test
