// The driver's side of a session: starting the node, joining it, leaving it; and what a program can
// ask about itself.
#include "mobula/session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <vector>

#include "mobula/error.h"
#include "mobula/metrics.h"
#include "runtime/cancelling.h"
#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/host.h"
#include "runtime/local_mode.h"
#include "runtime/log.h"
#include "runtime/node_program.h"
#include "runtime/process.h"
#include "runtime/registry.h"
#include "runtime/worker.h"
#include "shm/memory_use.h"
#include "wire/local_protocol.h"
#include "wire/rendezvous.h"

extern char** environ;

namespace mobula {
namespace {

using runtime::LocalMode;
using runtime::Process;

std::mutex session_mutex;
std::unique_ptr<Process> session_process;
pid_t node_pid = 0;  // of a node of our own
std::string node_directory;
bool shows_metrics = false;

constexpr std::uint64_t kStoreMin = 16 << 20;
constexpr std::uint64_t kMemoryLimitMin = 64 << 20;
constexpr double kStoreShare = 0.3;  // of the machine's memory, by default

void add_resource(std::string& text, const std::string& name, double amount) {
  if (std::isnan(amount) || std::isinf(amount) || amount < 0) {
    throw Error("Config: the amount of " + name + " is " + std::to_string(amount) +
                "; it must be a number that is not negative");
  }
  if (name.empty() || name.find_first_of("=\n") != std::string::npos)
    throw Error("Config: '" + name + "' is no name of a resource");
  char number[40];
  std::snprintf(number, sizeof number, "=%.17g\n", amount);
  text += name + number;
}

// What the machine has, or the control group: the smaller.
std::uint64_t machine_memory() { return shm::MemoryGauge().limit(); }

void check_memory_limits(const Config& config) {
  if (!(config.memory_threshold > 0 && config.memory_threshold <= 1)) {
    throw Error("Config.memory_threshold is " + std::to_string(config.memory_threshold) +
                "; it is a share of the memory: above 0 and up to 1");
  }
  if (!config.memory_limit) return;
  if (*config.memory_limit < kMemoryLimitMin) {
    throw Error("Config.memory_limit is " + std::to_string(*config.memory_limit) +
                " bytes; at least " + std::to_string(kMemoryLimitMin) + " are needed");
  }
  if (*config.memory_limit > machine_memory()) {
    throw Error("Config.memory_limit is " + std::to_string(*config.memory_limit) +
                " bytes, more than the machine's " + std::to_string(machine_memory()));
  }
}

int cores() {
  cpu_set_t set;
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

// `joins`: only what is to be less than the node has.
std::string resources_text(const Config& config, bool joins) {
  std::string text;
  if (config.num_cpus || !joins) add_resource(text, "CPU", config.num_cpus.value_or(cores()));
  if (config.num_gpus) add_resource(text, "GPU", *config.num_gpus);
  if (config.memory_limit || !joins) {
    add_resource(text, "memory",
                 static_cast<double>(config.memory_limit.value_or(machine_memory())));
  }
  for (const auto& [name, amount] : config.resources) {
    if (name == "CPU" || name == "GPU" || name == "memory" || name == "object_store_memory") {
      throw Error("Config.resources: " + name + " is given by its own field");
    }
    if (name.starts_with(wire::kSettingPrefix)) {
      throw Error("Config.resources: " + name + " is no name of a resource, since it begins with " +
                  std::string(wire::kSettingPrefix));
    }
    add_resource(text, name, amount);
  }
  return text;
}

// The text of the Start message (wire/local_protocol.h).
std::string settings_text(const Config& config, bool joins) {
  std::string text = resources_text(config, joins);
  if (config.spill_limit)
    add_resource(text, wire::kSettingSpillLimit, static_cast<double>(*config.spill_limit));
  if (config.spill_directory.find('\0') != std::string::npos)
    throw Error("Config.spill_directory contains a zero byte");
  detail::check_actor_name(config.namespace_, "Config.namespace_");
  std::error_code ignored;
  const std::string folder =
      config.spill_directory.empty()
          ? ""
          : std::filesystem::absolute(config.spill_directory, ignored).string();
  text = wire::join({text, folder, config.namespace_.empty() ? "default" : config.namespace_});
  if (text.size() > wire::kTextMax) throw Error("Config.resources: too many or too long names");
  return text;
}

std::uint64_t store_size(const Config& config) {
  if (!config.object_store_memory) {
    return static_cast<std::uint64_t>(static_cast<double>(machine_memory()) * kStoreShare) /
           (2 << 20) * (2 << 20);
  }
  if (*config.object_store_memory < kStoreMin) {
    throw Error("Config.object_store_memory is " + std::to_string(*config.object_store_memory) +
                " bytes; at least " + std::to_string(kStoreMin) + " are needed");
  }
  if (*config.object_store_memory > machine_memory()) {
    throw Error("Config.object_store_memory is " + std::to_string(*config.object_store_memory) +
                " bytes, more than the machine's " + std::to_string(machine_memory()));
  }
  return (*config.object_store_memory + (2 << 20) - 1) / (2 << 20) * (2 << 20);
}

// The arguments of this program, as a file that the daemon reads: they may be longer than a
// message. If it joins a node, what else its workers are to find around them, too.
int arguments_file(int argc, char** argv, bool joins, const std::vector<std::string>& environment) {
  std::vector<std::string> strings(argv, argv + argc);
  if (joins) {
    strings.push_back(std::filesystem::current_path().string());
    strings.insert(strings.end(), environment.begin(), environment.end());
  }
  const int fd = wire::make_strings_file("mobula-arguments", strings);
  if (fd < 0)
    throw Error(std::string("cannot pass on the program's arguments: ") + ::strerror(errno));
  return fd;
}

// This program's, with what workers are to know of the Config.
std::vector<std::string> node_environment(const Config& config) {
  std::vector<std::string> result;
  const std::map<std::string, std::string> own = {{runtime::kLogLevelVariable, config.log_level},
                                                  {runtime::kLogFormatVariable, config.log_format}};
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    const auto known = own.find(text.substr(0, text.find('=')));
    if (known == own.end() || known->second.empty()) result.push_back(text);
  }
  for (const auto& [name, value] : own) {
    if (!value.empty()) result.push_back(name + "=" + value);
  }
  return result;
}

// The node to join, by what comes first: the option --mobula-address=.., Config.address,
// MOBULA_ADDRESS. Empty: a node of our own.
std::string wanted_address(int argc, char** argv, const Config& config) {
  constexpr std::string_view kOption = "--mobula-address=";
  std::string address = config.address;
  if (const char* variable = ::getenv("MOBULA_ADDRESS"); variable && address.empty())
    address = variable;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with(kOption)) address = argv[i] + kOption.size();
  }
  return address == "local" ? "" : address;
}

// Another descriptor of it; of nothing, if it is closed.
int own_output(int fd) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return copy >= 0 ? copy : ::open("/dev/null", O_WRONLY | O_CLOEXEC);
}

int connect_to_node(const std::string& address) {
  try {
    const std::string folder = wire::folder_of_node(address);
    const bool is_path = address.find('/') != std::string::npos;
    return wire::connect_in(
        folder, is_path ? std::filesystem::path(address).filename().string() : "socket");
  } catch (const std::runtime_error& e) {
    throw Error("cannot join the node '" + address + "': " + e.what());
  }
}

pid_t spawn_node(const std::string& program, int socket, std::vector<std::string> environment) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, socket, 3);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  // Its own session: Ctrl-C is the driver's business, and the node follows.
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  char name[] = "mobula-node";
  char option[] = "--driver-socket=3";
  char* arguments[] = {name, option, nullptr};
  std::vector<char*> variables;
  for (std::string& entry : environment) variables.push_back(entry.data());
  variables.push_back(nullptr);
  pid_t pid = 0;
  const int problem =
      ::posix_spawn(&pid, program.c_str(), &actions, &attributes, arguments, variables.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (problem != 0) throw Error("cannot start " + program + ": " + ::strerror(problem));
  return pid;
}

// Starts a node of our own; the line to it.
int start_node(const std::string& program, const std::vector<std::string>& environment) {
  int sockets[2];
  if (!wire::make_pair(sockets))
    throw Error(std::string("cannot make a socket: ") + ::strerror(errno));
  try {
    node_pid = spawn_node(program, sockets[1], environment);
  } catch (...) {
    ::close(sockets[0]);
    ::close(sockets[1]);
    throw;
  }
  ::close(sockets[1]);
  return sockets[0];
}

// Until the node that we started has ended; of one that stays nobody is our child.
void wait_for_node() {
  int status = 0;
  while (node_pid > 0 && ::waitpid(node_pid, &status, 0) < 0 && errno == EINTR) {
  }
  node_pid = 0;
}

std::map<std::string, double> ask_resources(std::uint32_t which) {
  wire::Message message;
  message.kind = wire::Kind::Resources;
  message.a = which;
  runtime::require_process().daemon().demand(message);
  return wire::parse_amounts(message.text_view());
}

// What the environment says, or if it says nothing, the program.
bool asked_for(const char* variable, bool otherwise) {
  const char* const text = ::getenv(variable);
  return text && *text ? std::string_view(text) != "0" : otherwise;
}

// `address`: of the node to join; empty: it gets one of its own.
void begin_session(int argc, char** argv, Config config, const std::string& address) {
  const std::lock_guard lock(session_mutex);
  if (session_process)
    throw Error(
        "a Mobula session is running in this process already; shut it down before the next one");
  config.local_mode = asked_for("MOBULA_LOCAL_MODE", config.local_mode);
  check_memory_limits(config);
  runtime::configure_log(config.log_level, config.log_format);
  const bool joins = !address.empty() && !config.local_mode;
  const std::vector<std::string> environment = node_environment(config);
  const std::string settings = settings_text(config, joins);
  // 0: the node knows what it has.
  const std::uint64_t capacity = joins && !config.object_store_memory ? 0 : store_size(config);
  const std::string node = joins ? "the node '" + address + "'" : runtime::find_node_program();
  const int socket = joins ? connect_to_node(address) : start_node(node, environment);

  wire::Message message;
  message.kind = wire::Kind::Start;
  message.a = static_cast<std::uint32_t>(config.memory_threshold * wire::kThresholdOne);
  message.b = static_cast<std::uint32_t>(argc);
  message.c = capacity;
  message.d = (config.log_to_driver ? wire::kStartLogs : 0) |
              (config.memory_limit ? wire::kStartLimitsMemory : 0) |
              (config.local_mode ? wire::kStartLocal : 0) | (joins ? wire::kStartJoins : 0);
  message.set_text(settings);
  message.descriptor_count = 2;
  message.descriptors[0] = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  message.descriptors[1] = arguments_file(argc, argv, joins, environment);
  if (joins) {
    message.descriptor_count = 4;
    message.descriptors[2] = own_output(STDOUT_FILENO);
    message.descriptors[3] = own_output(STDERR_FILENO);
  }
  const bool sent = wire::send(socket, message);
  message.close_descriptors();
  message.text_size = 0;
  if (!sent || wire::receive(socket, message) != wire::Received::Message ||
      message.kind != wire::Kind::Welcome) {
    const bool told = sent && message.kind == wire::Kind::Reply;
    const std::string why = told ? std::string(message.text_view()) : "it ended at once";
    ::close(socket);
    wait_for_node();
    throw Error(joins ? "cannot join " + node + ": " + why
                      : "the node " + node + " could not start: " + why);
  }
  node_directory = message.text_view();
  try {
    session_process = std::make_unique<Process>(socket, message, shm::ProcessRole::Driver, nullptr);
  } catch (...) {
    if (node_pid > 0) ::kill(node_pid, SIGTERM);  // our own child; not reaped yet
    wait_for_node();
    throw;
  }
  if (config.local_mode) session_process->run_locally(config.local_threads);
  shows_metrics = asked_for("MOBULA_SHOW_METRICS", config.show_metrics);
  runtime::set_current_process(session_process.get());
}

}  // namespace

void init(int argc, char** argv, Config config) {
  runtime::load_code(config.code_search_path);  // in workers too, which are forked from here
  runtime::run_zygote_if_asked();  // does not return in a worker
  const std::unique_ptr<runtime::Host> host = runtime::Host::if_asked();
  if (!host) {
    const std::string address = wanted_address(argc, argv, config);
    return begin_session(argc, argv, std::move(config), address);
  }
  try {
    const Config own = host->config(std::move(config));
    begin_session(argc, argv, own, own.address);
  } catch (const std::exception& e) {
    host->fail(e);
  }
  host->serve(*session_process, node_directory);
}

void shutdown() noexcept {
  const std::lock_guard lock(session_mutex);
  if (!session_process) return;
  if (LocalMode* local = session_process->local()) local->end();
  try {
    ::fflush(stdout);
    if (shows_metrics) {
      const std::string table = to_table(metrics());
      ::fprintf(stderr, "mobula: the metrics of this session\n%s", table.c_str());
    }
    wire::Message leave;
    leave.kind = wire::Kind::Leave;
    session_process->leave();
    shm::crash_point(shm::CrashPoint::LeaveStarted);
    session_process->daemon().ask(leave);  // answered when the workers' last output is here
  } catch (const Error&) {
    // The node is gone already, and could not clean up.
    std::error_code ignored;
    if (!node_directory.empty()) {
      const std::filesystem::path folder(node_directory);
      std::filesystem::remove_all(folder, ignored);
      ::rmdir(folder.parent_path().c_str());  // unless other sessions are in it
    }
  }
  session_process->end_callbacks();
  runtime::set_current_process(nullptr);
  session_process.reset();  // closes the socket: the daemon ends
  wait_for_node();
}

bool is_initialized() noexcept { return runtime::current_process() != nullptr; }

Session::Session(int argc, char** argv, Config config) { init(argc, argv, std::move(config)); }
Session::~Session() { shutdown(); }

std::map<std::string, double> cluster_resources() { return ask_resources(0); }
std::map<std::string, double> available_resources() { return ask_resources(1); }

std::vector<NodeInfo> nodes() {
  return {NodeInfo{runtime::hex(runtime::require_process().memory().header().node), true,
                   cluster_resources()}};
}

bool TaskInfo::should_cancel() const {
  const runtime::Frame* frame = runtime::current_frame();
  if (frame && runtime::from_shm(frame->address) == record) return runtime::should_stop();
  Process* process = runtime::current_process();
  if (!process || record == RefAddress{}) return false;
  const std::uint64_t state =
      process->memory().record(record.slot).state.load(std::memory_order_acquire);
  return shm::word::generation(state) == record.generation && (state & shm::word::kCancelled);
}

TaskInfo this_task() {
  Process& process = runtime::require_process();
  TaskInfo info;
  info.job_id = runtime::hex(process.session());
  info.node_id = runtime::hex(process.memory().header().node);
  runtime::Frame* frame = runtime::current_frame();
  if (!frame) {
    info.task_id = std::string(16, '0') + info.job_id;
    info.name = "(driver)";
    return info;
  }
  info.task_id = frame->identity.text();
  info.record = runtime::from_shm(frame->address);
  info.name = frame->name();
  info.attempt = static_cast<int>(frame->attempt);
  const shm::SchedulingClass& cls = process.memory().scheduling_class(frame->scheduling_class);
  info.resources = wire::parse_amounts(cls.demand_text);
  if (frame->kind != shm::Kind::Task) {
    info.actor_id = runtime::actor_id(process.memory(), cls);
    info.actor_class = cls.name;
    info.actor_name = cls.given_name;
    info.restarted = cls.restarts.load() > 0;
  }
  return info;
}

namespace detail {

std::vector<std::string> own_arguments() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string one; std::getline(file, one, '\0');) arguments.push_back(one);
  return arguments;
}

}  // namespace detail
}  // namespace mobula
