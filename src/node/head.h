// The daemon of a node that stays: it owns the node's resources, and gives each driver that joins a
// session of its own (node.h) in a process of its own, so that no driver's crash, memory or mistake
// reaches another one.
//
//   driver --Start--> head --the connection itself--> a new session's daemon --Enrol--> head
//
// One thread. What the jobs may use is decided in core/job_shares.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/job_shares.h"
#include "node/hosts.h"
#include "node/node_parts.h"
#include "node/session_directory.h"
#include "wire/local_protocol.h"

namespace mobula::node {

struct NodeSettings {
  std::string name;
  core::ResourceAmounts capacity;
  std::uint64_t object_memory = 0;  // bytes, for all jobs together
  bool log_to_file = false;  // its own output, in the node's folder
};

class Head {
 public:
  // The folder and its socket are there when it returns. Throws std::runtime_error with a sentence.
  explicit Head(const NodeSettings& settings);
  ~Head();
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;

  // Serves until it is told to end (Drain, SIGTERM) and all jobs have. An exit code.
  int run();

 private:
  using Clock = std::chrono::steady_clock;
  struct Job {
    int socket = -1;
    pid_t daemon = 0;
    pid_t driver = 0;
    bool enrolled = false;
    std::uint64_t object_memory = 0;
    std::uint64_t told = 0;  // number of the newest share that was sent
    bool answered = true;  // it has said that it heard it
    std::optional<core::SetShare> waits;  // newer than that
  };

  void watch(int fd, std::uint64_t tag);
  void admit();
  void hear_stranger(int socket);
  void start_job(int driver);
  void serve_tool(int socket, wire::Message& message);
  std::uint64_t memory_of_host() const;
  std::string line_about(const Job& job) const;
  void hear_job(core::JobId id);
  void enrol(core::JobId id, wire::Message& message);
  void hear_claim(core::JobId id, const wire::Message& message);
  void apply(const core::ShareEvent& event);
  void send_share(core::JobId id);
  void hear_signals();
  void bury_dead();
  void forget(int socket);
  void drain(std::chrono::milliseconds grace);
  void say_farewell();
  int until_next_look() const;
  void look();
  core::Time now() const { return Clock::now() - begin_; }

  const NodeSettings settings_;
  const std::uint64_t id_ = random_id();
  const Clock::time_point begin_ = Clock::now();
  int epoll_ = -1;
  int listening_ = -1;
  int signals_ = -1;
  std::unique_ptr<SessionDirectory> directory_;
  std::unique_ptr<Hosts> hosts_;
  core::JobShares shares_;
  std::map<core::JobId, Job> jobs_;
  std::uint32_t last_job_ = 0;
  std::uint64_t object_memory_given_ = 0;
  std::map<int, Clock::time_point> strangers_;  // connections, until which time they may be silent
  std::vector<int> farewells_;  // tools that wait for the end
  std::string ended_;  // the jobs that it ended, for them
  std::optional<Clock::time_point> kill_at_;  // it drains: who is there then is killed
};

// Runs a Head in a child, and cleans up after it however it ends: its sessions end with it, and no
// file is left. Writes "ok" or what is wrong to `ready`, a descriptor, and closes it. An exit code.
int keep_node(const NodeSettings& settings, int ready);

}  // namespace mobula::node
