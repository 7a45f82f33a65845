// The detached actors of a node that stays: which name belongs to which, and the process that each
// lives by.
//
// Such an actor is in a session of its own, whose driver we start: a host. It is the program of who
// created the actor, begun once more as that was. What it says comes over a line of its own; that
// it has ended we hear as of any child. A name is given before its host is started, so that of two
// creators one is told that it exists; who asks for it meanwhile waits until calls can be made. It
// is free again when the actor is dead for good, or killed, or its host has ended.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "node/actor_names.h"
#include "wire/local_protocol.h"

namespace mobula::node {

class Hosts {
 public:
  using Clock = std::chrono::steady_clock;
  using Watch = std::function<void(int line, std::uint32_t number)>;

  // `folder`: the node's, for the hosts to join it. `watch`: hear(number) is to be called when
  // there is something to read.
  Hosts(std::string folder, Watch watch) : folder_(std::move(folder)), watch_(std::move(watch)) {}
  ~Hosts();
  Hosts(const Hosts&) = delete;
  Hosts& operator=(const Hosts&) = delete;

  static bool answers(wire::Kind kind);
  // Answers one question, now or later, and closes the socket, which does not block, and the
  // descriptors that came. `object_memory`: what a host gets that asks for none, bytes.
  void serve(int socket, wire::Message& message, std::uint64_t object_memory);
  void refuse_all_new() { ending_ = true; }

  bool hear(std::uint32_t number);  // true: there may be more
  bool has_ended(pid_t pid, int status);  // true: it was a host
  std::optional<Clock::time_point> next_look() const;
  void look(Clock::time_point now);  // ends those that do not get ready
  void kill_all();

  bool empty() const { return hosts_.empty(); }
  // "detached actor \"x\""; empty: the process is no host.
  std::string describe(pid_t pid) const;

 private:
  struct Waiting {
    int socket;
    bool creator;
  };
  struct Host {
    ActorName name;
    std::string about;  // class, its key, max_pending_calls: as fields
    pid_t pid = 0;
    int line = -1;
    Clock::time_point begun{};
    bool ready = false;
    std::string folder;  // of its session
    std::vector<Waiting> waiting;
  };

  void open(int socket, wire::Message& message, std::uint64_t object_memory);
  std::string start(std::uint32_t number, Host& host, const wire::Message& message,
                    std::uint64_t object_memory);
  void find(int socket, const wire::Message& message);
  void list(int socket, wire::Message& message);
  void kill(int socket, const wire::Message& message);
  void wait_for(std::uint32_t number, Waiting waiting);
  void tell_waiting(std::uint32_t number);
  void fail_waiting(Host& host, wire::Status status, const std::string& why);
  void free_name(std::uint32_t number, const Host& host);

  const std::string folder_;
  const Watch watch_;
  std::map<std::uint32_t, Host> hosts_;
  std::map<ActorName, std::uint32_t> names_;
  std::uint32_t last_ = 0;
  std::size_t waiting_ = 0;
  bool ending_ = false;
};

}  // namespace mobula::node
