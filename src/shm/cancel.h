// How a task is cancelled: one compare-and-swap on its state word, by anybody who holds its record.
//
// Not claimed yet (Waiting or Ready): the swap makes it Failed with kCancelled, and it never runs.
// Rings may go on naming it; takers skip what is not Ready. Its open edges stay until their targets
// are walked, and keep its slot.
//
// Claimed: the swap sets kCancelled. From then on neither Done nor Ready is possible, since those
// are swaps that look for the bit (claim::complete_unless_cancelled, retries, repairs); the
// claimer, or the daemon for a dead one, ends it as Failed. So what `cancel` answers stays true:
//
//   TooLate   it was final; its result stands
//   Never     it is Failed and cancelled; it does not run (any more)
//   Asked     it is running, and however that ends, it will be Failed and cancelled
#pragma once

#include "shm/claim.h"

namespace mobula::shm::cancellation {

enum class Answer { TooLate, Never, Asked };

// `how`: kCancelChildren, kForce, kLate. The intent must stand (claim::intend), and until the
// caller has done what follows from Asked.
inline Answer cancel(const Memory& memory, Participant& me, std::uint32_t participant,
                     Record& record, Address address, std::uint64_t how, ReadySink& sink) {
  const std::uint32_t ledger = claim::ledger_of(memory, address);
  const bool is_call = record.kind == Kind::ActorCall;
  std::uint64_t seen = record.state.load(std::memory_order_acquire);
  for (;;) {
    if (word::generation(seen) != address.generation || word::state(seen) == State::Free)
      return Answer::TooLate;
    if (word::is_final(seen)) return seen & word::kCancelled ? Answer::Never : Answer::TooLate;
    const bool runs = word::state(seen) == State::Claimed;
    const std::uint64_t wanted =
        word::kCancelled |
        (runs ? seen | how
              : word::with_claimer(word::with_state(seen, State::Failed), participant) |
                    (how & word::kLate));
    // acq_rel, as the end of a task: acquire for the list of dependents whose flag is seen
    if (!record.state.compare_exchange_weak(seen, wanted, std::memory_order_acq_rel,
                                            std::memory_order_acquire))
      continue;
    crash_point(runs ? CrashPoint::CancelAsked : CrashPoint::CancelDone);
    if (runs) return Answer::Asked;
    claim::announce_end(memory, me, record, address, seen, ledger, sink);
    // One that waited for an argument held back the calls behind it.
    if (is_call) sink.publish(record, address);
    return Answer::Never;
  }
}

}  // namespace mobula::shm::cancellation
