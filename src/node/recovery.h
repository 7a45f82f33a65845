// Repairs what a dead process left half done in shared memory, from the intents it wrote before
// each step.
//
// Order matters: first its hold table is settled, while the records it had claimed still say so;
// then those are run again or fail; then waiters and sleepers whose waker may have died are woken;
// last, memory that nothing names is taken back. Its ledgers stay, kept by the daemon, until
// nothing needs them any more: what it had submitted goes on.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "node/object_memory.h"
#include "node/tables.h"
#include "shm/dependents.h"
#include "shm/memory.h"
#include "shm/stream.h"

namespace mobula::node {

// What happened to the process, as waitpid tells it.
struct ProcessEnd {
  std::uint32_t pid = 0;
  int signal = 0;
  int exit_code = 0;
  shm::DeathCause cause{};  // Crashed, or OutOfMemory
};

class Recovery final : public shm::ReadySink {
 public:
  Recovery(shm::Memory& memory, Tables& tables, ObjectMemory& objects,
           std::uint32_t daemon_participant);

  // The daemon's ring of a class, through which it publishes records that it repairs.
  void open_class_ring(std::uint32_t cls);

  // How a claimed actor call of a dead process goes on.
  struct ActorFate {
    bool restarts;
    int max_task_retries;
    std::uint32_t cls = shm::kNone;
  };
  // `actor`: set when the process was an actor's.
  void repair(std::uint32_t process, const ProcessEnd& end, const ActorFate* actor);

  // Frees the ledgers of dead processes that nothing needs any more. True: some are left.
  bool settle_orphans();

  // The segments of records that the actor's dead processes have left, the oldest first.
  std::vector<std::uint32_t> past_segments(std::uint32_t actor) const;

  // Fails everything in the rings of an actor that does not come back, and its creation.
  void fail_calls(std::uint32_t cls);

  // Fails all tasks of these classes that nobody has claimed: their placement group was removed.
  // The classes are Dead already, so that no further one is left to itself.
  void fail_tasks(const std::vector<std::uint32_t>& classes);

  // The creation of an actor whose creator died before it submitted it: true, and the slot's next
  // tenant has another address than the one that the actor's class names.
  bool withdraw_creation(shm::Address creation, std::uint32_t dead_process);

  // Running tasks that were cancelled by force and whose process nobody may have ended: since the
  // canceller died, or since a task that died so had submitted them.
  std::vector<shm::Address> take_condemned() { return std::exchange(condemned_, {}); }

  // Gives a process, which may have none yet, a hold on a record, written into this line of its
  // hold table. False: there is no such line, or the record is an actor's creation and nobody has a
  // handle to it any more, as `kill_request` or the record says.
  bool give_hold(std::uint32_t process, std::uint32_t line, shm::Address record,
                 const std::atomic<std::uint64_t>* kill_request);
  // Cancels a task that has not ended by its deadline.
  void expire(shm::Address task);

  // Fails a call that can never run; `number` is that of the note that says why.
  void fail_deadlocked(shm::Address call, std::uint64_t number);

  // Tasks and calls that it has failed, for another reason than a cancel.
  std::uint64_t failed() const { return failed_; }

  void publish(shm::Record& record, shm::Address address) override;

 private:
  shm::HoldEntry* hold_line(std::uint32_t process, std::uint32_t line);
  void resolve_hold(std::uint32_t process, std::uint32_t participant);
  void settle_transfers(std::uint32_t process, bool all);
  void repair_open_calls(std::uint32_t process, const ProcessEnd& end, const ActorFate* actor);
  void push(shm::Record& record, shm::Address address);
  std::vector<shm::Address> take_repeated(std::uint32_t actor);
  bool published(shm::Address container) const;
  bool is_of_dead_class(const shm::Record& record) const;
  void repair_streams(std::uint32_t process);
  void drop_item(shm::StreamSlot& slot);
  void repair_claims(std::uint32_t participant, const ProcessEnd& end, const ActorFate* actor);
  void repair_claim(std::uint32_t participant, shm::Address address, const ProcessEnd& end,
                    const ActorFate* actor);
  // Unless it is final or somebody who lives has claimed it. `dead`: the participant whose claim
  // does not count.
  void fail(shm::Record& record, shm::Address address, const shm::CompactError& error,
            std::uint32_t dead = shm::kNone);
  // Carries on what a cancel had asked of a dead process's task: its children.
  void cancel_children(std::uint32_t process, shm::Record& record);
  void release_hold(shm::Address record);
  void republish_ready(std::uint32_t process);
  std::unordered_set<std::uint64_t> calls_in_rings(std::uint32_t process);
  void wake_everybody();
  struct Orphan {
    std::uint32_t process;
    std::uint32_t blocker = 0;  // a slot that kept it from being freed; 0: not looked yet
    std::uint32_t looks = 0;  // at the blocker alone
    std::uint32_t holding = 0;  // a slot that kept its holds from being released
    bool holds_released = false;
    // An actor's: its class, and the number up to which its journal told of calls then. What those
    // had submitted may be looked for when they are run again.
    std::uint32_t actor = shm::kNone;
    std::uint64_t journaled = 0;
  };
  bool kept_for_actor(const Orphan& orphan, shm::Record& record, std::uint32_t slot);
  bool needs_holds(const Orphan& orphan, shm::Record& record, std::uint32_t slot);
  bool try_free(Orphan& orphan);
  void stop_unread(const Orphan& orphan);
  bool free_settled(Orphan& orphan);
  template <class Visit>
  void each_owned_ref(shm::Record& record, const Visit& visit);
  bool settled(shm::Record& record);
  void abandon(shm::Record& record, std::uint32_t slot);
  void drop_contents(shm::Record& record, shm::Address address);
  template <class Visit>
  void each_record(std::uint32_t process, const Visit& visit);

  shm::Memory& memory_;
  Tables& tables_;
  ObjectMemory& objects_;
  const std::uint32_t me_;
  std::vector<shm::Address> condemned_;
  std::uint64_t failed_ = 0;
  std::vector<Orphan> orphans_;  // dead processes whose ledgers stand
};

}  // namespace mobula::node
