// Decides when an actor's state is saved, and brings it back in the actor's next process.
//
// Restoring: the newest good checkpoint is loaded into an object that was constructed anew, then
// the calls of the journal are run again from there on, in their order. One that was final already
// has its result: what it returns or throws this time is dropped. One that the crash interrupted is
// run to its end in its place. If no checkpoint is good, all is run again from the constructor,
// as long as the journal reaches back to it; otherwise the state is lost, and the actor says so
// rather than to go on with another one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "runtime/checkpoint.h"
#include "runtime/journal.h"

namespace mobula::runtime {

struct StateLost {
  std::string why;
};

class ActorState {
 public:
  ActorState(Ledger& ledger, std::uint32_t actor_class, const detail::StateCodec& codec);
  ~ActorState();
  ActorState(const ActorState&) = delete;
  ActorState& operator=(const ActorState&) = delete;

  // Is there anything to do for this actor at all?
  static bool wanted(const shm::LastingState& shared);

  // `construct` makes a new object in place of the present one. Throws StateLost.
  void restore(const std::function<void()>& construct);
  // After each call.
  void call_ended(shm::Record& call);
  void ask() { asked_ = true; }

 private:
  bool load(const Checkpoints::Good& good, std::string& problems);
  void replay(std::uint64_t from);
  void run_again(std::uint64_t number);
  bool due() const;
  void save();

  Ledger& ledger_;
  shm::LastingState& shared_;
  const detail::StateCodec& codec_;
  Checkpoints checkpoints_;
  std::optional<Journal> journal_;
  const std::uint64_t every_;  // 0: not told
  std::uint64_t since_ = 0;  // calls, since the last checkpoint
  std::uint64_t not_before_ = 0;  // so many, after one that failed
  std::uint64_t saved_at_;  // the last one, in ns
  std::uint64_t save_took_ = 0;
  bool asked_ = false;
};

// The state of this process's actor, once there is something to save.
inline std::unique_ptr<ActorState> actor_state;

}  // namespace mobula::runtime
