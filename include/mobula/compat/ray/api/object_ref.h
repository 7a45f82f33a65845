// Ray's exceptions and ObjectRef; Put, Get and Wait.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstring>
#include <exception>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/mobula.h"
#include "serialize.h"

namespace ray {
namespace internal {

class RayException : public std::exception {
 public:
  RayException(const std::string& msg) : msg_(msg) {}
  const char* what() const noexcept override { return msg_.c_str(); }
  std::string msg_;
};
class RayActorException : public RayException {
  using RayException::RayException;
};
class RayTaskException : public RayException {
  using RayException::RayException;
};
class RayWorkerException : public RayException {
  using RayException::RayException;
};
class UnreconstructableException : public RayException {
  using RayException::RayException;
};
class RayFunctionNotFound : public RayException {
  using RayException::RayException;
};
class RayRuntimeEnvException : public RayException {
  using RayException::RayException;
};
class RayTimeoutException : public RayException {
  using RayException::RayException;
};

[[noreturn]] inline void throw_as_ray(const mobula::Error& error) {
  using mobula::ErrorCode;
  const std::string what = error.what();
  // ray::ExitActor() ends the call by this exception.
  const auto* task = dynamic_cast<const mobula::TaskError*>(&error);
  if (task && task->type_name() == "mobula::ActorDiedError") throw RayActorException(what);
  switch (error.code()) {
    case ErrorCode::kTaskError: throw RayTaskException(what);
    case ErrorCode::kActorDied:
    case ErrorCode::kActorUnavailable:
    case ErrorCode::kActorDeadlock: throw RayActorException(what);
    case ErrorCode::kWorkerCrashed:
    case ErrorCode::kOutOfMemory: throw RayWorkerException(what);
    case ErrorCode::kObjectLost:
    case ErrorCode::kReconstructionFailed: throw UnreconstructableException(what);
    case ErrorCode::kFunctionNotFound: throw RayFunctionNotFound(what);
    case ErrorCode::kGetTimeout: throw RayTimeoutException(what);
    default: throw RayException(what);
  }
}

// Runs it; Mobula's errors leave as Ray's.
template <class Body>
decltype(auto) translated(const Body& body) {
  try {
    return body();
  } catch (const mobula::Error& error) {
    throw_as_ray(error);
  }
}

// Bytes of a handle as Ray's IDs are: not for printing.
inline std::string id_of(const mobula::RefAddress& address, std::uint64_t session) {
  if (session == 0) return {};
  std::string id(sizeof address + sizeof session, '\0');
  std::memcpy(id.data(), &address, sizeof address);
  std::memcpy(id.data() + sizeof address, &session, sizeof session);
  return id;
}

inline std::optional<mobula::Duration> timeout_of(int timeout_ms) {
  if (timeout_ms < 0) return std::nullopt;
  return std::chrono::milliseconds(timeout_ms);
}

// Why something will never run, where Ray lets it wait for ever: its demand exceeds the cluster.
using NeverRuns = std::shared_ptr<const std::string>;

}  // namespace internal

// Counted: what it names lives as long as one exists, also inside of values.
template <typename T>
class ObjectRef {
 public:
  ObjectRef() = default;
  explicit ObjectRef(mobula::Ref<T> ref) : ref_(std::move(ref)) {}
  explicit ObjectRef(internal::NeverRuns why) : never_runs_(std::move(why)) {}
  static bool IsObjectRef() { return true; }

  bool operator==(const ObjectRef& other) const { return ref_ == other.ref_; }
  std::string ID() const { return internal::id_of(ref_.address(), ref_.session()); }

  // Throw RayException and its kin. timeout_ms: -1: for ever.
  auto Get() const { return Get(-1); }
  auto Get(const int& timeout_ms) const {
    return internal::translated([&] {
      if (never_runs_) wait_in_vain(timeout_ms);
      const auto timeout = internal::timeout_of(timeout_ms);
      if constexpr (std::is_void_v<T>) {
        timeout ? mobula::get(ref_, *timeout) : mobula::get(ref_);
      } else {
        return std::make_shared<T>(timeout ? mobula::get(ref_, *timeout) : mobula::get(ref_));
      }
    });
  }

  // For the library.
  const mobula::Ref<T>& ref() const {
    if (never_runs_) throw internal::RayException(*never_runs_);
    return ref_;
  }
  bool never_runs() const { return never_runs_ != nullptr; }

 private:
  [[noreturn]] void wait_in_vain(int timeout_ms) const {
    if (timeout_ms < 0) throw internal::RayException(*never_runs_);
    std::this_thread::sleep_for(std::chrono::milliseconds(timeout_ms));
    throw internal::RayTimeoutException(*never_runs_);
  }

  mobula::Ref<T> ref_;
  internal::NeverRuns never_runs_;
};

template <typename T>
class WaitResult {
 public:
  std::list<ObjectRef<T>> ready;
  std::list<ObjectRef<T>> unready;
};

template <typename T>
ObjectRef<T> Put(const T& obj) {
  return internal::translated([&] { return ObjectRef<T>(mobula::put(obj)); });
}

template <typename T>
auto Get(const ObjectRef<T>& object) {
  return object.Get();
}
template <typename T>
auto Get(const ObjectRef<T>& object, const int& timeout_ms) {
  return object.Get(timeout_ms);
}

// The timeout is for all of them together.
template <typename T>
std::vector<std::shared_ptr<T>> Get(const std::vector<ObjectRef<T>>& objects,
                                    const int& timeout_ms) {
  using namespace std::chrono;
  const auto end = steady_clock::now() + milliseconds(timeout_ms);
  std::vector<std::shared_ptr<T>> values;
  values.reserve(objects.size());
  for (const ObjectRef<T>& object : objects) {
    const auto left = duration_cast<milliseconds>(end - steady_clock::now()).count();
    values.push_back(object.Get(timeout_ms < 0 ? -1 : static_cast<int>(left > 0 ? left : 0)));
  }
  return values;
}
template <typename T>
std::vector<std::shared_ptr<T>> Get(const std::vector<ObjectRef<T>>& objects) {
  return Get<T>(objects, -1);
}

template <typename T>
WaitResult<T> Wait(const std::vector<ObjectRef<T>>& objects, int num_objects, int timeout_ms) {
  return internal::translated([&] {
    if (num_objects < 1 || static_cast<std::size_t>(num_objects) > objects.size())
      throw internal::RayException(
          "Wait: num_objects is neither 1 nor up to the number of objects");
    std::vector<mobula::Ref<T>> refs;  // of what can become ready at all
    std::vector<std::size_t> numbers;
    for (std::size_t i = 0; i < objects.size(); ++i) {
      if (objects[i].never_runs()) continue;
      refs.push_back(objects[i].ref());
      numbers.push_back(i);
    }
    const auto wanted = static_cast<std::size_t>(num_objects);
    if (wanted > refs.size() && timeout_ms < 0)
      throw internal::RayException(
          "Wait: some objects can never be ready, and there is no timeout");
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::size_t> ready;
    if (!refs.empty()) {
      ready =
          mobula::detail::wait_refs(mobula::detail::handles(refs), std::min(wanted, refs.size()),
                                    internal::timeout_of(timeout_ms));
    }
    if (wanted > refs.size())
      std::this_thread::sleep_until(start + std::chrono::milliseconds(timeout_ms));
    std::vector<bool> is_ready(objects.size());
    for (const std::size_t i : ready) is_ready[numbers[i]] = true;
    WaitResult<T> result;
    for (std::size_t i = 0; i < objects.size(); ++i)
      (is_ready[i] ? result.ready : result.unready).push_back(objects[i]);
    return result;
  });
}

}  // namespace ray

// A ref inside of a value is that ref, and keeps what it names alive.
template <class T>
struct mobula::codec<ray::ObjectRef<T>> {
  static void encode(Writer& writer, const ray::ObjectRef<T>& ref) {
    codec<Ref<T>>::encode(writer, ref.ref());
  }
  static ray::ObjectRef<T> decode(Reader& reader) {
    return ray::ObjectRef<T>(codec<Ref<T>>::decode(reader));
  }
};
