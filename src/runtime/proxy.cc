#include "runtime/proxy.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <unordered_map>

#include "mobula/detail/callback.h"
#include "runtime/carried.h"
#include "runtime/detached.h"
#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/open_call.h"
#include "runtime/worker.h"
#include "wire/rendezvous.h"

namespace mobula::runtime {
namespace {

class Proxy {
 public:
  Proxy(Process& process, std::uint32_t scheduling_class, std::string folder, std::uint64_t number)
      : process_(process), class_(scheduling_class), folder_(std::move(folder)), number_(number) {}

  // Returns when the actor is constructed; throws its constructor's error, or why it is dead.
  void enter();
  // The innermost frame's call.
  void hand_on(Frame& frame, detail::Execution& execution);

 private:
  void read();  // the thread
  bool hear(wire::Message& message);
  void answer(detail::OpenCall* call, bool is_error, const wire::ParcelBytes& bytes);
  void fail(detail::OpenCall* call, const ErrorFromElsewhere& error);
  detail::OpenCall* take(std::uint64_t number);
  void lose(const wire::Message* obituary);
  ErrorFromElsewhere death(const std::string& call) const;

  Process& process_;
  const std::uint32_t class_;
  const std::string folder_;
  const std::uint64_t number_;
  int socket_ = -1;
  std::uint64_t last_call_ = 0;
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, detail::OpenCall*> open_;
  bool gone_ = false;
  shm::DeathNote note_{shm::DeathCause{shm::Death::HostLost}.packed(), 0, 0, 0};
};

std::unique_ptr<Proxy> the_proxy;

void Proxy::enter() {
  wire::Message message;
  message.kind = wire::Kind::Knock;
  message.c = number_;
  bool answered = false;
  try {
    socket_ = wire::connect_in(folder_, kDoorName);
    answered =
        wire::send(socket_, message) && wire::receive(socket_, message) == wire::Received::Message;
  } catch (const std::runtime_error&) {  // it has ended, and its folder is gone
  }
  if (answered && message.kind == wire::Kind::Answer && message.a == 1) {
    wire::ParcelBytes bytes;
    ErrorFromElsewhere why;
    if (!wire::open_parcel(message, process_.memory().object_capacity(), bytes))
      detail::throw_decode_error("the error of a constructor cannot be read");
    Reader reader(bytes.data.get(), bytes.size);
    why.error = decode<ErrorValue>(reader);
    if (wire::receive(socket_, message) == wire::Received::Message) lose(&message);
    throw why;
  }
  if (answered && message.kind == wire::Kind::Admitted)
    return std::thread([this] { read(); }).detach();
  lose(answered ? &message : nullptr);
  throw death("of its constructor");
}

void Proxy::hand_on(Frame& frame, detail::Execution& execution) {
  Reader& all = *frame.stream;
  const auto size = all.raw<std::uint64_t>();
  Reader header(all.bytes(size), size);
  auto proxied = decode<ProxiedCall>(header);
  all.align(kProxiedAlignment);
  const std::size_t argument_size = all.remaining();
  const wire::Part arguments{all.bytes(argument_size), argument_size};

  CarriedCall carried;
  carried.function = frame.record.function;
  if (frame.record.flags & shm::flag::kNamed) carried.name = task_name(process_, frame.record);
  carried.group = std::move(proxied.group);
  carried.retries = proxied.retries;
  carried.arguments = argument_size;
  carried.places = std::move(proxied.places);
  std::vector<wire::Part> values;
  for (const std::uint64_t place : carried.places) {
    if (place > argument_size || argument_size - place < sizeof(RefAddress))
      detail::throw_decode_error("the arguments of a proxy's call are malformed");
    frame.stream.emplace(arguments.data() + place, argument_size - place);
    RefAddress ref;
    ::memcpy(&ref, arguments.data() + place, sizeof ref);
    Reader& value = execution.element();  // throws its error
    if (has_flag(process_.memory().record(ref.slot), shm::flag::kResultHasRefs))
      throw ErrorFromElsewhere{value_of(Error(describe_inner_refs("the value of an argument")))};
    const std::size_t value_size = value.remaining();
    values.emplace_back(value.bytes(value_size), value_size);
    carried.sizes.push_back(value_size);
    frame.pins.push_back(std::move(frame.referred_pin));
  }
  const std::vector<std::byte> head = carried_header(carried);
  std::vector<wire::Part> parts{head, arguments};
  parts.insert(parts.end(), values.begin(), values.end());
  wire::Message message;
  message.kind = wire::Kind::Call;
  message.c = ++last_call_;
  message.d = frame.deadline;

  detail::OpenCall* const call = execution.open_call();
  // Before anybody could answer it. It runs on this thread, too.
  detail::run_on_cancel(call, detail::make_callback([this, number = message.c] {
                          wire::Message cancel;
                          cancel.kind = wire::Kind::CancelCall;
                          cancel.c = number;
                          wire::send(socket_, cancel);
                        }));
  bool gone = false;
  {
    const std::lock_guard lock(mutex_);
    gone = gone_;
    if (!gone) open_.emplace(message.c, call);
  }
  if (gone) return fail(call, death(call->name()));
  switch (wire::send_parcel(socket_, message, parts)) {
    case wire::Sent::Sent:
    case wire::Sent::Closed: return;  // the other thread notices, too
    case wire::Sent::NoMemory: break;
  }
  if (take(message.c) == call)
    fail(call, {value_of(OutOfMemoryError("no memory is left to carry the call to another job"))});
}

// ---- The other thread.

void Proxy::read() {
  try {
    wire::Message message;
    for (;;) {
      if (wire::receive(socket_, message) != wire::Received::Message) return lose(nullptr);
      if (!hear(message)) return;
    }
  } catch (const Error&) {  // our own node is gone
    ::_exit(kExitDone);
  }
}

// False: it was the last message.
bool Proxy::hear(wire::Message& message) {
  if (message.kind == wire::Kind::Gone) {
    lose(&message);
    return false;
  }
  wire::ParcelBytes bytes;
  const bool is_error = message.a == 1;
  const std::uint64_t number = message.c;
  const bool good = wire::open_parcel(message, ~std::uint64_t{0}, bytes);
  detail::OpenCall* const call = message.kind == wire::Kind::Answer ? take(number) : nullptr;
  if (call && good) answer(call, is_error, bytes);
  if (call && !good)
    fail(call, {value_of(OutOfMemoryError("no memory is left for a result from another job"))});
  return true;
}

void Proxy::answer(detail::OpenCall* call, bool is_error, const wire::ParcelBytes& bytes) {
  call->answer([&](detail::Execution& execution) {
    if (is_error) {
      Reader reader(bytes.data.get(), bytes.size);
      ErrorFromElsewhere why{decode<ErrorValue>(reader)};
      if (why.error.code == static_cast<std::uint32_t>(ErrorCode::kFunctionNotFound))
        why.error.message = call->name() + ": " + why.error.message;  // only known here
      throw why;
    }
    execution.result([&](Writer& writer) { writer.bytes(bytes.data.get(), bytes.size); });
  });
  call->let_go();
}

void Proxy::fail(detail::OpenCall* call, const ErrorFromElsewhere& error) {
  call->answer([&](detail::Execution&) { throw error; });
  call->let_go();
}

detail::OpenCall* Proxy::take(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(number);
  if (found == open_.end()) return nullptr;
  detail::OpenCall* const call = found->second;
  open_.erase(found);
  return call;
}

// The actor is dead, or its host. `obituary`: nullptr: the host did not come to say so.
void Proxy::lose(const wire::Message* said) {
  wire::Message obituary;
  obituary.kind = wire::Kind::Obituary;
  std::unordered_map<std::uint64_t, detail::OpenCall*> left;
  {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    left.swap(open_);
    if (said && said->kind == wire::Kind::Gone && said->text_size == sizeof note_) {
      ::memcpy(&note_, said->text, sizeof note_);
      obituary.b = said->b;
    }
  }
  for (const auto& [number, call] : left) fail(call, death(call->name()));
  obituary.set_text({reinterpret_cast<const char*>(&note_), sizeof note_});
  process_.daemon().tell(obituary);
}

// As the error of a call.
ErrorFromElsewhere Proxy::death(const std::string& call) const {
  shm::CompactError error{};
  error.code = static_cast<std::uint32_t>(ErrorCode::kActorDied);
  error.signal = note_.signal;
  error.exit_code = note_.exit_code;
  error.pid = note_.pid;
  error.scheduling_class = class_;
  error.detail = note_.cause;
  try {
    throw_compact(process_.memory(), error, 0, call);
  } catch (const Error& e) {
    return {value_of(e)};
  }
}

void construct(detail::Execution& execution) {
  Reader& reader = execution.argument();
  auto folder = decode<std::string>(reader);
  const auto number = reader.raw<std::uint64_t>();
  Frame& frame = *current_frame();
  the_proxy = std::make_unique<Proxy>(frame.ledger.process(), frame.scheduling_class,
                                      std::move(folder), number);
  the_proxy->enter();
  hand_on = [](Frame& call, detail::Execution& its) { the_proxy->hand_on(call, its); };
  detail::Execution::set_instance(the_proxy.get(), [](void*) {});
  execution.result([](Writer&) {});
}

const detail::FunctionInfo constructor_info =
    detail::register_function("mobula::runtime::Proxy", "", "(detached actor)", &construct);

}  // namespace

const detail::FunctionInfo& proxy_constructor() { return constructor_info; }

void ProxyArguments::write(void* arguments, Writer& writer) {
  const auto& self = *static_cast<const ProxyArguments*>(arguments);
  writer.raw(detail::ArgumentTag::Value);
  encode<std::string>(writer, self.folder);
  writer.raw(self.number);
}

}  // namespace mobula::runtime
