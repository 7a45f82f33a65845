// Which functions this program has: key -> how to call it, and name -> what was exported under it.
// Filled before main() and by the libraries that load_code opens; read-only afterwards.
#pragma once

#include <string>
#include <vector>

#include "mobula/detail/runtime.h"

namespace mobula::runtime {

// nullptr: this program has no such function.
const detail::FunctionInfo* find_function(std::uint64_t key);

bool is_exported(std::string_view name);

// Opens the libraries of Config.code_search_path: each part is a library, or a folder of which all
// *.so are taken. Whoever is open already stays as it is. They are never closed. Throws
// LibraryLoadError.
void load_code(const std::string& search_path);

// Key (16 hexadecimal digits) and name of each in turn, for tools.
std::vector<std::string> function_names();

}  // namespace mobula::runtime
