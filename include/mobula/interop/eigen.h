// Eigen's dense matrices as values, and read in place.
//
//   double norm(const Eigen::MatrixXd& m);                 // a copy of its own
//   double norm(const Eigen::Map<const Eigen::MatrixXd>& m);  // reads the store
//
// Matrix and Array, of fixed and of dynamic size, of any storage order, of plain scalars. A
// parameter `Eigen::Map<const M>` takes an M or a Ref<M> and copies nothing; get_map(ref) does the
// same for the caller of a task.
//
// Matrices may be fields of aggregates and elements of containers. Only a std::optional of one
// cannot be a field of an aggregate without a codec: it asks the matrix's constructor, which takes
// anything, what it could be made of.
//
// Bytes: the numbers of rows and columns (8 bytes each), then the elements in their own order.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "mobula/mobula.h"

namespace mobula {
namespace detail {

template <class T>
inline constexpr bool kIsEigen = false;
template <class S, int R, int C, int O, int MR, int MC>
inline constexpr bool kIsEigen<Eigen::Matrix<S, R, C, O, MR, MC>> = is_flat_v<S>;
template <class S, int R, int C, int O, int MR, int MC>
inline constexpr bool kIsEigen<Eigen::Array<S, R, C, O, MR, MC>> = is_flat_v<S>;

template <class M>
struct EigenElements {
  Eigen::Index rows;
  Eigen::Index cols;
  std::span<const typename M::Scalar> elements;  // in place
};

// Throws DecodeError: the sizes are not those of an M, or do not fit to the elements.
template <class M>
EigenElements<M> read_eigen(Reader& reader) {
  const auto fits = [](std::uint64_t n, Eigen::Index fixed, Eigen::Index at_most) {
    return fixed != Eigen::Dynamic
               ? n == static_cast<std::uint64_t>(fixed)
               : at_most == Eigen::Dynamic || n <= static_cast<std::uint64_t>(at_most);
  };
  const auto rows = reader.raw<std::uint64_t>();
  const auto cols = reader.raw<std::uint64_t>();
  const auto elements = decode_span<typename M::Scalar>(reader);
  std::uint64_t count = 0;
  if (!fits(rows, M::RowsAtCompileTime, M::MaxRowsAtCompileTime) ||
      !fits(cols, M::ColsAtCompileTime, M::MaxColsAtCompileTime) ||
      __builtin_mul_overflow(rows, cols, &count) || count != elements.size())
    throw_decode_error("a matrix has another size than its type or its elements say");
  return {static_cast<Eigen::Index>(rows), static_cast<Eigen::Index>(cols), elements};
}

template <class M>
Eigen::Map<const M> map_of(const EigenElements<M>& matrix) {
  return {matrix.elements.data(), matrix.rows, matrix.cols};
}

}  // namespace detail

template <class M>
  requires detail::kIsEigen<M>
struct codec<M> {
  static void encode(Writer& writer, const M& matrix) {
    writer.raw(static_cast<std::uint64_t>(matrix.rows()));
    writer.raw(static_cast<std::uint64_t>(matrix.cols()));
    const auto count = static_cast<std::size_t>(matrix.size());
    writer.raw(std::uint64_t{count});
    detail::write_block(writer, matrix.data(), count);
  }
  static M decode(Reader& reader) { return M(detail::map_of<M>(detail::read_eigen<M>(reader))); }
};

namespace detail {

template <class M>
  requires kIsEigen<M>
struct Parameter<Eigen::Map<const M>> {  // read in place
  using Stored = M;
  explicit Parameter(Execution& e) : value(map_of<M>(read_eigen<M>(e.argument()))) {}
  Eigen::Map<const M> pass() { return value; }
  Eigen::Map<const M> value;
};
template <class M>
  requires kIsEigen<M>
struct Parameter<const Eigen::Map<const M>&> : Parameter<Eigen::Map<const M>> {
  using Parameter<Eigen::Map<const M>>::Parameter;
  const Eigen::Map<const M>& pass() { return this->value; }
};
template <class M, class A>
  requires kIsEigen<M>
inline constexpr bool kRefStandsFor<Eigen::Map<const M>, A> = std::is_same_v<M, A>;
template <class M, class A>
  requires kIsEigen<M>
inline constexpr bool kRefStandsFor<const Eigen::Map<const M>&, A> = std::is_same_v<M, A>;

}  // namespace detail

// A matrix of the store, read-only, where it lies: pinned while it is held, and it outlives its
// Ref. *map is an Eigen::Map<const M>.
template <class M>
class MatrixView {
 public:
  MatrixView(Ref<M> ref, detail::Bytes bytes)
      : ref_(std::move(ref)), bytes_(std::move(bytes)), map_(read(bytes_)) {}
  const Eigen::Map<const M>& operator*() const noexcept { return map_; }
  const Eigen::Map<const M>* operator->() const noexcept { return &map_; }

 private:
  static Eigen::Map<const M> read(const detail::Bytes& bytes) {
    Reader reader(bytes.data, bytes.size);
    return detail::map_of<M>(detail::read_eigen<M>(reader));
  }

  Ref<M> ref_;
  detail::Bytes bytes_;
  Eigen::Map<const M> map_;
};

// Waits for the matrix and shows it in place. Throws as get.
template <class M>
  requires detail::kIsEigen<M>
MatrixView<M> get_map(const Ref<M>& ref, std::optional<Duration> timeout = {}) {
  return {ref, detail::get_bytes(ref.address(), ref.session(), timeout)};
}

}  // namespace mobula
