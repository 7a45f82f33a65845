// A text is given where the method takes a number.
// expect: this argument fits the parameter neither as a value nor as a Ref of it
#include <mobula/mobula.h>

struct Counter {
  int add(int k) { return k; }
};
void call(const mobula::ActorHandle<Counter>& counter) { counter.call<&Counter::add>("one"); }
