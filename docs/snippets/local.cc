#include <mobula/mobula.h>

#include <vector>

// [tasks]
int square(int x) { return x * x; }

struct Sum {
  int total = 0;
  int add(int x) { return total += x; }  // a breakpoint here stops with the caller on the stack
};
// [/tasks]

int main(int argc, char** argv) {
  // [session]
  const mobula::Session session(argc, argv, {.local_mode = true});
  // [/session]
  const auto sum = mobula::actor<Sum>();
  std::vector<mobula::Ref<int>> sums;
  for (int i = 0; i < 4; ++i) sums.push_back(sum.call<&Sum::add>(mobula::remote<square>(i)));
  return mobula::get(sums).back() == 14 ? 0 : 1;
}
