#include <mobula/mobula.h>

#include <cstdio>
#include <stdexcept>
#include <string>

// [retries]
// Throws at its first attempt; this_task() knows which one it is.
int flaky(int x) {
  if (mobula::this_task().attempt == 0) throw std::runtime_error("not yet");
  return x;
}
// [/retries]

std::string name_of_task() { return mobula::this_task().name; }

struct Simulator {
  double lamps() const { return mobula::this_task().resources.at("lamp"); }
};

int main(int argc, char** argv) {
  // [config]
  const mobula::Session session(argc, argv,
                                {.num_cpus = 4,
                                 .resources = {{"lamp", 2}},
                                 .object_store_memory = 256 << 20,
                                 .log_to_driver = true});
  // [/config]
  // [task_options]
  const auto retried = mobula::remote<flaky>.with({.retry_exceptions = true})(7);
  const auto named = mobula::remote<name_of_task>.with({.num_cpus = 0.5, .name = "who am I"})();
  const auto lit = mobula::remote<flaky>.with({.resources = {{"lamp", 1}}, .max_retries = 0})(7);
  // [/task_options]
  // [actor_options]
  const auto simulator = mobula::actor<Simulator>.with(
      {.max_restarts = 3, .max_task_retries = 1, .num_cpus = 1, .resources = {{"lamp", 0.5}}})();
  // [/actor_options]
  const bool right = mobula::get(retried) == 7 && mobula::get(named) == "who am I";
  // [resources]
  for (const auto& [name, amount] : mobula::available_resources())
    std::printf("%s %g\n", name.c_str(), amount);
  // [/resources]
  const bool refused = !mobula::try_get(lit);  // an exception is final without retry_exceptions
  return right && refused && mobula::get(simulator.call<&Simulator::lamps>()) == 0.5 ? 0 : 1;
}
