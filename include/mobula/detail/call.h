// How arguments of a call become bytes and become parameters again, checked at compile time. Not
// for users.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "mobula/ref.h"
#include "mobula/reply.h"
#include "mobula/view.h"

namespace mobula::detail {

template <class... P>
struct Parameters {
  static constexpr std::size_t kCount = sizeof...(P);
};

}  // namespace mobula::detail

namespace mobula {
template <class R>
class Async;  // coroutine.h
template <class T>
class Stream;  // detail/stream_coroutine.h
template <class T>
class Sink;  // stream.h
}  // namespace mobula

namespace mobula::detail {

// ---- Parameters: what is stored for each, and how it is handed to the function.

template <class T>
inline constexpr bool kIsVector = false;
template <class T>
inline constexpr bool kIsVector<std::vector<T>> = true;

template <class Stored>
Stored read_argument(Execution& e) {
  if constexpr (kIsVector<Stored>) {
    if (const std::optional<std::size_t> count = e.elements()) {
      Stored values;
      values.reserve(*count);
      for (std::size_t i = 0; i < *count; ++i)
        values.push_back(decode<typename Stored::value_type>(e.element()));
      return values;
    }
  }
  return decode<Stored>(e.argument());
}

template <class P>
struct Parameter {  // a value: decoded, and bound to P as an lvalue or rvalue
  using Stored = std::remove_cvref_t<P>;
  explicit Parameter(Execution& e) : value(read_argument<Stored>(e)) {}
  P pass() {
    if constexpr (std::is_lvalue_reference_v<P>) {
      return value;
    } else {
      return std::move(value);
    }
  }
  Stored value;
};
template <class T>
struct Parameter<std::span<const T>> {  // read in place
  using Stored = std::vector<T>;
  explicit Parameter(Execution& e) : value(decode_span<T>(e.argument())) {}
  std::span<const T> pass() { return value; }
  std::span<const T> value;
};
template <>
struct Parameter<std::string_view> {
  using Stored = std::string;
  explicit Parameter(Execution& e) : value(decode_string_view(e.argument())) {}
  std::string_view pass() { return value; }
  std::string_view value;
};
template <class T>
struct Parameter<View<T>> {  // of a Ref's object; of a value that was passed, copied to an object
  using Stored = std::vector<T>;
  explicit Parameter(Execution& e) : view(read(e)) {}
  View<T> pass() { return std::move(view); }
  static View<T> read(Execution& e) {
    const std::span<const T> elements = decode_span<T>(e.argument());
    if (auto object = e.argument_object())
      return View<T>(Ref<Buffer>::own(object->address), std::move(object->pin), elements);
    constexpr std::size_t kAligned = 1024;  // buffers from here on begin at a cache line
    const std::size_t size = elements.size_bytes();
    Buffer copy = create_buffer(alignof(T) > 8 ? std::max(size, kAligned) : size);
    if (size != 0) std::memcpy(copy.data(), elements.data(), size);
    Ref<Buffer> object = copy.seal();
    Bytes stored = get_bytes(object.address(), object.session(), std::nullopt);
    Reader reader(stored.data, stored.size);
    const auto* begin = reinterpret_cast<const T*>(decode_span<std::byte>(reader).data());
    return View<T>(std::move(object), std::move(stored.pin), {begin, elements.size()}, false);
  }
  View<T> view;
};
template <class T>
struct Parameter<const View<T>&> : Parameter<View<T>> {
  using Parameter<View<T>>::Parameter;
  const View<T>& pass() { return this->view; }
};

template <class P>
using StoredOf = typename Parameter<P>::Stored;

// May a Ref<A> stand for parameter P?
template <class P, class A>
inline constexpr bool kRefStandsFor = std::is_same_v<StoredOf<P>, A>;
template <class T, class A>
inline constexpr bool kRefStandsFor<std::span<const T>, A> =
    std::is_same_v<A, std::vector<T>> ||
    (std::is_same_v<A, Buffer> && std::is_same_v<T, std::byte>);
template <class T, class A>
inline constexpr bool kRefStandsFor<View<T>, A> = kRefStandsFor<std::span<const T>, A>;
template <class T, class A>
inline constexpr bool kRefStandsFor<const View<T>&, A> = kRefStandsFor<std::span<const T>, A>;

// May a vector of Refs stand for parameter P, a vector of values?
template <class P, class A>
inline constexpr bool kRefsStandFor = false;
template <class P, class T>
inline constexpr bool kRefsStandFor<P, std::vector<Ref<T>>> =
    std::is_same_v<std::remove_cvref_t<P>, std::vector<T>>;

template <class P, class A>
consteval bool stands_for() {
  using Arg = std::remove_cvref_t<A>;
  if constexpr (kRefsStandFor<P, Arg>) {
    return true;
  } else if constexpr (kIsRef<Arg> && !std::is_same_v<StoredOf<P>, Arg>) {
    return kRefStandsFor<P, typename Arg::value_type>;
  } else if constexpr (std::is_same_v<StoredOf<P>, std::remove_cvref_t<Arg>>) {
    return true;
  } else if constexpr (
      requires(const Arg& a) { std::span(a); } && requires { typename StoredOf<P>::value_type; }) {
    return std::is_convertible_v<Arg, StoredOf<P>> ||
           std::is_same_v<std::remove_cv_t<typename decltype(std::span(
                              std::declval<const Arg&>()))::element_type>,
                          typename StoredOf<P>::value_type>;
  } else {
    return std::is_convertible_v<A, StoredOf<P>>;
  }
}

// Parameter number `Number` of `Function` (as named by the compiler in "required from") against the
// argument given for it.
template <auto Function, std::size_t Number, class ParameterType, class ArgumentType>
struct CheckArgument {
  static_assert(Encodable<StoredOf<ParameterType>>,
                "mobula: the parameter's type has no codec. Specialise mobula::codec<T> with "
                "encode and decode, or make it an aggregate.");
  static_assert(!std::is_lvalue_reference_v<ParameterType> ||
                    std::is_const_v<std::remove_reference_t<ParameterType>> ||
                    !std::is_pointer_v<std::remove_reference_t<ParameterType>>,
                "mobula: pointers do not travel between processes.");
  static_assert(stands_for<ParameterType, ArgumentType>(),
                "mobula: this argument fits the parameter neither as a value nor as a Ref of it "
                "(see CheckArgument<Function, Number, "
                "ParameterType, ArgumentType> below).");
  static constexpr bool kOk = true;
};

// All of a call's arguments fit. Apart from the errors: after one, a constant that they are part of
// is none any more.
template <class ParameterTypes, class... A>
inline constexpr bool kArgumentsFit = false;
template <class... P, class... A>
inline constexpr bool kArgumentsFit<Parameters<P...>, A...> =
    ((Encodable<StoredOf<P>> && stands_for<P, A>()) && ...);

// Names the argument that does not fit; what follows from it stays unsaid.
template <auto Function, class... P, class... A>
void refuse_arguments(Parameters<P...>*, const A*...) {
  []<std::size_t... I>(std::index_sequence<I...>) {
    static_cast<void>((CheckArgument<Function, I, P, A>::kOk && ...));
  }(std::index_sequence_for<P...>{});
}

// ---- Arguments: a tag, then the value, the address of a ref, or a count and as many addresses.

// The object of a View that is passed on instead of its elements; nullptr: they are.
template <class P, class A>
const Ref<Buffer>* object_for(const A& argument) {
  if constexpr (kIsView<A>) {
    using Element = std::remove_cvref_t<decltype(argument[0])>;
    if constexpr (kRefStandsFor<P, std::vector<Element>>) return ViewAccess::object(argument);
  }
  return nullptr;
}

template <class P, class A>
void encode_argument(Writer& writer, const A& argument) {
  using Stored = StoredOf<P>;
  if (const Ref<Buffer>* object = object_for<P>(argument)) {
    writer.raw(ArgumentTag::Ref);
    writer.ref(object->address());
    return;
  }
  if constexpr (kIsRef<A> && !std::is_same_v<Stored, A>) {
    writer.raw(ArgumentTag::Ref);
    writer.ref(argument.address());
  } else if constexpr (kRefsStandFor<P, A>) {
    writer.raw(ArgumentTag::Refs);
    writer.raw(std::uint64_t{argument.size()});
    for (const auto& ref : argument) writer.ref(ref.address());
  } else {
    writer.raw(ArgumentTag::Value);
    if constexpr (std::is_same_v<Stored, A>) {
      encode<Stored>(writer, argument);
    } else if constexpr (std::is_convertible_v<const A&, Stored>) {
      encode<Stored>(writer, static_cast<Stored>(argument));
    } else {  // a span, array or view of the elements
      const auto elements = std::span(argument);
      encode<Stored>(writer, Stored(elements.begin(), elements.end()));
    }
  }
}

template <class P, class A>
void note_dependencies(RefAddress* list, std::size_t& count, const A& argument) {
  const auto note = [&](const auto& ref) {
    check_ref(ref.address(), ref.session());
    list[count++] = ref.address();
  };
  if constexpr (kRefsStandFor<P, A>) {
    for (const auto& ref : argument) note(ref);
  } else if constexpr (kIsRef<A> && !std::is_same_v<StoredOf<P>, A>) {
    note(argument);
  } else if (const Ref<Buffer>* object = object_for<P>(argument)) {
    note(*object);
  }
}

template <class P, class A>
std::size_t count_refs(const A& argument) {
  if constexpr (kRefsStandFor<P, A>) {
    return argument.size();
  } else {
    return 0;
  }
}

// Encodes a call's arguments (`stream`: as in Call) and hands it to `submit(call, writer, bytes,
// encode_again, context)`.
template <class... P, class Submit, class... A>
auto submit_arguments(const FunctionInfo& function, const TaskOptions* options,
                      std::uint32_t* stream, const Submit& submit, const A&... arguments) {
  const auto encode_all = [&](Writer& writer) { (encode_argument<P>(writer, arguments), ...); };
  using EncodeAll = decltype(encode_all);
  std::array<RefAddress, sizeof...(A) + 1> one_each;
  std::vector<RefAddress> many;
  RefAddress* waits_for = one_each.data();
  if constexpr ((kRefsStandFor<P, A> || ...)) {
    many.resize((sizeof...(A) + ... + count_refs<P>(arguments)));
    waits_for = many.data();
  }
  std::size_t waits_for_count = 0;
  (note_dependencies<P>(waits_for, waits_for_count, arguments), ...);
  alignas(64) std::byte small[64];
  small[0] = {};  // a call without arguments writes nothing, and compilers warn of passing that on
  Writer writer(small, sizeof small);
  encode_all(writer);
  const Call call{&function, options, waits_for, waits_for_count, stream};
  return submit(
      call, writer, small,
      [](void* context, Writer& again) { (*static_cast<EncodeAll*>(context))(again); },
      const_cast<void*>(static_cast<const void*>(&encode_all)));
}

// ---- Shapes of functions and methods.

template <class F>
struct Shape;
template <class R, class... P>
struct Shape<R (*)(P...)> {
  using Result = R;
  using Params = Parameters<P...>;
};
template <class R, class... P>
struct Shape<R (*)(P...) noexcept> : Shape<R (*)(P...)> {};
template <class R, class C, class... P>
struct Shape<R (C::*)(P...)> : Shape<R (*)(P...)> {
  using Class = C;
};
template <class R, class C, class... P>
struct Shape<R (C::*)(P...) const> : Shape<R (C::*)(P...)> {};
template <class R, class C, class... P>
struct Shape<R (C::*)(P...) noexcept> : Shape<R (C::*)(P...)> {};
template <class R, class C, class... P>
struct Shape<R (C::*)(P...) const noexcept> : Shape<R (C::*)(P...)> {};
template <class R, class C, class... P>
struct Shape<R (C::*)(P...)&> : Shape<R (C::*)(P...)> {};
template <class R, class C, class... P>
struct Shape<R (C::*)(P...) const&> : Shape<R (C::*)(P...)> {};
template <class L>
  requires requires { &L::operator(); }
struct Shape<L> : Shape<decltype(&L::operator())> {};

template <class R>
struct ResultOf {
  using type = std::remove_cvref_t<R>;
};

// What a caller of a method sees: a Reply<R> in front is no parameter, but the result; an Async<R>
// becomes an R.
enum class Answered { ByReturning, ByReply, ByCoroutine };
template <class Params, class Result>
struct CallShape {
  using R = typename ResultOf<Result>::type;
  using P = Params;
  static constexpr Answered kAnswered = Answered::ByReturning;
};
template <class Params, class A>
struct CallShape<Params, Async<A>> {
  using R = A;
  using P = Params;
  static constexpr Answered kAnswered = Answered::ByCoroutine;
};
template <class A, class... Rest, class Result>
struct CallShape<Parameters<Reply<A>, Rest...>, Result> {
  static_assert(std::is_void_v<Result>,
                "mobula: a method that takes a Reply returns void; its result is the Reply's");
  using R = A;
  using P = Parameters<Rest...>;
  static constexpr Answered kAnswered = Answered::ByReply;
};
template <class M>
using CallShapeOf = CallShape<typename Shape<M>::Params, typename Shape<M>::Result>;

// A producer that is a coroutine: its items travel, by the Sink that it has none of.
template <class R>
struct CoroutineOf {
  static constexpr bool kStreams = false;
};
template <class T>
struct CoroutineOf<Stream<T>> {
  static constexpr bool kStreams = true;
  using Item = T;
};

template <class Result>
inline constexpr bool kResultTravels =
    std::is_void_v<Result> || CoroutineOf<Result>::kStreams || Encodable<Result>;

// ---- Invokers.

template <class R, class Function>
void give_result(Execution& execution, Function&& function) {
  if constexpr (std::is_void_v<R>) {
    function();
    execution.result([](Writer&) {});
  } else if constexpr (CoroutineOf<R>::kStreams) {
    Sink<typename CoroutineOf<R>::Item> out(execution.open_sink());
    function().push_all(out);
    execution.result([](Writer&) {});
  } else {
    const R value = function();
    execution.result([&value](Writer& writer) { encode<R>(writer, value); });
  }
}

template <auto F, class R, class... P>
void invoke_function(Execution& execution, Parameters<P...>*) {
  std::tuple<Parameter<P>...> parameters{Parameter<P>(execution)...};  // braces: in order
  give_result<R>(execution, [&]() -> decltype(auto) {
    return std::apply([](auto&... p) -> decltype(auto) { return F(p.pass()...); }, parameters);
  });
}

template <class T, auto M, class R, class... P>
void invoke_method(Execution& execution, Parameters<P...>*) {
  using Read = std::tuple<Parameter<P>...>;
  constexpr Answered kAnswered = CallShapeOf<decltype(M)>::kAnswered;
  T& object = *static_cast<T*>(Execution::instance());
  if constexpr (kAnswered == Answered::ByCoroutine) {
    // References among its parameters stay good: it goes on when we have returned.
    const std::shared_ptr<Read> parameters(new Read{Parameter<P>(execution)...});
    auto coroutine = std::apply([&](auto&... p) { return (object.*M)(p.pass()...); }, *parameters);
    std::move(coroutine).begin(Reply<R>(execution.open_call()), parameters);
  } else {
    Read parameters{Parameter<P>(execution)...};
    if constexpr (kAnswered == Answered::ByReply) {
      Reply<R> reply(execution.open_call());
      std::apply([&](auto&... p) { (object.*M)(std::move(reply), p.pass()...); }, parameters);
    } else {
      give_result<R>(execution, [&]() -> decltype(auto) {
        return std::apply([&](auto&... p) -> decltype(auto) { return (object.*M)(p.pass()...); },
                          parameters);
      });
    }
  }
}

// ---- The state of actors.

template <class T>
inline constexpr bool kSavesItself = requires(const T& saved, T& loaded, Writer& w, Reader& r) {
  saved.save(w);
  loaded.load(r);
};
template <class T>
consteval bool can_be_saved() {
  if constexpr (kSavesItself<T>) {
    return true;
  } else if constexpr (std::is_move_constructible_v<T>) {
    return Encodable<T>;
  } else {
    return false;
  }
}

template <class T>
struct StateOf {
  static void save(const void* instance, Writer& writer) {
    const T& object = *static_cast<const T*>(instance);
    if constexpr (kSavesItself<T>) {
      object.save(writer);
    } else {
      encode<T>(writer, object);
    }
  }
  static void* load(void* instance, Reader& reader) {
    T* const object = static_cast<T*>(instance);
    if constexpr (kSavesItself<T>) {
      object->load(reader);
      return object;
    } else {
      T* const loaded = new T(decode<T>(reader));
      delete object;
      return loaded;
    }
  }
  static constexpr StateCodec kCodec{hash_text(type_name<T>()), &save, &load};
};

template <class T>
constexpr const StateCodec* state_codec() {
  if constexpr (can_be_saved<T>()) {
    return &StateOf<T>::kCodec;
  } else {
    return nullptr;
  }
}

template <class T, class... P>
void invoke_constructor(Execution& execution) {
  std::tuple<Parameter<P>...> parameters{Parameter<P>(execution)...};
  T* object = std::apply(
      [](auto&... p) {
        if constexpr (std::is_constructible_v<T, P...>) {
          return new T(p.pass()...);
        } else {
          return new T{p.pass()...};
        }
      },
      parameters);
  Execution::set_instance(
      object, [](void* instance) { delete static_cast<T*>(instance); }, state_codec<T>());
  execution.result([](Writer&) {});
}

// Tag types: their mangled names are the identities of functions, methods and constructors.
template <auto F>
struct FunctionTag {};
template <class T, auto M>
struct MethodTag {};
template <class T, class... P>
struct ConstructorTag {};

template <auto F>
struct Function {
  using S = Shape<std::decay_t<decltype(F)>>;
  using Result = typename ResultOf<typename S::Result>::type;
  static void invoke(Execution& execution) {
    invoke_function<F, Result>(execution, static_cast<typename S::Params*>(nullptr));
  }
  // Dynamic initialisation before main(): whatever the program may ever call remotely is known when
  // it starts.
  static inline const FunctionInfo info =
      register_function(typeid(FunctionTag<F>).name(), __BASE_FILE__, function_name<F>(), &invoke);
};

template <class T, auto M>
struct Method {
  using S = CallShapeOf<decltype(M)>;
  using Result = typename S::R;
  static void invoke(Execution& execution) {
    invoke_method<T, M, Result>(execution, static_cast<typename S::P*>(nullptr));
  }
  static inline const FunctionInfo info =
      register_function(typeid(MethodTag<T, M>).name(), __BASE_FILE__, function_name<M>(), &invoke);
};

template <class T, class... P>
struct Constructor {
  static inline const FunctionInfo info =
      register_function(typeid(ConstructorTag<T, P...>).name(), __BASE_FILE__, type_name<T>(),
                        &invoke_constructor<T, P...>);
};

}  // namespace mobula::detail
