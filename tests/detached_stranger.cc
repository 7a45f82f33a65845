// A program that is not the one that created the detached actor, and was written by itself: it
// calls the method that it shares, and one that the actor's own program does not have.
#include <mobula/mobula.h>

#include <cstdio>

namespace detached {

struct Counter {
  int add(int n) { return n; }  // never runs here
  int strange() const { return 1; }
};

}  // namespace detached

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  const auto counter = mobula::get_actor<detached::Counter>("c");
  std::printf("has %d\n", mobula::get(counter.call<&detached::Counter::add>(1)));
  try {
    mobula::get(counter.call<&detached::Counter::strange>());
  } catch (const mobula::FunctionNotFoundError& e) {
    std::printf("refused: %s\n", e.what());
  }
  std::printf("has %d\n", mobula::get(counter.call<&detached::Counter::add>(1)));
}
