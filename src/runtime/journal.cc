#include "runtime/journal.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "runtime/registry.h"
#include "runtime/value.h"
#include "shm/crash_point.h"

namespace mobula::runtime {
namespace {

// The function of a put that is a note of ours.
constexpr std::uint64_t kWaitNote = 0x7761697420656e64u;

std::uint64_t stored_size(shm::Record& record) {
  if (!shm::word::is_final(record.state.load(std::memory_order_acquire))) return 0;
  return record.result_kind == shm::ResultKind::Stored ? record.result_at().size : 0;
}

}  // namespace

Journal::Journal(Ledger& ledger, std::uint32_t actor_class)
    : ledger_(ledger),
      memory_(ledger.process().memory()),
      class_(actor_class),
      shared_(memory_.scheduling_class(actor_class).lasting) {}

void Journal::lease_chunk(std::uint64_t number) {
  wire::Message message;
  message.kind = wire::Kind::LeaseJournal;
  message.a = static_cast<std::uint32_t>(number / shm::kJournalChunkEntries % shm::kJournalChunks);
  ledger_.process().daemon().demand(message);
}

std::uint64_t Journal::take(shm::Record& call, shm::Address address) {
  if (!shm::journal::has_room(shared_)) {
    throw Error("the actor's journal is full: " + std::to_string(shm::kJournalCalls) +
                " calls were taken since a checkpoint could be saved. The actor's output says why");
  }
  const std::uint64_t number = taken();
  if (shm::journal::chunk_of(shared_, number).load(std::memory_order_relaxed) == 0)
    lease_chunk(number);
  set_running(shm::journal::take(memory_, shared_, call, address));
  if (call.flags & shm::flag::kArgsStored) bytes_ += call.args_at().size;
  if (!(call.flags & shm::flag::kArgsHaveRefs)) return running_;
  for (const std::uint64_t ref : trailing_refs(argument_bytes(ledger_.process(), call)))
    bytes_ += stored_size(memory_.record(shm::Address::unpack(ref).slot));
  return running_;
}

void Journal::ended(shm::Record& call) { bytes_ += stored_size(call); }

void Journal::submitted(shm::Address child) {
  detail::retain(from_shm(child));
  children_.push_back({running_, child});
  ++children_since_;
}

void Journal::set_running(std::uint64_t number) {
  running_ = number;
  waits_ = 0;
}

std::optional<WaitOutcome> Journal::wait_before(Frame& frame) {
  const std::uint64_t wait = waits_++;
  const auto found = earlier_.find({frame.identity.hash(), frame.children});
  if (found == earlier_.end()) return {};
  shm::Record& note = memory_.record(found->second.slot);
  if (note.kind != shm::Kind::Put || note.function != kWaitNote) return {};
  const ValueBytes bytes = result_bytes(ledger_.process(), note);
  Reader reader(bytes.data, bytes.size);
  const auto words = decode<std::vector<std::uint64_t>>(reader);
  if (words.at(0) != wait) return {};  // of a later one
  ++frame.children;
  return WaitOutcome{words.at(1) != 0, {words.begin() + 2, words.end()}};
}

void Journal::note_wait(const WaitOutcome& outcome) {
  std::vector<std::uint64_t> words{waits_ - 1, outcome.stopped ? 1u : 0u};
  words.insert(words.end(), outcome.ready.begin(), outcome.ready.end());
  std::byte small[64];
  Writer writer(small, sizeof small);
  encode(writer, words);
  const shm::Address address = ledger_.allocate();
  shm::Record& record = ledger_.record(address);
  record.kind = shm::Kind::Put;
  record.function = kWaitNote;
  record.parent = 0;  // nobody's child, unless it can be written
  shm::State state = shm::State::Failed;
  const auto publish = [&] {
    record.state.store(shm::word::make(address.generation, state), std::memory_order_release);
    detail::release(from_shm(address));
  };
  try {
    place_result(
        ledger_.process(), record, writer, small,
        [](void* context, Writer& again) {
          encode(again, *static_cast<const std::vector<std::uint64_t>*>(context));
        },
        &words);
  } catch (...) {
    publish();
    throw;
  }
  name_child(ledger_, record);
  submitted(address);
  shm::crash_point(shm::CrashPoint::JournalNoted);
  state = shm::State::Done;
  publish();
}

void Journal::cover(std::uint64_t number) {
  // release: what the checkpoint holds is held by now
  shared_.covered.store(number, std::memory_order_release);
  shm::crash_point(shm::CrashPoint::CheckpointCovered);
  const auto is_final = [&](const Ref<void>& ref) {
    return shm::word::is_final(memory_.record(ref.address().slot).state.load());
  };
  std::erase_if(pending_, [&](const auto& calls) {
    return std::all_of(calls.second.begin(), calls.second.end(), is_final);
  });
  while (!children_.empty() && children_.front().call < number) {
    detail::release(from_shm(children_.front().record));
    children_.pop_front();
  }
}

void Journal::find_children() {
  wire::Message message;
  std::uint32_t read = 0;
  do {
    message.kind = wire::Kind::PastRecords;
    message.a = read;
    message.text_size = 0;
    ledger_.process().daemon().demand(message);
    for (std::uint32_t at = 0; at + 4 <= message.text_size; at += 4, ++read) {
      std::uint32_t segment = 0;
      std::memcpy(&segment, message.text + at, sizeof segment);
      const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
      for (std::uint32_t r = 0; r < ready; ++r) {
        const std::uint32_t slot = segment * shm::kRecordsPerSegment + r;
        const shm::Record& record = memory_.record(slot);
        const std::uint64_t state = record.state.load(std::memory_order_acquire);
        if (shm::word::state(state) == shm::State::Free || record.kind == shm::Kind::Join) continue;
        const shm::Address address{slot, shm::word::generation(state)};
        earlier_[{record.parent, record.index}] = address;
        const bool waits = shm::word::state(state) == shm::State::Ready ||
                           shm::word::state(state) == shm::State::Waiting;
        if (record.kind != shm::Kind::ActorCall || !waits) continue;
        detail::adopt_decoded(from_shm(address));
        pending_[record.scheduling_class].push_back(Ref<void>::own(from_shm(address)));
      }
    }
  } while (read < message.a && message.text_size != 0);
}

std::vector<Ref<void>> Journal::calls_before(std::uint32_t actor_class) {
  const auto found = pending_.find(actor_class);
  if (found == pending_.end()) return {};
  std::vector<Ref<void>> calls = std::move(found->second);
  pending_.erase(found);
  return calls;
}

shm::Address Journal::call_at(std::uint64_t number) {
  const auto address = shm::Address::unpack(
      shm::journal::entry(memory_, shared_, number).load(std::memory_order_relaxed));
  if (!address || address.slot / shm::kRecordsPerSegment >= shm::kSegmentsMax) return {};
  const shm::Record& call = memory_.record(address.slot);
  const bool ours =
      shm::word::generation(call.state.load(std::memory_order_acquire)) == address.generation &&
      (call.flags & shm::flag::kJournaled) && call.scheduling_class == class_ &&
      call.journal_number() == number;
  return ours ? address : shm::Address{};
}

std::optional<RefAddress> Journal::submitted_before(Frame& frame, shm::Kind kind,
                                                    std::uint64_t function, bool perhaps) {
  const auto found = earlier_.find({frame.identity.hash(), frame.children});
  if (found == earlier_.end()) return {};
  const shm::Address child = found->second;
  const shm::Record& record = memory_.record(child.slot);
  if (record.kind != kind || record.function != function) {
    if (perhaps) return {};
    const detail::FunctionInfo* before = find_function(record.function);
    ::fprintf(stderr,
              "mobula: the method %s is not deterministic: run again after a crash, its submission "
              "number %llu is not %s any more. What differs from time to time belongs into its "
              "arguments\n",
              frame.name().c_str(), static_cast<unsigned long long>(frame.children),
              before ? std::string(before->name).c_str() : "a put");
    ::fflush(nullptr);
    ::_exit(wire::kExitStateLost);
  }
  ++frame.children;
  detail::adopt_decoded(from_shm(child));
  return from_shm(child);
}

Frame* journaled_frame() {
  Frame* const frame = journal ? current_frame() : nullptr;
  return frame && frame->identity.number != TaskIdentity::kNotJournaled ? frame : nullptr;
}

void refuse_in_replay(const char* what) {
  if (!journal || !current_frame()) return;
  throw Error(std::string(what) + " cannot be run again, and are not for actors with " +
              "Recovery::Replay");
}

}  // namespace mobula::runtime
