// The first program: tasks, data edges, an object that all tasks read in place, and an actor.
#include <mobula/mobula.h>

#include <cstdio>
#include <span>
#include <vector>

double sum(std::span<const double> values, int part, int parts) {  // reads the store in place
  double total = 0;
  const std::size_t size = values.size() / static_cast<std::size_t>(parts);
  for (const double value : values.subspan(static_cast<std::size_t>(part) * size, size))
    total += value;
  return total;
}

double add(double a, double b) { return a + b; }

struct Counter {
  int n = 0;
  explicit Counter(int start) : n(start) {}
  int add(int k) { return n += k; }
};

int main(int argc, char** argv) {
  mobula::Session session(argc, argv);  // starts a node on this machine, gone when main ends

  const auto values = mobula::put(std::vector<double>(1'000'000, 0.5));
  mobula::Ref<double> total = mobula::put(0.0);
  for (int part = 0; part < 8; ++part) {
    total = mobula::remote<add>(total, mobula::remote<sum>(values, part, 8));  // returns at once
  }
  std::printf("8 tasks summed a million values: %.0f\n", mobula::get(total));

  const auto counter = mobula::actor<Counter>(10);  // a process with state
  for (int i = 0; i < 5; ++i) counter.call<&Counter::add>(i);
  std::printf("an actor counted from 10 to %d\n", mobula::get(counter.call<&Counter::add>(0)));
}
