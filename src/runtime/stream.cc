// Pushing items into streams, and taking them out (shm/stream.h).
#include <algorithm>
#include <string>

#include "mobula/detail/runtime.h"
#include "mobula/error.h"
#include "runtime/execution.h"
#include "runtime/journal.h"
#include "runtime/ledger.h"
#include "runtime/local_mode.h"
#include "runtime/process.h"
#include "runtime/value.h"
#include "runtime/waiting.h"
#include "shm/stream.h"

namespace mobula::detail {
namespace {

using runtime::Ledger;
using runtime::LocalMode;
using runtime::Process;
using shm::Stream;
using shm::StreamSlot;

// What stored items that nobody has read may take; in a small store no more than a quarter of it.
constexpr std::uint64_t kUnreadBytesMax = 64 << 20;

std::uint64_t stored_size(Stream& stream, std::uint64_t n) {
  StreamSlot& slot = stream.slot_of(n);
  return slot.flags & shm::kItemStored ? slot.at().size : 0;
}

// Takes items that have been read off the account. An item's size stays in its slot until the next
// one is written there, which is after this.
void settle(Stream& stream, SinkState& sink) {
  if (sink.unread_bytes == 0) sink.oldest = sink.next;
  for (; sink.oldest < sink.next && shm::stream::is_free(stream, sink.oldest); ++sink.oldest)
    sink.unread_bytes -= stored_size(stream, sink.oldest);
}

bool has_room(Stream& stream, SinkState& sink, std::uint64_t stored, std::uint64_t bytes_max) {
  const std::uint64_t n = sink.next;
  if (n - stream.first >= stream.max_unread && !shm::stream::is_free(stream, n - stream.max_unread))
    return false;
  settle(stream, sink);
  return sink.unread_bytes == 0 || sink.unread_bytes + stored <= bytes_max;
}

bool is_stopped(const Stream& stream) {
  return stream.stopped.load(std::memory_order_seq_cst) != 0;
}

void wait_for_room(Process& process, Stream& stream, SinkState& sink, std::uint64_t stored) {
  const std::uint64_t bytes_max =
      std::min<std::uint64_t>(kUnreadBytesMax, process.memory().object_capacity() / 4);
  const auto there = [&] {
    return is_stopped(stream) || has_room(stream, sink, stored, bytes_max);
  };
  if (!there()) {
    // Woken when half of the items that may lie unread are read; large ones one by one.
    const std::uint64_t unread = stream.max_unread;
    stream.wake_at.store(sink.unread_bytes != 0 ? 0 : sink.next - unread / 2,
                         std::memory_order_relaxed);
    const auto producer = shm::Address::unpack(stream.record.load(std::memory_order_relaxed));
    runtime::wait_at_bell(process,
                          {shm::WaitReason::StreamSpace, runtime::from_shm(producer), stream.space,
                           stream.producer_waits},
                          there, std::nullopt);
  }
  if (is_stopped(stream))
    throw StreamStopped(
        "nobody reads the stream any more: its readers are gone, or one stopped it");
}

}  // namespace

SinkState Execution::open_sink() {
  runtime::Frame& frame = *static_cast<runtime::Frame*>(state_);
  const auto number = static_cast<std::uint32_t>(frame.record.result_word);
  Stream& stream = shm::stream::at(frame.ledger.process().memory(), number);
  SinkState sink;
  sink.stream = number;
  sink.next = stream.first;
  sink.pushed = shm::stream::next_item(stream);
  stream.head.store(sink.pushed, std::memory_order_relaxed);
  sink.oldest = std::max(
      sink.next, sink.pushed - std::min<std::uint64_t>(sink.pushed - sink.next, shm::kStreamSlots));
  for (std::uint64_t n = sink.oldest; n < sink.pushed; ++n)
    sink.unread_bytes += stored_size(stream, n);
  return sink;
}

void push_item(SinkState& sink, const Writer& writer, const std::byte* bytes, EncodeAgain again,
               void* context) {
  Process& process = runtime::require_process();
  Ledger& ledger = process.this_ledger();
  Stream& stream = shm::stream::at(process.memory(), sink.stream);
  const std::uint64_t size = runtime::size_with_refs(writer.size(), writer.refs().size());
  const bool stored = size > shm::kItemInlineMax;
  wait_for_room(process, stream, sink, stored ? size : 0);

  const std::uint64_t n = sink.next;
  StreamSlot& slot = stream.slot_of(n);
  runtime::Transfers transfers;
  transfers.hold(ledger, writer.refs(), shm::stream::mark(sink.stream, n));
  try {
    if (stored) {
      slot.at() = runtime::store_value(process, size, 0, writer, bytes, again, context);
    } else {
      runtime::write_value(slot.bytes, writer, bytes, again, context);
    }
  } catch (...) {  // no memory, or a codec that threw
    transfers.give_up(ledger);
    throw;
  }
  slot.size = stored ? 0 : static_cast<std::uint16_t>(size);
  slot.flags = static_cast<std::uint16_t>((stored ? shm::kItemStored : 0) |
                                          (writer.refs().empty() ? 0 : shm::kItemHasRefs));
  slot.refs_released = 0;
  shm::stream::publish(stream, n);
  transfers.forget(process);
  stream.head.store(n + 1, std::memory_order_relaxed);
  sink.next = n + 1;
  if (stored) sink.unread_bytes += size;
  shm::stream::wake_readers(stream);
}

bool take_item(StreamAddress address, std::uint64_t session, std::optional<Duration> timeout,
               TakenItem& item) {
  check_ref(address.producer, session);
  if (timeout && *timeout < Duration::zero())
    throw Error("the timeout of next is negative; 0 only looks, none waits for ever");
  Process& process = runtime::require_process();
  shm::Memory& memory = process.memory();
  Ledger& ledger = process.this_ledger();
  runtime::refuse_in_replay("methods that read a stream");
  Stream& stream = shm::stream::at(memory, address.stream);
  shm::Record& producer = memory.record(address.producer.slot);

  std::optional<std::uint64_t> taken;
  const auto take = [&] {
    taken = shm::stream::take(stream, ledger.participant());
    return taken.has_value();
  };
  const auto there = [&] {
    if (is_stopped(stream) || take()) return true;
    // All items of a producer that has ended are there.
    if (!shm::word::is_final(producer.state.load(std::memory_order_acquire))) return false;
    take();
    return true;
  };
  if (is_stopped(stream)) return false;
  bool is_there = take();
  if (!is_there) {
    if (LocalMode* local = process.local(); local && producer.kind == shm::Kind::ActorCall)
      local->before_wait(ledger, runtime::to_shm(address.producer), !timeout);
    is_there = runtime::wait_at_bell(
        process, {shm::WaitReason::StreamItem, address.producer, stream.items, stream.readers_wait},
        there, timeout);
  }
  if (!is_there) {
    throw GetTimeoutError("no item of the stream of task " +
                          runtime::describe_task(process, producer) + " came in time");
  }
  if (!taken) {
    const std::uint64_t state = producer.state.load(std::memory_order_acquire);
    if (!is_stopped(stream) && shm::word::state(state) == shm::State::Failed)
      runtime::throw_failure(process, producer);
    return false;
  }
  StreamSlot& slot = stream.slot_of(*taken);
  item = TakenItem(address.stream, *taken);
  if (slot.flags & shm::kItemStored) {
    item.data_ = process.store().read(slot.at(), item.pin_);
    item.size_ = slot.at().size;
  } else {
    item.data_ = slot.bytes;
    item.size_ = slot.size;
  }
  if (slot.flags & shm::kItemHasRefs)
    item.size_ -= 8 + 8 * shm::trailing_refs(item.data_, item.size_).size();
  return true;
}

void TakenItem::give_back() noexcept {
  Process* process = runtime::current_process();
  if (!process) return;
  Stream& stream = shm::stream::at(process->memory(), stream_);
  process->this_ledger().drop_item(stream.slot_of(number_), shm::stream::mark(stream_, number_));
  shm::stream::free(stream, number_);
}

void stop_stream(StreamAddress address, std::uint64_t session) {
  check_ref(address.producer, session);
  shm::stream::stop(shm::stream::at(runtime::require_process().memory(), address.stream));
}

}  // namespace mobula::detail
