#include <mobula/future.h>
#include <mobula/mobula.h>

#include <chrono>
#include <optional>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

int roll(int seed) {
  std::this_thread::sleep_for(std::chrono::milliseconds(seed % 5));
  return seed;
}

// [as_they_come]
int sum_as_they_come(std::vector<mobula::Ref<int>> pending) {
  int sum = 0;
  while (!pending.empty()) {
    auto [ready, rest] = mobula::wait(std::move(pending));  // at least one
    for (const int value : mobula::get(ready)) sum += value;
    pending = std::move(rest);
  }
  return sum;
}
// [/as_they_come]

// [bounded]
// Never more than `limit` in flight: memory stays bounded however many there are to do.
int sum_of_many(int count, std::size_t limit) {
  std::vector<mobula::Ref<int>> in_flight;
  int sum = 0;
  for (int seed = 0; seed < count || !in_flight.empty();) {
    while (seed < count && in_flight.size() < limit)
      in_flight.push_back(mobula::remote<roll>(seed++));
    auto [ready, pending] = mobula::wait(std::move(in_flight));
    for (const int value : mobula::get(ready)) sum += value;
    in_flight = std::move(pending);
  }
  return sum;
}
// [/bounded]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  std::vector<mobula::Ref<int>> refs;
  for (int seed = 0; seed < 20; ++seed) refs.push_back(mobula::remote<roll>(seed));
  // [options]
  const auto [ready, pending] = mobula::wait(refs, {.num_returns = 5, .timeout = 2s});
  const auto [now, later] = mobula::wait(refs, {.timeout = 0s});  // only looks
  // [/options]
  // [try_get]
  const mobula::Result<int> result = mobula::try_get(refs[0], 2s);  // errors as values
  const int value = result ? *result : -1;
  // [/try_get]
  long sum = 0;
  // [get_each]
  mobula::get_each(refs, [&](int one) { sum += one; }, {.memory_budget = 1 << 30});
  // [/get_each]
  // [future]
  std::future<int> future = mobula::to_future(refs[7]);  // #include <mobula/future.h>
  // [/future]
  if (ready.size() != 5 || pending.size() != 15 || now.size() + later.size() != 20) return 1;
  if (sum != 190 || future.get() != 7) return 1;
  return value == 0 && sum_as_they_come(refs) == 190 && sum_of_many(100, 8) == 4950 ? 0 : 1;
}
