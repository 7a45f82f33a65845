// What a scenario program shares with the others: doctest, the size of its workload, and waiting.
//
// A program that holds a session constructs it before doctest looks at anything, because each
// worker process runs main() again up to that line. Exactly one source file of a program may
// include this header: doctest itself is compiled here.
#pragma once

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "mobula/mobula.h"
#include "support/scratch.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOBULA_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MOBULA_TEST_SANITIZED 1
#endif
#endif

#ifdef MOBULA_TEST_SANITIZED
extern "C" void __sanitizer_set_report_path(const char* path);
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

// What sanitizers find in workers. A report ends the worker, its task runs again, and the test
// would pass: so reports go to files, and any that no test asked for fails the program.
class WorkerReports {
 public:
  // Before the session: workers inherit the folder and come by here, too.
  WorkerReports() {
#ifdef MOBULA_TEST_SANITIZED
    if (!::getenv(kVariable)) {
      folder_.emplace();
      ::setenv(kVariable, folder_->path().c_str(), 1);
    }
    __sanitizer_set_report_path((std::string(::getenv(kVariable)) + "/report").c_str());
#endif
  }

  // Prints the unexpected ones. Tests crash tasks on purpose by writing where nothing may be
  // written, and by recursion without end.
  bool none_unexpected() const {
    bool none = true;
    if (!folder_) return none;
    for (const auto& entry : std::filesystem::directory_iterator(folder_->path())) {
      const std::string text = text_of(entry.path().string());
      const auto has = [&](const char* words) { return text.find(words) != std::string::npos; };
      if (has("AddressSanitizer: SEGV on unknown") || has("ThreadSanitizer: SEGV on unknown") ||
          has("Sanitizer: stack-overflow") || has("null pointer of type 'volatile int'")) {
        continue;
      }
      std::fprintf(stderr, "a worker's report that no test asked for:\n%s\n", text.c_str());
      none = false;
    }
    return none;
  }

 private:
  static constexpr const char* kVariable = "MOBULA_TEST_REPORTS";
  std::optional<Scratch> folder_;
};

inline bool in_local_mode() { return ::getenv("MOBULA_LOCAL_MODE") != nullptr; }

// TEST_CASE("..." * needs_workers()): left out where one thread runs all. The case waits for what
// goes on beside it, or is about processes.
inline doctest::skip needs_workers() { return doctest::skip(in_local_mode()); }

// Runs the test cases inside of one session. In a worker it does not return.
inline int run_in_session(int argc, char** argv, Config config) {
  const WorkerReports reports;
  int failed = 0;
  {
    const Session session(argc, argv, std::move(config));
    doctest::Context context(argc, argv);
    failed = context.run();
  }
  return failed != 0 ? failed : reports.none_unexpected() ? 0 : 1;
}

}  // namespace mobula::test
