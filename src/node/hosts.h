// The processes by which the detached actors of a node that stays live: starts them, hears them and
// answers those who ask for one. Which name is whose, and who waits, is decided in core/host_table.
//
// Such an actor is in a session of its own, whose driver we start: a host. It is the program of who
// created the actor, begun once more as that was. What it says comes over a line of its own; that
// it has ended we hear as of any child.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/host_table.h"
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
  void refuse_all_new();

  bool hear(std::uint32_t number);  // true: there may be more
  void has_ended(pid_t pid, int status);  // any child of ours
  std::optional<Clock::time_point> next_look() const;
  void look();  // ends those that do not get ready
  void kill_all();

  bool empty() const { return table_.empty(); }
  // "detached actor \"x\""; empty: the process is no host.
  std::string describe(pid_t pid) const;

 private:
  struct Process {
    pid_t pid = 0;
    int line = -1;
  };

  void open(int socket, const wire::Message& message, std::uint64_t object_memory);
  std::string start(core::HostId id, const wire::Message& message, std::uint64_t object_memory);
  void list(int socket, const wire::Message& message);
  void kill(int socket, const wire::Message& message);
  void tell(const core::HostEvent& event);
  void carry_out(const std::vector<core::HostOrder>& orders);
  core::Time now() const { return Clock::now() - begin_; }

  const std::string folder_;
  const Watch watch_;
  const Clock::time_point begin_ = Clock::now();
  core::HostTable table_;
  std::map<core::HostId, Process> processes_;  // of all hosts that the table knows
};

}  // namespace mobula::node
