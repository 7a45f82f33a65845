#include "wire/parcel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <new>

namespace mobula::wire {

int make_bytes_file(const char* name, std::span<const Part> parts) {
  const int fd = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  for (Part part : parts) {
    while (!part.empty()) {
      const ssize_t n = ::write(fd, part.data(), part.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        const int problem = errno;
        ::close(fd);
        errno = problem;
        return -1;
      }
      part = part.subspan(static_cast<std::size_t>(n));
    }
  }
  return fd;
}

bool take_bytes_file(int fd, std::uint64_t limit, ParcelBytes& bytes) {
  // Only files in memory have seals: reading another one might wait for somebody.
  struct stat info{};
  bool good = ::fcntl(fd, F_GET_SEALS) >= 0 && ::fstat(fd, &info) == 0 && info.st_size >= 0 &&
              static_cast<std::uint64_t>(info.st_size) <= limit;
  if (good) {
    bytes.size = static_cast<std::uint64_t>(info.st_size);
    bytes.data.reset(new (std::nothrow) std::byte[bytes.size]);
    good = bytes.data != nullptr;
  }
  for (std::uint64_t done = 0; good && done < bytes.size;) {
    const ssize_t n =
        ::pread(fd, bytes.data.get() + done, bytes.size - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    good = n > 0;
    if (good) done += static_cast<std::uint64_t>(n);
  }
  ::close(fd);
  return good;
}

Sent send_parcel(int socket, Message& message, std::span<const Part> parts) {
  std::size_t size = 0;
  for (const Part& part : parts) size += part.size();
  message.descriptor_count = 0;
  message.text_size = 0;
  if (size <= kTextMax) {
    for (const Part& part : parts) {
      if (!part.empty()) std::memcpy(message.text + message.text_size, part.data(), part.size());
      message.text_size += static_cast<std::uint32_t>(part.size());
    }
    return send(socket, message) ? Sent::Sent : Sent::Closed;
  }
  const int fd = make_bytes_file("mobula-parcel", parts);
  if (fd < 0) return Sent::NoMemory;
  message.descriptor_count = 1;
  message.descriptors[0] = fd;
  bool sent = false;
  // The kernel bounds how many descriptors of a user are on their way.
  while (!(sent = send(socket, message)) && errno == ETOOMANYREFS) ::poll(nullptr, 0, 1);
  ::close(fd);
  message.descriptor_count = 0;
  return sent ? Sent::Sent : Sent::Closed;
}

bool open_parcel(Message& message, std::uint64_t limit, ParcelBytes& bytes) {
  if (message.descriptor_count == 1 && message.text_size == 0) {
    message.descriptor_count = 0;
    return take_bytes_file(message.descriptors[0], limit, bytes);
  }
  const bool good = message.descriptor_count == 0 && message.text_size <= limit;
  message.close_descriptors();
  if (!good) return false;
  bytes.size = message.text_size;
  bytes.data.reset(new std::byte[bytes.size]);
  if (bytes.size != 0) std::memcpy(bytes.data.get(), message.text, bytes.size);
  return true;
}

}  // namespace mobula::wire
