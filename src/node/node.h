// The daemon of one machine: it owns the shared memory, starts workers and lets them go, and
// notices every death.
//
// One thread decides. It sees no single task on the fast path: it samples depths, and is rung when
// a class has nobody to run its tasks, when a worker blocks, or when a process dies. Idle, it
// sleeps without a timer.
#pragma once

#include <sys/resource.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/bundles.h"
#include "core/deadline_queue.h"
#include "core/memory_guard.h"
#include "core/progress_bars.h"
#include "core/worker_allotment.h"
#include "node/actor_names.h"
#include "node/log_relay.h"
#include "node/metrics.h"
#include "node/monitors.h"
#include "node/object_memory.h"
#include "node/recovery.h"
#include "node/session_directory.h"
#include "node/spiller.h"
#include "node/tables.h"
#include "node/wait_survey.h"
#include "shm/memory_use.h"
#include "wire/local_protocol.h"

namespace mobula::node {

class Node {
 public:
  // `driver`: a connected socket. Nothing is set up before its Start message comes. `node`: the
  // line to the daemon of the node that stays, whose resources this session shares; -1: a node of
  // its own.
  explicit Node(int driver, int node = -1, std::string node_name = {});
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Serves until the driver leaves or dies; everything of the session is gone when it returns. An
  // exit code.
  int run();

 private:
  struct Worker {
    int socket = -1;
    int pidfd = -1;
    std::uint32_t pid = 0;  // 0: fork was ordered, no answer yet
    bool joined = false;
    bool gone = false;  // its end was reported and repaired
    std::optional<std::uint32_t> actor;  // its class
    std::uint32_t environment = 0;  // a worker's for tasks: number in environments_
    std::uint32_t attached = shm::kNone;
    bool leaving = false;
    bool blocked = false;
    bool retired = false;
    bool spent = false;  // reported
    bool rests = false;  // the rules know that it sleeps, attached, without work
    std::uint64_t tasks_done = 0;  // when it was last asked whether it has work
    std::optional<core::KillForMemory> killed_for;
    bool killed_by_us = false;
    bool ends_with_group = false;  // killed, since its placement group was removed
    bool killed_once = false;  // by mobula::kill, which leaves the actor its restarts
    std::string log_name;
  };
  struct Actor {
    int max_restarts = 0;
    int max_task_retries = 0;
    core::ResourceAmounts demand;
    std::optional<core::ClassId> group;  // that it is placed in
    std::uint64_t type = 0;  // key of its class
    std::uint32_t environment = 0;
    int restarts = 0;
    int failed_starts = 0;
    core::Time attached_at{};  // when its newest process began to work
    int quick_deaths = 0;  // in a row
    std::optional<core::Time> restart_at;
    std::uint32_t worker = shm::kNone;
    bool dead = false;
    bool ending = false;  // its last handle is gone
    bool one_by_one = true;  // one thread runs its calls, in order
    std::optional<shm::DeathNote> obituary;  // of the detached actor that it stands for
  };

  struct Group {
    std::uint32_t cls = shm::kNone;
    std::uint32_t number = 0;  // in the order of their making, from 1
    std::uint64_t id = 0;
    std::string name;
    std::string text;  // name and bundles, as asked for
    std::uint32_t strategy = 0;
    core::Bundles bundles;
    bool granted = false;
    bool removed = false;
    std::vector<std::uint32_t> task_classes;  // once it is removed
  };
  // Where a task or an actor is to be.
  struct Place {
    std::optional<core::ClassId> cls;  // of the group
    std::uint64_t group = 0;
    std::int32_t bundle = -1;
    std::string name;
  };

  bool start(const wire::Message& message);
  void open_object_memory(std::string spill_folder, double spill_limit);
  core::ResourceAmounts own_capacity(const wire::Message& start,
                                     std::map<std::string, double> asked,
                                     std::uint64_t* object_memory);
  core::ResourceAmounts part_of_node(const wire::Message& start,
                                     const std::map<std::string, double>& asked,
                                     std::uint64_t* object_memory);
  void live_like_the_driver(const wire::Message& start, const std::vector<std::string>& strings);
  void start_zygote();
  void watch(int fd, std::uint64_t tag);
  void unwatch(int fd);

  void serve(int socket, std::uint32_t process);
  void answer(std::uint32_t process, wire::Message& message);
  void clear_class(std::uint32_t cls, shm::ClassKind kind);
  void open_class(std::uint32_t process, wire::Message& message);
  void open_callback_class(std::uint32_t process, wire::Message& message);
  void close_callback_class(std::uint32_t process);
  void close_class(std::uint32_t cls);
  Group* group_by_id(std::uint64_t id);
  void open_group(wire::Message& message);
  void group_granted(std::uint32_t cls);
  bool place(std::string_view placement, core::ResourceAmounts& demand, Place& place,
             wire::Message& message);
  void remove_group(std::uint64_t id);
  void end_workers_of(const Group& group);
  void serve_groups();
  void read_group(wire::Message& message);
  void hold_group(std::uint32_t process, wire::Message& message);
  void find_actor(std::uint32_t process, wire::Message& message);
  void list_actors(wire::Message& message);
  void monitor_actor(std::uint32_t process, wire::Message& message);
  ActorName full_name(std::string_view name, std::string_view namespace_) const;
  bool name_is_taken(const ActorName& name) const;
  void tell_past_records(std::uint32_t cls, wire::Message& message);
  void give_extent(std::uint32_t process, wire::Message& message);
  void report_object_memory(wire::Message& message);
  void report_resources(wire::Message& message);
  void open_metric(std::uint32_t process, wire::Message& message);
  void report_metrics(std::uint64_t reader, wire::Message& message);
  std::vector<MetricSample> own_metrics() const;
  void show_progress();
  std::vector<core::ProgressCount> counts_of_progress() const;
  void hear_node();
  void heed_node(const wire::Message& message);
  core::ResourceAmounts free_amounts();
  void claim_share();
  bool has_drained() const;
  void admit_tool();
  void serve_tool(int socket);
  void drop_tool(int socket);
  void show_tables(wire::Message& message);
  void hear_zygote();
  void zygote_ended();
  void worker_exited(std::uint32_t process, int status);
  void lost_zygote();

  bool look_can_wait() const;
  int until_next_look(int timeout);
  void look_round();
  void sample_classes();
  void sample_workers();
  void sample_worker(std::uint32_t process, Worker& worker, bool wanted, bool survey);
  void serve_actors();
  void end_condemned();
  void note_deadline(const wire::Message& message);
  void end_late();
  bool an_actor_waits() const;
  void look_for_deadlocks();
  void step(const core::WorkerEvent& event);
  void carry_out(const core::WorkerActions& actions);
  void start_worker(std::optional<core::ClassId> actor, core::EnvironmentId environment);
  std::uint32_t environment_number(const std::string& text);
  void order_forks();
  void attach(std::uint32_t worker, std::uint32_t cls);
  void leave_class(std::uint32_t worker);
  void give_slot_back(std::uint32_t process, std::uint32_t cls);
  void actor_ended(std::uint32_t cls, const ProcessEnd& end, bool wanted);
  void note_obituary(std::uint32_t process, const wire::Message& message);
  void restart_if_due(std::uint32_t cls, Actor& actor);
  std::string explain(std::uint32_t cls) const;  // why its tasks, or the actor, wait
  void kill_once(std::uint32_t cls, const Actor& actor);
  void actor_start_failed(std::uint32_t cls, const ProcessEnd& end);
  void bury_actor(std::uint32_t cls, shm::Death cause, const ProcessEnd& end);
  void forget_state(std::uint32_t cls);
  void close_actors_without_creation(std::uint32_t process);
  void limit_memory(const wire::Message& start);
  core::Time watch_memory();
  std::vector<core::MemoryMeter> read_meters() const;
  std::vector<core::MemoryUser> memory_users() const;
  core::MemoryUser memory_user(std::uint32_t process, const Worker& worker) const;
  core::Loss loss_of(std::uint32_t process, const Worker& worker) const;
  std::uint64_t heap_of(const Worker& worker) const;
  shm::DeathCause cause_of_kill(const Worker& worker);
  bool anybody_works() const;
  std::uint64_t worker_heap_max() const;
  std::uint64_t depth_of(std::uint32_t cls) const;
  void wake(std::uint32_t process);
  void kill_worker(Worker& worker);

  void end_session(bool orderly);
  core::Time now() const;

  int driver_;
  int node_;
  std::string node_name_;
  std::uint64_t node_id_ = 0;  // of the node that stays
  std::string node_folder_;  // of the node that stays; empty: the driver's own
  int epoll_ = -1;
  int bell_ = -1;
  int control_fd_ = -1;
  int object_fd_ = -1;
  int program_ = -1;  // the driver's executable
  std::vector<std::string> arguments_;
  bool driver_gone_ = false;
  bool leave_asked_ = false;
  bool node_gone_ = false;
  std::optional<core::Time> drain_until_;  // the node ends: running tasks may still do so
  std::uint64_t share_heard_ = 0;  // number of the newest one
  std::string claimed_;  // as it was told last
  bool log_to_driver_ = true;
  bool local_ = false;  // the driver runs everything itself: there are no workers

  std::chrono::steady_clock::time_point begin_;
  std::unique_ptr<SessionDirectory> directory_;
  std::unique_ptr<LogRelay> logs_;
  shm::Memory memory_;
  std::unique_ptr<Tables> tables_;
  std::unique_ptr<Spiller> spiller_;  // nullptr: objects are never spilled
  std::unique_ptr<ObjectMemory> objects_;
  std::unique_ptr<Recovery> recovery_;
  std::unique_ptr<WaitSurvey> waits_;
  std::unique_ptr<Monitors> monitors_;
  std::unique_ptr<Metrics> metrics_;
  std::map<std::uint64_t, std::string> read_metrics_;  // by process or tool that is reading them
  struct {
    std::uint64_t tasks = 0, failed = 0;  // of processes that are gone
    std::uint64_t restarts = 0, crashes = 0;
  } counted_;
  core::ProgressBars progress_{false};
  core::Time progress_at_{};  // when it is looked at next
  std::uint64_t deadlocks_ = 0;  // found so far
  core::WorkerAllotment allotment_;
  std::deque<core::WorkerEvent> facts_;  // not stepped yet
  bool stepping_ = false;
  core::ResourceAmounts capacity_;

  int tools_ = -1;  // where they connect
  std::set<int> tool_sockets_;
  int functions_ = -1;  // a file of what the program has, from the zygote

  rlimit user_descriptors_{};
  int zygote_socket_ = -1;
  int zygote_end_ = -1;  // a pidfd
  std::uint32_t zygote_pid_ = 0;
  bool zygote_ready_ = false;
  int zygote_failures_ = 0;
  bool start_failure_told_ = false;
  std::deque<wire::Message>
      waiting_forks_;  // until the zygote is ready, and has answered earlier ones
  std::size_t forks_ordered_ = 0;  // and not answered
  std::map<std::uint32_t, Worker> workers_;  // by process
  std::map<std::uint32_t, Actor> actors_;  // by class
  std::map<std::uint32_t, Group> groups_;  // by class
  std::deque<Group> removed_groups_;  // the latest of which nothing is left
  std::uint32_t groups_made_ = 0;
  ActorNames names_;
  std::string namespace_;  // of who names none
  std::map<std::string, std::uint32_t> task_classes_;  // by demand, environment and priority
  std::map<std::uint32_t, std::uint32_t> callback_classes_;  // by process
  std::vector<std::string> environments_{""};  // that were asked for; 0: ours
  std::map<std::uint32_t, std::uint64_t> depths_;  // last sampled, of task classes
  std::vector<shm::Address> condemned_;  // tasks cancelled by force whose process still runs
  core::DeadlineQueue deadlines_;  // of tasks, when they were last known to be open
  std::string rejected_;  // reason of the class being opened
  shm::MemoryGauge gauge_;
  core::MemoryGuard guard_;
  std::uint64_t memory_limit_ = 0;  // of workers and actors together; 0: none
  double memory_threshold_ = 1;
  std::uint64_t zygote_memory_ = 0;  // what workers share with it from their birth
  std::uint64_t kernel_kills_ = 0;  // that are accounted for, or lie too long back
  std::uint64_t kernel_kills_seen_ = 0;  // some seconds ago
  core::Time kernel_kills_seen_at_{};
  core::Time memory_look_at_{};
  core::Time survey_at_{};
  core::Time looked_at_{};
  core::Time look_took_{};
  int quiet_looks_ = 0;  // in a row, with nothing to do
  bool busy_ = false;
};

}  // namespace mobula::node
