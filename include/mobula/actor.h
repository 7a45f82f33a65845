// Actors: objects with state in a process of their own, whose methods are called remotely, in the
// order of each caller.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/detail/call.h"
#include "mobula/detail/type_name.h"
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
    using Producer = detail::Produces<typename Shape::Params, typename Shape::Result>;
    if constexpr (!kOurs) {
      return Ref<R>();
    } else if constexpr (Producer::kItems) {
      using Given = typename Producer::Given;
      return detail::start_producer<typename Producer::Item>([&](std::uint32_t* stream) {
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

// The value that an argument of a constructor is: Refs stand for their own, text is a string.
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
template <class V>
  requires(!std::is_void_v<V>)
struct ConstructorParameter<std::vector<Ref<V>>> {
  using type = std::vector<V>;
};

// As what a constructor may get an argument, the best first. Its parameters cannot be looked up, as
// those of a function: they are found by trying.
template <class A>
struct ConstructorCandidates {
  using type = Parameters<typename ConstructorParameter<A>::type>;
};
// Read in place where the constructor takes a view or a span; otherwise its value, or itself.
template <class V>
struct ConstructorCandidates<Ref<V>> {
  using type = Parameters<V, Ref<V>>;
};
template <class E>
  requires std::is_trivially_copyable_v<E> && (!std::is_same_v<E, bool>)
struct ConstructorCandidates<Ref<std::vector<E>>> {
  using type = Parameters<View<E>, std::vector<E>, Ref<std::vector<E>>>;
};
template <>
struct ConstructorCandidates<Ref<Buffer>> {
  using type = Parameters<View<std::byte>, Buffer, Ref<Buffer>>;
};
template <class E>
  requires std::is_trivially_copyable_v<E> && (!std::is_same_v<E, bool>)
struct ConstructorCandidates<std::vector<E>> {
  using type = Parameters<std::vector<E>, View<E>>;
};
template <class V>
  requires(!std::is_void_v<V>)
struct ConstructorCandidates<std::vector<Ref<V>>> {
  using type = Parameters<std::vector<V>, std::vector<Ref<V>>>;
};

template <class T, class... P>
inline constexpr bool kMakes =
    std::is_constructible_v<T, P...> || requires { T{std::declval<P>()...}; };

// How T's constructor takes the arguments: the first combination of candidates of which T can be
// made; void: there is none.
template <class T, class Taken, class... Rest>
struct ConstructorParameters;
template <class T, class Taken, class Candidates, class... Rest>
struct FirstThatMakes;

template <class T, class... P>
struct ConstructorParameters<T, Parameters<P...>> {
  using type = std::conditional_t<kMakes<T, P...>, Parameters<P...>, void>;
};
template <class T, class Taken, class A, class... Rest>
struct ConstructorParameters<T, Taken, A, Rest...>
    : FirstThatMakes<T, Taken, typename ConstructorCandidates<A>::type, Rest...> {};

template <class T, class Taken, class... Rest>
struct FirstThatMakes<T, Taken, Parameters<>, Rest...> {
  using type = void;
};
template <class T, class... P, class C, class... More, class... Rest>
struct FirstThatMakes<T, Parameters<P...>, Parameters<C, More...>, Rest...>
    : std::conditional_t<
          std::is_void_v<typename ConstructorParameters<T, Parameters<P..., C>, Rest...>::type>,
          FirstThatMakes<T, Parameters<P...>, Parameters<More...>, Rest...>,
          ConstructorParameters<T, Parameters<P..., C>, Rest...>> {};

// A class, and what was given for its constructor: the compiler names both with the error.
template <bool Fits, class ActorClass, class... ArgumentTypes>
struct CheckConstructor {
  static_assert(Fits,
                "mobula: the actor's class has no constructor that takes these arguments "
                "(see CheckConstructor<false, ActorClass, ArgumentTypes...>)");
};
template <class T, class... A>
inline constexpr bool kHasConstructor =
    !std::is_void_v<typename ConstructorParameters<T, Parameters<>, std::decay_t<A>...>::type>;

template <class T, class... P, class... A>
ActorHandle<T> create_actor_with(const ActorOptions* options, Parameters<P...>*,
                                 const A&... arguments) {
  if constexpr (!can_be_saved<T>()) {
    if (options && (options->recovery == Recovery::Replay || options->checkpoint_every != 0))
      refuse_to_save(type_name<T>());
  }
  const ActorAddress address = submit_arguments<P...>(
      Constructor<T, P...>::info, nullptr, nullptr,
      [options](const Call& call, const Writer& writer, const std::byte* bytes, EncodeAgain again,
                void* context) {
        return submit_actor(call, options, type_name<T>(), writer, bytes, again, context);
      },
      static_cast<const std::decay_t<const A>&>(arguments)...);
  return ActorHandle<T>(Ref<void>::own(address.creation), address.actor_class);
}

template <class T, class... A>
ActorHandle<T> create_actor(const ActorOptions* options, const A&... arguments) {
  using P = typename ConstructorParameters<T, Parameters<>, std::decay_t<A>...>::type;
  constexpr bool kFits = !std::is_void_v<P>;
  static_cast<void>(CheckConstructor<kFits, T, std::decay_t<const A>...>());
  if constexpr (kFits) {
    return create_actor_with<T>(options, static_cast<P*>(nullptr), arguments...);
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

// Starts an actor: T is constructed in a process of its own. Returns at once. Each argument is a
// value or a Ref of it: then T is constructed when the value is there. If T has no constructor that
// takes the value, but one that takes the Ref, it gets that, at once. A View or a span of a Ref's
// value reads the store, and a vector of Refs stands for one of values, as with tasks.
template <class T>
inline constexpr detail::ActorFactory<T> actor{};

// ---- Names.

// The handle of the actor that was created with this name (ActorOptions.name), in the given
// namespace or, if that is empty, in the program's own: an actor of this program, or a detached one
// of the node (Lifetime::Detached), whoever created it. It counts like any other: the actor lives
// as long as it, a detached one also without. The actor's constructor need not have run.
//
// Throws ActorNotFoundError: there is none, or it is dead, or its last handle is gone, or it is not
// a T. Throws Error: the name is empty, longer than 100 bytes, or has control characters.
template <class T>
ActorHandle<T> get_actor(const std::string& name, const std::string& namespace_ = {}) {
  const detail::ActorAddress found = detail::find_actor(name, namespace_, type_name<T>());
  return ActorHandle<T>(Ref<void>::own(found.creation), found.actor_class);
}

struct NamedActor {
  std::string name;
  std::string namespace_;
};
// Those that get_actor would find now, detached ones too, ordered by namespace and name: in the
// program's own namespace, or in all.
std::vector<NamedActor> list_named_actors(bool all_namespaces = false);

// ---- State.

// Inside of an actor's method: the actor's state is saved when this call is complete, and it is
// what the actor goes on from if its process dies later (ActorOptions.max_restarts). Saved is what
// `void save(mobula::Writer&) const` of its class writes, and `void load(mobula::Reader&)` reads
// into an object that was constructed anew; or, of a class without these, the object itself by its
// codec. The two newest checkpoints are kept, in the object store. If it cannot be written (the
// store is full, save throws), the older ones stay, and the actor's output says why. Throws Error
// outside of a method, and when the class cannot be saved.
inline void checkpoint() { detail::ask_for_checkpoint(); }

// ---- Ends.

struct KillOptions {
  bool no_restart = true;  // false: only its process; it starts again if restarts are left
};

// Ends an actor at once; its pending and later calls fail with ActorDiedError. With no_restart =
// false it is as if its process had crashed: the call that it runs fails with
// ActorUnavailableError, unless max_task_retries repeats it, and those that wait go on with the new
// life. Of one that is dead nothing happens. Throws Error.
template <class T>
void kill(const ActorHandle<T>& handle, KillOptions options = {}) {
  detail::kill_actor({handle.ready().address(), handle.actor_class()}, handle.ready().session(),
                     options.no_restart);
}

// In a method or constructor: the actor ends when that has returned, whose result counts. Calls
// that have not begun fail with ActorDiedError, and no restart follows. The actor's destructor
// runs. Throws Error outside of actors, and in threads that a method has started.
void exit_actor();

enum class DeathReason : std::uint32_t {
  Crashed,  // its process was killed, exited or crashed, and no restart was left
  Killed,  // mobula::kill
  Left,  // exit_actor()
  OutOfScope,  // its last handle went
  ConstructorFailed,
  NotStarted,  // no process could be had for it
  OutOfMemory,  // killed for want of memory, and no restart was left
  StateLost,  // its checkpoints are damaged, or its methods not deterministic (Recovery::Replay)
  PlacementGroupRemoved  // that it was in
};

// How an actor died for good.
struct ActorDeath {
  DeathReason reason = DeathReason::Crashed;
  int signal = 0;  // that ended its last process; 0: none
  int exit_code = 0;  // of its last process; meaningful when signal is 0
  int restarts = 0;  // it had
  std::uint32_t process_id = 0;  // of its last process; 0: it had none

  std::string text() const;  // "its process 4711 was killed by SIGSEGV (Segmentation fault)"
};

// A Ref that is ready when the actor is dead for good; at once if it is already. It keeps no actor
// alive, and costs nothing while it waits. It can be asked for as often as is liked, passed on, and
// be an argument of a task, which then runs when the actor dies. Throws Error: the handle is empty.
template <class T>
Ref<ActorDeath> monitor(const ActorHandle<T>& handle) {
  return Ref<ActorDeath>::own(detail::monitor_actor(
      {handle.ready().address(), handle.actor_class()}, handle.ready().session()));
}

}  // namespace mobula
