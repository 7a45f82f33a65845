// What values travel through tasks, and that they arrive as they were, over one session with two
// CPUs.
#include "support/scenario.h"

#include <array>
#include <chrono>
#include <complex>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

using namespace std::chrono_literals;
using mobula::Ref;
using mobula::remote;
using mobula::test::scaled;

namespace travel {

std::vector<std::uint8_t> complement(std::vector<std::uint8_t> bytes) {
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(~byte);
  return bytes;
}

template <class T>
T echo(T value) {
  return value;
}

}  // namespace travel

TEST_CASE("values of all sizes arrive as they were sent") {
  const std::vector<std::size_t> sizes{
      0,    1,    7,      8,         9,       23,
      24,   25,   31,     32,        33,      47,
      48,   49,   63,     64,        65,      100,
      127,  128,  129,    1000,      1023,    1024,
      1025, 4096, 65'536, 1'000'000, 1 << 20, static_cast<std::size_t>(scaled(64 << 20, 4 << 20))};
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    std::vector<std::uint8_t> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::uint8_t>(i * 31 + i / 251);
    std::vector<std::uint8_t> expected = bytes;
    for (auto& byte : expected) byte = static_cast<std::uint8_t>(~byte);

    const auto stored = mobula::put(bytes);
    const auto by_ref = remote<travel::complement>(stored);
    const auto by_value = remote<travel::complement>(bytes);

    CHECK((mobula::get(stored) == bytes));
    CHECK((mobula::get(by_ref) == expected));
    CHECK((mobula::get(by_value) == expected));
  }
}

namespace types {

enum class Colour : std::uint8_t { kRed = 1, kBlue = 200 };
struct Point {
  double x = 0;
  double y = 0;
  bool operator==(const Point&) const = default;
};
struct Robot {
  std::string name;
  Point place;
  float matrix[4] = {};
  std::vector<Point> path;
  std::optional<Colour> colour;
  bool operator==(const Robot&) const = default;
};
class Celsius {
 public:
  explicit Celsius(double degrees) : degrees_(degrees) {}
  double degrees() const { return degrees_; }
  bool operator==(const Celsius&) const = default;

 private:
  double degrees_;
};

template <class T>
bool returns_unchanged(const T& value) {
  const T by_value = mobula::get(remote<travel::echo<T>>(value));
  const T by_ref = mobula::get(remote<travel::echo<T>>(mobula::put(value)));
  return by_value == value && by_ref == value;
}

}  // namespace types

template <>
struct mobula::codec<types::Celsius> {
  static void encode(Writer& writer, const types::Celsius& value) { writer.raw(value.degrees()); }
  static types::Celsius decode(Reader& reader) { return types::Celsius(reader.raw<double>()); }
};

TEST_CASE("numbers, enums and texts travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(true));
  CHECK(returns_unchanged('c'));
  CHECK(returns_unchanged(std::int8_t{-5}));
  CHECK(returns_unchanged(std::uint64_t{0xffff'ffff'ffff'fffe}));
  CHECK(returns_unchanged(1.5F));
  CHECK(returns_unchanged(-2.25));
  CHECK(returns_unchanged(types::Colour::kBlue));
  CHECK(returns_unchanged(std::string("text with a \0 byte", 18)));
  CHECK(returns_unchanged(std::complex<double>(1, -1)));
}

TEST_CASE("containers travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(std::vector<int>{1, 2, 3}));
  CHECK(returns_unchanged(std::vector<std::string>{"", "a", std::string(500, 'b')}));
  CHECK(returns_unchanged(
      std::vector<bool>{true, false, true, true, false, false, true, false, true}));
  CHECK(returns_unchanged(std::vector<std::vector<double>>{{}, {1}, {1, 2}}));
  CHECK(returns_unchanged(std::array<double, 3>{1, 2, 3}));
  CHECK(returns_unchanged(std::array<std::string, 2>{"x", "y"}));
  CHECK(returns_unchanged(std::deque<int>{1, 2}));
  CHECK(returns_unchanged(std::list<std::string>{"l"}));
  CHECK(returns_unchanged(std::map<std::string, int>{{"a", 1}, {"b", 2}}));
  CHECK(returns_unchanged(std::multimap<int, int>{{1, 1}, {1, 2}}));
  CHECK(returns_unchanged(std::unordered_map<int, std::string>{{1, "one"}, {2, "two"}}));
  CHECK(returns_unchanged(std::set<std::string>{"s", "t"}));
  CHECK(returns_unchanged(std::unordered_set<int>{5, 6, 7}));
}

TEST_CASE("optional, variant, pair, tuple, pointers and times travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(std::optional<int>{}));
  CHECK(returns_unchanged(std::optional<std::string>{"there"}));
  CHECK(returns_unchanged(std::variant<int, std::string>{7}));
  CHECK(returns_unchanged(std::variant<int, std::string>{"seven"}));
  CHECK(returns_unchanged(std::pair<int, std::string>{1, "p"}));
  CHECK(returns_unchanged(std::tuple<int, double, std::string>{1, 2.0, "t"}));
  CHECK(returns_unchanged(std::tuple<>{}));
  CHECK(returns_unchanged(std::chrono::milliseconds(1500)));
  CHECK(returns_unchanged(std::chrono::system_clock::now()));

  const auto pointer =
      mobula::get(remote<travel::echo<std::unique_ptr<int>>>(std::make_unique<int>(9)));
  REQUIRE(pointer);
  CHECK(*pointer == 9);
  CHECK(!mobula::get(remote<travel::echo<std::unique_ptr<int>>>(std::unique_ptr<int>())));
}

TEST_CASE("a user's types travel through a task unchanged") {
  using types::returns_unchanged;
  CHECK(returns_unchanged(types::Point{1, 2}));
  CHECK(returns_unchanged(
      types::Robot{"r2", {1, 2}, {1, 2, 3, 4}, {{5, 6}, {7, 8}}, types::Colour::kRed}));
  CHECK(returns_unchanged(types::Celsius(36.6)));
  CHECK(returns_unchanged(std::vector<types::Celsius>{types::Celsius(1), types::Celsius(2)}));
  CHECK(returns_unchanged(std::map<int, types::Robot>{{1, {}}}));
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .resources = {{"lamp", 1}}, .object_store_memory = 512ULL << 20});
}
