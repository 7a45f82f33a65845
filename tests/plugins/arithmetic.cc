// A library that a session loads: it was compiled without the program, and the program without it.
#include <mobula/export.h>
#include <mobula/mobula.h>

#include <numeric>
#include <span>
#include <stdexcept>

int add(int a, int b) { return a + b; }

// The program has another function of this name.
int offset(int x) { return x + 1000; }

double total(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

int fail(int code) { throw std::runtime_error("code " + std::to_string(code)); }

// Tasks of a library submit further ones.
int twice_remotely(int x) { return mobula::get(mobula::remote<add>(x, x)); }

class Tally {
 public:
  explicit Tally(int start) : sum_(start) {}
  int add(int n) { return sum_ += n; }
  int sum() const { return sum_; }

 private:
  int sum_;
};

class Echo {
 public:
  static Echo* make() { return new Echo(); }
  std::string say(const std::string& text) { return text + text; }
};

MOBULA_EXPORT(add, offset, total, fail, twice_remotely, &Tally::add, &Tally::sum, Echo::make,
              &Echo::say);
MOBULA_EXPORT_ACTOR(Tally, int);
