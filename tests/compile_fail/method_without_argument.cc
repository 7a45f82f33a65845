// The method takes one.
// expect: wrong number of arguments for the method
#include <mobula/mobula.h>

struct Counter {
  int add(int k) { return k; }
};
void call(const mobula::ActorHandle<Counter>& counter) { counter.call<&Counter::add>(); }
