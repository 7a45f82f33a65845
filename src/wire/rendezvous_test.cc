#include "wire/rendezvous.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>

#include "support/scratch.h"

namespace mobula::wire {
namespace {

namespace fs = std::filesystem;

// This user's folder in a place of the test's own.
class Place {
 public:
  Place() { ::close(open_own_folder(user_folder(), true)); }
  std::string make(const std::string& name) const {
    const std::string folder = user_folder() + "/" + name;
    ::mkdir(folder.c_str(), 0700);
    return folder;
  }

 private:
  test::ScratchTmpdir tmpdir_;
};

class Holder {
 public:
  explicit Holder(const std::string& folder)
      : lock_(::open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    REQUIRE(::flock(lock_, LOCK_EX | LOCK_NB) == 0);
  }
  ~Holder() { ::close(lock_); }

 private:
  int lock_;
};

std::string refusal_of(const std::string& address) {
  try {
    return "found " + folder_of_node(address);
  } catch (const std::runtime_error& e) {
    return e.what();
  }
}

TEST_CASE("a folder lives as long as its lock is held, and then is removed") {
  const Place place;
  const std::string dead = place.make("session-1");
  const std::string alive = place.make("session-2");
  {
    const Holder was(dead);
  }
  const Holder is(alive);
  const std::string half_removed = place.make("session-3");

  CHECK(living_folders(kSessionPrefix) == std::vector<std::string>{alive});
  CHECK(living_folders(kNodePrefix).empty());
  remove_stale_folders();
  CHECK(!fs::exists(dead));
  CHECK(!fs::exists(half_removed));
  CHECK(fs::exists(alive));
}

TEST_CASE("an address is a name, a socket's path, or auto if one node runs") {
  const Place place;
  CHECK(refusal_of("auto").find("no node runs here") == 0);
  const std::string ann = place.make("node-ann");
  const Holder a(ann);

  CHECK(folder_of_node("auto") == ann);
  CHECK(folder_of_node("ann") == ann);
  CHECK(folder_of_node(ann + "/socket") == ann);

  const std::string bob = place.make("node-bob");
  const Holder b(bob);
  CHECK(refusal_of("auto") == "several nodes run here, name one of them: ann, bob");
  CHECK(refusal_of("cid") == "no node is called 'cid'; there are: ann, bob");
}

TEST_CASE("two processes of one user meet in a folder, however long its path is") {
  const Place place;
  std::string folder = place.make("node-deep");
  for (int i = 0; i < 3; ++i) {
    folder += "/" + std::string(60, 'd');
    REQUIRE(::mkdir(folder.c_str(), 0700) == 0);
  }
  const int listening = listen_in(folder);
  CHECK(accept_own(listening) == -1);  // nobody is there, and it does not wait

  const int client = connect_in(folder);
  const int server = accept_own(listening);

  REQUIRE(server >= 0);
  CHECK(::write(client, "x", 1) == 1);
  char byte = 0;
  CHECK(::read(server, &byte, 1) == 1);
  struct stat info{};
  REQUIRE(::stat((folder + "/socket").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  for (const int fd : {listening, client, server}) ::close(fd);
  CHECK_THROWS_AS(connect_in(folder), std::runtime_error);  // the name is there, and nobody behind
}

TEST_CASE("a folder that is a link, or open to others, is not ours") {
  const Place place;
  const std::string real = place.make("node-real");
  const std::string link = user_folder() + "/node-link";
  REQUIRE(::symlink(real.c_str(), link.c_str()) == 0);
  CHECK_THROWS_AS(open_own_folder(link, false), std::runtime_error);

  REQUIRE(::chmod(real.c_str(), 0755) == 0);
  CHECK_THROWS_AS(open_own_folder(real, false), std::runtime_error);
  ::close(open_own_folder(real, true));  // whoever makes it closes it
  ::close(open_own_folder(real, false));
}

TEST_CASE("names of nodes are plain words") {
  for (const char* good : {"main", "a", "node-1.x_Y"}) CHECK(is_node_name(good));
  for (const char* bad : {"", "auto", "local", "a/b", "..", ".x", "a b", "a\n"})
    CHECK(!is_node_name(bad));
  CHECK(!is_node_name(std::string(65, 'a')));
}

}  // namespace
}  // namespace mobula::wire
