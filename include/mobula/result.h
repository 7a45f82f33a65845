// A value or an error that happens in a healthy program: Result<T>, with the member names of
// std::expected.
//
// Our own short type because GCC 12 has std::expected only from C++23 on; the day the compilers
// move, it becomes an alias.
#pragma once

#include <exception>
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
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }
  template <class U>
  T value_or(U&& other) const {
    return has_value() ? std::get<0>(state_) : static_cast<T>(std::forward<U>(other));
  }

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
