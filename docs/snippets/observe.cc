#include <mobula/mobula.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

// [metrics]
const mobula::Counter episodes("episodes_total", "that were simulated");
const mobula::Histogram rewards("reward", "of an episode", {0, 10, 100});

double simulate(int seed) {
  const double reward = 7.0 * (seed % 20);
  episodes.add();  // some nanoseconds
  episodes.with({{"parity", seed % 2 ? "odd" : "even"}}).add();
  rewards.observe(reward);
  return reward;
}
// [/metrics]

// [log]
int load(const std::string& file) {
  if (file.empty()) mobula::log(mobula::LogLevel::Warning, "no file was given");
  mobula::log("loaded", {{"file", file}, {"rows", 1000}, {"seconds", 0.25}});
  return 1000;
}
// [/log]

// [progress]
int train(int steps) {
  const mobula::Progress progress = mobula::progress(steps, "train");
  for (int i = 0; i < steps; ++i) {
    std::this_thread::sleep_for(1ms);
    progress.add();
  }
  return steps;
}
// [/progress]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.log_level = "info"});
  std::vector<mobula::Ref<double>> results;
  for (int seed = 0; seed < 20; ++seed) results.push_back(mobula::remote<simulate>(seed));
  mobula::get(results);
  // [read]
  double simulated = 0;
  for (const mobula::MetricSample& sample : mobula::metrics()) {
    if (sample.name == "episodes_total" && sample.tags.empty()) simulated = sample.value;
  }
  std::fputs(mobula::metrics_text().c_str(), stdout);  // as Prometheus reads it
  // [/read]
  const mobula::Ref<int> rows = mobula::remote<load>("table.csv");
  const std::vector<mobula::Ref<int>> both = {mobula::remote<train>(200),
                                              mobula::remote<train>(100)};
  return simulated == 20 && mobula::get(rows) == 1000 && mobula::get(both)[1] == 100 ? 0 : 1;
}
