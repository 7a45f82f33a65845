#include <mobula/mobula.h>

#include <chrono>
#include <cstdlib>
#include <string>

using namespace std::chrono_literals;

int forecast(int days) { return 2 * days; }
int slow() {
  for (const mobula::TaskInfo me = mobula::this_task(); !me.should_cancel();) {
  }
  return 1;
}

struct Server {
  int answer(int question) { return question + 1; }
};

// [environment_of]
std::string threads() { return std::getenv("OMP_NUM_THREADS"); }
// [/environment_of]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.num_cpus = 2});
  const auto server = mobula::actor<Server>();
  // [deadline]
  const auto in_time = mobula::remote<forecast>.with({.deadline = 5s})(7);
  const auto answer = server.with({.deadline = 5s}).call<&Server::answer>(1);
  const auto too_late = mobula::remote<slow>.with({.deadline = 20ms})();
  try {
    mobula::get(too_late);
  } catch (const mobula::DeadlineExceededError&) {  // which is a TaskCancelledError
  }
  // [/deadline]
  // [priority]
  const auto urgent = mobula::remote<forecast>.with({.priority = 10})(1);
  const auto some_time = mobula::remote<forecast>.with({.priority = -10})(2);
  // [/priority]
  // [environment]
  const mobula::RuntimeEnv single{.env_vars = {{"OMP_NUM_THREADS", "1"}}, .working_dir = "/tmp"};
  const auto one = mobula::remote<threads>.with({.runtime_env = single})();
  // [/environment]
  const int sum =
      mobula::get(in_time) + mobula::get(answer) + mobula::get(urgent) + mobula::get(some_time);
  return sum == 14 + 2 + 2 + 4 && mobula::get(one) == "1" ? 0 : 1;
}
