// Values of the object store and of tasks: put, get, get_view, wait.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/error.h"
#include "mobula/options.h"
#include "mobula/ref.h"
#include "mobula/result.h"
#include "mobula/view.h"

namespace mobula {

namespace detail {

template <class T>
T decode_result(const Bytes& bytes) {
  if constexpr (!std::is_void_v<T>) {
    static_assert(!std::is_same_v<T, Buffer>,
                  "mobula: a Ref<Buffer> is read by get_view, in place");
    if constexpr (!std::is_same_v<T, Buffer>) {
      Reader reader(bytes.data, bytes.size);
      return decode<T>(reader);
    } else {
      __builtin_unreachable();  // one error is enough
    }
  }
}

inline std::optional<Duration> optional_timeout(Duration timeout) { return timeout; }

// Made of everything, but by a conversion, so that whoever else takes it comes first; and makes
// everything, so that what is made of it is no error, too.
struct Anything {
  template <class T>
  Anything(const T&);
  template <class T>
  operator T() const;
};

}  // namespace detail

// Stores a value; the ref can be an argument of any number of tasks. Values up to 32 bytes live in
// the ref's record, larger ones in shared memory. Throws ObjectStoreFullError at once if it can
// never fit, after a grace time if the store stays full.
template <class V>
auto put(const V& value) {
  using T = std::remove_cvref_t<V>;
  static_assert(!detail::kIsRef<T>,
                "mobula: put of a Ref; put it inside of a struct or vector if that is meant");
  const auto encode_value = [&value](Writer& writer) { encode<T>(writer, value); };
  alignas(8) std::byte small[64];
  small[0] = {};  // an empty value writes nothing, and compilers warn of passing that on
  Writer writer(small, sizeof small);
  encode_value(writer);
  return Ref<T>::own(detail::put_encoded(
      writer, small,
      [](void* context, Writer& again) {
        (*static_cast<const decltype(encode_value)*>(context))(again);
      },
      const_cast<void*>(static_cast<const void*>(&encode_value))));
}
inline Ref<std::string> put(const char* text) { return put(std::string(text)); }

// Stores bytes. One copy.
inline Ref<Buffer> put_buffer(std::span<const std::byte> bytes) {
  Buffer buffer = create_buffer(bytes.size());
  if (!bytes.empty()) std::memcpy(buffer.data(), bytes.data(), bytes.size());
  return buffer.seal();
}

// Waits for the value. Throws what the task threw as TaskError, WorkerCrashedError and so on;
// GetTimeoutError when the time is over (0: only look; negative: Error). In a task, waiting gives
// the CPU to others.
template <class T>
T get(const Ref<T>& ref) {
  return detail::decode_result<T>(detail::get_bytes(ref.address(), ref.session(), std::nullopt));
}
template <class T>
T get(const Ref<T>& ref, Duration timeout) {
  return detail::decode_result<T>(detail::get_bytes(ref.address(), ref.session(), timeout));
}

// All values, in order. The first failure in that order is thrown.
template <class T>
  requires(!std::is_void_v<T>)
std::vector<T> get(const std::vector<Ref<T>>& refs) {
  std::vector<T> values;
  values.reserve(refs.size());
  for (const Ref<T>& ref : refs) values.push_back(get(ref));
  return values;
}
inline void get(const std::vector<Ref<void>>& refs) {
  for (const Ref<void>& ref : refs) get(ref);
}

// What is no ref: one error says so, instead of a line for each get() that there is. The result is
// deduced so that this error is the first.
template <class Never = void>
auto get(const detail::Anything& what, ...) {
  static_assert(!std::is_same_v<Never, Never>,
                "mobula: get takes a Ref or a MeshRef, each also with a timeout, or a vector of "
                "Refs. A StreamRef is read by next() or a range-for");
  return what;
}

// Calls fn(value) with the value of each ref, in their order, one at a time: for many values that
// would not fit into memory together. What was spilled to disk is brought back ahead, while fn
// works on those before. Waits for each value; the first failure in their order is thrown, and so
// is what fn throws: then the rest is left alone.
template <class T, class F>
  requires std::is_invocable_v<F&, T>
void get_each(const std::vector<Ref<T>>& refs, F&& fn, GetEachOptions options = {}) {
  detail::ReadAhead values(detail::handles(refs), options.memory_budget);
  for (std::size_t i = 0; i < refs.size(); ++i) fn(detail::decode_result<T>(values.next()));
}

// Like get, but errors come as a value.
template <class T>
Result<T> try_get(const Ref<T>& ref, std::optional<Duration> timeout = {}) {
  try {
    if constexpr (std::is_void_v<T>) {
      detail::get_bytes(ref.address(), ref.session(), timeout);
      return {};
    } else {
      return detail::decode_result<T>(detail::get_bytes(ref.address(), ref.session(), timeout));
    }
  } catch (const Error&) {
    return Result<T>::failure(std::current_exception());
  }
}

// The elements in place, read-only: for vectors of plain data, strings and buffers. No copy.
template <class T>
  requires detail::Viewable<T>
auto get_view(const Ref<T>& ref, std::optional<Duration> timeout = {}) {
  using Element = typename detail::ViewElement<T>::type;
  detail::Bytes bytes = detail::get_bytes(ref.address(), ref.session(), timeout);
  Reader reader(bytes.data, bytes.size);
  const std::span<const Element> elements = decode_span<Element>(reader);
  detail::retain(ref.address());
  return View<Element>(Ref<Buffer>::own(ref.address()), std::move(bytes.pin), elements);
}

template <class T>
struct WaitResult {
  std::vector<Ref<T>> ready;
  std::vector<Ref<T>> pending;
};

namespace detail {

// Moves the elements with these numbers (ascending) out of the vector. The rest moves up by its
// bytes: element by element, a thousand refs would take as long as five tasks.
template <class T>
std::vector<Ref<T>> take_out(std::vector<Ref<T>>& refs, std::span<const std::size_t> numbers) {
  std::vector<Ref<T>> taken;
  if (numbers.empty()) return taken;
  taken.reserve(numbers.size());
  for (const std::size_t i : numbers) taken.push_back(std::move(refs[i]));
  RefHandle* const all = handles(refs).data();
  RefHandle* to = all + numbers.front();
  for (std::size_t k = 0; k < numbers.size(); ++k) {
    const std::size_t end = k + 1 < numbers.size() ? numbers[k + 1] : refs.size();
    to = std::copy(all + numbers[k] + 1, all + end, to);
  }
  // what is left at the end was moved: it counts for nothing any more
  std::fill(to, all + refs.size(), RefHandle{});
  refs.resize(refs.size() - numbers.size());
  return taken;
}

}  // namespace detail

// Waits until num_returns of the refs have a value (or an error), and parts them, order kept;
// `ready` has at most num_returns. Throws Error: num_returns is 0 or above the number of refs, a
// ref occurs twice or is empty, the timeout is negative; the refs stay as they are then.
//
// A loop that takes refs as they come should move them in: each is then neither copied nor dropped.
//   auto [ready, rest] = wait(std::move(pending));
//   pending = std::move(rest);
template <class T>
WaitResult<T> wait(std::vector<Ref<T>>&& refs, WaitOptions options = {}) {
  const std::vector<std::size_t> ready =
      detail::wait_refs(detail::handles(refs), options.num_returns, options.timeout);
  std::vector<Ref<T>> taken = detail::take_out(refs, ready);
  return {std::move(taken), std::move(refs)};
}
template <class T>
WaitResult<T> wait(const std::vector<Ref<T>>& refs, WaitOptions options = {}) {
  const std::vector<std::size_t> ready =
      detail::wait_refs(detail::handles(refs), options.num_returns, options.timeout);
  WaitResult<T> result;
  result.ready.reserve(ready.size());
  result.pending.reserve(refs.size() - ready.size());
  auto next_ready = ready.begin();
  for (std::size_t i = 0; i < refs.size(); ++i) {
    const bool is_ready = next_ready != ready.end() && *next_ready == i;
    if (is_ready) ++next_ready;
    (is_ready ? result.ready : result.pending).push_back(refs[i]);
  }
  return result;
}

}  // namespace mobula
