// What runs later in the same process: when a ref is ready, or when a time has passed.
//
//   mobula::then(ref, [this](mobula::Result<int> value) { ... });
//
// In an actor it runs on the actor's own thread, between two calls, so that it needs no lock. In a
// driver, and in the worker of a task, it runs on one thread that the library keeps for these.
#pragma once

#include <chrono>
#include <type_traits>
#include <utility>

#include "mobula/detail/callback.h"
#include "mobula/object.h"
#include "mobula/ref.h"
#include "mobula/result.h"

namespace mobula {

// Runs fn(Result<T>) once when the ref has its value or its error; never inside of this call, also
// if it is ready already. fn may be move-only, and capture a Reply. What it throws is written to
// stderr and goes no further. One that waits holds up those behind it.
//
// It does not outlive its process: what has not run when the session or the actor ends, or when the
// worker of a task is let go, is dropped. An actor that owes answers (Reply) does not end before.
//
// Throws Error: the ref is empty, of another session, or there is none.
template <class T, class F>
  requires std::is_invocable_v<F&, Result<T>>
void then(const Ref<T>& ref, F fn) {
  detail::run_when_ready(ref.address(), ref.session(),
                         detail::make_callback([ref, fn = std::move(fn)]() mutable {
                           fn(try_get(ref, Duration::zero()));
                         }));
}

// Runs fn() once when the time has passed, where then() would run it, or later if that thread is
// busy. 0: as soon as it is free. Throws Error when the time is negative, or without a session.
template <class F>
  requires std::is_invocable_v<F&>
void call_after(Duration delay, F fn) {
  detail::run_after(delay, detail::make_callback(std::move(fn)));
}

}  // namespace mobula
