#include "runtime/host.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "mobula/detail/callback.h"
#include "mobula/error.h"
#include "mobula/ref.h"
#include "runtime/detached.h"
#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/proxy.h"
#include "runtime/registry.h"
#include "runtime/value.h"
#include "wire/rendezvous.h"

namespace mobula::runtime {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kCallersMax = 128;  // sessions that have a handle, at a time
constexpr time_t kSilenceSeconds = 2;  // of one that has not knocked
constexpr std::chrono::seconds kLinger(5);  // for callers to hear of the actor's end

// The error of a record that has failed, as bytes.
std::vector<std::byte> error_of(Process& process, shm::Record& record) {
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  try {
    if ((state & shm::word::kCancelled) || record.result_kind == shm::ResultKind::ErrorCode)
      throw_failure(process, record);
    const ValueBytes bytes = result_bytes(process, record);
    return {bytes.data, bytes.data + bytes.size};
  } catch (const Error& e) {
    return encoded(value_of(e));
  }
}

class Door;

// One proxy: a thread reads its calls, a thread writes the answers.
class Caller : public std::enable_shared_from_this<Caller> {
 public:
  Caller(Door& door, int socket) : door_(door), socket_(socket) {}
  ~Caller() { ::close(socket_); }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  void begin();
  void actor_died();

 private:
  static constexpr std::uint64_t kConstructed = 0;  // calls count from 1

  void read();
  bool heed(wire::Message& message);
  void call(std::uint64_t number, std::uint64_t deadline, const wire::ParcelBytes& bytes);
  void cancel(std::uint64_t number);
  void track(std::uint64_t number, Ref<void> ref);
  void push(std::uint64_t number);
  void write();
  bool answer(std::uint64_t number, const Ref<void>& ref);
  bool refuse(std::uint64_t number, const Error& why);
  bool send(std::uint64_t number, bool is_error, wire::Part bytes);
  bool say_gone();
  void stop();

  Door& door_;
  const int socket_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::map<std::uint64_t, Ref<void>> running_;
  std::deque<std::uint64_t> ready_;
  bool known_ = false;  // it has knocked
  bool died_ = false;  // the actor
  bool stopped_ = false;
};

class Door {
 public:
  Door(Process& process_, detail::ActorAddress actor_, std::uint64_t number_)
      : process(process_), actor(actor_), number(number_), bell(::eventfd(0, EFD_CLOEXEC)) {}

  void admit(int listening) {
    const int socket = wire::accept_own(listening);
    if (socket < 0) return;
    ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) & ~O_NONBLOCK);
    const auto caller = std::make_shared<Caller>(*this, socket);
    {
      const std::lock_guard lock(mutex_);
      if (callers_.size() >= kCallersMax) return;
      callers_.push_back(caller);
    }
    caller->begin();
  }
  void knocked(Caller& caller) {
    bool died = false;
    {
      const std::lock_guard lock(mutex_);
      ever_ = true;
      died = died_;
    }
    if (died) caller.actor_died();
  }
  void left(const Caller& caller) {
    const std::lock_guard lock(mutex_);
    callers_.remove_if([&](const auto& one) { return one.get() == &caller; });
    ring();
  }
  void actor_died() {
    const std::lock_guard lock(mutex_);
    died_ = true;
    for (const auto& caller : callers_) caller->actor_died();
  }
  // Everybody who was here knows.
  bool is_done() {
    const std::lock_guard lock(mutex_);
    return died_ && ever_ && callers_.empty();
  }
  void ring() {
    const std::uint64_t one = 1;
    static_cast<void>(!::write(bell, &one, sizeof one));
  }

  Process& process;
  const detail::ActorAddress actor;
  const std::uint64_t number;
  const int bell;
  std::atomic<bool> actor_is_dead{false};  // callers are told by actor_died()

 private:
  std::mutex mutex_;
  std::list<std::shared_ptr<Caller>> callers_;
  bool ever_ = false;  // somebody has come
  bool died_ = false;
};

void Caller::begin() {
  const auto guarded = [self = shared_from_this()](void (Caller::*body)()) {
    try {
      (self.get()->*body)();
    } catch (const NodeDiedError&) {
      ::_exit(0);
    } catch (const std::exception& e) {
      ::fprintf(stderr, "mobula: a detached actor lost a caller: %s\n", e.what());
      self->stop();
    }
  };
  std::thread([guarded] { guarded(&Caller::read); }).detach();
  std::thread([guarded] { guarded(&Caller::write); }).detach();
}

void Caller::read() {
  wire::Message message;
  const auto be_silent_for = [&](time_t seconds) {
    const timeval limit{seconds, 0};  // 0: for ever
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  };
  be_silent_for(kSilenceSeconds);
  const bool known = wire::receive(socket_, message) == wire::Received::Message &&
                     message.kind == wire::Kind::Knock && message.c == door_.number &&
                     message.descriptor_count == 0;
  be_silent_for(0);
  if (known) {
    track(kConstructed, [&] {
      detail::retain(door_.actor.creation);
      return Ref<void>::own(door_.actor.creation);
    }());
    door_.knocked(*this);
    while (wire::receive(socket_, message) == wire::Received::Message && heed(message)) {
    }
  }
  stop();
  door_.left(*this);
}

// False: nothing more is wanted of it.
bool Caller::heed(wire::Message& message) {
  wire::ParcelBytes bytes;
  const std::uint64_t number = message.c;
  if (!wire::open_parcel(message, ~std::uint64_t{0}, bytes) || number == kConstructed) return false;
  if (message.kind == wire::Kind::CancelCall) {
    cancel(number);
    return true;
  }
  if (message.kind != wire::Kind::Call) return false;
  try {
    call(number, message.d, bytes);
    return true;
  } catch (const DecodeError&) {
    return false;
  } catch (const NodeDiedError&) {
    throw;
  } catch (const Error& e) {  // no room for it
    return refuse(number, e);
  }
}

void Caller::call(std::uint64_t number, std::uint64_t deadline, const wire::ParcelBytes& bytes) {
  wire::Part rest{bytes.data.get(), bytes.size};
  const auto carried = read_header<CarriedCall>(rest);
  const CarriedParts parts = parts_of(carried, rest);
  const detail::FunctionInfo* function = find_function(carried.function);
  if (!function) {
    throw FunctionNotFoundError(
        "the program that created the actor does not have this method: it has those that it calls "
        "somewhere itself, and those that it exports (MOBULA_EXPORT)");
  }
  LocalArguments arguments(carried, parts);
  CallOptions options;
  options.name = carried.name;
  options.concurrency_group = carried.group;
  options.max_task_retries = carried.retries;
  if (deadline != 0) {
    const std::uint64_t now = now_ns();
    options.deadline = Duration(deadline - std::min(deadline, now));
  }
  static const std::byte nothing{};
  Writer size(nullptr, 0);
  LocalArguments::write(&arguments, size);
  track(number,
        Ref<void>::own(detail::submit_call(arguments.call(*function), &options, door_.actor, size,
                                           &nothing, &LocalArguments::write, &arguments)));
}

void Caller::cancel(std::uint64_t number) {
  Ref<void> ref;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = running_.find(number); found != running_.end()) ref = found->second;
  }
  if (ref) detail::cancel_task(ref.address(), ref.session(), false, true);
}

void Caller::track(std::uint64_t number, Ref<void> ref) {
  const RefAddress address = ref.address();
  const std::uint64_t session = ref.session();
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    known_ = true;
    running_.emplace(number, std::move(ref));
  }
  detail::run_when_ready(
      address, session,
      detail::make_callback([self = shared_from_this(), number] { self->push(number); }));
}

void Caller::push(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  ready_.push_back(number);
  news_.notify_one();
}

void Caller::actor_died() {
  const std::lock_guard lock(mutex_);
  died_ = true;
  news_.notify_one();
}

// Unblocks both threads.
void Caller::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  running_.clear();
  ::shutdown(socket_, SHUT_RDWR);
  news_.notify_one();
}

void Caller::write() {
  for (bool more = true; more;) {
    std::map<std::uint64_t, Ref<void>> due;
    bool died = false;
    {
      std::unique_lock lock(mutex_);
      news_.wait(lock, [&] { return stopped_ || (died_ && known_) || !ready_.empty(); });
      if (stopped_) return;
      died = died_ && known_;
      // What an actor has answered before its end counts, whoever was told first.
      if (died) {
        for (const auto& [number, ref] : running_) {
          if (detail::is_final(ref.address())) ready_.push_back(number);
        }
      }
      for (const std::uint64_t number : ready_) {
        if (auto node = running_.extract(number)) due.insert(std::move(node));
      }
      ready_.clear();
    }
    for (const auto& [number, ref] : due) more = more && answer(number, ref);
    if (more && died) more = say_gone();
  }
  stop();
}

bool Caller::answer(std::uint64_t number, const Ref<void>& ref) {
  shm::Record& record = door_.process.memory().record(ref.address().slot);
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  if (shm::word::state(state) == shm::State::Failed)
    return send(number, true, error_of(door_.process, record));
  if (number == kConstructed) {
    wire::Message message;
    message.kind = wire::Kind::Admitted;
    return wire::send(socket_, message);
  }
  try {
    if (has_flag(record, shm::flag::kResultHasRefs))
      throw Error(describe_inner_refs("the result of a detached actor's call"));
    const ValueBytes bytes = result_bytes(door_.process, record);
    return send(number, false, {bytes.data, bytes.size});
  } catch (const NodeDiedError&) {
    throw;
  } catch (const Error& e) {
    return refuse(number, e);
  }
}

bool Caller::refuse(std::uint64_t number, const Error& why) {
  return send(number, true, encoded(value_of(why)));
}

bool Caller::send(std::uint64_t number, bool is_error, wire::Part bytes) {
  wire::Message message;
  message.kind = wire::Kind::Answer;
  message.c = number;
  message.a = is_error ? 1 : 0;
  const wire::Sent sent = wire::send_parcel(socket_, message, {&bytes, 1});
  if (sent == wire::Sent::NoMemory && !is_error)
    return refuse(number, OutOfMemoryError("no memory is left to carry the result to another job"));
  return sent == wire::Sent::Sent;
}

// Last of all; then it closes its end, and we hear of that.
bool Caller::say_gone() {
  const shm::SchedulingClass& cls =
      door_.process.memory().scheduling_class(door_.actor.actor_class);
  wire::Message message;
  message.kind = wire::Kind::Gone;
  message.b = cls.restarts.load();
  message.set_text({reinterpret_cast<const char*>(&cls.death), sizeof cls.death});
  wire::send(socket_, message);
  ::shutdown(socket_, SHUT_WR);
  std::unique_lock lock(mutex_);
  news_.wait(lock, [&] { return stopped_; });
  return false;
}

}  // namespace

std::unique_ptr<Host> Host::if_asked() {
  const char* socket = ::getenv("MOBULA_HOST_SOCKET");
  if (!socket) return nullptr;
  std::unique_ptr<Host> host(new Host(::atoi(socket)));
  ::unsetenv("MOBULA_HOST_SOCKET");  // programs that it starts are none
  ::fcntl(host->line_, F_SETFD, FD_CLOEXEC);
  try {
    if (!host->take_order()) ::_exit(1);
  } catch (const std::exception& e) {
    host->fail(e);
  }
  return host;
}

bool Host::take_order() {
  wire::Message message;
  if (wire::receive(line_, message) != wire::Received::Message ||
      message.kind != wire::Kind::HostOrder || message.descriptor_count != 1)
    return false;
  number_ = message.c;
  object_memory_ = message.d;
  node_folder_ = message.text_view();
  if (!wire::take_bytes_file(message.descriptors[0], ~std::uint64_t{0}, bytes_))
    throw OutOfMemoryError("the arguments of a detached actor cannot be read");
  wire::Part rest{bytes_.data.get(), bytes_.size};
  order_ = read_header<CarriedActor>(rest);
  parts_ = parts_of(order_.call, rest);
  return true;
}

Config Host::config(Config program) const {
  Config config;
  config.address = node_folder_ + "/socket";
  config.object_store_memory = object_memory_;
  config.namespace_ = order_.options.namespace_;
  config.spill_directory = program.spill_directory;
  config.spill_limit = program.spill_limit;
  config.memory_threshold = program.memory_threshold;
  config.code_search_path = program.code_search_path;
  config.log_level = program.log_level;
  config.log_format = program.log_format;
  return config;
}

void Host::fail(const std::exception& why) {
  const auto* error = dynamic_cast<const Error*>(&why);
  wire::Message message;
  message.kind = wire::Kind::HostFailed;
  message.set_text(std::string("a detached actor could not be created: ") + why.what());
  message.status = dynamic_cast<const UnschedulableError*>(error)     ? wire::Status::Unschedulable
                   : dynamic_cast<const ObjectStoreFullError*>(error) ? wire::Status::StoreFull
                   : dynamic_cast<const OutOfMemoryError*>(error)     ? wire::Status::OutOfMemory
                                                                      : wire::Status::Invalid;
  wire::send(line_, message);
  ::fflush(nullptr);
  ::_exit(1);
}

void Host::serve(Process& process, const std::string& session_folder) {
  try {
    serve_or_throw(process, session_folder);
  } catch (const std::exception& e) {
    fail(e);
  }
}

detail::ActorAddress Host::create() {
  const detail::FunctionInfo* function = find_function(order_.call.function);
  if (!function) throw FunctionNotFoundError("its program does not have its constructor");
  LocalArguments arguments(order_.call, parts_);
  static const std::byte nothing{};
  Writer size(nullptr, 0);
  LocalArguments::write(&arguments, size);
  return detail::submit_actor(arguments.call(*function), &order_.options, order_.call.name, size,
                              &nothing, &LocalArguments::write, &arguments);
}

void Host::serve_or_throw(Process& process, const std::string& session_folder) {
  process.memory().header().hosts.store(number_);
  // Held for good: the actor ends by itself, or is ended.
  Door& door = *new Door(process, create(), number_);
  const detail::ActorAddress actor = door.actor;
  bytes_ = {};
  const auto end = Ref<void>::own(detail::monitor_actor(actor, process.session()));
  detail::run_when_ready(end.address(), end.session(), detail::make_callback([&door] {
                           door.actor_is_dead.store(true);
                           door.ring();
                         }));
  const int listening = wire::listen_in(session_folder, kDoorName);
  wire::Message message;
  message.kind = wire::Kind::HostReady;
  message.set_text(session_folder);
  wire::send(line_, message);

  std::optional<Clock::time_point> leave_at;
  while (!door.is_done() && (!leave_at || Clock::now() < *leave_at)) {
    pollfd polls[4] = {{line_, POLLIN, 0},
                       {process.daemon().socket(), POLLRDHUP, 0},
                       {listening, POLLIN, 0},
                       {door.bell, POLLIN, 0}};
    ::poll(polls, 4, leave_at ? 50 : -1);
    if (polls[1].revents) ::_exit(0);  // the node has ended this session
    if (polls[0].revents) {
      if (wire::receive(line_, message) != wire::Received::Message) ::_exit(0);
      if (message.kind == wire::Kind::EndActor)
        detail::kill_actor(actor, process.session(), message.a == 0);
    }
    if (polls[2].revents) door.admit(listening);
    if (polls[3].revents) {
      std::uint64_t rings = 0;
      static_cast<void>(!::read(door.bell, &rings, sizeof rings));
    }
    if (door.actor_is_dead.load() && !leave_at) {
      leave_at = Clock::now() + kLinger;
      message = {};
      message.kind = wire::Kind::HostOver;
      wire::send(line_, message);
      door.actor_died();
    }
  }
  // The threads may still be at work: nothing is taken apart under them.
  ::fflush(nullptr);
  wire::Message leave;
  leave.kind = wire::Kind::Leave;
  process.leave();
  process.daemon().ask(leave);
  ::_exit(0);
}

}  // namespace mobula::runtime
