// A field deep inside of what is put has no codec: the message names its type.
// expect: has no codec. Specialise mobula::codec<T>
#include <mobula/mobula.h>

#include <mutex>
#include <vector>

struct Shelf {
  std::vector<int> books;
  std::vector<std::mutex*> locks;
};
void call(const Shelf& shelf) { mobula::put(shelf); }
