// Where a record lies, in eight bytes: the slot in its ledger and the generation that
// the slot had. An address whose generation has passed names nothing any more, so a
// stale one is noticed and never reaches the slot's next tenant.
#pragma once

#include <compare>
#include <cstdint>

namespace mobula {

struct RefAddress {
  std::uint32_t slot = 0;  // slot 0 is never used: the address of an empty ref
  std::uint32_t generation = 0;

  auto operator<=>(const RefAddress&) const = default;
};

}  // namespace mobula
