// A ref to a ref is rarely meant.
// expect: put of a Ref
#include <mobula/mobula.h>

void call(const mobula::Ref<int>& ref) { mobula::put(ref); }
