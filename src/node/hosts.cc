#include "node/hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "node/node_parts.h"
#include "wire/parcel.h"

namespace mobula::node {
namespace {

constexpr std::size_t kHostsMax = 1024;
constexpr std::size_t kWaitingMax = 256;  // questions
constexpr std::chrono::seconds kToGetReady(60);  // its program may do much before its Session
constexpr std::uint64_t kSurroundingsMax = 16 << 20;  // bytes of arguments and environment

void answer(int socket, wire::Message& message) {
  message.kind = wire::Kind::Reply;
  message.descriptor_count = 0;
  wire::send(socket, message);
  ::close(socket);
}

void answer(int socket, wire::Status status, std::string_view text) {
  wire::Message message;
  refuse(message, status, text);
  answer(socket, message);
}

// In the child: becomes the creator's program, as the creator was begun.
[[noreturn]] void become(int program, const std::vector<std::string>& strings, std::size_t count,
                         int line, pid_t head) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != head) ::_exit(1);
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, STDIN_FILENO);
  const int itself = ::fcntl(program, F_DUPFD_CLOEXEC, 10);
  ::dup2(line, 3);
  ::fcntl(3, F_SETFD, 0);
  std::vector<char*> arguments;
  std::vector<char*> environment;
  for (std::size_t i = 0; i < strings.size(); ++i) {
    if (i == count) continue;
    (i < count ? arguments : environment).push_back(const_cast<char*>(strings[i].c_str()));
  }
  char variable[] = "MOBULA_HOST_SOCKET=3";
  environment.push_back(variable);
  environment.push_back(nullptr);
  arguments.push_back(nullptr);
  if (::chdir(strings[count].c_str()) != 0) {
    ::fprintf(stderr, "mobula: a detached actor cannot work in %s: %s\n", strings[count].c_str(),
              ::strerror(errno));
    ::_exit(127);
  }
  ::fexecve(itself, arguments.data(), environment.data());
  ::fprintf(stderr, "mobula: cannot start the program of a detached actor: %s\n",
            ::strerror(errno));
  ::_exit(127);
}

}  // namespace

Hosts::~Hosts() {
  for (auto& [number, host] : hosts_) {
    ::close(host.line);
    for (const Waiting& one : host.waiting) ::close(one.socket);
  }
}

bool Hosts::answers(wire::Kind kind) {
  return kind == wire::Kind::OpenHost || kind == wire::Kind::FindHost ||
         kind == wire::Kind::ListHosts || kind == wire::Kind::KillHost;
}

void Hosts::serve(int socket, wire::Message& message, std::uint64_t object_memory) {
  switch (message.kind) {
    case wire::Kind::OpenHost: open(socket, message, object_memory); break;
    case wire::Kind::FindHost: find(socket, message); break;
    case wire::Kind::ListHosts: list(socket, message); break;
    default: kill(socket, message);
  }
  message.close_descriptors();
}

// ---- Questions.

void Hosts::open(int socket, wire::Message& message, std::uint64_t object_memory) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  Host host;
  host.name = {std::string(wire::field(fields, 0)), std::string(wire::field(fields, 1))};
  host.about = std::string(wire::rest(text, 2));
  if (host.name.name.empty() || message.descriptor_count != 3)
    return answer(socket, wire::Status::Invalid, "that is no order for a detached actor");
  if (ending_) return answer(socket, wire::Status::Invalid, "the node is ending");
  if (names_.contains(host.name)) {
    return answer(socket, wire::Status::Exists,
                  "there is a detached actor " + host.name.quoted() +
                      " already; mobula::get_actor gives its handle, and so does "
                      "ActorOptions.get_if_exists");
  }
  if (hosts_.size() >= kHostsMax)
    return answer(socket, wire::Status::Limit, "the node has 1024 detached actors, its most");
  const std::uint32_t number = ++last_;
  if (const std::string problem = start(number, host, message, object_memory); !problem.empty())
    return answer(socket, wire::Status::Invalid, "cannot start a detached actor: " + problem);
  names_[host.name] = number;
  watch_(host.line, number);
  hosts_[number] = std::move(host);
  wait_for(number, {socket, true});
}

// Empty, or what is wrong.
std::string Hosts::start(std::uint32_t number, Host& host, const wire::Message& message,
                         std::uint64_t object_memory) {
  wire::ParcelBytes surroundings;
  const int copy = ::fcntl(message.descriptors[1], F_DUPFD_CLOEXEC, 0);
  if (copy < 0 || !wire::take_bytes_file(copy, kSurroundingsMax, surroundings))
    return "its arguments and environment cannot be read";
  std::vector<std::string> strings;
  for (const std::string_view one : wire::split(surroundings.text())) strings.emplace_back(one);
  if (strings.size() <= message.a) return "its arguments and environment are cut short";
  int line[2];
  if (!wire::make_pair(line)) return ::strerror(errno);
  const pid_t head = ::getpid();
  host.pid = ::fork();
  if (host.pid == 0) become(message.descriptors[0], strings, message.a, line[1], head);
  const int problem = errno;
  ::close(line[1]);
  if (host.pid < 0) {
    ::close(line[0]);
    return ::strerror(problem);
  }
  ::fcntl(line[0], F_SETFL, ::fcntl(line[0], F_GETFL) | O_NONBLOCK);
  host.line = line[0];
  host.begun = Clock::now();
  wire::Message order;
  order.kind = wire::Kind::HostOrder;
  order.c = number;
  order.d = message.d != 0 ? message.d : object_memory;
  order.set_text(folder_);
  order.descriptor_count = 1;
  order.descriptors[0] = message.descriptors[2];
  wire::send(host.line, order);
  return {};
}

void Hosts::find(int socket, const wire::Message& message) {
  const wire::Fields fields = wire::split(message.text_view());
  const ActorName name{std::string(wire::field(fields, 0)), std::string(wire::field(fields, 1))};
  const auto known = names_.find(name);
  if (known == names_.end()) {
    return answer(socket, wire::Status::NotFound,
                  "there is no actor " + name.quoted() + ": none was created, or it is dead");
  }
  wait_for(known->second, {socket, false});
}

void Hosts::wait_for(std::uint32_t number, Waiting waiting) {
  if (waiting_ >= kWaitingMax)
    return answer(waiting.socket, wire::Status::Limit,
                  "too many wait for detached actors that are being started");
  ++waiting_;
  hosts_.at(number).waiting.push_back(waiting);
  tell_waiting(number);
}

void Hosts::tell_waiting(std::uint32_t number) {
  Host& host = hosts_.at(number);
  if (!host.ready) return;
  wire::Message message;
  message.c = number;
  message.set_text(host.folder + '\0' + host.about);
  for (const Waiting& one : host.waiting) answer(one.socket, message);
  waiting_ -= host.waiting.size();
  host.waiting.clear();
}

void Hosts::fail_waiting(Host& host, wire::Status status, const std::string& why) {
  for (const Waiting& one : host.waiting)
    answer(one.socket, one.creator ? status : wire::Status::Later, why);
  waiting_ -= host.waiting.size();
  host.waiting.clear();
}

void Hosts::list(int socket, wire::Message& message) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  const bool everywhere = message.a == 1;
  const std::string_view own = wire::field(fields, 0);
  const ActorName last{std::string(wire::field(fields, 1)), std::string(wire::field(fields, 2))};
  std::vector<std::string> found;
  std::size_t size = 0;
  wire::Message list;
  for (auto it = names_.upper_bound(last); it != names_.end(); ++it) {
    const ActorName& name = it->first;
    if ((!everywhere && name.namespace_ != own) || !hosts_.at(it->second).ready) continue;
    size += name.namespace_.size() + name.name.size() + 2;
    if (size > wire::kTextMax) {
      list.a = 1;
      break;
    }
    found.push_back(name.namespace_);
    found.push_back(name.name);
  }
  list.set_text(wire::join(found));
  answer(socket, list);
}

void Hosts::kill(int socket, const wire::Message& message) {
  const auto found = hosts_.find(static_cast<std::uint32_t>(message.c));
  if (found == hosts_.end())
    return answer(socket, wire::Status::NotFound, "there is no such detached actor");
  wire::Message order;
  order.kind = wire::Kind::EndActor;
  order.a = message.a;
  // One that does not read has nothing to save.
  if (!wire::send(found->second.line, order) && message.a == 0)
    ::kill(found->second.pid, SIGKILL);  // our own child, not waited for yet
  if (message.a == 0) free_name(found->first, found->second);
  answer(socket, wire::Status::Ok, {});
}

void Hosts::free_name(std::uint32_t number, const Host& host) {
  const auto known = names_.find(host.name);
  if (known != names_.end() && known->second == number) names_.erase(known);
}

// ---- What hosts say, and their ends.

bool Hosts::hear(std::uint32_t number) {
  const auto found = hosts_.find(number);
  if (found == hosts_.end() || found->second.line < 0) return false;
  Host& host = found->second;
  wire::Message message;
  switch (wire::receive(host.line, message)) {
    case wire::Received::Nothing: return false;
    case wire::Received::Closed:  // it ends: we hear of it as of a child
      ::close(host.line);
      host.line = -1;
      return false;
    case wire::Received::Message: break;
  }
  message.close_descriptors();
  const std::string text(message.text_view());
  if (message.kind == wire::Kind::HostReady) {
    host.ready = true;
    host.folder = text;
    tell_waiting(number);
  } else if (message.kind == wire::Kind::HostFailed) {
    free_name(number, host);
    fail_waiting(host, message.status, text);
  } else if (message.kind == wire::Kind::HostOver) {
    free_name(number, host);
  }
  return true;
}

bool Hosts::has_ended(pid_t pid, int status) {
  const auto found =
      std::find_if(hosts_.begin(), hosts_.end(), [&](auto& one) { return one.second.pid == pid; });
  if (found == hosts_.end()) return false;
  while (hear(found->first)) {  // what it has said last
  }
  Host& host = found->second;
  const std::string how = WIFSIGNALED(status)
                              ? "was killed by signal " + std::to_string(WTERMSIG(status))
                              : "ended with code " + std::to_string(WEXITSTATUS(status));
  free_name(found->first, host);
  fail_waiting(host, wire::Status::Invalid,
               "the process of the detached actor " + host.name.quoted() + " " + how +
                   " before it came to its Session; its output is the node's");
  if (host.line >= 0) ::close(host.line);
  hosts_.erase(found);
  return true;
}

std::optional<Hosts::Clock::time_point> Hosts::next_look() const {
  std::optional<Clock::time_point> next;
  for (const auto& [number, host] : hosts_) {
    if (!host.ready)
      next = std::min(next.value_or(host.begun + kToGetReady), host.begun + kToGetReady);
  }
  return next;
}

void Hosts::look(Clock::time_point now) {
  for (auto& [number, host] : hosts_) {
    if (host.ready || now < host.begun + kToGetReady) continue;
    fail_waiting(host, wire::Status::Invalid,
                 "the process of the detached actor " + host.name.quoted() +
                     " did not come to its Session within a minute");
    ::kill(host.pid, SIGKILL);  // our own child, not waited for yet
    host.begun = now;
  }
}

void Hosts::kill_all() {
  for (const auto& [number, host] : hosts_) ::kill(host.pid, SIGKILL);
}

std::string Hosts::describe(pid_t pid) const {
  for (const auto& [number, host] : hosts_) {
    if (host.pid == pid) return "detached actor " + host.name.quoted();
  }
  return {};
}

}  // namespace mobula::node
