// Hands out what lies in the control memory: entries of its tables, segments of records, rings.
//
// Its own bookkeeping is private to the daemon, so that no crash of another process can damage it.
// Pages are taken here, before anybody is told of them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/free_space.h"
#include "shm/memory.h"
#include "shm/ring.h"

namespace mobula::node {

class Tables {
 public:
  // Takes over freshly created memory and writes its header.
  Tables(shm::Memory& memory, std::uint64_t session, std::uint32_t cores);

  // All return nothing when a limit or the machine's memory is reached.
  std::optional<std::uint32_t> open_process(shm::ProcessRole role);
  void close_process(std::uint32_t process);
  std::optional<std::uint32_t> open_participant(std::uint32_t process);
  void close_participant(std::uint32_t participant);
  std::optional<std::uint32_t> lease_segment(std::uint32_t participant);
  std::optional<std::uint32_t> lease_holds(std::uint32_t process, std::uint32_t number);
  void return_holds(std::uint32_t process);
  std::optional<std::uint32_t> lease_stream(std::uint32_t process);
  void return_streams(std::uint32_t process);  // empty ones
  bool lease_journal(std::uint32_t cls, std::uint32_t number);
  void return_journal(std::uint32_t cls);
  std::optional<std::uint32_t> open_class();
  void close_class(std::uint32_t cls) { free_classes_.push_back(cls); }
  std::optional<std::uint64_t> open_ring(std::uint32_t participant, std::uint32_t cls);
  std::optional<std::uint64_t> ring_storage(std::uint64_t entries);
  std::optional<std::uint64_t> metrics_page() { return take_heap(shm::kPage); }
  // Takes the pages of one segment ahead, when there is time, for a ledger that has filled its
  // first.
  void prepare_segment();

  // Entries for `extents` extents, and a pin count of each process for each of them.
  bool cover_extents(std::uint32_t extents);
  void clear_pins(std::uint32_t process);
  // Heap offset of as many block words, all 0.
  std::optional<std::uint64_t> block_words(std::uint32_t blocks) { return take_heap(blocks * 4); }

  const std::vector<std::uint32_t>& segments_of(std::uint32_t participant) const;
  const std::vector<std::uint32_t>& participants_of(std::uint32_t process) const;
  std::vector<std::uint32_t> record_segments() const;
  std::uint32_t segment_limit() const { return next_segment_; }
  std::uint32_t process_limit() const { return next_process_; }
  std::uint32_t class_limit() const { return next_class_; }
  std::uint32_t participant_limit() const { return next_participant_; }
  std::uint32_t stream_limit() const { return next_stream_; }

 private:
  std::optional<std::uint32_t> fresh_segment(std::uint32_t records);
  bool ensure(std::size_t end, std::size_t begin, std::size_t& populated);
  bool cover_pins(std::uint32_t process, std::size_t from_page);
  std::optional<std::uint64_t> take_heap(std::uint64_t size);

  shm::Memory& memory_;
  std::byte* base_;
  core::FreeSpace heap_;
  std::uint32_t next_process_ = 0;
  std::uint32_t next_participant_ = 1;  // 0 is nobody in a hold count
  std::uint32_t next_class_ = 0;
  std::uint32_t next_segment_ = 0;
  std::uint32_t next_stream_ = 0;
  std::optional<std::uint32_t> prepared_segment_;  // has all its pages, and is nobody's
  std::size_t populated_processes_ = 0, populated_participants_ = 0, populated_classes_ = 0,
              populated_extents_ = 0, populated_owners_ = 0, populated_streams_ = 0;
  std::size_t pin_pages_ = 0;  // of each process's pin counts
  std::vector<std::uint64_t> free_journal_;  // chunks of journals
  std::vector<std::uint32_t> free_processes_, free_participants_, free_classes_, free_segments_,
      free_holds_, free_streams_;
  std::map<std::uint32_t, std::vector<std::uint32_t>> segments_;  // by participant
  std::map<std::uint32_t, std::vector<std::uint32_t>> participants_;  // by process
  std::map<std::uint32_t, std::vector<std::uint32_t>> streams_;  // by process
};

}  // namespace mobula::node
