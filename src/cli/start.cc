// mobula start --head: starts a node that stays, and returns when drivers can join it.
//
//   node main has started, with CPU 2 and 4.7 GiB of object memory (process 4711)
//   a program joins it with MOBULA_ADDRESS=main; it ends with: mobula stop main
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "cli/commands.h"
#include "cli/node_reader.h"
#include "cli/output.h"
#include "core/resources.h"
#include "runtime/node_program.h"
#include "shm/memory_use.h"
#include "wire/rendezvous.h"

extern char** environ;

namespace mobula::cli {
namespace {

constexpr double kStoreShare = 0.3;  // of the machine's memory, by default
constexpr std::uint64_t kStoreMin = 16 << 20;
constexpr std::size_t kTextMax = 700;  // a session's claim has four such lists in one message

// "lamp=2,desk=0.5"
void add_own(std::map<std::string, double>& amounts, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    at = end + 1;
    const std::size_t equals = part.find('=');
    const std::string name = part.substr(0, std::min(equals, part.size()));
    if (equals == std::string::npos || name.empty())
      throw UsageError("--resources is a list such as lamp=2,desk=0.5, and '" + part +
                       "' is no part of one");
    if (name == "CPU" || name == "GPU" || name == "memory" || name == "object_store_memory")
      throw UsageError("--resources: " + name + " has an option of its own, or is measured");
    char* rest = nullptr;
    amounts[name] = std::strtod(part.c_str() + equals + 1, &rest);
    if (*rest != 0 || rest == part.c_str() + equals + 1)
      throw UsageError("--resources: the amount of " + name + " is no number");
  }
}

std::string resources_text(const Arguments& arguments) {
  cpu_set_t set;
  const int cores = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::map<std::string, double> amounts;
  amounts["CPU"] = arguments.number("num-cpus").value_or(cores);
  amounts["GPU"] = arguments.number("num-gpus").value_or(0);
  amounts["memory"] = static_cast<double>(shm::MemoryGauge().limit());
  add_own(amounts, arguments.text("resources").value_or(""));
  const auto parsed = core::ResourceAmounts::parse(amounts);
  if (const auto* refusal = std::get_if<core::ResourceRefusal>(&parsed))
    throw UsageError(refusal->describe());
  std::string text;
  for (const auto& [name, units] : std::get<core::ResourceAmounts>(parsed).by_name())
    text += name + "=" + std::to_string(units) + "\n";
  if (text.size() > kTextMax) throw UsageError("--resources: too many or too long names");
  return text;
}

std::uint64_t object_memory(const Arguments& arguments) {
  const std::uint64_t machine = shm::MemoryGauge().limit();
  const std::uint64_t bytes =
      arguments.bytes("object-store-memory")
          .value_or(static_cast<std::uint64_t>(static_cast<double>(machine) * kStoreShare));
  if (bytes < kStoreMin || bytes > machine) {
    throw UsageError("--object-store-memory is " + describe_bytes(static_cast<double>(bytes)) +
                     "; it must be from 16 MiB to the machine's " +
                     describe_bytes(static_cast<double>(machine)));
  }
  return bytes;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

// Starts it in a session of its own; what it says when it is ready, or why it is not.
std::string start_behind(const std::string& program, std::vector<std::string> words) {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0)
    throw std::runtime_error(std::string("cannot make a pipe: ") + ::strerror(errno));
  words.push_back("--log");
  words.push_back("--ready=3");
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&files, STDIN_FILENO, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, STDIN_FILENO, STDERR_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, ready[1], 3);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  pid_t pid = 0;
  const int problem =
      ::posix_spawn(&pid, program.c_str(), &files, &attributes, pointers(words).data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  ::close(ready[1]);
  if (problem != 0)
    throw std::runtime_error("cannot start " + program + ": " + ::strerror(problem));
  std::string word;
  char buffer[1024];
  for (ssize_t n; (n = ::read(ready[0], buffer, sizeof buffer)) > 0;)
    word.append(buffer, static_cast<std::size_t>(n));
  ::close(ready[0]);
  return word;
}

}  // namespace

int start(const Arguments& arguments) {
  if (!arguments.has("head"))
    throw UsageError("say --head: a node that joins others on other machines is not built yet");
  const std::string name = arguments.text("name").value_or("main");
  if (!wire::is_node_name(name))
    throw UsageError("--name is '" + name +
                     "'; a name has letters, digits, '-', '_' and '.', at most 64, and is neither "
                     "auto nor local");
  for (const std::string& folder : wire::living_folders(wire::kNodePrefix)) {
    if (folder.ends_with("/" + std::string(wire::kNodePrefix) + name))
      throw std::runtime_error("a node called " + name + " runs already; see: mobula status");
  }
  const std::string program = runtime::find_node_program();
  std::vector<std::string> words{"mobula-node", "--head=" + name,
                                 "--resources=" + resources_text(arguments),
                                 "--object-memory=" + std::to_string(object_memory(arguments))};
  if (arguments.has("block")) {
    ::execv(program.c_str(), pointers(words).data());
    throw std::runtime_error("cannot start " + program + ": " + ::strerror(errno));
  }
  const std::string word = start_behind(program, std::move(words));
  if (word != "ok")
    throw std::runtime_error("the node could not start: " + (word.empty() ? "it ended" : word));
  NodeReader node(wire::folder_of_node(name));
  const auto all = node.resources();
  if (arguments.has("json")) {
    print({{"NODE", "PID", "SOCKET"},
           {{name, static_cast<double>(node.pid()), node.folder() + "/socket"}}},
          true);
    return 0;
  }
  std::printf("node %s has started, with %s and %s of object memory (process %u)\n", name.c_str(),
              describe_resources(all, all).c_str(),
              describe_bytes(static_cast<double>(node.object_memory())).c_str(), node.pid());
  std::printf("a program joins it with MOBULA_ADDRESS=%s; it ends with: mobula stop %s\n",
              name.c_str(), name.c_str());
  return 0;
}

}  // namespace mobula::cli
