#include "shm/check.h"

#include <cstdio>
#include <cstdlib>

namespace mobula {
void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "mobula: internal check failed: %s at %s:%d\n", condition, file, line);
  std::fflush(stderr);
  std::abort();
}
}  // namespace mobula
