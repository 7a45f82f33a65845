#include "runtime/errors.h"

#include <cxxabi.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>

#include "core/memory_guard.h"
#include "runtime/process.h"
#include "runtime/registry.h"

namespace mobula {
namespace runtime {
namespace {

std::map<std::string, detail::RethrowAs>& rethrowers() {
  static std::map<std::string, detail::RethrowAs> known;
  return known;
}
std::mutex rethrowers_mutex;

template <class E>
void rethrow_as(const std::string& message) {
  throw E(message);
}

void register_standard() {
  const auto add = [](const std::type_info& type, detail::RethrowAs rethrow) {
    rethrowers().try_emplace(type.name(), rethrow);
  };
  add(typeid(std::runtime_error), &rethrow_as<std::runtime_error>);
  add(typeid(std::range_error), &rethrow_as<std::range_error>);
  add(typeid(std::overflow_error), &rethrow_as<std::overflow_error>);
  add(typeid(std::underflow_error), &rethrow_as<std::underflow_error>);
  add(typeid(std::logic_error), &rethrow_as<std::logic_error>);
  add(typeid(std::invalid_argument), &rethrow_as<std::invalid_argument>);
  add(typeid(std::domain_error), &rethrow_as<std::domain_error>);
  add(typeid(std::length_error), &rethrow_as<std::length_error>);
  add(typeid(std::out_of_range), &rethrow_as<std::out_of_range>);
  add(typeid(Error), &rethrow_as<Error>);
  add(typeid(ActorDiedError), &rethrow_as<ActorDiedError>);
  add(typeid(ActorDeadlockError), &rethrow_as<ActorDeadlockError>);
  add(typeid(ActorUnavailableError), &rethrow_as<ActorUnavailableError>);
  add(typeid(TaskCancelledError), &rethrow_as<TaskCancelledError>);
  add(typeid(DeadlineExceededError), &rethrow_as<DeadlineExceededError>);
  add(typeid(GetTimeoutError), &rethrow_as<GetTimeoutError>);
  add(typeid(ObjectStoreFullError), &rethrow_as<ObjectStoreFullError>);
  add(typeid(OutOfMemoryError), &rethrow_as<OutOfMemoryError>);
  add(typeid(OutOfDiskError), &rethrow_as<OutOfDiskError>);
  add(typeid(ObjectLostError), &rethrow_as<ObjectLostError>);
  add(typeid(NodeDiedError), &rethrow_as<NodeDiedError>);
  add(typeid(UnschedulableError), &rethrow_as<UnschedulableError>);
  add(typeid(FunctionNotFoundError), &rethrow_as<FunctionNotFoundError>);
  add(typeid(DecodeError), &rethrow_as<DecodeError>);
  add(typeid(LibraryLoadError), &rethrow_as<LibraryLoadError>);
  add(typeid(StreamStopped), &rethrow_as<StreamStopped>);
  add(typeid(PendingCallsLimitError), &rethrow_as<PendingCallsLimitError>);
  add(typeid(ActorNotFoundError), &rethrow_as<ActorNotFoundError>);
  add(typeid(ActorAlreadyExistsError), &rethrow_as<ActorAlreadyExistsError>);
  add(typeid(PlacementGroupRemovedError), &rethrow_as<PlacementGroupRemovedError>);
  add(typeid(std::bad_alloc), [](const std::string&) { throw std::bad_alloc(); });
  add(typeid(int), [](const std::string& text) { throw std::atoi(text.c_str()); });
  add(typeid(std::string), [](const std::string& text) { throw text; });
}

template <class E>
[[noreturn]] void throw_as(const std::string& message) {
  throw E(message);
}

[[noreturn]] void throw_by_code(ErrorCode code, const std::string& message) {
  switch (code) {
    case ErrorCode::kActorDied: throw_as<ActorDiedError>(message);
    case ErrorCode::kActorUnavailable: throw_as<ActorUnavailableError>(message);
    case ErrorCode::kTaskCancelled: throw_as<TaskCancelledError>(message);
    case ErrorCode::kObjectLost: throw_as<ObjectLostError>(message);
    case ErrorCode::kReconstructionFailed: throw_as<ReconstructionFailedError>(message);
    case ErrorCode::kGetTimeout: throw_as<GetTimeoutError>(message);
    case ErrorCode::kObjectStoreFull: throw_as<ObjectStoreFullError>(message);
    case ErrorCode::kOutOfMemory: throw_as<OutOfMemoryError>(message);
    case ErrorCode::kOutOfDisk: throw_as<OutOfDiskError>(message);
    case ErrorCode::kUnschedulable: throw_as<UnschedulableError>(message);
    case ErrorCode::kFunctionNotFound: throw_as<FunctionNotFoundError>(message);
    case ErrorCode::kNodeDied: throw_as<NodeDiedError>(message);
    case ErrorCode::kActorDeadlock: throw_as<ActorDeadlockError>(message);
    case ErrorCode::kAuthentication: throw_as<AuthenticationError>(message);
    case ErrorCode::kVersionMismatch: throw_as<VersionMismatchError>(message);
    case ErrorCode::kPendingCallsLimit: throw_as<PendingCallsLimitError>(message);
    case ErrorCode::kDecode: throw_as<DecodeError>(message);
    case ErrorCode::kLibraryLoad: throw_as<LibraryLoadError>(message);
    case ErrorCode::kStreamStopped: throw_as<StreamStopped>(message);
    case ErrorCode::kActorNotFound: throw_as<ActorNotFoundError>(message);
    case ErrorCode::kActorAlreadyExists: throw_as<ActorAlreadyExistsError>(message);
    case ErrorCode::kDeadlineExceeded: throw_as<DeadlineExceededError>(message);
    case ErrorCode::kPlacementGroupRemoved: throw_as<PlacementGroupRemovedError>(message);
    default: throw Error(message, code);
  }
}

}  // namespace

std::string demangle(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 && text ? text : name;
  std::free(text);
  return result;
}

std::string hex(std::uint64_t a) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, a >>= 4) text[static_cast<std::size_t>(i)] = kDigits[a & 15];
  return text;
}

std::string actor_id(const shm::Memory& memory, const shm::SchedulingClass& actor) {
  return hex(memory.header().session) + hex(actor.creation.load(std::memory_order_acquire));
}

std::string describe_signal(int signal) {
  const char* name = ::sigabbrev_np(signal);
  const char* text = ::sigdescr_np(signal);
  return (name ? "SIG" + std::string(name) : "signal " + std::to_string(signal)) +
         (text ? " (" + std::string(text) + ")" : "");
}

ErrorValue value_of(const Error& error) {
  ErrorValue value;
  value.code = static_cast<std::uint32_t>(error.code());
  value.message = error.what();
  return value;
}

ErrorValue describe_current_exception() {
  ErrorValue error;
  error.code = static_cast<std::uint32_t>(ErrorCode::kTaskError);
  if (const std::type_info* type = abi::__cxa_current_exception_type()) {
    error.mangled_type = type->name();
    error.type_name =
        error.mangled_type == typeid(std::string).name() ? "std::string" : demangle(type->name());
  }
  constexpr char kNoText[] = "an exception that has no text";
  try {
    throw;
  } catch (const std::exception& e) {
    const char* text = e.what();
    error.message = text ? text : kNoText;
  } catch (const std::string& text) {
    error.message = text;
  } catch (const char* text) {
    error.message = text ? text : kNoText;
  } catch (int number) {
    error.message = std::to_string(number);
  } catch (...) {
    error.message = kNoText;
  }
  return error;
}

void throw_error(const ErrorValue& error) {
  const auto code = static_cast<ErrorCode>(error.code);
  if (code != ErrorCode::kTaskError) {
    if (code == ErrorCode::kWorkerCrashed)
      throw WorkerCrashedError(error.message, error.signal, error.exit_code);
    throw_by_code(code, error.message);
  }
  std::exception_ptr cause;
  detail::RethrowAs rethrow = nullptr;
  {
    const std::lock_guard lock(rethrowers_mutex);
    register_standard();
    if (const auto it = rethrowers().find(error.mangled_type); it != rethrowers().end())
      rethrow = it->second;
  }
  if (rethrow) {
    try {
      rethrow(error.message);
    } catch (...) {
      cause = std::current_exception();
    }
  }
  throw TaskError({error.message, error.type_name, error.task_name, error.task_id, error.attempt,
                   error.process_id, error.node_id},
                  cause);
}

namespace {

std::string in_bytes(std::uint32_t mib) {
  if (mib < 10 * 1024) return std::to_string(mib) + " MiB";
  return std::to_string(mib / 1024) + " GiB";
}

// "was killed for want of memory: ..."
std::string describe_want_of_memory(const shm::DeathCause& cause) {
  const std::string limit = in_bytes(cause.limit_mib);
  const std::string used = "was killed for want of memory: it used " + in_bytes(cause.used_mib);
  switch (static_cast<core::MemoryScope>(cause.memory_scope)) {
    case core::MemoryScope::Session:
      return used + ", and the session's workers and actors together more than the " + limit +
             " of Config.memory_limit";
    case core::MemoryScope::ControlGroup:
      return used + ", and all of the control group more than " + limit +
             " (Config.memory_threshold of its limit)";
    case core::MemoryScope::Machine:
      return used + ", and all of the machine more than " + limit +
             " (Config.memory_threshold of its memory)";
    case core::MemoryScope::Kernel: break;
  }
  return "was killed by the kernel, which had no memory left";
}

// How a process ended.
std::string describe_end(const shm::DeathCause& cause, int signal, int exit_code) {
  if (cause.death == shm::Death::OutOfMemory) return describe_want_of_memory(cause);
  if (cause.death == shm::Death::Killed) return "was killed by mobula::kill";
  return signal != 0 ? "was killed by " + describe_signal(signal)
                     : "exited with code " + std::to_string(exit_code);
}

std::string describe_attempts(std::uint32_t attempts) {
  return attempts == 1 ? "it was tried once"
                       : "it was tried " + std::to_string(attempts) + " times";
}

// "actor Counter (id ..) in total -> task sum -> actor Counter (id ..), asked for add"
std::string describe_circle(const shm::Memory& memory, std::uint64_t number) {
  const shm::DeadlockNote& note = memory.header().deadlocks[number % shm::kDeadlocksKept];
  std::string text;
  const bool there = note.number.load(std::memory_order_acquire) == number;
  const std::uint32_t steps = note.steps.load(std::memory_order_relaxed);
  const std::uint32_t listed = std::min(steps, shm::kDeadlockSteps);
  for (std::uint32_t i = 0; i < listed && there; ++i) {
    const shm::DeadlockNote::Step& step = note.step[i];
    const detail::FunctionInfo* function =
        find_function(step.function.load(std::memory_order_relaxed));
    const std::string name(function ? function->name : "(unknown)");
    const bool last = i + 1 == listed;
    if (i > 0) text += last && steps > listed ? " -> .. -> " : " -> ";
    if (step.kind.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(shm::Kind::Task)) {
      text += "task " + name;
      continue;
    }
    const shm::SchedulingClass& cls =
        memory.scheduling_class(step.scheduling_class.load(std::memory_order_relaxed));
    text += describe_actor(memory, cls) + (last ? ", asked for " : " in ") + name;
  }
  std::atomic_thread_fence(std::memory_order_acquire);  // as a seqlock's reader
  if (there && note.number.load(std::memory_order_relaxed) == number) return text;
  return "many such circles were found since, and this one's steps are not kept";
}

}  // namespace

std::string describe_actor(const shm::Memory& memory, const shm::SchedulingClass& cls) {
  const std::string given(cls.given_name);
  return "actor " + std::string(cls.name) + (given.empty() ? "" : " \"" + given + "\"") + " (id " +
         actor_id(memory, cls) + ")";
}

std::string describe_group(const shm::SchedulingClass& cls) {
  const std::string name(cls.group_name);
  return "placement group " + (name.empty() ? "" : "\"" + name + "\" ") + "(id " +
         hex(cls.placement_group) + ")";
}

std::string describe_process(const shm::Memory& memory, std::uint32_t pid) {
  return "process " + std::to_string(pid) + " of node " + hex(memory.header().node);
}

std::string describe_death(const shm::Memory& memory, const shm::DeathCause& cause, int signal,
                           int exit_code, std::uint32_t pid) {
  switch (cause.death) {
    case shm::Death::Killed: return "was killed by mobula::kill";
    case shm::Death::ConstructorFailed:
      return "could not be constructed (get its handle's ready() for the cause)";
    case shm::Death::Left: return "left by itself (mobula::exit_actor)";
    case shm::Death::GroupRemoved: return "was ended with its placement group";
    case shm::Death::OutOfScope: return "has ended, since no handle to it was left";
    case shm::Death::NotStarted:
      return "could not be started: the node has no process, file descriptor or memory left for "
             "its worker (see ulimit -n, ulimit -u)";
    case shm::Death::StateLost:
      return "was ended, since what was kept of its state cannot be used (its output says why)";
    case shm::Death::HostLost:
      return "died: the session that it lived in has ended (its host was killed, or its node)";
    default:
      return "died: its " + describe_process(memory, pid) + " " +
             describe_end(cause, signal, exit_code);
  }
}

void throw_compact(const shm::Memory& memory, const shm::CompactError& error,
                   std::uint64_t function, const std::string& task) {
  const auto code = static_cast<ErrorCode>(error.code);
  // A dependent has a copy of its argument's error, which names the function that it is of.
  const auto origin = [&] {
    const detail::FunctionInfo* of = find_function(error.detail);
    return of && error.detail != function ? std::string(of->name) : task;
  };
  // What the daemon noted of the death; of a task's crash it notes the function instead.
  const auto cause = shm::DeathCause::unpack(code == ErrorCode::kWorkerCrashed ? 0 : error.detail);
  const auto how = [&] { return describe_end(cause, error.signal, error.exit_code); };
  if (code == ErrorCode::kWorkerCrashed) {
    throw WorkerCrashedError(
        "the worker (" + describe_process(memory, error.pid) + ") that ran task " + origin() + " " +
            how() + "; " + describe_attempts(error.attempts) +
            ". Its output is in the session's logs; TaskOptions.max_retries sets how often a task "
            "is tried again",
        error.signal, error.exit_code);
  }
  if (code == ErrorCode::kOutOfMemory && cause.death == shm::Death::OutOfMemory) {
    throw OutOfMemoryError("task " + task + " ran out of memory: its worker (" +
                           describe_process(memory, error.pid) + ") " + how() + "; " +
                           describe_attempts(error.attempts) +
                           ". TaskOptions.memory lets fewer such tasks run at a time, and so does "
                           "a smaller Config.num_cpus");
  }
  if (code == ErrorCode::kActorDied || code == ErrorCode::kActorUnavailable) {
    const shm::SchedulingClass& cls = memory.scheduling_class(error.scheduling_class);
    std::string what = describe_actor(memory, cls) + " ";
    const bool with_group = cause.death == shm::Death::GroupRemoved;
    what +=
        code == ErrorCode::kActorDied
            ? describe_death(memory, cause, error.signal, error.exit_code, error.pid)
            : "is started again, since its " + describe_process(memory, error.pid) + " " + how();
    if (with_group) what += ": " + describe_group(cls) + " was removed";
    const bool meant = cause.death == shm::Death::Left || cause.death == shm::Death::Killed ||
                       cause.death == shm::Death::OutOfScope || with_group;
    what += code == ErrorCode::kActorDied
                ? "; the call " + task + " has no result" +
                      (meant ? "" : ". ActorOptions.max_restarts lets an actor start again")
                : "; the call " + task +
                      " may or may not have run (max_task_retries repeats such calls)";
    throw_by_code(code, what);
  }
  if (code == ErrorCode::kPlacementGroupRemoved) {
    const std::string group =
        describe_group(memory.scheduling_class(error.scheduling_class)) + " was removed";
    throw PlacementGroupRemovedError(
        function == 0
            ? group
            : "task " + origin() + " has no result, since its placement group is gone: " + group);
  }
  if (code == ErrorCode::kFunctionNotFound) {
    throw FunctionNotFoundError("the worker's program has no function with the key " +
                                hex(error.detail) + " (task " + task +
                                "); the workers run another build than the caller");
  }
  if (code == ErrorCode::kTaskCancelled && error.detail != 0) {
    throw TaskCancelledError("task " + origin() + " was cancelled, and task " + task +
                             " needs its value");
  }
  if (code == ErrorCode::kDeadlineExceeded) {
    throw DeadlineExceededError("task " + origin() + " had not ended by its deadline, and task " +
                                task + " needs its value");
  }
  if (code == ErrorCode::kActorDeadlock) {
    throw ActorDeadlockError("a call can never run, since calls wait for each other: " +
                             describe_circle(memory, error.detail) +
                             ". Let a method return the Ref instead of getting it");
  }
  throw_by_code(code, "task " + task + " failed");
}

void throw_node_died() {
  Process* const process = current_process();  // none while it joins
  throw NodeDiedError("the daemon of the node " +
                      (process ? hex(process->memory().header().node) + " " : std::string()) +
                      "has ended; its tasks, actors and objects are lost. Start a new session");
}

}  // namespace runtime

TaskError::TaskError(Origin origin, std::exception_ptr cause)
    : Error("task " + origin.task_name + " (id " + origin.task_id + ", attempt " +
                std::to_string(origin.attempt + 1) + ", process " +
                std::to_string(origin.process_id) + " of node " + origin.node_id + ") threw " +
                origin.type_name + ": " + origin.message,
            ErrorCode::kTaskError),
      origin_(std::make_shared<const Origin>(std::move(origin))),
      cause_(std::move(cause)) {}

void TaskError::rethrow_cause() const {
  if (cause_) std::rethrow_exception(cause_);
  throw TaskError(*this);
}

namespace detail {

void register_exception(const char* mangled_name, RethrowAs rethrow) {
  const std::lock_guard lock(runtime::rethrowers_mutex);
  runtime::rethrowers()[mangled_name] = rethrow;
}

void throw_decode_error(const char* what) {
  throw DecodeError(std::string("bytes do not make the value asked for: ") + what);
}

}  // namespace detail
}  // namespace mobula
