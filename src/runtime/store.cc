#include "runtime/store.h"

#include <time.h>

#include <algorithm>
#include <string>

#include "runtime/ledger.h"
#include "runtime/process.h"

namespace mobula::runtime {
namespace {

constexpr std::uint64_t kGraceNs = 5'000'000'000;  // how long a put waits for a full store
constexpr std::uint64_t kRetryNs = 2'000'000;

// Block sizes: 256 B, 384 B, 512 B, 768 B, ... 256 KiB: at most a third is lost to rounding.
constexpr std::uint64_t block_size_of(int cls) {
  return (cls % 2 == 0 ? std::uint64_t{256} : std::uint64_t{384}) << (cls / 2);
}

int class_of(std::uint64_t size) {
  int cls = 0;
  while (block_size_of(cls) < size) ++cls;
  return cls;
}

void sleep_ns(std::uint64_t ns) {
  const timespec t{0, static_cast<long>(ns)};
  ::nanosleep(&t, nullptr);
}

}  // namespace

Store::Place Store::place_of(std::uint32_t extent, std::uint32_t block, std::uint32_t generation,
                             std::uint64_t size) const {
  const shm::Extent& e = process_.memory().extent(extent);
  shm::StoredAt at{size, extent, block << 20 | generation};
  return {at, process_.memory().object_window(e.offset + block * e.block_size)};
}

const std::byte* Store::read(const shm::StoredAt& at) const {
  return process_.memory().object(process_.memory().object_offset(at));
}

// The daemon may have taken an extent back for want of memory, and leased its entry again, even to
// us, for blocks of another size. While we hold the mutex nothing of ours is leased anew, so the
// answer stays true.
bool Store::still_ours(const shm::Extent& extent, std::uint64_t block_size) const {
  return extent.lessee.load(std::memory_order_acquire) == process_.index() &&
         (block_size == 0 ? extent.blocks == 1 && extent.block_size == extent.size
                          : extent.block_size == block_size);
}

void Store::forget_lost_leases(SizeClass& cls) {
  std::erase_if(cls.leases, [&](const Lease& lease) {
    return !still_ours(process_.memory().extent(lease.extent), cls.block_size);
  });
  cls.current = 0;
}

bool Store::take_from(SizeClass& cls, std::uint64_t size, Place& place) {
  shm::Memory& memory = process_.memory();
  // Each lease is searched from where the last search ended, the current one first.
  for (std::size_t tried = 0; tried < cls.leases.size(); ++tried) {
    Lease& lease = cls.leases[(cls.current + tried) % cls.leases.size()];
    shm::Extent& extent = memory.extent(lease.extent);
    if (!still_ours(extent, cls.block_size)) continue;
    for (std::uint32_t i = 0; i < extent.blocks; ++i) {
      const std::uint32_t block = lease.next_block;
      lease.next_block = block + 1 == extent.blocks ? 0 : block + 1;
      const std::uint32_t generation =
          shm::take_block(extent, memory.block_word(extent, block), process_.index());
      if (generation == shm::kNone) continue;
      cls.current = (cls.current + tried) % cls.leases.size();
      place = place_of(lease.extent, block, generation, size);
      return true;
    }
  }
  return false;
}

bool Store::take_large(std::uint64_t size, Place& place) {
  shm::Memory& memory = process_.memory();
  for (std::size_t i = large_.size(); i-- > 0;) {
    const std::uint32_t extent = large_[i];
    shm::Extent& e = memory.extent(extent);
    std::atomic<std::uint32_t>& w = memory.block_word(e, 0);
    if (!still_ours(e, 0)) {
      large_.erase(large_.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    if (e.size < size || e.size > 2 * size) continue;
    const std::uint32_t generation = shm::take_block(e, w, process_.index());
    if (generation == shm::kNone) continue;
    large_.erase(large_.begin() + static_cast<std::ptrdiff_t>(i));
    large_.push_back(extent);
    place = place_of(extent, 0, generation, size);
    return true;
  }
  return false;
}

std::uint32_t Store::lease(std::uint64_t size, std::uint64_t block_size) {
  const std::uint64_t give_up = now_ns() + kGraceNs;
  for (;;) {
    wire::Message message;
    message.kind = wire::Kind::LeaseExtent;
    message.c = size;
    message.d = block_size;
    process_.daemon().ask(message);
    if (message.status == wire::Status::Ok) {
      const shm::Extent& e = process_.memory().extent(message.a);
      if (process_.memory().open_window(e.offset, e.size)) return message.a;
      throw OutOfMemoryError("the machine has no memory left for " + std::to_string(e.size) +
                             " bytes of the object store");
    }
    if (message.status != wire::Status::StoreFull || now_ns() > give_up)
      throw ObjectStoreFullError(std::string(message.text_view()));
    std::atomic<std::uint32_t>& reason = process_.this_ledger().shared().wait.reason;
    reason.store(static_cast<std::uint32_t>(shm::WaitReason::Memory), std::memory_order_relaxed);
    process_.tidy();
    sleep_ns(kRetryNs);
    reason.store(0, std::memory_order_relaxed);
  }
}

Store::Place Store::allocate(std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  Place place{};
  if (size > kBlockMax) {
    if (!take_large(size, place)) {
      const std::uint32_t extent = lease(size, 0);
      std::erase(large_, extent);
      large_.push_back(extent);
      MOBULA_CHECK(take_large(size, place));
    }
  } else {
    SizeClass& cls = classes_[class_of(size)];
    if (!take_from(cls, size, place)) {
      const std::uint64_t block = block_size_of(class_of(size));
      cls.block_size = block;
      forget_lost_leases(cls);
      // The more is in use the larger the next lease, so that searches stay rare.
      const std::uint64_t blocks = std::uint64_t{64}
                                   << std::min<std::size_t>(cls.leases.size() / 4, 5);
      const std::uint32_t extent =
          lease(std::clamp<std::uint64_t>(block * blocks, 256 << 10, 4 << 20), block);
      // Its entry may have been ours before, with more blocks: the search begins anew.
      std::erase_if(cls.leases, [&](const Lease& old) { return old.extent == extent; });
      cls.leases.push_back({extent});
      cls.current = cls.leases.size() - 1;
      MOBULA_CHECK(take_from(cls, size, place));
    }
  }
  shm::crash_point(shm::CrashPoint::AllocateTaken);
  return place;
}

}  // namespace mobula::runtime
