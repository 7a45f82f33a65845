// Decides which thread of an actor runs which of its calls, when it has several or takes them in
// another order than they were made in.
//
// The actor's own thread looks at each ring in order, ahead of the tail, and hands what is Ready to
// the threads of the call's group. The call stays Ready, and in its ring, until a thread claims it:
// so until then it is queued like any other, for who cancels it, and for a next life of the actor.
// The tail follows behind what is claimed.
//
//   ring:  claimed claimed | Ready claimed Ready Ready | not looked at
//                          tail                        seen
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "mobula/options.h"
#include "runtime/process.h"
#include "shm/record.h"
#include "shm/ring.h"

namespace mobula::runtime {

class Ledger;

// ---- The groups of an actor's class, as text: "=4\nio=2\n", the default group first.

// Empty: one thread, no groups. Throws Error for what makes no sense.
std::string groups_text(const ActorOptions& options);
// The number of a group; the default one is "" and 0. Throws Error when the actor has none such.
std::uint16_t group_number(const shm::SchedulingClass& cls, std::string_view name);

class CallThreads {
 public:
  CallThreads(Process& process, shm::SchedulingClass& cls);

  // The following are for the actor's own thread, which `run` keeps for itself: callbacks, and
  // calls when there is no other. True: there was something to do.
  template <class Run>
  bool hand_over(const Run& run);
  bool has_work();
  // Nothing is queued for a thread, or runs in one.
  bool idle() const { return handed_over_.load(std::memory_order_seq_cst) == 0; }

 private:
  struct Group {
    std::mutex mutex;
    std::condition_variable filled;
    std::deque<shm::Address> queue;
  };

  // What is to be done with a call: its state, if the ring's entry still names it.
  shm::State state_of(shm::Address address) const;
  template <class Run>
  void give(shm::Address address, const Run& run);
  void queue(shm::Address address, Group& group);
  // The next entry to look at. A ring may have served an earlier life, or another class.
  std::uint64_t& seen_in(const shm::RingHeader& ring);
  void follow(shm::RingHeader& ring, std::uint64_t seen);
  [[noreturn]] void serve(Group& group);

  Process& process_;
  shm::SchedulingClass& class_;
  const bool out_of_order_;
  std::vector<std::unique_ptr<Group>> groups_;  // none: the actor's own thread runs all
  std::unordered_map<const shm::RingHeader*, std::uint64_t> seen_;
  std::vector<shm::Address> passed_;  // that waited when they were looked at, out of order
  std::atomic<std::uint32_t> handed_over_{0};
};

template <class Run>
bool CallThreads::hand_over(const Run& run) {
  bool any = false;
  for (std::uint64_t at = class_.rings.load(std::memory_order_acquire); at != 0;) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(process_.memory().heap(at));
    at = ring.next.load(std::memory_order_acquire);
    std::uint64_t& seen = seen_in(ring);
    const std::uint64_t head = ring.head.load(std::memory_order_acquire);
    for (; seen < head; ++seen) {
      const auto address = shm::Address::unpack(
          shm::ring::entry(process_.memory(), ring, seen).load(std::memory_order_relaxed));
      const shm::State state = state_of(address);
      if (state == shm::State::Waiting && !out_of_order_) break;  // it holds back those behind it
      any = true;
      if (state == shm::State::Waiting) passed_.push_back(address);
      if (state == shm::State::Ready) give(address, run);
    }
    follow(ring, seen);
  }
  std::vector<shm::Address> ready;
  std::erase_if(passed_, [&](shm::Address address) {
    const shm::State state = state_of(address);
    if (state == shm::State::Ready) ready.push_back(address);
    return state != shm::State::Waiting;
  });
  for (const shm::Address address : ready) give(address, run);
  return any || !ready.empty();
}

template <class Run>
void CallThreads::give(shm::Address address, const Run& run) {
  const shm::Record& record = process_.memory().record(address.slot);
  if (groups_.empty() || record.kind == shm::Kind::Callback) return run(address);
  // If it is another record's by now, nobody will be able to claim it.
  queue(address, *groups_[record.group < groups_.size() ? record.group : 0]);
}

}  // namespace mobula::runtime
