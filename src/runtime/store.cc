#include "runtime/store.h"

#include <time.h>

#include <algorithm>
#include <string>

#include "runtime/cancelling.h"
#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/ledger.h"
#include "runtime/process.h"
#include "shm/futex.h"

namespace mobula::runtime {
namespace {

using shm::Residency;

constexpr std::uint64_t kGraceNs = 5'000'000'000;  // how long a put waits for a store that is full
constexpr std::uint64_t kRetryNs = 2'000'000;
constexpr std::int64_t kSliceNs = 100'000'000;  // a sleep's bound: the daemon may have died

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

// Tools see that the thread waits for memory. It keeps its CPU: whoever got it would soon want
// memory, too, and hold or pin some of his own meanwhile.
class WaitsForMemory {
 public:
  explicit WaitsForMemory(Process& process)
      : reason_(process.this_ledger().shared().wait.reason),
        before_(reason_.load(std::memory_order_relaxed)) {
    reason_.store(static_cast<std::uint32_t>(shm::WaitReason::Memory), std::memory_order_relaxed);
  }
  ~WaitsForMemory() { reason_.store(before_, std::memory_order_relaxed); }
  WaitsForMemory(const WaitsForMemory&) = delete;
  WaitsForMemory& operator=(const WaitsForMemory&) = delete;

 private:
  std::atomic<std::uint32_t>& reason_;
  std::uint32_t before_;  // waits for memory are nested
};

}  // namespace

// ---- Reading.

const std::byte* Store::read(const shm::StoredAt& at, detail::Pin& pin) {
  shm::Memory& memory = process_.memory();
  const bool resident =
      shm::pin(memory.extent(at.extent), memory.pins(process_.index(), at.extent));
  pin = {process_.session(), at.extent};
  shm::crash_point(shm::CrashPoint::PinTaken);
  if (__builtin_expect(!resident, 0)) wait_until_resident(at.extent);
  return memory.object(memory.object_offset(at));
}

bool Store::read_ahead(const shm::StoredAt& at, detail::Pin& pin) {
  shm::Memory& memory = process_.memory();
  shm::Extent& extent = memory.extent(at.extent);
  const bool resident = shm::pin(extent, memory.pins(process_.index(), at.extent));
  detail::Pin pinned{process_.session(), at.extent};
  if (!resident && static_cast<Residency>(extent.residency.load()) == Residency::Spilled) {
    wire::Message message;
    message.kind = wire::Kind::RestoreExtent;
    message.a = at.extent;
    process_.daemon().ask(message);
    if (message.status != wire::Status::Ok) return false;
  }
  pin = std::move(pinned);
  return true;
}

// We have pinned it: once it is resident it stays.
void Store::wait_until_resident(std::uint32_t extent) {
  const WaitsForMemory reason(process_);
  std::atomic<std::uint32_t>& residency = process_.memory().extent(extent).residency;
  std::uint64_t give_up = 0;  // it may come back, for want of memory, after it was granted
  for (;;) {
    const std::uint32_t seen = residency.load(std::memory_order_seq_cst);
    switch (static_cast<Residency>(seen)) {
      case Residency::Resident: return;
      case Residency::Spilled:
      case Residency::Lost: {
        wire::Message message;
        message.kind = wire::Kind::RestoreExtent;
        message.a = extent;
        ask_until_granted(message, give_up);
        shm::crash_point(shm::CrashPoint::RestoreAsked);
        break;
      }
      case Residency::Leaving:
      case Residency::Restoring:
        shm::futex_wait(shm::futex_word(residency), seen, kSliceNs);
        if (!process_.daemon().alive()) throw_node_died();
    }
  }
}

// ---- Allocating.

bool Store::still_ours(const Shelf& shelf, const shm::Extent& extent,
                       std::uint64_t block_size) const {
  return extent.lessee.load(std::memory_order_acquire) == process_.index() &&
         shelf.holds_refs == (extent.spillable == 0) &&
         (block_size == 0 ? extent.blocks == 1 && extent.block_size == extent.size
                          : extent.block_size == block_size);
}

// The daemon may have taken the extent back for want of memory, spilled it, or leased its entry
// anew, even to another of our threads for other blocks. What is pinned and resident changes no
// more.
bool Store::take(const Shelf& shelf, std::uint32_t extent, std::uint32_t block,
                 std::uint64_t block_size, std::uint64_t size, Place& place) {
  shm::Memory& memory = process_.memory();
  shm::Extent& e = memory.extent(extent);
  const bool resident = shm::pin(e, memory.pins(process_.index(), extent));
  detail::Pin pin(process_.session(), extent);
  if (!resident || !still_ours(shelf, e, block_size) || block >= e.blocks || size > e.block_size)
    return false;
  const std::uint32_t generation = shm::take_block(memory.block_word(e, block));
  if (generation == shm::kNone) return false;
  place.at = {size, extent, block << 20 | generation};
  place.data = memory.object_window(e.offset + block * e.block_size);
  place.pin = std::move(pin);
  return true;
}

bool Store::take_from(const Shelf& shelf, SizeClass& cls, std::uint64_t size, Place& place) {
  shm::Memory& memory = process_.memory();
  // Each lease is searched from where the last search ended, the current one first.
  for (std::size_t tried = 0; tried < cls.leases.size(); ++tried) {
    const std::size_t number = (cls.current + tried) % cls.leases.size();
    Lease& lease = cls.leases[number];
    shm::Extent& extent = memory.extent(lease.extent);
    if (!still_ours(shelf, extent, cls.block_size)) continue;
    const std::uint32_t blocks = extent.blocks;
    for (std::uint32_t i = 0; i < blocks; ++i) {
      const std::uint32_t block = lease.next_block < blocks ? lease.next_block : 0;
      lease.next_block = block + 1;
      if (memory.block_word(extent, block).load(std::memory_order_relaxed) & shm::block::kUsed)
        continue;
      if (!take(shelf, lease.extent, block, cls.block_size, size, place)) break;
      cls.current = number;
      return true;
    }
  }
  return false;
}

// Looks at those used last, then at a few of the others in turn: a process may have a hundred
// thousand of them in use. What it misses the daemon takes back when memory is short.
bool Store::take_large(Shelf& shelf, std::uint64_t size, Place& place) {
  constexpr std::size_t kLooks = 32;  // of each
  std::vector<std::uint32_t>& large = shelf.large;
  const std::size_t others = large.size() - std::min(large.size(), kLooks);
  for (std::size_t i = large.size(); i > others; --i) {
    if (take_large_at(shelf, i - 1, size, place)) return true;
  }
  for (std::size_t looks = std::min(others, kLooks); looks > 0; --looks) {
    if (shelf.next_large >= large.size()) shelf.next_large = 0;
    if (take_large_at(shelf, shelf.next_large++, size, place)) return true;
  }
  return false;
}

// Forgets it if it is not ours any more: those behind it move up.
bool Store::take_large_at(Shelf& shelf, std::size_t i, std::uint64_t size, Place& place) {
  std::vector<std::uint32_t>& large = shelf.large;
  const std::uint32_t extent = large[i];
  const auto at = large.begin() + static_cast<std::ptrdiff_t>(i);
  const shm::Extent& e = process_.memory().extent(extent);
  if (!still_ours(shelf, e, 0)) {
    large.erase(at);
    return false;
  }
  if (e.size < size || e.size > 2 * size) return false;
  if (e.word_one.load(std::memory_order_relaxed) & shm::block::kUsed) return false;
  if (!take(shelf, extent, 0, 0, size, place)) return false;
  std::rotate(at, at + 1, large.end());  // the last used is last
  return true;
}

// Unlocked meanwhile: other threads need not wait for what this one waits for.
std::uint32_t Store::lease(const Shelf& shelf, std::uint64_t size, std::uint64_t block_size,
                           std::unique_lock<std::mutex>& lock, detail::Pin& pin) {
  lock.unlock();
  wire::Message message;
  message.kind = wire::Kind::LeaseExtent;
  message.b = shelf.holds_refs ? wire::kHoldsRefs : 0;
  message.c = size;
  message.d = block_size;
  std::uint64_t give_up = 0;
  ask_until_granted(message, give_up);
  pin = {process_.session(), message.a};  // the daemon has counted it
  const shm::Extent& e = process_.memory().extent(message.a);
  if (!process_.memory().open_window(e.offset, e.size)) {
    throw OutOfMemoryError("the machine has no memory left for " + std::to_string(e.size) +
                           " bytes of the object store");
  }
  lock.lock();
  return message.a;
}

void Store::ask_until_granted(wire::Message& message, std::uint64_t& give_up) {
  const wire::Kind kind = message.kind;
  const std::uint32_t a = message.a, b = message.b;
  for (;;) {
    process_.daemon().ask(message);
    switch (message.status) {
      case wire::Status::Ok: return;
      case wire::Status::Later: give_up = 0; break;
      case wire::Status::StoreFull:
      case wire::Status::OutOfDisk:
      case wire::Status::OutOfMemory:
        if (give_up == 0) give_up = now_ns() + kGraceNs;
        if (now_ns() < give_up) break;
        [[fallthrough]];
      default: throw_status(message);
    }
    {
      const WaitsForMemory reason(process_);
      process_.tidy();
      // Without the task's name, which may lie in arguments that are on disk as well.
      if (should_stop())
        throw TaskCancelledError("the task was cancelled while it waited for memory of the store");
      sleep_ns(kRetryNs);
    }
    message.kind = kind;  // the rest is as it was sent
    message.a = a;
    message.b = b;
    message.text_size = 0;
  }
}

Store::Place Store::allocate_large(Shelf& shelf, std::uint64_t size,
                                   std::unique_lock<std::mutex>& lock) {
  Place place;
  detail::Pin pin;
  while (!take_large(shelf, size, place)) {
    const std::uint32_t extent = lease(shelf, size, 0, lock, pin);
    std::erase(shelf.large, extent);
    shelf.large.push_back(extent);
  }
  return place;
}

Store::Place Store::allocate_small(Shelf& shelf, std::uint64_t size,
                                   std::unique_lock<std::mutex>& lock) {
  SizeClass& cls = shelf.classes[class_of(size)];
  const std::uint64_t block = block_size_of(class_of(size));
  cls.block_size = block;
  Place place;
  detail::Pin pin;
  while (!take_from(shelf, cls, size, place)) {
    std::erase_if(cls.leases, [&](const Lease& old) {
      return !still_ours(shelf, process_.memory().extent(old.extent), block);
    });
    // The more is in use the larger the next lease, so that searches stay rare.
    const std::uint64_t blocks = std::uint64_t{64}
                                 << std::min<std::size_t>(cls.leases.size() / 4, 5);
    const std::uint32_t extent = lease(
        shelf, std::clamp<std::uint64_t>(block * blocks, 256 << 10, 4 << 20), block, lock, pin);
    // Its entry may have been ours before, with more blocks: the search begins anew.
    std::erase_if(cls.leases, [&](const Lease& old) { return old.extent == extent; });
    cls.leases.push_back({extent});
    cls.current = cls.leases.size() - 1;
  }
  return place;
}

Store::Place Store::allocate(std::uint64_t size, bool holds_refs) {
  std::unique_lock lock(mutex_);
  Shelf& shelf = holds_refs ? with_refs_ : plain_;
  Place place =
      size > kBlockMax ? allocate_large(shelf, size, lock) : allocate_small(shelf, size, lock);
  shm::crash_point(shm::CrashPoint::AllocateTaken);
  return place;
}

}  // namespace mobula::runtime

namespace mobula::detail {

// A view may outlive its session: then there is nothing left to count.
void Pin::again() const noexcept {
  runtime::Process* process = runtime::current_process();
  if (process && process->session() == session_)
    process->memory().pins(process->index(), extent_).fetch_add(1, std::memory_order_relaxed);
}

void Pin::drop() const noexcept {
  runtime::Process* process = runtime::current_process();
  if (!process || process->session() != session_) return;
  shm::crash_point(shm::CrashPoint::PinReleased);
  shm::unpin(process->memory().pins(process->index(), extent_));
}

}  // namespace mobula::detail
