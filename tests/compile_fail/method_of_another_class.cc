// The method belongs to another class than the actor.
// expect: C is neither the actor's class nor a base of it
#include <mobula/mobula.h>

struct Counter {
  int add(int k) { return k; }
};
struct Other {
  int add(int k) { return k; }
};
void call(const mobula::ActorHandle<Counter>& counter) { counter.call<&Other::add>(1); }
