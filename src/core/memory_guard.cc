#include "core/memory_guard.h"

#include <algorithm>
#include <tuple>

namespace mobula::core {

const MemoryMeter* MemoryGuard::exceeded(const std::vector<MemoryMeter>& meters) {
  for (const MemoryMeter& meter : meters) {
    if (meter.used > meter.limit) return &meter;
  }
  return nullptr;
}

Time MemoryGuard::until_next_look(const std::vector<MemoryMeter>& meters, int cores) {
  if (exceeded(meters)) return kLookAbove;
  const double rate = static_cast<double>(kFillRate) * std::max(1, cores);
  Time soonest = kLookMax;
  for (const MemoryMeter& meter : meters) {
    const double room =
        meter.limit > meter.used ? static_cast<double>(meter.limit - meter.used) : 0;
    // Compared before it becomes a whole number: a limit may be as good as none.
    const double seconds =
        std::min(room / rate / 2, std::chrono::duration<double>(kLookMax).count());
    soonest =
        std::min(soonest, std::chrono::duration_cast<Time>(std::chrono::duration<double>(seconds)));
  }
  return std::max(soonest, Time{kLookMin});
}

std::optional<KillForMemory> MemoryGuard::look(const std::vector<MemoryMeter>& meters,
                                               const std::vector<MemoryUser>& users, Time now) {
  if (dying_ && now - killed_at_ < kDeathPatience) return std::nullopt;
  const MemoryMeter* meter = exceeded(meters);
  if (!meter || users.empty()) return std::nullopt;

  std::uint64_t all = 0;
  for (const MemoryUser& user : users) all += user.used;
  if (all < meter->limit / 20) return std::nullopt;
  const std::uint64_t least = all / users.size() / 2;
  const auto rank = [least](const MemoryUser& user) {
    return std::tuple(user.used < least, user.loss, !user.overdrawn, ~user.began,
                      ~user.worker.value);
  };
  const auto first =
      std::min_element(users.begin(), users.end(),
                       [&](const MemoryUser& a, const MemoryUser& b) { return rank(a) < rank(b); });
  dying_ = first->worker;
  killed_at_ = now;
  return KillForMemory{first->worker, first->used, *meter};
}

void MemoryGuard::gone(WorkerId worker) {
  if (dying_ == worker) dying_.reset();
}

}  // namespace mobula::core
