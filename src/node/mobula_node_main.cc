// mobula-node: the daemon of one machine. A driver starts it; people rarely do.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <exception>

#include "node/node.h"
#include "shm/crash_point.h"

int main(int argc, char** argv) {
  constexpr char kOption[] = "--driver-socket=";
  if (argc == 2 && strncmp(argv[1], kOption, sizeof kOption - 1) == 0) {
    try {
      mobula::shm::arm_crash_points("node");
      mobula::node::Node node(atoi(argv[1] + sizeof kOption - 1));
      return node.run();
    } catch (const std::exception& e) {
      fprintf(stderr, "mobula-node: %s\n", e.what());
      return 1;
    }
  }
  const bool help = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
  fprintf(
      help ? stdout : stderr,
      "mobula-node is the daemon of a Mobula node: it owns the shared memory and starts workers.\n"
      "A program that constructs a mobula::Session starts it; it is not started by hand.\n"
      "\n"
      "  mobula-node --driver-socket=FD   serve the driver connected to this descriptor\n"
      "  mobula-node --help               this text\n");
  return help ? 0 : 2;
}
