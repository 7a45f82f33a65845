#include "node/session_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

namespace mobula::node {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

// The folder of all sessions of this user. Checked by descriptor, so that nobody can swap it under
// us.
int open_parent(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    refuse("cannot make " + path + ": " + ::strerror(errno));
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) refuse("cannot open " + path + " as a folder: " + ::strerror(errno));
  struct stat info{};
  ::fstat(fd, &info);
  const bool mine = info.st_uid == ::geteuid();
  if (mine && (info.st_mode & 0077)) ::fchmod(fd, 0700);
  if (!mine) ::close(fd);
  if (!mine) refuse(path + " belongs to another user; set MOBULA_TMPDIR to a folder of your own");
  return fd;
}

// A session holds a lock on its file as long as it lives; the kernel drops it however it ends.
bool is_over(const fs::path& session) {
  const int fd = ::open((session / "lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;  // just being made
  const bool over = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
  ::close(fd);
  return over;
}

}  // namespace

SessionDirectory::SessionDirectory() {
  const char* base = ::getenv("MOBULA_TMPDIR");
  if (!base || !*base) base = ::getenv("XDG_RUNTIME_DIR");
  if (!base || !*base || ::access(base, W_OK) != 0) base = "/tmp";
  parent_ = std::string(base) + "/mobula-" + std::to_string(::geteuid());
  // Locked while we look round and until our own lock stands: nobody may judge a session over that
  // is just being made.
  int parent = open_parent(parent_);
  ::flock(parent, LOCK_EX);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent_, ignored)) {
    if (is_over(entry.path())) fs::remove_all(entry.path(), ignored);
  }
  std::uint32_t random = 0;
  if (::getrandom(&random, sizeof random, 0) != sizeof random)
    refuse("no random numbers from the system");
  path_ = parent_ + "/session-" + std::to_string(::getpid()) + "-" + std::to_string(random);
  if (::mkdir(path_.c_str(), 0700) != 0) {
    // Another session that ended just now may have removed the empty parent.
    ::close(parent);
    parent = open_parent(parent_);
    ::flock(parent, LOCK_EX);
    if (::mkdir(path_.c_str(), 0700) != 0)
      refuse("cannot make " + path_ + ": " + ::strerror(errno));
  }
  lock_ = ::open((path_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0 || ::flock(lock_, LOCK_EX | LOCK_NB) != 0) refuse("cannot lock " + path_);
  ::mkdir(logs().c_str(), 0700);
  ::close(parent);
}

void SessionDirectory::remove() noexcept {
  if (path_.empty()) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  ::rmdir(parent_.c_str());  // fails while other sessions live
  if (lock_ >= 0) ::close(lock_);
  lock_ = -1;
  path_.clear();
}

}  // namespace mobula::node
