#include "node/tables.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "shm/check.h"

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
      heap_(shm::kHeapSize),
      objects_(memory.object_capacity()) {
  MOBULA_CHECK(shm::Memory::populate(base_, shm::ControlLayout::kProcesses));
  shm::ControlHeader& header = memory.header();
  header.layout_hash = shm::layout_hash();
  header.session = session;
  header.object_capacity = memory.object_capacity();
  header.daemon_pid = static_cast<std::uint32_t>(::getpid());
  header.cores = cores;
  header.crashes_left.store(1);
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
  if (!i || !ensure(shm::ControlLayout::kProcesses + (*i + 1) * sizeof(shm::Process),
                    shm::ControlLayout::kProcesses, populated_processes_)) {
    return {};
  }
  shm::Process& p = memory_.process(*i);
  p.pid = 0;
  p.assigned_class.store(shm::kNone);
  p.class_slot.store(0);
  p.must_leave.store(0);
  p.sleeping.store(0);
  p.blocked_threads.store(0);
  p.tasks_done.store(0);
  p.task_began.store(0);
  p.spent.store(0);
  p.works_for.store(shm::kNone);
  p.wait_reason.store(0);
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
  } else {
    segment = next_segment_;
    if (next_segment_ >= shm::kSegmentsMax) return {};
    if (prepared_segments_ <= next_segment_ &&
        !shm::Memory::populate(memory_.segment(next_segment_), shm::kSegmentSize))
      return {};
    prepared_segments_ = std::max(prepared_segments_, ++next_segment_);
  }
  if (!ensure(shm::ControlLayout::kSegments + (*segment + 1) * 8, shm::ControlLayout::kSegments,
              populated_owners_))
    return {};
  memory_.segment_owner(*segment).store(participant, std::memory_order_release);
  segments_[participant].push_back(*segment);
  return segment;
}

void Tables::prepare_segment() {
  if (!free_segments_.empty() || prepared_segments_ > next_segment_ ||
      next_segment_ >= shm::kSegmentsMax)
    return;
  if (shm::Memory::populate(memory_.segment(next_segment_), shm::kSegmentSize))
    prepared_segments_ = next_segment_ + 1;
}

std::optional<std::uint32_t> Tables::lease_holds(std::uint32_t process, std::uint32_t number) {
  if (number >= shm::kHoldSegmentsMax) return {};
  std::uint32_t segment = 0;
  if (!free_holds_.empty()) {  // kept apart from records, whose generations must go on
    segment = free_holds_.back();
    free_holds_.pop_back();
  } else {
    if (next_segment_ >= shm::kSegmentsMax ||
        !shm::Memory::populate(memory_.segment(next_segment_), shm::kSegmentSize))
      return {};
    segment = next_segment_++;
    prepared_segments_ = std::max(prepared_segments_, next_segment_);
    if (!ensure(shm::ControlLayout::kSegments + (segment + 1) * 8, shm::ControlLayout::kSegments,
                populated_owners_))
      return {};
    memory_.segment_owner(segment).store(shm::kNone);
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

std::optional<std::uint64_t> Tables::take_objects(std::uint64_t size) {
  if (const auto offset = objects_.allocate(size)) return offset;
  // Under pressure: what processes keep for reuse and do not use.
  for (std::uint32_t e = 0; e < next_extent_; ++e) {
    if (memory_.extent(e).in_use.load()) try_reclaim(e);
  }
  return objects_.allocate(size);
}

bool Tables::try_reclaim(std::uint32_t i) {
  shm::Extent& e = memory_.extent(i);
  for (std::uint32_t b = 0; b < e.blocks; ++b) {
    if (memory_.block_word(e, b).load(std::memory_order_relaxed) & shm::block::kUsed) return false;
  }
  for (std::uint32_t b = 0; b < e.blocks; ++b) {
    if (shm::revoke_block(memory_.block_word(e, b))) continue;
    while (b-- > 0)
      memory_.block_word(e, b).fetch_and(~shm::block::kRevoked);  // its lessee took one meanwhile
    return false;
  }
  free_extent(i);
  return true;
}

void Tables::free_extent(std::uint32_t i) {
  shm::Extent& e = memory_.extent(i);
  e.in_use.store(0);
  MOBULA_CHECK(objects_.release(e.offset, e.size));
  e.lessee.store(shm::kNone);
  // The words stay the entry's: a late compare-and-swap of the old lessee must find a block's word
  // there, and fail.
  free_extents_.insert(free_extents_.begin(), i);
}

std::optional<std::uint32_t> Tables::lease_extent(std::uint32_t process, std::uint64_t size,
                                                  std::uint64_t block_size,
                                                  ExtentRefusal& refusal) {
  const std::uint64_t capacity = memory_.object_capacity();
  const std::uint64_t whole = (size + shm::kPage - 1) / shm::kPage * shm::kPage;
  if (whole > capacity || whole < size) {
    refusal = {true, "an object of " + std::to_string(size) +
                         " bytes is larger than the object store of " + std::to_string(capacity) +
                         " bytes; Config.object_store_memory sets its size"};
    return {};
  }
  const auto full = [&] {
    refusal = {false, "the object store is full: " + std::to_string(size) + " bytes are wanted, " +
                          std::to_string(objects_.free_bytes()) + " of " +
                          std::to_string(capacity) + " are free (the largest piece has " +
                          std::to_string(objects_.largest()) +
                          "). Drop refs that are not needed, or set Config.object_store_memory"};
    return std::nullopt;
  };
  const auto offset = take_objects(whole);
  if (!offset) return full();
  const auto i = take_number(free_extents_, next_extent_, shm::kExtentsMax);
  if (!i || !ensure(shm::ControlLayout::kExtents + (*i + 1) * sizeof(shm::Extent),
                    shm::ControlLayout::kExtents, populated_extents_)) {
    MOBULA_CHECK(objects_.release(*offset, whole));
    refusal = {false, "the object store has no entry left for another extent (there are " +
                          std::to_string(shm::kExtentsMax) + ")"};
    return {};
  }
  shm::Extent& e = memory_.extent(*i);
  const std::uint32_t blocks = block_size == 0
                                   ? 1
                                   : static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
                                         whole / block_size, 1, shm::kBlocksPerExtentMax));
  e.offset = *offset;
  e.size = whole;
  e.block_size = block_size == 0 ? whole : block_size;
  e.blocks = blocks;
  // Generations go on, so that a late second giving-back of an earlier tenant's block finds another
  // one.
  std::uint32_t generation = shm::block::generation(e.word_one.load());
  for (std::uint32_t b = 0; b < words_of_entry_[*i]; ++b) {
    generation = std::max(
        generation,
        shm::block::generation(
            reinterpret_cast<std::atomic<std::uint32_t>*>(memory_.heap(e.words))[b].load()));
  }
  ++generation;
  if (blocks > 1) {
    if (words_of_entry_[*i] < blocks) {
      const auto words = take_heap(blocks * 4);
      if (!words) {
        MOBULA_CHECK(objects_.release(*offset, whole));
        free_extents_.push_back(*i);
        return full();
      }
      e.words = *words;
      words_of_entry_[*i] = blocks;
    }
  }
  for (std::uint32_t b = 0; b < words_of_entry_[*i]; ++b) {
    reinterpret_cast<std::atomic<std::uint32_t>*>(memory_.heap(e.words))[b].store(
        shm::block::free(generation));
  }
  e.word_one.store(shm::block::free(generation));
  e.lessee.store(process);
  e.in_use.store(1);
  return i;
}

void Tables::orphan_extents(std::uint32_t process) {
  std::vector<std::uint32_t> leased;
  bool any_used = false;
  for (std::uint32_t i = 0; i < next_extent_; ++i) {
    shm::Extent& e = memory_.extent(i);
    if (!e.in_use.load() || e.lessee.load() != process) continue;
    leased.push_back(i);
    for (std::uint32_t b = 0; b < e.blocks && !any_used; ++b)
      any_used = (memory_.block_word(e, b).load() & shm::block::kUsed) != 0;
  }
  if (any_used) {
    std::set<std::pair<std::uint32_t, std::uint32_t>> named;
    for (const std::uint32_t segment : record_segments()) {
      for (std::uint32_t r = 0; r < shm::kRecordsPerSegment; ++r) {
        shm::Record& record = memory_.record(segment * shm::kRecordsPerSegment + r);
        if (shm::word::state(record.state.load(std::memory_order_acquire)) == shm::State::Free)
          continue;
        if (record.kind == shm::Kind::Join) continue;
        if (record.flags & shm::flag::kArgsStored)
          named.emplace(record.args_at().extent, record.args_at().block_and_generation);
        if (record.result_kind == shm::ResultKind::Stored)
          named.emplace(record.result_at().extent, record.result_at().block_and_generation);
      }
    }
    for (const std::uint32_t i : leased) {
      shm::Extent& e = memory_.extent(i);
      for (std::uint32_t b = 0; b < e.blocks; ++b) {
        std::atomic<std::uint32_t>& w = memory_.block_word(e, b);
        const std::uint32_t seen = w.load(std::memory_order_acquire);
        if (!(seen & shm::block::kUsed)) continue;
        const std::uint32_t generation = shm::block::generation(seen);
        if (!named.contains({i, b << 20 | generation})) shm::give_block(w, generation);
      }
    }
  }
  for (const std::uint32_t i : leased) {
    memory_.extent(i).lessee.store(shm::kNone);
    orphans_.push_back(i);
  }
  sweep_orphans();
}

bool Tables::sweep_orphans() {
  std::erase_if(orphans_, [&](std::uint32_t i) {
    return !memory_.extent(i).in_use.load() || memory_.extent(i).lessee.load() != shm::kNone ||
           try_reclaim(i);
  });
  return !orphans_.empty();
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
