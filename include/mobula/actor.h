// Actors: objects with state in a process of their own, whose methods are called remotely, in the
// order of each caller.
#pragma once

#include <type_traits>
#include <utility>

#include "mobula/detail/call.h"
#include "mobula/error.h"
#include "mobula/options.h"
#include "mobula/ref.h"
#include "mobula/stream.h"

namespace mobula {

// The handle of an actor. Copyable; can be an argument, a result or a field of one. The actor ends
// when its last handle is gone and its pending calls are done.
template <class T>
class ActorHandle {
 public:
  ActorHandle() = default;
  ActorHandle(Ref<void> creation, std::uint32_t actor_class)
      : creation_(std::move(creation)), class_(actor_class) {}

  // Calls a method; returns at once. Calls of one caller (a task, an actor, a thread of a driver)
  // run in the order in which they were made, also when their arguments are not there yet.
  template <auto M, class... A>
  auto call(const A&... arguments) const {
    return call_with<M>(nullptr, arguments...);
  }

  // handle.with({.name = "step 7"}).template call<&T::method>(arguments...)
  class WithOptions {
   public:
    WithOptions(const ActorHandle& handle, CallOptions options)
        : handle_(handle), options_(std::move(options)) {}
    template <auto M, class... A>
    auto call(const A&... arguments) const {
      return handle_.template call_with<M>(&options_, arguments...);
    }

   private:
    ActorHandle handle_;
    CallOptions options_;
  };
  WithOptions with(CallOptions options) const { return {*this, std::move(options)}; }

  explicit operator bool() const noexcept { return static_cast<bool>(creation_); }
  friend bool operator==(const ActorHandle& a, const ActorHandle& b) noexcept {
    return a.creation_ == b.creation_;
  }

  // A Ref that is ready when the constructor has run, or has its error.
  const Ref<void>& ready() const noexcept { return creation_; }
  std::uint32_t actor_class() const noexcept { return class_; }  // for the library

 private:
  template <auto M, class... A>
  auto call_with(const CallOptions* options, const A&... arguments) const {
    using Shape = detail::Shape<decltype(M)>;
    constexpr bool kOurs = std::is_base_of_v<typename Shape::Class, T>;
    static_assert(kOurs,
                  "mobula: call<&C::method>: C is neither the actor's class nor a base of it");
    using Call = detail::CallShapeOf<decltype(M)>;
    using R = typename Call::R;
    using Produces = detail::Produces<typename Shape::Params>;
    if constexpr (!kOurs) {
      return Ref<R>();
    } else if constexpr (Produces::kItems) {
      using Given = typename Produces::Given;
      return detail::start_producer<typename Produces::Item, R>([&](std::uint32_t* stream) {
        return submit<M>(options, stream, static_cast<Given*>(nullptr), arguments...);
      });
    } else {
      return Ref<R>::own(
          submit<M>(options, nullptr, static_cast<typename Call::P*>(nullptr), arguments...));
    }
  }

  template <auto M, class... P, class... A>
  RefAddress submit(const CallOptions* options, std::uint32_t* stream, detail::Parameters<P...>*,
                    const A&... arguments) const {
    static_assert(sizeof...(P) == sizeof...(A), "mobula: wrong number of arguments for the method");
    if constexpr (sizeof...(P) == sizeof...(A)) {
      constexpr bool kTravels = detail::kResultTravels<typename detail::Method<T, M>::Result>;
      static_assert(kTravels,
                    "mobula: the result's type has no codec. Specialise mobula::codec<T> with "
                    "encode and decode, or make it an aggregate.");
      if constexpr (!detail::kArgumentsFit<detail::Parameters<P...>, A...>) {
        detail::refuse_arguments<M>(static_cast<detail::Parameters<P...>*>(nullptr), &arguments...);
      } else if constexpr (kTravels) {
        detail::check_ref(creation_.address(), creation_.session());
        const detail::ActorAddress actor{creation_.address(), class_};
        return detail::submit_arguments<P...>(
            detail::Method<T, M>::info, nullptr, stream,
            [&actor, options](const detail::Call& call, const Writer& writer,
                              const std::byte* bytes, detail::EncodeAgain again, void* context) {
              return detail::submit_call(call, options, actor, writer, bytes, again, context);
            },
            arguments...);
      }
    }
    return {};
  }

  Ref<void> creation_;
  std::uint32_t class_ = 0xffffffff;
};

template <class T>
struct codec<ActorHandle<T>> {
  static void encode(Writer& writer, const ActorHandle<T>& handle) {
    codec<Ref<void>>::encode(writer, handle.ready());
    writer.raw(handle.actor_class());
  }
  static ActorHandle<T> decode(Reader& reader) {
    Ref<void> creation = codec<Ref<void>>::decode(reader);
    const auto actor_class = reader.raw<std::uint32_t>();
    return ActorHandle<T>(std::move(creation), actor_class);
  }
};

namespace detail {

// A constructor's argument as a parameter: a Ref stands for its value, text is stored as a string.
template <class A>
struct ConstructorParameter {
  using type = std::conditional_t<std::is_convertible_v<A, std::string_view> &&
                                      !std::is_same_v<A, std::string>,
                                  std::string, A>;
};
template <class V>
struct ConstructorParameter<Ref<V>> {
  using type = V;
};

template <class T, class... A>
ActorHandle<T> create_actor(const ActorOptions* options, const A&... arguments) {
  using Info = Constructor<T, typename ConstructorParameter<std::decay_t<A>>::type...>;
  constexpr bool kConstructible =
      std::is_constructible_v<T, typename ConstructorParameter<std::decay_t<A>>::type...> ||
      requires { T{std::declval<typename ConstructorParameter<std::decay_t<A>>::type>()...}; };
  static_assert(kConstructible,
                "mobula: the actor's class has no constructor that takes these arguments");
  if constexpr (kConstructible) {
    const ActorAddress address =
        submit_arguments<typename ConstructorParameter<std::decay_t<A>>::type...>(
            Info::info, nullptr, nullptr,
            [options](const Call& call, const Writer& writer, const std::byte* bytes,
                      EncodeAgain again, void* context) {
              return submit_actor(call, options, type_name<T>(), writer, bytes, again, context);
            },
            static_cast<const std::decay_t<const A>&>(arguments)...);
    return ActorHandle<T>(Ref<void>::own(address.creation), address.actor_class);
  } else {
    return {};
  }
}

template <class T>
class ActorWithOptions {
 public:
  explicit ActorWithOptions(ActorOptions options) : options_(std::move(options)) {}
  template <class... A>
  ActorHandle<T> operator()(const A&... arguments) const {
    return create_actor<T>(&options_, arguments...);
  }

 private:
  ActorOptions options_;
};

template <class T>
class ActorFactory {
 public:
  template <class... A>
  ActorHandle<T> operator()(const A&... arguments) const {
    return create_actor<T>(nullptr, arguments...);
  }
  ActorWithOptions<T> with(ActorOptions options) const {
    return ActorWithOptions<T>(std::move(options));
  }
};

}  // namespace detail

// Starts an actor: T is constructed in a process of its own. Returns at once.
template <class T>
inline constexpr detail::ActorFactory<T> actor{};

struct KillOptions {
  bool no_restart = true;  // false is not built yet, and refused
};

// Ends an actor at once; its pending and later calls fail with ActorDiedError. Throws Error.
template <class T>
void kill(const ActorHandle<T>& handle, KillOptions options = {}) {
  if (!options.no_restart)
    throw Error("kill: no_restart = false is not built yet; the actor lives on");
  detail::kill_actor({handle.ready().address(), handle.actor_class()}, handle.ready().session());
}

}  // namespace mobula
