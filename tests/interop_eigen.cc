// Eigen's matrices and arrays travel, and are read in place.
#include <mobula/interop/eigen.h>
#include <mobula/interop/tensor_view.h>

#include <complex>
#include <cstdint>
#include <numeric>
#include <vector>

#include "support/scenario.h"

using mobula::get;
using mobula::get_map;
using mobula::Ref;
using mobula::remote;
using mobula::TensorView;

namespace matrices {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using AtMost = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, 4, 1>;

Eigen::MatrixXd product(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) { return a * b; }
double sum_in_place(const Eigen::Map<const Eigen::MatrixXd>& m) { return m.sum(); }
float corner(Eigen::Map<const RowMajor> m) { return m(0, m.cols() - 1); }
Eigen::Vector3d cross(const Eigen::Vector3d& a, const Eigen::Vector3d& b) {
  return {a.y() * b.z() - a.z() * b.y(), a.z() * b.x() - a.x() * b.z(),
          a.x() * b.y() - a.y() * b.x()};
}
Eigen::ArrayXXf squared(const Eigen::ArrayXXf& a) { return a * a; }
AtMost halved(const AtMost& v) { return v / 2; }

// Is what it reads in the store, and not in a copy of this process?
bool same_place(const Eigen::Map<const Eigen::MatrixXd>& a,
                const Eigen::Map<const Eigen::MatrixXd>& b) {
  return a.data() == b.data();
}

struct Body {
  Eigen::Vector3d position;
  Eigen::Matrix3f inertia;
  std::vector<Eigen::VectorXi> tags;
};
Body moved(Body body, const Eigen::Vector3d& by) {
  body.position += by;
  body.tags.push_back(Eigen::VectorXi::Constant(2, 9));
  return body;
}

}  // namespace matrices

using namespace matrices;

TEST_CASE("matrices of dynamic size are arguments, results and objects") {
  const Eigen::MatrixXd a = Eigen::MatrixXd::Random(30, 20);
  const Eigen::MatrixXd b = Eigen::MatrixXd::Random(20, 10);

  const Ref<Eigen::MatrixXd> stored = mobula::put(a);
  CHECK(get(remote<product>(stored, b)).isApprox(a * b));
  CHECK(get(stored) == a);
  CHECK(get(mobula::put(Eigen::MatrixXd(0, 5))).cols() == 5);
}

TEST_CASE("vectors, arrays, complex numbers and sizes with a bound keep their types") {
  CHECK(get(remote<cross>(Eigen::Vector3d(1, 0, 0), Eigen::Vector3d(0, 1, 0))) ==
        Eigen::Vector3d(0, 0, 1));
  CHECK(get(remote<squared>(Eigen::ArrayXXf(Eigen::ArrayXXf::Constant(3, 4, 3)))).sum() == 108);
  CHECK(get(remote<halved>(AtMost(Eigen::Vector2d(2, 4)))) == Eigen::Vector2d(1, 2));
  const Eigen::MatrixXcd z = Eigen::MatrixXcd::Constant(2, 2, {1, -1});
  CHECK(get(mobula::put(z)) == z);
}

TEST_CASE("matrices are fields of aggregates and elements of containers") {
  const Body body{{1, 2, 3}, Eigen::Matrix3f::Identity(), {Eigen::VectorXi::LinSpaced(3, 0, 2)}};

  const Body result = get(remote<moved>(body, Eigen::Vector3d(1, 1, 1)));
  CHECK(result.position == Eigen::Vector3d(2, 3, 4));
  CHECK(result.inertia == Eigen::Matrix3f::Identity());
  REQUIRE(result.tags.size() == 2);
  CHECK(result.tags[0] == Eigen::Vector3i(0, 1, 2));
}

TEST_CASE("a parameter that is a Map reads the store in place") {
  const Eigen::MatrixXd m = Eigen::MatrixXd::Constant(200, 100, 0.5);
  const Ref<Eigen::MatrixXd> ref = mobula::put(m);

  CHECK(get(remote<sum_in_place>(ref)) == 10'000);
  CHECK(get(remote<sum_in_place>(m)) == 10'000);
  CHECK(get(remote<same_place>(ref, ref)));
  RowMajor r(2, 3);
  r << 1, 2, 3, 4, 5, 6;
  CHECK(get(remote<corner>(r)) == 3);
}

TEST_CASE("get_map shows a matrix in place, outlives its ref, and begins on a cache line") {
  const auto view = [] {
    const Ref<Eigen::MatrixXd> ref = mobula::put(Eigen::MatrixXd(Eigen::MatrixXd::Ones(64, 64)));
    return get_map(ref);
  }();

  const Ref<Eigen::MatrixXd> shared = mobula::put(Eigen::MatrixXd(Eigen::MatrixXd::Ones(64, 64)));
  const auto once = get_map(shared);
  const auto again = get_map(shared);

  CHECK(once->data() == again->data());  // a copy would lie at two places
  CHECK(view->sum() == 4096);
  CHECK((*view).rows() == 64);
  CHECK(reinterpret_cast<std::uintptr_t>(view->data()) % 64 == 0);
}

TEST_CASE("bytes of another size are no such matrix") {
  const auto decode_as = [](const auto& written, auto like) {
    mobula::Writer count(nullptr, 0);
    mobula::encode(count, written);
    std::vector<std::uint64_t> room(count.size() / 8 + 8);
    auto* bytes = reinterpret_cast<std::byte*>(room.data());
    mobula::Writer writer(bytes, room.size() * 8);
    mobula::encode(writer, written);
    mobula::Reader reader(bytes, writer.size());
    return mobula::decode<decltype(like)>(reader);
  };
  const Eigen::MatrixXd wide = Eigen::MatrixXd::Ones(2, 3);

  CHECK(decode_as(wide, Eigen::MatrixXd()) == wide);
  CHECK(decode_as(wide, Eigen::Matrix<double, 2, 3>()) == wide);
  CHECK_THROWS_AS(decode_as(wide, Eigen::Matrix<double, 3, 2>()), mobula::DecodeError);
  CHECK_THROWS_AS(decode_as(Eigen::VectorXd(Eigen::VectorXd::Ones(5)), AtMost()),
                  mobula::DecodeError);
  struct Lie {
    std::uint64_t rows, cols;
    std::vector<double> elements;
  };
  CHECK_THROWS_AS(decode_as(Lie{2, 3, {1, 2, 3, 4, 5}}, Eigen::MatrixXd()), mobula::DecodeError);
  CHECK_THROWS_AS(decode_as(Lie{1ull << 63, 2, {}}, Eigen::MatrixXd()), mobula::DecodeError);
}

TEST_CASE("a TensorView indexes the elements of an object in several dimensions") {
  std::vector<int> numbers(24);
  std::iota(numbers.begin(), numbers.end(), 0);
  const Ref<std::vector<int>> ref = mobula::put(numbers);
  const TensorView<int, 3> t(mobula::get_view(ref), {2, 3, 4});

  CHECK(t(0, 0, 0) == 0);
  CHECK(t(1, 2, 3) == 23);
  CHECK(t(1, 0, 2) == 14);
  CHECK(t.size() == 24);
  CHECK(t.extent(1) == 3);
  CHECK(t.strides() == TensorView<int, 3>::Index{12, 4, 1});
  CHECK(t.data() == &t(0, 0, 0));
  CHECK(t.at({1, 1, 1}) == 17);
  CHECK_THROWS_AS(t.at({2, 0, 0}), mobula::Error);

  const TensorView<int, 2> middle = t.slice(1, 1);
  CHECK(middle.shape() == TensorView<int, 2>::Index{2, 4});
  CHECK(middle(1, 3) == t(1, 1, 3));
  CHECK(middle.slice(0, 1)(2) == 18);
  CHECK_THROWS_AS(t.slice(3, 0), mobula::Error);
  CHECK_THROWS_AS(t.slice(0, 2), mobula::Error);
}

TEST_CASE("a TensorView's shape must fit to its elements") {
  const auto elements = mobula::get_view(mobula::put(std::vector<int>{1, 2, 3, 4, 5, 6}));
  const TensorView<int, 2> transposed(elements, {3, 2}, {1, 3});

  CHECK(transposed(2, 0) == 3);
  CHECK(transposed(0, 1) == 4);
  CHECK(TensorView<int, 2>(elements, {2, 2}, {3, 1})(1, 1) == 5);
  CHECK_THROWS_AS((TensorView<int, 2>(elements, {2, 2})), mobula::Error);
  CHECK_THROWS_AS((TensorView<int, 2>(elements, {3, 3}, {3, 1})), mobula::Error);
  constexpr std::size_t kHuge = ~std::size_t{0};
  CHECK_THROWS_AS((TensorView<int, 2>(elements, {kHuge, 2}, {kHuge, 1})), mobula::Error);
  CHECK(TensorView<int, 1>(mobula::View<int>(), {0}).size() == 0);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv, {.num_cpus = 2});
}
