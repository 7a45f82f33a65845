#include "wire/rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <stdexcept>
#include <utility>

namespace mobula::wire {
namespace {

namespace fs = std::filesystem;

constexpr int kBacklog = 64;
constexpr std::size_t kNameMax = 64;

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

// A descriptor for as long as a function runs.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Through the descriptor: the path may be longer than a socket's address, and be swapped.
sockaddr_un address_in(int folder, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = "/proc/self/fd/" + std::to_string(folder) + "/" + name;
  if (path.size() >= sizeof address.sun_path) refuse("the name of the socket is too long: " + name);
  ::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

bool is_own_process(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         peer.uid == ::geteuid();
}

// For those who hold the parent's lock (rendezvous.h).
bool is_held(const fs::path& folder) {
  const Descriptor lock(::open((folder / "lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (lock.get() < 0) return errno != ENOENT;
  return ::flock(lock.get(), LOCK_SH | LOCK_NB) != 0;
}

std::string name_in(const std::string& folder) {
  return fs::path(folder).filename().string().substr(kNodePrefix.size());
}

}  // namespace

std::string user_folder() {
  const char* base = ::getenv("MOBULA_TMPDIR");
  if (!base || !*base) base = ::getenv("XDG_RUNTIME_DIR");
  if (!base || !*base || ::access(base, W_OK) != 0) base = "/tmp";
  return std::string(base) + "/mobula-" + std::to_string(::geteuid());
}

int open_own_folder(const std::string& path, bool make) {
  if (make && ::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    refuse("cannot make " + path + ": " + ::strerror(errno));
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() < 0) refuse("cannot open " + path + " as a folder: " + ::strerror(errno));
  struct stat info{};
  ::fstat(fd.get(), &info);
  if (info.st_uid != ::geteuid())
    refuse(path + " belongs to another user; set MOBULA_TMPDIR to a folder of your own");
  if ((info.st_mode & 0077) && make) ::fchmod(fd.get(), 0700);
  if ((info.st_mode & 0077) && !make) refuse(path + " is open to other users: chmod 700 it");
  return fd.release();
}

void remove_stale_folders() noexcept {
  try {
    const std::string parent = user_folder();
    const Descriptor folder(open_own_folder(parent, false));
    ::flock(folder.get(), LOCK_EX);
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(parent, ignored)) {
      if (!is_held(entry.path())) fs::remove_all(entry.path(), ignored);
    }
    ::rmdir(parent.c_str());
  } catch (const std::exception&) {  // there is none, or it is not ours
  }
}

std::vector<std::string> living_folders(std::string_view prefix) {
  std::vector<std::string> living;
  const std::string parent = user_folder();
  if (::access(parent.c_str(), F_OK) != 0) return living;
  const Descriptor folder(open_own_folder(parent, false));
  ::flock(folder.get(), LOCK_SH);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    if (entry.path().filename().string().starts_with(prefix) && is_held(entry.path()))
      living.push_back(entry.path().string());
  }
  std::sort(living.begin(), living.end());
  return living;
}

int listen_in(const std::string& folder, const std::string& name) {
  const Descriptor own(open_own_folder(folder, false));
  Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_un address = address_in(own.get(), name);
  ::fchmod(socket.get(), 0600);  // before it has a name
  if (socket.get() < 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), kBacklog) != 0)
    refuse("cannot listen in " + folder + ": " + ::strerror(errno));
  return socket.release();
}

int accept_own(int listening) {
  for (;;) {
    const int socket = ::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0 && errno == EINTR) continue;
    if (socket < 0 || is_own_process(socket)) return socket;
    ::close(socket);
  }
}

int connect_in(const std::string& folder, const std::string& name) {
  const Descriptor own(open_own_folder(folder, false));
  const sockaddr_un address = address_in(own.get(), name);
  Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  int result = -1;
  do {
    result = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (result != 0 && errno == EINTR);
  if (result != 0) refuse("nobody answers in " + folder + ": " + ::strerror(errno));
  if (!is_own_process(socket.get()))
    refuse("the process that listens in " + folder + " is another user's");
  return socket.release();
}

std::string folder_of_node(const std::string& address) {
  if (address.find('/') != std::string::npos) return fs::path(address).parent_path().string();
  const std::vector<std::string> nodes = living_folders(kNodePrefix);
  std::string names;
  for (const std::string& node : nodes) {
    if (name_in(node) == address) return node;
    names += (names.empty() ? "" : ", ") + name_in(node);
  }
  if (address == "auto" && nodes.size() == 1) return nodes.front();
  if (nodes.empty())
    refuse("no node runs here under " + user_folder() + "; start one: mobula start --head");
  if (address == "auto") refuse("several nodes run here, name one of them: " + names);
  refuse("no node is called '" + address + "'; there are: " + names);
}

bool is_node_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameMax && name != "auto" && name != "local" &&
         name.front() != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '-' || c == '_' || c == '.';
         });
}

}  // namespace mobula::wire
