// Decides how values become bytes and bytes become values.
//
// The bytes are for reading in place by a process of the same cluster: native byte
// order, native sizes, no field names. What can be copied as one block is (a scalar, a
// vector<double>, a vector of plain structs), and large blocks begin on a cache line, so
// that a reader may use them where they lie. Everything else is written part by part.
//
//   scalar, enum, plain struct     its bytes
//   string, vector of plain data   u64 count, zero padding, one block
//   array of plain data            zero padding, one block
//   other containers               u64 count, elements
//   optional, unique_ptr           u8 flag, value
//   variant                        u8 index, value
//   pair, tuple, other structs     the fields in order
//
// Bytes are read as if an enemy wrote them: counts are checked before memory is asked
// for, flags and indexes before they are used, nesting before the stack runs out. Only an
// enum takes any number that its underlying type can hold, as a cast would.
//
// The standard library's templates are told by name, so that this header need not
// include theirs, and so that a class that derives from one is not taken for it (its own
// fields would be lost).
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/detail/ref_address.h"
#include "mobula/detail/reflect.h"
#include "mobula/detail/type_name.h"

namespace mobula {

namespace detail {

// Throws DecodeError; the runtime defines it. Also called for a value that cannot be
// encoded (a variant without value, nesting deeper than kNestingMax).
[[noreturn]] void throw_decode_error(const char* what);

// Levels of containers and pointers in one value. Bounds the stack that a hostile value
// can make a reader use: 512 levels of a large struct stay well below a thread's 8 MiB.
inline constexpr int kNestingMax = 512;

// Blocks of this many bytes or more begin on a cache line of their own: the third, behind a count.
// Large vectors begin 16 bytes into a page. Were they copied to byte 64 of one, each load would
// follow a store to the same place of another page, for which processors make it wait: a tenth
// slower, measured on 1 MB.
inline constexpr std::size_t kLargeBlock = 1024;
inline constexpr std::size_t kLargeBlockAlignment = 128;

template <class Stream>
class Nesting {
 public:
  explicit Nesting(Stream& stream) : stream_(stream) {
    if (stream_.depth_ >= kNestingMax) {
      throw_decode_error(
          "a value is nested more than 512 levels deep; give its type a codec that is flat");
    }
    ++stream_.depth_;
  }
  ~Nesting() { --stream_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  Stream& stream_;
};

}  // namespace detail

// Appends bytes to a fixed buffer. When they do not fit it writes no more but goes on
// counting, so that one pass either writes a value or says how large a buffer it needs.
class Writer {
 public:
  // `buffer` begins 8-aligned, and 64-aligned if alignments above 8 shall hold in memory.
  // Writer(nullptr, 0) only counts. Sizes are in bytes.
  // `ref_places`: gets the position of each ref's address, if it is wanted.
  Writer(std::byte* buffer, std::size_t capacity, std::vector<std::size_t>* ref_places = nullptr)
      : buffer_(buffer), capacity_(capacity), ref_places_(ref_places) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Appends `size` bytes.
  void bytes(const void* data, std::size_t size) {
    const std::size_t end = size_ + size;
    // size alone is compared too, so that no wrapped sum can pass
    if (size != 0 && size <= capacity_ && end <= capacity_)
      std::memcpy(buffer_ + size_, data, size);
    size_ = end;
  }

  // Appends the bytes of a trivially copyable value, without alignment.
  template <class T>
  void raw(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t end = size_ + sizeof(T);
    if (end <= capacity_) std::memcpy(buffer_ + size_, &value, sizeof(T));
    size_ = end;
  }

  // Appends zeros until size() is a multiple of `alignment`, a power of two.
  void align(std::size_t alignment) {
    const std::size_t end = (size_ + alignment - 1) & ~(alignment - 1);
    if (end != size_ && end <= capacity_) std::memset(buffer_ + size_, 0, end - size_);
    size_ = end;
  }

  // Bytes that the values so far need, also when they did not fit.
  std::size_t size() const { return size_; }

  // All bytes so far are in the buffer.
  bool fits() const { return size_ <= capacity_; }

  // Appends a ref's address (8 bytes) and remembers it: whoever stores the bytes must
  // keep that object alive as long.
  void ref(RefAddress address) {
    if (ref_places_) ref_places_->push_back(size_);
    raw(address.slot);
    raw(address.generation);
    if (ref_count_ < kRefsInline) {
      inline_refs_[ref_count_] = address;
    } else {
      if (ref_count_ == kRefsInline) heap_refs_.assign(inline_refs_, inline_refs_ + kRefsInline);
      heap_refs_.push_back(address);
    }
    ++ref_count_;
  }

  // The refs met so far, in order, each as often as it was met. Valid until the next ref().
  std::span<const RefAddress> refs() const {
    return {ref_count_ <= kRefsInline ? inline_refs_ : heap_refs_.data(), ref_count_};
  }

 private:
  friend class detail::Nesting<Writer>;
  static constexpr std::size_t kRefsInline = 4;  // calls rarely pass more

  std::byte* buffer_;
  std::size_t capacity_;
  std::vector<std::size_t>* ref_places_;
  std::size_t size_ = 0;
  int depth_ = 0;
  std::size_t ref_count_ = 0;
  RefAddress inline_refs_[kRefsInline];
  std::vector<RefAddress> heap_refs_;  // all of them, once they are more than kRefsInline
};

// Reads what a Writer wrote, in the same order. Whatever runs past the end throws DecodeError.
class Reader {
 public:
  // `data` is aligned as the Writer's buffer was, and outlives what is read in place.
  Reader(const std::byte* data, std::size_t size) : data_(data), size_(size) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // The next `size` bytes, in place.
  const std::byte* bytes(std::size_t size) {
    if (size > size_ - position_) detail::throw_decode_error("the value is cut short");
    const std::byte* at = data_ + position_;
    position_ += size;
    return at;
  }

  // The next value of a trivially copyable type. Throws also for a bool that is neither 0 nor 1.
  template <class T>
  T raw() {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::byte* at = bytes(sizeof(T));
    if constexpr (std::is_same_v<T, bool>) {
      if (*at > std::byte{1}) detail::throw_decode_error("a bool is neither 0 nor 1");
    }
    if constexpr (std::is_trivially_default_constructible_v<T>) {
      T value;
      std::memcpy(&value, at, sizeof(T));
      return value;
    } else {
      std::array<std::byte, sizeof(T)> copy;
      std::memcpy(copy.data(), at, sizeof(T));
      return std::bit_cast<T>(copy);
    }
  }

  // Skips to a multiple of `alignment`, a power of two, counted from the beginning.
  void align(std::size_t alignment) { bytes(-position_ & (alignment - 1)); }

  // Bytes not yet read.
  std::size_t remaining() const { return size_ - position_; }

  // The next ref's address.
  RefAddress ref() {
    const auto slot = raw<std::uint32_t>();
    const auto generation = raw<std::uint32_t>();
    return {slot, generation};
  }

 private:
  friend class detail::Nesting<Reader>;

  const std::byte* data_;
  std::size_t size_;
  std::size_t position_ = 0;
  int depth_ = 0;
};

// Specialise it to let a type travel that Mobula does not know, or to replace the way in
// which it travels:
//
//   template <> struct mobula::codec<Image> {
//     static void encode(mobula::Writer& writer, const Image& image);
//     static Image decode(mobula::Reader& reader);
//   };
//
// A specialisation wins over everything built in but the arithmetic types. decode reads
// exactly what encode wrote, and returns T itself.
template <class T>
struct codec;

template <class T>
void encode(Writer& writer, const T& value);

template <class T>
T decode(Reader& reader);

namespace detail {

// How a type travels.
enum class Kind {
  kNone,
  kUser,
  kScalar,
  kArray,
  kPair,
  kTuple,
  kAggregate,
  kString,  // basic_string
  kVector,
  kList,  // deque and list: elements without data()
  kSet,
  kMap,
  kOptional,
  kVariant,
  kPointer,
  kComplex,
  kDuration,
  kTimePoint,
};

// "vector" for std::vector<...>, also where the library keeps it in an inline namespace;
// empty for what is not a template of namespace std.
constexpr std::string_view std_template(std::string_view name) {
  if (!name.starts_with("std::") || !name.ends_with('>')) return {};
  name = name.substr(5, name.find('<') - 5);
  while (name.starts_with("__")) {
    const std::size_t inner = name.find("::");
    if (inner == std::string_view::npos) return {};
    name.remove_prefix(inner + 2);
  }
  return name;
}

constexpr Kind std_kind(std::string_view name) {
  if (name == "basic_string") return Kind::kString;
  if (name == "vector") return Kind::kVector;
  if (name == "deque" || name == "list") return Kind::kList;
  if (name == "set" || name == "multiset") return Kind::kSet;
  if (name == "unordered_set" || name == "unordered_multiset") return Kind::kSet;
  if (name == "map" || name == "multimap") return Kind::kMap;
  if (name == "unordered_map" || name == "unordered_multimap") return Kind::kMap;
  if (name == "optional") return Kind::kOptional;
  if (name == "variant") return Kind::kVariant;
  if (name == "unique_ptr") return Kind::kPointer;
  if (name == "complex") return Kind::kComplex;
  if (name == "chrono::duration") return Kind::kDuration;
  if (name == "chrono::time_point") return Kind::kTimePoint;
  return Kind::kNone;
}

template <class T>
inline constexpr bool kIsStdArray = false;
template <class T, std::size_t N>
inline constexpr bool kIsStdArray<std::array<T, N>> = true;
template <class T>
inline constexpr bool kIsPair = false;
template <class A, class B>
inline constexpr bool kIsPair<std::pair<A, B>> = true;
template <class T>
inline constexpr bool kIsTuple = false;
template <class... T>
inline constexpr bool kIsTuple<std::tuple<T...>> = true;

template <class T>
struct TemplateArguments;
template <template <class...> class C, class... A>
struct TemplateArguments<C<A...>> {
  using Types = TypeList<A...>;
};
template <class T>
using ArgumentsOf = typename TemplateArguments<T>::Types;

template <std::size_t I, class List>
struct TypeAt;
template <std::size_t I, class... T>
struct TypeAt<I, TypeList<T...>> {
  using Type = std::tuple_element_t<I, std::tuple<T...>>;
};

template <class... T>
consteval std::size_t size_of(TypeList<T...>) {
  return sizeof...(T);
}

template <class T>
consteval Kind kind_of() {
  if constexpr (!std::is_object_v<T> || std::is_array_v<T> || std::is_pointer_v<T> ||
                std::is_member_pointer_v<T> || std::is_null_pointer_v<T>) {
    return Kind::kNone;
  } else if constexpr (!requires { sizeof(T); }) {
    return Kind::kNone;
  } else if constexpr (std::is_arithmetic_v<T>) {
    return Kind::kScalar;
  } else if constexpr (requires { sizeof(codec<T>); }) {
    return Kind::kUser;
  } else if constexpr (std::is_enum_v<T>) {
    return Kind::kScalar;
  } else if constexpr (kIsStdArray<T>) {
    return Kind::kArray;
  } else if constexpr (kIsPair<T>) {
    return Kind::kPair;
  } else if constexpr (kIsTuple<T>) {
    return Kind::kTuple;
  } else if constexpr (std::is_aggregate_v<T>) {
    return kReflectable<T> ? Kind::kAggregate : Kind::kNone;
  } else if constexpr (std::is_class_v<T>) {
    return std_kind(std_template(type_name<T>()));
  } else {
    return Kind::kNone;
  }
}

template <class T>
inline constexpr Kind kKind = kind_of<T>();

// A range whose elements lie side by side.
template <class T>
concept HasData = requires(const T& range) { range.data(); };

// --- which types travel ---

template <class T, class... Seen>
consteval bool encodable();

// `Seen` holds the aggregates around: one that contains itself through a container is
// encodable if the rest of it is.
template <class... F, class... Seen>
consteval bool all_encodable(TypeList<F...>, TypeList<Seen...>) {
  return (encodable<std::remove_all_extents_t<F>, Seen...>() && ...);
}

template <class T, class... F>
consteval bool can_be_made_of(TypeList<F...>) {
  if constexpr ((std::is_array_v<F> || ...)) {
    return requires {
      T{};
    } && (std::is_assignable_v<std::remove_all_extents_t<F>&, std::remove_all_extents_t<F>> && ...);
  } else {
    return requires { T{std::declval<F>()...}; };
  }
}

template <class T, class... Seen>
consteval bool encodable() {
  constexpr Kind kind = kKind<std::remove_cv_t<T>>;
  if constexpr (std::is_volatile_v<T>) {
    return false;
  } else if constexpr (std::is_const_v<T>) {
    return encodable<std::remove_const_t<T>, Seen...>();
  } else if constexpr (kind == Kind::kNone) {
    return false;
  } else if constexpr ((std::is_same_v<T, Seen> || ...)) {
    return true;
  } else if constexpr (kind == Kind::kScalar || kind == Kind::kComplex) {
    return true;
  } else if constexpr (kind == Kind::kUser) {
    return requires(Writer& writer, Reader& reader, const T& value) {
      codec<T>::encode(writer, value);
      { codec<T>::decode(reader) } -> std::same_as<T>;
    };
  } else if constexpr (kind == Kind::kAggregate) {
    if constexpr (!all_encodable(FieldTypes<T>{}, TypeList<T, Seen...>{})) {
      return false;
    } else {
      return can_be_made_of<T>(FieldTypes<T>{});
    }
  } else if constexpr (kind == Kind::kPair || kind == Kind::kTuple || kind == Kind::kVariant) {
    return all_encodable(ArgumentsOf<T>{}, TypeList<Seen...>{}) && size_of(ArgumentsOf<T>{}) < 255;
  } else if constexpr (kind == Kind::kMap) {
    return std::is_default_constructible_v<T> && encodable<typename T::key_type, Seen...>() &&
           encodable<typename T::mapped_type, Seen...>();
  } else if constexpr (kind == Kind::kPointer) {
    using Element = std::remove_const_t<typename T::element_type>;
    // not unique_ptr<E[]>, which does not know its length, and no deleter of its own
    return std_template(type_name<typename T::deleter_type>()) == "default_delete" &&
           requires(T pointer) { *pointer; } && encodable<Element, Seen...>();
  } else if constexpr (kind == Kind::kDuration) {
    return encodable<typename T::rep, Seen...>();
  } else if constexpr (kind == Kind::kTimePoint) {
    return encodable<typename T::duration, Seen...>();
  } else if constexpr (kind == Kind::kArray || kind == Kind::kOptional) {
    return encodable<typename T::value_type, Seen...>();
  } else {  // string, vector, list, set
    return std::is_default_constructible_v<T> && encodable<typename T::value_type, Seen...>();
  }
}

template <class T>
inline constexpr bool kEncodable = encodable<T>();

// --- flat types ---

template <class T>
consteval bool flat();

template <class... F>
consteval bool all_flat(TypeList<F...>) {
  return (flat<std::remove_all_extents_t<F>>() && ...);
}

template <class T>
consteval bool flat() {
  constexpr Kind kind = kKind<T>;
  if constexpr (kind == Kind::kScalar) {
    return true;
  } else if constexpr (!std::is_trivially_copyable_v<T>) {
    return false;
  } else if constexpr (kind == Kind::kComplex || kind == Kind::kArray) {
    return flat<typename T::value_type>();
  } else if constexpr (kind == Kind::kDuration || kind == Kind::kTimePoint) {
    return flat<typename T::rep>();
  } else if constexpr (kind == Kind::kAggregate) {
    return all_flat(FieldTypes<T>{});
  } else {
    return false;
  }
}

// Trivially copyable alone is asked first: it is cheap, and most classes are not.
template <class T>
consteval bool flat_object() {
  if constexpr (!std::is_object_v<T> || std::is_array_v<T>) {
    return false;
  } else if constexpr (!requires { sizeof(T); }) {
    return false;
  } else if constexpr (std::is_trivially_copyable_v<T>) {
    return flat<T>();
  } else {
    return false;
  }
}

}  // namespace detail

// T travels: encode and decode work for it. Never an error itself, whatever T is.
template <class T>
concept Encodable = detail::kEncodable<T>;

// T is nothing but its bytes: an arithmetic type, an enum, std::complex, a chrono type, or
// an array or aggregate of such. Ranges of it are one block and can be read in place.
template <class T>
inline constexpr bool is_flat_v = detail::flat_object<std::remove_cv_t<T>>();

namespace detail {

// --- blocks of flat elements ---

// Not every byte pattern is a bool: such types are looked at before they are used.
template <class T>
consteval bool has_bool();

template <class... F>
consteval bool any_has_bool(TypeList<F...>) {
  return (has_bool<std::remove_all_extents_t<F>>() || ...);
}

template <class T>
consteval bool has_bool() {
  if constexpr (std::is_enum_v<T>) {
    return std::is_same_v<std::underlying_type_t<T>, bool>;
  } else if constexpr (kKind<T> == Kind::kArray) {
    return has_bool<typename T::value_type>();
  } else if constexpr (kKind<T> == Kind::kAggregate) {
    return any_has_bool(FieldTypes<T>{});
  } else {
    return std::is_same_v<T, bool>;
  }
}

// The bools in `value`, looked at as bytes, are all 0 or 1.
template <class T>
bool bools_hold(const T& value) {
  if constexpr (std::is_array_v<T> || kIsStdArray<T>) {
    if constexpr (kIsStdArray<T>) {
      if (value.empty()) return true;
    }
    for (const auto& element : value) {
      if (!bools_hold(element)) return false;
    }
    return true;
  } else if constexpr (!has_bool<T>()) {
    return true;
  } else if constexpr (kKind<T> == Kind::kAggregate) {
    return with_fields(value,
                       []<class... F>(const auto&... field) { return (bools_hold(field) && ...); });
  } else {
    unsigned char byte;
    std::memcpy(&byte, &value, 1);
    return byte <= 1;
  }
}

// Throws unless the bytes at `at` may be used as a T.
template <class T>
void check_bools(const std::byte* at) {
  if constexpr (has_bool<T>()) {
    alignas(T) std::byte copy[sizeof(T)];
    std::memcpy(copy, at, sizeof(T));
    if (!bools_hold(*reinterpret_cast<const T*>(copy)))
      throw_decode_error("a bool is neither 0 nor 1");
  }
}

template <class T>
constexpr std::size_t block_alignment(std::size_t size) {
  const std::size_t wanted = size >= kLargeBlock ? kLargeBlockAlignment : 1;
  return wanted > alignof(T) ? wanted : alignof(T);
}

template <class T>
void write_block(Writer& writer, const T* data, std::size_t count) {
  const std::size_t size = count * sizeof(T);
  if (size == 0) return;
  writer.align(block_alignment<T>(size));
  writer.bytes(data, size);
}

// `count` elements of T, in place, their bools checked.
template <class T>
const std::byte* read_block(Reader& reader, std::uint64_t count) {
  if (count > reader.remaining() / sizeof(T))
    throw_decode_error("a count exceeds the bytes that are left");
  const std::size_t size = static_cast<std::size_t>(count) * sizeof(T);
  if (size != 0) reader.align(block_alignment<T>(size));
  const std::byte* block = reader.bytes(size);
  if constexpr (has_bool<T>()) {
    for (std::size_t i = 0; i < count; ++i) check_bools<T>(block + i * sizeof(T));
  }
  return block;
}

template <class T>
bool is_aligned(const std::byte* at) {
  return reinterpret_cast<std::uintptr_t>(at) % alignof(T) == 0;
}

// --- elements ---

// A codec may write nothing for a value. In a container each element takes at least a
// byte, so that a count can be checked against the bytes that are left.
template <class T>
void encode_element(Writer& writer, const T& value) {
  const std::size_t before = writer.size();
  mobula::encode(writer, value);
  if (writer.size() == before) writer.raw(std::byte{0});
}

template <class T>
T decode_element(Reader& reader) {
  const std::size_t before = reader.remaining();
  if constexpr (is_flat_v<T>) {
    return mobula::decode<T>(reader);
  } else {
    T value = mobula::decode<T>(reader);
    if (reader.remaining() == before) reader.bytes(1);
    return value;
  }
}

inline std::uint64_t read_count(Reader& reader) {
  const auto count = reader.raw<std::uint64_t>();
  if (count > reader.remaining()) throw_decode_error("a count exceeds the bytes that are left");
  return count;
}

// What is asked for up front is no more than the input's own size; the rest grows as
// elements really arrive.
template <class T>
void reserve(T& range, std::uint64_t count, std::size_t input_bytes) {
  const std::size_t affordable = 1 + input_bytes / sizeof(typename T::value_type);
  if constexpr (requires { range.reserve(affordable); }) {
    range.reserve(count < affordable ? static_cast<std::size_t>(count) : affordable);
  }
}

// --- encode by kind ---

template <class T>
void encode_bits(Writer& writer, const T& bits) {
  writer.raw<std::uint64_t>(bits.size());
  unsigned char byte = 0;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (bits[i]) byte = static_cast<unsigned char>(byte | 1u << i % 8);
    if (i % 8 == 7 || i + 1 == bits.size()) {
      writer.raw(byte);
      byte = 0;
    }
  }
}

template <class T>
void encode_range(Writer& writer, const T& range) {
  writer.raw<std::uint64_t>(range.size());
  if constexpr (HasData<T> && is_flat_v<typename T::value_type>) {
    write_block(writer, range.data(), range.size());
  } else {
    const Nesting<Writer> nesting(writer);
    for (const auto& element : range) encode_element(writer, element);
  }
}

template <class T>
void encode_field(Writer& writer, const T& field) {
  if constexpr (std::is_array_v<T>) {
    for (const auto& element : field) encode_field(writer, element);
  } else {
    mobula::encode(writer, field);
  }
}

template <class T, std::size_t... I>
void encode_variant(Writer& writer, const T& value, std::index_sequence<I...>) {
  using std::get;  // and not mobula::get
  if (value.valueless_by_exception())
    throw_decode_error("a variant without value cannot be encoded");
  writer.raw(static_cast<std::uint8_t>(value.index()));
  const Nesting<Writer> nesting(writer);
  (void)((value.index() == I ? (mobula::encode(writer, get<I>(value)), true) : false) || ...);
}

template <class T>
void encode_value(Writer& writer, const T& value) {
  constexpr Kind kind = kKind<T>;
  if constexpr (kind == Kind::kUser) {
    const Nesting<Writer> nesting(writer);
    codec<T>::encode(writer, value);
  } else if constexpr (kind == Kind::kArray) {
    if constexpr (std::tuple_size_v<T> == 0) {
      return;
    } else if constexpr (is_flat_v<T>) {
      write_block(writer, value.data(), value.size());
    } else {
      for (const auto& element : value) mobula::encode(writer, element);
    }
  } else if constexpr (is_flat_v<T>) {
    writer.raw(value);
  } else if constexpr (kind == Kind::kAggregate) {
    with_fields(value,
                [&]<class... F>(const auto&... field) { (encode_field(writer, field), ...); });
  } else if constexpr (kind == Kind::kPair) {
    mobula::encode(writer, value.first);
    mobula::encode(writer, value.second);
  } else if constexpr (kind == Kind::kTuple) {
    std::apply([&](const auto&... part) { (mobula::encode(writer, part), ...); }, value);
  } else if constexpr (kind == Kind::kVector && !HasData<T>) {
    encode_bits(writer, value);
  } else if constexpr (kind == Kind::kMap) {
    writer.raw<std::uint64_t>(value.size());
    const Nesting<Writer> nesting(writer);
    for (const auto& [key, mapped] : value) {
      const std::size_t before = writer.size();
      mobula::encode(writer, key);
      mobula::encode(writer, mapped);
      if (writer.size() == before) writer.raw(std::byte{0});
    }
  } else if constexpr (kind == Kind::kOptional || kind == Kind::kPointer) {
    const bool present = static_cast<bool>(value);
    writer.raw(present);
    const Nesting<Writer> nesting(writer);
    if (present) mobula::encode(writer, *value);
  } else if constexpr (kind == Kind::kVariant) {
    encode_variant(writer, value, std::make_index_sequence<size_of(ArgumentsOf<T>{})>{});
  } else if constexpr (kind == Kind::kDuration) {
    mobula::encode(writer, value.count());
  } else if constexpr (kind == Kind::kTimePoint) {
    mobula::encode(writer, value.time_since_epoch());
  } else {
    encode_range(writer, value);
  }
}

// --- decode by kind ---

template <class T>
T decode_bits(Reader& reader) {
  const auto count = reader.raw<std::uint64_t>();
  const std::uint64_t size = count / 8 + (count % 8 != 0);
  if (size > reader.remaining()) throw_decode_error("a count exceeds the bytes that are left");
  const std::byte* bytes = reader.bytes(static_cast<std::size_t>(size));
  T bits(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < bits.size(); ++i)
    bits[i] = (bytes[i / 8] >> i % 8 & std::byte{1}) != std::byte{0};
  return bits;
}

template <class T>
T decode_range(Reader& reader) {
  using Element = typename T::value_type;
  T range;
  if constexpr (HasData<T> && is_flat_v<Element>) {
    const auto count = reader.raw<std::uint64_t>();
    const std::byte* block = read_block<Element>(reader, count);
    if (is_aligned<Element>(block)) {
      const auto* first = reinterpret_cast<const Element*>(block);
      range.assign(first, first + count);
    } else {  // only where the buffer is less aligned than the element
      Reader elements(block, static_cast<std::size_t>(count) * sizeof(Element));
      reserve(range, count, elements.remaining());
      for (std::uint64_t i = 0; i < count; ++i) range.push_back(elements.raw<Element>());
    }
  } else {
    const std::uint64_t count = read_count(reader);
    const Nesting<Reader> nesting(reader);
    reserve(range, count, reader.remaining());
    for (std::uint64_t i = 0; i < count; ++i) {
      if constexpr (kKind<T> == Kind::kSet) {
        range.emplace_hint(range.end(), decode_element<Element>(reader));
      } else {
        range.push_back(decode_element<Element>(reader));
      }
    }
  }
  return range;
}

template <class T>
T decode_map(Reader& reader) {
  const std::uint64_t count = read_count(reader);
  const Nesting<Reader> nesting(reader);
  T map;
  reserve(map, count, reader.remaining());
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::size_t before = reader.remaining();
    auto key = mobula::decode<typename T::key_type>(reader);
    auto mapped = mobula::decode<typename T::mapped_type>(reader);
    if (reader.remaining() == before) reader.bytes(1);
    map.emplace_hint(map.end(), std::move(key), std::move(mapped));
  }
  return map;
}

template <class T, std::size_t I = 0>
T decode_variant(Reader& reader, std::uint8_t index) {
  using Alternatives = ArgumentsOf<T>;
  if constexpr (I < size_of(Alternatives{})) {
    if (index != I) return decode_variant<T, I + 1>(reader, index);
    return T(std::in_place_index<I>,
             mobula::decode<typename TypeAt<I, Alternatives>::Type>(reader));
  } else {
    throw_decode_error("a variant's index is out of range");
  }
}

template <class T>
void decode_into(Reader& reader, T& field) {
  if constexpr (std::is_array_v<T>) {
    for (auto& element : field) decode_into(reader, element);
  } else {
    field = mobula::decode<T>(reader);
  }
}

template <class T, class... F>
T decode_aggregate(Reader& reader, TypeList<F...>) {
  if constexpr ((std::is_array_v<F> || ...)) {
    T value{};
    with_fields(value, [&]<class...>(auto&... field) { (decode_into(reader, field), ...); });
    return value;
  } else {
    return T{mobula::decode<F>(reader)...};  // braces: evaluated from left to right
  }
}

template <class T, std::size_t... I>
T decode_array(Reader& reader, std::index_sequence<I...>) {
  return T{{(static_cast<void>(I), mobula::decode<typename T::value_type>(reader))...}};
}

template <class T, class... P>
T decode_product(Reader& reader, TypeList<P...>) {
  return T{mobula::decode<std::remove_const_t<P>>(reader)...};
}

template <class T>
T decode_value(Reader& reader) {
  constexpr Kind kind = kKind<T>;
  if constexpr (kind == Kind::kUser) {
    const Nesting<Reader> nesting(reader);
    return codec<T>::decode(reader);
  } else if constexpr (kind == Kind::kArray) {
    if constexpr (std::tuple_size_v<T> == 0) {
      return T{};
    } else if constexpr (is_flat_v<T>) {
      const std::byte* block = read_block<typename T::value_type>(reader, std::tuple_size_v<T>);
      return Reader(block, sizeof(T)).raw<T>();
    } else {
      return decode_array<T>(reader, std::make_index_sequence<std::tuple_size_v<T>>{});
    }
  } else if constexpr (is_flat_v<T>) {
    if constexpr (has_bool<T>()) {
      const std::byte* at = reader.bytes(sizeof(T));
      check_bools<T>(at);
      return Reader(at, sizeof(T)).raw<T>();
    } else {
      return reader.raw<T>();
    }
  } else if constexpr (kind == Kind::kAggregate) {
    return decode_aggregate<T>(reader, FieldTypes<T>{});
  } else if constexpr (kind == Kind::kPair || kind == Kind::kTuple) {
    return decode_product<T>(reader, ArgumentsOf<T>{});
  } else if constexpr (kind == Kind::kVector && !HasData<T>) {
    return decode_bits<T>(reader);
  } else if constexpr (kind == Kind::kMap) {
    return decode_map<T>(reader);
  } else if constexpr (kind == Kind::kOptional) {
    if (!reader.raw<bool>()) return T();
    const Nesting<Reader> nesting(reader);
    return T(std::in_place, mobula::decode<std::remove_const_t<typename T::value_type>>(reader));
  } else if constexpr (kind == Kind::kPointer) {
    if (!reader.raw<bool>()) return T();
    const Nesting<Reader> nesting(reader);
    using Element = std::remove_const_t<typename T::element_type>;
    return T(new Element(mobula::decode<Element>(reader)));
  } else if constexpr (kind == Kind::kVariant) {
    const auto index = reader.raw<std::uint8_t>();
    const Nesting<Reader> nesting(reader);
    return decode_variant<T>(reader, index);
  } else if constexpr (kind == Kind::kDuration) {
    return T(mobula::decode<typename T::rep>(reader));
  } else if constexpr (kind == Kind::kTimePoint) {
    return T(mobula::decode<typename T::duration>(reader));
  } else {
    return decode_range<T>(reader);
  }
}

// --- what the compiler says of a type that does not travel ---

template <class T>
struct Named {
  using Type = T;
};

// The innermost part of T that keeps it from travelling, or T itself.
template <class T, class... Seen>
consteval auto offender();

template <class T, class F, class... Rest, class... Seen>
consteval auto first_offender(TypeList<F, Rest...>, TypeList<Seen...>) {
  using Part = std::remove_cv_t<std::remove_all_extents_t<F>>;
  if constexpr (!encodable<Part, Seen...>()) {
    return offender<Part, Seen...>();
  } else {
    return first_offender<T>(TypeList<Rest...>{}, TypeList<Seen...>{});
  }
}

template <class T, class... Seen>
consteval auto first_offender(TypeList<>, TypeList<Seen...>) {
  return Named<T>{};
}

template <class T, class... Seen>
consteval auto offender() {
  constexpr Kind kind = kKind<T>;
  if constexpr (kind == Kind::kAggregate) {
    return first_offender<T>(FieldTypes<T>{}, TypeList<T, Seen...>{});
  } else if constexpr (kind == Kind::kArray) {
    return first_offender<T>(TypeList<typename T::value_type>{}, TypeList<Seen...>{});
  } else if constexpr (kind == Kind::kPointer) {
    return first_offender<T>(TypeList<typename T::element_type>{}, TypeList<Seen...>{});
  } else if constexpr (kind != Kind::kNone && kind != Kind::kUser &&
                       requires { typename ArgumentsOf<T>; }) {
    return first_offender<T>(ArgumentsOf<T>{}, TypeList<Seen...>{});
  } else {
    return Named<T>{};
  }
}

// The words stand in a function whose template argument names the part: the compiler
// prints it beside them.
template <class Part>
consteval void refuse() {
  if constexpr (has_base<Part>()) {
    static_assert(!has_base<Part>(),
                  "mobula: an aggregate with a base class has no codec. Specialise "
                  "mobula::codec<T> with encode "
                  "and decode, or make the base a field.");
  } else {
    static_assert(kEncodable<Part>,
                  "mobula: this type has no codec. Specialise mobula::codec<T> with encode and "
                  "decode, or make it "
                  "an aggregate.");
  }
}

template <class T>
consteval bool require_codec() {
  if constexpr (!kEncodable<T>) refuse<typename decltype(offender<std::remove_cv_t<T>>())::Type>();
  return kEncodable<T>;
}

}  // namespace detail

// Appends `value`. It can be counted first, with Writer(nullptr, 0), or written at once.
// Throws if it is nested more than 512 containers deep or holds a variant without value.
template <class T>
void encode(Writer& writer, const T& value) {
  if constexpr (detail::require_codec<T>()) detail::encode_value(writer, value);
}

// Reads the next value. Throws DecodeError if the bytes are not a T, and then has kept nothing.
template <class T>
T decode(Reader& reader) {
  if constexpr (detail::require_codec<T>()) {
    return detail::decode_value<std::remove_const_t<T>>(reader);
  } else {
    __builtin_unreachable();  // one error is enough: no second one about a missing return
  }
}

// The elements of an encoded std::vector<T>, in place: valid as long as the bytes are.
// Throws DecodeError if the bytes are too short or lie at an address that T cannot have.
template <class T>
std::span<const T> decode_span(Reader& reader) {
  static_assert(is_flat_v<T>,
                "mobula: only a range of plain data can be read in place; take std::vector<T>.");
  const auto count = reader.raw<std::uint64_t>();
  const std::byte* block = detail::read_block<T>(reader, count);
  if (count == 0) return {};
  if (!detail::is_aligned<T>(block))
    detail::throw_decode_error("a block is not aligned for reading in place");
  return {reinterpret_cast<const T*>(block), static_cast<std::size_t>(count)};
}

// The characters of an encoded std::string, in place: valid as long as the bytes are.
inline std::string_view decode_string_view(Reader& reader) {
  const std::span<const char> text = decode_span<char>(reader);
  return {text.data(), text.size()};
}

}  // namespace mobula
