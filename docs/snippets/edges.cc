#include <mobula/mobula.h>

#include <vector>

// [edges]
double simulate(int seed) { return 0.5 * seed; }
double mean(double a, double b) { return (a + b) / 2; }

mobula::Ref<double> diamond() {
  const mobula::Ref<double> left = mobula::remote<simulate>(1);
  const mobula::Ref<double> right = mobula::remote<simulate>(3);
  return mobula::remote<mean>(left, right);  // runs when both values are there
}
// [/edges]

// [many]
double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

mobula::Ref<double> fan_in(int n) {
  std::vector<mobula::Ref<double>> parts;
  for (int seed = 0; seed < n; ++seed) parts.push_back(mobula::remote<simulate>(seed));
  return mobula::remote<mean_of>(parts);  // runs when all n values are there, and gets these
}
// [/many]

// [refs]
// Takes the refs themselves: it may run before their values are there, and decides what to get.
double sum_of(const std::vector<mobula::Ref<double>>& parts) {
  double sum = 0;
  for (const auto& part : parts) sum += mobula::get(part);
  return sum;
}

// A parameter Ref<T> gets the ref, and not the value.
double twice(mobula::Ref<double> value) { return 2 * mobula::get(value); }

// Returns refs: the task ends, what it started goes on.
std::vector<mobula::Ref<double>> start_many(int n) {
  std::vector<mobula::Ref<double>> parts;
  for (int seed = 0; seed < n; ++seed) parts.push_back(mobula::remote<simulate>(seed));
  return parts;
}
// [/refs]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  if (mobula::get(diamond()) != 1.0 || mobula::get(fan_in(1001)) != 250.0) return 1;
  // [use]
  const mobula::Ref<double> sum = mobula::remote<sum_of>(mobula::remote<start_many>(10));
  const mobula::Ref<double> doubled = mobula::remote<twice>(sum);
  // [/use]
  return mobula::get(sum) == 22.5 && mobula::get(doubled) == 45 ? 0 : 1;
}
