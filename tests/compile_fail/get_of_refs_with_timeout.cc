// Of many there is no timeout for all.
// expect: get takes a Ref or a MeshRef, each also with a timeout, or a vector of Refs
// names: get_of_refs_with_timeout.cc:10
#include <mobula/mobula.h>

#include <chrono>
#include <vector>

std::vector<int> call(const std::vector<mobula::Ref<int>>& refs) {
  return mobula::get(refs, std::chrono::seconds(1));
}
