#include <mobula/mobula.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

// [aggregate]
struct Particle {
  double x = 0;
  double y = 0;
  std::optional<std::string> label;
};

struct World {
  std::vector<Particle> particles;
  std::map<std::string, double> constants;
};

World step(World world) {
  for (Particle& particle : world.particles) particle.x += world.constants.at("speed");
  return world;
}
// [/aggregate]

// [codec]
class Polynomial {  // has a constructor and private fields, so it says itself how it travels
 public:
  explicit Polynomial(std::vector<double> coefficients) : coefficients_(std::move(coefficients)) {}
  double at(double x) const {
    double y = 0;
    for (std::size_t i = coefficients_.size(); i-- > 0;) y = y * x + coefficients_[i];
    return y;
  }
  const std::vector<double>& coefficients() const { return coefficients_; }

 private:
  std::vector<double> coefficients_;
};

template <>
struct mobula::codec<Polynomial> {
  static void encode(mobula::Writer& writer, const Polynomial& polynomial) {
    mobula::encode<std::vector<double>>(writer, polynomial.coefficients());
  }
  static Polynomial decode(mobula::Reader& reader) {
    return Polynomial(mobula::decode<std::vector<double>>(reader));
  }
};
// [/codec]

double evaluate(const Polynomial& polynomial, double x) { return polynomial.at(x); }

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  const World world{{{1, 2, {}}, {3, 4, "last"}}, {{"speed", 0.25}}};
  const World next = mobula::get(mobula::remote<step>(world));
  const double y = mobula::get(mobula::remote<evaluate>(Polynomial({1, 0, 2}), 3.0));
  return next.particles.at(1).x == 3.25 && next.particles.at(1).label == "last" && y == 19 ? 0 : 1;
}
