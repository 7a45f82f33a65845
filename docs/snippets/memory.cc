#include <mobula/mobula.h>

#include <cstdio>
#include <vector>

// [hungry]
std::size_t hungry(std::size_t bytes) {
  const std::vector<char> memory(bytes, 'x');
  return memory.size();
}
// [/hungry]

int main(int argc, char** argv) {
  // [limit]
  const mobula::Session session(argc, argv,
                                {.num_cpus = 2,
                                 .object_store_memory = 64 << 20,
                                 .memory_limit = 512 << 20});  // for all workers and actors
  // [/limit]
  bool caught = false;
  // [out_of_memory]
  try {
    mobula::get(mobula::remote<hungry>.with({.max_retries = 1})(std::size_t{2} << 30));
  } catch (const mobula::OutOfMemoryError& e) {  // tried twice; the node and all others go on
    std::puts(e.what());
    caught = true;
  }
  // [/out_of_memory]
  // [ask]
  const std::size_t large = 300 << 20;  // two of them do not fit
  const auto careful = mobula::remote<hungry>.with({.memory = large});  // so they run in turn
  const mobula::Ref<std::size_t> first = careful(large);
  const mobula::Ref<std::size_t> second = careful(large);
  // [/ask]
  return caught && mobula::get(first) == large && mobula::get(second) == large ? 0 : 1;
}
