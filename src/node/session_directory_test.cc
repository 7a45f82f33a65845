#include "node/session_directory.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/scratch.h"
#include "wire/rendezvous.h"

namespace mobula::node {
namespace {

namespace fs = std::filesystem;

TEST_CASE("a name is taken while its holder lives, and nothing is left after it") {
  const test::ScratchTmpdir tmpdir;
  {
    SessionDirectory ann("node-ann");
    CHECK_THROWS_AS(SessionDirectory("node-ann"), std::runtime_error);
    fs::create_directories(ann.path() + "/logs/deep");
    std::ofstream(ann.path() + "/socket") << "x";
    const SessionDirectory unnamed;
    CHECK(wire::living_folders(wire::kNodePrefix).size() == 1);

    ann.remove();

    CHECK(wire::living_folders(wire::kNodePrefix).empty());
    CHECK(fs::exists(unnamed.path()));
  }
  CHECK(!fs::exists(wire::user_folder()));
}

// With each of what it can have had when its holder was killed while making or removing it.
TEST_CASE("the name of a holder that was killed is free") {
  const test::ScratchTmpdir tmpdir;
  for (const bool locked : {false, true}) {
    for (const char* name : {"/node-ann", "/leaving-1-2"}) {
      CAPTURE(locked);
      CAPTURE(name);
      ::close(wire::open_own_folder(wire::user_folder(), true));
      const std::string killed = wire::user_folder() + name;
      REQUIRE(::mkdir(killed.c_str(), 0700) == 0);
      if (locked) std::ofstream(killed + "/lock") << "";

      const SessionDirectory next("node-ann");

      CHECK(wire::living_folders("") == std::vector<std::string>{next.path()});
      CHECK(!fs::exists(wire::user_folder() + "/leaving-1-2"));
    }
  }
  CHECK(!fs::exists(wire::user_folder()));
}

}  // namespace
}  // namespace mobula::node
