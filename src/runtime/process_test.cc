#include "runtime/process.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mobula/error.h"
#include "shm/processes_test.h"
#include "wire/local_protocol.h"

namespace mobula::runtime {
namespace {

TEST_CASE("a node of another build is told by its memory, which is then not used") {
  shm::testing::Session session;
  const auto join = [&] {
    int sockets[2];
    REQUIRE(wire::make_pair(sockets));
    wire::Message welcome;
    welcome.kind = wire::Kind::Welcome;
    welcome.c = session.object_capacity();
    welcome.descriptors[0] = ::fcntl(session.control(), F_DUPFD_CLOEXEC, 0);
    welcome.descriptors[1] = ::fcntl(session.objects(), F_DUPFD_CLOEXEC, 0);
    welcome.descriptors[2] = ::eventfd(0, EFD_CLOEXEC);
    const Process process(sockets[1], welcome, shm::ProcessRole::Driver, nullptr);
    ::close(sockets[0]);
  };

  CHECK_NOTHROW(join());
  session.memory().header().layout_hash ^= 1;
  CHECK_THROWS_WITH_AS(join(), doctest::Contains("cannot join the node: "), VersionMismatchError);
}

}  // namespace
}  // namespace mobula::runtime
