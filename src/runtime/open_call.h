// A call that is answered apart from its method's return: by whoever has its Reply, on any thread.
//
// The thread that runs the method has claimed the record; its intent goes when the method returns,
// and the state word goes on naming it. Who answers writes an intent of its own and makes itself
// the claimer, since a repair goes on from the notes of whom the state word names. The process
// counts its open calls, so that the daemon looks for them when it has died.
//
//   Claimed, by the method's thread --> Claimed, by who answers --> Done | Failed
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "mobula/detail/runtime.h"
#include "runtime/execution.h"

namespace mobula::detail {

struct OpenCall {
  explicit OpenCall(runtime::Frame& frame);  // the arguments' pins become its own

  // The method's end. It may have dropped the Reply, which counts only now: an exception that
  // dropped it is the better answer.
  void method_returned();
  void method_threw(const std::exception_ptr& error);

  // The first of answers counts; `place` leaves the result, or throws the error.
  void answer(const std::function<void(Execution&)>& place);
  bool cancelled() const;
  std::string name() const;
  void keep() noexcept { holders_.fetch_add(1, std::memory_order_relaxed); }
  void let_go() noexcept;

  runtime::Process& process;
  shm::Record& record;
  const shm::Address address;
  const std::uint32_t claimer;
  const std::uint64_t function;
  const std::string given_name;
  std::uint64_t children;  // submitted by those parts of it that ran in frames that are gone
  bool dropped = false;  // by its method, which goes on

 private:
  void take_over(std::uint32_t participant);
  void close();

  std::atomic<int> holders_{2};  // the Reply, and the method's frame
  std::atomic<bool> answered_{false};
  std::vector<Pin> pins_;
};

}  // namespace mobula::detail

namespace mobula::runtime {

// Has this process calls to answer, so that it must stay?
bool owes_answers();

// Runs what was asked for with on_cancel and is due; after Process::cancels was seen to change.
void run_cancel_hooks();

}  // namespace mobula::runtime
