// g++ 12 is told not to trust its coroutines; the program compiles all the same.
// old g++ says: g++ before 13 miscompiles some coroutines
#include <mobula/coroutine.h>

mobula::Async<int> later(mobula::Ref<int> ref) { co_return co_await ref; }
