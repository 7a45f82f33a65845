// A running session seen from outside: its control memory, mapped read-only, and what its daemon
// says of itself. Everything moves while it is read; what was read counts as seen, no more.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mobula/memory.h"
#include "mobula/metrics.h"
#include "shm/memory.h"
#include "wire/local_protocol.h"

namespace mobula::cli {

class SessionReader {
 public:
  // Throws std::runtime_error: it has ended, or is of another build.
  explicit SessionReader(std::string folder);
  ~SessionReader();
  SessionReader(const SessionReader&) = delete;
  SessionReader& operator=(const SessionReader&) = delete;

  const std::string& folder() const { return folder_; }
  std::string id() const;  // as TaskInfo.job_id
  const std::string& node() const { return node_; }  // empty: a node of its own
  std::uint64_t count(const std::string& name) const;  // of Inspect's answer
  const shm::Memory& memory() const { return memory_; }

  std::string function_name(std::uint64_t key) const;
  // Of a task, call or creation; "(put)", "(monitor)" and such of others.
  std::string name_of(const shm::Record& record) const;
  std::string explain(std::uint32_t scheduling_class);
  MemoryReport memory_report();
  std::vector<MetricSample> metrics();  // as mobula::metrics()

  // Calls visit(slot, record, state) for each record that is in use.
  template <class Visit>
  void each_record(const Visit& visit) const {
    for (std::uint32_t segment = 0; segment < count("segments"); ++segment) {
      if (memory_.segment_owner(segment).load(std::memory_order_acquire) == shm::kNone) continue;
      const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
      for (std::uint32_t r = 0; r < ready; ++r) {
        const std::uint32_t slot = segment * shm::kRecordsPerSegment + r;
        shm::Record& record = memory_.record(slot);
        const std::uint64_t state = record.state.load(std::memory_order_acquire);
        if (shm::word::state(state) != shm::State::Free) visit(slot, record, state);
      }
    }
  }
  // Calls visit(index, process) for each process that is there.
  template <class Visit>
  void each_process(const Visit& visit) const {
    for (std::uint32_t i = 0; i < count("processes"); ++i) {
      const shm::Process& process = memory_.process(i);
      if (process.role.load(std::memory_order_acquire) != 0 && process.pid != 0) visit(i, process);
    }
  }
  // Calls visit(index, class) for each actor.
  template <class Visit>
  void each_actor(const Visit& visit) const {
    for (std::uint32_t i = 0; i < count("classes"); ++i) {
      const shm::SchedulingClass& cls = memory_.scheduling_class(i);
      if (cls.state.load(std::memory_order_acquire) != 0 &&
          cls.kind.load() == static_cast<std::uint32_t>(shm::ClassKind::Actor))
        visit(i, cls);
    }
  }
  // Calls visit(index, class) for each placement group.
  template <class Visit>
  void each_group(const Visit& visit) const {
    for (std::uint32_t i = 0; i < count("classes"); ++i) {
      const shm::SchedulingClass& cls = memory_.scheduling_class(i);
      if (cls.state.load(std::memory_order_acquire) != 0 &&
          cls.kind.load() == static_cast<std::uint32_t>(shm::ClassKind::Group))
        visit(i, cls);
    }
  }
  // Tasks that no worker has taken.
  std::uint64_t depth_of(const shm::SchedulingClass& cls) const;
  // The actor's process; 0: it has none now.
  std::uint32_t pid_of_actor(std::uint32_t cls) const;

 private:
  wire::Message ask(wire::Kind kind, std::uint32_t a = 0, std::uint64_t c = 0);

  std::string folder_;
  int socket_ = -1;
  std::string node_;
  std::map<std::string, double> counts_;
  std::map<std::uint64_t, std::string> functions_;
  shm::Memory memory_;
};

// All sessions of this user, or those that `job` names: an id, the beginning of one, or the
// driver's process. One that ends just now is left out. Throws NotFound when `job` names none.
std::vector<std::unique_ptr<SessionReader>> read_sessions(const std::string& job = {});

std::string task_id(const shm::Record& record);  // or of a call; 32 digits
// "waiting", "ready", "running", "finished", "failed", "cancelled".
const char* task_state(std::uint64_t state);
std::string group_id(const shm::SchedulingClass& cls);
// "pending", "created", "ending": removed, and not all of its processes are gone.
const char* group_state(const shm::SchedulingClass& cls);
// "pending", "alive", "restarting", "dead".
const char* actor_state(const SessionReader& session, std::uint32_t cls);

}  // namespace mobula::cli
