// The handle of a value that may not exist yet: what remote(), call() and put() return at once.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/codec.h"
#include "mobula/detail/runtime.h"

namespace mobula {

// An object of bytes (put_buffer, create_buffer); see view.h.
class Buffer;

// A counted handle: the value lives as long as a Ref to it exists anywhere, also inside of other
// objects and pending calls. Copyable, comparable, hashable; default-constructed it is empty.
// Copying and dropping cost a few nanoseconds. Safe to copy between threads; one Ref object is not
// safe to change from two threads at once.
template <class T>
class Ref {
 public:
  using value_type = T;

  Ref() = default;
  Ref(const Ref& other) : handle_(other.handle_) {
    if (handle_.session) detail::retain(handle_);
  }
  Ref(Ref&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Ref() {
    if (handle_.session) detail::release(handle_);
  }

  // Is there a value to wait for?
  explicit operator bool() const noexcept { return handle_.session != 0; }
  friend bool operator==(const Ref& a, const Ref& b) noexcept {
    return a.address() == b.address() && a.session() == b.session();
  }
  friend auto operator<=>(const Ref& a, const Ref& b) noexcept {
    return a.address() <=> b.address();
  }

  // For the library: takes over one count of `address`.
  static Ref own(RefAddress address) noexcept {
    Ref r;
    r.handle_ = {address, detail::current_session()};
    return r;
  }
  RefAddress address() const noexcept { return handle_.address; }
  std::uint64_t session() const noexcept { return handle_.session; }

 private:
  detail::RefHandle handle_;
};

namespace detail {
template <class T>
inline constexpr bool kIsRef = false;
template <class T>
inline constexpr bool kIsRef<Ref<T>> = true;

template <class T>
std::span<const RefHandle> handles(const std::vector<Ref<T>>& refs) {
  static_assert(std::is_standard_layout_v<Ref<T>> && sizeof(Ref<T>) == sizeof(RefHandle));
  return {reinterpret_cast<const RefHandle*>(refs.data()), refs.size()};
}
template <class T>
std::span<RefHandle> handles(std::vector<Ref<T>>& refs) {
  static_assert(std::is_standard_layout_v<Ref<T>> && sizeof(Ref<T>) == sizeof(RefHandle));
  return {reinterpret_cast<RefHandle*>(refs.data()), refs.size()};
}
}  // namespace detail

// Refs travel inside of values and keep what they name alive there.
template <class T>
struct codec<Ref<T>> {
  static void encode(Writer& writer, const Ref<T>& ref) {
    writer.raw(static_cast<bool>(ref));
    if (!ref) return;
    detail::check_ref(ref.address(), ref.session());
    writer.ref(ref.address());
  }
  static Ref<T> decode(Reader& reader) {
    if (!reader.raw<bool>()) return {};
    const RefAddress address = reader.ref();
    detail::adopt_decoded(address);
    return Ref<T>::own(address);
  }
};

}  // namespace mobula

template <class T>
struct std::hash<mobula::Ref<T>> {
  std::size_t operator()(const mobula::Ref<T>& ref) const noexcept {
    return (std::uint64_t{ref.address().generation} << 32 | ref.address().slot) *
           0x9e3779b97f4a7c15u;
  }
};
