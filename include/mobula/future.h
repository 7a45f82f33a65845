// A Ref as a std::future, for code that knows these. Not part of mobula.h: the
// standard header is heavy.
#pragma once

#include <exception>
#include <future>
#include <type_traits>
#include <utility>

#include "mobula/ref.h"
#include "mobula/then.h"

namespace mobula {

// A future of the ref's value; get() throws what mobula::get throws. It is made ready where then()
// runs, so no thread waits for it: in a driver on the library's thread. An actor that waits for a
// future waits for ever, since that is made ready between its calls: use get there. If the session
// ends before the value is there, get() throws std::future_error (broken_promise).
//
// Throws Error: the ref is empty, of another session, or there is none.
template <class T>
std::future<T> to_future(const Ref<T>& ref) {
  std::promise<T> promise;
  std::future<T> future = promise.get_future();
  then(ref, [promise = std::move(promise)](Result<T> result) mutable {
    if (!result) {
      promise.set_exception(result.exception());
    } else if constexpr (std::is_void_v<T>) {
      promise.set_value();
    } else {
      promise.set_value(std::move(result).value());
    }
  });
  return future;
}

}  // namespace mobula
