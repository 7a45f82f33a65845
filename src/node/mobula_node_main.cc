// mobula-node: the daemon of a session, or of a node that stays. A driver or `mobula start` starts
// it; people rarely do.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "node/head.h"
#include "node/node.h"
#include "node/node_parts.h"
#include "shm/crash_point.h"
#include "wire/rendezvous.h"

namespace {

constexpr char kHelp[] =
    "mobula-node is the daemon of a Mobula node: it owns the shared memory and starts workers.\n"
    "A program that constructs a mobula::Session starts it, or `mobula start --head`; it is not\n"
    "started by hand.\n"
    "\n"
    "  mobula-node --driver-socket=FD   serve the driver connected to this descriptor\n"
    "      --node-socket=FD --node-name=NAME   as a job of the node that stays behind this one\n"
    "  mobula-node --head=NAME          stay, and serve all drivers that join\n"
    "      --resources=TEXT             what the node has, in 1/10000: CPU=20000\\n...\n"
    "      --object-memory=BYTES        for all jobs together\n"
    "      --ready=FD                   where to write \"ok\", or what is wrong\n"
    "      --log                        write own output into the node's folder\n"
    "  mobula-node --help               this text\n";

// What follows "NAME=" in one of the arguments.
std::optional<std::string> option(int argc, char** argv, std::string_view name) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument(argv[i]);
    if (argument.starts_with(name) && argument.substr(name.size()).starts_with('='))
      return std::string(argument.substr(name.size() + 1));
    if (argument == name) return std::string();
  }
  return {};
}

int descriptor(const std::optional<std::string>& text) { return text ? atoi(text->c_str()) : -1; }

int stay(int argc, char** argv, const std::string& name) {
  mobula::node::NodeSettings settings;
  settings.name = name;
  settings.capacity = mobula::node::parse_units(option(argc, argv, "--resources").value_or(""));
  settings.object_memory =
      strtoull(option(argc, argv, "--object-memory").value_or("0").c_str(), nullptr, 10);
  settings.log_to_file = option(argc, argv, "--log").has_value();
  if (!mobula::wire::is_node_name(name))
    throw std::runtime_error("'" + name + "' is no name of a node");
  return mobula::node::keep_node(settings, descriptor(option(argc, argv, "--ready")));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (const auto name = option(argc, argv, "--head")) return stay(argc, argv, *name);
    if (const auto driver = option(argc, argv, "--driver-socket")) {
      mobula::shm::arm_crash_points("node");
      mobula::node::Node node(descriptor(driver), descriptor(option(argc, argv, "--node-socket")),
                              option(argc, argv, "--node-name").value_or(""));
      return node.run();
    }
  } catch (const std::exception& e) {
    fprintf(stderr, "mobula-node: %s\n", e.what());
    return 1;
  }
  const bool help = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
  fputs(kHelp, help ? stdout : stderr);
  return help ? 0 : 2;
}
