// Remote functions: remote<F>(args...) runs F in some worker and returns a Ref of its result at
// once.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include "mobula/detail/call.h"
#include "mobula/options.h"
#include "mobula/ref.h"
#include "mobula/stream.h"

namespace mobula {

namespace detail {

template <auto F, class... P, class... A>
RefAddress submit_function(const TaskOptions* options, std::uint32_t* stream, Parameters<P...>*,
                           const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A),
                "mobula: wrong number of arguments for the remote function");
  if constexpr (sizeof...(P) == sizeof...(A)) {
    constexpr bool kTravels = kResultTravels<typename Function<F>::Result>;
    static_assert(kTravels,
                  "mobula: the result's type has no codec. Specialise mobula::codec<T> with encode "
                  "and decode, or make it an aggregate.");
    if constexpr (!kArgumentsFit<Parameters<P...>, A...>) {
      refuse_arguments<F>(static_cast<Parameters<P...>*>(nullptr), &arguments...);
    } else if constexpr (kTravels) {
      return submit_arguments<P...>(Function<F>::info, options, stream, submit_task, arguments...);
    }
  }
  return {};
}

template <class Tuple, std::size_t I>
std::tuple_element_t<I, Tuple> project(Tuple tuple) {
  return std::get<I>(std::move(tuple));
}

template <class T>
inline constexpr bool kIsTupleResult = false;
template <class... T>
inline constexpr bool kIsTupleResult<std::tuple<T...>> = true;

template <auto F>
class RemoteCall {
 public:
  using Params = typename Function<F>::S::Params;
  using Result = typename Function<F>::Result;

  constexpr explicit RemoteCall(const TaskOptions* options = nullptr) : options_(options) {}

  // A Ref<Result>; of a function that takes a Sink<T>, a StreamRef<T>.
  template <class... A>
  auto operator()(const A&... arguments) const {
    using Producer = Produces<Params, Result>;
    if constexpr (Producer::kItems) {
      using Given = typename Producer::Given;
      return start_producer<typename Producer::Item>([&](std::uint32_t* stream) {
        return submit_function<F>(options_, stream, static_cast<Given*>(nullptr), arguments...);
      });
    } else {
      return Ref<Result>::own(
          submit_function<F>(options_, nullptr, static_cast<Params*>(nullptr), arguments...));
    }
  }

  // F returns std::tuple<A, B...>: one Ref for each element.
  template <class... A>
  auto unpacked(const A&... arguments) const {
    static_assert(kIsTupleResult<Result>,
                  "mobula: unpacked needs a function that returns a std::tuple");
    if constexpr (kIsTupleResult<Result>) {
      const Ref<Result> whole = (*this)(arguments...);
      return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return std::tuple<Ref<std::tuple_element_t<I, Result>>...>{
            RemoteCall<&project<Result, I>>()(whole)...};
      }(std::make_index_sequence<std::tuple_size_v<Result>>{});
    }
  }

 private:
  const TaskOptions* options_;
};

template <auto F>
class RemoteWithOptions {
 public:
  explicit RemoteWithOptions(TaskOptions options) : options_(std::move(options)) {}
  template <class... A>
  auto operator()(const A&... arguments) const {
    return RemoteCall<F>(&options_)(arguments...);
  }
  template <class... A>
  auto unpacked(const A&... arguments) const {
    return RemoteCall<F>(&options_).unpacked(arguments...);
  }

 private:
  TaskOptions options_;
};

template <auto F>
class RemoteFunction : public RemoteCall<F> {
 public:
  constexpr RemoteFunction() = default;
  // Throws Error at the call when an option makes no sense.
  RemoteWithOptions<F> with(TaskOptions options) const {
    return RemoteWithOptions<F>(std::move(options));
  }
};

}  // namespace detail

// F: a free function, a static method, or a captureless lambda. Each argument is a value or a Ref
// of it; a Ref is a data edge: the task runs when its value is there, and fails with its error.
// Misuse is reported here, at the call.
template <auto F>
inline constexpr detail::RemoteFunction<F> remote{};

struct CancelOptions {
  bool force = false;  // end the process that runs it; for tasks only
  bool recursive = true;  // cancel the tasks and calls that it has submitted, too
};

// Cancels a task or an actor's call. True: it has no value and will have none; get throws
// TaskCancelledError, and so it does for tasks that take its value. False: it had ended before, and
// its result stands.
//
// One that has not started never runs. One that runs is asked to stop: this_task().should_cancel()
// is true in it, a get or wait that it sleeps in throws TaskCancelledError, and what it returns or
// throws in the end is dropped. With `force` its worker is killed; a task in whose get it was run
// crashes with it. It is not tried again in any case.
//
// Throws Error: the ref is an actor's ready(), or `force` is given for an actor's call.
template <class T>
bool cancel(const Ref<T>& ref, CancelOptions options = {}) {
  return detail::cancel_task(ref.address(), ref.session(), options.force, options.recursive);
}
// The producer of a stream; its readers get the items that it pushed, then TaskCancelledError.
template <class T>
bool cancel(const StreamRef<T>& stream, CancelOptions options = {}) {
  return cancel(stream.producer(), options);
}

}  // namespace mobula
