#include "node/tables.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "shm/check.h"
#include "shm/stream.h"

namespace mobula::node {
namespace {

constexpr std::size_t kPopulateStep = 64 << 10;
constexpr std::uint64_t kHeapReserved = shm::kPage;  // offset 0 means "none"

template <class T>
std::optional<std::uint32_t> take_number(std::vector<std::uint32_t>& free, std::uint32_t& next,
                                         T max) {
  if (!free.empty()) {
    const std::uint32_t n = free.back();
    free.pop_back();
    return n;
  }
  if (next >= max) return {};
  return next++;
}

const std::vector<std::uint32_t> kNothing;

}  // namespace

Tables::Tables(shm::Memory& memory, std::uint64_t session, std::uint32_t cores)
    : memory_(memory),
      base_(reinterpret_cast<std::byte*>(&memory.header())),
      heap_(shm::kHeapSize) {
  MOBULA_CHECK(shm::Memory::populate(base_, shm::ControlLayout::kProcesses));
  shm::ControlHeader& header = memory.header();
  header.layout_hash = shm::layout_hash();
  header.session = session;
  header.node = session;
  header.object_capacity = memory.object_capacity();
  header.daemon_pid = static_cast<std::uint32_t>(::getpid());
  header.cores = cores;
  header.open_crashes.store(~0u);
  header.magic = shm::kMagic;
  MOBULA_CHECK(heap_.allocate(kHeapReserved) == 0);
}

bool Tables::ensure(std::size_t end, std::size_t begin, std::size_t& populated) {
  if (begin + populated >= end) return true;
  const std::size_t want = (end - begin + kPopulateStep - 1) / kPopulateStep * kPopulateStep;
  if (!shm::Memory::populate(base_ + begin + populated, want - populated)) return false;
  populated = want;
  return true;
}

std::optional<std::uint32_t> Tables::open_process(shm::ProcessRole role) {
  const auto i = take_number(free_processes_, next_process_, shm::kProcessesMax);
  if (!i ||
      !ensure(shm::ControlLayout::kProcesses + (*i + 1) * sizeof(shm::Process),
              shm::ControlLayout::kProcesses, populated_processes_) ||
      !cover_pins(*i, 0)) {
    return {};
  }
  shm::Process& p = memory_.process(*i);
  p.pid = 0;
  p.assigned_class.store(shm::kNone);
  p.class_slot.store(0);
  p.must_leave.store(0);
  p.open_calls.store(0);
  p.cancels.store(0);
  p.sleeping.store(0);
  p.blocked_threads.store(0);
  p.tasks_failed.store(0);
  p.task_began.store(0);
  p.spent.store(0);
  p.left.store(0);
  p.works_for.store(shm::kNone);
  p.tasks_done.store(0);
  for (auto& segment : p.hold_segments) segment.store(shm::kNone);
  p.role.store(static_cast<std::uint32_t>(role));
  return i;
}

void Tables::close_process(std::uint32_t process) {
  memory_.process(process).role.store(static_cast<std::uint32_t>(shm::ProcessRole::None));
  participants_.erase(process);
  free_processes_.push_back(process);
}

std::optional<std::uint32_t> Tables::open_participant(std::uint32_t process) {
  const auto i = take_number(free_participants_, next_participant_, shm::kParticipantsMax);
  if (!i || !ensure(shm::ControlLayout::kParticipants + (*i + 1) * sizeof(shm::Participant),
                    shm::ControlLayout::kParticipants, populated_participants_)) {
    return {};
  }
  shm::Participant& p = memory_.participant(
      *i);  // its hold sequence goes on where the last user of the entry stopped
  p.process.store(process);
  p.depth.store(0);
  p.wait.reason.store(0);
  p.state.store(static_cast<std::uint32_t>(shm::ParticipantState::Live));
  participants_[process].push_back(*i);
  return i;
}

void Tables::close_participant(std::uint32_t participant) {
  shm::Participant& p = memory_.participant(participant);
  p.state.store(static_cast<std::uint32_t>(shm::ParticipantState::Free));
  for (const std::uint32_t segment : segments_of(participant)) {
    memory_.segment_owner(segment).store(shm::kNone);
    free_segments_.push_back(segment);
  }
  segments_.erase(participant);
  auto& list = participants_[p.process.load()];
  list.erase(std::remove(list.begin(), list.end(), participant), list.end());
  free_participants_.push_back(participant);
}

std::optional<std::uint32_t> Tables::lease_segment(std::uint32_t participant) {
  std::optional<std::uint32_t> segment;
  if (!free_segments_.empty()) {
    segment = free_segments_.back();
    free_segments_.pop_back();
  } else if (prepared_segment_ && segments_.contains(participant)) {
    segment = std::exchange(prepared_segment_, std::nullopt);
  } else {
    segment = fresh_segment(shm::kRecordsAtFirst);
    if (!segment) return {};
  }
  memory_.segment_owner(*segment).store(participant, std::memory_order_release);
  segments_[participant].push_back(*segment);
  return segment;
}

std::optional<std::uint32_t> Tables::fresh_segment(std::uint32_t records) {
  if (next_segment_ >= shm::kSegmentsMax ||
      !shm::Memory::populate(memory_.segment(next_segment_), records * shm::kRecordSize) ||
      !ensure(shm::ControlLayout::kSegments + (next_segment_ + 1) * 8,
              shm::ControlLayout::kSegments, populated_owners_))
    return {};
  memory_.segment_owner(next_segment_).store(shm::kNone);
  memory_.segment_ready(next_segment_).store(records);
  return next_segment_++;
}

void Tables::prepare_segment() {
  if (free_segments_.empty() && !prepared_segment_)
    prepared_segment_ = fresh_segment(shm::kRecordsPerSegment);
}

std::optional<std::uint32_t> Tables::lease_holds(std::uint32_t process, std::uint32_t number) {
  if (number >= shm::kHoldSegmentsMax) return {};
  std::uint32_t segment = 0;
  if (!free_holds_.empty()) {  // kept apart from records, whose generations must go on
    segment = free_holds_.back();
    free_holds_.pop_back();
  } else {
    const auto fresh = fresh_segment(shm::kRecordsPerSegment);
    if (!fresh) return {};
    segment = *fresh;
  }
  memory_.process(process).hold_segments[number].store(segment);
  return segment;
}

void Tables::return_holds(std::uint32_t process) {
  for (auto& entry : memory_.process(process).hold_segments) {
    const std::uint32_t segment = entry.exchange(shm::kNone);
    if (segment == shm::kNone) continue;
    auto* lines = reinterpret_cast<shm::HoldEntry*>(memory_.segment(segment));
    for (std::uint32_t i = 0; i < shm::kHoldsPerSegment; ++i) {
      lines[i].record.store(0, std::memory_order_relaxed);
      lines[i].container.store(0, std::memory_order_relaxed);
    }
    free_holds_.push_back(segment);
  }
}

std::optional<std::uint32_t> Tables::lease_stream(std::uint32_t process) {
  const bool used_before = !free_streams_.empty();
  const auto i = take_number(free_streams_, next_stream_, shm::kStreamsMax);
  if (!i || !ensure(shm::ControlLayout::kStreams + (*i + 1) * shm::kStreamSize,
                    shm::ControlLayout::kStreams, populated_streams_)) {
    return {};
  }
  if (!used_before) {
    for (std::uint64_t n = 0; n < shm::kStreamSlots; ++n)
      shm::stream::at(memory_, *i).slots[n].word.store(shm::slot::make(n, shm::slot::State::Free));
  }
  streams_[process].push_back(*i);
  return i;
}

void Tables::return_streams(std::uint32_t process) {
  for (const std::uint32_t i : streams_[process]) {
    shm::stream::at(memory_, i).record.store(0);
    free_streams_.push_back(i);
  }
  streams_.erase(process);
}

bool Tables::lease_journal(std::uint32_t cls, std::uint32_t number) {
  if (number >= shm::kJournalChunks) return false;
  std::atomic<std::uint64_t>& chunk = memory_.scheduling_class(cls).lasting.chunk[number];
  if (chunk.load() != 0) return true;
  if (!free_journal_.empty()) {
    chunk.store(free_journal_.back());
    free_journal_.pop_back();
    return true;
  }
  const auto offset = take_heap(shm::kJournalChunkEntries * 8);
  if (offset) chunk.store(*offset);
  return offset.has_value();
}

void Tables::return_journal(std::uint32_t cls) {
  for (auto& chunk : memory_.scheduling_class(cls).lasting.chunk) {
    if (const std::uint64_t offset = chunk.exchange(0)) free_journal_.push_back(offset);
  }
}

std::optional<std::uint32_t> Tables::open_class() {
  const auto i = take_number(free_classes_, next_class_, shm::kClassesMax);
  if (!i || !ensure(shm::ControlLayout::kClasses + (*i + 1) * sizeof(shm::SchedulingClass),
                    shm::ControlLayout::kClasses, populated_classes_)) {
    return {};
  }
  return i;
}

std::optional<std::uint64_t> Tables::take_heap(std::uint64_t size) {
  const auto offset = heap_.allocate(size);
  if (!offset || !shm::Memory::populate(memory_.heap(*offset), size)) return {};
  return offset;
}

std::optional<std::uint64_t> Tables::open_ring(std::uint32_t participant, std::uint32_t cls) {
  shm::SchedulingClass& c = memory_.scheduling_class(cls);
  std::uint64_t last = 0;
  for (std::uint64_t at = c.rings.load(); at != 0;
       at = reinterpret_cast<shm::RingHeader*>(memory_.heap(at))->next.load()) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
    if (ring.participant.load() == shm::kNone && ring.empty()) {  // a dead pusher's
      ring.participant.store(participant);
      return at;
    }
    last = at;
  }
  const std::uint64_t header =
      (sizeof(shm::RingHeader) + shm::kCacheLine - 1) / shm::kCacheLine * shm::kCacheLine;
  const auto offset = take_heap(header + shm::kRingFirstEntries * 8);
  if (!offset) return {};
  auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(*offset));
  ring.head.store(0);
  ring.tail.store(0);
  ring.participant.store(participant);
  ring.scheduling_class.store(cls);
  ring.next.store(0);
  ring.stage[0].start.store(0);
  ring.stage[0].storage.store(*offset + header);
  ring.stage[0].mask.store(shm::kRingFirstEntries - 1);
  ring.stages.store(1, std::memory_order_release);
  // At the end: workers look at the daemon's ring, which is the first, before all others.
  if (last == 0) {
    c.rings.store(*offset, std::memory_order_release);
  } else {
    reinterpret_cast<shm::RingHeader*>(memory_.heap(last))
        ->next.store(*offset, std::memory_order_release);
  }
  return offset;
}

std::optional<std::uint64_t> Tables::ring_storage(std::uint64_t entries) {
  return take_heap(entries * 8);
}

bool Tables::cover_pins(std::uint32_t process, std::size_t from_page) {
  auto* pages = reinterpret_cast<std::byte*>(&memory_.pins(process, 0));
  return from_page == pin_pages_ || shm::Memory::populate(pages + from_page * shm::kPage,
                                                          (pin_pages_ - from_page) * shm::kPage);
}

bool Tables::cover_extents(std::uint32_t extents) {
  if (!ensure(shm::ControlLayout::kExtents + extents * sizeof(shm::Extent),
              shm::ControlLayout::kExtents, populated_extents_))
    return false;
  const std::size_t pages = (std::size_t{extents} * 4 + shm::kPage - 1) / shm::kPage;
  if (pages <= pin_pages_) return true;
  const std::size_t before = std::exchange(pin_pages_, pages);
  for (std::uint32_t p = 0; p < next_process_; ++p) {
    if (cover_pins(p, before)) continue;
    pin_pages_ = before;
    return false;
  }
  return true;
}

void Tables::clear_pins(std::uint32_t process) {
  for (std::uint32_t e = 0; e < pin_pages_ * shm::kPage / 4; ++e)
    memory_.pins(process, e).store(0, std::memory_order_relaxed);
}

const std::vector<std::uint32_t>& Tables::segments_of(std::uint32_t participant) const {
  const auto it = segments_.find(participant);
  return it == segments_.end() ? kNothing : it->second;
}

const std::vector<std::uint32_t>& Tables::participants_of(std::uint32_t process) const {
  const auto it = participants_.find(process);
  return it == participants_.end() ? kNothing : it->second;
}

std::vector<std::uint32_t> Tables::record_segments() const {
  std::vector<std::uint32_t> all;
  for (const auto& [participant, segments] : segments_)
    all.insert(all.end(), segments.begin(), segments.end());
  return all;
}

}  // namespace mobula::node
