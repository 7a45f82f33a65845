#include "runtime/transfers.h"

#include <mutex>

#include "shm/crash_point.h"

namespace mobula::runtime {

void Transfers::hold(Ledger& ledger, std::span<const RefAddress> refs, shm::Address container) {
  if (refs.empty()) return;
  Process& process = ledger.process();
  const std::lock_guard lock(process.holds().mutex);
  for (const RefAddress& ref : refs) {
    const shm::Address inner = to_shm(ref);
    const std::uint32_t line = process.holds().take_line(process, container);
    shm::holds::open(ledger.shared(), shm::HoldOp::Hold, inner, line);
    shm::holds::change(process.memory(), ledger.participant(), process.memory().record(inner.slot),
                       +1);
    process.holds()
        .line(process.memory(), process.shared(), line)
        .record.store(inner.packed(), std::memory_order_release);
    shm::holds::close(ledger.shared());
    lines_.push_back(line);
    shm::crash_point(shm::CrashPoint::TransferHeld);
  }
}

void Transfers::give_up(Ledger& ledger) {
  Process& process = ledger.process();
  const std::lock_guard lock(process.holds().mutex);
  for (const std::uint32_t line : lines_) {
    shm::HoldEntry& entry = process.holds().line(process.memory(), process.shared(), line);
    const shm::Address inner = shm::Address::unpack(entry.record.load(std::memory_order_relaxed));
    shm::holds::open(ledger.shared(), shm::HoldOp::Release, inner, line);
    shm::holds::change(process.memory(), ledger.participant(), process.memory().record(inner.slot),
                       -1);
    process.holds().clear_line(process, line);
    shm::holds::close(ledger.shared());
  }
  lines_.clear();
}

void Transfers::forget(Process& process) {
  if (lines_.empty()) return;
  const std::lock_guard lock(process.holds().mutex);
  for (const std::uint32_t line : lines_) {
    process.holds().clear_line(process, line);
    shm::crash_point(shm::CrashPoint::TransferForgotten);
  }
  lines_.clear();
}

}  // namespace mobula::runtime
