#include "runtime/execution.h"

#include <unistd.h>

#include <cstring>

#include "runtime/errors.h"
#include "runtime/registry.h"
#include "shm/claim.h"
#include "shm/crash_point.h"

namespace mobula {
namespace runtime {
namespace {

thread_local Frame* innermost = nullptr;
thread_local std::uint32_t help_class = shm::kNone;
thread_local const char* stack_limit = nullptr;

void* actor_instance = nullptr;
void (*destroy_actor)(void*) = nullptr;
bool constructing_again = false;

constexpr std::uint64_t kNameAlignment = 64;

// Thrown through the invoker when an argument's task had failed: this task fails with the same
// error.
struct ArgumentFailed {
  shm::Record* argument;
};

// Thrown through the invoker when the result could not be stored: an error of the store, not of the
// function.
struct ResultRefused {
  ErrorCode code;
  std::string message;
};

std::uint64_t mix(std::uint64_t x) {  // splitmix64's finalizer
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// What precedes the arguments of a task with a name of its own.
std::string_view given_name(const shm::Record& record, ValueBytes arguments) {
  if (!(record.flags & shm::flag::kNamed)) return {};
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
  } catch (const Error&) {
    set_compact_error(record, ErrorCode::kTaskError, 0);  // no room for its text: at least its kind
  }
}

// Copies the failed argument's error: dependents report the original cause.
void inherit_error(Process& process, shm::Record& record, shm::Record& argument) {
  if (argument.result_kind == shm::ResultKind::ErrorCode) {
    record.error() = argument.error();
    record.result_kind = shm::ResultKind::ErrorCode;
    return;
  }
  const ValueBytes bytes = result_bytes(process, argument);
  Reader reader(bytes.data, bytes.size);
  place_error(process, record, decode<ErrorValue>(reader));
}

void give_up_transfers(Frame& frame) {
  Process& process = frame.ledger.process();
  const std::lock_guard lock(process.holds().mutex);
  for (const std::uint32_t line : frame.transfers) {
    shm::HoldEntry& entry = process.holds().line(process.memory(), process.shared(), line);
    const shm::Address inner = shm::Address::unpack(entry.record.load(std::memory_order_relaxed));
    shm::holds::open(frame.ledger.shared(), shm::HoldOp::Release, inner, line);
    shm::holds::change(process.memory(), frame.ledger.participant(),
                       process.memory().record(inner.slot), -1);
    process.holds().clear_line(process, line);
    shm::holds::close(frame.ledger.shared());
  }
  frame.transfers.clear();
}

// The result is published: the holds are its own now.
void forget_transfers(Frame& frame) {
  if (frame.transfers.empty()) return;
  Process& process = frame.ledger.process();
  const std::lock_guard lock(process.holds().mutex);
  for (const std::uint32_t line : frame.transfers) {
    process.holds().clear_line(process, line);
    shm::crash_point(shm::CrashPoint::TransferForgotten);
  }
  frame.transfers.clear();
}

bool may_retry(const shm::Record& record, std::uint32_t attempt) {
  return (record.flags & shm::flag::kRetryExceptions) && record.kind == shm::Kind::Task &&
         (record.retries < 0 || static_cast<std::int32_t>(attempt) < record.retries);
}

void run_again(Ledger& ledger, shm::Record& record, shm::Address address) {
  std::uint64_t seen = record.state.load(std::memory_order_relaxed);
  // release: what the failed attempt left in the record comes before the next claimer's reads
  while (!record.state.compare_exchange_weak(
      seen, shm::word::with_next_attempt(shm::word::with_state(seen, shm::State::Ready)),
      std::memory_order_release)) {
  }
  ledger.push(record.scheduling_class, address);
}

}  // namespace

std::uint64_t TaskIdentity::hash() const { return mix(parent + 0x9e3779b97f4a7c15u * (index + 1)); }
std::string TaskIdentity::text() const { return hex(parent) + hex(index); }

TaskIdentity next_child_identity(Ledger& ledger) {
  if (innermost) return {innermost->identity.hash(), innermost->children++};
  return {mix(ledger.process().session() + ledger.participant()), ledger.next_child()};
}

Frame::Frame(Ledger& ledger_, shm::Record& record_, shm::Address address_)
    : ledger(ledger_),
      record(record_),
      address(address_),
      outer(innermost),
      identity{record_.parent, record_.index} {
  attempt = shm::word::attempt(record.state.load(std::memory_order_relaxed));
  arguments = argument_bytes(ledger.process(), record);
  std::uint64_t size = arguments.size;
  std::uint64_t prefix = 0;
  if (record.flags & shm::flag::kArgsHaveRefs) size = size_without_refs(arguments);
  if (record.flags & shm::flag::kNamed)
    prefix = (8 + given_name(record, arguments).size() + kNameAlignment - 1) / kNameAlignment *
             kNameAlignment;
  stream.emplace(arguments.data + prefix, size - prefix);
  innermost = this;
}

Frame::~Frame() { innermost = outer; }

Frame* current_frame() { return innermost; }

std::string task_name(Process& process, shm::Record& record) {
  const std::string_view given = given_name(record, argument_bytes(process, record));
  if (!given.empty()) return std::string(given);
  if (const detail::FunctionInfo* function = find_function(record.function))
    return std::string(function->name);
  return record.kind == shm::Kind::Put ? "(put)" : "(unknown)";
}

}  // namespace runtime

namespace detail {

struct ExecutionAccess {
  static Execution make(runtime::Frame& frame) {
    Execution execution;
    execution.state_ = &frame;
    return execution;
  }
};

Reader& Execution::argument() {
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  const auto tag = frame.stream->raw<std::uint8_t>();
  if (tag == 0) return *frame.stream;
  runtime::Process& process = frame.ledger.process();
  const RefAddress address = frame.stream->ref();
  shm::Record& argument = process.memory().record(address.slot);
  const std::uint64_t state = argument.state.load(std::memory_order_acquire);
  if (shm::word::generation(state) != address.generation || !shm::word::is_final(state)) {
    throw_decode_error("an argument's object is not there");
  }
  if (shm::word::state(state) == shm::State::Failed) throw runtime::ArgumentFailed{&argument};
  const runtime::ValueBytes value = runtime::result_bytes(process, argument);
  frame.referred.emplace(value.data, (argument.flags & shm::flag::kResultHasRefs)
                                         ? runtime::size_without_refs(value)
                                         : value.size);
  return *frame.referred;
}

void Execution::finish(const Writer& writer, const std::byte* bytes, EncodeAgain again,
                       void* context) {
  if (runtime::constructing_again) return;  // the record has its result
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  runtime::Process& process = frame.ledger.process();
  if (!writer.refs().empty()) {
    const std::lock_guard lock(process.holds().mutex);
    for (const RefAddress& ref : writer.refs()) {
      const shm::Address inner = runtime::to_shm(ref);
      const std::uint32_t line = process.holds().take_line(process, frame.address);
      shm::holds::open(frame.ledger.shared(), shm::HoldOp::Hold, inner, line);
      shm::holds::change(process.memory(), frame.ledger.participant(),
                         process.memory().record(inner.slot), +1);
      process.holds()
          .line(process.memory(), process.shared(), line)
          .record.store(inner.packed(), std::memory_order_release);
      shm::holds::close(frame.ledger.shared());
      frame.transfers.push_back(line);
      shm::crash_point(shm::CrashPoint::TransferHeld);
    }
  }
  shm::crash_point(shm::CrashPoint::ExecuteAfter);
  try {
    runtime::place_result(process, frame.record, writer, bytes, again, context);
  } catch (const ObjectStoreFullError& e) {
    throw runtime::ResultRefused{e.code(), e.what()};
  }
}

void* Execution::instance() { return runtime::actor_instance; }
void Execution::set_instance(void* instance, void (*destroy)(void*)) {
  runtime::actor_instance = instance;
  runtime::destroy_actor = destroy;
}

}  // namespace detail

namespace runtime {

void execute(Ledger& ledger, shm::Record& record, shm::Address address) {
  Process& process = ledger.process();
  shm::crash_point(shm::CrashPoint::ExecuteBefore);
  shm::State final_state = shm::State::Failed;
  bool again = false;
  Frame frame(ledger, record, address);
  try {
    if (const detail::FunctionInfo* function = find_function(record.function)) {
      frame.function = function;
      detail::Execution execution = detail::ExecutionAccess::make(frame);
      function->invoke(execution);
      final_state = shm::State::Done;
    } else {
      set_compact_error(record, ErrorCode::kFunctionNotFound, record.function);
    }
  } catch (const ArgumentFailed& failed) {
    inherit_error(process, record, *failed.argument);
  } catch (const ResultRefused& refused) {
    give_up_transfers(frame);
    ErrorValue error;
    error.code = static_cast<std::uint32_t>(refused.code);
    error.message = "the result of task " + task_name(process, record) +
                    " could not be stored: " + refused.message;
    place_error(process, record, error);
  } catch (...) {
    give_up_transfers(frame);
    drop_result(process, record);
    again = may_retry(record, frame.attempt);
    if (!again) {
      ErrorValue error = describe_current_exception();
      error.task_name = task_name(process, record);
      error.task_id = frame.identity.text();
      error.attempt = frame.attempt;
      error.process_id = static_cast<std::uint32_t>(::getpid());
      place_error(process, record, error);
    }
  }
  shm::crash_point(shm::CrashPoint::ResultWritten);
  if (again) {
    run_again(ledger, record, address);
  } else {
    shm::claim::complete(process.memory(), ledger.shared(), record, address, final_state, ledger);
    forget_transfers(frame);
  }
  shm::crash_point(shm::CrashPoint::CompleteFinished);
  shm::claim::forget(ledger.shared());
}

void construct_again(Ledger& ledger, shm::Record& creation, shm::Address address) {
  const detail::FunctionInfo* function = find_function(creation.function);
  if (!function) throw FunctionNotFoundError("the constructor is not known to this program");
  constructing_again = true;
  {
    Frame frame(ledger, creation, address);
    detail::Execution execution = detail::ExecutionAccess::make(frame);
    function->invoke(execution);
  }
  constructing_again = false;
}

void destroy_instance() noexcept {
  if (actor_instance && destroy_actor) destroy_actor(actor_instance);
  actor_instance = nullptr;
}

bool help(Process& process, shm::Record& record, shm::Address address) {
  char here;
  if (help_class == shm::kNone || &here < stack_limit) return false;
  const std::uint64_t seen = record.state.load(std::memory_order_acquire);
  if (shm::word::state(seen) != shm::State::Ready || record.kind != shm::Kind::Task ||
      record.scheduling_class != help_class)
    return false;
  Ledger& ledger = process.this_ledger();
  shm::claim::intend(ledger.shared(), address);
  shm::crash_point(shm::CrashPoint::ClaimIntent);
  if (!shm::claim::take(record, address, ledger.participant())) {
    shm::claim::forget(ledger.shared());
    return false;
  }
  shm::crash_point(shm::CrashPoint::ClaimTaken);
  execute(ledger, record, address);
  return true;
}

void fail_call_of_dead_actor(Process& process, Ledger& ledger, shm::Record& record,
                             shm::Address address) {
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
    const shm::DeathNote& note = process.memory().scheduling_class(record.scheduling_class).death;
    // No cause yet: it was killed, and the daemon has not buried it.
    const std::uint64_t cause =
        note.cause ? note.cause : shm::DeathCause{shm::Death::Killed}.packed();
    record.error() = {static_cast<std::uint32_t>(ErrorCode::kActorDied),
                      0,
                      note.signal,
                      note.exit_code,
                      note.pid,
                      record.scheduling_class,
                      cause};
    record.result_kind = shm::ResultKind::ErrorCode;
    shm::claim::complete(process.memory(), ledger.shared(), record, address, shm::State::Failed,
                         ledger);
    break;
  }
  shm::claim::forget(ledger.shared());
}

void throw_failure(Process& process, shm::Record& record) {
  if (record.result_kind == shm::ResultKind::ErrorCode) {
    throw_compact(process.memory(), record.error(), task_name(process, record));
  }
  const ValueBytes bytes = result_bytes(process, record);
  Reader reader(bytes.data, bytes.size);
  throw_error(decode<ErrorValue>(reader));
}

void set_help_class(std::uint32_t scheduling_class) { help_class = scheduling_class; }
void set_stack_limit(const char* lowest) { stack_limit = lowest; }

}  // namespace runtime
}  // namespace mobula
