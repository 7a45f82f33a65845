#include <mobula/mobula.h>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

class Scores {
 public:
  int add(int score) { return best_ = std::max(best_, score); }
  int best() const { return best_; }

 private:
  int best_ = 0;
};

// [report]
int report(int score) {
  const auto scores = mobula::get_actor<Scores>("scores");  // a handle like any other
  return mobula::get(scores.call<&Scores::add>(score));
}
// [/report]

struct Miner {
  int dig(std::chrono::milliseconds time) {
    std::this_thread::sleep_for(time);
    return ++depth;
  }
  int collapse() { return ::kill(::getpid(), SIGKILL); }
  int depth = 0;
};

// [one_for_one]
// Keeps a group at its size: whoever dies is replaced, the others go on. Stops after `deaths`.
void supervise(std::vector<mobula::ActorHandle<Miner>>& group, int deaths) {
  std::vector<mobula::Ref<mobula::ActorDeath>> ends;
  for (const auto& miner : group) ends.push_back(mobula::monitor(miner));
  for (; deaths > 0; --deaths) {
    const auto [dead, alive] = mobula::wait(ends);
    const auto who = std::find(ends.begin(), ends.end(), dead[0]) - ends.begin();
    std::puts(mobula::get(dead[0]).text().c_str());  // its process 4711 was killed by SIGSEGV (..)
    const auto at = static_cast<std::size_t>(who);
    group[at] = mobula::actor<Miner>();  // or all of them, if they need each other
    ends[at] = mobula::monitor(group[at]);
  }
}
// [/one_for_one]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [names]
  const auto scores = mobula::actor<Scores>.with({.name = "scores"})();
  mobula::get(mobula::remote<report>(3));  // finds it by its name
  const int best = mobula::get(mobula::get_actor<Scores>("scores").call<&Scores::best>());
  // [/names]
  // [get_if_exists]
  const auto shared = mobula::actor<Scores>.with({.name = "scores", .get_if_exists = true})();
  // [/get_if_exists]
  if (best != 3 || !(shared == scores)) return 1;

  std::vector<mobula::ActorHandle<Miner>> group(3);
  for (auto& miner : group) miner = mobula::actor<Miner>();
  for (const auto& miner : group) mobula::get(miner.call<&Miner::dig>(0ms));
  group[1].call<&Miner::collapse>();
  supervise(group, 1);
  if (mobula::get(group[0].call<&Miner::dig>(0ms)) != 2) return 1;
  if (mobula::get(group[1].call<&Miner::dig>(0ms)) != 1) return 1;
  // [pending]
  const auto careful = mobula::actor<Miner>.with({.max_pending_calls = 2})();
  int refused = 0;
  std::vector<mobula::Ref<int>> calls;
  for (int i = 0; i < 5; ++i) {
    try {
      calls.push_back(careful.call<&Miner::dig>(50ms));
    } catch (const mobula::PendingCallsLimitError&) {
      ++refused;  // get or wait for some first
    }
  }
  // [/pending]
  return refused == 3 && mobula::get(calls).back() == 2 ? 0 : 1;
}
