#include "runtime/execution.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "runtime/cancelling.h"
#include "runtime/errors.h"
#include "runtime/journal.h"
#include "runtime/local_mode.h"
#include "runtime/open_call.h"
#include "runtime/registry.h"
#include "shm/crash_point.h"
#include "shm/stream.h"
#include "wire/local_protocol.h"

namespace mobula {
namespace runtime {
namespace {

thread_local Frame* innermost = nullptr;
thread_local bool one_of_several = false;

void* actor_instance = nullptr;
void (*destroy_actor)(void*) = nullptr;
const detail::StateCodec* actor_codec = nullptr;
bool running_again = false;  // what is being run has its result

constexpr std::uint64_t kNameAlignment = 64;

// Thrown through the invoker when an argument's task had failed: this task fails with the same
// error.
struct ArgumentFailed {
  shm::Record* argument;
};

// Thrown through the invoker when an argument could not be read or the result not be stored: an
// error of the store, not of the function.
struct StoreFailed {
  const char* what;
  ErrorCode code;
  std::string message;
};

// The bytes that `read` gives.
template <class Read>
ValueBytes argument_or_failure(const Read& read) {
  try {
    return read();
  } catch (const Error& e) {
    throw StoreFailed{"its arguments could not be read", e.code(), e.what()};
  }
}

// Any other error may be the function's own, from where its value is encoded.
bool is_want_of_room(const Error& e) {
  return dynamic_cast<const ObjectStoreFullError*>(&e) || dynamic_cast<const OutOfDiskError*>(&e) ||
         dynamic_cast<const OutOfMemoryError*>(&e);
}

// An actor's journal must know of the call before its method runs.
void write_down(Frame& frame) {
  try {
    if (frame.record.flags & shm::flag::kStream) refuse_in_replay("methods that push into a Sink");
    frame.identity.number = journal->take(frame.record, frame.address);
  } catch (const Error& e) {
    throw StoreFailed{"the actor could not write it down", e.code(), e.what()};
  }
}

// What precedes the arguments of a task with a name of its own.
std::string_view given_name(const shm::Record& record, const ValueBytes& arguments) {
  if (!has_flag(record, shm::flag::kNamed)) return {};
  std::uint64_t length = 0;
  std::memcpy(&length, arguments.data, sizeof length);
  return {reinterpret_cast<const char*>(arguments.data) + sizeof length, length};
}

void set_compact_error(shm::Record& record, ErrorCode code, std::uint64_t detail) {
  record.error() = {};
  record.error().code = static_cast<std::uint32_t>(code);
  record.error().pid = static_cast<std::uint32_t>(::getpid());
  record.error().scheduling_class = record.scheduling_class;
  record.error().detail = detail;
  record.result_kind = shm::ResultKind::ErrorCode;
}

void drop_result(Process& process, shm::Record& record) {
  if (record.result_kind == shm::ResultKind::Stored) process.memory().give_back(record.result_at());
  record.result_kind = shm::ResultKind::None;
  record.flags &= static_cast<std::uint8_t>(~shm::flag::kResultHasRefs);
}

void place_error(Process& process, shm::Record& record, const ErrorValue& error) {
  std::byte small[64];
  Writer writer(small, sizeof small);
  encode<ErrorValue>(writer, error);
  try {
    place_result(
        process, record, writer, small,
        [](void* context, Writer& again) {
          encode<ErrorValue>(again, *static_cast<const ErrorValue*>(context));
        },
        const_cast<void*>(static_cast<const void*>(&error)));
  } catch (const Error&) {  // no room for its text: at least its kind
    set_compact_error(record, static_cast<ErrorCode>(error.code), 0);
  }
}

// Copies the failed argument's error: dependents report the original cause.
void inherit_error(Process& process, shm::Record& record, shm::Record& argument) {
  const std::uint64_t state = argument.state.load(std::memory_order_acquire);
  if (state & shm::word::kCancelled) {
    const bool late = (state & shm::word::kLate) != 0;
    set_compact_error(record, late ? ErrorCode::kDeadlineExceeded : ErrorCode::kTaskCancelled,
                      argument.function);
    return;
  }
  if (argument.result_kind == shm::ResultKind::ErrorCode) {
    switch (static_cast<ErrorCode>(argument.error().code)) {
      case ErrorCode::kOutOfMemory:
      case ErrorCode::kActorDied:
      case ErrorCode::kActorUnavailable: break;  // worded with the name of whose error it is
      default:
        record.error() = argument.error();
        record.result_kind = shm::ResultKind::ErrorCode;
        return;
    }
  }
  try {
    if (argument.result_kind == shm::ResultKind::ErrorCode) throw_failure(process, argument);
    const ValueBytes bytes = result_bytes(process, argument);
    Reader reader(bytes.data, bytes.size);
    place_error(process, record, decode<ErrorValue>(reader));
  } catch (const Error& e) {  // the argument's own, in words; or it cannot be brought from disk
    place_error(process, record, value_of(e));
  }
}

bool may_retry(const shm::Record& record, std::uint32_t attempt) {
  return (record.flags & shm::flag::kRetryExceptions) && record.kind == shm::Kind::Task &&
         (record.retries < 0 || static_cast<std::int32_t>(attempt) < record.retries);
}

// False: it was cancelled meanwhile.
bool run_again(Ledger& ledger, shm::Record& record, shm::Address address) {
  std::uint64_t seen = record.state.load(std::memory_order_relaxed);
  // release: what the failed attempt left in the record comes before the next claimer's reads
  do {
    if (seen & shm::word::kCancelled) return false;
  } while (!record.state.compare_exchange_weak(
      seen, shm::word::with_next_attempt(shm::word::with_state(seen, shm::State::Ready)),
      std::memory_order_release, std::memory_order_relaxed));
  ledger.publish(record, address);
  return true;
}

// The function has ended; what it returned or threw counts no more.
void end_cancelled(Frame& frame) {
  // By force its process ends, and the daemon ends the task. Ending it here would let the process
  // go on to another task, which the daemon's signal might hit.
  if (frame.record.state.load(std::memory_order_relaxed) & shm::word::kForce)
    ::_exit(wire::kExitCancelled);
  Process& process = frame.ledger.process();
  cancel_children(frame);
  frame.transfers.give_up(frame.ledger);
  drop_result(process, frame.record);
  shm::claim::complete(process.memory(), frame.ledger.shared(), frame.record, frame.address,
                       shm::State::Failed, frame.ledger);
}

}  // namespace

std::uint64_t TaskIdentity::hash() const {
  const std::uint64_t hash = shm::task_identity(parent, index);
  return number == kNotJournaled ? hash : shm::task_identity(hash, number);
}
std::string TaskIdentity::text() const { return hex(parent) + hex(index); }

void name_child(Ledger& ledger, shm::Record& record) {
  if (innermost) {
    record.parent = innermost->identity.hash();
    record.index = innermost->children++;
    record.deadline = innermost->deadline;
    return;
  }
  name_apart(ledger, record);
}

void name_apart(Ledger& ledger, shm::Record& record) {
  // Local runs are to be alike: they do without the random number.
  const std::uint64_t session = ledger.process().local() ? 0 : ledger.process().session();
  record.parent = shm::mix(session + ledger.participant());
  record.index = ledger.next_child();
  record.deadline = 0;
}

Frame::Frame(Ledger& ledger_, shm::Record& record_, shm::Address address_)
    : ledger(ledger_),
      record(record_),
      address(address_),
      outer(innermost),
      identity{record_.parent, record_.index},
      kind(record_.kind),
      scheduling_class(record_.scheduling_class),
      deadline(record_.deadline) {
  attempt = shm::word::attempt(record.state.load(std::memory_order_relaxed));
  if (record.flags & shm::flag::kJournaled) identity.number = record.journal_number();
  innermost = this;
}

void Frame::open() {
  arguments = argument_or_failure([&] { return argument_bytes(ledger.process(), record); });
  std::uint64_t size = arguments.size;
  std::uint64_t prefix = 0;
  if (record.flags & shm::flag::kArgsHaveRefs) size = size_without_refs(arguments);
  if (record.flags & shm::flag::kNamed)
    prefix = (8 + given_name(record, arguments).size() + kNameAlignment - 1) / kNameAlignment *
             kNameAlignment;
  stream.emplace(arguments.data + prefix, size - prefix);
}

Frame::~Frame() { innermost = outer; }

std::string Frame::name() const {
  return open_call ? open_call->name() : task_name(ledger.process(), record);
}

void (*hand_on)(Frame& frame, detail::Execution& execution) = nullptr;

Frame* current_frame() { return innermost; }

std::string task_name(Process& process, shm::Record& record) {
  if (has_flag(record, shm::flag::kNamed)) {
    try {
      const ValueBytes arguments = argument_bytes(process, record);
      return std::string(given_name(record, arguments));
    } catch (const Error&) {  // on disk, and not to be had: the function's name must do
    }
  }
  if (const detail::FunctionInfo* function = find_function(record.function))
    return std::string(function->name);
  switch (record.kind) {
    case shm::Kind::Put: return "(put)";
    case shm::Kind::Callback: return "(then)";
    case shm::Kind::Monitor: return "(monitor)";
    default: return "(unknown)";
  }
}

std::string describe_task(Process& process, shm::Record& record) {
  return task_name(process, record) + " (id " + TaskIdentity{record.parent, record.index}.text() +
         ")";
}

}  // namespace runtime

namespace detail {

struct ExecutionAccess {
  static Execution make(runtime::Frame& frame) {
    Execution execution;
    execution.state_ = &frame;
    return execution;
  }
  static void finish(Execution& execution, const Writer& writer, const std::byte* bytes,
                     EncodeAgain again, void* context) {
    execution.finish(writer, bytes, again, context);
  }
};

OpenCall* Execution::open_call() {
  runtime::refuse_in_replay("methods that answer later (Reply, coroutines)");
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  frame.open_call = new OpenCall(frame);
  return frame.open_call;
}

void answer(OpenCall* call, const Writer& writer, const std::byte* bytes, EncodeAgain again,
            void* context) {
  call->answer([&](Execution& execution) {
    ExecutionAccess::finish(execution, writer, bytes, again, context);
  });
}

Reader& Execution::argument() {
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  const ArgumentTag tag = frame.tag ? *frame.tag : frame.stream->raw<ArgumentTag>();
  frame.tag.reset();
  frame.referred_address = {};
  if (tag == ArgumentTag::Value) return *frame.stream;
  if (tag != ArgumentTag::Ref) throw_decode_error("an argument is of no known kind");
  Reader& value = element();
  // A parameter may be a span of the value: it stays in memory as long as the function runs.
  frame.pins.push_back(std::move(frame.referred_pin));
  return value;
}

std::optional<Execution::Object> Execution::argument_object() {
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  if (frame.referred_address == RefAddress{}) return std::nullopt;
  adopt_decoded(frame.referred_address);
  return Object{frame.referred_address, frame.pins.back()};
}

std::optional<std::size_t> Execution::elements() {
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  frame.tag = frame.stream->raw<ArgumentTag>();
  if (*frame.tag != ArgumentTag::Refs) return std::nullopt;
  frame.tag.reset();
  const auto count = frame.stream->raw<std::uint64_t>();
  if (count > frame.stream->remaining() / sizeof(RefAddress))
    throw_decode_error("a list of arguments is cut short");
  return count;
}

Reader& Execution::element() {
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  runtime::Process& process = frame.ledger.process();
  const RefAddress address = frame.stream->ref();
  shm::Record& argument = process.memory().record(address.slot);
  const std::uint64_t state = argument.state.load(std::memory_order_acquire);
  if (shm::word::generation(state) != address.generation || !shm::word::is_final(state)) {
    throw_decode_error("an argument's object is not there");
  }
  if (shm::word::state(state) == shm::State::Failed) throw runtime::ArgumentFailed{&argument};
  runtime::ValueBytes value =
      runtime::argument_or_failure([&] { return runtime::result_bytes(process, argument); });
  frame.referred.emplace(value.data, shm::has_flag(argument, shm::flag::kResultHasRefs)
                                         ? runtime::size_without_refs(value)
                                         : value.size);
  frame.referred_pin = std::move(value.pin);
  frame.referred_address = address;
  return *frame.referred;
}

void Execution::finish(const Writer& writer, const std::byte* bytes, EncodeAgain again,
                       void* context) {
  if (runtime::running_again) return;  // the record has its result
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  runtime::Process& process = frame.ledger.process();
  frame.transfers.hold(frame.ledger, writer.refs(), frame.address);
  shm::crash_point(shm::CrashPoint::ExecuteAfter);
  try {
    runtime::place_result(process, frame.record, writer, bytes, again, context);
  } catch (const Error& e) {
    if (!runtime::is_want_of_room(e)) throw;
    throw runtime::StoreFailed{"its result could not be stored", e.code(), e.what()};
  }
}

void* Execution::instance() {
  return runtime::require_process().local() ? runtime::LocalMode::instance()
                                            : runtime::actor_instance;
}
void Execution::set_instance(void* instance, void (*destroy)(void*), const StateCodec* codec) {
  if (runtime::require_process().local())
    return runtime::LocalMode::set_instance(instance, destroy);
  runtime::actor_instance = instance;
  runtime::destroy_actor = destroy;
  runtime::actor_codec = codec;
}

}  // namespace detail

namespace runtime {
namespace {

// A producer may let StreamStopped through: nobody wants more, so it has done its work.
void invoke(const detail::FunctionInfo& function, detail::Execution& execution,
            const shm::Record& record) {
  try {
    function.invoke(execution);
  } catch (const StreamStopped&) {
    if (!(record.flags & shm::flag::kStream)) throw;
  }
}

// In a handler: the exception is the end of this process's session.
bool lost_the_node(Process& process) {
  try {
    throw;
  } catch (const NodeDiedError&) {
    return !process.daemon().alive();
  } catch (...) {
    return false;
  }
}

// Runs `body`, which leaves a result and tells the final state, or throws; then makes the record
// final, or Ready again when its function may be retried.
template <class Body>
void conclude(Frame& frame, const Body& body) {
  Ledger& ledger = frame.ledger;
  Process& process = ledger.process();
  shm::Record& record = frame.record;
  shm::State final_state = shm::State::Failed;
  bool again = false;
  const bool produces = record.flags & shm::flag::kStream;
  const auto stream = static_cast<std::uint32_t>(record.result_word);
  try {
    final_state = body();
    if (frame.open_call) return frame.open_call->method_returned();
  } catch (const ArgumentFailed& failed) {
    inherit_error(process, record, *failed.argument);
  } catch (const StoreFailed& failed) {
    frame.transfers.give_up(frame.ledger);
    ErrorValue error;
    error.code = static_cast<std::uint32_t>(failed.code);
    error.message = "task " + describe_task(process, record) + " failed: " + failed.what + ": " +
                    failed.message;
    place_error(process, record, error);
  } catch (const ErrorFromElsewhere& elsewhere) {
    frame.transfers.give_up(frame.ledger);
    place_error(process, record, elsewhere.error);
  } catch (...) {
    // It has heard that the node is no more: that is nothing about the task.
    if (lost_the_node(process)) throw;
    if (frame.open_call) return frame.open_call->method_threw(std::current_exception());
    frame.transfers.give_up(frame.ledger);
    drop_result(process, record);
    again = may_retry(record, frame.attempt);
    if (!again) {
      ErrorValue error = describe_current_exception();
      error.task_name = task_name(process, record);
      error.task_id = frame.identity.text();
      error.attempt = frame.attempt;
      error.process_id = static_cast<std::uint32_t>(::getpid());
      error.node_id = hex(process.memory().header().node);
      place_error(process, record, error);
    }
  }
  if (frame.is_late()) expire(frame);
  if (final_state == shm::State::Failed && !again)
    process.shared().tasks_failed.fetch_add(1, std::memory_order_relaxed);
  shm::crash_point(shm::CrashPoint::ResultWritten);
  if (again) {
    if (!run_again(ledger, record, frame.address)) end_cancelled(frame);
  } else if (shm::claim::complete_unless_cancelled(process.memory(), ledger.shared(), record,
                                                   frame.address, final_state, ledger)) {
    frame.transfers.forget(process);
  } else {
    end_cancelled(frame);
  }
  // Whoever waits for an item finds that none will come. A record that is Done may be another one.
  if (produces) shm::stream::wake_readers(shm::stream::at(process.memory(), stream));
}

}  // namespace

void execute(Ledger& ledger, shm::Record& record, shm::Address address) {
  shm::crash_point(shm::CrashPoint::ExecuteBefore);
  {
    Frame frame(ledger, record, address);
    conclude(frame, [&] {
      const detail::FunctionInfo* function = find_function(record.function);
      if (!function) {
        set_compact_error(record, ErrorCode::kFunctionNotFound, record.function);
        return shm::State::Failed;
      }
      // One that had begun when the actor crashed is run as if it were then.
      if (!replaying && frame.is_late()) return shm::State::Failed;
      if (journal && !replaying) write_down(frame);
      frame.open();
      detail::Execution execution = detail::ExecutionAccess::make(frame);
      if (hand_on && frame.kind == shm::Kind::ActorCall) [[unlikely]] {
        hand_on(frame, execution);
      } else {
        invoke(*function, execution, record);
      }
      return shm::State::Done;
    });
  }
  shm::crash_point(shm::CrashPoint::CompleteFinished);
  shm::claim::forget(ledger.shared());
}

void conclude_open(Ledger& ledger, detail::OpenCall& call,
                   const std::function<void(detail::Execution&)>& place) {
  Frame frame(ledger, call.record, call.address);
  conclude(frame, [&] {
    detail::Execution execution = detail::ExecutionAccess::make(frame);
    place(execution);
    return shm::State::Done;
  });
}

namespace {

// Runs the function of a final record for its effects in this process.
void run_again_for_effects(Ledger& ledger, shm::Record& record, shm::Address address) {
  const detail::FunctionInfo* function = find_function(record.function);
  if (!function) throw FunctionNotFoundError("the function is not known to this program");
  struct Running {
    explicit Running(shm::Kind kind) {
      running_again = true;
      repeating = kind == shm::Kind::ActorCall;
    }
    ~Running() { running_again = repeating = false; }
  } running(record.kind);
  Frame frame(ledger, record, address);
  frame.open();
  detail::Execution execution = detail::ExecutionAccess::make(frame);
  function->invoke(execution);
}

}  // namespace

void construct_again(Ledger& ledger, shm::Record& creation, shm::Address address) {
  try {
    run_again_for_effects(ledger, creation, address);
  } catch (const StoreFailed& failed) {
    throw Error(std::string(failed.what) + ": " + failed.message, failed.code);
  }
}

std::string repeat(Ledger& ledger, shm::Record& call, shm::Address address) {
  try {
    run_again_for_effects(ledger, call, address);
  } catch (const StoreFailed& failed) {
    return std::string(failed.what) + ": " + failed.message;
  } catch (...) {  // as it did, or an argument, the first time
  }
  return {};
}

void destroy_instance() noexcept {
  if (actor_instance && destroy_actor) destroy_actor(actor_instance);
  actor_instance = nullptr;
}
void replace_instance(void* instance) { actor_instance = instance; }
const detail::StateCodec* instance_codec() { return actor_codec; }

namespace {

// Makes a call that nobody has claimed Failed; `describe` writes why.
template <class Describe>
void fail_unclaimed(Ledger& ledger, shm::Record& record, shm::Address address,
                    const Describe& describe) {
  shm::claim::intend(ledger.shared(), address);
  std::uint64_t seen = record.state.load(std::memory_order_acquire);
  for (;;) {
    const shm::State state = shm::word::state(seen);
    if (state != shm::State::Ready && state != shm::State::Waiting) break;  // the daemon was faster
    if (!record.state.compare_exchange_weak(
            seen,
            shm::word::with_claimer(shm::word::with_state(seen, shm::State::Claimed),
                                    ledger.participant()),
            std::memory_order_acq_rel)) {
      continue;
    }
    describe();
    ledger.process().shared().tasks_failed.fetch_add(1, std::memory_order_relaxed);
    shm::claim::complete(ledger.process().memory(), ledger.shared(), record, address,
                         shm::State::Failed, ledger);
    break;
  }
  shm::claim::forget(ledger.shared());
}

}  // namespace

void fail_in_dead_class(Process& process, Ledger& ledger, shm::Record& record,
                        shm::Address address) {
  fail_unclaimed(ledger, record, address, [&] {
    if (record.kind == shm::Kind::Task)
      return set_compact_error(record, ErrorCode::kPlacementGroupRemoved, record.function);
    // No cause yet: it was killed or has left, and the daemon has not buried it.
    const shm::SchedulingClass& cls = process.memory().scheduling_class(record.scheduling_class);
    const std::uint64_t request = cls.kill_request.load(std::memory_order_relaxed);
    const shm::Death death = (request & shm::kGroupRemoved) ? shm::Death::GroupRemoved
                             : (request & shm::kKill)       ? shm::Death::Killed
                                                            : shm::Death::Left;
    const std::uint64_t cause = cls.death.cause ? cls.death.cause : shm::DeathCause{death}.packed();
    record.error() = {static_cast<std::uint32_t>(ErrorCode::kActorDied),
                      0,
                      cls.death.signal,
                      cls.death.exit_code,
                      cls.death.pid,
                      record.scheduling_class,
                      cause};
    record.result_kind = shm::ResultKind::ErrorCode;
  });
}

void fail_deadlocked_call(Ledger& ledger, shm::Record& record, shm::Address address) {
  Process& process = ledger.process();
  fail_unclaimed(ledger, record, address, [&] {
    ErrorValue error;
    error.code = static_cast<std::uint32_t>(ErrorCode::kActorDeadlock);
    error.message = "the call " + describe_task(process, record) +
                    " can never run: its actor is at work, and what it does waits for the call. "
                    "Let a method return the Ref instead of getting it";
    place_error(process, record, error);
  });
}

void throw_failure(Process& process, shm::Record& record) {
  const std::uint64_t state = record.state.load(std::memory_order_relaxed);
  if (state & shm::word::kLate)
    throw DeadlineExceededError("task " + describe_task(process, record) +
                                " had not ended by its deadline");
  if (state & shm::word::kCancelled)
    throw TaskCancelledError("task " + describe_task(process, record) + " was cancelled");
  if (record.result_kind == shm::ResultKind::ErrorCode) {
    throw_compact(process.memory(), record.error(), record.function,
                  describe_task(process, record));
  }
  const ValueBytes bytes = result_bytes(process, record);
  Reader reader(bytes.data, bytes.size);
  throw_error(decode<ErrorValue>(reader));
}

void set_one_of_several() { one_of_several = true; }
bool is_one_of_several() { return one_of_several; }

}  // namespace runtime
}  // namespace mobula
