// There is nothing to wait for; what is made of the result is no second error.
// expect: get takes a Ref or a MeshRef, each also with a timeout, or a vector of Refs
// names: get_of_a_value.cc:7
#include <mobula/mobula.h>

std::string call() {
  const std::string five = mobula::get(5);
  return five;
}
