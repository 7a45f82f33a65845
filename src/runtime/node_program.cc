#include "runtime/node_program.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>

#include "mobula/error.h"

namespace mobula::runtime {
namespace {

bool is_program(const std::string& path) { return ::access(path.c_str(), X_OK) == 0; }

}  // namespace

std::string find_node_program() {
  if (const char* given = ::getenv("MOBULA_NODE")) {
    if (is_program(given)) return given;
    throw Error("MOBULA_NODE is " + std::string(given) + ", which is no program that can be run");
  }
  char self[4096];
  const ssize_t size = ::readlink("/proc/self/exe", self, sizeof self - 1);
  if (size > 0) {
    self[size] = 0;
    const std::string path(self);
    const std::string folder = path.substr(0, path.rfind('/'));
    for (const std::string& candidate : {folder + "/mobula-node", folder + "/../bin/mobula-node"}) {
      if (is_program(candidate)) return candidate;
    }
  }
  for (const char* candidate : {MOBULA_NODE_INSTALLED, MOBULA_NODE_BUILT}) {
    if (is_program(candidate)) return candidate;
  }
  const char* path = ::getenv("PATH");
  const std::string folders = path ? path : "";
  for (std::size_t begin = 0; begin <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', begin), folders.size());
    const std::string candidate = folders.substr(begin, end - begin) + "/mobula-node";
    if (is_program(candidate)) return candidate;
    begin = end + 1;
  }
  throw Error(
      "the program mobula-node was not found beside this program, in its installation prefix or in "
      "PATH; set MOBULA_NODE to its path");
}

}  // namespace mobula::runtime
