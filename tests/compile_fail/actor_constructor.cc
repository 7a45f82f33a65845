// The class has no such constructor. The error names the class and what was given.
// expect: the actor's class has no constructor that takes these arguments
// names: CheckConstructor<false, Counter, Sensor, bool>
#include <mobula/mobula.h>

struct Sensor {
  int port;
};
struct Counter {
  explicit Counter(int start) : n(start) {}
  int n;
};
void call() { mobula::actor<Counter>(Sensor{7}, true); }
