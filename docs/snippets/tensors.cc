#include <mobula/mobula.h>

#include <vector>

// [eigen]
#include <mobula/interop/eigen.h>

Eigen::VectorXd product(const Eigen::MatrixXd& a, const Eigen::VectorXd& b) { return a * b; }

// Reads the matrix in the store: no copy.
double trace(const Eigen::Map<const Eigen::MatrixXd>& a) { return a.trace(); }
// [/eigen]

// [tensor_view]
#include <mobula/interop/tensor_view.h>

// Brightness of row `row` of an image of height x width x 3, which lies in the store.
float brightness(mobula::View<float> pixels, std::size_t width, std::size_t row) {
  const mobula::TensorView<float, 3> image(pixels, {pixels.size() / (3 * width), width, 3});
  float sum = 0;
  for (std::size_t x = 0; x < width; ++x) sum += image(row, x, 0) + image(row, x, 1);
  return sum;
}
// [/tensor_view]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  const mobula::Ref<Eigen::MatrixXd> a =
      mobula::put(Eigen::MatrixXd(2 * Eigen::MatrixXd::Identity(50, 50)));
  const auto x = mobula::remote<product>(a, Eigen::VectorXd(Eigen::VectorXd::Ones(50)));
  const mobula::Ref<std::vector<float>> image = mobula::put(std::vector<float>(4 * 5 * 3, 1));
  return mobula::get(x).isConstant(2) && mobula::get(mobula::remote<trace>(a)) == 100 &&
                 mobula::get(mobula::remote<brightness>(image, 5u, 2u)) == 10
             ? 0
             : 1;
}
