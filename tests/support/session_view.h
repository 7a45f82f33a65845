// What a session's shared memory holds at this moment, as the driver's own mapping shows it: for
// leak checks, for tests that signal workers, and for whoever looks at a hang.
//
// Everything is read while others write, so numbers are exact only in a session at rest, and a
// dump shows what was seen, not one moment.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "runtime/process.h"
#include "runtime/registry.h"
#include "shm/claim.h"
#include "shm/holds.h"
#include "shm/memory.h"
#include "support/processes.h"

namespace mobula::test {

class SessionView {
 public:
  SessionView() : memory_(runtime::require_process().memory()) {}

  struct InUse {
    std::uint64_t records = 0;
    std::uint64_t blocks = 0;
    std::uint64_t block_bytes = 0;
    bool nothing() const { return records == 0 && blocks == 0; }
    std::string text() const {
      return std::to_string(records) + " records, " + std::to_string(blocks) + " blocks of " +
             std::to_string(block_bytes) + " bytes in use";
    }
  };
  InUse in_use() const {
    InUse all;
    each_record([&](std::uint32_t, const shm::Record&, std::uint64_t) { ++all.records; });
    for (std::uint32_t i = 0; i < shm::kExtentsMax; ++i) {
      shm::Extent& extent = memory_.extent(i);
      if (extent.size == 0) break;  // never used, nor any after it
      if (!extent.in_use.load()) continue;
      for (std::uint32_t b = 0; b < extent.blocks; ++b) {
        if (!(memory_.block_word(extent, b).load() & shm::block::kUsed)) continue;
        ++all.blocks;
        all.block_bytes += extent.block_size;
      }
    }
    return all;
  }

  // Processes that run tasks, or calls of actors.
  std::vector<pid_t> processes_of(shm::ProcessRole role) const {
    std::vector<pid_t> pids;
    for (std::uint32_t i = 0; i < shm::kProcessesMax && known(i); ++i) {
      const shm::Process& process = memory_.process(i);
      if (process.role.load() == static_cast<std::uint32_t>(role) && process.pid != 0)
        pids.push_back(static_cast<pid_t>(process.pid));
    }
    return pids;
  }

  pid_t node() const { return static_cast<pid_t>(memory_.header().daemon_pid); }
  // The process from which workers are forked; 0: none at this moment.
  pid_t zygote() const {
    const std::string node_pid = std::to_string(node());
    std::ifstream children("/proc/" + node_pid + "/task/" + node_pid + "/children");
    pid_t first = 0;
    children >> first;
    return first;
  }

  // Signals a worker, an actor or the zygote, and nobody who got its number since. False: it is not
  // there any more.
  bool signal(pid_t pid, int signal, pid_t parent) const {
    const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    if (fd < 0) return false;
    pid_t seen = 0;
    const char state = detail::state_of(pid, &seen);
    const bool ours = state != 0 && state != 'Z' && state != 'X' && seen == parent;
    const bool sent = ours && ::syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0) == 0;
    ::close(fd);
    return sent;
  }

  static char letter_of(std::uint32_t pid) {
    const char state = detail::state_of(static_cast<pid_t>(pid), nullptr);
    return state ? state : '-';
  }

  // Who waits for what: records that are not recycled, processes, classes.
  std::string dump(std::size_t records_max = 100) const {
    std::string text = in_use().text() + "\n";
    dump_records(text, records_max, /*final=*/false);
    dump_records(text, records_max / 2, /*final=*/true);
    for (std::uint32_t i = 0; i < shm::kProcessesMax && known(i); ++i) {
      const shm::Process& process = memory_.process(i);
      if (process.role.load() == 0) continue;
      char line[256];
      std::snprintf(line, sizeof line,
                    "  process %u pid %u role %u (state %c) class %d works for %d sleeping %u "
                    "blocked %u tasks %llu\n",
                    i, process.pid, process.role.load(), letter_of(process.pid),
                    static_cast<int>(process.assigned_class.load()),
                    static_cast<int>(process.works_for.load()), process.sleeping.load(),
                    process.blocked_threads.load(),
                    static_cast<unsigned long long>(process.tasks_done.load()));
      text += line;
    }
    for (std::uint32_t p = 1; p < shm::kParticipantsMax; ++p) {
      const shm::Participant& participant = memory_.participant(p);
      if (participant.state.load() != static_cast<std::uint32_t>(shm::ParticipantState::Live) ||
          participant.wait.reason.load() == 0)
        continue;
      const shm::Address first = shm::Address::unpack(participant.wait.record[0].load());
      char line[160];
      std::snprintf(line, sizeof line,
                    "  participant %u of process %u waits (%u) for %u of %u, first %u.%u\n", p,
                    participant.process.load(), participant.wait.reason.load(),
                    participant.wait.needed.load(), participant.wait.count.load(), first.slot,
                    first.generation);
      text += line;
    }
    for (std::uint32_t c = 0; c < shm::kClassesMax; ++c) {
      shm::SchedulingClass& cls = memory_.scheduling_class(c);
      if (cls.rings.load() == 0) break;
      if (cls.state.load() == static_cast<std::uint32_t>(shm::ClassState::Free)) continue;
      std::uint64_t depth = 0;
      for (std::uint64_t at = cls.rings.load(); at != 0;) {
        auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
        depth += ring.depth();
        at = ring.next.load();
      }
      char line[256];
      std::snprintf(line, sizeof line,
                    "  class %u kind %u state %u attached %u depth %llu sleepers %llx searcher %u "
                    "quick %u attention %u kill %llx creation %u %s\n",
                    c, cls.kind.load(), cls.state.load(), cls.attached.load(),
                    static_cast<unsigned long long>(depth),
                    static_cast<unsigned long long>(cls.sleepers[0].load()), cls.searcher.load(),
                    cls.quick.load(), cls.attention.load(),
                    static_cast<unsigned long long>(cls.kill_request.load()),
                    static_cast<std::uint32_t>(cls.creation.load()), cls.name);
      text += line;
    }
    return text;
  }

 private:
  void dump_records(std::string& text, std::size_t most, bool final) const {
    std::size_t shown = 0;
    each_record([&](std::uint32_t slot, const shm::Record& record, std::uint64_t state) {
      if (shm::word::is_final(state) != final || ++shown > most) return;
      static constexpr const char* kStates[] = {"free",    "waiting", "ready",
                                                "claimed", "done",    "failed"};
      static constexpr const char* kKinds[] = {"task", "creation", "call",
                                               "put",  "join",     "monitor"};
      const auto* function = runtime::find_function(record.function);
      char line[512];
      std::snprintf(
          line, sizeof line,
          "  record %u.%u %s %s%s%s owner %u claimer %u attempt %u class %u retries %d holds %llu "
          "join %x flags %x deps %u %.80s\n",
          slot, shm::word::generation(state), kKinds[static_cast<int>(record.kind)],
          kStates[static_cast<int>(shm::word::state(state))],
          (state & shm::word::kHasDependents) ? " +dependents" : "",
          (state & shm::word::kWaiters) ? " +waiter" : "",
          memory_.segment_owner(slot / shm::kRecordsPerSegment).load(), shm::word::claimer(state),
          shm::word::attempt(state), record.scheduling_class, record.retries,
          static_cast<unsigned long long>(shm::holds::count(record.refs.load())),
          static_cast<unsigned>(record.join.load()), record.flags, record.dependencies,
          function && record.kind != shm::Kind::Put && record.kind != shm::Kind::Join
              ? std::string(function->name).c_str()
              : "");
      text += line;
    });
  }

  template <class Visit>
  void each_record(const Visit& visit) const {
    for (std::uint32_t s = 0; s < shm::kSegmentsMax; ++s) {
      const std::uint32_t owner = memory_.segment_owner(s).load();
      if (owner == 0) break;  // participant 0 is nobody: never leased, nor any after it
      if (owner == shm::kNone) continue;
      for (std::uint32_t r = 0; r < shm::kRecordsPerSegment; ++r) {
        const std::uint32_t slot = s * shm::kRecordsPerSegment + r;
        const shm::Record& record = memory_.record(slot);
        const std::uint64_t state = record.state.load();
        if (shm::word::state(state) != shm::State::Free) visit(slot, record, state);
      }
    }
  }
  // Entries are taken in order: one that was never used ends the table.
  bool known(std::uint32_t i) const {
    const shm::Process& process = memory_.process(i);
    return process.role.load() != 0 || process.pid != 0 || process.works_for.load() != 0;
  }

  shm::Memory& memory_;
};

}  // namespace mobula::test
