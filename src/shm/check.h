// What can only be a bug ends the process, in release builds too, and says where.
#pragma once

namespace mobula {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}  // namespace mobula

#define MOBULA_CHECK(condition)                      \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? void(0)                                     \
       : ::mobula::check_failed(#condition, __FILE__, __LINE__))
