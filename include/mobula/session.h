// The beginning and the end of a program's use of Mobula.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "mobula/detail/ref_address.h"
#include "mobula/options.h"

namespace mobula {

// Starts a node on this machine, private to this program, and gone with it however it ends; or
// joins a node that stays (Config.address). There it has object memory and workers of its own, and
// shares CPUs and other resources with other programs; if the node ends, calls throw NodeDiedError.
//
// In a worker process the constructor does not return: the program is its own worker, started anew
// up to this line. So construct the Session first in main(), before threads, output or other side
// effects. Throws Error: a session is running already, the node cannot be started or joined, the
// configuration is wrong.
class Session {
 public:
  Session(int argc, char** argv, Config config = {});
  ~Session();  // ends the session; workers, files and memory are gone when it returns
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

// The same without an object. shutdown() twice, or without init, does nothing.
void init(int argc, char** argv, Config config = {});
void shutdown() noexcept;
bool is_initialized() noexcept;

// What the node has for this program, and what is not held by a task or actor (of any program)
// right now: "CPU", "GPU", "memory", "object_store_memory" (bytes), the user's own.
std::map<std::string, double> cluster_resources();
std::map<std::string, double> available_resources();

struct NodeInfo {
  std::string node_id;
  bool alive = true;
  std::map<std::string, double> resources;
};
std::vector<NodeInfo> nodes();

// About the task that runs in the calling thread; in a driver, ids of the driver itself.
struct TaskInfo {
  std::string job_id;  // 16 hexadecimal digits
  std::string task_id;  // 32 hexadecimal digits
  std::string actor_id;  // 32 hexadecimal digits; empty outside of actors
  std::string actor_class;  // its name, cut at 90 bytes
  std::string actor_name;  // ActorOptions.name
  std::string node_id;
  std::string name;  // of the function or method
  int attempt = 0;  // 0: the first
  bool restarted = false;
  std::map<std::string, double> resources;  // assigned to it
  RefAddress record;  // for the library

  // Has somebody cancelled it? Asks the task's record each time; keep the TaskInfo, which is costly
  // to make, and ask often. May be called from other threads of the task, too.
  bool should_cancel() const;
  bool was_restarted() const { return restarted; }
};
TaskInfo this_task();

}  // namespace mobula
