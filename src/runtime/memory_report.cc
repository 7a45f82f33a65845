// The memory report: read from the ledgers in place, with the daemon's own counts.
#include "runtime/memory_report.h"

#include <stdio.h>

#include <algorithm>
#include <cstdarg>
#include <map>
#include <tuple>

#include "runtime/process.h"
#include "runtime/registry.h"
#include "shm/holds.h"
#include "shm/memory_use.h"
#include "shm/stream.h"

namespace mobula {
namespace {

constexpr std::size_t kLargest = 20;

std::string role_name(std::uint32_t role) {
  switch (static_cast<shm::ProcessRole>(role)) {
    case shm::ProcessRole::Driver: return "driver";
    case shm::ProcessRole::Worker: return "worker";
    case shm::ProcessRole::Actor: return "actor";
    case shm::ProcessRole::Daemon: return "node";
    case shm::ProcessRole::None: break;
  }
  return "(none)";
}

class Report {
 public:
  explicit Report(const runtime::MemorySource& source)
      : source_(source), memory_(source.memory), counts_(source.counts) {}

  MemoryReport make() {
    read_store();
    read_processes();
    read_records();
    read_extents();
    std::sort(report_.largest.begin(), report_.largest.end(),
              [](const auto& a, const auto& b) { return a.size > b.size; });
    if (report_.largest.size() > kLargest) report_.largest.resize(kLargest);
    for (auto& [key, origin] : origins_) report_.origins.push_back(std::move(origin));
    std::sort(report_.origins.begin(), report_.origins.end(),
              [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
    return std::move(report_);
  }

 private:
  void read_store() {
    MemoryReport::Store& store = report_.store;
    store.capacity = count("capacity");
    store.leased = count("leased");
    store.warm = count("warm");
    store.spilled = count("spilled");
    store.on_disk = count("on_disk");
    store.spilled_ever = count("spilled_ever");
    store.restored_ever = count("restored_ever");
  }

  std::uint64_t count(const char* name) const {
    const auto it = counts_.find(name);
    return it == counts_.end() ? 0 : static_cast<std::uint64_t>(it->second);
  }

  void read_processes() {
    for (std::uint32_t i = 0; i < count("processes"); ++i) {
      const shm::Process& shared = memory_.process(i);
      const std::uint32_t role = shared.role.load(std::memory_order_acquire);
      if (role == static_cast<std::uint32_t>(shm::ProcessRole::None)) continue;
      by_index_[i] = report_.processes.size();
      MemoryReport::Process& process = report_.processes.emplace_back();
      process.pid = shared.pid;
      process.role = role_name(role);
      process.private_memory = shm::private_memory(shared.pid);
    }
  }

  MemoryReport::Process* process_at(std::uint32_t index) {
    const auto it = by_index_.find(index);
    return it == by_index_.end() ? nullptr : &report_.processes[it->second];
  }

  void read_records() {
    for (std::uint32_t segment = 0; segment < count("segments"); ++segment) {
      const std::uint32_t owner = memory_.segment_owner(segment).load(std::memory_order_acquire);
      if (owner == shm::kNone) continue;
      const std::uint32_t ready = memory_.segment_ready(segment).load(std::memory_order_acquire);
      report_.records.capacity += ready;
      MemoryReport::Process* process =
          process_at(memory_.participant(owner).process.load(std::memory_order_relaxed));
      for (std::uint32_t r = 0; r < ready; ++r)
        read_record(segment * shm::kRecordsPerSegment + r, process);
    }
  }

  // The record may be recycled under our eyes: what was read counts if the state is still the same
  // afterwards.
  void read_record(std::uint32_t slot, MemoryReport::Process* owner) {
    shm::Record& record = memory_.record(slot);
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    std::uint64_t* counted = nullptr;
    switch (shm::word::state(state)) {
      case shm::State::Free: return;
      case shm::State::Waiting: counted = &report_.records.waiting; break;
      case shm::State::Ready: counted = &report_.records.ready; break;
      case shm::State::Claimed: counted = &report_.records.running; break;
      default: counted = &report_.records.finished;
    }
    ++*counted;
    if (owner) ++owner->records;
    if (record.kind == shm::Kind::Join) return;
    const bool is_final = shm::word::is_final(state);
    if (record.flags & shm::flag::kArgsStored)
      note(record, slot, record.args_at(), owner).is_arguments = true;
    if (is_final && record.result_kind == shm::ResultKind::Stored)
      note(record, slot, record.result_at(), owner);
    if (record.flags & shm::flag::kStream)
      note_items(record, {slot, shm::word::generation(state)}, owner);
    if (record.state.load(std::memory_order_acquire) != state) report_.largest.resize(noted_);
    for (; noted_ < report_.largest.size(); ++noted_)
      add_to_origin(record, report_.largest[noted_]);
    if (noted_ > 64 * kLargest) keep_largest();
  }

  MemoryReport::Object& note(const shm::Record& record, std::uint32_t slot,
                             const MemoryReport::Process* owner) {
    MemoryReport::Object& object = report_.largest.emplace_back();
    object.name = record.kind == shm::Kind::Put       ? "(put)"
                  : record.kind == shm::Kind::Monitor ? "(monitor)"
                                                      : source_.function_name(record.function);
    object.owner_pid = owner ? owner->pid : 0;
    object.holders = shm::holds::count(record.refs.load(std::memory_order_relaxed));
    if (source_.own_refs) object.holders += source_.own_refs->refs(slot);
    return object;
  }

  MemoryReport::Object& note(const shm::Record& record, std::uint32_t slot, const shm::StoredAt& at,
                             const MemoryReport::Process* owner) {
    MemoryReport::Object& object = note(record, slot, owner);
    object.size = at.size;
    // Half-written: it was recycled meanwhile, and will not count.
    if (at.extent >= count("extents")) return object;
    object.on_disk = static_cast<shm::Residency>(memory_.extent(at.extent).residency.load()) !=
                     shm::Residency::Resident;
    return object;
  }

  // Each may be read, and its slot filled anew, while we look: then it does not count.
  void note_items(const shm::Record& record, shm::Address address,
                  const MemoryReport::Process* owner) {
    const auto number = static_cast<std::uint32_t>(record.result_word);
    if (number >= shm::kStreamsMax) return;
    shm::Stream& stream = shm::stream::at(memory_, number);
    if (stream.record.load(std::memory_order_acquire) != address.packed()) return;
    for (shm::StreamSlot& slot : stream.slots) {
      const std::uint64_t word = slot.word.load(std::memory_order_acquire);
      if (shm::slot::state(word) != shm::slot::State::Full) continue;
      const bool stored = slot.flags & shm::kItemStored;
      const shm::StoredAt at = slot.at();
      const std::uint64_t size = slot.size;
      std::atomic_thread_fence(std::memory_order_acquire);
      if (slot.word.load(std::memory_order_relaxed) != word) continue;
      MemoryReport::Object& item =
          stored ? note(record, address.slot, at, owner) : note(record, address.slot, owner);
      if (!stored) item.size = size;
      item.is_item = true;
    }
  }

  void add_to_origin(const shm::Record& record, const MemoryReport::Object& object) {
    MemoryReport::Origin& origin = origins_[{record.function, object.is_arguments, object.is_item}];
    if (origin.count++ == 0) {
      origin.name = object.name;
      origin.is_arguments = object.is_arguments;
      origin.is_item = object.is_item;
    }
    origin.bytes += object.size;
    if (object.on_disk) origin.on_disk += object.size;
  }

  void keep_largest() {
    std::nth_element(report_.largest.begin(), report_.largest.begin() + kLargest,
                     report_.largest.end(),
                     [](const auto& a, const auto& b) { return a.size > b.size; });
    report_.largest.resize(kLargest);
    noted_ = kLargest;
  }

  void read_extents() {
    for (std::uint32_t i = 0; i < count("extents"); ++i) {
      shm::Extent& extent = memory_.extent(i);
      if (!extent.in_use.load(std::memory_order_acquire)) continue;
      const bool resident =
          static_cast<shm::Residency>(extent.residency.load()) == shm::Residency::Resident;
      for (std::uint32_t b = 0; resident && b < extent.blocks; ++b) {
        if (memory_.block_word(extent, b).load(std::memory_order_relaxed) & shm::block::kUsed)
          report_.store.used += extent.block_size;
      }
      if (MemoryReport::Process* lessee = process_at(extent.lessee.load()))
        lessee->store_leased += extent.size;
      for (const auto& [index, at] : by_index_)
        report_.processes[at].pins += memory_.pins(index, i).load(std::memory_order_relaxed);
    }
  }

  const runtime::MemorySource& source_;
  const shm::Memory& memory_;
  const std::map<std::string, double>& counts_;
  std::map<std::uint32_t, std::size_t> by_index_;  // into report_.processes
  // By function and kind.
  std::map<std::tuple<std::uint64_t, bool, bool>, MemoryReport::Origin> origins_;
  std::size_t noted_ = 0;  // objects in `largest` that are certain
  MemoryReport report_;
};

std::string bytes_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  char text[32];
  ::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

template <class Entry>
const char* kind_of(const Entry& entry, const char* value, const char* item) {
  return entry.is_arguments ? "arguments" : entry.is_item ? item : value;
}

__attribute__((format(printf, 2, 3))) void add_line(std::string& text, const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  ::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  text += line;
  text += '\n';
}

}  // namespace

MemoryReport runtime::read_memory(const MemorySource& source) { return Report(source).make(); }

MemoryReport memory_report() {
  runtime::Process& process = runtime::require_process();
  process.tidy();  // what nobody needs any more is no news
  wire::Message message;
  message.kind = wire::Kind::ObjectMemory;
  process.daemon().demand(message);
  const auto counts = wire::parse_amounts(message.text_view());
  const auto name = [](std::uint64_t key) {
    const detail::FunctionInfo* function = runtime::find_function(key);
    return function ? std::string(function->name) : std::string("(unknown)");
  };
  return runtime::read_memory({process.memory(), counts, name, &process.counts()});
}

std::string MemoryReport::text() const {
  std::string text;
  add_line(text, "object store  %s of %s leased, %s of that in use, %s kept warm",
           bytes_text(store.leased).c_str(), bytes_text(store.capacity).c_str(),
           bytes_text(store.used).c_str(), bytes_text(store.warm).c_str());
  add_line(text, "on disk       %s of values, %s in the file; written %s, read back %s",
           bytes_text(store.spilled).c_str(), bytes_text(store.on_disk).c_str(),
           bytes_text(store.spilled_ever).c_str(), bytes_text(store.restored_ever).c_str());
  add_line(text,
           "records       %llu waiting, %llu ready, %llu running, %llu finished; room for %llu",
           static_cast<unsigned long long>(records.waiting),
           static_cast<unsigned long long>(records.ready),
           static_cast<unsigned long long>(records.running),
           static_cast<unsigned long long>(records.finished),
           static_cast<unsigned long long>(records.capacity));
  add_line(text, "\n%-8s %8s %12s %12s %10s %6s", "PROCESS", "PID", "PRIVATE", "LEASED", "RECORDS",
           "PINS");
  for (const Process& p : processes) {
    add_line(text, "%-8s %8u %12s %12s %10llu %6llu", p.role.c_str(), p.pid,
             bytes_text(p.private_memory).c_str(), bytes_text(p.store_leased).c_str(),
             static_cast<unsigned long long>(p.records), static_cast<unsigned long long>(p.pins));
  }
  if (origins.empty()) return text;
  add_line(text, "\n%-10s %10s %12s %12s  %s", "KIND", "NUMBER", "SIZE", "ON DISK", "MADE BY");
  for (const Origin& o : origins) {
    add_line(text, "%-10s %10llu %12s %12s  %.150s", kind_of(o, "values", "items"),
             static_cast<unsigned long long>(o.count), bytes_text(o.bytes).c_str(),
             bytes_text(o.on_disk).c_str(), o.name.c_str());
  }
  add_line(text, "\n%-10s %8s %8s %12s %12s  %s", "LARGEST", "OWNER", "HOLDERS", "SIZE", "WHERE",
           "MADE BY");
  for (const Object& o : largest) {
    add_line(text, "%-10s %8u %8llu %12s %12s  %.150s", kind_of(o, "value", "item"), o.owner_pid,
             static_cast<unsigned long long>(o.holders), bytes_text(o.size).c_str(),
             o.on_disk ? "disk" : "memory", o.name.c_str());
  }
  return text;
}

}  // namespace mobula
