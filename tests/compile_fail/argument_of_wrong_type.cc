// A text is given where the function takes a number.
// expect: this argument fits the parameter neither as a value nor as a Ref of it
#include <mobula/mobula.h>

int square(int x) { return x * x; }
void call() { mobula::remote<square>("seven"); }
