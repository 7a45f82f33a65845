#include "node/head.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <initializer_list>
#include <stdexcept>

#include "node/node_parts.h"
#include "wire/program.h"
#include "wire/rendezvous.h"

extern char** environ;

namespace mobula::node {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kTagListening = 0;
constexpr std::uint64_t kTagSignals = 1ull << 32;
constexpr std::uint64_t kTagStranger = 2ull << 32;  // | descriptor
constexpr std::uint64_t kTagJob = 3ull << 32;  // | job
constexpr std::uint64_t kTagHost = 4ull << 32;  // | its number

constexpr milliseconds kSilence(2000);  // of a connection that has not said who it is
constexpr std::size_t kStrangersMax = 64;
constexpr milliseconds kGrace(5000);  // for running tasks, when a signal ends the node
constexpr milliseconds kToEnd(3000);  // after the grace, for the sessions to clean up
constexpr milliseconds kToEndAlone(800);  // for sessions whose head was killed
constexpr std::uint64_t kObjectMemoryMin = 16 << 20;  // of a job, bytes
constexpr std::uint64_t kJobsByDefault = 4;  // so many get an equal part without asking
constexpr std::uint64_t kHugePage = 2 << 20;
// Of a detached actor, for the values on their way to and from it, unless its creator says more.
constexpr std::uint64_t kHostsByDefault = 32;

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : signals) ::sigaddset(&set, signal);
  return set;
}

}  // namespace

Head::Head(const NodeSettings& settings)
    : settings_(settings), epoll_(::epoll_create1(EPOLL_CLOEXEC)), shares_(settings.capacity) {
  const sigset_t set = set_of({SIGTERM, SIGINT, SIGCHLD});
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  directory_ = std::make_unique<SessionDirectory>(std::string(wire::kNodePrefix) + settings.name);
  if (settings.log_to_file) {
    const std::string log = directory_->path() + "/log";
    const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) throw std::runtime_error("cannot write " + log + ": " + ::strerror(errno));
    ::dup2(file, STDOUT_FILENO);
    ::dup2(file, STDERR_FILENO);
    ::close(file);
  }
  listening_ = wire::listen_in(directory_->path());
  hosts_ = std::make_unique<Hosts>(directory_->path(), [this](int line, std::uint32_t number) {
    watch(line, kTagHost | number);
  });
  watch(listening_, kTagListening);
  watch(signals_, kTagSignals);
}

Head::~Head() {
  for (const auto& [socket, until] : strangers_) ::close(socket);
  for (const auto& [id, job] : jobs_) ::close(job.socket);
  for (const int fd : {listening_, signals_, epoll_}) ::close(fd);
}

void Head::watch(int fd, std::uint64_t tag) {
  epoll_event event{EPOLLIN | EPOLLRDHUP, {.u64 = tag}};
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

int Head::run() {
  while (!kill_at_ || !jobs_.empty() || !hosts_->empty()) {
    std::array<epoll_event, 64> events;
    const int n = ::epoll_wait(epoll_, events.data(), events.size(), until_next_look());
    for (int i = 0; i < n; ++i) {
      const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
      const auto low = static_cast<std::uint32_t>(tag);
      if (tag == kTagListening) {
        admit();
      } else if (tag == kTagSignals) {
        hear_signals();
      } else if ((tag >> 32) == (kTagStranger >> 32)) {
        if (strangers_.contains(static_cast<int>(low))) hear_stranger(static_cast<int>(low));
      } else if ((tag >> 32) == (kTagHost >> 32)) {
        hosts_->hear(low);
      } else if (jobs_.contains({low})) {
        hear_job({low});
      }
    }
    look();
  }
  say_farewell();
  return 0;
}

int Head::until_next_look() const {
  std::optional<Clock::time_point> next = kill_at_;
  const auto sooner = [&](Clock::time_point at) { next = std::min(next.value_or(at), at); };
  for (const auto& [socket, until] : strangers_) sooner(until);
  if (const auto host = hosts_->next_look()) sooner(*host);
  if (const auto change = shares_.next_change())
    sooner(begin_ + std::chrono::duration_cast<Clock::duration>(*change));
  if (!next) return -1;
  const auto ms = std::chrono::ceil<milliseconds>(*next - Clock::now()).count();
  return static_cast<int>(std::clamp<long>(ms, 0, 1000));
}

// What time brings.
void Head::look() {
  const Clock::time_point moment = Clock::now();
  std::vector<int> silent;
  for (const auto& [socket, until] : strangers_) {
    if (until <= moment) silent.push_back(socket);
  }
  for (const int socket : silent) {
    forget(socket);
    ::close(socket);
  }
  if (const auto change = shares_.next_change(); change && *change <= now()) apply(core::Tick{});
  hosts_->look();
  if (!kill_at_ || moment < *kill_at_) return;
  hosts_->kill_all();
  // Our own children, not waited for yet: the numbers are still theirs.
  for (const auto& [id, job] : jobs_) ::kill(job.daemon, SIGKILL);
}

// ---- Who comes.

void Head::admit() {
  const int socket = wire::accept_own(listening_);
  if (socket < 0) return;
  if (strangers_.size() >= kStrangersMax) {
    ::close(socket);
    return;
  }
  strangers_[socket] = Clock::now() + kSilence;
  watch(socket, kTagStranger | static_cast<std::uint32_t>(socket));
}

void Head::forget(int socket) {
  strangers_.erase(socket);
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, socket, nullptr);
}

void Head::hear_stranger(int socket) {
  // A driver's first message is for its session, with what it carries.
  if (wire::peek_kind(socket) == wire::Kind::Start) {
    forget(socket);
    start_job(socket);
    ::close(socket);
    return;
  }
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  wire::Message message;
  switch (wire::receive(socket, message)) {
    case wire::Received::Nothing: return;
    case wire::Received::Closed:
      forget(socket);
      ::close(socket);
      return;
    case wire::Received::Message: break;
  }
  if (Hosts::answers(message.kind)) {
    forget(socket);
    return hosts_->serve(socket, message, memory_of_host());
  }
  message.close_descriptors();
  serve_tool(socket, message);
}

std::uint64_t Head::memory_of_host() const {
  const std::uint64_t part = settings_.object_memory / kHostsByDefault;
  return std::max(part, kObjectMemoryMin) / kHugePage * kHugePage;
}

void Head::serve_tool(int socket, wire::Message& message) {
  strangers_[socket] = Clock::now() + kSilence;
  if (message.kind == wire::Kind::Drain) {
    forget(socket);
    farewells_.push_back(socket);
    return drain(milliseconds(std::min<std::uint64_t>(message.c, 1ull << 31)));
  }
  const bool known = message.kind == wire::Kind::Resources;
  const std::uint32_t which = message.a;
  message = {};
  message.kind = wire::Kind::Reply;
  if (known) {
    message.b = static_cast<std::uint32_t>(::getpid());
    message.c = settings_.object_memory;
    message.d = object_memory_given_;
    message.set_text(wire::join(
        {format_units(which == 0 ? shares_.capacity() : shares_.free()), std::to_string(id_)}));
  } else {
    refuse(message, wire::Status::Invalid, "the node's daemon is not asked for that");
  }
  if (wire::send(socket, message)) return;
  forget(socket);
  ::close(socket);
}

void Head::start_job(int driver) {
  wire::Message refusal;
  refusal.kind = wire::Kind::Reply;
  if (kill_at_) {
    refuse(refusal, wire::Status::Invalid, "the node is ending");
    wire::send(driver, refusal);
    return;
  }
  int line[2];
  pid_t pid = 0;
  int problem = errno;
  if (wire::make_pair(line)) {
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_adddup2(&files, driver, 3);
    ::posix_spawn_file_actions_adddup2(&files, line[1], 4);
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    const sigset_t none = set_of({});
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    std::string name = "--node-name=" + settings_.name;
    char program[] = "mobula-node";
    char driver_option[] = "--driver-socket=3";
    char node_option[] = "--node-socket=4";
    char* arguments[] = {program, driver_option, node_option, name.data(), nullptr};
    problem = ::posix_spawn(&pid, "/proc/self/exe", &files, &attributes, arguments, environ);
    ::posix_spawn_file_actions_destroy(&files);
    ::posix_spawnattr_destroy(&attributes);
    ::close(line[1]);
    if (problem != 0) ::close(line[0]);
  }
  if (problem != 0) {
    refuse(refusal, wire::Status::Invalid,
           std::string("the node cannot start a session: ") + ::strerror(problem));
    wire::send(driver, refusal);
    return;
  }
  const core::JobId id{++last_job_};
  ::fcntl(line[0], F_SETFL, ::fcntl(line[0], F_GETFL) | O_NONBLOCK);
  jobs_[id].socket = line[0];
  jobs_[id].daemon = pid;
  watch(line[0], kTagJob | id.value);
}

// ---- Jobs.

void Head::hear_job(core::JobId id) {
  Job& job = jobs_.at(id);
  wire::Message message;
  switch (wire::receive(job.socket, message)) {
    case wire::Received::Nothing: return;
    case wire::Received::Closed:
      // Its daemon ends, or has: then we hear of it as of a child.
      ::epoll_ctl(epoll_, EPOLL_CTL_DEL, job.socket, nullptr);
      return;
    case wire::Received::Message: break;
  }
  message.close_descriptors();
  if (message.kind == wire::Kind::Enrol && !job.enrolled) {
    enrol(id, message);
  } else if (message.kind == wire::Kind::Claim) {
    hear_claim(id, message);
  } else if (message.kind == wire::Kind::Resources) {
    message.kind = wire::Kind::Reply;
    message.set_text(format_units(shares_.free_besides(id)));
    wire::send(job.socket, message);
  }
}

void Head::enrol(core::JobId id, wire::Message& message) {
  Job& job = jobs_.at(id);
  job.driver = static_cast<pid_t>(message.b);
  const std::uint64_t left = settings_.object_memory - object_memory_given_;
  const std::uint64_t part =
      std::max(settings_.object_memory / kJobsByDefault, kObjectMemoryMin) / kHugePage * kHugePage;
  const std::uint64_t wanted = message.c != 0 ? message.c : std::min(part, left);
  message.kind = wire::Kind::Reply;
  message.status = wire::Status::Ok;
  if (wanted > left || wanted < kObjectMemoryMin) {
    const auto mib = [](std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
    refuse(message, wire::Status::StoreFull,
           "no room for its object memory: " + mib(std::max(wanted, kObjectMemoryMin)) +
               " are wanted, and of the " + mib(settings_.object_memory) + " of node " +
               settings_.name + " " + mib(left) +
               " are left by other jobs. Set Config.object_store_memory, wait for a job to end, or "
               "start the node with more (mobula start --head --object-store-memory)");
    wire::send(job.socket, message);
    return;
  }
  job.enrolled = true;
  job.object_memory = wanted;
  object_memory_given_ += wanted;
  message.c = wanted;
  message.d = id_;
  message.set_text(wire::join({format_units(settings_.capacity), directory_->path()}));
  wire::send(job.socket, message);
  apply(core::JobOpened{id});
}

void Head::hear_claim(core::JobId id, const wire::Message& message) {
  Job& job = jobs_.at(id);
  core::JobClaims claims{id, {}, message.c};
  std::string_view text = message.text_view();
  for (core::ResourceAmounts* amounts :
       {&claims.claim.wanted, &claims.claim.firm, &claims.claim.urgent, &claims.claim.used}) {
    const std::size_t end = std::min(text.find('\0'), text.size());
    *amounts = parse_units(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (claims.heard == job.told) job.answered = true;
  apply(claims);
  if (jobs_.contains(id)) send_share(id);
}

void Head::apply(const core::ShareEvent& event) {
  for (core::SetShare& order : shares_.step(event, now())) {
    jobs_.at(order.job).waits = std::move(order);
    send_share(order.job);
  }
}

// One at a time: what a job that is held up has not read is replaced by what is newer, and never
// fills its line.
void Head::send_share(core::JobId id) {
  Job& job = jobs_.at(id);
  if (!job.answered || !job.waits || kill_at_) return;
  wire::Message message;
  message.kind = wire::Kind::Share;
  message.c = job.waits->number;
  message.set_text(format_units(job.waits->amounts));
  if (!wire::send(job.socket, message)) return;
  job.told = message.c;
  job.answered = false;
  job.waits.reset();
}

// ---- Ends.

void Head::hear_signals() {
  signalfd_siginfo info;
  bool asked = false;
  while (::read(signals_, &info, sizeof info) == sizeof info)
    asked = asked || info.ssi_signo != SIGCHLD;
  bury_dead();
  if (asked) drain(kill_at_ ? milliseconds(0) : kGrace);  // asked again: at once
}

void Head::bury_dead() {
  bool killed = false;
  int status = 0;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    killed = killed || WIFSIGNALED(status);
    const auto found = std::find_if(jobs_.begin(), jobs_.end(),
                                    [&](const auto& entry) { return entry.second.daemon == pid; });
    if (found == jobs_.end()) {
      hosts_->has_ended(pid, status);
      continue;
    }
    const core::JobId id = found->first;
    object_memory_given_ -= found->second.object_memory;
    ::close(found->second.socket);
    jobs_.erase(found);
    apply(core::JobEnded{id});
  }
  if (killed) wire::remove_stale_folders();
}

void Head::drain(milliseconds grace) {
  const Clock::time_point end = Clock::now() + grace + kToEnd;
  const bool first = !kill_at_;
  if (!first && *kill_at_ <= end) return;
  kill_at_ = end;
  hosts_->refuse_all_new();
  if (listening_ >= 0) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, listening_, nullptr);
  wire::Message message;
  message.kind = wire::Kind::Drain;
  message.c = static_cast<std::uint64_t>(grace.count());
  for (const auto& [id, job] : jobs_) {
    if (first && job.enrolled) ended_ += line_about(job);
    wire::send(job.socket, message);
  }
}

// What ends with the node. Nothing where the driver has ended and its job is just cleaned up.
std::string Head::line_about(const Job& job) const {
  if (const std::string host = hosts_->describe(job.driver); !host.empty()) return host + "\n";
  const std::string program = wire::program_of(job.driver);
  return program.empty() ? "" : "driver " + std::to_string(job.driver) + " (" + program + ")\n";
}

// The folder is gone when who asked for the end hears of it.
void Head::say_farewell() {
  directory_->remove();
  wire::Message message;
  message.kind = wire::Kind::Reply;
  message.set_text(ended_);
  for (const int socket : farewells_) {
    wire::send(socket, message);
    ::close(socket);
  }
  farewells_.clear();
}

// ---- The keeper.

namespace {

int serve(const NodeSettings& settings, int ready) {
  std::string word = "ok";
  std::unique_ptr<Head> head;
  try {
    head = std::make_unique<Head>(settings);
  } catch (const std::exception& e) {
    word = e.what();
  }
  if (ready >= 0) {
    if (::write(ready, word.data(), word.size()) < 0) return 1;
    ::close(ready);
  } else if (!head) {
    ::fprintf(stderr, "mobula-node: %s\n", word.c_str());
  }
  return head ? head->run() : 1;
}

// Children that the head left behind come to us.
void end_children(milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (bool kill = false;; kill = std::chrono::steady_clock::now() >= end) {
    pid_t pid = 0;
    while ((pid = ::waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (pid < 0) return;
    if (kill) {
      std::ifstream list("/proc/self/task/" + std::to_string(::getpid()) + "/children");
      for (pid_t child; list >> child;) ::kill(child, SIGKILL);
    }
    ::usleep(2000);
  }
}

}  // namespace

int keep_node(const NodeSettings& settings, int ready) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const sigset_t blocked = set_of({SIGTERM, SIGINT, SIGCHLD});
  ::sigprocmask(SIG_BLOCK, &blocked, nullptr);  // before the fork: none is lost
  const pid_t keeper = ::getpid();
  const pid_t head = ::fork();
  if (head == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != keeper) ::_exit(1);
    ::_exit(serve(settings, ready));
  }
  if (head < 0) throw std::runtime_error(std::string("cannot fork: ") + ::strerror(errno));
  if (ready >= 0) ::close(ready);
  const sigset_t heeded = set_of({SIGTERM, SIGCHLD});
  int status = 0;
  for (pid_t ended = 0; ended != head;) {
    if (::sigwaitinfo(&heeded, nullptr) == SIGTERM) ::kill(head, SIGTERM);
    while ((ended = ::waitpid(-1, &status, WNOHANG)) > 0 && ended != head) {
    }
  }
  end_children(kToEndAlone);
  wire::remove_stale_folders();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace mobula::node
