// A stream is read item by item.
// expect: get takes a Ref or a MeshRef, each also with a timeout, or a vector of Refs. A StreamRef
// is names: get_of_a_stream.cc:6
#include <mobula/mobula.h>

int call(const mobula::StreamRef<int>& stream) { return mobula::get(stream); }
