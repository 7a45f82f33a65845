// mobula stop [NAME]: ends a node that stays, and says what ended with it.
#include <cmath>
#include <cstdio>

#include "cli/commands.h"
#include "cli/node_reader.h"
#include "wire/rendezvous.h"

namespace mobula::cli {
namespace {

constexpr double kGraceSeconds = 5;
constexpr double kGraceMax = 1e6;

void stop_one(const std::string& folder, std::uint64_t grace_ms) {
  NodeReader node(folder);
  const std::string name = node.name();
  const std::string ended = node.drain(grace_ms);
  std::printf("node %s has ended%s\n", name.c_str(), ended.empty() ? "" : ", and with it");
  for (std::size_t at = 0; at < ended.size();) {
    const std::size_t end = std::min(ended.find('\n', at), ended.size());
    std::printf("  %s\n", ended.substr(at, end - at).c_str());
    at = end + 1;
  }
}

}  // namespace

int stop(const Arguments& arguments) {
  const double grace = arguments.number("grace").value_or(kGraceSeconds);
  if (grace > kGraceMax) throw UsageError("--grace is a number of seconds up to 1000000");
  const auto grace_ms = static_cast<std::uint64_t>(std::llround(grace * 1000));
  if (arguments.has("all")) {
    if (!arguments.words().empty()) throw UsageError("a name or --all, not both");
    for (const std::string& folder : wire::living_folders(wire::kNodePrefix))
      stop_one(folder, grace_ms);
    return 0;
  }
  std::string folder;
  try {
    folder = wire::folder_of_node(arguments.words().empty() ? "auto" : arguments.words()[0]);
  } catch (const std::runtime_error& e) {
    throw NotFound(e.what());
  }
  stop_one(folder, grace_ms);
  return 0;
}

}  // namespace mobula::cli
