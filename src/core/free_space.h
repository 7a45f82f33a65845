// Decides where in a range of bytes the next object goes.
//
// Best fit keeps the large extents whole. Among equally good fits the one freed last wins,
// because its pages are still mapped and its lines may still be cached; among those that were
// never used, the lowest address, so that the range stays untouched for as long as possible.
//
//   [used][free: 8192, warm][used][free: 8192][used][free: all the rest, never touched]
//
// It knows offsets only and touches no memory. Every operation is O(log n) in the number of
// free extents, plus, for an alignment above kGranule, the extents too small to hold it aligned.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>

namespace mobula::core {

class FreeSpace {
 public:
  // Sizes are rounded up to this many bytes and offsets are multiples of it: a page, so that
  // each object can be mapped and dropped on its own.
  static constexpr std::uint64_t kGranule = 4096;

  FreeSpace() = default;
  // The range [0, end) is free; end is rounded down to a granule.
  explicit FreeSpace(std::uint64_t end);

  // The offset of `size` bytes that are now taken; nothing if no extent is large enough, the
  // size is 0, or the alignment is not a power of two. An alignment below kGranule counts as it.
  [[nodiscard]] std::optional<std::uint64_t> allocate(std::uint64_t size,
                                                      std::uint64_t alignment = kGranule);

  // Frees what one allocate() returned, or any granules of it. False, with nothing changed, if
  // a byte of it is free already, lies beyond the end, or the offset is not a granule's.
  [[nodiscard]] bool release(std::uint64_t offset, std::uint64_t size);

  // Moves the end up; the new bytes are free and cold. False if it would move down.
  [[nodiscard]] bool grow(std::uint64_t new_end);

  [[nodiscard]] std::uint64_t end() const { return end_; }
  [[nodiscard]] std::uint64_t free_bytes() const { return free_bytes_; }
  // The size in bytes of the largest extent.
  [[nodiscard]] std::uint64_t largest() const;
  // 0 when all free bytes are one extent (or none is free), near 1 when they are scattered.
  [[nodiscard]] double fragmentation() const;
  // The number of free extents.
  [[nodiscard]] std::size_t extents() const { return by_offset_.size(); }

 private:
  struct Extent {
    std::uint64_t size;
    std::uint64_t freed_at;  // counts releases; 0: never used
  };
  struct Fit {  // the order in which extents are preferred
    std::uint64_t size;
    std::uint64_t freed_at;
    std::uint64_t offset;
    bool operator<(const Fit& other) const;
  };

  void insert(std::uint64_t offset, Extent extent);
  void erase(std::map<std::uint64_t, Extent>::iterator extent);
  void put_back(std::uint64_t offset, Extent extent);

  std::map<std::uint64_t, Extent> by_offset_;
  std::set<Fit> by_fit_;
  std::uint64_t end_ = 0;
  std::uint64_t free_bytes_ = 0;
  std::uint64_t releases_ = 0;
};

}  // namespace mobula::core
