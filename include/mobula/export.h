// Functions and actors that are called by a name instead of by a template argument: by programs in
// other languages, and across plug-in libraries that the caller was not compiled with.
//
//   // arithmetic.cc, in the program itself or in a library of Config.code_search_path
//   int add(int a, int b) { return a + b; }
//   struct Counter { int n = 0; explicit Counter(int start) : n(start) {} int add(int k); };
//   MOBULA_EXPORT(add, &Counter::add);
//   MOBULA_EXPORT_ACTOR(Counter, int);  // constructed from an int
//
//   // the caller: the type is checked when the name is looked up
//   const auto add = mobula::remote_by_name<int(int, int)>("add");
//   mobula::Ref<int> sum = add(1, 2);
//   const mobula::AnyActor counter = mobula::actor_by_name<void(int)>("Counter")(10);
//   mobula::Ref<int> n = counter.call<int(int)>("Counter::add", 5);
//
// A name is the text in the macro without blanks and '&': "add", "Counter::add". Two exports of one
// name end the program when it starts; in a library they make it fail to load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "mobula/actor.h"
#include "mobula/detail/call.h"
#include "mobula/detail/type_name.h"
#include "mobula/options.h"
#include "mobula/ref.h"
#include "mobula/task.h"

namespace mobula {

namespace detail {

enum class ExportKind : std::uint8_t { Function, Method, Constructor };

struct Export {
  const FunctionInfo* function = nullptr;  // filled in before main(), in no order
  ExportKind kind = ExportKind::Function;
  std::string_view signature;  // "int(int, int)" as the compiler spells it; empty: not known
  std::string_view class_name;  // of a method or constructor; empty: not known
};

// `names` as the macro's text: one for each export, parted by commas.
void export_names(std::string_view names, std::span<const Export> exports);

// Throws FunctionNotFoundError: nothing has this name. Throws Error: it is something else than a
// `kind`, or of another signature.
const Export& find_export(std::string_view name, ExportKind kind, std::string_view signature);

// Throws Error unless `method` may be called on the actor.
void check_class_of_method(ActorAddress actor, std::uint64_t session, const Export& method,
                           std::string_view name);

// What of a signature decides how the bytes are read: const std::string& and std::string are one.
template <class R, class... P>
std::string_view signature_of(Parameters<P...>*) {
  return typeid(R(StoredOf<P>...)).name();
}

// A function that returns a new object makes an actor.
template <class R>
inline constexpr bool kMakesActor =
    std::is_pointer_v<R> && std::is_class_v<std::remove_pointer_t<R>>;

template <class T, auto F, class... P>
void invoke_factory(Execution& execution, Parameters<P...>*) {
  std::tuple<Parameter<P>...> parameters{Parameter<P>(execution)...};
  T* object = std::apply([](auto&... p) { return F(p.pass()...); }, parameters);
  Execution::set_instance(
      object, [](void* instance) { delete static_cast<T*>(instance); }, state_codec<T>());
  execution.result([](Writer&) {});
}

template <auto F>
struct FactoryTag {};
template <auto F>
struct Factory {
  using S = Shape<std::decay_t<decltype(F)>>;
  using T = std::remove_pointer_t<typename S::Result>;
  static void invoke(Execution& execution) {
    invoke_factory<T, F>(execution, static_cast<typename S::Params*>(nullptr));
  }
  static inline const FunctionInfo info =
      register_function(typeid(FactoryTag<F>).name(), __BASE_FILE__, function_name<F>(), &invoke);
};

template <class Params, class Result>
consteval void refuse_producers() {
  static_assert(!Produces<Params, Result>::kItems,
                "mobula: a function that takes a Sink cannot be exported yet");
}

template <class T, auto M>
Export export_of_method() {
  using Info = Method<T, M>;
  using Params = typename Info::S::P;
  refuse_producers<Params, typename Info::Result>();
  return {&Info::info, ExportKind::Method,
          signature_of<typename Info::Result>(static_cast<Params*>(nullptr)), type_name<T>()};
}

template <auto F>
Export export_of() {
  using S = Shape<std::decay_t<decltype(F)>>;
  constexpr auto* kParams = static_cast<typename S::Params*>(nullptr);
  refuse_producers<typename S::Params, typename S::Result>();
  if constexpr (std::is_member_function_pointer_v<decltype(F)>) {
    return export_of_method<typename S::Class, F>();
  } else if constexpr (kMakesActor<typename S::Result>) {
    return {&Factory<F>::info, ExportKind::Constructor, signature_of<void>(kParams),
            type_name<typename Factory<F>::T>()};
  } else {
    return {&Function<F>::info,
            ExportKind::Function,
            signature_of<typename Function<F>::Result>(kParams),
            {}};
  }
}

template <class T, class... P>
Export export_of_actor() {
  return {&Constructor<T, P...>::info, ExportKind::Constructor,
          signature_of<void>(static_cast<Parameters<P...>*>(nullptr)), type_name<T>()};
}

struct Exported {
  Exported(std::string_view names, std::initializer_list<Export> exports) {
    export_names(names, {exports.begin(), exports.size()});
  }
};

template <auto... F>
Exported export_all(std::string_view names) {
  return {names, {export_of<F>()...}};
}

}  // namespace detail

#define MOBULA_DETAIL_JOIN_(a, b) a##b
#define MOBULA_DETAIL_JOIN(a, b) MOBULA_DETAIL_JOIN_(a, b)
#define MOBULA_DETAIL_UNIQUE(name) MOBULA_DETAIL_JOIN(name, __COUNTER__)

// Functions, static methods, methods (&T::method) and factories (functions that return a new T,
// which begin an actor) become callable by their text here. At namespace scope of a source file.
#define MOBULA_EXPORT(...)                                                       \
  [[maybe_unused]] static const ::mobula::detail::Exported MOBULA_DETAIL_UNIQUE( \
      mobula_exported_) = ::mobula::detail::export_all<__VA_ARGS__>(#__VA_ARGS__)

// One of them under a name of its own, such as an overload: MOBULA_EXPORT_AS("scale", (static_cast<
// double (*)(double)>(scale))).
#define MOBULA_EXPORT_AS(name, ...)                                              \
  [[maybe_unused]] static const ::mobula::detail::Exported MOBULA_DETAIL_UNIQUE( \
      mobula_exported_) = ::mobula::detail::export_all<(__VA_ARGS__)>(name)

// A method that T inherits, as "T::method"; &T::method would be the base's own.
#define MOBULA_EXPORT_INHERITED(T, method)                                                         \
  [[maybe_unused]] static const ::mobula::detail::Exported MOBULA_DETAIL_UNIQUE(mobula_exported_)( \
      #T "::" #method, {::mobula::detail::export_of_method<T, &T::method>()})

// A class whose actors are begun by name: MOBULA_EXPORT_ACTOR(T, parameters of its constructor...).
#define MOBULA_EXPORT_ACTOR(T, ...)                                                                \
  [[maybe_unused]] static const ::mobula::detail::Exported MOBULA_DETAIL_UNIQUE(mobula_exported_)( \
      #T, {::mobula::detail::export_of_actor<T __VA_OPT__(, ) __VA_ARGS__>()})

namespace detail {

template <class... P, class Submit, class... A>
auto submit_by_name(const Export& what, const TaskOptions* options, const Submit& submit,
                    const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A),
                "mobula: wrong number of arguments for the signature given");
  if constexpr (sizeof...(P) == sizeof...(A)) {
    if constexpr (!kArgumentsFit<Parameters<P...>, A...>) {
      refuse_arguments<nullptr>(static_cast<Parameters<P...>*>(nullptr), &arguments...);
    }
    return submit_arguments<P...>(*what.function, options, nullptr, submit, arguments...);
  }
}

}  // namespace detail

template <class Signature>
class FunctionByName;

// An exported function that was found. Copyable; stays valid until the program ends.
template <class R, class... P>
class FunctionByName<R(P...)> {
 public:
  using Result = std::remove_cvref_t<R>;

  explicit FunctionByName(const detail::Export& function) : function_(&function) {}

  // As remote<F>(arguments...): each is a value or a Ref of it.
  template <class... A>
  Ref<Result> operator()(const A&... arguments) const {
    return call(nullptr, arguments...);
  }

  class WithOptions {
   public:
    WithOptions(FunctionByName function, TaskOptions options)
        : function_(function), options_(std::move(options)) {}
    template <class... A>
    Ref<Result> operator()(const A&... arguments) const {
      return function_.call(&options_, arguments...);
    }

   private:
    FunctionByName function_;
    TaskOptions options_;
  };
  WithOptions with(TaskOptions options) const { return {*this, std::move(options)}; }

 private:
  template <class... A>
  Ref<Result> call(const TaskOptions* options, const A&... arguments) const {
    return Ref<Result>::own(
        detail::submit_by_name<P...>(*function_, options, detail::submit_task, arguments...));
  }

  const detail::Export* function_;
};

// Looks up an exported function: remote_by_name<int(int, int)>("add"). The signature must be that
// of the function, but for references and views (std::string_view stands for std::string, a span
// for a vector). Throws FunctionNotFoundError, or Error where the signatures differ.
template <class Signature>
FunctionByName<Signature> remote_by_name(std::string_view name) {
  return []<class R, class... P>(std::type_identity<R(P...)>, std::string_view function) {
    return FunctionByName<R(P...)>(
        detail::find_export(function, detail::ExportKind::Function,
                            detail::signature_of<std::remove_cvref_t<R>>(
                                static_cast<detail::Parameters<P...>*>(nullptr))));
  }(std::type_identity<Signature>{}, name);
}

// The handle of an actor whose class this source file does not know. Copyable; can be an argument,
// a result or a field of one, and counts for the actor's life as an ActorHandle does.
class AnyActor {
 public:
  AnyActor() = default;
  AnyActor(Ref<void> creation, std::uint32_t actor_class)
      : creation_(std::move(creation)), class_(actor_class) {}
  template <class T>
  explicit AnyActor(const ActorHandle<T>& handle)
      : AnyActor(handle.ready(), handle.actor_class()) {}

  // Calls an exported method, call<int(int)>("Counter::add", 5), in the order of each caller.
  // Throws FunctionNotFoundError, or Error: the signature differs, or the method is of another
  // class.
  template <class Signature, class... A>
  auto call(std::string_view method, const A&... arguments) const {
    return call_as(std::type_identity<Signature>{}, method, arguments...);
  }

  explicit operator bool() const noexcept { return static_cast<bool>(creation_); }
  friend bool operator==(const AnyActor& a, const AnyActor& b) noexcept {
    return a.creation_ == b.creation_;
  }

  // A Ref that is ready when the constructor has run, or has its error.
  const Ref<void>& ready() const noexcept { return creation_; }
  std::uint32_t actor_class() const noexcept { return class_; }  // for the library

 private:
  template <class R, class... P, class... A>
  auto call_as(std::type_identity<R(P...)>, std::string_view name, const A&... arguments) const {
    using Result = std::remove_cvref_t<R>;
    const detail::ActorAddress actor{creation_.address(), class_};
    const detail::Export& method = detail::find_export(
        name, detail::ExportKind::Method,
        detail::signature_of<Result>(static_cast<detail::Parameters<P...>*>(nullptr)));
    detail::check_class_of_method(actor, creation_.session(), method, name);
    return Ref<Result>::own(detail::submit_by_name<P...>(
        method, nullptr,
        [&actor](const detail::Call& call, const Writer& writer, const std::byte* bytes,
                 detail::EncodeAgain again, void* context) {
          return detail::submit_call(call, nullptr, actor, writer, bytes, again, context);
        },
        arguments...));
  }

  Ref<void> creation_;
  std::uint32_t class_ = 0xffffffff;
};

template <>
struct codec<AnyActor> {
  static void encode(Writer& writer, const AnyActor& actor) {
    codec<Ref<void>>::encode(writer, actor.ready());
    writer.raw(actor.actor_class());
  }
  static AnyActor decode(Reader& reader) {
    Ref<void> creation = codec<Ref<void>>::decode(reader);
    const auto actor_class = reader.raw<std::uint32_t>();
    return {std::move(creation), actor_class};
  }
};

template <class Signature>
class ActorByName;

// An exported class or factory that was found.
template <class... P>
class ActorByName<void(P...)> {
 public:
  explicit ActorByName(const detail::Export& constructor, ActorOptions options = {})
      : constructor_(&constructor), options_(std::move(options)) {}

  // Starts an actor; returns at once.
  template <class... A>
  AnyActor operator()(const A&... arguments) const {
    const detail::ActorAddress actor = detail::submit_by_name<P...>(
        *constructor_, nullptr,
        [this](const detail::Call& call, const Writer& writer, const std::byte* bytes,
               detail::EncodeAgain again, void* context) {
          return detail::submit_actor(call, &options_, constructor_->class_name, writer, bytes,
                                      again, context);
        },
        arguments...);
    return {Ref<void>::own(actor.creation), actor.actor_class};
  }
  ActorByName with(ActorOptions options) const {
    return ActorByName(*constructor_, std::move(options));
  }

 private:
  const detail::Export* constructor_;
  ActorOptions options_;
};

// Looks up an exported class or factory by the parameters it is made from:
// actor_by_name<void(int)>("Counter"). Throws as remote_by_name.
template <class Signature>
ActorByName<Signature> actor_by_name(std::string_view name) {
  return []<class... P>(std::type_identity<void(P...)>, std::string_view constructor) {
    return ActorByName<void(P...)>(detail::find_export(
        constructor, detail::ExportKind::Constructor,
        detail::signature_of<void>(static_cast<detail::Parameters<P...>*>(nullptr))));
  }(std::type_identity<Signature>{}, name);
}

inline void kill(const AnyActor& actor, KillOptions options = {}) {
  kill(ActorHandle<void>(actor.ready(), actor.actor_class()), options);
}

}  // namespace mobula
