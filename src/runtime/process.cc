#include "runtime/process.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "mobula/detail/runtime.h"
#include "runtime/call_threads.h"
#include "runtime/callbacks.h"
#include "runtime/environment.h"
#include "runtime/errors.h"
#include "runtime/ledger.h"
#include "runtime/local_mode.h"
#include "shm/check.h"
#include "shm/crash_point.h"

namespace mobula::runtime {
namespace {

std::atomic<Process*> the_process{nullptr};

// Gives the thread's ledger back when the thread ends.
struct ThreadLedger {
  Ledger* ledger = nullptr;
  std::uint64_t session = 0;
  bool ended = false;
  ~ThreadLedger() {
    ended = true;
    Process* process = current_process();
    if (ledger && process && process->session() == session) process->return_ledger(ledger);
  }
};
thread_local ThreadLedger thread_ledger;

constexpr std::size_t kSlots = std::size_t{shm::kSegmentsMax} * shm::kRecordsPerSegment;

}  // namespace

void throw_status(const wire::Message& message) {
  const std::string text(message.text_view());
  switch (message.status) {
    case wire::Status::OutOfMemory: throw OutOfMemoryError(text);
    case wire::Status::StoreFull:
    case wire::Status::TooLarge: throw ObjectStoreFullError(text);
    case wire::Status::Unschedulable: throw UnschedulableError(text);
    case wire::Status::OutOfDisk: throw OutOfDiskError(text);
    case wire::Status::ObjectLost: throw ObjectLostError(text);
    case wire::Status::NotFound:
    case wire::Status::OtherClass: throw ActorNotFoundError(text);
    case wire::Status::GroupRemoved: throw PlacementGroupRemovedError(text);
    case wire::Status::Exists: throw ActorAlreadyExistsError(text);
    default: throw Error(text);
  }
}

namespace {

void add_demand(std::string& text, std::string_view name, double amount) {
  char number[40];
  std::snprintf(number, sizeof number, "=%.17g\n", amount);
  text.append(name).append(number);
}

}  // namespace

std::string demand_text(std::optional<double> cpus, double default_cpus, std::optional<double> gpus,
                        std::optional<double> memory,
                        const std::map<std::string, double>& resources) {
  std::string text;
  const auto add = [&](std::string_view name, double amount) {
    if (std::isnan(amount) || std::isinf(amount) || amount < 0) {
      throw Error("the demand for " + std::string(name) + " is " + std::to_string(amount) +
                  "; it must be a number that is not negative");
    }
    if (amount > 0) add_demand(text, name, amount);
  };
  add("CPU", cpus.value_or(default_cpus));
  if (gpus) add("GPU", *gpus);
  if (memory) add("memory", *memory);
  constexpr std::size_t kNameMax = 100;
  constexpr std::size_t kNamesMax = 16;
  if (resources.size() > kNamesMax)
    throw Error("a demand names " + std::to_string(resources.size()) +
                " resources; at most 16 are possible");
  for (const auto& [name, amount] : resources) {
    if (name.size() > kNameMax)
      throw Error("a resource's name has " + std::to_string(name.size()) +
                  " characters; at most 100 are possible");
    if (name.empty() || name.find_first_of("=\n") != std::string::npos)
      throw Error("'" + name + "' is no name of a resource");
    if (name == "CPU" || name == "GPU" || name == "memory") {
      throw Error("the demand for " + name + " is given by its own option, not in `resources`");
    }
    add(name, amount);
  }
  return text;
}

std::uint64_t now_ns() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(t.tv_nsec);
}

bool thread_has_ended() { return thread_ledger.ended; }

Process* current_process() { return the_process.load(std::memory_order_acquire); }
void set_current_process(Process* process) {
  the_process.store(process, std::memory_order_release);
}
Process& require_process() {
  if (Process* process = current_process()) return *process;
  throw Error(
      "there is no Mobula session: construct a mobula::Session (or call mobula::init) at the "
      "beginning of main()");
}

Connection::~Connection() {
  ::close(socket_);
  ::close(bell_);
}

void Connection::ask(wire::Message& message) {
  const std::lock_guard lock(mutex_);
  message.descriptor_count = 0;
  if (!wire::send(socket_, message) || wire::receive(socket_, message) != wire::Received::Message)
    throw_node_died();
}

void Connection::demand(wire::Message& message) {
  ask(message);
  if (message.status != wire::Status::Ok) throw_status(message);
}

void Connection::tell(const wire::Message& message) {
  const std::lock_guard lock(mutex_);
  wire::send(socket_, message);
}

bool Connection::alive() {
  pollfd poll{socket_, POLLRDHUP, 0};
  return ::poll(&poll, 1, 0) <= 0 || !(poll.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

void Connection::ring(shm::ControlHeader& header) {
  if (header.daemon_sleeps.load(std::memory_order_seq_cst) == 0 ||
      header.daemon_sleeps.exchange(0) == 0)
    return;
  const std::uint64_t one = 1;
  while (::write(bell_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

RefCounts::RefCounts() {
  void* p = ::mmap(nullptr, kSlots * sizeof(std::uint32_t), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw OutOfMemoryError("cannot map the table of references");
  counts_ = static_cast<std::atomic<std::uint32_t>*>(p);
}
RefCounts::~RefCounts() { ::munmap(static_cast<void*>(counts_), kSlots * sizeof(std::uint32_t)); }

shm::HoldEntry& HoldTable::line(const shm::Memory& memory, const shm::Process& shared,
                                std::uint32_t i) const {
  const std::uint32_t segment =
      shared.hold_segments[i / shm::kHoldsPerSegment].load(std::memory_order_relaxed);
  return reinterpret_cast<shm::HoldEntry*>(memory.segment(segment))[i % shm::kHoldsPerSegment];
}

std::uint32_t HoldTable::take_line(Process& process, shm::Address container) {
  if (free_lines_.empty()) {
    if (lines_ % shm::kHoldsPerSegment == 0) {
      if (lines_ / shm::kHoldsPerSegment == shm::kHoldSegmentsMax) {
        throw OutOfMemoryError("this process holds more than a million objects of other processes");
      }
      wire::Message message;
      message.kind = wire::Kind::LeaseHolds;
      message.a = lines_ / shm::kHoldsPerSegment;
      process.daemon().demand(message);  // the daemon notes the segment in the process's entry
    }
    free_lines_.push_back(lines_++);
  }
  const std::uint32_t i = free_lines_.back();
  free_lines_.pop_back();
  line(process.memory(), process.shared(), i)
      .container.store(container.packed(), std::memory_order_relaxed);
  return i;
}

void HoldTable::clear_line(Process& process, std::uint32_t i) {
  shm::HoldEntry& entry = line(process.memory(), process.shared(), i);
  entry.record.store(0, std::memory_order_release);
  entry.container.store(0, std::memory_order_release);
  free_lines_.push_back(i);
}

void HoldTable::acquire(Process& process, Ledger& me, shm::Address record) {
  if (held_.contains(record.slot))
    return;  // a release is on its way and will find that it is not wanted
  const std::uint32_t i = take_line(process, {});
  shm::holds::open(me.shared(), shm::HoldOp::Hold, record, i);
  shm::crash_point(shm::CrashPoint::HoldIntent);
  shm::holds::change(process.memory(), me.participant(), process.memory().record(record.slot), +1);
  shm::crash_point(shm::CrashPoint::HoldCounted);
  line(process.memory(), process.shared(), i)
      .record.store(record.packed(), std::memory_order_release);
  shm::holds::close(me.shared());
  held_[record.slot] = {i, record};
}

void HoldTable::release(Process& process, Ledger& me, std::uint32_t slot) {
  const auto it = held_.find(slot);
  if (it == held_.end()) return;
  const Held held = it->second;
  held_.erase(it);
  give_up(process, me, held);
}

void HoldTable::give_up(Process& process, Ledger& me, Held held) {
  shm::holds::open(me.shared(), shm::HoldOp::Release, held.record, held.line);
  shm::crash_point(shm::CrashPoint::ReleaseIntent);
  shm::holds::change(process.memory(), me.participant(), process.memory().record(held.record.slot),
                     -1);
  shm::crash_point(shm::CrashPoint::ReleaseCounted);
  clear_line(process, held.line);
  shm::holds::close(me.shared());
}

void HoldTable::adopt(Process& process, Ledger& me, shm::Address record, std::uint32_t line) {
  process.counts().add(record.slot);
  // Our own record needs no hold, and one of another's is enough. Counted first: without it the
  // record may be recycled at once.
  if (process.ledger_of(record.slot) || held_.contains(record.slot)) {
    give_up(process, me, {line, record});
  } else {
    held_[record.slot] = {line, record};
  }
}

Process::Process(int socket, const wire::Message& welcome, shm::ProcessRole role,
                 std::unique_ptr<shm::Memory> mapped)
    : memory_(mapped ? std::move(mapped) : std::make_unique<shm::Memory>()),
      daemon_(socket, welcome.descriptors[2]),
      index_(welcome.a),
      role_(role),
      session_(0),
      store_(*this),
      callbacks_(std::make_unique<Callbacks>(*this)),
      owners_(new std::atomic<Ledger*>[shm::kSegmentsMax]()) {
  const char* name = role == shm::ProcessRole::Driver  ? "driver"
                     : role == shm::ProcessRole::Actor ? "actor"
                                                       : "worker";
  shm::arm_crash_points(name);
  if (memory_->mapped()) shm::set_open_crashes(&memory_->header().open_crashes);
  shm::crash_point(shm::CrashPoint::JoinStarted);
  if (!memory_->mapped()) {
    if (const char* problem =
            memory_->map(welcome.descriptors[0], welcome.descriptors[1], welcome.c, false)) {
      throw VersionMismatchError(std::string("cannot join the node: ") + problem);
    }
  }
  ::close(welcome.descriptors[0]);
  ::close(welcome.descriptors[1]);
  session_ = memory_->header().session;
  shm::set_open_crashes(&memory_->header().open_crashes);
  shm::crash_point(shm::CrashPoint::JoinMapped);
  wire::Message joined;
  joined.kind = wire::Kind::Joined;
  daemon_.tell(joined);
}

Process::~Process() {
  local_.reset();  // its threads use all the rest
  shm::set_open_crashes(nullptr);
}

void Process::run_locally(bool in_threads) {
  local_ = std::make_unique<LocalMode>(*this, in_threads);
}
void Process::end_callbacks() { callbacks_.reset(); }

Ledger& Process::this_ledger() {
  if (thread_ledger.ledger && thread_ledger.session == session_) return *thread_ledger.ledger;
  {
    const std::lock_guard lock(ledgers_mutex_);
    if (!idle_ledgers_.empty()) {
      thread_ledger.ledger = idle_ledgers_.back();
      idle_ledgers_.pop_back();
      thread_ledger.session = session_;
      return *thread_ledger.ledger;
    }
  }
  wire::Message message;
  message.kind = wire::Kind::LeaseLedger;
  daemon_.demand(message);
  auto ledger = std::make_unique<Ledger>(*this, message.a, message.b);
  thread_ledger.ledger = ledger.get();
  thread_ledger.session = session_;
  const std::lock_guard lock(ledgers_mutex_);
  ledgers_.push_back(std::move(ledger));
  return *thread_ledger.ledger;
}

void Process::return_ledger(Ledger* ledger) {
  const std::lock_guard lock(ledgers_mutex_);
  idle_ledgers_.push_back(ledger);
}

void Process::tidy() {
  this_ledger().tidy_all();
  const std::lock_guard lock(ledgers_mutex_);
  for (Ledger* idle : idle_ledgers_) idle->tidy_all();
}

std::uint32_t Process::take_stream() {
  {
    const std::lock_guard lock(streams_mutex_);
    if (!idle_streams_.empty()) {
      const std::uint32_t stream = idle_streams_.back();
      idle_streams_.pop_back();
      return stream;
    }
  }
  wire::Message message;
  message.kind = wire::Kind::LeaseStream;
  daemon_.demand(message);
  return message.a;
}

void Process::give_stream(std::uint32_t stream) {
  const std::lock_guard lock(streams_mutex_);
  idle_streams_.push_back(stream);
}

std::uint32_t Process::class_of(const TaskOptions* options) {
  const bool is_default =
      !options ||
      ((!options->num_cpus || *options->num_cpus == 1) && !options->num_gpus && !options->memory &&
       options->resources.empty() && options->priority == 0 && options->scheduling.index() == 0 &&
       options->runtime_env.env_vars.empty() && options->runtime_env.working_dir.empty());
  if (is_default) {
    const std::uint32_t known = default_class_.load(std::memory_order_relaxed);
    if (known != shm::kNone) return known;
  }
  const std::string demand = is_default ? demand_text({}, 1, {}, {}, {})
                                        : demand_text(options->num_cpus, 1, options->num_gpus,
                                                      options->memory, options->resources);
  const std::string environment =
      environment_of(options ? &options->runtime_env : nullptr, "TaskOptions.runtime_env");
  const std::string placement = options ? placement_of(options->scheduling) : std::string();
  const std::string text = demand + '\0' + placement + '\0' + environment;
  const int priority = options ? options->priority : 0;
  const std::string key = std::to_string(priority) + '\0' + text;
  const std::lock_guard lock(classes_mutex_);
  auto it = classes_.find(key);
  if (it == classes_.end()) {
    wire::Message message;
    message.kind = wire::Kind::OpenClass;
    message.a = static_cast<std::uint32_t>(shm::ClassKind::Task);
    message.b = static_cast<std::uint32_t>(priority);
    open_class(message, text);
    it = classes_.emplace(key, message.a).first;
    if (local_) local_->has_environment(message.a, environment);
  }
  // In local mode what is not said depends on the task that submits.
  if (is_default && !local_) default_class_.store(it->second, std::memory_order_relaxed);
  return it->second;
}

// What of it the daemon must know: the place in a group. The rest is decided here, as long as there
// is one node.
std::string Process::placement_of(const Scheduling& scheduling) const {
  if (const auto* in = std::get_if<PlacementGroupScheduling>(&scheduling)) {
    if (in->group_id == 0) throw Error("the PlacementGroup is empty: it was default-constructed");
    return std::to_string(in->group_id) + " " + std::to_string(in->bundle_index);
  }
  if (const auto* affinity = std::get_if<NodeAffinity>(&scheduling);
      affinity && !affinity->soft && affinity->node_id != hex(memory_->header().node)) {
    throw UnschedulableError("there is no node \"" + affinity->node_id +
                             "\" to run on (NodeAffinity); mobula::nodes() lists those that are "
                             "there, and NodeAffinity.soft lets it run elsewhere");
  }
  if (const auto* label = std::get_if<NodeLabel>(&scheduling); label && !label->hard.empty()) {
    throw UnschedulableError("no node has the label " + label->hard.begin()->first + " = " +
                             label->hard.begin()->second +
                             " (NodeLabel.hard); a soft one need not be met");
  }
  return {};
}

std::string Process::environment_of(const RuntimeEnv* given, const char* option) const {
  std::string own = given ? environment_text(*given, option) : std::string();
  if (!own.empty()) return own;
  return local_ ? LocalMode::environment() : environment_;
}

void Process::open_class(wire::Message& message, const std::string& text) {
  if (text.size() > wire::kTextMax) {
    throw Error("runtime_env and resources have " + std::to_string(text.size()) +
                " bytes together; at most " + std::to_string(wire::kTextMax) + " are possible");
  }
  message.set_text(text);
  daemon_.demand(message);
}

std::uint32_t Process::open_actor_class(const ActorOptions& options, std::string_view type,
                                        shm::Address creation, std::uint64_t detached) {
  wire::Message message;
  message.kind = wire::Kind::OpenClass;
  message.a = static_cast<std::uint32_t>(shm::ClassKind::Actor);
  message.b = static_cast<std::uint32_t>(options.max_restarts);
  message.c = creation.packed();
  message.d = static_cast<std::uint32_t>(options.max_task_retries) |
              (options.allow_out_of_order_execution ? wire::kOutOfOrder : 0);
  const std::string environment = environment_of(&options.runtime_env, "ActorOptions.runtime_env");
  open_class(message,
             wire::join({demand_text(options.num_cpus, 0, options.num_gpus, options.memory,
                                     options.resources),
                         std::string(type.substr(0, kTypeNameShown)), options.name,
                         options.namespace_, std::to_string(options.max_pending_calls),
                         std::to_string(detail::hash_text(type)), groups_text(options),
                         std::to_string(options.checkpoint_every |
                                        (options.recovery == Recovery::Replay ? shm::kReplays : 0)),
                         placement_of(options.scheduling), std::to_string(detached), environment}));
  if (local_) local_->has_environment(message.a, environment);
  return message.a;
}

shm::Address Process::take_hold(wire::Message& message) {
  Ledger& me = this_ledger();
  const std::lock_guard lock(holds_.mutex);
  const std::uint32_t line = holds_.take_line(*this, {});
  message.b = line;
  daemon_.ask(message);
  if (message.status != wire::Status::Ok) {
    holds_.clear_line(*this, line);
    if (message.status == wire::Status::Later) return {};
    throw_status(message);
  }
  const auto record = shm::Address::unpack(message.c);
  holds_.adopt(*this, me, record, line);
  return record;
}

}  // namespace mobula::runtime

namespace mobula::detail {

using runtime::Ledger;
using runtime::Process;
using runtime::RefCounts;

std::uint64_t current_session() noexcept {
  const Process* process = runtime::current_process();
  return process ? process->session() : 0;
}

void check_ref(RefAddress address, std::uint64_t session) {
  if (session == 0 || address == RefAddress{})
    throw Error("the Ref is empty: it was default-constructed or moved from");
  if (session != runtime::require_process().session())
    throw Error("the Ref belongs to a session that has ended");
}

void retain(RefAddress address) {
  if (Process* process = runtime::current_process()) process->counts().add(address.slot);
}
void retain(const RefHandle& handle) {
  if (handle.session == current_session()) retain(handle.address);
}

void release(const RefHandle& handle) noexcept {
  if (handle.session == current_session()) release(handle.address);
}
void release(RefAddress address) noexcept {
  Process* process = runtime::current_process();
  if (!process) return;
  if ((process->counts().subtract(address.slot) & ~RefCounts::kQueued) != 1) return;
  try {
    if (Ledger* ledger = process->ledger_of(address.slot)) {
      // A ref may outlive its thread's ledger (a thread_local one): somebody else may write that
      // ledger by now.
      if (runtime::thread_has_ended()) return ledger->dropped_elsewhere(address.slot);
      Ledger& mine = process->this_ledger();
      ledger == &mine ? ledger->dropped(address.slot) : ledger->dropped_elsewhere(address.slot);
      return;
    }
    if (runtime::thread_has_ended()) return;  // the hold stays until the process ends
    Ledger& mine = process->this_ledger();
    const std::lock_guard lock(process->holds().mutex);
    if (process->counts().refs(address.slot) == 0)
      process->holds().release(*process, mine, address.slot);
  } catch (const Error&) {
    // The daemon is gone and everything with it: there is nothing left to release.
  }
}

void adopt_decoded(RefAddress address) {
  Process& process = runtime::require_process();
  if (process.ledger_of(address.slot)) {
    process.counts().add(address.slot);
    return;
  }
  Ledger& mine = process.this_ledger();
  const std::lock_guard lock(process.holds().mutex);
  if (process.counts().add(address.slot) == 0) {
    process.holds().acquire(process, mine, runtime::to_shm(address));
  }
}

}  // namespace mobula::detail
