#include "shm/dependents.h"

#include "shm/crash_point.h"

namespace mobula::shm::dependents {
namespace {

void note(Participant& walker, Address target, std::uint64_t edge, std::uint32_t generation,
          std::uint64_t next) {
  const std::uint32_t other = walker.walk_which.load(std::memory_order_relaxed) ^ 1;
  WalkNote& n = walker.walk[other];
  n.link.store(edge, std::memory_order_relaxed);
  n.generation.store(generation, std::memory_order_relaxed);
  n.next.store(next, std::memory_order_relaxed);
  n.record.store(target.packed(), std::memory_order_relaxed);
  walker.walk_which.store(
      other, std::memory_order_release);  // the note counts only when all of it is written
}

void follow(const Memory& memory, Participant& walker, Address target, std::uint64_t edge,
            ReadySink& sink) {
  while (edge != 0) {
    Record& dependent = memory.record(link_slot(edge));
    // The edge is open, so the dependent cannot have been recycled: its join word tells its
    // generation.
    const auto generation =
        static_cast<std::uint32_t>(dependent.join.load(std::memory_order_acquire) >> 32);
    const std::uint64_t next = dependent.edge(link_edge(edge)).next.load(std::memory_order_acquire);
    note(walker, target, edge, generation, next);
    crash_point(CrashPoint::WalkCursor);
    satisfy(memory, link_slot(edge), generation, link_edge(edge), sink);
    edge = next;
  }
}

// The note stays: should we die before the flag is cleared, it says that only its last edge may be
// open.
void finish(Record& target) {
  crash_point(CrashPoint::WalkFinished);
  // release: our reads of the target come before its owner's reuse of it
  target.state.fetch_and(~word::kHasDependents, std::memory_order_release);
}

}  // namespace

bool hang(Record& target, Record& dependent, std::uint32_t dependent_slot, std::uint32_t edge) {
  std::uint64_t seen = target.state.load(std::memory_order_acquire);
  do {
    if (word::is_final(seen) && !(seen & word::kHasDependents)) return false;
    if (seen & word::kHasDependents) break;
  } while (!target.state.compare_exchange_weak(seen, seen | word::kHasDependents,
                                               std::memory_order_acq_rel));

  const std::uint64_t me = link(dependent_slot, edge);
  std::uint64_t head = target.dependents.load(std::memory_order_acquire);
  do {
    if (head & kClosed) return false;
    dependent.edge(edge).next.store(head, std::memory_order_relaxed);
    // release: the walker that takes the head sees our edge and join word
  } while (!target.dependents.compare_exchange_weak(head, me, std::memory_order_acq_rel,
                                                    std::memory_order_acquire));
  return true;
}

void satisfy(const Memory& memory, std::uint32_t slot, std::uint32_t generation, std::uint32_t edge,
             ReadySink& sink, bool repair) {
  Record& dependent = memory.record(slot);
  const std::uint64_t bit = std::uint64_t{1} << edge;
  std::uint64_t seen = dependent.join.load(std::memory_order_acquire);
  bool cleared = false;
  while (static_cast<std::uint32_t>(seen >> 32) == generation && (seen & bit)) {
    // acq_rel: the last one to clear sees what the others completed
    if (dependent.join.compare_exchange_weak(seen, seen & ~bit, std::memory_order_acq_rel,
                                             std::memory_order_acquire)) {
      seen &= ~bit;
      cleared = true;
    }
  }
  if (static_cast<std::uint32_t>(seen >> 32) != generation || static_cast<std::uint32_t>(seen) != 0)
    return;
  if (!cleared && !repair) return;
  crash_point(CrashPoint::WalkSatisfied);

  // All edges are closed. While the state is Waiting the record cannot be recycled.
  // The fields are read before the state: a repairer may go the same way beside us, and if the
  // state still is Waiting afterwards, they were this generation's.
  const bool is_join = dependent.kind == Kind::Join;
  const std::uint64_t parent = dependent.function;
  const std::uint32_t parent_generation = dependent.scheduling_class;
  std::atomic_thread_fence(
      std::memory_order_acquire);  // as a seqlock's reader: the state is loaded after the fields
  std::uint64_t state = dependent.state.load(std::memory_order_acquire);
  while (word::state(state) == State::Waiting && word::generation(state) == generation) {
    if (is_join) {
      // Its parent first: once the join is Done, its owner may recycle it, and a repairer could not
      // find the parent.
      satisfy(memory, link_slot(parent), parent_generation, link_edge(parent), sink, repair);
      dependent.state.compare_exchange_strong(state, word::with_state(state, State::Done),
                                              std::memory_order_acq_rel);
      return;
    }
    if (dependent.state.compare_exchange_weak(state, word::with_state(state, State::Ready),
                                              std::memory_order_acq_rel)) {
      crash_point(CrashPoint::WalkReady);
      sink.publish(dependent, {slot, generation});
      return;
    }
  }
  if (repair && word::state(state) == State::Ready && word::generation(state) == generation) {
    sink.publish(dependent, {slot, generation});
  }
}

void walk(const Memory& memory, Participant& walker, Record& target, Address address,
          ReadySink& sink) {
  const std::uint64_t head =
      target.dependents.fetch_or(kClosed, std::memory_order_acq_rel) & ~kClosed;
  follow(memory, walker, address, head, sink);
  finish(target);
}

void resume_walk(const Memory& memory, Participant& dead, Participant& me, Record& target,
                 Address address, ReadySink& sink) {
  const WalkNote& left = dead.walk[dead.walk_which.load(std::memory_order_acquire)];
  if (left.record.load(std::memory_order_relaxed) != address.packed()) {
    walk(memory, me, target, address, sink);
    return;
  }
  const std::uint64_t edge = left.link.load(std::memory_order_relaxed);
  satisfy(memory, link_slot(edge), left.generation.load(std::memory_order_relaxed), link_edge(edge),
          sink, /*repair=*/true);
  follow(memory, me, address, left.next.load(std::memory_order_relaxed), sink);
  finish(target);
}

}  // namespace mobula::shm::dependents
