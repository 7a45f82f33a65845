// Hands out the object memory in extents, and moves extents to disk and back when it gets scarce.
//
// Objects have far more addresses than bytes (shm/layout.h), so two things are counted apart.
// Bytes: extents that are in memory, and `warm` free ranges whose pages are kept for the next one,
// are never more than the capacity. Addresses: an extent keeps its own from its lease until all of
// its blocks are free, also while it is on disk; so no record, and nobody who reads one, ever
// learns that it was moved.
//
// A request is met from warm ranges, then by dropping warm ranges for fresh pages, then by what
// processes lease and do not use, then by spilling what was not used for longest
// (core/spill_plan.h). Who has to wait asks again, and core/memory_line.h says whose turn it is.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/free_space.h"
#include "core/memory_line.h"
#include "core/spill_plan.h"
#include "node/spiller.h"
#include "node/tables.h"
#include "shm/memory.h"

namespace mobula::node {

class ObjectMemory {
 public:
  using Time = std::chrono::nanoseconds;

  // `spiller`: nullptr: nothing is ever spilled. `spill_limit`: bytes of disk at most.
  ObjectMemory(shm::Memory& memory, Tables& tables, Spiller* spiller, std::uint64_t spill_limit);

  enum class Outcome {
    Granted,
    Later,   // memory is being made free: ask again
    Full,    // nothing can be spilled now
    Never,   // more than there is at all
    NoDisk,  // the disk took no more
    NoMemory,  // the machine gave no pages
    Lost,    // what came back from disk is not what was written
  };
  struct Answer {
    Outcome outcome = Outcome::Granted;
    std::uint32_t extent = 0;
    std::string text;  // for people, unless granted or later
  };
  // Memory for a process, pinned once for it: `block_size` 0: one block. `spillable`: the daemon
  // never reads it (values that contain refs are read when they are dropped, and stay).
  Answer lease(std::uint32_t process, std::uint64_t size, std::uint64_t block_size, bool spillable,
               Time now);
  // Brings an extent back from disk; granted: it is there, or on its way.
  Answer restore(std::uint32_t process, std::uint32_t extent, Time now);

  // Its pins end; its extents have no lessee any more. Blocks that no record names are given back.
  void process_died(std::uint32_t process);

  // Takes in what the disk has done, takes back memory of extents that nobody leases or uses any
  // more, and spills ahead of need. True: it wants to be called again before long.
  bool look_after(Time now);

  struct Counts {
    std::uint64_t capacity = 0;
    std::uint64_t leased = 0;  // in memory, whether or not all their blocks are in use
    std::uint64_t warm = 0;  // free, with pages
    std::uint64_t spilled = 0;  // of objects' memory that is on disk
    std::uint64_t on_disk = 0;  // in the file
    std::uint64_t spilled_ever = 0, restored_ever = 0;
  };
  Counts counts() const;
  std::uint32_t extent_limit() const { return next_extent_; }
  // Bytes that could be leased without spilling: what is free, and what is leased and not used.
  std::uint64_t bytes_available() const;

 private:
  Answer must_wait(const core::MemoryLine::Asker& asker, Time now);
  bool make_room(std::uint64_t bytes, Time now);
  std::optional<std::uint64_t> take_range(std::uint64_t size);
  void drop_warm_for(std::uint64_t size);
  void reclaim_unused(Time now);
  bool try_reclaim(std::uint32_t extent);
  void free_extent(std::uint32_t extent);
  void sweep();
  void spill_ahead(Time now);

  std::uint64_t bytes_free() const { return memory_.object_capacity() - resident_; }
  bool unused(shm::Extent& extent) const;
  bool pinned(std::uint32_t extent) const;
  bool leave(std::uint32_t extent);  // Resident --> Leaving, unless it is pinned
  void settle(std::uint32_t extent, shm::Residency residency);
  std::vector<ByteRange> runs_of(shm::Extent& extent) const;
  void spill(std::uint64_t bytes, Time now);
  void begin_spill(std::uint32_t extent, Time now);
  void end_spill(DiskResult result, Time now);
  void end_restore(DiskResult result, Time now);
  void forget_disk(std::uint32_t extent);

  shm::Memory& memory_;
  Tables& tables_;
  Spiller* spiller_;
  core::FreeSpace cold_;  // addresses without pages
  core::FreeSpace warm_;  // free addresses with pages
  core::FreeSpace file_;
  core::SpillPlan plan_;  // extents that may be spilled

  std::uint64_t resident_ = 0;  // bytes of extents in memory, also of those on their way
  std::uint64_t leaving_ = 0;  // of them, on their way to disk
  std::uint64_t spilled_ = 0;
  std::uint64_t spilled_ever_ = 0, restored_ever_ = 0;

  std::uint32_t next_extent_ = 0;
  std::vector<std::uint32_t> free_extents_;
  std::map<std::uint32_t, std::uint64_t> words_of_entry_;  // by extent: room for how many words
  std::unordered_map<std::uint32_t, std::uint32_t> leased_to_;  // also after it lost the lease
  std::unordered_map<std::uint32_t, DiskJob> on_disk_;  // by extent: how it was written
  std::deque<std::uint32_t> orphans_;  // extents without a lessee, looked at in turn
  core::MemoryLine line_;  // who waits for memory
  std::uint64_t fresh_ = 0;  // bytes leased since the store was last below kSpillAhead
  Time reclaimed_at_{};
  Time swept_at_{};
  Time spilled_ahead_at_{};
  Time disk_refused_until_{}, memory_refused_until_{};
  bool disk_failed_ = false;  // when it was last written
  std::string disk_problem_;
};

}  // namespace mobula::node
