// The result is a class that does not say how it becomes bytes.
// expect: has no codec. Specialise mobula::codec<T>
#include <mobula/mobula.h>

class Secret {
 public:
  explicit Secret(int n) : n_(n) {}

 private:
  int n_;
};
Secret hide(int n) { return Secret(n); }
void call() { mobula::remote<hide>(1); }
