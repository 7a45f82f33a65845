// [fit]
#include <mobula/mobula.h>

#include <cmath>
#include <cstdio>
#include <span>
#include <stdexcept>
#include <vector>

struct Guess {
  double slope = 0;
  double error = 0;
};

// How well y = slope * x fits the points (x and y in turn), which it reads in the store.
Guess try_slope(std::span<const double> points, double slope) {
  if (std::isnan(slope)) throw std::invalid_argument("the slope is not a number");
  double error = 0;
  for (std::size_t i = 0; i + 1 < points.size(); i += 2)
    error += std::abs(points[i + 1] - slope * points[i]);
  return {slope, error};
}

class Best {
 public:
  void offer(const Guess& guess) {
    if (offers_++ == 0 || guess.error < best_.error) best_ = guess;
  }
  Guess best() const { return best_; }
  int offers() const { return offers_; }

 private:
  Guess best_;
  int offers_ = 0;
};

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);

  std::vector<double> points;
  for (int x = 0; x < 100'000; ++x) points.insert(points.end(), {1.0 * x, 2.5 * x});
  const auto data = mobula::put(points);  // stored once, for all tasks

  std::vector<mobula::Ref<Guess>> pending;
  for (const double slope : {1.0, 2.0, 2.5, 3.0, std::nan("")})
    pending.push_back(mobula::remote<try_slope>(data, slope));  // all at once, none is waited for

  const auto best = mobula::actor<Best>();
  int failed = 0;
  while (!pending.empty()) {
    auto [ready, rest] = mobula::wait(std::move(pending));  // the next that is ready
    for (const mobula::Ref<Guess>& guess : ready) {
      try {
        best.call<&Best::offer>(mobula::get(guess));
      } catch (const mobula::TaskError& e) {
        std::printf("left out: %s\n", e.message().c_str());
        ++failed;
      }
    }
    pending = std::move(rest);
  }

  const auto offers = best.call<&Best::offers>();  // runs after the offers: one caller, one order
  const Guess found = mobula::get(best.call<&Best::best>());
  std::printf("slope %g is the best of %d, %d failed\n", found.slope, mobula::get(offers), failed);
  return found.slope == 2.5 && mobula::get(offers) == 4 && failed == 1 ? 0 : 1;
}
// [/fit]
