// Where the program mobula-node is.
#pragma once

#include <string>

namespace mobula::runtime {

// Looked for: $MOBULA_NODE, beside the program, in bin/ beside its folder, where it was installed
// or built, in PATH. Throws Error.
std::string find_node_program();

}  // namespace mobula::runtime
