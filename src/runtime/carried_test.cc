#include "runtime/carried.h"

#include <doctest/doctest.h>

#include <string>

#include "mobula/error.h"

namespace mobula::runtime {
namespace {

std::vector<std::byte> packed(const CarriedCall& call, std::size_t behind) {
  std::vector<std::byte> all = carried_header(call);
  all.resize(all.size() + behind, std::byte{7});
  return all;
}

bool is_refused(const CarriedCall& call, std::size_t behind) {
  const std::vector<std::byte> all = packed(call, behind);
  wire::Part rest = all;
  try {
    parts_of(read_header<CarriedCall>(rest), rest);
    return false;
  } catch (const DecodeError&) {
    return true;
  }
}

}  // namespace

TEST_CASE("a call is found again behind its header: arguments, then values") {
  const CarriedCall call{5, "name", "group", 20, {4, 12}, {3, 0}};
  const std::vector<std::byte> all = packed(call, 23);
  wire::Part rest = all;

  const auto header = read_header<CarriedCall>(rest);
  const CarriedParts parts = parts_of(header, rest);

  CHECK(header.function == 5);
  CHECK(header.group == "group");
  CHECK(parts.arguments.size() == 20);
  REQUIRE(parts.values.size() == 2);
  CHECK(parts.values[0].size() == 3);
  CHECK(parts.values[1].empty());
}

TEST_CASE("what does not add up is refused: sizes, places, counts, what is left over") {
  constexpr auto kHuge = ~std::uint64_t{0};
  CHECK(!is_refused({0, "", "", 20, {4, 12}, {3, 0}}, 23));
  CHECK(is_refused({0, "", "", 20, {4, 12}, {3, 0}}, 22));
  CHECK(is_refused({0, "", "", 20, {4, 12}, {3, 0}}, 24));
  CHECK(is_refused({0, "", "", kHuge, {}, {}}, 8));
  CHECK(is_refused({0, "", "", 8, {0}, {kHuge}}, 16));
  CHECK(is_refused({0, "", "", 8, {1}, {0}}, 8));
  CHECK(is_refused({0, "", "", 8, {kHuge}, {0}}, 8));
  CHECK(is_refused({0, "", "", 16, {8, 0}, {0, 0}}, 16));
  CHECK(is_refused({0, "", "", 16, {0, 4}, {0, 0}}, 16));
  CHECK(is_refused({0, "", "", 16, {0}, {}}, 16));
}

TEST_CASE("a header that is cut short, or says it is longer than all, is refused") {
  const std::vector<std::byte> all = packed({0, "", "", 0, {}, {}}, 0);
  for (std::size_t size = 0; size < all.size(); ++size) {
    CAPTURE(size);
    wire::Part rest{all.data(), size};
    CHECK_THROWS_AS(read_header<CarriedCall>(rest), DecodeError);
  }
  std::vector<std::byte> longer(16, std::byte{0xff});
  wire::Part rest = longer;
  CHECK_THROWS_AS(read_header<CarriedCall>(rest), DecodeError);
}

}  // namespace mobula::runtime
