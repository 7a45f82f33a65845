// Reading and writing objects in place: View<T> and Buffer.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mobula/ref.h"

namespace mobula {

template <class T>
class View;

namespace detail {
struct ViewAccess;
}

// Read-only elements of an object, where they lie in the store. Pins the object while it lives, and
// outlives its Ref, but not the session. As an argument it stands for the object, which is not
// copied.
template <class T>
class View {
 public:
  View() = default;
  // `is_value`: a vector<T> could be decoded from the object.
  View(Ref<Buffer> object, detail::Pin pin, std::span<const T> elements, bool is_value = true)
      : object_(std::move(object)),
        pin_(std::move(pin)),
        elements_(elements),
        is_value_(is_value) {}

  const T* data() const noexcept { return elements_.data(); }
  std::size_t size() const noexcept { return elements_.size(); }
  bool empty() const noexcept { return elements_.empty(); }
  const T& operator[](std::size_t i) const noexcept { return elements_[i]; }
  const T* begin() const noexcept { return elements_.data(); }
  const T* end() const noexcept { return elements_.data() + elements_.size(); }
  operator std::span<const T>() const noexcept { return elements_; }

 private:
  friend detail::ViewAccess;

  Ref<Buffer> object_;  // of whatever type it is
  detail::Pin pin_;
  std::span<const T> elements_;
  bool is_value_ = false;
};

namespace detail {

template <class T>
inline constexpr bool kIsView = false;
template <class T>
inline constexpr bool kIsView<View<T>> = true;

struct ViewAccess {
  // The object that may be passed on for the elements; nullptr: there is none.
  template <class T>
  static const Ref<Buffer>* object(const View<T>& view) {
    return view.is_value_ ? &view.object_ : nullptr;
  }
};

}  // namespace detail

// Bytes of the store that are being written: nobody else sees them before seal().
class Buffer {
 public:
  Buffer(Buffer&& other) noexcept : open_(std::exchange(other.open_, {})) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(open_, other.open_);
    return *this;
  }
  ~Buffer() {
    if (open_.data) detail::abandon_buffer(open_);
  }

  std::byte* data() noexcept { return open_.data; }
  std::size_t size() const noexcept { return open_.size; }
  std::span<std::byte> span() noexcept { return {open_.data, open_.size}; }

  // Makes the bytes an immutable object. The buffer is empty afterwards. Throws Error when it was
  // sealed before.
  Ref<Buffer> seal() { return Ref<Buffer>::own(detail::seal_buffer(open_)); }

 private:
  friend Buffer create_buffer(std::size_t size);
  explicit Buffer(detail::OpenBuffer open) : open_(open) {}
  detail::OpenBuffer open_;
};

// `size` bytes of the store to write into; from 1 KiB on they begin on a cache line, below at a
// multiple of 8. Throws ObjectStoreFullError.
inline Buffer create_buffer(std::size_t size) { return Buffer(detail::open_buffer(size)); }

namespace detail {

// Which element type a view of an object of type T has.
template <class T>
struct ViewElement {};
template <class T, class A>
struct ViewElement<std::vector<T, A>> {
  using type = T;
};
template <class C, class R, class A>
struct ViewElement<std::basic_string<C, R, A>> {
  using type = C;
};
template <>
struct ViewElement<Buffer> {
  using type = std::byte;
};

template <class T>
concept Viewable =
    requires { typename ViewElement<T>::type; } && is_flat_v<typename ViewElement<T>::type>;

}  // namespace detail
}  // namespace mobula
