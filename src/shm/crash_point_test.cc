#include "shm/crash_point.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

using namespace testing;

// How a process ends that reaches three points in turn, twice each.
Ending end_of(const char* armed, const char* role, std::uint32_t open = ~0u) {
  Session session;
  session.memory().header().open_crashes.store(open);
  Child child = session.start([&](const Memory& memory) {
    if (armed) ::setenv("MOBULA_CRASH_POINT", armed, 1);
    if (!armed) ::unsetenv("MOBULA_CRASH_POINT");
    ::fclose(stderr);
    arm_crash_points(role);
    set_open_crashes(&memory.header().open_crashes);
    for (int i = 0; i < 2; ++i) {
      for (const CrashPoint point :
           {CrashPoint::ClaimIntent, CrashPoint::ClaimTaken, CrashPoint::ClaimMoved}) {
        crash_point(point);
      }
    }
  });
  return child.end();
}

TEST_CASE("a process dies by SIGKILL at the armed point, in the armed role, at the armed reach") {
  struct Row {
    const char* armed;
    const char* role;
    bool dies;
  };
  for (const Row& row :
       {Row{nullptr, "worker", false}, Row{"claim.taken", "worker", true},
        Row{"claim.taken@worker", "worker", true}, Row{"claim.taken@driver", "worker", false},
        Row{"claim.taken:2", "worker", true}, Row{"claim.taken:3", "worker", false},
        Row{"claim.moved:2@actor", "actor", true}, Row{"claim.moved:2@actor", "driver", false},
        Row{"no.such_point", "worker", false}, Row{"claim.take", "worker", false},
        Row{"", "worker", false}, Row{"claim.taken@actor,claim.moved:2", "worker", true},
        Row{"claim.taken@actor,claim.moved:2@actor", "worker", false},
        Row{"claim.taken:3,claim.taken:2", "worker", true}, Row{"no.such,claim.moved", "a", true},
        Row{"submit.pushed", "worker", false}}) {
    const std::string armed = row.armed ? row.armed : "(nothing)";
    const std::string role = row.role;
    CAPTURE(armed);
    CAPTURE(role);
    CHECK(end_of(row.armed, row.role) == (row.dies ? kKilled : kWell));
  }
}

TEST_CASE("each armed crash happens once in a session") {
  CHECK(end_of("claim.taken", "worker", 0b1) == kKilled);
  CHECK(end_of("claim.taken", "worker", 0b0) == kWell);
  CHECK(end_of("submit.pushed,claim.taken", "worker", 0b10) == kKilled);
  CHECK(end_of("submit.pushed,claim.taken", "worker", 0b01) == kWell);
}

TEST_CASE("each point has a name of its own and says what it means") {
  std::set<std::string_view> names;
  for (int i = 0; i < static_cast<int>(CrashPoint::kCount); ++i) {
    const CrashPointInfo& info = crash_point_info(static_cast<CrashPoint>(i));
    CHECK(names.insert(info.name).second);
    CHECK(info.name.find('.') != std::string_view::npos);
    CHECK_FALSE(info.meaning.empty());
  }
}

}  // namespace
}  // namespace mobula::shm
