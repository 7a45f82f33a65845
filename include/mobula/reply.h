// Answering a call apart from its method's return: many calls are in flight in one thread.
//
//   struct Cache {
//     std::map<std::string, std::vector<mobula::Reply<int>>> waiting;
//     void find(mobula::Reply<int> reply, const std::string& key) {
//       waiting[key].push_back(std::move(reply));  // answered when somebody knows
//     }
//   };
//   mobula::Ref<int> found = cache.call<&Cache::find>("x");
//
// A method whose first parameter is a Reply<R> returns void; the result of the call is R. The
// caller gives the other arguments and sees no difference.
#pragma once

#include <concepts>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "mobula/codec.h"
#include "mobula/detail/callback.h"

namespace mobula {

// The answer that a call still waits for. Whoever has it answers it once, from any thread of the
// actor's process, at any time; parameters that read the store in place (std::span, View,
// std::string_view) are valid until then. Dropped without an answer, the call fails with a
// TaskError. When the method throws, the call fails with that, and a later answer is ignored. Not
// safe to use from two threads at once.
//
// An actor whose last handle is gone stays until all its calls are answered. When its process dies,
// open calls fail or are repeated like one that was running (ActorOptions.max_task_retries).
template <class R>
class Reply {
 public:
  Reply() = default;
  explicit Reply(detail::OpenCall* call) : call_(call) {}  // for the library

  // The call has this result. Errors in storing it become the call's. Throws Error when the Reply
  // was answered or moved from.
  template <class V = R>
    requires(std::is_same_v<V, R> || std::is_convertible_v<const V&, R>)
  void set(const V& value) {
    answer([&value](Writer& writer) {
      if constexpr (std::is_same_v<V, R>) {
        encode<R>(writer, value);
      } else {
        encode<R>(writer, static_cast<R>(value));
      }
    });
  }
  void set()
    requires std::is_void_v<R>
  {
    answer([](Writer&) {});
  }

  // The call fails as if the method had thrown this. Throws Error as set() does.
  void fail(std::exception_ptr error) { detail::answer_with_error(take().get(), error); }
  template <std::derived_from<std::exception> E>
  void fail(const E& error) {
    fail(std::make_exception_ptr(error));
  }

  // Has the caller cancelled it? Then any answer only ends it, and none is waited for: give it one
  // soon.
  bool cancelled() const { return detail::is_cancelled(require()); }
  // Runs fn once when the call is cancelled before it is answered: on the actor's own thread,
  // between two calls, and soon if it is cancelled already.
  template <class F>
    requires std::is_invocable_v<F&>
  void on_cancel(F fn) {
    detail::run_on_cancel(require(), detail::make_callback(std::move(fn)));
  }

  explicit operator bool() const noexcept { return call_ != nullptr; }  // still to be answered
  detail::OpenCall* for_library() const { return require(); }

 private:
  struct Drop {
    void operator()(detail::OpenCall* call) const noexcept { detail::drop_unanswered(call); }
  };
  using Owner = std::unique_ptr<detail::OpenCall, Drop>;
  struct Answered {
    detail::OpenCall* call;
    ~Answered() { detail::let_go(call); }
    detail::OpenCall* get() const { return call; }
  };

  detail::OpenCall* require() const {
    if (!call_) detail::throw_no_reply();
    return call_.get();
  }
  Answered take() {
    require();
    return {call_.release()};
  }

  template <class Encode>
  void answer(const Encode& encode_value) {
    const Answered call = take();
    alignas(8) std::byte small[64];
    small[0] = {};
    Writer writer(small, sizeof small);
    try {
      encode_value(writer);
    } catch (...) {
      return detail::answer_with_error(call.get(), std::current_exception());
    }
    detail::answer(
        call.get(), writer, small,
        [](void* context, Writer& again) { (*static_cast<const Encode*>(context))(again); },
        const_cast<void*>(static_cast<const void*>(&encode_value)));
  }

  Owner call_;
};

}  // namespace mobula
