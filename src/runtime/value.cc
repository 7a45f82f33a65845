#include "runtime/value.h"

#include <cstring>

#include "shm/check.h"

namespace mobula::runtime {

void write_value(std::byte* to, const Writer& writer, const std::byte* bytes,
                 detail::EncodeAgain again, void* context) {
  const std::uint64_t size = writer.size();
  if (writer.fits()) {
    std::memcpy(to, bytes, size);
  } else {
    Writer whole(to, size);
    again(context, whole);
    MOBULA_CHECK(whole.size() == size);
  }
  if (writer.refs().empty()) return;
  const std::uint64_t table = (size + 7) / 8 * 8;
  std::memset(to + size, 0, table - size);
  std::byte* at = to + table;
  for (const RefAddress& ref : writer.refs()) {
    const std::uint64_t packed = shm::Address{ref.slot, ref.generation}.packed();
    std::memcpy(at, &packed, sizeof packed);
    at += sizeof packed;
  }
  const std::uint64_t count = writer.refs().size();
  std::memcpy(at, &count, sizeof count);
}

shm::StoredAt store_value(Process& process, std::uint64_t size, std::uint64_t prefix,
                          const Writer& writer, const std::byte* bytes, detail::EncodeAgain again,
                          void* context, std::string_view name) {
  const Store::Place place = process.store().allocate(size, !writer.refs().empty());
  try {
    write_name(place.data, name);
    write_value(place.data + prefix, writer, bytes, again, context);
  } catch (...) {  // a user's codec may throw
    process.memory().give_back(place.at);
    throw;
  }
  shm::crash_point(shm::CrashPoint::SealBefore);
  return place.at;
}

void write_name(std::byte* to, std::string_view name) {
  if (name.empty()) return;
  const std::uint64_t length = name.size();
  std::memcpy(to, &length, sizeof length);
  std::memcpy(to + sizeof length, name.data(), length);
}

void place_result(Process& process, shm::Record& record, const Writer& writer,
                  const std::byte* bytes, detail::EncodeAgain again, void* context) {
  const std::uint64_t size = size_with_refs(writer.size(), writer.refs().size());
  record.refs_released = 0;
  if (size <= shm::kResultInlineMax) {
    std::byte* const to =
        size <= 8 ? reinterpret_cast<std::byte*>(&record.result_word) : record.result_inline;
    record.result_kind = size <= 8 ? shm::ResultKind::Word : shm::ResultKind::Inline;
    write_value(to, writer, bytes, again, context);
    record.result_size = static_cast<std::uint32_t>(size);
  } else {
    record.result_at() = store_value(process, size, 0, writer, bytes, again, context);
    record.result_kind = shm::ResultKind::Stored;
  }
  if (!writer.refs().empty()) record.flags |= shm::flag::kResultHasRefs;  // when all of it is there
}

namespace {
ValueBytes stored_bytes(Process& process, const shm::StoredAt& at) {
  ValueBytes value;
  value.data = process.store().read(at, value.pin);
  value.size = at.size;
  return value;
}
}  // namespace

ValueBytes result_bytes(Process& process, shm::Record& record) {
  switch (record.result_kind) {
    case shm::ResultKind::Word:
      return {reinterpret_cast<const std::byte*>(&record.result_word), record.result_size};
    case shm::ResultKind::Inline: return {record.result_inline, record.result_size};
    case shm::ResultKind::Stored: return stored_bytes(process, record.result_at());
    default: return {};
  }
}

ValueBytes argument_bytes(Process& process, shm::Record& record) {
  if (has_flag(record, shm::flag::kArgsStored)) return stored_bytes(process, record.args_at());
  return {record.args_inline, record.args_size};
}

std::span<const std::uint64_t> trailing_refs(const ValueBytes& value) {
  return shm::trailing_refs(value.data, value.size);
}

std::uint64_t size_without_refs(const ValueBytes& value) {
  return value.size - 8 - 8 * trailing_refs(value).size();
}

}  // namespace mobula::runtime
