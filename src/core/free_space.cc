#include "core/free_space.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace mobula::core {

namespace {

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

std::uint64_t round_down(std::uint64_t bytes) { return bytes - bytes % FreeSpace::kGranule; }

// Nothing if the result does not fit 64 bits.
std::optional<std::uint64_t> round_up(std::uint64_t bytes, std::uint64_t power_of_two) {
  const std::uint64_t mask = power_of_two - 1;
  if (bytes > kMost - mask) return std::nullopt;
  return (bytes + mask) & ~mask;
}

}  // namespace

bool FreeSpace::Fit::operator<(const Fit& other) const {
  if (size != other.size) return size < other.size;
  if (freed_at != other.freed_at) return freed_at > other.freed_at;
  return offset < other.offset;
}

FreeSpace::FreeSpace(std::uint64_t end) { static_cast<void>(grow(end)); }

std::optional<std::uint64_t> FreeSpace::allocate(std::uint64_t size, std::uint64_t alignment) {
  if (size == 0 || size > free_bytes_) return std::nullopt;
  if (alignment == 0 || (alignment & (alignment - 1)) != 0) return std::nullopt;
  alignment = std::max(alignment, kGranule);
  const std::optional<std::uint64_t> rounded = round_up(size, kGranule);
  if (!rounded) return std::nullopt;

  // freed_at is the largest there is, so that this comes before every extent of the size.
  for (auto fit = by_fit_.lower_bound({*rounded, kMost, 0}); fit != by_fit_.end(); ++fit) {
    const std::optional<std::uint64_t> start = round_up(fit->offset, alignment);
    if (!start) continue;
    const std::uint64_t before = *start - fit->offset;
    if (before > fit->size || fit->size - before < *rounded) continue;

    const auto taken = by_offset_.find(fit->offset);
    const std::uint64_t offset = taken->first;
    const Extent extent = taken->second;
    erase(taken);
    if (before > 0) insert(offset, {before, extent.freed_at});
    const std::uint64_t after = extent.size - before - *rounded;
    if (after > 0) insert(*start + *rounded, {after, extent.freed_at});
    return start;
  }
  return std::nullopt;
}

bool FreeSpace::release(std::uint64_t offset, std::uint64_t size) {
  if (size == 0 || size > end_ || offset % kGranule != 0) return false;
  const std::uint64_t rounded = *round_up(size, kGranule);  // end_ is a granule's, so it fits
  if (offset > end_ - rounded) return false;

  const auto next = by_offset_.lower_bound(offset);
  if (next != by_offset_.end() && next->first < offset + rounded) return false;
  if (next != by_offset_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second.size > offset) return false;
  }
  put_back(offset, {rounded, ++releases_});
  return true;
}

bool FreeSpace::grow(std::uint64_t new_end) {
  new_end = round_down(new_end);
  if (new_end < end_) return false;
  if (new_end > end_) put_back(end_, {new_end - end_, 0});
  end_ = new_end;
  return true;
}

std::uint64_t FreeSpace::largest() const { return by_fit_.empty() ? 0 : by_fit_.rbegin()->size; }

double FreeSpace::fragmentation() const {
  if (free_bytes_ == 0) return 0.0;
  return 1.0 - static_cast<double>(largest()) / static_cast<double>(free_bytes_);
}

void FreeSpace::insert(std::uint64_t offset, Extent extent) {
  by_offset_.emplace(offset, extent);
  by_fit_.insert({extent.size, extent.freed_at, offset});
  free_bytes_ += extent.size;
}

void FreeSpace::erase(std::map<std::uint64_t, Extent>::iterator extent) {
  by_fit_.erase({extent->second.size, extent->second.freed_at, extent->first});
  free_bytes_ -= extent->second.size;
  by_offset_.erase(extent);
}

// Merges with the free neighbours; the whole counts as freed when its warmest part was.
void FreeSpace::put_back(std::uint64_t offset, Extent extent) {
  auto next = by_offset_.lower_bound(offset);
  if (next != by_offset_.end() && next->first == offset + extent.size) {
    extent = {extent.size + next->second.size, std::max(extent.freed_at, next->second.freed_at)};
    const auto merged = next++;
    erase(merged);
  }
  if (next != by_offset_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second.size == offset) {
      extent = {extent.size + before->second.size,
                std::max(extent.freed_at, before->second.freed_at)};
      offset = before->first;
      erase(before);
    }
  }
  insert(offset, extent);
}

}  // namespace mobula::core
