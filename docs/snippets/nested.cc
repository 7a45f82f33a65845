#include <mobula/mobula.h>

#include <vector>

// [recursion]
// Tasks may start tasks and wait for them. The waiting worker gives its CPU to others, and runs
// what it waits for itself when nobody has begun it: recursion cannot run out of workers.
long fibonacci(int n) {
  if (n < 2) return n;
  const mobula::Ref<long> a = mobula::remote<fibonacci>(n - 1);
  const long b = fibonacci(n - 2);  // an ordinary call for the other half
  return mobula::get(a) + b;
}
// [/recursion]

// [tree]
double add(double a, double b) { return a + b; }

// log2(n) steps deep instead of n, and no value passes through the caller.
mobula::Ref<double> sum_by_tree(std::vector<mobula::Ref<double>> parts) {
  while (parts.size() > 1) {
    std::vector<mobula::Ref<double>> next;
    for (std::size_t i = 0; i + 1 < parts.size(); i += 2)
      next.push_back(mobula::remote<add>(parts[i], parts[i + 1]));
    if (parts.size() % 2 == 1) next.push_back(parts.back());
    parts = std::move(next);
  }
  return parts.at(0);
}
// [/tree]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  std::vector<mobula::Ref<double>> parts;
  for (int i = 1; i <= 100; ++i) parts.push_back(mobula::put(1.0 * i));
  if (mobula::get(sum_by_tree(parts)) != 5050) return 1;
  return mobula::get(mobula::remote<fibonacci>(15)) == 610 ? 0 : 1;
}
