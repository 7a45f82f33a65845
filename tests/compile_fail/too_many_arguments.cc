// Two arguments for a function of one parameter.
// expect: wrong number of arguments for the remote function
#include <mobula/mobula.h>

int square(int x) { return x * x; }
void call() { mobula::remote<square>(1, 2); }
