// Finds calls of actors that can never run, since their actor waits, round some corners, for them;
// and tasks that can never run, since who holds the resources that they demand waits for them.
//
// It reads who runs what (intents) and who sleeps for what (wait notes) from shared memory, while
// all that goes on changing, and lets core::WaitGraph decide. A wait that was seen ends only when
// its records are final. So a circle that is seen twice, of records that are not final yet, stood
// all the time between; what was read from two moments at once does not look the same twice.
//
// A reader of a stream waits for its producer if the stream is empty: in a circle that producer
// pushes nothing, so at the second look the stream is empty for good. A producer that waits for
// room counts as going on, since anybody who has the StreamRef may read.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/wait_graph.h"
#include "node/tables.h"
#include "shm/memory.h"

namespace mobula::node {

class WaitSurvey {
 public:
  WaitSurvey(const shm::Memory& memory, const Tables& tables) : memory_(memory), tables_(tables) {}

  struct Deadlock {
    std::vector<core::WaitNode> circle;  // begins with what breaks it
    // A process that holds what a task of the circle demands; kNone: there is none, but a call that
    // nobody has claimed and that can be failed.
    std::uint32_t holder = shm::kNone;
    shm::Address call;
    std::vector<shm::Address> steps;  // what the threads of the circle run, then the call
  };
  struct Processes {
    std::map<std::uint32_t, std::uint32_t> actors;  // living ones, by class
    std::vector<std::uint32_t> blocked;  // asleep in a task or call
    // By class whose tasks cannot run until one of them goes on: who holds what it demands.
    std::map<std::uint32_t, std::vector<std::uint32_t>> holders;
  };
  // What was seen by the last look, too.
  std::vector<Deadlock> look(const Processes& processes);
  // By the last look: there are circles to look at again soon.
  bool suspects() const { return !suspected_.empty(); }

 private:
  using Node = core::WaitNode;

  void follow(Node from);
  void explore(Node node);
  void explore_thread(std::uint32_t participant);
  bool is_drained(shm::Address producer) const;
  void explore_record(shm::Address address);
  std::vector<Node> arguments_of(const shm::Record& record) const;
  void add_queue(shm::Address call, const shm::Record& record, std::vector<Node>& targets) const;
  // The thread of a process that runs a task; kNone: none does.
  std::uint32_t runner_of(std::uint32_t process) const;
  Deadlock describe(std::vector<Node> circle, bool by_lending) const;
  bool begin_with_task(std::vector<Node>& circle) const;
  bool begin_with_call(std::vector<Node>& circle) const;
  bool is_open_call(Node node) const;

  const shm::Memory& memory_;
  const Tables& tables_;
  const Processes* processes_ = nullptr;  // for the length of a look
  core::WaitGraph graph_;
  std::vector<Node> open_;  // named by the graph, not explored yet
  std::vector<std::vector<Node>> suspected_;
};

}  // namespace mobula::node
