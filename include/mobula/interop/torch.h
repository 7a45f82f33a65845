// libtorch's tensors as values, and read in place.
//
//   torch::Tensor step(torch::Tensor weights);        // a copy of its own, to be changed at will
//   double loss(mobula::SharedTensor weights);        // reads the store: weights.tensor
//   mobula::SharedTensor w = mobula::get_tensor(ref); // the same for the caller of a task
//
// Dense tensors of the CPU travel, of any scalar type but quantized ones; others are moved or made
// dense by the caller. Autograd's graph and requires_grad stay behind.
//
// A SharedTensor's elements are in the store, where nobody may write: an operation in place
// (add_, copy_ into it) ends the process by SIGSEGV. clone() first. It pins the object as long as
// the tensor or a view of it lives.
//
// Bytes: the scalar type and the number of dimensions (8 bytes each), the sizes (8 bytes each), the
// number of bytes, then the elements, row-major.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/mobula.h"

namespace mobula {

// Read-only, in the store.
struct SharedTensor {
  torch::Tensor tensor;
};

namespace detail {

struct TensorElements {
  torch::ScalarType type;
  std::vector<std::int64_t> sizes;
  const std::byte* data;  // in place
};

inline void align_tensor(auto& stream, std::size_t size) {
  stream.align(block_alignment<std::uint64_t>(size));
}

// Throws DecodeError: the type or a size is none, or they do not fit to the elements.
inline TensorElements read_tensor(Reader& reader) {
  const auto type = reader.raw<std::uint64_t>();
  const auto dimensions = reader.raw<std::uint64_t>();
  if (type >= static_cast<std::uint64_t>(torch::ScalarType::NumOptions) ||
      torch::isQIntType(static_cast<torch::ScalarType>(type)))
    throw_decode_error("a tensor's scalar type is out of range");
  if (dimensions > reader.remaining() / sizeof(std::int64_t))
    throw_decode_error("a tensor has more dimensions than bytes are left");
  TensorElements result{static_cast<torch::ScalarType>(type), {}, nullptr};
  std::uint64_t size = torch::elementSize(result.type);
  bool fits = true;
  for (std::uint64_t d = 0; d < dimensions; ++d) {
    const auto extent = reader.raw<std::int64_t>();
    fits &= extent >= 0 && !__builtin_mul_overflow(size, static_cast<std::uint64_t>(extent), &size);
    result.sizes.push_back(extent);
  }
  if (!fits || reader.raw<std::uint64_t>() != size || size > reader.remaining())
    throw_decode_error("a tensor has another size than its elements");
  align_tensor(reader, static_cast<std::size_t>(size));
  result.data = reader.bytes(static_cast<std::size_t>(size));
  return result;
}

// A tensor over bytes that `keep` keeps.
template <class Keep>
torch::Tensor tensor_over(const TensorElements& elements, Keep keep) {
  // from_blob takes a pointer to change through; who writes is stopped by the read-only memory.
  auto* data = const_cast<std::byte*>(elements.data);
  auto kept = std::make_shared<Keep>(std::move(keep));
  return torch::from_blob(
      data, elements.sizes, [kept](void*) {}, torch::TensorOptions().dtype(elements.type));
}

}  // namespace detail

template <>
struct codec<torch::Tensor> {
  static void encode(Writer& writer, const torch::Tensor& tensor) {
    if (!tensor.defined() || tensor.layout() != torch::kStrided || !tensor.device().is_cpu() ||
        tensor.is_quantized())
      throw Error("only defined, dense, not quantized tensors of the CPU travel");
    const torch::Tensor dense = tensor.detach().contiguous();
    writer.raw(static_cast<std::uint64_t>(dense.scalar_type()));
    writer.raw(static_cast<std::uint64_t>(dense.dim()));
    for (const std::int64_t extent : dense.sizes()) writer.raw(extent);
    const std::size_t size = dense.nbytes();
    writer.raw(std::uint64_t{size});
    detail::align_tensor(writer, size);
    writer.bytes(dense.data_ptr(), size);
  }
  static torch::Tensor decode(Reader& reader) {
    return detail::tensor_over(detail::read_tensor(reader), 0).clone();
  }
};

namespace detail {

template <>
struct Parameter<SharedTensor> {  // of a Ref's object in place; of a value that was passed, a copy
  using Stored = torch::Tensor;
  explicit Parameter(Execution& e) {
    const TensorElements elements = read_tensor(e.argument());
    if (auto object = e.argument_object()) {
      struct Kept {
        Ref<void> ref;
        Pin pin;
      };
      value.tensor =
          tensor_over(elements, Kept{Ref<void>::own(object->address), std::move(object->pin)});
    } else {
      value.tensor = tensor_over(elements, 0).clone();
    }
  }
  SharedTensor pass() { return std::move(value); }
  SharedTensor value;
};
template <>
struct Parameter<const SharedTensor&> : Parameter<SharedTensor> {
  using Parameter<SharedTensor>::Parameter;
  const SharedTensor& pass() { return value; }
};
template <class A>
inline constexpr bool kRefStandsFor<SharedTensor, A> = std::is_same_v<A, torch::Tensor>;
template <class A>
inline constexpr bool kRefStandsFor<const SharedTensor&, A> = std::is_same_v<A, torch::Tensor>;

}  // namespace detail

// Waits for the tensor and shows it in place. Throws as get.
inline SharedTensor get_tensor(const Ref<torch::Tensor>& ref,
                               std::optional<Duration> timeout = {}) {
  struct Kept {
    Ref<torch::Tensor> ref;
    detail::Bytes bytes;
  };
  detail::Bytes bytes = detail::get_bytes(ref.address(), ref.session(), timeout);
  Reader reader(bytes.data, bytes.size);
  const detail::TensorElements elements = detail::read_tensor(reader);
  return {detail::tensor_over(elements, Kept{ref, std::move(bytes)})};
}

}  // namespace mobula
