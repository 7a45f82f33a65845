// The parameter is a class that does not say how it becomes bytes.
// expect: has no codec. Specialise mobula::codec<T>
#include <mobula/mobula.h>

class Secret {
 public:
  explicit Secret(int n) : n_(n) {}
  int n() const { return n_; }

 private:
  int n_;
};
int reveal(Secret secret) { return secret.n(); }
void call() { mobula::remote<reveal>(Secret(1)); }
