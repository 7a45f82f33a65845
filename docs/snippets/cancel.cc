#include <mobula/mobula.h>

#include <chrono>
#include <thread>
#include <vector>

bool is_it(long n) { return n == 5'000; }

// [listens]
long search(long from) {
  const mobula::TaskInfo me = mobula::this_task();
  for (long n = from;; ++n) {
    if (is_it(n)) return n;
    if (n % 1000 == 0 && me.should_cancel()) return -1;  // nobody will see this value
  }
}
// [/listens]

int sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [cancel]
  std::vector<mobula::Ref<long>> searches;
  for (long from : {0L, 100'000'000L, 200'000'000L})
    searches.push_back(mobula::remote<search>(from));
  const auto [found, others] = mobula::wait(searches);
  for (const mobula::Ref<long>& other : others) mobula::cancel(other);
  // [/cancel]
  const auto stuck = mobula::remote<sleep_for_ever>();
  // [force]
  mobula::cancel(stuck, {.force = true});  // ends the worker that runs it
  // [/force]
  int cancelled = 0;
  for (const mobula::Ref<long>& other : others) {
    try {
      mobula::get(other);
    } catch (const mobula::TaskCancelledError&) {
      ++cancelled;
    }
  }
  try {
    mobula::get(stuck);
  } catch (const mobula::TaskCancelledError&) {
    ++cancelled;
  }
  return mobula::get(found[0]) == 5000 && cancelled == 3 ? 0 : 1;
}
