// What can go wrong, as types: everything Mobula throws derives from mobula::Error.
//
// A message says what happened, to which task or actor (name, id, node), and what the user can
// do about it.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <typeinfo>
#include <utility>

namespace mobula {

enum class ErrorCode : std::uint32_t {
  kNone,
  kError,             // misuse of the API, or no session
  kTaskError,
  kWorkerCrashed,
  kActorDied,
  kActorUnavailable,
  kTaskCancelled,
  kObjectLost,
  kReconstructionFailed,
  kGetTimeout,
  kObjectStoreFull,
  kOutOfMemory,
  kOutOfDisk,
  kUnschedulable,
  kFunctionNotFound,
  kNodeDied,
  kActorDeadlock,
  kAuthentication,
  kVersionMismatch,
  kPendingCallsLimit,
  kDecode,
  kLibraryLoad,
  kStreamStopped,
  kActorNotFound,
  kActorAlreadyExists,
  kDeadlineExceeded,
  kPlacementGroupRemoved,
};

class Error : public std::exception {
 public:
  explicit Error(std::string what, ErrorCode code = ErrorCode::kError)
      : what_(std::move(what)), code_(code) {}
  const char* what() const noexcept override { return what_.c_str(); }
  ErrorCode code() const noexcept { return code_; }
  // For who passes it on and knows more of where it happened: what() begins with `context`.
  void add_context(const std::string& context) { what_ = context + ": " + what_; }

 private:
  std::string what_;
  ErrorCode code_;
};

// A task or actor method threw. The exception travels as a value and is thrown again where its
// result is asked for.
class TaskError : public Error {
 public:
  struct Origin {
    std::string message;    // the exception's what(), or a description where it has none
    std::string type_name;  // of the exception: "std::runtime_error", "int"
    std::string task_name;  // function, method, or TaskOptions.name
    std::string task_id;    // 32 hexadecimal digits
    std::uint32_t attempt = 0;  // 0: the first
    std::uint32_t process_id = 0;  // of the worker
    std::string node_id;  // as NodeInfo.node_id
  };
  explicit TaskError(Origin origin, std::exception_ptr cause = nullptr);

  const std::string& message() const noexcept { return origin_->message; }
  const std::string& type_name() const noexcept { return origin_->type_name; }
  const std::string& task_name() const noexcept { return origin_->task_name; }
  const std::string& task_id() const noexcept { return origin_->task_id; }
  std::uint32_t attempt() const noexcept { return origin_->attempt; }
  std::uint32_t process_id() const noexcept { return origin_->process_id; }
  const std::string& node_id() const noexcept { return origin_->node_id; }

  // Throws the cause in its own type where that is known here: the standard exceptions that have a
  // message, Mobula's errors that have nothing else, int, std::string, and what
  // register_exception<E>() named. Otherwise throws this TaskError.
  [[noreturn]] void rethrow_cause() const;

 private:
  std::shared_ptr<const Origin> origin_;  // exceptions are copied while they are thrown
  std::exception_ptr cause_;
};

class TaskCancelledError : public Error {
 public:
  explicit TaskCancelledError(std::string what, ErrorCode code = ErrorCode::kTaskCancelled)
      : Error(std::move(what), code) {}
};

#define MOBULA_ERROR(Name, code)                                                 \
  class Name : public Error {                                                    \
   public:                                                                       \
    explicit Name(std::string what) : Error(std::move(what), ErrorCode::code) {} \
  };

MOBULA_ERROR(ActorDiedError, kActorDied)
MOBULA_ERROR(ActorUnavailableError, kActorUnavailable)
MOBULA_ERROR(ObjectLostError, kObjectLost)
MOBULA_ERROR(ReconstructionFailedError, kReconstructionFailed)
MOBULA_ERROR(GetTimeoutError, kGetTimeout)
MOBULA_ERROR(ObjectStoreFullError, kObjectStoreFull)
MOBULA_ERROR(OutOfMemoryError, kOutOfMemory)
MOBULA_ERROR(OutOfDiskError, kOutOfDisk)
MOBULA_ERROR(UnschedulableError, kUnschedulable)
MOBULA_ERROR(FunctionNotFoundError, kFunctionNotFound)
MOBULA_ERROR(NodeDiedError, kNodeDied)
MOBULA_ERROR(ActorDeadlockError, kActorDeadlock)
MOBULA_ERROR(AuthenticationError, kAuthentication)
MOBULA_ERROR(VersionMismatchError, kVersionMismatch)
MOBULA_ERROR(PendingCallsLimitError, kPendingCallsLimit)
MOBULA_ERROR(StreamStopped, kStreamStopped)  // push: nobody reads the stream any more
MOBULA_ERROR(DecodeError, kDecode)  // bytes that do not make a value of the type asked for
MOBULA_ERROR(LibraryLoadError, kLibraryLoad)  // of Config.code_search_path
MOBULA_ERROR(ActorNotFoundError, kActorNotFound)  // no living actor of that name and class
MOBULA_ERROR(ActorAlreadyExistsError, kActorAlreadyExists)  // its name is another one's
MOBULA_ERROR(PlacementGroupRemovedError, kPlacementGroupRemoved)  // with the task that was in it
#undef MOBULA_ERROR

// The task had not ended by its deadline, or one whose value it needs; so it was cancelled.
class DeadlineExceededError : public TaskCancelledError {
 public:
  explicit DeadlineExceededError(std::string what)
      : TaskCancelledError(std::move(what), ErrorCode::kDeadlineExceeded) {}
};

// The worker that ran the task died, and no retries were left.
class WorkerCrashedError : public Error {
 public:
  WorkerCrashedError(std::string what, int signal, int exit_code)
      : Error(std::move(what), ErrorCode::kWorkerCrashed), signal_(signal), exit_code_(exit_code) {}
  int signal() const noexcept { return signal_; }  // 0: it exited
  int exit_code() const noexcept { return exit_code_; }  // meaningful when signal() is 0

 private:
  int signal_;
  int exit_code_;
};

namespace detail {
using RethrowAs = void (*)(const std::string& message);
void register_exception(const char* mangled_name, RethrowAs rethrow);
}  // namespace detail

// Lets TaskError::rethrow_cause throw E, of which only the text travels, in its own type:
// E(std::string). Before the get.
template <class E>
void register_exception() {
  detail::register_exception(typeid(E).name(),
                             [](const std::string& message) { throw E(message); });
}

}  // namespace mobula
