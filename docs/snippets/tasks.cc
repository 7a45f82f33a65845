#include <mobula/mobula.h>

#include <string>
#include <tuple>

// [functions]
int add(int a, int b) { return a + b; }

struct Geometry {
  static double area(double width, double height) { return width * height; }
};

template <int N>
int times(int x) {
  return N * x;
}

std::tuple<int, std::string> divide(int a, int b) {
  return {a / b, "remainder " + std::to_string(a % b)};
}
// [/functions]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [calls]
  const auto sum = mobula::remote<add>(1, 2);                         // Ref<int>
  const auto area = mobula::remote<Geometry::area>(3, 0.5);           // arguments convert
  const auto six = mobula::remote<times<3>>(2);                       // a template's instance
  const auto eight = mobula::remote<[](int x) { return 2 * x; }>(4);  // a lambda, no captures
  const auto [quotient, rest] = mobula::remote<divide>.unpacked(17, 5);
  // [/calls]
  bool right = mobula::get(sum) == 3 && mobula::get(area) == 1.5 && mobula::get(six) == 6;
  right = right && mobula::get(eight) == 8 && mobula::get(quotient) == 3;
  return right && mobula::get(rest) == "remainder 2" ? 0 : 1;
}
