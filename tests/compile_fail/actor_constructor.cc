// The class has no such constructor.
// expect: the actor's class has no constructor that takes these arguments
#include <mobula/mobula.h>

struct Counter {
  explicit Counter(int start) : n(start) {}
  int n;
};
void call() { mobula::actor<Counter>("a", "b"); }
