// One process's view of a session's two memories: control (records, rings, tables) and objects.
//
// Objects are mapped twice: a read-only view, into which all public views point, and a window in
// which only the extents leased to this process are writable. A stray write into a value faults in
// its author.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "shm/extents.h"
#include "shm/layout.h"
#include "shm/record.h"

namespace mobula::shm {

class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { unmap(); }

  // Makes the two memfds, sealed against shrinking and growing. Returns false with errno set.
  static bool create(std::size_t object_capacity, int* control_fd, int* object_fd);

  // Maps both. `daemon`: the object window is writable as a whole. Returns nullptr, or what is
  // wrong.
  const char* map(int control_fd, int object_fd, std::size_t object_capacity, bool daemon);
  // The control memory alone, to look at: any write to it faults.
  const char* map_to_read(int control_fd);
  void unmap();
  bool mapped() const { return control_ != nullptr; }

  ControlHeader& header() const { return *reinterpret_cast<ControlHeader*>(control_); }
  Process& process(std::uint32_t i) const { return at<Process>(ControlLayout::kProcesses, i); }
  Participant& participant(std::uint32_t i) const {
    return at<Participant>(ControlLayout::kParticipants, i);
  }
  SchedulingClass& scheduling_class(std::uint32_t i) const {
    return at<SchedulingClass>(ControlLayout::kClasses, i);
  }
  Extent& extent(std::uint32_t i) const { return at<Extent>(ControlLayout::kExtents, i); }
  // How often threads of the process have pinned the extent.
  std::atomic<std::uint32_t>& pins(std::uint32_t process, std::uint32_t extent) const {
    return at<std::atomic<std::uint32_t>>(
        ControlLayout::kPins + process * ControlLayout::kPinsOfProcess, extent);
  }
  Record& record(std::uint32_t slot) const { return at<Record>(ControlLayout::kRecords, slot); }
  // Which participant a segment of records is leased to; kNone: none. Written by the daemon.
  std::atomic<std::uint32_t>& segment_owner(std::uint32_t segment) const {
    return *reinterpret_cast<std::atomic<std::uint32_t>*>(control_ + ControlLayout::kSegments +
                                                          segment * 8);
  }
  std::byte* stream(std::uint32_t i) const {
    return control_ + ControlLayout::kStreams + i * kStreamSize;
  }
  // How many records of a segment have their pages; nobody reads beyond. Written by the daemon
  // before the lease, then by the lessee, which takes the pages for more before it uses them.
  std::atomic<std::uint32_t>& segment_ready(std::uint32_t segment) const {
    return *reinterpret_cast<std::atomic<std::uint32_t>*>(control_ + ControlLayout::kSegments +
                                                          segment * 8 + 4);
  }
  std::byte* heap(std::uint64_t offset) const { return control_ + ControlLayout::kHeap + offset; }
  std::byte* segment(std::uint32_t i) const {
    return control_ + ControlLayout::kRecords + i * kSegmentSize;
  }

  const std::byte* object(std::uint64_t offset) const { return objects_ + offset; }
  std::byte* object_window(std::uint64_t offset) const { return window_ + offset; }
  std::size_t object_capacity() const { return object_capacity_; }
  // What a user sets to have more of it: the session's option or, where the session is there for a
  // detached actor, what its creator was started with.
  const char* object_capacity_setting() const {
    return header().hosts.load(std::memory_order_relaxed) == 0
               ? "Config.object_store_memory"
               : "MOBULA_DETACHED_OBJECT_MEMORY in the environment of the detached actor's creator";
  }
  // The size of the address range in which objects lie (layout.h: kAddressesPerByte).
  std::size_t object_space() const { return object_capacity_ * kAddressesPerByte; }

  std::atomic<std::uint32_t>& block_word(Extent& e, std::uint32_t block) const {
    return e.blocks == 1 ? e.word_one
                         : reinterpret_cast<std::atomic<std::uint32_t>*>(heap(e.words))[block];
  }
  std::uint64_t object_offset(const StoredAt& at) const {
    const Extent& e = extent(at.extent);
    return e.offset + block_index(at) * e.block_size;
  }
  void give_back(const StoredAt& at) const {
    Extent& e = extent(at.extent);
    give_block(block_word(e, block_index(at)), block_generation(at));
  }

  // Takes the pages under [p, p + size) now, so that a later touch can neither fault for want of
  // memory nor be slow.
  static bool populate(void* p, std::size_t size);
  // The lessee of a segment uses its first `used` records and wants more: those that it came with,
  // then four times as many. How many are there now, as many as before if it is used up; nothing:
  // the machine has no memory left.
  std::optional<std::uint32_t> more_records(std::uint32_t segment, std::uint32_t used) const;
  // Makes a leased part of the object window writable (and its pages present), or unreachable
  // again.
  bool open_window(std::uint64_t offset, std::size_t size) const;
  void close_window(std::uint64_t offset, std::size_t size) const;
  // Gives the pages under a part of the object memory back to the system; the daemon only.
  void drop_pages(std::uint64_t offset, std::size_t size) const;

 private:
  template <class T>
  T& at(std::size_t table, std::size_t i) const {
    return reinterpret_cast<T*>(control_ + table)[i];
  }

  std::byte* control_ = nullptr;
  std::byte* objects_ = nullptr;
  std::byte* window_ = nullptr;
  std::size_t object_capacity_ = 0;
};

}  // namespace mobula::shm
