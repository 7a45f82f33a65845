#include "runtime/checkpoint.h"

#include <algorithm>
#include <cstring>

#include "runtime/value.h"
#include "shm/crash_point.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace mobula::runtime {
namespace {

CheckpointHeader header_of(const std::byte* data) {
  CheckpointHeader header;
  std::memcpy(&header, data, sizeof header);
  return header;
}

std::uint64_t sum_of(const std::byte* data, std::uint64_t size) {
  alignas(64) XXH3_state_t state;
  XXH3_64bits_reset(&state);
  CheckpointHeader header = header_of(data);
  header.checksum = 0;
  XXH3_64bits_update(&state, &header, sizeof header);
  XXH3_64bits_update(&state, data + sizeof header, size - sizeof header);
  return XXH3_64bits_digest(&state);
}

struct Saved {
  const detail::StateCodec& codec;
  const void* instance;
};
void encode_again(void* context, Writer& writer) {
  const Saved& saved = *static_cast<const Saved*>(context);
  saved.codec.save(saved.instance, writer);
}

}  // namespace

void seal_checkpoint(std::byte* data, std::uint64_t size, std::uint64_t type,
                     std::uint64_t covers) {
  std::memset(data, 0, CheckpointHeader::kSize);
  CheckpointHeader header{CheckpointHeader::kMagic, type, covers, size, 0};
  std::memcpy(data, &header, sizeof header);
  header.checksum = sum_of(data, size);
  std::memcpy(data, &header, sizeof header);
}

std::string problem_with_checkpoint(const std::byte* data, std::uint64_t size, std::uint64_t type) {
  if (size < CheckpointHeader::kSize) return "it is cut short";
  const CheckpointHeader header = header_of(data);
  if (header.magic != CheckpointHeader::kMagic) return "it is of another format";
  if (header.size != size) return "it is cut short";
  if (header.checksum != sum_of(data, size)) return "its checksum is wrong";
  if (header.type != type) return "it is of another class";
  return {};
}

Checkpoints::Checkpoints(Ledger& ledger, shm::LastingState& shared, const detail::StateCodec& codec)
    : ledger_(ledger), shared_(shared), codec_(codec) {
  for (int i = 0; i < 2; ++i) {
    slots_[i].record = shm::Address::unpack(shared_.checkpoint[i].load(std::memory_order_acquire));
    if (slots_[i].record) slots_[i].sequence = ledger_.record(slots_[i].record).index;
  }
}

std::optional<std::uint64_t> Checkpoints::both_cover() const {
  if (!slots_[0].good || !slots_[1].good) return {};
  return std::min(slots_[0].covers, slots_[1].covers);
}

std::vector<Checkpoints::Good> Checkpoints::read(std::string& problems) {
  std::vector<Good> good;
  const int newest = slots_[1].sequence > slots_[0].sequence ? 1 : 0;
  for (const int i : {newest, 1 - newest}) {
    Slot& slot = slots_[i];
    if (!slot.record) continue;
    std::string problem;
    try {
      shm::Record& record = ledger_.record(slot.record);
      ValueBytes bytes = result_bytes(ledger_.process(), record);
      problem = problem_with_checkpoint(bytes.data, bytes.size, codec_.type);
      if (problem.empty()) {
        slot.good = true;
        slot.covers = header_of(bytes.data).covers;
        const std::uint64_t whole =
            has_flag(record, shm::flag::kResultHasRefs) ? size_without_refs(bytes) : bytes.size;
        good.push_back({std::move(bytes), whole - CheckpointHeader::kSize, slot.covers});
        continue;
      }
    } catch (const ObjectLostError& e) {  // damaged on disk
      problem = e.what();
    }
    problems += "checkpoint " + std::to_string(slot.sequence) + ": " + problem + "; ";
  }
  return good;
}

void Checkpoints::save(const void* instance, std::uint64_t covers) {
  Process& process = ledger_.process();
  alignas(64) std::byte small[64];
  Writer writer(small, sizeof small);
  codec_.save(instance, writer);
  Saved saved{codec_, instance};
  const std::size_t refs = writer.refs().size();
  const std::uint64_t size = CheckpointHeader::kSize + size_with_refs(writer.size(), refs);
  const Store::Place place = process.store().allocate(size, refs != 0);
  shm::Address address;
  try {
    write_value(place.data + CheckpointHeader::kSize, writer, small, &encode_again, &saved);
    address = ledger_.allocate();
  } catch (...) {
    process.memory().give_back(place.at);
    throw;
  }
  seal_checkpoint(place.data, size, codec_.type, covers);

  // The one that is not good, or else the older, makes room for it.
  Slot& old = slots_[0].good == slots_[1].good ? slots_[slots_[1].sequence < slots_[0].sequence]
                                               : slots_[slots_[0].good];
  shm::Record& record = ledger_.record(address);
  record.kind = shm::Kind::Put;
  record.function = 0;
  record.parent = 0;  // nobody's child
  record.index = std::max(slots_[0].sequence, slots_[1].sequence) + 1;
  record.refs_released = 0;
  record.result_at() = place.at;
  record.result_kind = shm::ResultKind::Stored;
  if (refs != 0) record.flags |= shm::flag::kResultHasRefs;
  for (const RefAddress& ref : writer.refs()) detail::retain(ref);
  record.state.store(shm::word::make(address.generation, shm::State::Done),
                     std::memory_order_release);
  shm::crash_point(shm::CrashPoint::CheckpointWritten);
  // release: the daemon and the next process read what it names
  shared_.checkpoint[&old - slots_].store(address.packed(), std::memory_order_release);
  shm::crash_point(shm::CrashPoint::CheckpointNamed);
  // An earlier process's is the daemon's to give back.
  if (old.record && process.ledger_of(old.record.slot)) detail::release(from_shm(old.record));
  old = {address, record.index, covers, true};
}

}  // namespace mobula::runtime
