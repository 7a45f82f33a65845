#include "runtime/registry.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <unordered_map>

namespace mobula {
namespace runtime {
namespace {

struct Entry {
  detail::FunctionInfo info;
  std::string identity;
};

// A function-local static: registrations run during static initialisation, in any order.
std::unordered_map<std::uint64_t, Entry>& registry() {
  static std::unordered_map<std::uint64_t, Entry> entries;
  return entries;
}

// Mangled names of things with internal linkage may be the same in two source files.
bool has_internal_linkage(std::string_view identity) {
  return identity.find("_GLOBAL__N_") != std::string_view::npos ||
         identity.find("ZL") != std::string_view::npos ||
         identity.find("EL") != std::string_view::npos || identity.starts_with('*');
}

}  // namespace

const detail::FunctionInfo* find_function(std::uint64_t key) {
  const auto& entries = registry();
  const auto it = entries.find(key);
  return it == entries.end() ? nullptr : &it->second.info;
}

}  // namespace runtime

namespace detail {

FunctionInfo register_function(const char* identity, const char* file, std::string_view name,
                               Invoke invoke) {
  std::string full = identity;
  if (runtime::has_internal_linkage(full)) full.append("@").append(file);
  FunctionInfo info{hash_text(full), name, invoke};
  const auto [it, fresh] = runtime::registry().try_emplace(info.key, runtime::Entry{info, full});
  if (!fresh && (it->second.identity != full || it->second.info.invoke != invoke)) {
    std::fprintf(
        stderr,
        "mobula: two remote functions have the same key and could not be told apart:\n  %s\n  %s\n"
        "Rename one of them, or give it external linkage.\n",
        it->second.identity.c_str(), full.c_str());
    std::abort();
  }
  return info;
}

}  // namespace detail
}  // namespace mobula
