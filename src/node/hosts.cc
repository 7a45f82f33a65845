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

wire::Status status_of(const core::TellNone& told) {
  switch (told.reason) {
    case core::NoHost::Exists: return wire::Status::Exists;
    case core::NoHost::NotFound: return wire::Status::NotFound;
    case core::NoHost::Later: return wire::Status::Later;
    case core::NoHost::Limit: return wire::Status::Limit;
    case core::NoHost::NotStarted: return wire::Status::Invalid;
    case core::NoHost::Failed: return static_cast<wire::Status>(told.code);
  }
  return wire::Status::Invalid;
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
  for (const auto& [id, process] : processes_) {
    if (process.line >= 0) ::close(process.line);
  }
  for (const core::AskerId asker : table_.askers()) ::close(asker.value);
}

bool Hosts::answers(wire::Kind kind) {
  return kind == wire::Kind::OpenHost || kind == wire::Kind::FindHost ||
         kind == wire::Kind::ListHosts || kind == wire::Kind::KillHost;
}

void Hosts::serve(int socket, wire::Message& message, std::uint64_t object_memory) {
  const wire::Fields fields = wire::split(message.text_view());
  switch (message.kind) {
    case wire::Kind::OpenHost: open(socket, message, object_memory); break;
    case wire::Kind::FindHost:
      tell(core::HostAskedFor{
          {socket}, {std::string(wire::field(fields, 0)), std::string(wire::field(fields, 1))}});
      break;
    case wire::Kind::ListHosts: list(socket, message); break;
    default: kill(socket, message);
  }
  message.close_descriptors();
}

void Hosts::refuse_all_new() { tell(core::NoMoreHosts{}); }

void Hosts::tell(const core::HostEvent& event) { carry_out(table_.step(event, now())); }

void Hosts::carry_out(const std::vector<core::HostOrder>& orders) {
  for (const core::HostOrder& order : orders) {
    if (const auto* found = std::get_if<core::TellFound>(&order)) {
      wire::Message message;
      message.c = found->host.value;
      message.set_text(found->folder + '\0' + found->about);
      answer(found->asker.value, message);
    } else if (const auto* none = std::get_if<core::TellNone>(&order)) {
      answer(none->asker.value, status_of(*none), none->why);
    } else if (const auto* kill = std::get_if<core::KillHost>(&order)) {
      ::kill(processes_.at(kill->host).pid, SIGKILL);  // our own child, not waited for yet
    }
  }
}

// ---- Questions.

void Hosts::open(int socket, const wire::Message& message, std::uint64_t object_memory) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  core::HostWanted wanted;
  wanted.asker = {socket};
  wanted.name = {std::string(wire::field(fields, 0)), std::string(wire::field(fields, 1))};
  wanted.about = std::string(wire::rest(text, 2));
  if (wanted.name.name.empty() || message.descriptor_count != 3)
    return answer(socket, wire::Status::Invalid, "that is no order for a detached actor");
  const std::vector<core::HostOrder> orders = table_.step(wanted, now());
  for (const core::HostOrder& order : orders) {
    const auto* const begin = std::get_if<core::StartHost>(&order);
    if (!begin) continue;
    if (const std::string problem = start(begin->host, message, object_memory); !problem.empty())
      return tell(core::HostNotStarted{begin->host, problem});
  }
  carry_out(orders);
}

// Empty, or what is wrong.
std::string Hosts::start(core::HostId id, const wire::Message& message,
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
  const pid_t pid = ::fork();
  if (pid == 0) become(message.descriptors[0], strings, message.a, line[1], head);
  const int problem = errno;
  ::close(line[1]);
  if (pid < 0) {
    ::close(line[0]);
    return ::strerror(problem);
  }
  ::fcntl(line[0], F_SETFL, ::fcntl(line[0], F_GETFL) | O_NONBLOCK);
  processes_[id] = {pid, line[0]};
  watch_(line[0], id.value);
  wire::Message order;
  order.kind = wire::Kind::HostOrder;
  order.c = id.value;
  order.d = message.d != 0 ? message.d : object_memory;
  order.set_text(folder_);
  order.descriptor_count = 1;
  order.descriptors[0] = message.descriptors[2];
  wire::send(line[0], order);
  return {};
}

void Hosts::list(int socket, const wire::Message& message) {
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  const bool everywhere = message.a == 1;
  const std::string_view own = wire::field(fields, 0);
  const core::ActorName last{std::string(wire::field(fields, 1)),
                             std::string(wire::field(fields, 2))};
  std::vector<std::string> found;
  std::size_t size = 0;
  wire::Message list;
  const auto& names = table_.names();
  for (auto it = names.upper_bound(last); it != names.end(); ++it) {
    const core::ActorName& name = it->first;
    if ((!everywhere && name.namespace_ != own) || !table_.is_ready(it->second)) continue;
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
  const core::HostId id{static_cast<std::uint32_t>(message.c)};
  const auto found = processes_.find(id);
  if (found == processes_.end())
    return answer(socket, wire::Status::NotFound, "there is no such detached actor");
  wire::Message order;
  order.kind = wire::Kind::EndActor;
  order.a = message.a;
  // One that does not read has nothing to save.
  if (!wire::send(found->second.line, order) && message.a == 0)
    ::kill(found->second.pid, SIGKILL);  // our own child, not waited for yet
  if (message.a == 0) tell(core::HostOver{id});
  answer(socket, wire::Status::Ok, {});
}

// ---- What hosts say, and their ends.

bool Hosts::hear(std::uint32_t number) {
  const core::HostId id{number};
  const auto found = processes_.find(id);
  if (found == processes_.end() || found->second.line < 0) return false;
  wire::Message message;
  switch (wire::receive(found->second.line, message)) {
    case wire::Received::Nothing: return false;
    case wire::Received::Closed:  // it ends: we hear of it as of a child
      ::close(found->second.line);
      found->second.line = -1;
      return false;
    case wire::Received::Message: break;
  }
  message.close_descriptors();
  const std::string text(message.text_view());
  if (message.kind == wire::Kind::HostReady) {
    tell(core::HostReady{id, text});
  } else if (message.kind == wire::Kind::HostFailed) {
    tell(core::HostFailed{id, static_cast<std::uint32_t>(message.status), text});
  } else if (message.kind == wire::Kind::HostOver) {
    tell(core::HostOver{id});
  }
  return true;
}

void Hosts::has_ended(pid_t pid, int status) {
  const auto found = std::find_if(processes_.begin(), processes_.end(),
                                  [&](auto& one) { return one.second.pid == pid; });
  if (found == processes_.end()) return;
  const core::HostId id = found->first;
  while (hear(id.value)) {  // what it has said last
  }
  tell(core::HostEnded{id, WIFSIGNALED(status)
                               ? "was killed by signal " + std::to_string(WTERMSIG(status))
                               : "ended with code " + std::to_string(WEXITSTATUS(status))});
  if (found->second.line >= 0) ::close(found->second.line);
  processes_.erase(found);
}

std::optional<Hosts::Clock::time_point> Hosts::next_look() const {
  const auto change = table_.next_change();
  if (!change) return {};
  return begin_ + std::chrono::duration_cast<Clock::duration>(*change);
}

void Hosts::look() {
  if (const auto change = table_.next_change(); change && *change <= now()) tell(core::Tick{});
}

void Hosts::kill_all() {
  for (const auto& [id, process] : processes_) ::kill(process.pid, SIGKILL);
}

std::string Hosts::describe(pid_t pid) const {
  for (const auto& [id, process] : processes_) {
    if (process.pid == pid) return "detached actor " + table_.name_of(id).quoted();
  }
  return {};
}

}  // namespace mobula::node
