// How the values of a program written for Ray travel: MSGPACK_DEFINE names the fields of a class,
// which need not be an aggregate then but default-constructible; std::shared_ptr and std::any are
// values, too.
#pragma once

#include <any>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/codec.h"

#define MSGPACK_DEFINE(...)                              \
  auto mobula_fields() { return std::tie(__VA_ARGS__); } \
  auto mobula_fields() const { return std::tie(__VA_ARGS__); }
#define MSGPACK_DEFINE_ARRAY(...) MSGPACK_DEFINE(__VA_ARGS__)
#define MSGPACK_DEFINE_MAP(...) MSGPACK_DEFINE(__VA_ARGS__)
// The fields of a base class, among those of MSGPACK_DEFINE.
#define MSGPACK_BASE(base) (*const_cast<base*>(static_cast<const base*>(this)))
#define MSGPACK_ADD_ENUM(type)  // enums travel without being told

namespace ray::internal {

template <class T>
concept HasFields = std::default_initializable<T> && requires(T& value, const T& constant) {
  value.mobula_fields();
  constant.mobula_fields();
};

// The types that a std::any may hold when it travels, by their number in the bytes.
using AnyTypes = std::tuple<bool, std::uint64_t, std::int64_t, double, std::string,
                            std::vector<char>, std::vector<std::byte>, int, float>;

}  // namespace ray::internal

template <ray::internal::HasFields T>
struct mobula::codec<T> {
  static void encode(Writer& writer, const T& value) {
    std::apply([&](const auto&... field) { (mobula::encode(writer, field), ...); },
               value.mobula_fields());
  }
  static T decode(Reader& reader) {
    T value{};
    std::apply(
        [&]<class... F>(F&... field) {
          ((field = mobula::decode<std::remove_cvref_t<F>>(reader)), ...);
        },
        value.mobula_fields());
    return value;
  }
};

// By value: two pointers to one object become two objects.
template <class T>
struct mobula::codec<std::shared_ptr<T>> {
  static void encode(Writer& writer, const std::shared_ptr<T>& pointer) {
    writer.raw(pointer != nullptr);
    if (pointer) mobula::encode(writer, *pointer);
  }
  static std::shared_ptr<T> decode(Reader& reader) {
    if (!reader.raw<bool>()) return nullptr;
    return std::make_shared<T>(mobula::decode<std::remove_const_t<T>>(reader));
  }
};

template <>
struct mobula::codec<std::any> {
  static constexpr std::uint8_t kEmpty = 255;

  static void encode(Writer& writer, const std::any& value) {
    if (!value.has_value()) return writer.raw(kEmpty);
    const bool known = [&]<std::size_t... I>(std::index_sequence<I...>) {
      return (encode_as<I>(writer, value) || ...);
    }(std::make_index_sequence<std::tuple_size_v<ray::internal::AnyTypes>>{});
    if (!known) detail::throw_decode_error("a std::any holds a type that does not travel in one");
  }
  static std::any decode(Reader& reader) {
    const auto type = reader.raw<std::uint8_t>();
    std::any value;
    if (type == kEmpty) return value;
    const bool known = [&]<std::size_t... I>(std::index_sequence<I...>) {
      return (decode_as<I>(reader, type, value) || ...);
    }(std::make_index_sequence<std::tuple_size_v<ray::internal::AnyTypes>>{});
    if (!known) detail::throw_decode_error("a std::any's type is out of range");
    return value;
  }

 private:
  template <std::size_t I>
  using Type = std::tuple_element_t<I, ray::internal::AnyTypes>;
  template <std::size_t I>
  static bool encode_as(Writer& writer, const std::any& value) {
    const auto* held = std::any_cast<Type<I>>(&value);
    if (!held) return false;
    writer.raw(static_cast<std::uint8_t>(I));
    mobula::encode(writer, *held);
    return true;
  }
  template <std::size_t I>
  static bool decode_as(Reader& reader, std::uint8_t type, std::any& value) {
    if (type != I) return false;
    value = mobula::decode<Type<I>>(reader);
    return true;
  }
};
