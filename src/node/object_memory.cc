#include "node/object_memory.h"

#include <string.h>

#include <algorithm>
#include <set>

#include "shm/check.h"
#include "shm/futex.h"
#include "shm/stream.h"

namespace mobula::node {
namespace {

using shm::Extent;
using shm::Residency;
using namespace std::chrono_literals;

constexpr std::uint64_t kFileMax = std::uint64_t{1} << 46;
constexpr double kSpillAhead = 0.8;  // of the capacity: above it, spilling begins before it must
constexpr std::uint64_t kInFlightMax = 512 << 20;  // bytes ordered to disk at a time
constexpr std::size_t kSweepBudget = 16384;        // extents looked at in one call
constexpr auto kDiskPause = 500ms;  // before a disk that refused is tried again
constexpr auto kAheadPause = 20ms;
constexpr auto kLookCost = 100ns;  // of one extent, about: looks take a bounded part of the time

// All of it taken.
core::FreeSpace none_free(std::uint64_t end) {
  core::FreeSpace space(end);
  MOBULA_CHECK(space.allocate(end) == 0);
  return space;
}

}  // namespace

ObjectMemory::ObjectMemory(shm::Memory& memory, Tables& tables, Spiller* spiller,
                           std::uint64_t spill_limit)
    : memory_(memory),
      tables_(tables),
      spiller_(spiller),
      cold_(memory.object_space()),
      warm_(none_free(memory.object_space())),
      file_(std::min(spill_limit, kFileMax)),
      line_(memory.object_capacity()) {}

// ---- Leasing.

ObjectMemory::Answer ObjectMemory::lease(std::uint32_t process, std::uint64_t size,
                                         std::uint64_t block_size, bool spillable, Time now) {
  const std::uint64_t capacity = memory_.object_capacity();
  const std::uint64_t whole = shm::whole_pages(size);
  if (whole > capacity || whole < size) {
    return {Outcome::Never, 0,
            "an object of " + std::to_string(size) + " bytes is larger than the object store of " +
                std::to_string(capacity) + " bytes; " + memory_.object_capacity_setting() +
                " sets its size"};
  }
  const core::MemoryLine::Asker asker{process, whole};
  if (!line_.its_turn(asker, now)) return {Outcome::Later, 0, {}};
  if (!make_room(whole, now)) return must_wait(asker, now);
  line_.leave(asker);
  const auto offset = take_range(whole);
  const auto entry = [&]() -> std::optional<std::uint32_t> {
    if (!free_extents_.empty()) return free_extents_.back();
    if (next_extent_ >= shm::kExtentsMax || !tables_.cover_extents(next_extent_ + 1)) return {};
    return next_extent_;
  }();
  if (!offset || !entry) {
    if (offset) MOBULA_CHECK(warm_.release(*offset, whole));
    return {Outcome::Full, 0,
            offset ? "the object store has no entry left for another extent (there are " +
                         std::to_string(shm::kExtentsMax) + ")"
                   : "the object store has no addresses left: spilled objects keep theirs"};
  }
  const std::uint32_t i = *entry;
  Extent& e = memory_.extent(i);
  const auto blocks = block_size == 0 ? 1
                                      : static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
                                            whole / block_size, 1, shm::kBlocksPerExtentMax));
  const auto words = [&] {
    return reinterpret_cast<std::atomic<std::uint32_t>*>(memory_.heap(e.words));
  };
  // Generations go on, so that a late second giving-back of an earlier tenant's block finds another
  // one.
  std::uint32_t generation = shm::block::generation(e.word_one.load());
  for (std::uint32_t b = 0; b < words_of_entry_[i]; ++b)
    generation = std::max(generation, shm::block::generation(words()[b].load()));
  ++generation;
  if (blocks > 1 && words_of_entry_[i] < blocks) {
    const auto storage = tables_.block_words(blocks);
    if (!storage) {
      MOBULA_CHECK(warm_.release(*offset, whole));
      return {Outcome::Full, 0, "the object store has no room left for the list of its blocks"};
    }
    e.words = *storage;
    words_of_entry_[i] = blocks;
  }
  free_extents_.empty() ? static_cast<void>(++next_extent_) : free_extents_.pop_back();
  e.offset = *offset;
  e.size = whole;
  e.block_size = block_size == 0 ? whole : std::min(block_size, whole);
  e.blocks = blocks;
  for (std::uint32_t b = 0; b < words_of_entry_[i]; ++b)
    words()[b].store(shm::block::free(generation));
  e.word_one.store(shm::block::free(generation));
  e.touched.store(1);
  e.spillable = spillable ? 1 : 0;
  memory_.pins(process, i).fetch_add(1);  // the lessee's, until it has taken a block
  e.residency.store(static_cast<std::uint32_t>(Residency::Resident));
  e.lessee.store(process);
  e.in_use.store(1);
  resident_ += whole;
  fresh_ += whole;
  leased_to_[i] = process;
  if (spillable && spiller_) plan_.arrived(i, whole);
  return {Outcome::Granted, i, {}};
}

ObjectMemory::Answer ObjectMemory::must_wait(const core::MemoryLine::Asker& asker, Time now) {
  // A disk that is tried again is no hope until it has worked.
  const bool stuck = leaving_ == 0 || disk_failed_;
  line_.must_wait(asker, stuck, now);
  if (!stuck) return {Outcome::Later, 0, {}};
  const std::string wanted = std::to_string(asker.bytes) + " bytes are wanted, " +
                             std::to_string(bytes_free()) + " of " +
                             std::to_string(memory_.object_capacity()) + " are free";
  if (leaving_ > 0 || now < disk_refused_until_) {
    return {Outcome::NoDisk, 0,
            "the object store is full (" + wanted +
                ") and nothing more can be spilled to disk: " + disk_problem_};
  }
  return {Outcome::Full, 0,
          "the object store is full: " + wanted + ". " +
              (spiller_ ? "The rest is being read or written, or contains refs, and cannot be "
                          "spilled to disk. "
                        : "Spilling to disk is off (Config.spill_limit is 0). ") +
              "Drop refs and views that are not needed, or set " +
              memory_.object_capacity_setting()};
}

// So many bytes may become resident now. False: they may not yet; what can be done is under way.
bool ObjectMemory::make_room(std::uint64_t bytes, Time now) {
  const std::uint64_t capacity = memory_.object_capacity();
  if (resident_ + bytes > capacity) reclaim_unused(now);
  if (resident_ + bytes <= capacity) return true;
  const std::uint64_t wanted = resident_ + bytes - capacity;
  if (wanted > leaving_ && now >= disk_refused_until_) spill(wanted - leaving_, now);
  return false;
}

// Addresses for an extent that may become resident: warm ones, or others after as many warm pages
// were dropped.
std::optional<std::uint64_t> ObjectMemory::take_range(std::uint64_t size) {
  if (const auto warm = warm_.allocate(size)) return warm;
  drop_warm_for(size);
  return cold_.allocate(size);
}

// So that as many fresh pages do not exceed the capacity.
void ObjectMemory::drop_warm_for(std::uint64_t size) {
  const std::uint64_t pages = resident_ + warm_.free_bytes() + size;
  std::uint64_t bytes = pages - std::min(pages, memory_.object_capacity());
  while (bytes > 0 && warm_.free_bytes() > 0) {
    const std::uint64_t part = std::min(warm_.largest(), shm::whole_pages(bytes));
    const std::uint64_t offset = *warm_.allocate(part);
    memory_.drop_pages(offset, part);
    MOBULA_CHECK(cold_.release(offset, part));
    bytes -= std::min(bytes, part);
  }
}

// ---- Taking back.

bool ObjectMemory::unused(Extent& extent) const {
  for (std::uint32_t b = 0; b < extent.blocks; ++b) {
    if (memory_.block_word(extent, b).load(std::memory_order_acquire) & shm::block::kUsed)
      return false;
  }
  return true;
}

bool ObjectMemory::pinned(std::uint32_t extent) const {
  for (std::uint32_t p = 0; p < tables_.process_limit(); ++p) {
    if (memory_.pins(p, extent).load(std::memory_order_seq_cst) != 0) return true;
  }
  return false;
}

bool ObjectMemory::leave(std::uint32_t extent) {
  if (pinned(extent)) return false;
  memory_.extent(extent).residency.store(static_cast<std::uint32_t>(Residency::Leaving),
                                         std::memory_order_seq_cst);
  // Again: who pinned before it could see Leaving is seen here (shm/extents.h).
  if (!pinned(extent)) return true;
  settle(extent, Residency::Resident);
  return false;
}

void ObjectMemory::settle(std::uint32_t extent, Residency residency) {
  Extent& e = memory_.extent(extent);
  e.residency.store(static_cast<std::uint32_t>(residency), std::memory_order_seq_cst);
  shm::futex_wake_all(shm::futex_word(e.residency));
}

// Under pressure: what processes keep for reuse and do not use.
void ObjectMemory::reclaim_unused(Time now) {
  if (now < reclaimed_at_ + 1ms + next_extent_ * kLookCost) return;
  reclaimed_at_ = now;
  for (std::uint32_t i = 0; i < next_extent_; ++i) {
    Extent& e = memory_.extent(i);
    if (e.in_use.load(std::memory_order_relaxed) &&
        e.lessee.load(std::memory_order_relaxed) != shm::kNone)
      try_reclaim(i);
  }
}

bool ObjectMemory::try_reclaim(std::uint32_t i) {
  Extent& e = memory_.extent(i);
  if (!unused(e)) return false;
  switch (static_cast<Residency>(e.residency.load())) {
    case Residency::Resident:
      if (!leave(i)) return false;
      if (!unused(e)) {  // its lessee took a block before we looked at its pins
        settle(i, Residency::Resident);
        return false;
      }
      break;
    case Residency::Spilled:
    case Residency::Lost: break;  // no lessee can take a block there
    default: return false;  // the disk is at it
  }
  free_extent(i);
  return true;
}

void ObjectMemory::free_extent(std::uint32_t i) {
  Extent& e = memory_.extent(i);
  const bool has_pages = static_cast<Residency>(e.residency.load()) == Residency::Leaving;
  plan_.left(i);
  e.in_use.store(0);
  e.lessee.store(shm::kNone);
  if (has_pages) {
    resident_ -= e.size;
    MOBULA_CHECK(warm_.release(e.offset, e.size));
  } else {
    if (on_disk_.contains(i)) {
      spilled_ -= e.size;
      forget_disk(i);
    }
    MOBULA_CHECK(cold_.release(e.offset, e.size));
  }
  settle(i, Residency::Resident);
  leased_to_.erase(i);
  // The words stay the entry's: a late compare-and-swap on behalf of an old tenant must find a
  // block's word there, and fail. For the same reason entries are used again in turn.
  free_extents_.insert(free_extents_.begin(), i);
}

void ObjectMemory::process_died(std::uint32_t process) {
  tables_.clear_pins(process);
  std::vector<std::uint32_t> its;
  bool any_used = false;
  for (const auto& [i, lessee] : leased_to_) {
    if (lessee != process) continue;
    its.push_back(i);
    any_used = any_used || !unused(memory_.extent(i));
  }
  if (any_used) {
    std::set<std::pair<std::uint32_t, std::uint32_t>> named;
    for (const std::uint32_t segment : tables_.record_segments()) {
      const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
      for (std::uint32_t r = 0; r < ready; ++r) {
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
    for (std::uint32_t i = 0; i < tables_.stream_limit(); ++i) {
      shm::Stream& stream = shm::stream::at(memory_, i);
      if (stream.record.load(std::memory_order_acquire) == 0) continue;
      for (shm::StreamSlot& slot : stream.slots) {
        const std::uint64_t word = slot.word.load(std::memory_order_acquire);
        if (shm::slot::state(word) != shm::slot::State::Free && (slot.flags & shm::kItemStored))
          named.emplace(slot.at().extent, slot.at().block_and_generation);
      }
    }
    for (const std::uint32_t i : its) {
      Extent& e = memory_.extent(i);
      for (std::uint32_t b = 0; b < e.blocks; ++b) {
        std::atomic<std::uint32_t>& w = memory_.block_word(e, b);
        const std::uint32_t seen = w.load(std::memory_order_acquire);
        if (!(seen & shm::block::kUsed)) continue;
        const std::uint32_t generation = shm::block::generation(seen);
        if (!named.contains({i, b << 20 | generation})) shm::give_block(w, generation);
      }
    }
  }
  for (const std::uint32_t i : its) {
    leased_to_[i] = shm::kNone;
    Extent& e = memory_.extent(i);
    if (e.lessee.load() != process) continue;  // spilled before: it is among the orphans already
    e.lessee.store(shm::kNone);
    orphans_.push_back(i);
  }
  sweep();
}

// Takes back orphans that nobody uses any more.
void ObjectMemory::sweep() {
  for (std::size_t looks = std::min(orphans_.size(), kSweepBudget); looks > 0; --looks) {
    const std::uint32_t i = orphans_.front();
    orphans_.pop_front();
    if (!try_reclaim(i)) orphans_.push_back(i);
  }
}

// ---- To disk and back.

// What of it is in use: only that is written.
std::vector<ByteRange> ObjectMemory::runs_of(Extent& extent) const {
  std::vector<ByteRange> runs;
  for (std::uint32_t b = 0; b < extent.blocks; ++b) {
    if (!(memory_.block_word(extent, b).load(std::memory_order_acquire) & shm::block::kUsed))
      continue;
    const std::uint64_t offset = extent.offset + b * extent.block_size;
    if (!runs.empty() && runs.back().offset + runs.back().size == offset) {
      runs.back().size += extent.block_size;
    } else {
      runs.push_back({offset, extent.block_size});
    }
  }
  return runs;
}

void ObjectMemory::spill(std::uint64_t bytes, Time now) {
  if (!spiller_ || leaving_ >= kInFlightMax) return;
  const auto chosen = plan_.choose(std::min(bytes, kInFlightMax), [&](std::uint32_t i) {
    // Pins last: they are asked of every process, and who has pinned it has touched it.
    if (memory_.extent(i).touched.exchange(0, std::memory_order_relaxed))
      return core::SpillPlan::Use::Lately;
    return pinned(i) ? core::SpillPlan::Use::Now : core::SpillPlan::Use::None;
  });
  for (const std::uint32_t i : chosen) begin_spill(i, now);
}

void ObjectMemory::begin_spill(std::uint32_t i, Time now) {
  Extent& e = memory_.extent(i);
  if (!leave(i)) return plan_.arrived(i, e.size);
  DiskJob job;
  job.order = DiskJob::Order::Write;
  job.extent = i;
  job.whole = {e.offset, e.size};
  job.runs = runs_of(e);
  for (const ByteRange& run : job.runs) job.bytes += run.size;
  if (job.bytes == 0) {
    if (e.lessee.load() == shm::kNone)  // the next sweep takes it back
      return settle(i, Residency::Resident);
    return free_extent(i);
  }
  const auto place = file_.allocate(job.bytes);
  if (!place) {
    disk_refused_until_ = now + kDiskPause;
    disk_problem_ = "Config.spill_limit allows " + std::to_string(file_.end()) + " bytes, " +
                    std::to_string(file_.end() - file_.free_bytes()) +
                    " are in use, and the next objects to go need " + std::to_string(job.bytes);
    plan_.arrived(i, e.size);
    return settle(i, Residency::Resident);
  }
  // Its lessee finds it gone, and takes no further block there.
  if (e.lessee.exchange(shm::kNone) != shm::kNone) orphans_.push_back(i);
  job.file_offset = *place;
  leaving_ += e.size;
  spiller_->post(std::move(job));
}

void ObjectMemory::end_spill(DiskResult result, Time now) {
  const std::uint32_t i = result.job.extent;
  Extent& e = memory_.extent(i);
  leaving_ -= e.size;
  disk_failed_ = result.error != 0;
  if (result.error == 0) {
    resident_ -= e.size;
    spilled_ += e.size;
    spilled_ever_ += result.job.bytes;
    on_disk_[i] = std::move(result.job);
    return settle(i, Residency::Spilled);
  }
  MOBULA_CHECK(file_.release(result.job.file_offset, result.job.bytes));
  disk_refused_until_ = now + kDiskPause;
  disk_problem_ = std::string(::strerror(result.error)) + " in " + spiller_->folder();
  plan_.arrived(i, e.size);
  settle(i, Residency::Resident);
}

ObjectMemory::Answer ObjectMemory::restore(std::uint32_t process, std::uint32_t i, Time now) {
  if (i >= next_extent_) return {Outcome::Never, 0, "there is no such extent"};
  Extent& e = memory_.extent(i);
  const core::MemoryLine::Asker asker{process, e.size};
  switch (static_cast<Residency>(e.residency.load())) {
    case Residency::Spilled: break;
    case Residency::Lost:
      line_.leave(asker);
      return {Outcome::Lost, 0,
              "an object that was spilled to disk came back damaged (its checksum is wrong), or "
              "could not be read"};
    default:  // another reader was faster
      line_.leave(asker);
      return {Outcome::Granted, i, {}};
  }
  if (now < memory_refused_until_) {
    return {Outcome::NoMemory, 0,
            "the machine has no memory left to bring " + std::to_string(e.size) +
                " bytes of the object store back from disk"};
  }
  if (!line_.its_turn(asker, now)) return {Outcome::Later, 0, {}};
  if (!make_room(e.size, now)) return must_wait(asker, now);
  line_.leave(asker);
  drop_warm_for(e.size);
  resident_ += e.size;
  settle(i, Residency::Restoring);
  DiskJob job = on_disk_.at(i);
  job.order = DiskJob::Order::Read;
  spiller_->post(std::move(job));
  return {Outcome::Granted, i, {}};
}

void ObjectMemory::end_restore(DiskResult result, Time now) {
  const std::uint32_t i = result.job.extent;
  Extent& e = memory_.extent(i);
  if (result.error == ENOMEM) {
    memory_.drop_pages(e.offset, e.size);
    resident_ -= e.size;
    memory_refused_until_ = now + kDiskPause;
    return settle(i, Residency::Spilled);
  }
  spilled_ -= e.size;
  forget_disk(i);
  if (result.error != 0 || result.damaged) {
    memory_.drop_pages(e.offset, e.size);
    resident_ -= e.size;
    return settle(i, Residency::Lost);
  }
  restored_ever_ += result.job.bytes;
  e.touched.store(1, std::memory_order_relaxed);
  plan_.arrived(i, e.size);
  settle(i, Residency::Resident);
}

void ObjectMemory::forget_disk(std::uint32_t i) {
  DiskJob job = std::move(on_disk_.extract(i).mapped());
  job.order = DiskJob::Order::Discard;
  MOBULA_CHECK(file_.release(job.file_offset, job.bytes));
  disk_refused_until_ = {};  // there is more room now
  spiller_->post(std::move(job));
}

// Only as much as was leased: what is brought back does not drive out others while all of it fits.
void ObjectMemory::spill_ahead(Time now) {
  const auto ahead =
      static_cast<std::uint64_t>(static_cast<double>(memory_.object_capacity()) * kSpillAhead);
  if (resident_ - leaving_ <= ahead) fresh_ = 0;
  if (!spiller_ || fresh_ == 0 || now < spilled_ahead_at_ + kAheadPause ||
      now < disk_refused_until_)
    return;
  spilled_ahead_at_ = now;
  reclaim_unused(now);
  if (resident_ - leaving_ <= ahead) return;
  const std::uint64_t bytes = std::min(resident_ - leaving_ - ahead, fresh_);
  fresh_ -= bytes;
  spill(bytes, now);
}

bool ObjectMemory::look_after(Time now) {
  if (spiller_) {
    for (DiskResult& result : spiller_->take_results()) {
      result.job.order == DiskJob::Order::Write ? end_spill(std::move(result), now)
                                                : end_restore(std::move(result), now);
    }
  }
  if (now >= swept_at_ + 1ms + orphans_.size() * kLookCost) {
    swept_at_ = now;
    sweep();
  }
  spill_ahead(now);
  return !orphans_.empty();
}

std::uint64_t ObjectMemory::bytes_available() const {
  std::uint64_t bytes = bytes_free();
  for (std::uint32_t i = 0; i < next_extent_; ++i) {
    Extent& e = memory_.extent(i);
    if (e.in_use.load() && e.lessee.load() != shm::kNone && unused(e)) bytes += e.size;
  }
  return bytes;
}

ObjectMemory::Counts ObjectMemory::counts() const {
  return {memory_.object_capacity(),        resident_,     warm_.free_bytes(), spilled_,
          file_.end() - file_.free_bytes(), spilled_ever_, restored_ever_};
}

}  // namespace mobula::node
