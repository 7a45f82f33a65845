#include "wire/program.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mobula::wire {
namespace {

TEST_CASE("a process that has ended runs no program, also before it is waited for") {
  CHECK(program_of(::getpid()) == "test_wire");

  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  CHECK(program_of(child) == "test_wire");
  REQUIRE(::kill(child, SIGKILL) == 0);
  siginfo_t ended{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) == 0);
  CHECK(program_of(child).empty());
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(program_of(child).empty());
}

}  // namespace
}  // namespace mobula::wire
