#include "runtime/carried.h"

namespace mobula::runtime {

namespace {

void write_part(void* part, Writer& writer) {
  const auto& bytes = *static_cast<const wire::Part*>(part);
  writer.bytes(bytes.data(), bytes.size());
}

}  // namespace

CarriedParts parts_of(const CarriedCall& call, wire::Part rest) {
  const auto cut = [&](std::uint64_t size) {
    if (size > rest.size()) detail::throw_decode_error("a call from another session is cut short");
    const wire::Part part = rest.first(size);
    rest = rest.subspan(size);
    return part;
  };
  CarriedParts parts;
  parts.arguments = cut(call.arguments);
  for (const std::uint64_t size : call.sizes) parts.values.push_back(cut(size));
  std::uint64_t end = 0;
  bool good = rest.empty() && call.places.size() == call.sizes.size();
  for (const std::uint64_t place : call.places) {
    good = good && place >= end && place <= call.arguments &&
           call.arguments - place >= sizeof(RefAddress);
    end = place + sizeof(RefAddress);
  }
  if (!good) detail::throw_decode_error("a call from another session is malformed");
  return parts;
}

RefAddress put_bytes(wire::Part bytes) {
  static const std::byte nothing{};
  Writer size(nullptr, 0);
  write_part(&bytes, size);
  return detail::put_encoded(size, &nothing, &write_part, &bytes);
}

LocalArguments::LocalArguments(const CarriedCall& call, const CarriedParts& parts)
    : call_(call), arguments_(parts.arguments) {
  try {
    for (const wire::Part& value : parts.values) refs_.push_back(put_bytes(value));
  } catch (...) {
    for (const RefAddress& ref : refs_) detail::release(ref);
    throw;
  }
}

LocalArguments::~LocalArguments() {
  for (const RefAddress& ref : refs_) detail::release(ref);
}

detail::Call LocalArguments::call(const detail::FunctionInfo& function) const {
  return {&function, nullptr, refs_.data(), refs_.size(), nullptr};
}

void LocalArguments::write(void* arguments, Writer& writer) {
  const auto& self = *static_cast<const LocalArguments*>(arguments);
  std::size_t at = 0;
  for (std::size_t i = 0; i < self.refs_.size(); ++i) {
    const std::size_t place = self.call_.places[i];
    writer.bytes(self.arguments_.data() + at, place - at);
    writer.ref(self.refs_[i]);
    at = place + sizeof(RefAddress);
  }
  writer.bytes(self.arguments_.data() + at, self.arguments_.size() - at);
}

}  // namespace mobula::runtime
