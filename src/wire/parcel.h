// A message with as many bytes as it takes: in its text if they fit, and otherwise in a file in
// memory that travels with it.
//
// Who receives one trusts nothing: the file must be one in memory, of the size that was told, and
// not above a limit; it is read, not mapped, so that who cuts it short meanwhile harms nobody.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "wire/local_protocol.h"

namespace mobula::wire {

using Part = std::span<const std::byte>;
inline Part part_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// A file in memory of these parts, one behind the other; -1 with errno set.
int make_bytes_file(const char* name, std::span<const Part> parts);

struct ParcelBytes {
  std::unique_ptr<std::byte[]> data;
  std::uint64_t size = 0;
  std::string_view text() const { return {reinterpret_cast<const char*>(data.get()), size}; }
};

// The whole of a file in memory, and closes it. False: it is none, or larger than `limit`.
bool take_bytes_file(int fd, std::uint64_t limit, ParcelBytes& bytes);

enum class Sent { Sent, Closed, NoMemory };
// Sets the message's text or its one descriptor, and waits for room at the other side.
Sent send_parcel(int socket, Message& message, std::span<const Part> parts);
// What a received message carries; takes its descriptors. False: it is malformed, or too large.
bool open_parcel(Message& message, std::uint64_t limit, ParcelBytes& bytes);

}  // namespace mobula::wire
