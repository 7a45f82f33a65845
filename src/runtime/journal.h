// An actor's journal as its process sees it: calls as they are taken, what they submit, and, in the
// actor's next process, what they had submitted (shm/journal.h has the words in shared memory).
//
// A call that is run again must not submit again. A child has an identity, its parent's hash and
// its number among the children, which is the same again; so a submission first looks whether the
// first execution made it. What is needed for that is a record, which must still be there though
// nobody may have a Ref to it: as long as the call is not covered, its children are held by a count
// of their process, and after that one's death the daemon keeps what is in its ledgers.
//
// What a wait came to may have been chance: a timeout that was over, a cancel, or which of several
// refs were there first. Run again, the call finds all of them there. So an outcome that it would
// not have by itself then is noted, as one more value that the call has put. The actor's process
// names it as a child and then publishes it (`journal.noted`): a crash between the two leaves a
// Free record, which is nobody's child, and the call's next run waits anew.
//
// Calls of other actors keep their order across the crash: those that the dead process made lie in
// its rings, so the first one of this process waits for those that nobody has taken yet.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "mobula/ref.h"
#include "runtime/execution.h"
#include "runtime/ledger.h"
#include "shm/journal.h"

namespace mobula::runtime {

// How a get or wait ended, if not with what is there.
struct WaitOutcome {
  bool stopped = false;  // the call was cancelled, or its time was over
  std::vector<std::size_t> ready = {};  // of wait; of get: none, it timed out
};

class Journal {
 public:
  Journal(Ledger& ledger, std::uint32_t actor_class);

  // Writes the claimed call down and returns its number. Throws Error if that cannot be; then it
  // must not run.
  std::uint64_t take(shm::Record& call, shm::Address address);
  // A call is final: what of it is kept counts, too.
  void ended(shm::Record& call);
  // A call that is being run, for the first time or again, has submitted or put something.
  void submitted(shm::Address child);
  // At each get and wait of a call in the journal: how it ended when the call was run before, if
  // that was noted; then for note_wait, which is about the same one.
  std::optional<WaitOutcome> wait_before(Frame& frame);
  void note_wait(const WaitOutcome& outcome);
  // Calls below `number` are never run again.
  void cover(std::uint64_t number);

  // Bytes of the store and records that only the journal keeps, of calls since the last forget().
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t children() const { return children_since_; }
  void forget_amounts() { bytes_ = children_since_ = 0; }

  std::uint64_t taken() const { return shared_.taken.load(std::memory_order_relaxed); }

  // ---- After a restart.

  // Reads what the calls had submitted from the ledgers of the actor's dead processes.
  void find_children();
  void forget_children() { earlier_.clear(); }
  // What this process's first call of an actor must wait for.
  std::vector<Ref<void>> calls_before(std::uint32_t actor_class);
  // The call with this number, about to be run (again); no address: the journal is damaged.
  shm::Address call_at(std::uint64_t number);
  void set_running(std::uint64_t number);
  // What the running call submitted as its next child when it was run before; counted as a ref of
  // this process. If it was something else the process ends with kExitStateLost: the method is not
  // deterministic, and its state would be another one. `perhaps`: it may have submitted nothing.
  std::optional<RefAddress> submitted_before(Frame& frame, shm::Kind kind, std::uint64_t function,
                                             bool perhaps);

 private:
  void lease_chunk(std::uint64_t number);

  Ledger& ledger_;
  shm::Memory& memory_;
  const std::uint32_t class_;
  shm::LastingState& shared_;
  std::uint64_t running_ = 0;
  std::uint64_t waits_ = 0;  // gets and waits of the running call
  struct Child {
    std::uint64_t call;
    shm::Address record;
  };
  std::deque<Child> children_;  // of uncovered calls, in the order of the calls
  std::uint64_t children_since_ = 0;
  std::uint64_t bytes_ = 0;

  struct Identity {
    std::uint64_t parent, index;
    friend bool operator==(const Identity&, const Identity&) = default;
  };
  struct HashIdentity {
    std::size_t operator()(const Identity& id) const {
      return shm::task_identity(id.parent, id.index);
    }
  };
  std::unordered_map<Identity, shm::Address, HashIdentity> earlier_;  // empty unless calls repeat
  // Not taken yet when this process looked; by the actor they are for.
  std::unordered_map<std::uint32_t, std::vector<Ref<void>>> pending_;
};

// The process's journal; nullptr in all but actors with Recovery::Replay.
inline Journal* journal = nullptr;
// It runs calls of an earlier process again.
inline bool replaying = false;
// And the one that this thread runs was complete: it has been counted in metrics, and its log is
// written.
inline thread_local bool repeating = false;

// The call that this thread runs, if a journal tells of it.
Frame* journaled_frame();

// Throws Error in calls that a journal tells of: what they may not do.
void refuse_in_replay(const char* what);

}  // namespace mobula::runtime
