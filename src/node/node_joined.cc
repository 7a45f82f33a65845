// A session of a node that stays: it shares the node's resources with others, and ends with it. And
// what any session shows to tools.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "node/node.h"
#include "node/node_parts.h"
#include "wire/rendezvous.h"

namespace mobula::node {
namespace {

constexpr std::size_t kToolsMax = 16;  // at a time
const std::string kObjectMemory = "object_store_memory";

std::string describe_shortage(const std::string& name, double asked, double there) {
  char text[160];
  ::snprintf(text, sizeof text, "%.10g, more than the %.10g of the node that it joins", asked,
             there);
  return "Config: the amount of " + name + " is " + text;
}

}  // namespace

// ---- Starting.

// What of the node this session may ever use: what the driver says, or all of it.
core::ResourceAmounts Node::part_of_node(const wire::Message& start,
                                         const std::map<std::string, double>& asked,
                                         std::uint64_t* object_memory) {
  wire::Message enrol;
  enrol.kind = wire::Kind::Enrol;
  enrol.b = static_cast<std::uint32_t>(wire::peer_pid(driver_));
  enrol.c = start.c;
  if (!wire::send(node_, enrol) || wire::receive(node_, enrol) != wire::Received::Message)
    throw std::runtime_error("the node has ended");
  if (enrol.status != wire::Status::Ok) throw std::runtime_error(std::string(enrol.text_view()));
  *object_memory = enrol.c;
  node_id_ = enrol.d;
  const wire::Fields fields = wire::split(enrol.text_view());
  node_folder_ = std::string(wire::field(fields, 1));
  core::ResourceAmounts part = parse_units(wire::field(fields, 0));
  constexpr double kOne = core::ResourceAmounts::kUnitsPerOne;
  for (const auto& [name, amount] : asked) {
    const double there = static_cast<double>(part.units(name)) / kOne;
    if (amount > there) throw std::runtime_error(describe_shortage(name, amount, there));
    part.set_units(name, std::llround(amount * kOne));
  }
  part.set_units(kObjectMemory,
                 static_cast<std::int64_t>(enrol.c) * core::ResourceAmounts::kUnitsPerOne);
  return part;
}

// The node was started by somebody else, perhaps days ago: workers find what the driver has.
void Node::live_like_the_driver(const wire::Message& start,
                                const std::vector<std::string>& strings) {
  ::dup2(start.descriptors[2], STDOUT_FILENO);
  ::dup2(start.descriptors[3], STDERR_FILENO);
  ::close(start.descriptors[2]);
  ::close(start.descriptors[3]);
  if (strings.size() <= start.b) return;
  const std::string& folder = strings[start.b];
  if (::chdir(folder.c_str()) != 0)
    throw std::runtime_error("cannot work in " + folder + ": " + ::strerror(errno));
  ::clearenv();
  for (std::size_t i = start.b + 1; i < strings.size(); ++i) {
    const std::size_t equals = strings[i].find('=', 1);
    if (equals != std::string::npos)
      ::setenv(strings[i].substr(0, equals).c_str(), strings[i].c_str() + equals + 1, 1);
  }
}

// ---- Sharing.

void Node::hear_node() {
  wire::Message message;
  switch (wire::receive(node_, message)) {
    case wire::Received::Nothing: return;
    case wire::Received::Closed: node_gone_ = true; return;
    case wire::Received::Message: return heed_node(message);
  }
}

void Node::heed_node(const wire::Message& message) {
  quiet_looks_ = 0;
  if (message.kind == wire::Kind::Drain) {
    drain_until_ = now() + std::chrono::milliseconds(message.c);
    if (tables_) step(core::ShareChanged{});
  } else if (message.kind == wire::Kind::Share && tables_) {
    share_heard_ = message.c;
    core::ResourceAmounts share = parse_units(message.text_view());
    for (const auto& [name, units] : capacity_.by_name())
      share.set_units(name, std::min(units, share.units(name)));
    share.set_units(kObjectMemory, capacity_.units(kObjectMemory));
    if (!drain_until_) step(core::ShareChanged{share});
  }
}

// Tells the node what has changed in what we could use, and what we use.
void Node::claim_share() {
  if (node_ < 0) return;
  const core::WorkerAllotment::Claim claim = allotment_.claim(now());
  wire::Message message;
  message.kind = wire::Kind::Claim;
  message.c = share_heard_;
  std::string text;
  for (core::ResourceAmounts amounts : {claim.wanted, claim.firm, claim.urgent, claim.used}) {
    amounts.set_units(kObjectMemory, 0);  // is shared out once, when the session starts
    text += format_units(amounts) + '\0';
  }
  message.set_text(text);
  text += std::to_string(share_heard_);
  if (text == claimed_) return;
  wire::send(node_, message);
  claimed_ = std::move(text);
}

// What nobody holds of all that this session could use.
core::ResourceAmounts Node::free_amounts() {
  if (node_ < 0) return core::of_node(allotment_.free());
  wire::Message message;
  message.kind = wire::Kind::Resources;
  message.a = 1;
  wire::send(node_, message);
  for (;;) {
    if (wire::receive(node_, message) != wire::Received::Message) return {};
    if (message.kind == wire::Kind::Reply) break;
    heed_node(message);
  }
  core::ResourceAmounts free = parse_units(message.text_view());
  free.subtract(allotment_.claim(now()).used);
  return free;
}

// The node ends, and nothing runs here any more, or has run for too long.
bool Node::has_drained() const {
  if (!drain_until_) return false;
  if (!tables_ || now() >= *drain_until_) return true;
  return std::none_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    const shm::Process& shared = memory_.process(entry.first);
    return entry.second.joined && !entry.second.blocked &&
           shared.works_for.load(std::memory_order_acquire) != shm::kNone &&
           shared.sleeping.load(std::memory_order_acquire) == 0;
  });
}

// ---- Tools: they only look.

void Node::admit_tool() {
  const int socket = wire::accept_own(tools_);
  if (socket < 0) return;
  // One that asks and does not read must not hold us up.
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  if (tool_sockets_.size() >= kToolsMax) {
    ::close(socket);
    return;
  }
  tool_sockets_.insert(socket);
  watch(socket, kTagTool | static_cast<std::uint32_t>(socket));
}

void Node::drop_tool(int socket) {
  unwatch(socket);
  ::close(socket);
  tool_sockets_.erase(socket);
  read_metrics_.erase(kTagTool | static_cast<std::uint32_t>(socket));
}

void Node::serve_tool(int socket) {
  wire::Message message;
  if (!tool_sockets_.contains(socket)) return;
  switch (wire::receive(socket, message)) {
    case wire::Received::Nothing: return;
    case wire::Received::Closed: return drop_tool(socket);
    case wire::Received::Message: break;
  }
  message.close_descriptors();
  message.status = wire::Status::Ok;
  switch (message.kind) {
    case wire::Kind::Inspect: show_tables(message); break;
    case wire::Kind::ObjectMemory: report_object_memory(message); break;
    case wire::Kind::ReadMetrics:
      report_metrics(kTagTool | static_cast<std::uint32_t>(socket), message);
      break;
    case wire::Kind::Explain: message.set_text(explain(message.a)); break;
    default: refuse(message, wire::Status::Invalid, "tools do not ask for that");
  }
  message.kind = wire::Kind::Reply;
  const bool sent = wire::send(socket, message);
  message.close_descriptors();
  if (!sent) drop_tool(socket);
}

void Node::show_tables(wire::Message& message) {
  const auto reopened = [&](int fd) {
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const int read_only = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (read_only >= 0) message.descriptors[message.descriptor_count++] = read_only;
  };
  reopened(control_fd_);
  if (message.descriptor_count == 1 && functions_ >= 0) reopened(functions_);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now()).count();
  std::string text;
  for (const auto& [name, value] : {std::pair{"segments", std::uint64_t{tables_->segment_limit()}},
                                    {"processes", std::uint64_t{tables_->process_limit()}},
                                    {"participants", std::uint64_t{tables_->participant_limit()}},
                                    {"classes", std::uint64_t{tables_->class_limit()}},
                                    {"extents", std::uint64_t{objects_->extent_limit()}},
                                    {"object_memory", std::uint64_t{memory_.object_capacity()}},
                                    {"driver", std::uint64_t{memory_.process(kDriverProcess).pid}},
                                    {"daemon", std::uint64_t{memory_.header().daemon_pid}},
                                    {"seconds", static_cast<std::uint64_t>(seconds)}}) {
    text += std::string(name) + "=" + std::to_string(value) + "\n";
  }
  message.set_text(text + '\0' + node_name_);
}

}  // namespace mobula::node
