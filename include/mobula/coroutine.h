// Methods that are coroutines: many of them interleave in an actor's one thread, at co_await.
//
//   struct Crawler {
//     mobula::Async<int> words(std::string page) {
//       const std::string text = co_await mobula::remote<fetch>(page);  // others run meanwhile
//       co_return count(text);
//     }
//   };
//   mobula::Ref<int> n = crawler.call<&Crawler::words>("/");
//
// Producers of streams can be coroutines, too: Stream<T>, in detail/stream_coroutine.h.
//
// A spelling of Reply, then and call_after (reply.h, then.h), and nothing but that: without
// coroutines the same is said with these. All of an actor's coroutines run on its own thread, also
// when it has others, so between two co_await nobody else touches its state.
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "mobula/detail/callback.h"
#include "mobula/detail/stream_coroutine.h"
#include "mobula/object.h"
#include "mobula/ref.h"
#include "mobula/reply.h"
#include "mobula/then.h"

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
// No #warning: that is an error under -pedantic-errors, and some programs need no more than to
// parse.
#pragma message("g++ before 13 miscompiles some coroutines: use clang or g++ 13 with this header")
#endif

namespace mobula {

template <class R>
class Async;

// co_await when_all(refs): their values, in order; throws the first failure in that order, when all
// are there. A Ref<void> has std::monostate in the tuple.
template <class T>
struct AllOf {
  std::vector<Ref<T>> refs;
};
template <class... T>
struct AllOfThese {
  std::tuple<Ref<T>...> refs;
};
template <class T>
AllOf<T> when_all(std::vector<Ref<T>> refs) {
  return {std::move(refs)};
}
template <class... T>
  requires(sizeof...(T) > 0)
AllOfThese<T...> when_all(const Ref<T>&... refs) {
  return {{refs...}};
}

// co_await when_any(refs): the number of one that has its value or its error, the first of those in
// order. Throws Error when there are none.
struct AnyOf {
  std::vector<Ref<void>> refs;  // of any type: only looked at
};
template <class T>
AnyOf when_any(const std::vector<Ref<T>>& refs) {
  if (refs.empty()) throw Error("when_any of no refs would wait for ever");
  AnyOf any;
  for (const Ref<T>& ref : refs) {
    detail::check_ref(ref.address(), ref.session());
    detail::retain(ref.address());
    any.refs.push_back(Ref<void>::own(ref.address()));
  }
  return any;
}
template <class... T>
  requires(sizeof...(T) > 0)
AnyOf when_any(const Ref<T>&... refs) {
  AnyOf any;
  const auto add = [&](const auto& ref) {
    detail::check_ref(ref.address(), ref.session());
    detail::retain(ref.address());
    any.refs.push_back(Ref<void>::own(ref.address()));
  };
  (add(refs), ...);
  return any;
}

// co_await sleep_for(20ms). A negative time throws Error.
struct SleepFor {
  Duration delay;
};
inline SleepFor sleep_for(Duration delay) { return {delay}; }

namespace detail {

// A call that coroutines answer: its method, and those that it awaits. At most one is suspended for
// something outside; what wakes it names the suspension, so that being late or double is harmless.
class AsyncCall : public std::enable_shared_from_this<AsyncCall> {
 public:
  explicit AsyncCall(OpenCall* call) : call_(call) {}

  bool cancelled() const { return is_cancelled(call_); }
  void throw_if_cancelled() const {
    if (cancelled()) throw TaskCancelledError("the call was cancelled while it was in co_await");
  }

  // Something that goes on with the coroutine that is suspended next.
  auto waker() {
    return [self = shared_from_this(), number = ++suspensions_] {
      if (self->waiting_ && self->suspensions_ == number) self->go_on();
    };
  }
  void suspend(std::coroutine_handle<> coroutine) { waiting_ = coroutine; }
  void cancel() {
    if (waiting_) go_on();
  }

 private:
  void go_on() {
    const auto coroutine = std::exchange(waiting_, {});
    const auto self = shared_from_this();
    CallbackOf body([coroutine] { coroutine.resume(); });
    run_in_call(call_, body);
  }

  OpenCall* call_;  // lives until a coroutine has ended the call; then nothing is suspended
  std::coroutine_handle<> waiting_;
  std::uint64_t suspensions_ = 0;
};

// Waits until `needed` of the refs are final.
class RefsAwaiter {
 public:
  RefsAwaiter(AsyncCall& call, std::vector<RefHandle> refs, std::size_t needed)
      : call_(call), refs_(std::move(refs)), needed_(needed) {}

  bool await_ready() const { return call_.cancelled() || enough(); }
  // False: they are there by now, and nobody would wake us.
  bool await_suspend(std::coroutine_handle<> coroutine) {
    std::vector<RefHandle> open;
    for (const RefHandle& ref : refs_) {
      if (!is_final(ref.address)) open.push_back(ref);
    }
    const std::size_t final = refs_.size() - open.size();
    if (final >= needed_) return false;
    const auto left = std::make_shared<std::size_t>(needed_ - final);
    const auto wake = call_.waker();
    for (const RefHandle& ref : open) {
      run_when_ready(ref.address, ref.session, make_callback([left, wake] {
                       if (*left != 0 && --*left == 0) wake();
                     }));
    }
    call_.suspend(coroutine);
    return true;
  }
  void await_resume() const { call_.throw_if_cancelled(); }

 private:
  bool enough() const {
    std::size_t final = 0;
    for (const RefHandle& ref : refs_) final += is_final(ref.address);
    return final >= needed_;
  }

  AsyncCall& call_;
  std::vector<RefHandle> refs_;
  std::size_t needed_;
};

template <class T>
RefHandle checked_handle(const Ref<T>& ref) {
  check_ref(ref.address(), ref.session());
  return {ref.address(), ref.session()};
}

template <class T>
class RefAwaiter : public RefsAwaiter {
 public:
  RefAwaiter(AsyncCall& call, Ref<T> ref)
      : RefsAwaiter(call, {checked_handle(ref)}, 1), ref_(std::move(ref)) {}
  T await_resume() const {
    RefsAwaiter::await_resume();
    return get(ref_);
  }

 private:
  Ref<T> ref_;
};

template <class T>
class AllAwaiter : public RefsAwaiter {
 public:
  AllAwaiter(AsyncCall& call, std::vector<Ref<T>> refs)
      : RefsAwaiter(call, handles_of(refs), refs.size()), refs_(std::move(refs)) {}
  auto await_resume() const {
    RefsAwaiter::await_resume();
    return get(refs_);
  }

 private:
  static std::vector<RefHandle> handles_of(const std::vector<Ref<T>>& refs) {
    std::vector<RefHandle> all;
    for (const Ref<T>& ref : refs) all.push_back(checked_handle(ref));
    return all;
  }
  std::vector<Ref<T>> refs_;
};

template <class T>
auto get_or_monostate(const Ref<T>& ref) {
  if constexpr (std::is_void_v<T>) {
    get(ref);
    return std::monostate{};
  } else {
    return get(ref);
  }
}

template <class... T>
class AllTheseAwaiter : public RefsAwaiter {
 public:
  AllTheseAwaiter(AsyncCall& call, std::tuple<Ref<T>...> refs)
      : RefsAwaiter(call, handles_of(refs), sizeof...(T)), refs_(std::move(refs)) {}
  auto await_resume() const {
    RefsAwaiter::await_resume();
    return std::apply(
        [](const auto&... ref) {
          return std::tuple{get_or_monostate(ref)...};  // braces: in order
        },
        refs_);
  }

 private:
  static std::vector<RefHandle> handles_of(const std::tuple<Ref<T>...>& refs) {
    return std::apply(
        [](const auto&... ref) { return std::vector<RefHandle>{checked_handle(ref)...}; }, refs);
  }
  std::tuple<Ref<T>...> refs_;
};

class AnyAwaiter : public RefsAwaiter {
 public:
  AnyAwaiter(AsyncCall& call, std::vector<Ref<void>> refs)
      : RefsAwaiter(call, {handles(refs).begin(), handles(refs).end()}, 1),
        refs_(std::move(refs)) {}
  std::size_t await_resume() const {
    RefsAwaiter::await_resume();
    std::size_t i = 0;
    while (!is_final(refs_[i].address())) ++i;
    return i;
  }

 private:
  std::vector<Ref<void>> refs_;
};

class SleepAwaiter {
 public:
  SleepAwaiter(AsyncCall& call, Duration delay) : call_(call), delay_(delay) {}
  bool await_ready() const { return call_.cancelled(); }
  void await_suspend(std::coroutine_handle<> coroutine) {
    run_after(delay_, make_callback(call_.waker()));
    call_.suspend(coroutine);
  }
  void await_resume() const { call_.throw_if_cancelled(); }

 private:
  AsyncCall& call_;
  Duration delay_;
};

template <class R>
class AsyncPromise;

template <class R>
class AsyncPromiseBase {
 public:
  std::suspend_always initial_suspend() const noexcept { return {}; }

  struct Final {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> done) const noexcept {
      if (done.promise().awaited_by) return done.promise().awaited_by;
      done.promise().end_call(done);
      return std::noop_coroutine();
    }
    void await_resume() const noexcept {}
  };
  Final final_suspend() const noexcept { return {}; }
  void unhandled_exception() { error = std::current_exception(); }

  template <class T>
  auto await_transform(Ref<T> ref) {
    return RefAwaiter<T>(*call, std::move(ref));
  }
  template <class T>
  auto await_transform(AllOf<T> all) {
    return AllAwaiter<T>(*call, std::move(all.refs));
  }
  template <class... T>
  auto await_transform(AllOfThese<T...> all) {
    return AllTheseAwaiter<T...>(*call, std::move(all.refs));
  }
  auto await_transform(AnyOf any) { return AnyAwaiter(*call, std::move(any.refs)); }
  auto await_transform(SleepFor sleep) { return SleepAwaiter(*call, sleep.delay); }
  template <class T>
  auto await_transform(Async<T> other) {
    return typename Async<T>::Awaiter(std::move(other), call);
  }

  std::shared_ptr<AsyncCall> call;
  std::coroutine_handle<> awaited_by;
  std::exception_ptr error;
  Reply<R> reply;  // of the outermost one
  std::shared_ptr<void> parameters;
};

template <class R>
class AsyncPromise : public AsyncPromiseBase<R> {
 public:
  Async<R> get_return_object();
  template <class V>
    requires std::is_convertible_v<V&&, R>
  void return_value(V&& v) {
    value.emplace(std::forward<V>(v));
  }
  R result() {
    if (this->error) std::rethrow_exception(this->error);
    return std::move(*value);
  }
  // Its variables are gone before anybody hears of its end.
  void end_call(std::coroutine_handle<> done) {
    Reply<R> reply = std::move(this->reply);
    const std::exception_ptr error = this->error;
    const std::optional<R> answer = std::move(value);
    const std::shared_ptr<void> parameters = std::move(this->parameters);
    done.destroy();
    error ? reply.fail(error) : reply.set(*answer);
  }

  std::optional<R> value;
};

template <>
class AsyncPromise<void> : public AsyncPromiseBase<void> {
 public:
  Async<void> get_return_object();
  void return_void() const {}
  void result() const {
    if (error) std::rethrow_exception(error);
  }
  void end_call(std::coroutine_handle<> done) {
    Reply<void> answer = std::move(reply);
    const std::exception_ptr failure = error;
    const std::shared_ptr<void> kept = std::move(parameters);
    done.destroy();
    failure ? answer.fail(failure) : answer.set();
  }
};

}  // namespace detail

// What an actor's method returns that is a coroutine; the result of the call is R. It may co_await
// a Ref, when_all, when_any, sleep_for, and the Async<T> of another coroutine, which begins then.
//
// Parameters live until its end, references and those read in place (std::span, View), too. What it
// throws fails the call. When the call is cancelled, the co_await that it is in, or the next one,
// throws TaskCancelledError; what it returns then is dropped. this_task() is its call throughout.
template <class R>
class [[nodiscard]] Async {
 public:
  using promise_type = detail::AsyncPromise<R>;

  explicit Async(std::coroutine_handle<promise_type> coroutine) : coroutine_(coroutine) {}
  Async(Async&& other) noexcept : coroutine_(std::exchange(other.coroutine_, {})) {}
  Async& operator=(Async&& other) noexcept {
    std::swap(coroutine_, other.coroutine_);
    return *this;
  }
  ~Async() {
    if (coroutine_) coroutine_.destroy();
  }

  // For the library: runs it as the answer to a call.
  void begin(Reply<R> reply, std::shared_ptr<void> parameters) && {
    const auto coroutine = std::exchange(coroutine_, {});
    promise_type& promise = coroutine.promise();
    const auto call = std::make_shared<detail::AsyncCall>(reply.for_library());
    promise.call = call;
    promise.parameters = std::move(parameters);
    promise.reply = std::move(reply);
    promise.reply.on_cancel([call] { call->cancel(); });
    auto wake = call->waker();
    call->suspend(coroutine);
    if (detail::on_callback_thread()) {
      wake();
    } else {
      call_after(Duration::zero(), std::move(wake));
    }
  }

  class Awaiter {
   public:
    Awaiter(Async other, std::shared_ptr<detail::AsyncCall> call) : other_(std::move(other)) {
      other_.coroutine_.promise().call = std::move(call);
    }
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> by) noexcept {
      other_.coroutine_.promise().awaited_by = by;
      return other_.coroutine_;
    }
    R await_resume() { return other_.coroutine_.promise().result(); }

   private:
    Async other_;
  };

 private:
  std::coroutine_handle<promise_type> coroutine_;
};

namespace detail {

template <class R>
Async<R> AsyncPromise<R>::get_return_object() {
  return Async<R>(std::coroutine_handle<AsyncPromise>::from_promise(*this));
}
inline Async<void> AsyncPromise<void>::get_return_object() {
  return Async<void>(std::coroutine_handle<AsyncPromise>::from_promise(*this));
}

}  // namespace detail
}  // namespace mobula
