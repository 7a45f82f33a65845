// No argument for a function of one parameter, with options.
// expect: wrong number of arguments for the remote function
#include <mobula/mobula.h>

int square(int x) { return x * x; }
void call() { mobula::remote<square>.with({.num_cpus = 1})(); }
