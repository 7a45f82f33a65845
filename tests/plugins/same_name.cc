#include <mobula/export.h>

namespace other {
int add(int a, int b) { return a - b; }
MOBULA_EXPORT(add);  // arithmetic.cc exports this name, too
}  // namespace other
