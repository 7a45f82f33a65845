// The folder of a session (logs per process) or of a node that stays. Only its user can enter it,
// and nothing of it is left when its holder ends.
#pragma once

#include <string>

namespace mobula::node {

class SessionDirectory {
 public:
  // Makes PARENT/mobula-UID/NAME (0700; wire/rendezvous.h), by default session-PID-RANDOM, and
  // removes the folders of those that are over. Throws std::runtime_error with a sentence: the
  // parent belongs to somebody else, or the name is taken.
  explicit SessionDirectory(std::string name = {});
  ~SessionDirectory() { remove(); }
  SessionDirectory(const SessionDirectory&) = delete;
  SessionDirectory& operator=(const SessionDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string logs() const { return path_ + "/logs"; }
  void remove() noexcept;

 private:
  std::string parent_;
  std::string path_;
  std::string leaving_;  // its path while it is being removed
  int lock_ = -1;
};

}  // namespace mobula::node
