#include "mobula/codec.h"

#include "mobula/error.h"

#include <doctest/doctest.h>

#include <any>
#include <atomic>
#include <chrono>
#include <complex>
#include <cstdio>
#include <deque>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <variant>

using mobula::Encodable;
using mobula::is_flat_v;
using mobula::Reader;
using mobula::RefAddress;
using mobula::Writer;

namespace robots {

enum class Color : std::uint8_t { kRed, kGreen = 200 };
enum class Switch : bool { kOff, kOn };

struct Empty {
  bool operator==(const Empty&) const = default;
};

struct Pose {
  double x = 1;
  double y = 2;
  float angle = 0.5f;
  bool operator==(const Pose&) const = default;
};

struct Reading {
  std::int32_t at = 0;
  bool valid = true;
  Switch power = Switch::kOn;
  std::array<bool, 3> bumpers = {};
  Pose pose;
  bool operator==(const Reading&) const = default;
};

struct Arm {
  std::string name = "arm";
  std::vector<Pose> path;
  std::optional<int> grip;
  Empty nothing;
  std::map<std::string, std::vector<double>> limits;
  bool operator==(const Arm&) const = default;
};

struct Grid {  // C arrays, one of them of two dimensions, and one at the end
  int cells[2][3] = {};
  std::string label;
  double weights[4] = {};
  bool operator==(const Grid&) const = default;
};

struct FlatGrid {
  char tag[8];
  std::uint16_t counts[5];
  bool operator==(const FlatGrid&) const = default;
};

struct Names {
  std::string first[2];
  std::unique_ptr<int> extra;
};

struct Tree {
  int value = 0;
  std::vector<Tree> children;
  std::map<int, Tree> named;
  bool operator==(const Tree&) const = default;
};

struct Chain {
  int value = 0;
  std::unique_ptr<Chain> next;
};

struct Wide {
  int a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20;
  std::string b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18, b19,
      b20;
  bool operator==(const Wide&) const = default;
};

struct TooWide {
  Wide wide;
  int a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20;
  int b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18, b19, b20;
};

struct WithConst {
  const int id;
  const std::string name;
  bool operator==(const WithConst&) const = default;
};

struct Bits {
  unsigned low : 3;
  unsigned high : 5;
  bool operator==(const Bits&) const = default;
};

// Made only by a constructor; travels by its codec.
class Celsius {
 public:
  explicit Celsius(double degrees) : degrees_(degrees) {}
  double degrees() const { return degrees_; }
  bool operator==(const Celsius&) const = default;

 private:
  double degrees_;
};

// An aggregate whose codec must win over reflection: it drops the cache.
struct Cached {
  int value = 0;
  int cache = 0;
  bool operator==(const Cached&) const = default;
};

// Its codec writes nothing at all.
struct Token {
  Token(int, int) {}
  bool operator==(const Token&) const = default;
};

// Stands for what the runtime does with its refs.
template <class T>
struct Handle {
  RefAddress address;
  bool operator==(const Handle&) const = default;
};

struct Job {
  std::vector<Handle<int>> inputs;
  Handle<std::string> output;
  std::shared_ptr<int>* unused() const { return nullptr; }
  bool operator==(const Job&) const = default;
};

struct Greedy {  // like a JSON value: takes everything in its constructor
  template <class T>
  Greedy(T&&) {}
  Greedy(const Greedy&) = default;
  Greedy(Greedy&&) = default;
  bool operator==(const Greedy&) const = default;
};

struct GreedyFirst {
  Greedy any;
  int after;
};

struct Base {
  int base = 0;
};
struct EmptyBase {};
struct Derived : Base {
  int own = 0;
};
struct DerivedFromEmpty : EmptyBase {
  int own = 0;
};
struct DerivedVector : std::vector<int> {
  int own = 0;
};
class HiddenVector : public std::vector<int> {
 public:
  HiddenVector() {}
  int own = 0;
};

struct WithPointer {
  int count;
  const char* text;
};
struct WithReference {
  int count;
  const int& other;
};
int global = 0;
struct WithDefaultReference {
  int count;
  int& other = global;
};
struct WithUnion {
  int kind;
  union {
    int number;
    float real;
  };
};
union Either {
  int number;
  float real;
};
struct WithView {
  std::string_view text;
};
struct WithFunction {
  std::function<void()> call;
};
struct WithMutex {
  int value = 0;
  std::mutex mutex;
};
struct WithThread {
  std::vector<std::thread> threads;
};
struct HidesBadPart {
  std::map<int, std::vector<std::optional<WithPointer>>> parts;
};
struct Abstract {
  virtual ~Abstract() = default;
  virtual int area() const = 0;
};
struct Incomplete;

}  // namespace robots

template <>
struct mobula::codec<robots::Celsius> {
  static void encode(Writer& writer, const robots::Celsius& value) { writer.raw(value.degrees()); }
  static robots::Celsius decode(Reader& reader) { return robots::Celsius(reader.raw<double>()); }
};

template <>
struct mobula::codec<robots::Cached> {
  static void encode(Writer& writer, const robots::Cached& value) {
    mobula::encode(writer, value.value);
  }
  static robots::Cached decode(Reader& reader) { return {mobula::decode<int>(reader), 0}; }
};

template <>
struct mobula::codec<robots::Token> {
  static void encode(Writer&, const robots::Token&) {}
  static robots::Token decode(Reader&) { return {1, 2}; }
};

template <>
struct mobula::codec<robots::Greedy> {
  static void encode(Writer& writer, const robots::Greedy&) { writer.raw('g'); }
  static robots::Greedy decode(Reader& reader) { return robots::Greedy(reader.raw<char>()); }
};

template <class T>
struct mobula::codec<robots::Handle<T>> {
  static void encode(Writer& writer, const robots::Handle<T>& handle) {
    writer.ref(handle.address);
  }
  static robots::Handle<T> decode(Reader& reader) { return {reader.ref()}; }
};

namespace {

// clang looks into the optional's constructor, and would warn: nothing outside knows this type.
struct Found {
  long tried = 0;
  std::optional<int> at;
  bool operator==(const Found&) const = default;
};

using namespace robots;

// Bytes at a chosen offset from a 64-aligned address, as long as they are and not a byte
// longer, so that a sanitizer sees every overrun.
class Bytes {
 public:
  explicit Bytes(std::size_t size, std::size_t offset = 0)
      : size_(size),
        offset_(offset),
        memory_(static_cast<std::byte*>(::operator new(offset + size, std::align_val_t{64}))) {}
  Bytes(const std::byte* data, std::size_t size) : Bytes(size) {
    if (size != 0) std::memcpy(this->data(), data, size);
  }
  Bytes(Bytes&& other) noexcept
      : size_(other.size_),
        offset_(other.offset_),
        memory_(std::exchange(other.memory_, nullptr)) {}
  Bytes& operator=(Bytes&&) = delete;
  ~Bytes() { ::operator delete(memory_, std::align_val_t{64}); }

  std::byte* data() const { return memory_ + offset_; }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  std::size_t offset_;
  std::byte* memory_;
};

template <class T>
std::size_t counted(const T& value) {
  Writer writer(nullptr, 0);
  mobula::encode(writer, value);
  return writer.size();
}

template <class T>
Bytes encoded(const T& value) {
  Bytes bytes(counted(value));
  Writer writer(bytes.data(), bytes.size());
  mobula::encode(writer, value);
  REQUIRE(writer.fits());
  REQUIRE(writer.size() == bytes.size());
  return bytes;
}

template <class T>
T decoded(const Bytes& bytes) {
  Reader reader(bytes.data(), bytes.size());
  T value = mobula::decode<T>(reader);
  REQUIRE(reader.remaining() == 0);
  return value;
}

// The bytes were refused as bytes: running out of memory would be no answer, and fails the test.
template <class F>
bool refuses(F&& read) {
  try {
    read();
    return false;
  } catch (const mobula::DecodeError&) {
    return true;
  }
}

Tree small_tree() { return {1, {{2, {}, {}}, {3, {{4, {}, {}}}, {}}}, {{7, {5, {}, {}}}}}; }

Arm long_arm() {
  return {"left", {{1, 2, 3}, {4, 5, 6}}, 7, {}, {{"elbow", {-1.5, 1.5}}, {"wrist", {}}}};
}

Wide wide_value() {
  Wide wide{};
  wide.a1 = 1;
  wide.a20 = 20;
  wide.b1 = "first";
  wide.b20 = "last";
  return wide;
}

// Calls visit(name, value) for one or more values of every supported type.
template <class Visit>
void for_each_sample(Visit&& visit) {
  using namespace std::chrono_literals;
  visit("bool", true);
  visit("char", 'x');
  visit("char16_t", u'x');
  visit("int", -5);
  visit("uint64", std::numeric_limits<std::uint64_t>::max());
  visit("float", 1.5f);
  visit("double", -0.1);
  visit("long double", 2.5L);
  visit("byte", std::byte{0x7f});
  visit("enum", Color::kGreen);
  visit("bool enum", Switch::kOn);
  visit("empty string", std::string());
  visit("string", std::string("hello\0there", 11));
  visit("long string", std::string(2000, 'z'));
  visit("u16string", std::u16string(u"wide"));
  visit("empty vector", std::vector<int>());
  visit("vector<int>", std::vector<int>{1, 2, 3});
  visit("large vector<double>", std::vector<double>(300, 0.25));
  visit("vector<long double>", std::vector<long double>{1, 2});
  visit("vector<bool>",
        std::vector<bool>{true, false, true, true, false, false, true, false, true});
  visit("empty vector<bool>", std::vector<bool>());
  visit("vector<vector<bool>>", std::vector<std::vector<bool>>{{}, {true}, {false, true}});
  visit("vector<string>", std::vector<std::string>{"a", "", "ccc"});
  visit("vector<vector<float>>", std::vector<std::vector<float>>{{1}, {}, {2, 3}});
  visit("vector<byte>", std::vector<std::byte>(5, std::byte{9}));
  visit("array<float>", std::array<float, 3>{1, 2, 3});
  visit("array<string>", std::array<std::string, 2>{"a", "b"});
  visit("array<int, 0>", std::array<int, 0>{});
  visit("vector of array<int, 0>", std::vector<std::array<int, 0>>(3));
  visit("array<array>", std::array<std::array<short, 2>, 2>{{{1, 2}, {3, 4}}});
  visit("array<bool>", std::array<bool, 4>{true, false, true, true});
  visit("deque", std::deque<int>{1, 2});
  visit("deque<bool>", std::deque<bool>{true, false});
  visit("list", std::list<std::string>{"x", "y"});
  visit("set", std::set<int>{3, 1, 2});
  visit("multiset", std::multiset<int>{1, 1, 2});
  visit("unordered_set", std::unordered_set<std::string>{"k", "l"});
  visit("empty map", std::map<int, int>());
  visit("map", std::map<std::string, int>{{"a", 1}, {"b", 2}});
  visit("multimap", std::multimap<int, std::string>{{1, "a"}, {1, "b"}});
  visit("unordered_map", std::unordered_map<int, std::vector<int>>{{1, {1, 2}}, {2, {}}});
  visit("no optional", std::optional<int>());
  visit("optional", std::optional<std::string>("there"));
  visit("optional<optional>", std::optional<std::optional<int>>(std::optional<int>()));
  visit("optional<bool>", std::optional<bool>(true));
  visit("optional behind a number", Found{3, 4});
  visit("monostate", std::variant<std::monostate, int>());
  visit("variant", std::variant<std::monostate, int, std::string>("text"));
  visit("variant of twins", std::variant<int, int>(std::in_place_index<1>, 4));
  visit("pair", std::pair<int, std::string>(1, "one"));
  visit("tuple", std::tuple<int, std::vector<std::string>, bool>(1, {"x"}, true));
  visit("empty tuple", std::tuple<>());
  visit("tuple of one vector", std::tuple<std::vector<int>>(std::vector<int>{1}));
  visit("complex", std::complex<float>(1, -1));
  visit("vector<complex>", std::vector<std::complex<double>>{{1, 2}, {3, 4}});
  visit("duration", 1500ms);
  visit("double duration", std::chrono::duration<double>(0.5));
  visit("time_point", std::chrono::system_clock::time_point(std::chrono::hours(4)));
  visit("steady time_point", std::chrono::steady_clock::time_point(5s));
  visit("vector<duration>", std::vector<std::chrono::nanoseconds>{1ns, 2ns});
  visit("empty struct", Empty{});
  visit("vector of empty structs", std::vector<Empty>(3));
  visit("flat struct", Pose{4, 5, 6});
  visit("struct with bools", Reading{4, false, Switch::kOff, {true, false, true}, {}});
  visit("vector of structs with bools", std::vector<Reading>(2));
  visit("default struct", Arm{});
  visit("struct", long_arm());
  visit("struct with C arrays", Grid{{{1, 2, 3}, {4, 5, 6}}, "grid", {7, 8, 9, 10}});
  visit("flat struct with C arrays", FlatGrid{"tag", {1, 2, 3, 4, 5}});
  visit("tree", small_tree());
  visit("40 fields", wide_value());
  visit("const fields", WithConst{1, "one"});
  visit("bit fields", Bits{5, 17});
  visit("user codec", Celsius(36.6));
  visit("vector of user codec", std::vector<Celsius>{Celsius(1), Celsius(2)});
  visit("codec over aggregate", Cached{3, 0});
  visit("vector of codec over aggregate", std::vector<Cached>{{3, 0}, {4, 0}});
  visit("codec that writes nothing", Token(1, 2));
  visit("vector of such", std::vector<Token>(10, Token(1, 2)));
  visit("map of such", std::map<std::tuple<>, Token>{{{}, Token(1, 2)}});
  visit("refs", Job{{{{1, 2}}, {{3, 4}}}, {{5, 6}}});
  visit("mixture",
        std::map<std::string, std::variant<std::vector<Arm>, std::optional<std::pair<Tree, Pose>>>>{
            {"arms", std::vector<Arm>{long_arm(), {}}},
            {"pair", std::optional(std::pair(small_tree(), Pose{}))},
            {"none", std::optional<std::pair<Tree, Pose>>()}});
}

}  // namespace

TEST_CASE("every value comes back as it was") {
  for_each_sample([]<class T>(const char* name, const T& value) {
    INFO(name);

    const T back = decoded<T>(encoded(value));

    CHECK((back == value));
  });
}

TEST_CASE("a value fits into the bytes that were counted, and into no byte less") {
  for_each_sample([]<class T>(const char* name, const T& value) {
    INFO(name);
    const std::size_t size = counted(value);
    if (size == 0) return;
    const Bytes shorter(size - 1);

    Writer writer(shorter.data(), shorter.size());
    mobula::encode(writer, value);

    CHECK(writer.size() == size);
    CHECK_FALSE(writer.fits());
  });
}

TEST_CASE("a value that is cut short anywhere is refused") {
  for_each_sample([]<class T>(const char* name, const T& value) {
    INFO(name);
    const Bytes whole = encoded(value);

    for (std::size_t size = 0; size < whole.size(); ++size) {
      const Bytes part(whole.data(), size);
      INFO("cut to " << size << " of " << whole.size() << " bytes");
      Reader reader(part.data(), part.size());
      CHECK(refuses([&] { static_cast<void>(mobula::decode<T>(reader)); }));
    }
  });
}

TEST_CASE("no bytes, whoever wrote them, do harm") {
  constexpr int kCasesPerSample = 1300;  // over 10^5 in all
  std::mt19937_64 random(20240611);
  int cases = 0;
  int read = 0;
  for_each_sample([&]<class T>(const char* name, const T& value) {
    INFO(name);
    const Bytes good = encoded(value);
    for (int i = 0; i < kCasesPerSample; ++i, ++cases) {
      // by turns: noise, noise of small numbers (plausible counts and flags), a few wrong bytes
      const bool damaged = i % 3 == 2;
      const Bytes bytes(damaged ? good.size() : random() % 96);
      for (std::size_t at = 0; at < bytes.size(); ++at) {
        bytes.data()[at] = damaged ? good.data()[at] : std::byte(random() % (i % 3 == 0 ? 256 : 3));
      }
      for (std::size_t flips = damaged && !(bytes.size() == 0) ? 1 + random() % 4 : 0; flips > 0;
           --flips) {
        bytes.data()[random() % bytes.size()] = std::byte(random());
      }
      Reader reader(bytes.data(), bytes.size());
      const bool refused = refuses([&] {
        const T strange = mobula::decode<T>(reader);
        static_cast<void>(counted(strange));  // looks at every part of it
        ++read;
      });
      const bool answered = refused || reader.remaining() <= bytes.size();
      if (!answered) FAIL_CHECK("case " << i);
    }
  });

  CHECK(cases >= 100000);
  CHECK(read > cases / 20);  // the noise reaches into the decoders,
  CHECK(read < cases);  // and not all of it passes
}

TEST_CASE("a count that the bytes cannot hold is refused before memory is asked for") {
  const auto refuses_count = []<class T>(std::uint64_t count, T*) {
    Bytes bytes(16);
    std::memcpy(bytes.data(), &count, 8);
    std::memset(bytes.data() + 8, 0, 8);
    Reader reader(bytes.data(), bytes.size());
    return refuses([&] { static_cast<void>(mobula::decode<T>(reader)); });
  };
  for (const std::uint64_t count :
       {std::uint64_t{17}, std::uint64_t{1} << 32, std::uint64_t{1} << 61,
        (std::uint64_t{1} << 61) + 1, ~std::uint64_t{0}}) {
    INFO(count);

    CHECK(refuses_count(count, static_cast<std::string*>(nullptr)));
    CHECK(refuses_count(count, static_cast<std::vector<double>*>(nullptr)));
    CHECK(refuses_count(count, static_cast<std::vector<std::string>*>(nullptr)));
    CHECK(refuses_count(count, static_cast<std::vector<Token>*>(nullptr)));
    CHECK(refuses_count(count, static_cast<std::vector<std::tuple<>>*>(nullptr)));
    CHECK(refuses_count(count, static_cast<std::list<int>*>(nullptr)));
    CHECK(refuses_count(count, static_cast<std::map<int, int>*>(nullptr)));
    CHECK(refuses_count(count, static_cast<std::unordered_set<int>*>(nullptr)));
  }
  CHECK(refuses_count(65, static_cast<std::vector<bool>*>(nullptr)));
  CHECK(refuses_count(~std::uint64_t{0}, static_cast<std::vector<bool>*>(nullptr)));
}

TEST_CASE("flags, bools and indexes out of range are refused") {
  const auto refuses_byte = []<class T>(int byte, T*) {
    Bytes bytes(64);
    std::memset(bytes.data(), byte, bytes.size());
    Reader reader(bytes.data(), bytes.size());
    return refuses([&] { static_cast<void>(mobula::decode<T>(reader)); });
  };

  CHECK(refuses_byte(2, static_cast<bool*>(nullptr)));
  CHECK(refuses_byte(2, static_cast<Switch*>(nullptr)));
  CHECK(refuses_byte(2, static_cast<std::array<bool, 2>*>(nullptr)));
  CHECK(refuses_byte(2, static_cast<Reading*>(nullptr)));
  CHECK(refuses_byte(2, static_cast<std::optional<int>*>(nullptr)));
  CHECK(refuses_byte(255, static_cast<std::unique_ptr<int>*>(nullptr)));
  CHECK(refuses_byte(2, static_cast<std::variant<int, float>*>(nullptr)));
  CHECK_FALSE(refuses_byte(1, static_cast<Reading*>(nullptr)));
  CHECK_FALSE(refuses_byte(1, static_cast<std::variant<int, float>*>(nullptr)));
}

TEST_CASE("a value that nests too deep is refused, before the stack ends, by both sides") {
  const auto chain_of = [](int length) {
    auto head = std::make_unique<Chain>();
    for (int i = 1; i < length; ++i) {
      auto longer = std::make_unique<Chain>();
      longer->value = i;
      longer->next = std::move(head);
      head = std::move(longer);
    }
    return head;
  };
  Bytes hostile(10'000'000);  // each five bytes: one more Chain
  for (std::size_t at = 0; at < hostile.size(); ++at)
    hostile.data()[at] = std::byte(at % 5 == 4 ? 1 : 0);
  Bytes trees(10'000'000);
  for (std::size_t at = 0; at < trees.size(); ++at)
    trees.data()[at] = std::byte(at % 12 == 4 ? 1 : 0);

  Reader chain_reader(hostile.data(), hostile.size());
  Reader tree_reader(trees.data(), trees.size());

  CHECK(refuses([&] { static_cast<void>(mobula::decode<Chain>(chain_reader)); }));
  CHECK(refuses([&] { static_cast<void>(mobula::decode<Tree>(tree_reader)); }));
  CHECK(refuses([&] { static_cast<void>(counted(chain_of(600))); }));
  CHECK(decoded<std::unique_ptr<Chain>>(encoded(chain_of(500)))->value == 499);
}

TEST_CASE("values that can only be moved travel") {
  Names names;
  names.first[0] = "Ada";
  names.first[1] = "Bob";
  names.extra = std::make_unique<int>(7);
  std::map<int, std::vector<std::unique_ptr<Arm>>> arms;
  arms[1].push_back(std::make_unique<Arm>(long_arm()));
  arms[1].push_back(nullptr);

  const auto names_back = decoded<Names>(encoded(names));
  const auto arms_back = decoded<std::map<int, std::vector<std::unique_ptr<Arm>>>>(encoded(arms));
  const auto const_back =
      decoded<std::unique_ptr<const int>>(encoded(std::make_unique<const int>(3)));
  const auto variant_back = decoded<std::variant<int, std::unique_ptr<int>>>(
      encoded(std::variant<int, std::unique_ptr<int>>(std::make_unique<int>(4))));

  CHECK(names_back.first[1] == "Bob");
  CHECK(*names_back.extra == 7);
  CHECK(*arms_back.at(1)[0] == long_arm());
  CHECK(arms_back.at(1)[1] == nullptr);
  CHECK(*const_back == 3);
  CHECK(*std::get<1>(variant_back) == 4);
}

TEST_CASE("a type's own codec wins over reflection") {
  const Cached value{3, 99};

  const auto back = decoded<Cached>(encoded(value));

  CHECK(back == Cached{3, 0});
  CHECK(counted(value) == sizeof(int));
  CHECK_FALSE(is_flat_v<Cached>);
}

TEST_CASE("plain data is one block, and a large block begins on a cache line") {
  CHECK(counted(1.0) == 8);
  CHECK(counted(Pose{}) == sizeof(Pose));
  CHECK(counted(std::string("abc")) == 8 + 3);
  CHECK(counted(std::vector<double>(3)) == 8 + 24);
  CHECK(counted(std::vector<double>(127)) == 8 + 127 * 8);
  CHECK(counted(std::vector<double>(128)) == 128 + 128 * 8);
  CHECK(counted(std::pair<char, std::vector<double>>('c', {1})) == 16 + 8);
  CHECK(counted(std::vector<Pose>(2)) == 8 + 2 * sizeof(Pose));
  CHECK(counted(std::vector<bool>(9)) == 8 + 2);
}

TEST_CASE("a range of plain data is read where it lies") {
  const std::vector<double> numbers(300, 0.5);
  const std::string text = "in place";
  const Bytes bytes(4096);
  Writer writer(bytes.data(), bytes.size());
  writer.raw('!');  // the blocks behind it must find their own alignment
  mobula::encode(writer, numbers);
  mobula::encode(writer, text);
  mobula::encode(writer, std::vector<Pose>{{1, 2, 3}});
  mobula::encode(writer, std::vector<int>());
  REQUIRE(writer.fits());

  Reader reader(bytes.data(), writer.size());
  reader.raw<char>();
  const std::span<const double> span = mobula::decode_span<double>(reader);
  const std::string_view view = mobula::decode_string_view(reader);
  const std::span<const Pose> poses = mobula::decode_span<Pose>(reader);
  const std::span<const int> none = mobula::decode_span<int>(reader);

  CHECK(std::vector<double>(span.begin(), span.end()) == numbers);
  CHECK(reinterpret_cast<std::uintptr_t>(span.data()) % 64 == 0);
  CHECK(reinterpret_cast<const std::byte*>(span.data()) < bytes.data() + bytes.size());
  CHECK(reinterpret_cast<const std::byte*>(span.data()) > bytes.data());
  CHECK(view == text);
  CHECK(poses[0] == Pose{1, 2, 3});
  CHECK(none.empty());
  CHECK(reader.remaining() == 0);
}

TEST_CASE("bytes at a crooked address are copied, and refused for reading in place") {
  const std::vector<double> numbers{1, 2, 3};
  const Bytes straight = encoded(numbers);
  const Bytes crooked(straight.size(), 1);
  std::memcpy(crooked.data(), straight.data(), straight.size());

  Reader in_place(crooked.data(), crooked.size());

  CHECK(decoded<std::vector<double>>(crooked) == numbers);
  CHECK(refuses([&] { static_cast<void>(mobula::decode_span<double>(in_place)); }));
}

TEST_CASE("refs in a value are remembered in order, however many they are") {
  for (const std::uint32_t count : {0u, 1u, 4u, 5u, 100u}) {
    INFO(count);
    std::vector<Handle<int>> handles;
    std::vector<RefAddress> addresses;
    for (std::uint32_t i = 0; i < count; ++i) {
      handles.push_back({{i, i + 1}});
      addresses.push_back({i, i + 1});
    }

    Writer writer(nullptr, 0);
    mobula::encode(writer, handles);

    CHECK(std::vector<RefAddress>(writer.refs().begin(), writer.refs().end()) == addresses);
    CHECK(writer.size() == 8 + 8 * count);
  }
}

TEST_CASE("a variant without value is refused") {
  std::variant<std::string, std::deque<int>> value("text");
  CHECK_THROWS_AS(value.emplace<1>(std::deque<int>().max_size() + 1), std::length_error);
  REQUIRE(value.valueless_by_exception());

  CHECK(refuses([&] { static_cast<void>(counted(value)); }));
}

TEST_CASE("what can travel and what cannot is known when compiling") {
  static_assert(Encodable<int> && Encodable<const int> && Encodable<Color> && Encodable<std::byte>);
  static_assert(Encodable<Arm> && Encodable<Tree> && Encodable<Chain> && Encodable<Grid> &&
                Encodable<Wide>);
  static_assert(Encodable<std::monostate> && Encodable<Celsius> && Encodable<GreedyFirst> &&
                Encodable<Job>);
  static_assert(Encodable<std::unique_ptr<Tree>>);

  static_assert(!Encodable<void> && !Encodable<int&> && !Encodable<int*> &&
                !Encodable<const char*>);
  static_assert(!Encodable<int[3]> && !Encodable<int()> && !Encodable<int (*)()> &&
                !Encodable<std::nullptr_t>);
  static_assert(!Encodable<int Pose::*> && !Encodable<volatile int>);
  static_assert(!Encodable<std::string_view> && !Encodable<std::span<const int>>);
  static_assert(!Encodable<std::vector<std::string_view>> && !Encodable<WithView>);
  static_assert(!Encodable<Derived> && !Encodable<DerivedFromEmpty>);
  static_assert(!Encodable<DerivedVector> && !Encodable<HiddenVector>);
  static_assert(!Encodable<WithPointer> && !Encodable<WithReference> &&
                !Encodable<WithDefaultReference>);
  static_assert(!Encodable<WithUnion> && !Encodable<Either> && !Encodable<WithFunction>);
  static_assert(!Encodable<WithMutex> && !Encodable<WithThread> && !Encodable<HidesBadPart>);
  static_assert(!Encodable<std::mutex> && !Encodable<std::any> &&
                !Encodable<std::function<void()>>);
  static_assert(!Encodable<std::shared_ptr<int>> && !Encodable<std::unique_ptr<int[]>>);
  static_assert(!Encodable<std::unique_ptr<Abstract>> && !Encodable<Incomplete>);
  static_assert(!Encodable<std::unique_ptr<Incomplete>> && !Encodable<std::vector<Incomplete>>);
  static_assert(!Encodable<std::unique_ptr<int, void (*)(int*)>> && !Encodable<std::atomic<int>>);
  static_assert(!Encodable<TooWide> && !Encodable<std::tuple<int&>> &&
                !Encodable<std::pair<int*, int>>);
  static_assert(!Encodable<decltype([] {})>);

  CHECK(Encodable<Arm>);
}

TEST_CASE("plain data is told from what only can be copied byte by byte") {
  static_assert(is_flat_v<int> && is_flat_v<Pose> && is_flat_v<Reading> && is_flat_v<FlatGrid>);
  static_assert(is_flat_v<std::complex<float>> && is_flat_v<std::array<Pose, 2>> &&
                is_flat_v<Empty>);
  static_assert(is_flat_v<std::chrono::nanoseconds> && is_flat_v<Color>);

  static_assert(std::is_trivially_copyable_v<WithPointer> && !is_flat_v<WithPointer>);
  static_assert(std::is_trivially_copyable_v<Handle<int>> && !is_flat_v<Handle<int>>);
  static_assert(std::is_trivially_copyable_v<Cached> && !is_flat_v<std::array<Cached, 2>>);
  static_assert(!is_flat_v<int*> && !is_flat_v<std::string> && !is_flat_v<Arm> &&
                !is_flat_v<Derived>);
  static_assert(!is_flat_v<std::string_view> && !is_flat_v<std::optional<int>> && !is_flat_v<void>);
  static_assert(!is_flat_v<Incomplete>);

  CHECK(is_flat_v<Pose>);
}

namespace {
int square(int x) { return x * x; }
struct Counter {
  int n = 0;
  int add(int k) { return n += k; }
  static int none() { return 0; }
};
}  // namespace

TEST_CASE("types and functions know their names") {
  CHECK(mobula::type_name<int>() == "int");
  CHECK(mobula::type_name<robots::Arm>() == "robots::Arm");
  CHECK(mobula::type_name<std::vector<int>>() == "std::vector<int>");
  CHECK(mobula::function_name<&robots::Celsius::degrees>() == "robots::Celsius::degrees");
  CHECK(mobula::function_name<square>().ends_with("::square"));
  CHECK(mobula::function_name<&square>().ends_with("::square"));
  CHECK(mobula::function_name<&Counter::add>().ends_with("Counter::add"));
  CHECK(mobula::function_name<&Counter::none>().ends_with("Counter::none"));
  constexpr std::string_view lambda = mobula::function_name<[](int x) { return x; }>();
  INFO(lambda);
  CHECK((lambda.find("lambda(int)") != lambda.npos || lambda.find("codec_test.cc:") == 0));
  CHECK(square(2) + Counter{}.add(1) + Counter::none() == 5);
}
