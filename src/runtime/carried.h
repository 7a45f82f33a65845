// How a call, or the creation of an actor, is carried from one session to another: a header, the
// encoded arguments, and the values of the refs among them.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mobula/codec.h"
#include "mobula/detail/runtime.h"
#include "mobula/options.h"
#include "wire/parcel.h"

// Where an actor may run is decided in its creator's session, and not carried (detached.cc).
template <>
struct mobula::codec<mobula::Scheduling> {
  static void encode(Writer&, const Scheduling&) {}
  static Scheduling decode(Reader&) { return {}; }
};

namespace mobula::runtime {

struct CarriedCall {
  std::uint64_t function = 0;
  std::string name;  // CallOptions.name; of a creation its class
  std::string group;  // CallOptions.concurrency_group
  std::uint64_t arguments = 0;  // their bytes
  std::vector<std::uint64_t> places;  // of refs' addresses among these, ascending
  std::vector<std::uint64_t> sizes;  // of the refs' values, which follow the arguments
  std::optional<int> retries = {};  // CallOptions.max_task_retries
};
struct CarriedActor {
  CarriedCall call;
  ActorOptions options;
};

template <class T>
std::vector<std::byte> encoded(const T& value) {
  Writer size(nullptr, 0);
  encode<T>(size, value);
  std::vector<std::byte> bytes(size.size());
  Writer writer(bytes.data(), bytes.size());
  encode<T>(writer, value);
  return bytes;
}

// A header with its size before it.
template <class Header>
std::vector<std::byte> carried_header(const Header& header) {
  const std::vector<std::byte> bytes = encoded(header);
  const std::uint64_t size = bytes.size();
  std::vector<std::byte> all(sizeof size + size);
  std::memcpy(all.data(), &size, sizeof size);
  std::memcpy(all.data() + sizeof size, bytes.data(), size);
  return all;
}

struct CarriedParts {
  wire::Part arguments;
  std::vector<wire::Part> values;
};
// Where the parts lie behind the header. Throws DecodeError when they are not what it says.
CarriedParts parts_of(const CarriedCall& call, wire::Part rest);

template <class Header>
Header read_header(wire::Part& bytes) {
  Reader size(bytes.data(), bytes.size());
  const auto n = size.raw<std::uint64_t>();
  Reader reader(size.bytes(n), n);
  Header header = decode<Header>(reader);
  bytes = bytes.subspan(sizeof n + n);
  return header;
}

// Arguments with the addresses of this session's refs in the place of others; made objects here.
class LocalArguments {
 public:
  LocalArguments(const CarriedCall& call, const CarriedParts& parts);
  ~LocalArguments();
  LocalArguments(const LocalArguments&) = delete;
  LocalArguments& operator=(const LocalArguments&) = delete;

  detail::Call call(const detail::FunctionInfo& function) const;
  static void write(void* arguments, Writer& writer);

 private:
  const CarriedCall& call_;
  const wire::Part arguments_;
  std::vector<RefAddress> refs_;
};

// An encoded value, as an object of this session; one count is the caller's.
RefAddress put_bytes(wire::Part bytes);

}  // namespace mobula::runtime
