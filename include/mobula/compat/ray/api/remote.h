// RAY_REMOTE, Task, Actor and ActorHandle.
//
// Ray finds a function by its pointer at run time; so RAY_REMOTE notes, before main(), what Mobula
// knows of each pointer as a template argument.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <vector>

#include "config.h"
#include "mobula/export.h"
#include "mobula/mobula.h"
#include "object_ref.h"
#include "placement_group.h"

namespace ray {

// ---- Functions of other languages: declared, so that programs compile; refused at the call.

template <typename R>
struct PyFunction {
  R operator()() { return {}; }
  std::string module_name;
  std::string function_name;
};
struct PyActorClass {
  void operator()() {}
  std::string module_name;
  std::string class_name;
  std::string function_name = "__init__";
};
template <typename R>
struct PyActorMethod {
  R operator()() { return {}; }
  std::string function_name;
};
struct JavaActorClass {
  void operator()() {}
  std::string class_name;
  std::string module_name = "";
  std::string function_name = "<init>";
};
template <typename R>
struct JavaActorMethod {
  R operator()() { return {}; }
  std::string function_name;
};
template <typename R>
struct JavaFunction {
  R operator()() { return {}; }
  std::string class_name;
  std::string function_name;
};

namespace internal {

// ---- RAY_FUNC: the overload with these parameters.

template <class... P>
struct Overload {
  template <class R>
  constexpr auto operator()(R (*f)(P...)) const {
    return f;
  }
  template <class R, class T>
  constexpr auto operator()(R (T::*f)(P...)) const {
    return f;
  }
  template <class R, class T>
  constexpr auto operator()(R (T::*f)(P...) const) const {
    return f;
  }
};
template <class... P>
inline constexpr Overload<P...> underload{};

// ---- What RAY_REMOTE noted.

using Remote = mobula::detail::Export;

template <class F>
std::string key_of(F function) {
  std::string key(sizeof function, '\0');
  std::memcpy(key.data(), &function, sizeof function);
  return key + typeid(F).name();
}

inline std::map<std::string, Remote>& remotes() {
  static std::map<std::string, Remote> all;
  return all;
}

template <auto... F>
int register_remotes(std::string_view names) {
  (remotes().insert_or_assign(key_of(F), mobula::detail::export_of<F>()), ...);
  mobula::detail::export_names(names, std::array{mobula::detail::export_of<F>()...});
  return 0;
}

template <class F>
const Remote& remote_of(F function) {
  const auto at = remotes().find(key_of(function));
  if (at == remotes().end()) {
    throw RayFunctionNotFound("a function of type " + std::string(mobula::type_name<F>()) +
                              " was not given to RAY_REMOTE");
  }
  return at->second;
}

// ---- Options and arguments.

inline void CheckTaskOptions(const std::unordered_map<std::string, double>& resources) {
  for (const auto& [name, amount] : resources) {
    if (name.empty() || amount <= 0)
      throw RayException("resource '" + name + "' = " + std::to_string(amount) + ": not positive");
    if (amount > 1 && amount != std::floor(amount)) {
      throw RayException("resource '" + name + "' = " + std::to_string(amount) +
                         ": an amount above 1 must be whole");
    }
  }
}

using Resources = std::unordered_map<std::string, double>;

template <class Options>
void set_resources(const Resources& resources, Options& options) {
  CheckTaskOptions(resources);
  for (const auto& [name, amount] : resources) {
    if (name == "CPU") {
      options.num_cpus = amount;
    } else if (name == "GPU") {
      options.num_gpus = amount;
    } else if (name == "memory") {
      options.memory = amount;
    } else {
      options.resources[name] = amount;
    }
  }
}

template <class A>
inline constexpr bool kIsObjectRef = false;
template <class T>
inline constexpr bool kIsObjectRef<ObjectRef<T>> = true;

// An ObjectRef stands for its value. As a parameter's type it is refused, as in Ray, but in local
// mode.
template <class P, class A>
const auto& for_parameter(const A& argument) {
  if constexpr (kIsObjectRef<mobula::detail::StoredOf<P>>) {
    if (!job().local_mode) {
      throw std::invalid_argument(
          "a parameter of type " + std::string(mobula::type_name<mobula::detail::StoredOf<P>>()) +
          ": Ray takes refs as refs in local mode only. Take a std::vector of them, or call the "
          "function by mobula::remote with a mobula::Ref");
    }
    return argument;
  } else if constexpr (kIsObjectRef<A>) {
    return argument.ref();
  } else {
    return argument;
  }
}

template <class... P, class Submit, class... A>
auto submit(const Remote& what, mobula::detail::Parameters<P...>*,
            const mobula::TaskOptions* options, const Submit& submit_encoded,
            const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "arguments not match");
  return mobula::detail::submit_by_name<P...>(what, options, submit_encoded,
                                              for_parameter<P>(arguments)...);
}

// The settings of all callers.
template <class Self>
class Setters {
 public:
  Self& SetName(std::string name) {
    name_ = std::move(name);
    return self();
  }
  Self& SetResources(Resources resources) {
    resources_ = std::move(resources);
    return self();
  }
  Self& SetResource(std::string name, double value) {
    resources_[std::move(name)] = value;
    return self();
  }
  // bundle_index: from 0; -1: any.
  Self& SetPlacementGroup(PlacementGroup group, int bundle_index) {
    group_ = std::move(group);
    bundle_ = bundle_index;
    return self();
  }
  Self& SetRuntimeEnv(const RuntimeEnv& runtime_env) {
    runtime_env_ = runtime_env.understood();
    return self();
  }

 protected:
  // Throws mobula::UnschedulableError: in a group that can never be had.
  mobula::Scheduling scheduling() const {
    if (group_) return mobula::PlacementGroupScheduling(group_->feasible(), bundle_);
    return {};
  }

  std::string name_;
  Resources resources_;
  std::optional<PlacementGroup> group_;
  int bundle_ = -1;
  mobula::RuntimeEnv runtime_env_ = job().runtime_env;

 private:
  Self& self() { return static_cast<Self&>(*this); }
};

template <typename F>
class TaskCaller : public Setters<TaskCaller<F>> {
 public:
  explicit TaskCaller(F function) : what_(&remote_of(function)) {}

  template <typename... Args>
  auto Remote(const Args&... args) {
    using Shape = mobula::detail::Shape<F>;
    using R = typename mobula::detail::ResultOf<typename Shape::Result>::type;
    mobula::TaskOptions options;
    set_resources(this->resources_, options);
    options.name = this->name_;
    options.runtime_env = this->runtime_env_;
    try {
      options.scheduling = this->scheduling();
      return ObjectRef<R>(
          mobula::Ref<R>::own(submit(*what_, static_cast<typename Shape::Params*>(nullptr),
                                     &options, mobula::detail::submit_task, args...)));
    } catch (const mobula::UnschedulableError& error) {
      return ObjectRef<R>(std::make_shared<const std::string>(error.what()));
    } catch (const mobula::Error& error) {
      throw_as_ray(error);
    }
  }

 private:
  const internal::Remote* what_;
};

template <typename F>
class ActorTaskCaller : public Setters<ActorTaskCaller<F>> {
 public:
  ActorTaskCaller(F method, mobula::detail::ActorAddress actor, std::uint64_t session,
                  NeverRuns never_runs)
      : what_(&remote_of(method)),
        actor_(actor),
        session_(session),
        never_runs_(std::move(never_runs)) {}

  template <typename... Args>
  auto Remote(const Args&... args) {
    using Shape = mobula::detail::CallShapeOf<F>;
    using R = typename Shape::R;
    if (never_runs_) return ObjectRef<R>(never_runs_);
    CheckTaskOptions(this->resources_);
    const mobula::CallOptions options{.name = this->name_};
    return translated([&] {
      mobula::detail::check_ref(actor_.creation, session_);
      return ObjectRef<R>(mobula::Ref<R>::own(submit(
          *what_, static_cast<typename Shape::P*>(nullptr), nullptr,
          [&](const mobula::detail::Call& call, const mobula::Writer& writer,
              const std::byte* bytes, mobula::detail::EncodeAgain again, void* context) {
            return mobula::detail::submit_call(call, &options, actor_, writer, bytes, again,
                                               context);
          },
          args...)));
    });
  }

 private:
  const internal::Remote* what_;
  mobula::detail::ActorAddress actor_;
  std::uint64_t session_;
  NeverRuns never_runs_;
};

// A function of another language.
template <typename R>
class ForeignCaller : public Setters<ForeignCaller<R>> {
 public:
  using Setters<ForeignCaller>::SetName;
  ForeignCaller& SetName(std::string name, std::string) { return SetName(std::move(name)); }
  ForeignCaller& SetMaxRestarts(int) { return *this; }
  ForeignCaller& SetMaxConcurrency(int) { return *this; }
  template <typename... Args>
  R Remote(const Args&...) {
    throw RayException("functions and actors of Python and Java cannot be called from C++ yet");
  }
};

// May a method of Base be called on the object that was made as a T? Its pointer is kept as a T*.
template <class T, class Base>
bool same_address() {
  if constexpr (std::is_same_v<T, Base>) {
    return true;
  } else if constexpr (requires(Base* base) { static_cast<T*>(base); }) {
    alignas(T) std::byte room[sizeof(T)];
    T* object = reinterpret_cast<T*>(room);
    return static_cast<void*>(static_cast<Base*>(object)) == static_cast<void*>(object);
  } else {
    return false;  // a virtual base
  }
}

}  // namespace internal

// Not counted, as in Ray: the actor lives until it is killed or the job ends.
template <typename ActorType, bool IsXlang = false>
class ActorHandle {
 public:
  ActorHandle() = default;
  explicit ActorHandle(mobula::ActorHandle<ActorType> handle) : handle_(std::move(handle)) {}
  explicit ActorHandle(internal::NeverRuns why) : never_runs_(std::move(why)) {}
  static bool IsActorHandle() { return true; }

  std::string ID() const {
    return internal::id_of(handle_.ready().address(), handle_.ready().session());
  }

  template <typename F>
  internal::ActorTaskCaller<F> Task(F method) const {
    static_assert(std::is_member_function_pointer_v<F>,
                  "Actor method is not a member function of actor class.");
    using Self = typename mobula::detail::Shape<F>::Class;
    static_assert(std::is_base_of_v<Self, ActorType>, "Class types must be same.");
    if (!internal::same_address<ActorType, Self>())
      throw internal::RayException("a method of a second or virtual base cannot be called");
    return {method,
            {handle_.ready().address(), handle_.actor_class()},
            handle_.ready().session(),
            never_runs_};
  }

  void Kill() { Kill(true); }
  // no_restart = false: it starts again, as far as SetMaxRestarts lets it.
  void Kill(bool no_restart) {
    internal::translated([&] { mobula::kill(handle_, {.no_restart = no_restart}); });
  }

  const mobula::ActorHandle<ActorType>& handle() const { return handle_; }  // for the library

 private:
  mobula::ActorHandle<ActorType> handle_;
  internal::NeverRuns never_runs_;
};

template <>
class ActorHandle<void, true> {
 public:
  std::string ID() const { return {}; }
  template <typename R>
  internal::ForeignCaller<ObjectRef<R>> Task(PyActorMethod<R>) {
    return {};
  }
  template <typename R>
  internal::ForeignCaller<ObjectRef<R>> Task(JavaActorMethod<R>) {
    return {};
  }
  void Kill() {}
  void Kill(bool) {}
};
using ActorHandleXlang = ActorHandle<void, true>;

namespace internal {

template <typename F>
class ActorCreator : public Setters<ActorCreator<F>> {
 public:
  explicit ActorCreator(F factory) : what_(&remote_of(factory)) {
    static_assert(std::is_pointer_v<typename mobula::detail::Shape<F>::Result>,
                  "a factory returns a pointer to a new object");
  }
  using Setters<ActorCreator>::SetName;
  ActorCreator& SetName(std::string name, std::string ray_namespace) {
    options_.namespace_ = std::move(ray_namespace);
    return this->SetName(std::move(name));
  }
  ActorCreator& SetMaxRestarts(int max_restarts) {
    options_.max_restarts = max_restarts;
    return *this;
  }
  ActorCreator& SetMaxConcurrency(int max_concurrency) {
    options_.max_concurrency = max_concurrency;
    return *this;
  }

  template <typename... Args>
  auto Remote(const Args&... args) {
    using Shape = mobula::detail::Shape<F>;
    using T = std::remove_pointer_t<typename Shape::Result>;
    set_resources(this->resources_, options_);
    options_.name = this->name_;
    options_.runtime_env = this->runtime_env_;
    try {
      // Without a name nobody would find it later, and a node of the program's own ends with it:
      // then it is as all of the job's actors.
      if (job().actor_lifetime == ActorLifetime::DETACHED && !options_.name.empty() &&
          mobula::detail::node_stays())
        options_.lifetime = mobula::Lifetime::Detached;
      options_.scheduling = this->scheduling();
      const mobula::detail::ActorAddress actor = submit(
          *what_, static_cast<typename Shape::Params*>(nullptr), nullptr,
          [this](const mobula::detail::Call& call, const mobula::Writer& writer,
                 const std::byte* bytes, mobula::detail::EncodeAgain again, void* context) {
            return mobula::detail::submit_actor(call, &options_, what_->class_name, writer, bytes,
                                                again, context);
          },
          args...);
      const auto creation = mobula::Ref<void>::own(actor.creation);
      const std::lock_guard lock(job_mutex());
      job().actors.push_back(creation);
      return ActorHandle<T>(mobula::ActorHandle<T>(creation, actor.actor_class));
    } catch (const mobula::UnschedulableError& error) {
      return ActorHandle<T>(std::make_shared<const std::string>(error.what()));
    } catch (const mobula::Error& error) {
      throw_as_ray(error);
    }
  }

 private:
  const internal::Remote* what_;
  mobula::ActorOptions options_;
};

}  // namespace internal

template <typename F>
internal::TaskCaller<F> Task(F func) {
  static_assert(!std::is_member_function_pointer_v<F>,
                "Incompatible type: member function cannot be called with ray::Task.");
  return internal::TaskCaller<F>(func);
}
template <typename R>
internal::ForeignCaller<ObjectRef<R>> Task(PyFunction<R>) {
  return {};
}
template <typename R>
internal::ForeignCaller<ObjectRef<R>> Task(JavaFunction<R>) {
  return {};
}

template <typename F>
internal::ActorCreator<F> Actor(F create_func) {
  return internal::ActorCreator<F>(create_func);
}
inline internal::ForeignCaller<ActorHandleXlang> Actor(PyActorClass) { return {}; }
inline internal::ForeignCaller<ActorHandleXlang> Actor(JavaActorClass) { return {}; }

// Nothing: there is no such actor, or it has ended.
template <typename T>
boost::optional<ActorHandle<T>> GetActor(const std::string& actor_name,
                                         const std::string& ray_namespace = "") {
  try {
    return ActorHandle<T>(mobula::get_actor<T>(actor_name, ray_namespace));
  } catch (const mobula::ActorNotFoundError&) {
    return {};
  } catch (const mobula::Error& error) {
    internal::throw_as_ray(error);
  }
}
inline boost::optional<ActorHandleXlang> GetActor(const std::string&, const std::string& = "") {
  throw internal::RayException("actors of Python and Java cannot be called from C++ yet");
}

// In an actor: ends it; the call that runs has no result. Does not return.
inline void ExitActor() {
  internal::translated([] { mobula::exit_actor(); });
  throw mobula::ActorDiedError("the actor has ended by ray::ExitActor");
}

inline bool WasCurrentActorRestarted() { return mobula::this_task().was_restarted(); }

}  // namespace ray

// Handles are values, too.
template <class T>
struct mobula::codec<ray::ActorHandle<T>> {
  static void encode(Writer& writer, const ray::ActorHandle<T>& handle) {
    codec<ActorHandle<T>>::encode(writer, handle.handle());
  }
  static ray::ActorHandle<T> decode(Reader& reader) {
    return ray::ActorHandle<T>(codec<ActorHandle<T>>::decode(reader));
  }
};

// At namespace scope; once for each function, in any source file or header.
#define RAY_REMOTE(...)                                                        \
  [[maybe_unused]] static const int MOBULA_DETAIL_UNIQUE(mobula_ray_remote_) = \
      ray::internal::register_remotes<__VA_ARGS__>(#__VA_ARGS__);
#define RAY_FUNC(f, ...) ray::internal::underload<__VA_ARGS__>(f)
