#include "node/session_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "node/node_parts.h"
#include "wire/rendezvous.h"

namespace mobula::node {
namespace {

constexpr int kTriesMax = 100;

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

std::string own_number() {
  return std::to_string(::getpid()) + "-" + std::to_string(static_cast<std::uint32_t>(random_id()));
}

}  // namespace

SessionDirectory::SessionDirectory(std::string name)
    : parent_(wire::user_folder()), leaving_(parent_ + "/leaving-" + own_number()) {
  if (name.empty()) name = std::string(wire::kSessionPrefix) + own_number();
  wire::remove_stale_folders();
  const std::string path = parent_ + "/" + name;
  // Locked until our own lock stands: nobody may judge a folder over that is just being made.
  // Others that end remove the parent when it is empty: then once more.
  int parent = -1;
  int made = -1;
  int problem = ENOENT;
  for (int tries = 0; made != 0 && problem == ENOENT && tries < kTriesMax; ++tries) {
    if (parent >= 0) ::close(parent);
    parent = wire::open_own_folder(parent_, true);
    ::flock(parent, LOCK_EX);
    // In the folder whose lock we hold: its path may lead to a newer one by now.
    made = ::mkdirat(parent, name.c_str(), 0700);
    problem = errno;
  }
  if (made == 0) {
    path_ = path;
    lock_ = ::open((path_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    made = lock_ >= 0 ? ::flock(lock_, LOCK_EX | LOCK_NB) : -1;
    ::mkdir(logs().c_str(), 0700);
  }
  ::close(parent);
  if (path_.empty() && problem == EEXIST) refuse(path + " is in use");
  if (path_.empty()) refuse("cannot make " + path + ": " + ::strerror(problem));
  if (made != 0) refuse("cannot lock " + path);
}

// Renamed first, so that the name is free at once, and whoever takes it loses nothing to us. The
// lock goes last: until then nobody else removes it beside us.
void SessionDirectory::remove() noexcept {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::rename(path_, leaving_, ignored);
  const std::string path = ignored ? path_ : leaving_;
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    if (entry.path() != path + "/lock") std::filesystem::remove_all(entry.path(), ignored);
  }
  std::filesystem::remove_all(path, ignored);
  ::rmdir(parent_.c_str());  // fails while other sessions live
  if (lock_ >= 0) ::close(lock_);
  lock_ = -1;
  path_.clear();
}

}  // namespace mobula::node
