// A thread's records: it alone takes slots, fills them and recycles them, so that none of it needs
// a lock.
//
// A slot is recycled when it is final, this process has no ref to it (RefCounts), nobody else holds
// it (shm/holds.h), and no edge of it is open. If it is not yet when its last ref is dropped, it
// queues in `limbo_` and is looked at again, a few at each submission. The hottest slot is reused
// first.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "mobula/detail/ref_address.h"
#include "runtime/process.h"
#include "shm/claim.h"
#include "shm/stream.h"

namespace mobula::runtime {

inline shm::Address to_shm(RefAddress a) { return {a.slot, a.generation}; }
inline RefAddress from_shm(shm::Address a) { return {a.slot, a.generation}; }

class Ledger final : public shm::ReadySink {
 public:
  Ledger(Process& process, std::uint32_t participant, std::uint32_t segment);

  // A slot of a new generation with one ref; its record is Free until the caller publishes it.
  shm::Address allocate();
  shm::Record& record(shm::Address address) { return process_.memory().record(address.slot); }

  // Puts a ready record (or an actor's call) into this thread's ring of its class and rings the
  // doorbell.
  void publish(shm::Record& record, shm::Address address) override;
  void push(std::uint32_t scheduling_class, shm::Address address);

  // The process dropped its last ref to a slot of this ledger: by this thread, or by another one.
  void dropped(std::uint32_t slot);
  void dropped_elsewhere(std::uint32_t slot);

  // To be released once the record is final: the refs among its arguments.
  void holds_arguments(shm::Address address) { holding_arguments_.push_back(address); }

  // Visits every record that was ever used and its address; for this thread.
  template <class Visit>
  void each_record(const Visit& visit) {
    for (const std::uint32_t segment : segments_) {
      const std::uint32_t begin = segment * shm::kRecordsPerSegment;
      const bool newest = segment == segments_.back();
      const std::uint32_t end = newest ? fresh_ : begin + shm::kRecordsPerSegment;
      for (std::uint32_t slot = begin; slot < end; ++slot) {
        shm::Record& record = process_.memory().record(slot);
        visit(record, shm::Address{slot, shm::word::generation(
                                             record.state.load(std::memory_order_acquire))});
      }
    }
  }

  // Makes the record, which is not published yet, the producer of a stream of its own, whose number
  // is the answer. `max_unread`: items, up to shm::kStreamSlots.
  std::uint32_t open_stream(shm::Record& record, shm::Address address, std::size_t max_unread);
  // Gives up the holds of refs inside of a result or a stream's item that is recycled; `released`
  // is its count of those given up already.
  void release_contained(std::span<const std::uint64_t> refs, shm::Address container,
                         std::uint32_t& released);
  // The same for all that an item holds which this thread took.
  void drop_item(shm::StreamSlot& slot, shm::Address mark);

  void tidy_all();  // looks at everything that may be recycled by now

  std::uint32_t participant() const { return participant_; }
  shm::Participant& shared() { return process_.memory().participant(participant_); }
  Process& process() { return process_; }
  std::uint64_t next_child() { return children_++; }

 private:
  void refill();
  void tidy(int budget);
  void tidy_arguments(int budget);
  void take_returned();
  bool recyclable(std::uint32_t slot);
  bool may_recycle(std::uint32_t slot);  // by this thread, at once
  void recycle(std::uint32_t slot);
  void recycle_one(std::uint32_t slot);
  void release_arguments(shm::Record& record);
  void stop_unread(std::uint32_t slot);
  void close_stream(shm::Record& record, shm::Address address);
  void end_actor(shm::Record& creation, shm::Address address);  // its last handle is gone
  void enqueue(std::uint32_t slot);
  void take_segment(std::uint32_t segment);
  bool use_more_of_segment();
  shm::RingHeader& ring_of(std::uint32_t scheduling_class, std::uint64_t caller);
  void grow(shm::RingHeader& ring);

  Process& process_;
  const std::uint32_t participant_;
  std::vector<std::uint32_t> free_;  // hottest last
  std::vector<std::uint32_t> segments_;  // newest last
  std::uint32_t fresh_ = 0;  // never used slots of the newest segment, as far as it has pages
  std::uint32_t fresh_end_ = 0;
  std::deque<std::uint32_t> limbo_;
  std::deque<shm::Address> holding_arguments_;
  std::vector<std::uint32_t> dead_;  // being recycled: a record's end may be that of its arguments
  bool recycling_ = false;
  std::size_t limbo_at_last_scan_ = 0;
  std::uint64_t children_ = 0;

  struct OwnRing {
    std::uint32_t scheduling_class;
    shm::RingHeader* ring;
    std::uint64_t caller;  // an actor's: the task whose calls it holds; 0: the thread's own
  };
  std::vector<OwnRing> rings_;
  OwnRing last_ring_{shm::kNone, nullptr, 0};

  std::mutex returned_mutex_;
  std::vector<std::uint32_t> returned_;  // dropped by other threads
  std::atomic<bool> any_returned_{false};
};

}  // namespace mobula::runtime
