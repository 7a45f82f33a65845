#include "cli/session_reader.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "cli/arguments.h"
#include "runtime/errors.h"
#include "runtime/memory_report.h"
#include "runtime/metrics.h"
#include "shm/ring.h"
#include "wire/rendezvous.h"

namespace mobula::cli {

SessionReader::SessionReader(std::string folder) : folder_(std::move(folder)) {
  socket_ = wire::connect_in(folder_);
  const wire::Message seen = ask(wire::Kind::Inspect);
  if (seen.descriptor_count == 0)
    throw std::runtime_error("the session in " + folder_ + " shows nothing");
  const std::string_view text = seen.text_view();
  const std::size_t end = std::min(text.find('\0'), text.size());
  counts_ = wire::parse_amounts(text.substr(0, end));
  node_ = text.substr(std::min(end + 1, text.size()));
  const char* problem = memory_.map_to_read(seen.descriptors[0]);
  ::close(seen.descriptors[0]);
  if (seen.descriptor_count > 1) {
    const auto names = wire::take_strings_file(seen.descriptors[1]);
    for (std::size_t i = 0; i + 1 < names.size(); i += 2)
      functions_[std::stoull(names[i], nullptr, 16)] = names[i + 1];
  }
  if (problem) throw std::runtime_error(problem);
}

SessionReader::~SessionReader() {
  if (socket_ >= 0) ::close(socket_);
}

wire::Message SessionReader::ask(wire::Kind kind, std::uint32_t a, std::uint64_t c) {
  wire::Message message;
  message.kind = kind;
  message.a = a;
  message.c = c;
  if (!wire::send(socket_, message) || wire::receive(socket_, message) != wire::Received::Message)
    throw std::runtime_error("the session in " + folder_ + " has ended");
  if (message.status != wire::Status::Ok)
    throw std::runtime_error(std::string(message.text_view()));
  return message;
}

std::vector<MetricSample> SessionReader::metrics() {
  return runtime::read_metrics(
      [this](std::uint64_t begin) { return ask(wire::Kind::ReadMetrics, 0, begin); });
}

std::string SessionReader::id() const { return runtime::hex(memory_.header().session); }

std::uint64_t SessionReader::count(const std::string& name) const {
  const auto found = counts_.find(name);
  return found == counts_.end() ? 0 : static_cast<std::uint64_t>(found->second);
}

std::string SessionReader::function_name(std::uint64_t key) const {
  const auto found = functions_.find(key);
  return found == functions_.end() ? "(function " + runtime::hex(key) + ")" : found->second;
}

std::string SessionReader::name_of(const shm::Record& record) const {
  switch (record.kind) {
    case shm::Kind::Put: return "(put)";
    case shm::Kind::Join: return "(join)";
    case shm::Kind::Callback: return "(callback)";
    case shm::Kind::Monitor: return "(monitor)";
    default: return function_name(record.function);
  }
}

std::string SessionReader::explain(std::uint32_t scheduling_class) {
  return std::string(ask(wire::Kind::Explain, scheduling_class).text_view());
}

MemoryReport SessionReader::memory_report() {
  const auto counts = wire::parse_amounts(ask(wire::Kind::ObjectMemory).text_view());
  return runtime::read_memory(
      {memory_, counts, [this](std::uint64_t key) { return function_name(key); }, nullptr});
}

std::uint64_t SessionReader::depth_of(const shm::SchedulingClass& cls) const {
  std::uint64_t depth = 0;
  for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
    const auto& ring = *reinterpret_cast<const shm::RingHeader*>(memory_.heap(at));
    depth += ring.depth();
    at = ring.next.load(std::memory_order_acquire);
  }
  return depth;
}

std::uint32_t SessionReader::pid_of_actor(std::uint32_t cls) const {
  std::uint32_t pid = 0;
  each_process([&](std::uint32_t, const shm::Process& process) {
    if (process.role.load() == static_cast<std::uint32_t>(shm::ProcessRole::Actor) &&
        process.assigned_class.load() == cls)
      pid = process.pid;
  });
  return pid;
}

std::vector<std::unique_ptr<SessionReader>> read_sessions(const std::string& job) {
  std::vector<std::unique_ptr<SessionReader>> sessions;
  for (const std::string& folder : wire::living_folders(wire::kSessionPrefix)) {
    try {
      auto session = std::make_unique<SessionReader>(folder);
      if (job.empty() || session->id().starts_with(job) ||
          std::to_string(session->count("driver")) == job)
        sessions.push_back(std::move(session));
    } catch (const std::runtime_error&) {  // it has just ended, or is of another build
    }
  }
  if (sessions.empty() && !job.empty())
    throw NotFound("no running job is called " + job + "; see: mobula list jobs");
  return sessions;
}

std::string task_id(const shm::Record& record) {
  return runtime::hex(record.parent) + runtime::hex(record.index);
}

std::string group_id(const shm::SchedulingClass& cls) { return runtime::hex(cls.placement_group); }

const char* group_state(const shm::SchedulingClass& cls) {
  if (cls.state.load() == static_cast<std::uint32_t>(shm::ClassState::Dead)) return "ending";
  return cls.attached.load() != 0 ? "created" : "pending";
}

const char* task_state(std::uint64_t state) {
  switch (shm::word::state(state)) {
    case shm::State::Free: return "free";
    case shm::State::Waiting: return "waiting";
    case shm::State::Ready: return "ready";
    case shm::State::Claimed: return "running";
    case shm::State::Done: return "finished";
    case shm::State::Failed: break;
  }
  return (state & shm::word::kCancelled) ? "cancelled" : "failed";
}

const char* actor_state(const SessionReader& session, std::uint32_t id) {
  const shm::SchedulingClass& cls = session.memory().scheduling_class(id);
  if (cls.state.load() == static_cast<std::uint32_t>(shm::ClassState::Dead)) return "dead";
  if (session.pid_of_actor(id) != 0) return "alive";
  return cls.restarts.load() > 0 ? "restarting" : "pending";
}

}  // namespace mobula::cli
