// Elements of an object as an array of several dimensions, read where they lie in the store.
//
//   std::vector<float> image(const mobula::TensorView<float, 3>& pixels);
//   mobula::TensorView<double, 2> m(mobula::get_view(ref), {rows, columns});
//   double x = m(1, 2);
//   mobula::TensorView<double, 1> column = m.slice(1, 2);  // m(i, 2) for all i
//
// Row-major unless strides are given. It pins the object as its View does, copies share it.
// A TensorView is not a value that travels: pass the Ref of the elements and the shape.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "mobula/error.h"
#include "mobula/view.h"

namespace mobula {

// `Rank` dimensions of plain elements T.
template <class T, std::size_t Rank>
class TensorView {
  static_assert(Rank > 0, "mobula: a single element needs no TensorView");

 public:
  using Index = std::array<std::size_t, Rank>;

  TensorView() = default;

  // Of as many elements as the shape says, row-major. Throws Error: the view has another number.
  TensorView(View<T> elements, const Index& shape)
      : TensorView(std::move(elements), shape, row_major(shape)) {
    if (count_ != elements_.size())
      refuse("the view has another number of elements than the shape");
  }

  // With strides of its own, counted in elements, from the first element on. Throws Error: an
  // element lies outside of the view.
  TensorView(View<T> elements, const Index& shape, const Index& strides)
      : elements_(std::move(elements)), data_(elements_.data()), shape_(shape), strides_(strides) {
    std::size_t last = 0;
    count_ = 1;
    bool fits = true;
    for (std::size_t d = 0; d < Rank; ++d) {
      fits &= !__builtin_mul_overflow(count_, shape_[d], &count_);
      std::size_t reach = 0;
      const std::size_t steps = shape_[d] == 0 ? 0 : shape_[d] - 1;
      fits &= !__builtin_mul_overflow(steps, strides_[d], &reach) &&
              !__builtin_add_overflow(last, reach, &last);
    }
    if (!fits || (count_ != 0 && last >= elements_.size()))
      refuse("its elements do not lie within the view");
  }

  const Index& shape() const noexcept { return shape_; }
  std::size_t extent(std::size_t dimension) const noexcept { return shape_[dimension]; }
  const Index& strides() const noexcept { return strides_; }  // in elements
  std::size_t size() const noexcept { return count_; }
  const T* data() const noexcept { return data_; }  // the element at (0, 0, ...)

  // Not checked, like operator[].
  template <class... I>
    requires(sizeof...(I) == Rank && (std::is_convertible_v<I, std::size_t> && ...))
  const T& operator()(I... index) const noexcept {
    return data_[offset({static_cast<std::size_t>(index)...})];
  }
  // Throws Error: out of range.
  const T& at(const Index& index) const {
    for (std::size_t d = 0; d < Rank; ++d) {
      if (index[d] >= shape_[d]) refuse("an index is out of range");
    }
    return data_[offset(index)];
  }

  // What has `index` in `dimension`; the others stay, in their order. Throws Error: out of range.
  TensorView<T, Rank - 1> slice(std::size_t dimension, std::size_t index) const
    requires(Rank > 1)
  {
    if (dimension >= Rank || index >= shape_[dimension]) refuse("a slice is out of range");
    TensorView<T, Rank - 1> part;
    part.elements_ = elements_;
    part.data_ = data_ + index * strides_[dimension];
    part.count_ = 1;
    for (std::size_t d = 0, to = 0; d < Rank; ++d) {
      if (d == dimension) continue;
      part.shape_[to] = shape_[d];
      part.strides_[to++] = strides_[d];
      part.count_ *= shape_[d];
    }
    return part;
  }

 private:
  template <class, std::size_t>
  friend class TensorView;

  static Index row_major(const Index& shape) {
    Index strides{};
    std::size_t stride = 1;
    for (std::size_t d = Rank; d-- > 0; stride *= shape[d]) strides[d] = stride;
    return strides;
  }
  std::size_t offset(const Index& index) const noexcept {
    std::size_t sum = 0;
    for (std::size_t d = 0; d < Rank; ++d) sum += index[d] * strides_[d];
    return sum;
  }
  [[noreturn]] static void refuse(const char* why) {
    throw Error("TensorView of " + std::to_string(Rank) + " dimensions: " + why);
  }

  View<T> elements_;
  const T* data_ = nullptr;
  Index shape_{};
  Index strides_{};
  std::size_t count_ = 0;
};

}  // namespace mobula
