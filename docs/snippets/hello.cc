// [hello]
#include <mobula/mobula.h>

#include <cstdio>

int square(int x) { return x * x; }

int main(int argc, char** argv) {
  mobula::Session session(argc, argv);             // starts a node here, gone when main ends
  mobula::Ref<int> a = mobula::remote<square>(7);  // returns at once
  mobula::Ref<int> b = mobula::remote<square>(a);  // waits for a's value, not for us
  std::printf("%d\n", mobula::get(b));             // 2401
  return mobula::get(b) == 2401 ? 0 : 1;
}
// [/hello]
