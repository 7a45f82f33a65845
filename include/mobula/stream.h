// Streams: values of a task or call that are read while it still makes them.
//
//   void numbers(mobula::Sink<int>& out, int n) {
//     for (int i = 0; i < n; ++i) out.push(i);
//   }
//   mobula::StreamRef<int> stream = mobula::remote<numbers>(1000);
//   for (const int i : stream) use(i);
//
// How far a stream was read is a property of the stream, not of the StreamRef: copies of it, in
// other tasks and actors, too, share the items out among them, and no item is read twice. A reader
// that dies takes the items with it that it had taken; one that is run again goes on with the next.
//
// A producer that dies and is tried again runs from its start. What it pushed before is known by
// its number and not pushed again, so that readers see neither gap nor double, provided that it
// makes the same items in the same order.
#pragma once

#include <cstddef>
#include <exception>
#include <iterator>
#include <optional>
#include <type_traits>
#include <utility>

#include "mobula/detail/call.h"
#include "mobula/ref.h"
#include "mobula/result.h"

namespace mobula {

// The first parameter of a function or method that returns nothing makes it a producer. Valid until
// the function returns; for its own thread only.
template <class T>
class Sink {
 public:
  explicit Sink(detail::SinkState state) : state_(state) {}
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  // The next item of the stream. Waits while too much lies unread (TaskOptions.max_unread), and
  // gives the CPU to others meanwhile. Throws StreamStopped when a reader has stopped the stream or
  // no StreamRef is left anywhere (a producer may let it through: then it ends well), and what put
  // throws.
  void push(const T& item) {
    if (state_.next < state_.pushed) {
      ++state_.next;
      return;
    }
    const auto encode_item = [&item](Writer& writer) { encode<T>(writer, item); };
    alignas(8) std::byte small[64];
    small[0] = {};
    Writer writer(small, sizeof small);
    encode_item(writer);
    detail::push_item(
        state_, writer, small,
        [](void* context, Writer& again) {
          (*static_cast<const decltype(encode_item)*>(context))(again);
        },
        const_cast<void*>(static_cast<const void*>(&encode_item)));
  }

 private:
  friend struct detail::Parameter<Sink<T>&>;
  Sink(Sink&&) = default;

  detail::SinkState state_;
};

// The reader's end of a stream. Copyable; can be an argument, a result or a field of one. While one
// is left anywhere, the producer goes on.
template <class T>
class StreamRef {
 public:
  StreamRef() = default;
  StreamRef(Ref<void> producer, std::uint32_t stream)
      : producer_(std::move(producer)), stream_(stream) {}

  // The next item that no other reader has taken; nothing at the end of the stream. Waits for it,
  // and gives the CPU to others meanwhile. What the producer threw is thrown here (TaskError,
  // WorkerCrashedError and so on) after all items that came before. With a timeout (0: only look;
  // negative: Error) throws GetTimeoutError when none has come in time.
  std::optional<T> next() { return take(std::nullopt); }
  std::optional<T> next(Duration timeout) { return take(timeout); }

  // The same with all failures as values, that of the timeout, too.
  Result<std::optional<T>> try_next(std::optional<Duration> timeout = {}) {
    try {
      return take(timeout);
    } catch (const Error&) {
      return Result<std::optional<T>>::failure(std::current_exception());
    }
  }

  // Ends the stream for all its readers: what nobody has taken is dropped, and the producer's next
  // push throws StreamStopped.
  void stop() { detail::stop_stream(address(), producer_.session()); }

  // for (const T& item : stream): each step is a next().
  class Iterator {
   public:
    using iterator_concept = std::input_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    explicit Iterator(StreamRef* stream) : stream_(stream), item_(stream->next()) {}
    T& operator*() const { return *item_; }
    Iterator& operator++() {
      item_ = stream_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) { return !i.item_; }

   private:
    StreamRef* stream_ = nullptr;
    mutable std::optional<T> item_;
  };
  Iterator begin() { return Iterator(this); }
  std::default_sentinel_t end() const noexcept { return {}; }

  explicit operator bool() const noexcept { return static_cast<bool>(producer_); }
  friend bool operator==(const StreamRef& a, const StreamRef& b) noexcept {
    return a.producer_ == b.producer_;
  }

  // For the library.
  const Ref<void>& producer() const noexcept { return producer_; }
  std::uint32_t stream() const noexcept { return stream_; }

 private:
  detail::StreamAddress address() const { return {producer_.address(), stream_}; }
  std::optional<T> take(std::optional<Duration> timeout) {
    detail::TakenItem item;
    if (!detail::take_item(address(), producer_.session(), timeout, item)) return std::nullopt;
    Reader reader = item.reader();
    return decode<T>(reader);
  }

  Ref<void> producer_;
  std::uint32_t stream_ = 0;
};

template <class T>
struct codec<StreamRef<T>> {
  static void encode(Writer& writer, const StreamRef<T>& stream) {
    codec<Ref<void>>::encode(writer, stream.producer());
    writer.raw(stream.stream());
  }
  static StreamRef<T> decode(Reader& reader) {
    Ref<void> producer = codec<Ref<void>>::decode(reader);
    const auto stream = reader.raw<std::uint32_t>();
    return StreamRef<T>(std::move(producer), stream);
  }
};

namespace detail {

template <class T>
struct Parameter<Sink<T>&> {
  explicit Parameter(Execution& e) : sink(e.open_sink()) {}
  Sink<T>& pass() { return sink; }
  Sink<T> sink;
};

// Is it a producer: its items, and the parameters that its caller gives.
template <class Params, class Result>
struct Produces {
  static constexpr bool kItems = false;
};
template <class T, class... P, class Result>
struct Produces<Parameters<Sink<T>&, P...>, Result> {
  static_assert(std::is_void_v<Result>, "mobula: a function that takes a Sink returns nothing");
  static constexpr bool kItems = true;
  using Item = T;
  using Given = Parameters<P...>;
};
template <class Params, class T>
struct Produces<Params, Stream<T>> {
  static constexpr bool kItems = true;
  using Item = T;
  using Given = Params;
};

// The StreamRef of a producer whose submission, which gets the place for its stream's number,
// `submit` is.
template <class T, class Submit>
StreamRef<T> start_producer(const Submit& submit) {
  static_assert(Encodable<T>,
                "mobula: the item's type has no codec. Specialise mobula::codec<T> with encode "
                "and decode, or make it an aggregate.");
  std::uint32_t stream = 0;
  Ref<void> producer = Ref<void>::own(submit(&stream));
  return StreamRef<T>(std::move(producer), stream);
}

}  // namespace detail
}  // namespace mobula
