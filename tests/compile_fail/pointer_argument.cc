// A pointer means nothing in another process.
// expect: has no codec
#include <mobula/mobula.h>

int sum(const int* values) { return *values; }
void call(const int* values) { mobula::remote<sum>(values); }
