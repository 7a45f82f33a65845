// Finds the fields of an aggregate without a macro, so that a plain struct can travel.
//
// The number of fields is found by asking with how many values of unknown type the
// struct can be initialised; structured bindings then name them. What would give a
// wrong answer is found first and refused: base classes (they count as an initialiser
// but have no binding), unions, references, more than kFieldsMax fields. Every question
// here is answered by substitution, so an unusual type gives "no" and never an error.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace mobula::detail {

inline constexpr std::size_t kFieldsMax = 40;
// Each element of a C array counts: `float m[9]` takes nine.
inline constexpr std::size_t kInitialisersMax = 96;
inline constexpr std::size_t kNotReflectable = static_cast<std::size_t>(-1);

template <class... T>
struct TypeList {};

// The conversions are never called, so they are defined nowhere. clang warns of that where T is in
// an unnamed namespace and has an optional, since it looks into the optional's constructor.
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-internal"
#endif

// Stands for a value of whatever type the field has. Not for T itself: `T{any}` would
// then be a copy and not a question about the first field.
template <class T>
struct AnyField {
  constexpr explicit AnyField(std::size_t) {}
  template <class U>
    requires(!std::is_same_v<U, T>)
  operator U() const;
};

struct AnyReference {
  template <class U>
  operator U&() const;
};

struct AnyUnion {
  template <class U>
    requires std::is_union_v<U>
  operator U() const;
};

template <class T>
struct AnyBase {
  template <class U>
    requires(std::is_base_of_v<U, T> && !std::is_same_v<U, T>)
  operator U() const;
};

#ifdef __clang__
#pragma clang diagnostic pop
#endif

// Converts to nothing: what accepts it has a constructor that accepts everything.
struct NoField {};

// T can be initialised by these many values, the last of type Last.
template <class T, class Last, std::size_t... I>
consteval bool ends_with(std::index_sequence<I...>) {
  return requires { T{AnyField<T>(I)..., std::declval<Last>()}; };
}

template <class T, std::size_t... I>
consteval bool initialises(std::index_sequence<I...>) {
  return requires { T{AnyField<T>(I)...}; };
}

// T can be initialised by `{before..., {inside...}, after...}`.
template <class T, std::size_t... Before, std::size_t... Inside, std::size_t... After>
consteval bool initialises_nested(std::index_sequence<Before...>, std::index_sequence<Inside...>,
                                  std::index_sequence<After...>) {
  return requires { T{AnyField<T>(Before)..., {AnyField<T>(Inside)...}, AnyField<T>(After)...}; };
}

template <class T, std::size_t Before, std::size_t Inside, std::size_t After>
inline constexpr bool kInitialisesNested =
    initialises_nested<T>(std::make_index_sequence<Before>{}, std::make_index_sequence<Inside>{},
                          std::make_index_sequence<After>{});

// The most values that T{...} takes. Counts upwards: too few values are refused where a
// later field has no default, so the first yes may come late; the first no after it ends.
template <class T, std::size_t N = 0, bool Found = false>
consteval std::size_t initialiser_count() {
  constexpr bool kTakes = initialises<T>(std::make_index_sequence<N>{});
  if constexpr (!kTakes && Found) {
    return N - 1;
  } else if constexpr (N > kInitialisersMax) {
    return kNotReflectable;
  } else {
    return initialiser_count<T, N + 1, kTakes>();
  }
}

// How many initialisers the C array takes that may begin at I (1: it is not an array).
// Braces around fewer values than the array has leave the rest one too many, and a
// class that takes several values in braces still leaves room for one more behind it.
template <class T, std::size_t Total, std::size_t I, std::size_t Size>
consteval std::size_t array_span() {
  if constexpr (I + Size > Total) {
    return 1;
  } else if constexpr (kInitialisesNested<T, I, Size, Total - I - Size> &&
                       !kInitialisesNested<T, I, Size, Total - I - Size + 1>) {
    return Size;
  } else {
    return array_span<T, Total, I, Size + 1>();
  }
}

template <class T, std::size_t Total, std::size_t I>
consteval std::size_t span_at() {
  if constexpr (kInitialisesNested<T, I, 0, Total - I - 1>) {
    return 1;
  } else if constexpr (kInitialisesNested<T, I, 1, Total - I - 1>) {
    return 1;
  } else {
    return array_span<T, Total, I, 2>();
  }
}

template <class T, std::size_t I>
consteval bool is_union_at() {
  return ends_with<T, AnyUnion>(std::make_index_sequence<I>{}) &&
         !ends_with<T, NoField>(std::make_index_sequence<I>{});
}

template <class T, std::size_t Total, std::size_t I = 0, std::size_t Fields = 0>
consteval std::size_t fields_from() {
  if constexpr (I >= Total) {
    return Fields;
  } else if constexpr (is_union_at<T, I>()) {
    return kNotReflectable;
  } else {
    return fields_from<T, Total, I + span_at<T, Total, I>(), Fields + 1>();
  }
}

// An aggregate whose first initialiser is a base class.
template <class T>
consteval bool has_base() {
  if constexpr (std::is_class_v<T> && std::is_aggregate_v<T>) {
    return ends_with<T, AnyBase<T>>({}) && !ends_with<T, NoField>({});
  } else {
    return false;
  }
}

// The number of fields of T, or kNotReflectable.
template <class T>
consteval std::size_t count_fields() {
  if constexpr (!std::is_class_v<T> || !std::is_aggregate_v<T>) {
    return kNotReflectable;
  } else if constexpr (requires { sizeof(std::tuple_size<T>); }) {
    return kNotReflectable;  // bindings would go through its own get<>
  } else if constexpr (has_base<T>()) {
    return kNotReflectable;
  } else {
    constexpr std::size_t kTotal = initialiser_count<T>();
    if constexpr (kTotal == kNotReflectable) {
      return kNotReflectable;
    } else if constexpr (ends_with<T, AnyReference>(std::make_index_sequence<kTotal>{})) {
      return kNotReflectable;  // counting stopped at a reference that has a default
    } else {
      constexpr std::size_t kFields = fields_from<T, kTotal>();
      return kFields <= kFieldsMax ? kFields : kNotReflectable;
    }
  }
}

template <class T>
inline constexpr std::size_t kFieldCount = count_fields<T>();

template <class T>
inline constexpr bool kReflectable = kFieldCount<T> != kNotReflectable;

#define MOBULA_NAMES_1 f1
#define MOBULA_NAMES_2 MOBULA_NAMES_1, f2
#define MOBULA_NAMES_3 MOBULA_NAMES_2, f3
#define MOBULA_NAMES_4 MOBULA_NAMES_3, f4
#define MOBULA_NAMES_5 MOBULA_NAMES_4, f5
#define MOBULA_NAMES_6 MOBULA_NAMES_5, f6
#define MOBULA_NAMES_7 MOBULA_NAMES_6, f7
#define MOBULA_NAMES_8 MOBULA_NAMES_7, f8
#define MOBULA_NAMES_9 MOBULA_NAMES_8, f9
#define MOBULA_NAMES_10 MOBULA_NAMES_9, f10
#define MOBULA_NAMES_11 MOBULA_NAMES_10, f11
#define MOBULA_NAMES_12 MOBULA_NAMES_11, f12
#define MOBULA_NAMES_13 MOBULA_NAMES_12, f13
#define MOBULA_NAMES_14 MOBULA_NAMES_13, f14
#define MOBULA_NAMES_15 MOBULA_NAMES_14, f15
#define MOBULA_NAMES_16 MOBULA_NAMES_15, f16
#define MOBULA_NAMES_17 MOBULA_NAMES_16, f17
#define MOBULA_NAMES_18 MOBULA_NAMES_17, f18
#define MOBULA_NAMES_19 MOBULA_NAMES_18, f19
#define MOBULA_NAMES_20 MOBULA_NAMES_19, f20
#define MOBULA_NAMES_21 MOBULA_NAMES_20, f21
#define MOBULA_NAMES_22 MOBULA_NAMES_21, f22
#define MOBULA_NAMES_23 MOBULA_NAMES_22, f23
#define MOBULA_NAMES_24 MOBULA_NAMES_23, f24
#define MOBULA_NAMES_25 MOBULA_NAMES_24, f25
#define MOBULA_NAMES_26 MOBULA_NAMES_25, f26
#define MOBULA_NAMES_27 MOBULA_NAMES_26, f27
#define MOBULA_NAMES_28 MOBULA_NAMES_27, f28
#define MOBULA_NAMES_29 MOBULA_NAMES_28, f29
#define MOBULA_NAMES_30 MOBULA_NAMES_29, f30
#define MOBULA_NAMES_31 MOBULA_NAMES_30, f31
#define MOBULA_NAMES_32 MOBULA_NAMES_31, f32
#define MOBULA_NAMES_33 MOBULA_NAMES_32, f33
#define MOBULA_NAMES_34 MOBULA_NAMES_33, f34
#define MOBULA_NAMES_35 MOBULA_NAMES_34, f35
#define MOBULA_NAMES_36 MOBULA_NAMES_35, f36
#define MOBULA_NAMES_37 MOBULA_NAMES_36, f37
#define MOBULA_NAMES_38 MOBULA_NAMES_37, f38
#define MOBULA_NAMES_39 MOBULA_NAMES_38, f39
#define MOBULA_NAMES_40 MOBULA_NAMES_39, f40
#define MOBULA_TYPES_1 decltype(f1)
#define MOBULA_TYPES_2 MOBULA_TYPES_1, decltype(f2)
#define MOBULA_TYPES_3 MOBULA_TYPES_2, decltype(f3)
#define MOBULA_TYPES_4 MOBULA_TYPES_3, decltype(f4)
#define MOBULA_TYPES_5 MOBULA_TYPES_4, decltype(f5)
#define MOBULA_TYPES_6 MOBULA_TYPES_5, decltype(f6)
#define MOBULA_TYPES_7 MOBULA_TYPES_6, decltype(f7)
#define MOBULA_TYPES_8 MOBULA_TYPES_7, decltype(f8)
#define MOBULA_TYPES_9 MOBULA_TYPES_8, decltype(f9)
#define MOBULA_TYPES_10 MOBULA_TYPES_9, decltype(f10)
#define MOBULA_TYPES_11 MOBULA_TYPES_10, decltype(f11)
#define MOBULA_TYPES_12 MOBULA_TYPES_11, decltype(f12)
#define MOBULA_TYPES_13 MOBULA_TYPES_12, decltype(f13)
#define MOBULA_TYPES_14 MOBULA_TYPES_13, decltype(f14)
#define MOBULA_TYPES_15 MOBULA_TYPES_14, decltype(f15)
#define MOBULA_TYPES_16 MOBULA_TYPES_15, decltype(f16)
#define MOBULA_TYPES_17 MOBULA_TYPES_16, decltype(f17)
#define MOBULA_TYPES_18 MOBULA_TYPES_17, decltype(f18)
#define MOBULA_TYPES_19 MOBULA_TYPES_18, decltype(f19)
#define MOBULA_TYPES_20 MOBULA_TYPES_19, decltype(f20)
#define MOBULA_TYPES_21 MOBULA_TYPES_20, decltype(f21)
#define MOBULA_TYPES_22 MOBULA_TYPES_21, decltype(f22)
#define MOBULA_TYPES_23 MOBULA_TYPES_22, decltype(f23)
#define MOBULA_TYPES_24 MOBULA_TYPES_23, decltype(f24)
#define MOBULA_TYPES_25 MOBULA_TYPES_24, decltype(f25)
#define MOBULA_TYPES_26 MOBULA_TYPES_25, decltype(f26)
#define MOBULA_TYPES_27 MOBULA_TYPES_26, decltype(f27)
#define MOBULA_TYPES_28 MOBULA_TYPES_27, decltype(f28)
#define MOBULA_TYPES_29 MOBULA_TYPES_28, decltype(f29)
#define MOBULA_TYPES_30 MOBULA_TYPES_29, decltype(f30)
#define MOBULA_TYPES_31 MOBULA_TYPES_30, decltype(f31)
#define MOBULA_TYPES_32 MOBULA_TYPES_31, decltype(f32)
#define MOBULA_TYPES_33 MOBULA_TYPES_32, decltype(f33)
#define MOBULA_TYPES_34 MOBULA_TYPES_33, decltype(f34)
#define MOBULA_TYPES_35 MOBULA_TYPES_34, decltype(f35)
#define MOBULA_TYPES_36 MOBULA_TYPES_35, decltype(f36)
#define MOBULA_TYPES_37 MOBULA_TYPES_36, decltype(f37)
#define MOBULA_TYPES_38 MOBULA_TYPES_37, decltype(f38)
#define MOBULA_TYPES_39 MOBULA_TYPES_38, decltype(f39)
#define MOBULA_TYPES_40 MOBULA_TYPES_39, decltype(f40)
#define MOBULA_CASE(n)                                                    \
  else if constexpr (kCount == n) {                                       \
    auto& [MOBULA_NAMES_##n] = value;                                     \
    return visit.template operator()<MOBULA_TYPES_##n>(MOBULA_NAMES_##n); \
  }

// Calls visit<DeclaredTypes...>(fields...), in order of declaration.
template <class T, class Visit>
constexpr decltype(auto) with_fields(T& value, Visit&& visit) {
  constexpr std::size_t kCount = kFieldCount<std::remove_cv_t<T>>;
  if constexpr (kCount == 0) {
    static_cast<void>(value);
    return visit.template operator()<>();
  }
  // clang-format off: it takes each case for the inside of the one before
  MOBULA_CASE(1) MOBULA_CASE(2) MOBULA_CASE(3) MOBULA_CASE(4) MOBULA_CASE(5)
  MOBULA_CASE(6) MOBULA_CASE(7) MOBULA_CASE(8) MOBULA_CASE(9) MOBULA_CASE(10)
  MOBULA_CASE(11) MOBULA_CASE(12) MOBULA_CASE(13) MOBULA_CASE(14) MOBULA_CASE(15)
  MOBULA_CASE(16) MOBULA_CASE(17) MOBULA_CASE(18) MOBULA_CASE(19) MOBULA_CASE(20)
  MOBULA_CASE(21) MOBULA_CASE(22) MOBULA_CASE(23) MOBULA_CASE(24) MOBULA_CASE(25)
  MOBULA_CASE(26) MOBULA_CASE(27) MOBULA_CASE(28) MOBULA_CASE(29) MOBULA_CASE(30)
  MOBULA_CASE(31) MOBULA_CASE(32) MOBULA_CASE(33) MOBULA_CASE(34) MOBULA_CASE(35)
  MOBULA_CASE(36) MOBULA_CASE(37) MOBULA_CASE(38) MOBULA_CASE(39) MOBULA_CASE(40)
  // clang-format on
}

#undef MOBULA_CASE
#undef MOBULA_NAMES_1
#undef MOBULA_TYPES_1
#undef MOBULA_NAMES_2
#undef MOBULA_TYPES_2
#undef MOBULA_NAMES_3
#undef MOBULA_TYPES_3
#undef MOBULA_NAMES_4
#undef MOBULA_TYPES_4
#undef MOBULA_NAMES_5
#undef MOBULA_TYPES_5
#undef MOBULA_NAMES_6
#undef MOBULA_TYPES_6
#undef MOBULA_NAMES_7
#undef MOBULA_TYPES_7
#undef MOBULA_NAMES_8
#undef MOBULA_TYPES_8
#undef MOBULA_NAMES_9
#undef MOBULA_TYPES_9
#undef MOBULA_NAMES_10
#undef MOBULA_TYPES_10
#undef MOBULA_NAMES_11
#undef MOBULA_TYPES_11
#undef MOBULA_NAMES_12
#undef MOBULA_TYPES_12
#undef MOBULA_NAMES_13
#undef MOBULA_TYPES_13
#undef MOBULA_NAMES_14
#undef MOBULA_TYPES_14
#undef MOBULA_NAMES_15
#undef MOBULA_TYPES_15
#undef MOBULA_NAMES_16
#undef MOBULA_TYPES_16
#undef MOBULA_NAMES_17
#undef MOBULA_TYPES_17
#undef MOBULA_NAMES_18
#undef MOBULA_TYPES_18
#undef MOBULA_NAMES_19
#undef MOBULA_TYPES_19
#undef MOBULA_NAMES_20
#undef MOBULA_TYPES_20
#undef MOBULA_NAMES_21
#undef MOBULA_TYPES_21
#undef MOBULA_NAMES_22
#undef MOBULA_TYPES_22
#undef MOBULA_NAMES_23
#undef MOBULA_TYPES_23
#undef MOBULA_NAMES_24
#undef MOBULA_TYPES_24
#undef MOBULA_NAMES_25
#undef MOBULA_TYPES_25
#undef MOBULA_NAMES_26
#undef MOBULA_TYPES_26
#undef MOBULA_NAMES_27
#undef MOBULA_TYPES_27
#undef MOBULA_NAMES_28
#undef MOBULA_TYPES_28
#undef MOBULA_NAMES_29
#undef MOBULA_TYPES_29
#undef MOBULA_NAMES_30
#undef MOBULA_TYPES_30
#undef MOBULA_NAMES_31
#undef MOBULA_TYPES_31
#undef MOBULA_NAMES_32
#undef MOBULA_TYPES_32
#undef MOBULA_NAMES_33
#undef MOBULA_TYPES_33
#undef MOBULA_NAMES_34
#undef MOBULA_TYPES_34
#undef MOBULA_NAMES_35
#undef MOBULA_TYPES_35
#undef MOBULA_NAMES_36
#undef MOBULA_TYPES_36
#undef MOBULA_NAMES_37
#undef MOBULA_TYPES_37
#undef MOBULA_NAMES_38
#undef MOBULA_TYPES_38
#undef MOBULA_NAMES_39
#undef MOBULA_TYPES_39
#undef MOBULA_NAMES_40
#undef MOBULA_TYPES_40

struct CollectTypes {
  template <class... F>
  constexpr TypeList<std::remove_cv_t<F>...> operator()(const auto&...) const {
    return {};
  }
};

// The declared types of T's fields as a TypeList, without const.
template <class T>
using FieldTypes = decltype(with_fields(std::declval<const T&>(), CollectTypes{}));

}  // namespace mobula::detail
