// Runs everything in the thread that calls, so that a debugger sees one program
// (Config.local_mode).
//
// A task runs where it is submitted, before remote() returns; one that waits for an argument, when
// the last one is there. An actor is an object of this process; its calls run where they are made,
// unless it is at work already, further up the stack or in another thread: then when it is done
// with that. So the order is the same each time, as long as one thread submits.
//
// Who fills a stream waits for its reader: such a task, and the actor of such a call for as long as
// it has calls, run in a thread beside. With Config.local_threads all tasks do.
//
// Records, refs and values are as ever. Only the rings of tasks are not used: who makes a record
// ready runs it, and what the end of a task makes ready runs after it, by the same frame of the
// stack, so that a chain of tasks is a loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/environment.h"
#include "runtime/ledger.h"

namespace mobula::runtime {

class LocalMode {
 public:
  LocalMode(Process& process, bool in_threads) : process_(process), in_threads_(in_threads) {}
  ~LocalMode();
  LocalMode(const LocalMode&) = delete;
  LocalMode& operator=(const LocalMode&) = delete;

  // A task was submitted and may run.
  void run(Ledger& me, shm::Address task);
  // A call lies in its ring.
  void serve(Ledger& me, std::uint32_t actor_class);
  // A callback may run: after what this thread runs. False: it runs nothing, and the library's own
  // thread is to do it.
  bool run_after(shm::Address callback);
  // What a record waited for is there, or it may be tried again.
  void made_ready(Ledger& me, shm::Record& record, shm::Address address);

  // This thread is about to wait for the record. What can run does. `for_ever`: if the record then
  // still waits, round some corners, for a call of an actor that is at work further up this stack,
  // that call fails with ActorDeadlockError.
  void before_wait(Ledger& me, shm::Address address, bool for_ever);

  // No handle names the actor any more; it was killed.
  void last_handle_gone(shm::Address creation, std::uint32_t actor_class);
  void killed(shm::Address creation) { end_if_over(creation); }
  // Tasks, or an actor, of that class are to find this around them (runtime/environment.h).
  void has_environment(std::uint32_t scheduling_class, const std::string& text);
  // Of the task or call that runs in this thread.
  static const std::string& environment();

  // The session is over: ends what runs beside, then all actors.
  void end();

  // Of the actor whose call or constructor runs in this thread.
  static void* instance();
  static void set_instance(void* instance, void (*destroy)(void*));

 private:
  struct Actor {
    std::uint32_t scheduling_class = shm::kNone;
    void* instance = nullptr;
    void (*destroy)(void*) = nullptr;
    Ledger* at_work = nullptr;  // of the thread that runs it
    bool asked = false;  // by another one, meanwhile
    bool no_handle = false;
  };
  class Level;
  class Visit;

  struct Beside {
    std::thread thread;
    std::atomic<bool> done{false};
  };

  void settle(Ledger& me, Level& level);
  void run_next(Ledger& me, shm::Address address);
  bool execute(Ledger& me, shm::Address address);
  void run_beside(std::function<void(Ledger&)> work);
  void end_beside();
  // `streams_too`: in a thread of their own; else one is started for them.
  void run_calls(Ledger& me, std::uint32_t actor_class, bool streams_too = false);
  bool run_calls_of(Ledger& me, Actor& actor, shm::Address creation, bool streams_too);
  bool begins_with_stream(const shm::RingHeader& ring) const;
  void end_if_over(shm::Address creation);
  bool has_calls(const shm::SchedulingClass& cls) const;
  bool fail_call_in_circle(Ledger& me, shm::Address waited_for);

  Process& process_;
  const bool in_threads_;
  std::mutex mutex_;
  std::map<std::uint64_t, Actor> actors_;  // by address of their creation
  std::list<Beside> beside_;

  std::map<std::uint32_t, std::string> environments_;  // by class
  std::atomic<bool> uses_environments_{false};
  EnvironmentVisits visits_;

  static thread_local Visit* visit_;
  static thread_local Level* innermost_;
  static thread_local Actor* at_work_;
};

}  // namespace mobula::runtime
