// Runs everything in the thread that calls, so that a debugger sees one program
// (Config.local_mode).
//
// A task runs where it is submitted, before remote() returns; one that waits for an argument, when
// the last one is there. An actor is an object of this process; its calls run where they are made,
// unless it is at work already, further up the stack or in another thread: then when it is done
// with that. So the order is the same each time, as long as one thread submits.
//
// Records, refs and values are as ever. Only the rings of tasks are not used: who makes a record
// ready runs it, and what the end of a task makes ready runs after it, by the same frame of the
// stack, so that a chain of tasks is a loop.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "runtime/ledger.h"

namespace mobula::runtime {

class LocalMode {
 public:
  explicit LocalMode(Process& process) : process_(process) {}
  ~LocalMode();
  LocalMode(const LocalMode&) = delete;
  LocalMode& operator=(const LocalMode&) = delete;

  // A task was submitted and may run.
  void run(Ledger& me, shm::Address task);
  // A call lies in its ring.
  void serve(Ledger& me, std::uint32_t actor_class);
  // What a record waited for is there, or it may be tried again.
  void made_ready(Ledger& me, shm::Record& record, shm::Address address);

  // This thread is about to wait for the record. What can run does. `for_ever`: if the record then
  // still waits, round some corners, for a call of an actor that is at work further up this stack,
  // that call fails with ActorDeadlockError.
  void before_wait(Ledger& me, shm::Address address, bool for_ever);

  // No handle names the actor any more; it was killed.
  void last_handle_gone(shm::Address creation, std::uint32_t actor_class);
  void killed(shm::Address creation) { end_if_over(creation); }
  // Ends all actors: the session is over.
  void end_actors();

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

  void settle(Ledger& me, Level& level);
  bool execute(Ledger& me, shm::Address address);
  void run_calls(Ledger& me, std::uint32_t actor_class);
  void run_calls_of(Ledger& me, Actor& actor, shm::Address creation);
  void end_if_over(shm::Address creation);
  bool has_calls(const shm::SchedulingClass& cls) const;
  bool fail_call_in_circle(Ledger& me, shm::Address waited_for);

  Process& process_;
  std::mutex mutex_;
  std::map<std::uint64_t, Actor> actors_;  // by address of their creation

  static thread_local Level* innermost_;
  static thread_local Actor* at_work_;
};

}  // namespace mobula::runtime
