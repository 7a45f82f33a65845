// A value or an error that happens in a healthy program: Result<T>, with the member names of
// std::expected.
//
// Our own short type because GCC 12 has std::expected only from C++23 on; the day the compilers
// move, it becomes an alias.
#pragma once

#include <exception>
#include <type_traits>
#include <utility>
#include <variant>

#include "mobula/error.h"

namespace mobula {

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  // `error` as it would have been thrown.
  static Result failure(std::exception_ptr error) { return Result(Failure{std::move(error)}); }

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  // Throws the error in its own type when there is no value.
  T& value() & { return require(), std::get<0>(state_); }
  const T& value() const& { return require(), std::get<0>(state_); }
  T&& value() && { return require(), std::get<0>(std::move(state_)); }
  T& operator*() & { return *std::get_if<0>(&state_); }
  const T& operator*() const& { return *std::get_if<0>(&state_); }
  T&& operator*() && { return std::move(*std::get_if<0>(&state_)); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }
  template <class U>
  T value_or(U&& other) const {
    return has_value() ? std::get<0>(state_) : static_cast<T>(std::forward<U>(other));
  }

  template <class... A>
  T& emplace(A&&... arguments) {
    return state_.template emplace<0>(std::forward<A>(arguments)...);
  }
  void swap(Result& other) { state_.swap(other.state_); }

  // fn of the value: transform gives a Result of what fn returns, and_then the Result that fn
  // returns; both pass an error on. or_else gives the value, or the Result that fn makes of the
  // error; transform_error passes the value on, or the error that fn makes of the error.
  template <class F>
  auto transform(F&& fn) const& {
    return map(*this, fn);
  }
  template <class F>
  auto transform(F&& fn) && {
    return map(std::move(*this), fn);
  }
  template <class F>
  auto and_then(F&& fn) const& {
    return chain(*this, fn);
  }
  template <class F>
  auto and_then(F&& fn) && {
    return chain(std::move(*this), fn);
  }
  template <class F>
  Result or_else(F&& fn) const& {
    return has_value() ? *this : fn(error());
  }
  template <class F>
  Result or_else(F&& fn) && {
    return has_value() ? std::move(*this) : fn(error());
  }
  template <class F>
  Result transform_error(F&& fn) const& {
    return has_value() ? *this : failure(std::make_exception_ptr(fn(error())));
  }
  template <class F>
  Result transform_error(F&& fn) && {
    return has_value() ? std::move(*this) : failure(std::make_exception_ptr(fn(error())));
  }
  Error error_or(Error other) const { return has_value() ? std::move(other) : error(); }

  // The error as a base object; only when !has_value().
  Error error() const {
    try {
      std::rethrow_exception(std::get<1>(state_).error);
    } catch (const Error& e) {
      return e;
    }
  }
  std::exception_ptr exception() const { return std::get<1>(state_).error; }

 private:
  struct Failure {
    std::exception_ptr error;
  };
  explicit Result(Failure f) : state_(std::in_place_index<1>, std::move(f)) {}
  template <class Self, class F>
  static auto map(Self&& self, F& fn) {
    using U = std::invoke_result_t<F&, decltype(std::forward<Self>(self).value())>;
    if (!self) return Result<U>::failure(self.exception());
    if constexpr (std::is_void_v<U>) {
      fn(std::forward<Self>(self).value());
      return Result<U>();
    } else {
      return Result<U>(fn(std::forward<Self>(self).value()));
    }
  }
  template <class Self, class F>
  static auto chain(Self&& self, F& fn) {
    using Next = std::invoke_result_t<F&, decltype(std::forward<Self>(self).value())>;
    return self ? fn(std::forward<Self>(self).value()) : Next::failure(self.exception());
  }
  void require() const {
    if (!has_value()) std::rethrow_exception(std::get<1>(state_).error);
  }

  std::variant<T, Failure> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  static Result failure(std::exception_ptr error) {
    Result r;
    r.error_ = std::move(error);
    return r;
  }
  bool has_value() const noexcept { return !error_; }
  explicit operator bool() const noexcept { return has_value(); }
  void value() const {
    if (error_) std::rethrow_exception(error_);
  }
  void operator*() const noexcept {}
  void emplace() noexcept { error_ = nullptr; }
  void swap(Result& other) noexcept { std::swap(error_, other.error_); }

  template <class F>
  auto transform(F&& fn) const {
    using U = std::invoke_result_t<F&>;
    if (error_) return Result<U>::failure(error_);
    if constexpr (std::is_void_v<U>) {
      fn();
      return Result();
    } else {
      return Result<U>(fn());
    }
  }
  template <class F>
  auto and_then(F&& fn) const {
    return error_ ? std::invoke_result_t<F&>::failure(error_) : fn();
  }
  template <class F>
  Result or_else(F&& fn) const {
    return error_ ? fn(error()) : *this;
  }
  template <class F>
  Result transform_error(F&& fn) const {
    return error_ ? failure(std::make_exception_ptr(fn(error()))) : *this;
  }
  Error error_or(Error other) const { return error_ ? error() : std::move(other); }
  Error error() const {
    try {
      std::rethrow_exception(error_);
    } catch (const Error& e) {
      return e;
    }
  }
  std::exception_ptr exception() const { return error_; }

 private:
  std::exception_ptr error_;
};

}  // namespace mobula
