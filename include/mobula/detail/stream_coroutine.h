// Producers that are coroutines (include it by mobula/coroutine.h):
//
//   mobula::Stream<int> squares(int n) {
//     for (int i = 0; i < n; ++i) co_yield i * i;
//   }
//   mobula::StreamRef<int> stream = mobula::remote<squares>(1000);
//
// A spelling of Sink (stream.h) and nothing but that: co_yield is a push. It waits for room where
// it stands, in its thread: a producer has that for itself until it ends.
#pragma once

#include <coroutine>
#include <exception>
#include <memory>
#include <utility>

#include "mobula/stream.h"

namespace mobula {

template <class T>
class [[nodiscard]] Stream {
 public:
  class promise_type {
   public:
    Stream get_return_object() {
      return Stream(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_always final_suspend() const noexcept { return {}; }
    std::suspend_always yield_value(const T& item) noexcept {
      item_ = std::addressof(item);
      return {};
    }
    void return_void() const noexcept {}
    void unhandled_exception() { throw; }
    // get() is the way to wait here.
    template <class Anything>
    void await_transform(Anything&&) = delete;

   private:
    friend class Stream;
    const T* item_ = nullptr;  // lives until the coroutine is resumed
  };

  Stream(Stream&& other) noexcept : coroutine_(std::exchange(other.coroutine_, {})) {}
  Stream& operator=(Stream other) noexcept {
    std::swap(coroutine_, other.coroutine_);
    return *this;
  }
  ~Stream() {
    if (coroutine_) coroutine_.destroy();
  }

  // For the library: pushes all items. Throws what the coroutine and push throw.
  void push_all(Sink<T>& out) {
    for (coroutine_.resume(); !coroutine_.done(); coroutine_.resume())
      out.push(*coroutine_.promise().item_);
  }

 private:
  explicit Stream(std::coroutine_handle<promise_type> coroutine) : coroutine_(coroutine) {}

  std::coroutine_handle<promise_type> coroutine_;
};

}  // namespace mobula
