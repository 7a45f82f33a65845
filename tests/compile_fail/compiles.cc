// The control: what is nearly the same as the files beside it, and right.
#include <mobula/mobula.h>

int square(int x) { return x * x; }
struct Counter {
  explicit Counter(int start) : n(start) {}
  int add(int k) { return n += k; }
  void later(mobula::Reply<int> reply, int k) { reply.set(n + k); }
  int n;
};
void call(const mobula::Ref<int>& ref, const mobula::Ref<mobula::Buffer>& buffer) {
  mobula::remote<square>(7);
  mobula::remote<square>(ref);
  mobula::remote<square>.with({.num_cpus = 1})(7);
  mobula::actor<Counter>(1).call<&Counter::add>(ref);
  mobula::Ref<int> answer = mobula::actor<Counter>(1).call<&Counter::later>(ref);
  mobula::then(answer, [](mobula::Result<int> result) { static_cast<void>(result); });
  mobula::get_view(buffer);
  mobula::put(7);
}
