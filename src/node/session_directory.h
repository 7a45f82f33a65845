// The session's folder: logs per process. Only its user can enter it, and nothing of it is left
// when the session ends.
#pragma once

#include <string>

namespace mobula::node {

class SessionDirectory {
 public:
  // Makes PARENT/mobula-UID/session-PID-XXXX (0700), where PARENT is $MOBULA_TMPDIR,
  // $XDG_RUNTIME_DIR or /tmp, and removes the folders of sessions that are over. Throws
  // std::runtime_error with a sentence: the folder belongs to somebody else, for instance.
  SessionDirectory();
  ~SessionDirectory() { remove(); }
  SessionDirectory(const SessionDirectory&) = delete;
  SessionDirectory& operator=(const SessionDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string logs() const { return path_ + "/logs"; }
  void remove() noexcept;

 private:
  std::string parent_;
  std::string path_;
  int lock_ = -1;
};

}  // namespace mobula::node
