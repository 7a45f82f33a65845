#include "runtime/registry.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "mobula/error.h"
#include "mobula/export.h"
#include "runtime/errors.h"

namespace mobula {
namespace runtime {
namespace {

struct Entry {
  detail::FunctionInfo info;
  std::string identity;
};

struct Registry {
  std::unordered_map<std::uint64_t, Entry> functions;
  std::map<std::string, detail::Export, std::less<>> exports;
  // While a library is being opened: what is wrong with it. Its initialisers run inside of
  // dlopen(), through which no exception may pass.
  bool loading = false;
  std::string refused;
};

// A function-local static: registrations run during static initialisation, in any order.
Registry& registry() {
  static Registry all;
  return all;
}

// Before main() there is nobody to catch an exception.
void refuse(const std::string& why) {
  Registry& all = registry();
  if (all.loading) {
    if (all.refused.empty()) all.refused = why;
    return;
  }
  std::fprintf(stderr, "mobula: %s\n", why.c_str());
  std::abort();
}

// Mangled names of things with internal linkage may be the same in two source files.
bool has_internal_linkage(std::string_view identity) {
  return identity.find("_GLOBAL__N_") != std::string_view::npos ||
         identity.find("ZL") != std::string_view::npos ||
         identity.find("EL") != std::string_view::npos || identity.starts_with('*');
}

// The next name of a macro's text, up to a comma that stands in no bracket.
std::string take_name(std::string_view& text) {
  int depth = 0;
  std::size_t end = 0;
  for (; end < text.size() && (depth > 0 || text[end] != ','); ++end) {
    if (text[end] == '(' || text[end] == '<') ++depth;
    if (text[end] == ')' || text[end] == '>') --depth;
  }
  std::string name(text.substr(0, end));
  text.remove_prefix(std::min(end + 1, text.size()));
  std::erase_if(name, [](char c) { return c == ' ' || c == '\n' || c == '&'; });
  return name;
}

const char* describe(detail::ExportKind kind) {
  switch (kind) {
    case detail::ExportKind::Function: return "a function";
    case detail::ExportKind::Method: return "a method";
    case detail::ExportKind::Constructor: return "a class of actors";
  }
  return "";
}

std::string list_exports(detail::ExportKind kind) {
  constexpr int kListed = 8;
  std::string names;
  int count = 0;
  for (const auto& [name, what] : registry().exports) {
    if (what.kind != kind) continue;
    if (++count > kListed) return names + ", ...";
    names += (count > 1 ? ", " : "") + name;
  }
  return names.empty() ? "none" : names;
}

// All libraries of a search path, in the order in which they are opened.
std::vector<std::string> libraries_of(const std::string& search_path) {
  namespace fs = std::filesystem;
  std::vector<std::string> libraries;
  for (std::size_t begin = 0; begin <= search_path.size();) {
    const std::size_t end = std::min(search_path.find(':', begin), search_path.size());
    const std::string part = search_path.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty()) continue;
    std::error_code problem;
    if (!fs::is_directory(part, problem)) {
      libraries.push_back(fs::absolute(part).string());  // a bare name would be searched elsewhere
      continue;
    }
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(part)) {
      if (entry.path().extension() == ".so") found.push_back(fs::absolute(entry.path()).string());
    }
    if (found.empty())
      throw LibraryLoadError("Config.code_search_path: the folder " + part + " holds no *.so");
    std::sort(found.begin(), found.end());
    libraries.insert(libraries.end(), found.begin(), found.end());
  }
  return libraries;
}

void load_library(const std::string& path) {
  if (::dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD)) return;  // its initialisers have run
  Registry& all = registry();
  const std::size_t before = all.exports.size();
  all.loading = true;
  all.refused.clear();
  const bool opened = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr;
  all.loading = false;
  if (!opened) {
    const char* why = ::dlerror();
    std::string text = "cannot load " + path + ": " + (why ? why : "unknown reason");
    if (text.find("undefined symbol") != std::string::npos &&
        text.find("mobula") != std::string::npos)
      text += ". A program that loads libraries links mobula::host instead of mobula::mobula";
    throw LibraryLoadError(text);
  }
  if (!all.refused.empty()) throw LibraryLoadError("cannot use " + path + ": " + all.refused);
  if (all.exports.size() == before) {
    throw LibraryLoadError(
        "cannot use " + path +
        ": it exported nothing to this program. It has no MOBULA_EXPORT, or it was linked with "
        "Mobula itself: a library links mobula::plugin");
  }
}

}  // namespace

const detail::FunctionInfo* find_function(std::uint64_t key) {
  const auto& functions = registry().functions;
  const auto it = functions.find(key);
  return it == functions.end() ? nullptr : &it->second.info;
}

bool is_exported(std::string_view name) { return registry().exports.contains(name); }

void load_code(const std::string& search_path) {
  for (const std::string& library : libraries_of(search_path)) load_library(library);
}

std::vector<std::string> function_names() {
  std::vector<std::string> names;
  for (const auto& [key, entry] : registry().functions) {
    names.push_back(hex(key));
    names.emplace_back(entry.info.name);
  }
  return names;
}

}  // namespace runtime

namespace detail {

FunctionInfo register_function(const char* identity, const char* file, std::string_view name,
                               Invoke invoke) {
  std::string full = identity;
  if (runtime::has_internal_linkage(full)) full.append("@").append(file);
  FunctionInfo info{hash_text(full), name, invoke};
  const auto [it, fresh] =
      runtime::registry().functions.try_emplace(info.key, runtime::Entry{info, full});
  if (!fresh && (it->second.identity != full || it->second.info.invoke != invoke)) {
    runtime::refuse("two remote functions have the same key and could not be told apart:\n  " +
                    it->second.identity + "\n  " + full +
                    "\nRename one of them, or give it external linkage.");
  }
  return info;
}

void export_names(std::string_view names, std::span<const Export> exports) {
  for (const Export& what : exports) {
    const std::string name = runtime::take_name(names);
    const auto [it, fresh] = runtime::registry().exports.try_emplace(name, what);
    const bool again = it->second.function == what.function;  // by a macro in a header
    if (!fresh && !again)
      runtime::refuse("two things are exported as " + name + "; MOBULA_EXPORT_AS renames one");
  }
}

const Export& find_export(std::string_view name, ExportKind kind, std::string_view signature) {
  const auto& exports = runtime::registry().exports;
  const auto it = exports.find(name);
  if (it == exports.end()) {
    throw FunctionNotFoundError("nothing is exported as " + std::string(name) + "; there are " +
                                runtime::list_exports(kind));
  }
  const Export& what = it->second;
  if (what.kind != kind) {
    throw Error(std::string(name) + " is exported as " + runtime::describe(what.kind) +
                ", not as " + runtime::describe(kind));
  }
  if (!what.signature.empty() && !signature.empty() && what.signature != signature) {
    throw Error(std::string(name) + " is exported as " +
                runtime::demangle(std::string(what.signature).c_str()) + ", and asked for as " +
                runtime::demangle(std::string(signature).c_str()));
  }
  return what;
}

}  // namespace detail
}  // namespace mobula
