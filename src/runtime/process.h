// What a process of a session has: its view of the shared memory, its line to the daemon, its refs
// and its store.
//
// There is at most one at a time, since the public API is free functions. Threads find their ledger
// through it.
#pragma once

#include <sys/single_threaded.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mobula/error.h"
#include "mobula/options.h"
#include "runtime/pending_calls.h"
#include "runtime/store.h"
#include "shm/holds.h"
#include "shm/memory.h"
#include "wire/local_protocol.h"

namespace mobula::runtime {

class Callbacks;
class Ledger;
class LocalMode;

// The line to the node's daemon: questions and answers, one at a time.
class Connection {
 public:
  Connection(int socket, int bell) : socket_(socket), bell_(bell) {}
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends `message` and replaces it by the answer. Throws NodeDiedError when the daemon is gone.
  void ask(wire::Message& message);
  // The same, and throws what a status other than Ok stands for.
  void demand(wire::Message& message);
  void tell(const wire::Message& message);
  bool alive();
  // Wakes the daemon if it sleeps; cheap when it does not.
  void ring(shm::ControlHeader& header);
  int socket() const { return socket_; }
  int bell() const { return bell_; }

 private:
  int socket_;
  int bell_;
  std::mutex mutex_;
};

// Throws what a status other than Ok stands for.
[[noreturn]] void throw_status(const wire::Message& message);

// How many refs this process has to each record: an array over all slots, of which only touched
// pages exist. No other process sees it, so a process of one thread changes it without locked
// instructions.
class RefCounts {
 public:
  static constexpr std::uint32_t kQueued =
      1u << 31;  // the slot lies in a queue of its ledger; see ledger.h

  RefCounts();
  ~RefCounts();
  RefCounts(const RefCounts&) = delete;
  RefCounts& operator=(const RefCounts&) = delete;
  std::atomic<std::uint32_t>& operator[](std::uint32_t slot) { return counts_[slot]; }
  std::uint32_t refs(std::uint32_t slot) const {
    return counts_[slot].load(std::memory_order_acquire) & ~kQueued;
  }
  // One ref more, or less; the word as it was. acq_rel: what other threads did with the value comes
  // before its recycling.
  std::uint32_t add(std::uint32_t slot) { return change(slot, 1); }
  std::uint32_t subtract(std::uint32_t slot) { return change(slot, ~std::uint32_t{0}); }

 private:
  std::uint32_t change(std::uint32_t slot, std::uint32_t by) {
    std::atomic<std::uint32_t>& word = counts_[slot];
    if (!__libc_single_threaded) return word.fetch_add(by, std::memory_order_acq_rel);
    const std::uint32_t before = word.load(std::memory_order_relaxed);
    word.store(before + by, std::memory_order_relaxed);
    return before;
  }

  std::atomic<std::uint32_t>* counts_;
};

// The process's holds on records of other processes' ledgers, as listed in its hold table
// (shm/holds.h).
class HoldTable {
 public:
  // A line for a hold that is about to be taken. `container`: for which record's result, or none.
  std::uint32_t take_line(class Process& process, shm::Address container);
  void clear_line(class Process& process, std::uint32_t line);
  shm::HoldEntry& line(const shm::Memory& memory, const shm::Process& shared,
                       std::uint32_t i) const;

  // First and last ref of this process to a foreign record; under the mutex.
  void acquire(class Process& process, Ledger& me, shm::Address record);
  void release(class Process& process, Ledger& me, std::uint32_t slot);
  // The line has a hold already, of which this process knows nothing yet: it becomes that of one
  // ref more. Under the mutex.
  void adopt(class Process& process, Ledger& me, shm::Address record, std::uint32_t line);

  std::mutex
      mutex;  // guards everything here, and the 0 <-> 1 transitions of counts of foreign records

 private:
  friend class Process;
  struct Held {
    std::uint32_t line;
    shm::Address record;
  };
  void give_up(class Process& process, Ledger& me, Held held);

  std::unordered_map<std::uint32_t, Held> held_;  // by slot
  std::vector<std::uint32_t> free_lines_;
  std::uint32_t lines_ = 0;  // ever used
};

constexpr std::size_t kTypeNameShown = 90;  // of an actor's class, in messages and tools

class Process {
 public:
  // Takes the sockets over. `welcome` is the daemon's first message, with the descriptors of the
  // memories; `mapped`: a forked worker finds them mapped by its zygote.
  Process(int socket, const wire::Message& welcome, shm::ProcessRole role,
          std::unique_ptr<shm::Memory> mapped);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  shm::Memory& memory() { return *memory_; }
  Connection& daemon() { return daemon_; }
  RefCounts& counts() { return counts_; }
  HoldTable& holds() { return holds_; }
  Store& store() { return store_; }
  Callbacks& callbacks() { return *callbacks_; }
  // Drops what has not run, and waits for the one that runs. Nothing may use them afterwards.
  void end_callbacks();
  std::uint32_t index() const { return index_; }
  shm::ProcessRole role() const { return role_; }
  std::uint64_t session() const { return session_; }
  // What runs tasks and actors here, in the calling thread; nullptr: workers do.
  LocalMode* local() { return local_.get(); }
  void run_locally(bool in_threads);
  // The driver ends its session itself; whatever else ends it is news to the driver.
  void leave() { leaves_.store(true, std::memory_order_relaxed); }
  bool must_know_of_end() const {
    return role_ == shm::ProcessRole::Driver && !leaves_.load(std::memory_order_relaxed);
  }
  shm::Process& shared() { return memory_->process(index_); }

  // The calling thread's ledger, leased from the daemon at its first use.
  Ledger& this_ledger();
  // The ledger of this process that owns the slot; nullptr: a foreign record.
  Ledger* ledger_of(std::uint32_t slot) const {
    return owners_[slot / shm::kRecordsPerSegment].load(std::memory_order_acquire);
  }
  void own_segment(std::uint32_t segment, Ledger* ledger) {
    owners_[segment].store(ledger, std::memory_order_release);
  }
  void return_ledger(Ledger* ledger);
  // Recycles what this thread's ledger, and those of threads that have ended, do not need any more.
  // Called by who waits.
  void tidy();

  // An empty stream, leased from the daemon unless one was given back.
  std::uint32_t take_stream();
  void give_stream(std::uint32_t stream);

  // The scheduling class of a demand. Throws UnschedulableError, or Error for a demand that makes
  // no sense.
  std::uint32_t class_of(const TaskOptions* options);
  // "id bundle" of the placement group that it names, or nothing. Throws like class_of.
  std::string placement_of(const Scheduling& scheduling) const;
  // The runtime_env that this process was started in, and passes on (environment.h).
  void set_environment(std::string text) { environment_ = std::move(text); }
  // `detached`: the number of the actor that it stands for, or 0.
  std::uint32_t open_actor_class(const ActorOptions& options, std::string_view type,
                                 shm::Address creation, std::uint64_t detached);

  // Asks the daemon for a hold on the record that its answer names in `c`, and counts one ref to
  // that. Nothing: it is to be asked again a little later. Throws what a refusal stands for.
  shm::Address take_hold(wire::Message& message);
  PendingCalls& pending_calls() { return pending_calls_; }

 private:
  std::string environment_of(const RuntimeEnv* given, const char* option) const;
  void open_class(wire::Message& message, const std::string& text);

  std::unique_ptr<shm::Memory> memory_;
  Connection daemon_;
  RefCounts counts_;
  HoldTable holds_;
  std::uint32_t index_;
  shm::ProcessRole role_;
  std::uint64_t session_;
  std::atomic<bool> leaves_{false};
  Store store_;
  std::unique_ptr<LocalMode> local_;

  std::unique_ptr<Callbacks> callbacks_;
  PendingCalls pending_calls_;

  std::mutex ledgers_mutex_;
  std::vector<std::unique_ptr<Ledger>> ledgers_;
  std::vector<Ledger*> idle_ledgers_;  // of threads that have ended
  std::unique_ptr<std::atomic<Ledger*>[]> owners_;

  std::mutex streams_mutex_;
  std::vector<std::uint32_t> idle_streams_;

  std::string environment_;
  std::mutex classes_mutex_;
  std::map<std::string, std::uint32_t> classes_;  // by demand, environment and priority
  std::atomic<std::uint32_t> default_class_{shm::kNone};
};

// This thread's ledger was given back; only its last thread_local objects still run.
bool thread_has_ended();

// "CPU=1\nGPU=0.5\n": how a demand travels to the daemon. Throws Error for names and amounts that
// make no sense.
std::string demand_text(std::optional<double> cpus, double default_cpus, std::optional<double> gpus,
                        std::optional<double> memory,
                        const std::map<std::string, double>& resources);

// The running session's process; nullptr: none.
Process* current_process();
void set_current_process(Process* process);
// Throws Error when there is no session.
Process& require_process();

std::uint64_t now_ns();  // monotonic

}  // namespace mobula::runtime
