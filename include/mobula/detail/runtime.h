// The narrow door between the templates of the public headers and the library behind them. Not for
// users.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include "mobula/codec.h"
#include "mobula/detail/ref_address.h"

namespace mobula {

struct TaskOptions;
struct ActorOptions;
struct CallOptions;
using Duration = std::chrono::nanoseconds;

namespace detail {

// ---- Functions of the program, by key.

class Execution;
using Invoke = void (*)(Execution&);

struct FunctionInfo {
  std::uint64_t key = 0;
  std::string_view name;
  Invoke invoke = nullptr;
};

constexpr std::uint64_t hash_text(std::string_view text, std::uint64_t hash = 0xcbf29ce484222325u) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Makes a function known under its key; two different functions with one key end the program with a
// message. `identity` is the mangled name of a type that is different for each function; `file`
// tells apart those with internal linkage.
FunctionInfo register_function(const char* identity, const char* file, std::string_view name,
                               Invoke invoke);

std::vector<std::string> own_arguments();  // of this program's start, its name first

// ---- Lifetimes.

// All that a Ref<T> consists of, whatever T: an array of refs is read as an array of these. Who
// moves one by its bytes moves what it counts for.
struct RefHandle {
  RefAddress address;
  std::uint64_t session = 0;  // 0: empty
};

void retain(RefAddress address);  // one more ref in this process
void release(RefAddress address) noexcept;  // one less
void retain(const RefHandle& handle);  // the same, unless its session is over
void release(const RefHandle& handle) noexcept;
void adopt_decoded(RefAddress address);  // a ref came out of bytes: like retain, but the process
                                         // may not hold it yet
std::uint64_t current_session() noexcept;  // 0: none
// Throws Error unless the ref is of the running session.
void check_ref(RefAddress address, std::uint64_t session);

// ---- Submitting.

using EncodeAgain = void (*)(void* context, Writer& writer);

struct Call {
  const FunctionInfo* function = nullptr;
  const TaskOptions* options = nullptr;  // nullptr: the defaults
  const RefAddress* waits_for = nullptr;  // refs whose values are arguments
  std::size_t waits_for_count = 0;
  std::uint32_t* stream = nullptr;  // not nullptr: it is a producer, and this gets its stream
};

// `writer` holds the encoded arguments, if they fit; otherwise encode_again writes them into a
// buffer of writer.size().
RefAddress submit_task(const Call& call, const Writer& writer, const std::byte* bytes,
                       EncodeAgain encode_again, void* context);
// Returns the address of the creation record; the scheduling class of the actor comes with it.
struct ActorAddress {
  RefAddress creation;
  std::uint32_t actor_class = 0xffffffff;
};
ActorAddress submit_actor(const Call& call, const ActorOptions* options, std::string_view type,
                          const Writer& writer, const std::byte* bytes, EncodeAgain encode_again,
                          void* context);
// This program has joined a node that goes on after it, where actors can be detached.
bool node_stays();
RefAddress submit_call(const Call& call, const CallOptions* options, ActorAddress actor,
                       const Writer& writer, const std::byte* bytes, EncodeAgain encode_again,
                       void* context);
RefAddress put_encoded(const Writer& writer, const std::byte* bytes, EncodeAgain encode_again,
                       void* context);
// Actors by name: see mobula/actor.h. The address comes with one count.
void check_actor_name(std::string_view name, const char* what);
ActorAddress find_actor(std::string_view name, std::string_view space, std::string_view type);
// `absent`: when it throws, whether no actor has the name; otherwise one of another class has it.
ActorAddress find_actor(std::string_view name, std::string_view space, std::string_view type,
                        bool& absent);
RefAddress monitor_actor(ActorAddress actor, std::uint64_t session);
void kill_actor(ActorAddress actor, std::uint64_t session, bool no_restart);
bool cancel_task(RefAddress address, std::uint64_t session, bool force, bool recursive);

// ---- Getting.

// Keeps an extent of the store in memory while it is read or written; copies count, too.
class Pin {
 public:
  static constexpr std::uint32_t kNothing = 0xffffffff;

  Pin() = default;
  // Takes over a pin that was counted.
  Pin(std::uint64_t session, std::uint32_t extent) noexcept : session_(session), extent_(extent) {}
  Pin(const Pin& other) noexcept : session_(other.session_), extent_(other.extent_) {
    if (extent_ != kNothing) again();
  }
  Pin(Pin&& other) noexcept
      : session_(other.session_), extent_(std::exchange(other.extent_, kNothing)) {}
  Pin& operator=(Pin other) noexcept {
    std::swap(session_, other.session_);
    std::swap(extent_, other.extent_);
    return *this;
  }
  ~Pin() {
    if (extent_ != kNothing) drop();
  }

 private:
  void again() const noexcept;
  void drop() const noexcept;

  std::uint64_t session_ = 0;
  std::uint32_t extent_ = kNothing;
};

// A value in place, valid while a ref is held and the pin lives.
struct Bytes {
  const std::byte* data = nullptr;
  std::size_t size = 0;
  Pin pin = {};
};
// Waits for the record and returns its value. Throws what the task threw, or GetTimeoutError.
Bytes get_bytes(RefAddress address, std::uint64_t session, std::optional<Duration> timeout);

// Values of many refs in their order, those behind the next one brought back from disk ahead.
class ReadAhead {
 public:
  // The refs must outlive it. `budget`: bytes of values that it pins at once.
  ReadAhead(std::span<const RefHandle> refs, std::uint64_t budget)
      : refs_(refs), budget_(budget), pinned_(refs.size()) {}
  // Of the next ref, once that is final; throws its error, and goes on with the one behind it then.
  Bytes next();

 private:
  struct Pinned {
    std::uint64_t size = 0;
    Pin pin = {};
  };
  void look_ahead();

  std::span<const RefHandle> refs_;
  std::uint64_t budget_;
  std::size_t next_ = 0;
  std::size_t ahead_ = 0;  // the first that is not pinned
  std::uint64_t pinned_bytes_ = 0;
  std::vector<Pinned> pinned_;  // from next_ to ahead_
};

// The numbers of the first refs found final, ascending, once there are num_returns of them or the
// time is over. Throws Error for what wait() refuses.
std::vector<std::size_t> wait_refs(std::span<const RefHandle> refs, std::size_t num_returns,
                                   std::optional<Duration> timeout);

// The record has its result or its error. Of a ref of the running session.
bool is_final(RefAddress address);

// ---- Streams.

struct StreamAddress {
  RefAddress producer;
  std::uint32_t stream = 0;
};

// What a Sink is without its type. Numbers count all items that ever went through the stream.
struct SinkState {
  std::uint32_t stream = 0;
  std::uint64_t next = 0;  // number of the item that is pushed next
  std::uint64_t pushed = 0;  // those before it were pushed by an attempt that died
  std::uint64_t oldest = 0;  // all before it have been read, as far as we know
  std::uint64_t unread_bytes = 0;  // of stored items from there on
};
// Waits for room. Throws StreamStopped, TaskCancelledError, and what put throws.
void push_item(SinkState& sink, const Writer& writer, const std::byte* bytes,
               EncodeAgain encode_again, void* context);

// An item that was taken, where it lies; no other reader gets it. Given back with what it holds
// when it goes.
class TakenItem {
 public:
  TakenItem() = default;
  TakenItem(std::uint32_t stream, std::uint64_t number) : stream_(stream), number_(number) {}
  TakenItem(const TakenItem&) = delete;
  TakenItem& operator=(TakenItem&& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(number_, other.number_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(pin_, other.pin_);
    return *this;
  }
  ~TakenItem() {
    if (stream_ != kNone) give_back();
  }
  Reader reader() const { return Reader(data_, size_); }

 private:
  friend bool take_item(StreamAddress address, std::uint64_t session,
                        std::optional<Duration> timeout, TakenItem& item);
  static constexpr std::uint32_t kNone = 0xffffffff;
  void give_back() noexcept;

  std::uint32_t stream_ = kNone;
  std::uint64_t number_ = 0;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  Pin pin_;
};
// Waits for the next item. False: there will be none. Throws the producer's error once all items
// before it are taken, and GetTimeoutError.
bool take_item(StreamAddress stream, std::uint64_t session, std::optional<Duration> timeout,
               TakenItem& item);
void stop_stream(StreamAddress stream, std::uint64_t session);

// ---- Writable objects.

struct OpenBuffer {
  std::byte* data = nullptr;
  std::uint64_t size = 0;
  std::uint64_t session = 0;
  std::uint64_t place[2] = {};  // the library's
  Pin pin = {};
};
OpenBuffer open_buffer(std::uint64_t size);
RefAddress seal_buffer(OpenBuffer& buffer);
void abandon_buffer(OpenBuffer& buffer) noexcept;

// ---- Calls that are answered apart from their method's return (reply.h).

struct OpenCall;
// These answer at most once; later answers are ignored. They throw only when this thread cannot
// join the session.
void answer(OpenCall* call, const Writer& writer, const std::byte* bytes, EncodeAgain encode_again,
            void* context);
void answer_with_error(OpenCall* call, const std::exception_ptr& error);
void drop_unanswered(OpenCall* call) noexcept;  // and lets it go
void let_go(OpenCall* call) noexcept;
bool is_cancelled(const OpenCall* call);
[[noreturn]] void throw_no_reply();

// ---- The state of actors.

// How objects of an actor's class become bytes and are made from them again.
struct StateCodec {
  std::uint64_t type = 0;  // hash of the class's name
  void (*save)(const void* instance, Writer& writer) = nullptr;
  // Returns the object with the state: the given one, or another one in its place.
  void* (*load)(void* instance, Reader& reader) = nullptr;
};
// Throws Error: the class cannot be saved.
[[noreturn]] void refuse_to_save(std::string_view type);
void ask_for_checkpoint();

// ---- Executing: what an invoker sees of the task it runs.

enum class ArgumentTag : std::uint8_t { Value, Ref, Refs };

class Execution {
 public:
  // The next argument's bytes: the value itself, or the value of the ref that was passed for it.
  // May be called once for each parameter, in order; the reader is valid until the next call.
  Reader& argument();
  // Before argument(): was a vector of refs passed for the next parameter? Then how many; each
  // one's value is read by element(), in order, instead of argument().
  std::optional<std::size_t> elements();
  Reader& element();
  // The object that argument() has just read, held and pinned once more; none if the argument was a
  // value.
  struct Object {
    RefAddress address;
    Pin pin;
  };
  std::optional<Object> argument_object();

  template <class Encode>
  void result(const Encode& encode) {
    alignas(8) std::byte small[kSmall];
    small[0] = {};
    Writer writer(small, kSmall);
    encode(writer);
    finish(
        writer, small,
        [](void* context, Writer& again) { (*static_cast<const Encode*>(context))(again); },
        const_cast<void*>(static_cast<const void*>(&encode)));
  }

  // The call is answered by what this returns, not by result(). After all arguments were read.
  OpenCall* open_call();
  SinkState open_sink();  // of the producer's stream

  // The actor's object; set by its creation. `codec`: nullptr if it cannot be saved.
  static void* instance();
  static void set_instance(void* instance, void (*destroy)(void*),
                           const StateCodec* codec = nullptr);

 private:
  friend class Worker;
  friend struct ExecutionAccess;
  static constexpr std::size_t kSmall = 64;

  void finish(const Writer& writer, const std::byte* bytes, EncodeAgain encode_again,
              void* context);
  void* state_ = nullptr;
};

}  // namespace detail
}  // namespace mobula
