#include "shm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace mobula::shm {
namespace {

int make_memfd(const char* name, std::size_t size) {
  const int fd = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0 ||
      ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    ::close(fd);
    return -1;
  }
  return fd;
}

std::byte* map_shared(int fd, std::size_t size, int protection) {
  void* p = ::mmap(nullptr, size, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (p == MAP_FAILED) return nullptr;
  ::madvise(p, size, MADV_DONTDUMP);  // a core of a worker is its own state, not the node's
  return static_cast<std::byte*>(p);
}

}  // namespace

bool Memory::create(std::size_t object_capacity, int* control_fd, int* object_fd) {
  if (object_capacity > ~std::size_t{0} / kAddressesPerByte) {
    errno = EFBIG;
    return false;
  }
  *control_fd = make_memfd("mobula-control", ControlLayout::kSize);
  if (*control_fd < 0) return false;
  *object_fd = make_memfd("mobula-objects", object_capacity * kAddressesPerByte);
  if (*object_fd >= 0) return true;
  ::close(*control_fd);
  return false;
}

const char* Memory::map_to_read(int control_fd) {
  control_ = map_shared(control_fd, ControlLayout::kSize, PROT_READ);
  if (!control_) return "cannot map the control memory";
  if (header().magic == kMagic && header().layout_hash == mobula::shm::layout_hash())
    return nullptr;
  unmap();
  return "the session's shared memory has another layout: it is of another build";
}

const char* Memory::map(int control_fd, int object_fd, std::size_t object_capacity, bool daemon) {
  control_ = map_shared(control_fd, ControlLayout::kSize, PROT_READ | PROT_WRITE);
  if (!control_) return "cannot map the control memory";
  if (!daemon && (header().magic != kMagic || header().layout_hash != mobula::shm::layout_hash())) {
    unmap();
    return "the node's shared memory has another layout: the program and mobula-node are of "
           "different builds";
  }
  object_capacity_ = object_capacity;
  objects_ = map_shared(object_fd, object_space(), PROT_READ);
  window_ = map_shared(object_fd, object_space(), daemon ? PROT_READ | PROT_WRITE : PROT_NONE);
  if (!objects_ || !window_) {
    unmap();
    return "cannot map the object store";
  }
  return nullptr;
}

void Memory::unmap() {
  if (control_) ::munmap(control_, ControlLayout::kSize);
  if (objects_) ::munmap(objects_, object_space());
  if (window_) ::munmap(window_, object_space());
  control_ = objects_ = window_ = nullptr;
}

bool Memory::populate(void* p, std::size_t size) {
  constexpr std::uintptr_t kPageMask = kPage - 1;
  const auto begin = reinterpret_cast<std::uintptr_t>(p) & ~kPageMask;
  const auto end = (reinterpret_cast<std::uintptr_t>(p) + size + kPageMask) & ~kPageMask;
  while (::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE) != 0) {
    if (errno != EINTR && errno != EAGAIN) return false;
  }
  return true;
}

std::optional<std::uint32_t> Memory::more_records(std::uint32_t segment, std::uint32_t used) const {
  if (used == kRecordsPerSegment) return used;
  const std::uint32_t there = segment_ready(segment).load(std::memory_order_relaxed);
  // 256, 1024, 4096.
  const std::uint32_t wanted =
      used < there ? there : std::min(std::max(4 * used, kRecordsAtFirst), kRecordsPerSegment);
  if (!populate(&record(segment * kRecordsPerSegment + used), (wanted - used) * kRecordSize))
    return {};
  segment_ready(segment).store(wanted, std::memory_order_release);
  return wanted;
}

bool Memory::open_window(std::uint64_t offset, std::size_t size) const {
  if (::mprotect(window_ + offset, size, PROT_READ | PROT_WRITE) != 0) return false;
  return populate(window_ + offset, size);
}

void Memory::close_window(std::uint64_t offset, std::size_t size) const {
  ::mprotect(window_ + offset, size, PROT_NONE);
}

void Memory::drop_pages(std::uint64_t offset, std::size_t size) const {
  while (::madvise(window_ + offset, size, MADV_REMOVE) != 0 &&
         (errno == EINTR || errno == EAGAIN)) {
  }
}

}  // namespace mobula::shm
