// Only a tuple can be taken apart.
// expect: unpacked needs a function that returns a std::tuple
#include <mobula/mobula.h>

int square(int x) { return x * x; }
void call() { mobula::remote<square>.unpacked(1); }
