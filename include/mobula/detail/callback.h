// A function that the library keeps and runs later, on the thread that this process has for it. Not
// for users.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "mobula/detail/runtime.h"

namespace mobula::detail {

class Callback {
 public:
  virtual ~Callback() = default;
  virtual void run() = 0;
};

template <class F>
class CallbackOf final : public Callback {
 public:
  explicit CallbackOf(F fn) : fn_(std::move(fn)) {}
  void run() override { fn_(); }

 private:
  F fn_;
};
template <class F>
std::unique_ptr<Callback> make_callback(F fn) {
  return std::make_unique<CallbackOf<F>>(std::move(fn));
}

// Each takes the callback over. Run when the record is final; after a time; when the call is
// cancelled before it is answered.
void run_when_ready(RefAddress address, std::uint64_t session, std::unique_ptr<Callback> callback);
void run_after(Duration delay, std::unique_ptr<Callback> callback);
void run_on_cancel(OpenCall* call, std::unique_ptr<Callback> callback);

// Is the calling thread the one that runs callbacks?
bool on_callback_thread();
// Runs a later part of an open call's method: this_task() in it is the call, which it may answer.
void run_in_call(OpenCall* call, Callback& body);

}  // namespace mobula::detail
