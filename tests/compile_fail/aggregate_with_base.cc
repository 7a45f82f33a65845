// A struct with a base class: which fields it has cannot be told.
// expect: an aggregate with a base class has no codec
#include <mobula/mobula.h>

struct Base {
  int a;
};
struct Derived : Base {
  int b;
};
void call() { mobula::put(Derived{{1}, 2}); }
