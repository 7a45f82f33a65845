#include <mobula/mobula.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>

using namespace std::chrono_literals;

// [throws]
double root(double x) {
  if (x < 0) throw std::domain_error("no root of " + std::to_string(x));
  return x / 2;
}
// [/throws]

// [own_type]
struct NoSolution : std::runtime_error {
  using std::runtime_error::runtime_error;  // made from its text, which is all of it that travels
};
double solve(double a) { return a != 0 ? 1 / a : throw NoSolution("a is 0"); }
// [/own_type]

int crash(int x) {
  if (x > 0) std::raise(SIGKILL);
  return x;
}

int slow(int x) {
  std::this_thread::sleep_for(200ms);
  return x;
}

int main(int argc, char** argv) {
  // [register]
  mobula::register_exception<NoSolution>();  // before the Session: all processes learn of it
  const mobula::Session session(argc, argv);
  // [/register]
  int caught = 0;

  try {
    mobula::get(mobula::remote<solve>(0.0));
  } catch (const mobula::TaskError& e) {
    try {
      e.rethrow_cause();
    } catch (const NoSolution& cause) {
      if (cause.what() == std::string("a is 0")) ++caught;
    }
  }

  // [task_error]
  const mobula::Ref<double> bad = mobula::remote<root>(-1.0);
  const mobula::Ref<double> later = mobula::remote<root>(bad);  // fails with the same error
  try {
    mobula::get(later);
  } catch (const mobula::TaskError& e) {
    std::puts(e.what());  // task root (id .., attempt 1, process .. of node ..) threw ..
    try {
      e.rethrow_cause();
    } catch (const std::domain_error&) {  // in its own type
      ++caught;
    }
  }
  // [/task_error]

  // [crash]
  try {
    mobula::get(mobula::remote<crash>.with({.max_retries = 1})(1));
  } catch (const mobula::WorkerCrashedError& e) {  // tried twice; the node and all others go on
    if (e.signal() == SIGKILL) ++caught;
  }
  // [/crash]

  // [timeout]
  try {
    mobula::get(mobula::remote<slow>(1), 10ms);
  } catch (const mobula::GetTimeoutError&) {  // the task goes on
    ++caught;
  }
  // [/timeout]

  // [unschedulable]
  try {
    mobula::remote<slow>.with({.num_gpus = 8})(1);  // refused at the call, not later
  } catch (const mobula::UnschedulableError&) {
    ++caught;
  }
  // [/unschedulable]
  return caught == 5 ? 0 : 1;
}
