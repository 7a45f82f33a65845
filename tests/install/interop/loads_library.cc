#include <mobula/mobula.h>

#include <cstdio>

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.code_search_path = LIBRARY});
  const int sum = mobula::get(mobula::remote_by_name<int(int, int)>("add")(20, 22));
  std::printf("%d\n", sum);
  return sum == 42 ? 0 : 1;
}
