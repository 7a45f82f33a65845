// What then() and call_after() run later in this process.
//
// What waits for a ref is a record with one edge on it, so that whoever completes the ref also
// queues the callback, and a death on the way is repaired like any other. It belongs to a class
// that this process alone claims from: the actor's own, or one that the daemon opens for a thread
// of ours. Timers are nobody else's business and stay here.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "mobula/detail/callback.h"
#include "mobula/ref.h"
#include "runtime/process.h"
#include "shm/record.h"

namespace mobula::runtime {

class Ledger;

// Says on stderr what it throws; `what` names it there: "a callback of call_after".
void run_guarded(detail::Callback& callback, const std::function<std::string()>& what);

class Callbacks {
 public:
  using Callback = std::unique_ptr<detail::Callback>;
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};

  explicit Callbacks(Process& process) : process_(process) {}
  ~Callbacks();
  Callbacks(const Callbacks&) = delete;
  Callbacks& operator=(const Callbacks&) = delete;

  // The calling thread is the one that runs them: an actor's own.
  void run_here();
  bool runs_here() const;

  // The class of callback records; at the first call of a driver or worker its thread is started.
  std::uint32_t scheduling_class();
  // What is put into a callback's record, and found there by run(). `record`: the owner's count;
  // `target`: what it waits for.
  std::uint64_t add(Callback callback, Ref<void> record, shm::Address target);
  void after(std::uint64_t due_ns, Callback callback);

  // For the thread that runs them. The record is claimed, its intent stands.
  void run(Ledger& ledger, shm::Record& record, shm::Address address);
  bool run_due();  // timers; true: some ran
  std::uint64_t next_due() const { return next_due_.load(std::memory_order_acquire); }

 private:
  struct Waiting {
    Callback callback;
    Ref<void> record;
    shm::Address target;
    std::uint64_t giver;  // the function that gave it to then(); 0: none
    std::list<Waiting>::iterator at;
  };

  void serve(std::uint32_t cls);  // the thread
  std::string describe(const Waiting& waiting);
  bool run_ready(Ledger& ledger, shm::SchedulingClass& cls);
  bool any_ready(shm::SchedulingClass& cls) const;
  void wake();

  Process& process_;
  std::mutex mutex_;  // guards the lists
  std::list<Waiting> waiting_;
  std::multimap<std::uint64_t, Callback> timers_;  // by the time that they are due at
  std::atomic<std::uint64_t> next_due_{kNever};

  std::mutex start_mutex_;
  std::uint32_t class_ = shm::kNone;
  std::thread thread_;
  std::atomic<bool> stop_{false};
  std::atomic<std::thread::id> runner_{};
};

}  // namespace mobula::runtime
