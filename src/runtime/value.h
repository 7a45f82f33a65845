// How encoded values lie in records: in the result word, inline, or in the store; and, behind the
// bytes, the refs they contain (shm/ref_table.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "mobula/codec.h"
#include "mobula/detail/runtime.h"
#include "runtime/process.h"
#include "shm/ref_table.h"

namespace mobula::runtime {

using shm::size_with_refs;

// Writes the value that `writer` has encoded (or only measured) to `to`, which has size_with_refs()
// bytes.
void write_value(std::byte* to, const Writer& writer, const std::byte* bytes,
                 detail::EncodeAgain again, void* context);

// A task's own name before its arguments: u64 length, the text. Empty: nothing.
void write_name(std::byte* to, std::string_view name);

// Writes it to a block of the store, behind `prefix` bytes that begin with `name`. If encoding
// throws, the block is given back.
shm::StoredAt store_value(Process& process, std::uint64_t size, std::uint64_t prefix,
                          const Writer& writer, const std::byte* bytes, detail::EncodeAgain again,
                          void* context, std::string_view name = {});

// Makes it the result of a record whose state is not final yet. Sets the result fields and
// kResultHasRefs.
void place_result(Process& process, shm::Record& record, const Writer& writer,
                  const std::byte* bytes, detail::EncodeAgain again, void* context);

struct ValueBytes {
  const std::byte* data = nullptr;
  std::uint64_t size = 0;  // with the refs' table
  detail::Pin pin = {};  // while it lives, what is stored stays in memory
};
// Wait while the value is brought back from disk; throw what Store::read throws.
ValueBytes result_bytes(Process& process, shm::Record& record);
ValueBytes argument_bytes(Process& process, shm::Record& record);

// The refs behind a value that has some; and the value without them.
std::span<const std::uint64_t> trailing_refs(const ValueBytes& value);
std::uint64_t size_without_refs(const ValueBytes& value);

}  // namespace mobula::runtime
