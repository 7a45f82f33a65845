// Who waits for whom: edges between records, followed by whoever completes the last argument.
//
// A waiting record keeps its edges in itself; the edges of one target form a list that starts in
// the target. The list is pushed to until the target is final, then closed and walked once. An edge
// is ticked off by clearing its bit in the dependent's join word, which carries the dependent's
// generation; the one that clears the last bit makes the dependent Ready.
//
//   target.dependents --> edge of A --> edge of B --> (nothing)      A.join = generation | bits of
//   edges open
//
// Crash safety: every step can be repeated. Before following an edge the walker notes it, the one
// after it and the dependent's generation (WalkNote); the daemon goes on from the note. A bit that
// is clear already, or belongs to another generation, is left alone; a dependent that is Ready may
// be pushed again, since rings hold hints and claiming is exact. A record is not recycled while its
// join word has open bits or its state says it is being walked.
#pragma once

#include "shm/memory.h"

namespace mobula::shm {

// Takes records that have become Ready (Kind::ActorCall: that lie in their actor's ring already).
class ReadySink {
 public:
  virtual void publish(Record& record, Address address) = 0;

 protected:
  ~ReadySink() = default;
};

namespace dependents {

inline constexpr std::uint64_t kClosed = std::uint64_t{1} << 63;
inline constexpr std::uint32_t kSubmissionBit =
    31;  // held by the submitter until all edges are in place

// An edge's name: dependent record and number of the edge. Never 0.
constexpr std::uint64_t link(std::uint32_t slot, std::uint32_t edge) {
  return std::uint64_t{slot} | std::uint64_t{edge} << 32;
}
constexpr std::uint32_t link_slot(std::uint64_t l) { return static_cast<std::uint32_t>(l); }
constexpr std::uint32_t link_edge(std::uint64_t l) {
  return static_cast<std::uint32_t>(l >> 32) & 0xff;
}

constexpr std::uint64_t join_word(std::uint32_t generation, std::uint32_t open_bits) {
  return std::uint64_t{generation} << 32 | open_bits;
}

// Hangs edge `edge` of `dependent` on its target, which the caller holds. False: the target is
// final, nothing to wait for. The edge's bit must be set in the join word before, so that the
// walker finds it.
bool hang(Record& target, Record& dependent, std::uint32_t dependent_slot, std::uint32_t edge);

// Ticks off one edge (or the submission bit); publishes the dependent when it was the last.
// `repair`: publish also one that is Ready already, since whoever made it so died before
// publishing.
void satisfy(const Memory& memory, std::uint32_t slot, std::uint32_t generation, std::uint32_t edge,
             ReadySink& sink, bool repair = false);

// Tells all dependents of a final record whose state has kHasDependents, then clears that flag.
void walk(const Memory& memory, Participant& walker, Record& target, Address address,
          ReadySink& sink);

// For the daemon: goes on with a walk that a dead thread left, or starts one that it did not come
// to.
void resume_walk(const Memory& memory, Participant& dead, Participant& me, Record& target,
                 Address address, ReadySink& sink);

}  // namespace dependents
}  // namespace mobula::shm
