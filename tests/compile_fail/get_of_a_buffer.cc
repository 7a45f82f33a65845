// A buffer is read in place.
// expect: a Ref<Buffer> is read by get_view
#include <mobula/mobula.h>

void call(const mobula::Ref<mobula::Buffer>& ref) { mobula::get(ref); }
