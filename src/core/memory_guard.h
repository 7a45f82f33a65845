// Decides which process is killed when memory runs out, when to look at memory again, and when the
// heap of a worker that is used again and again has become too large to keep.
//
// Pure rules: amounts arrive as events with their time, in bytes.
//
// - Nobody is killed while every meter is below its limit, nor before the last one killed has gone
//   and its memory was counted anew.
// - Who goes first is who loses least: a worker without a task; then a task that will be tried
//   again, an actor that will be started again, a task, an actor. Among equals first those that
//   use more than they asked for (`memory` of their options), then the youngest: it has done least,
//   and so the oldest always gets to its end.
// - Who uses less than half of what the others use on average is spared: its end would help
//   nobody. If all together use next to nothing, others fill the machine, and nobody is killed.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/worker_allotment.h"

namespace mobula::core {

enum class MemoryScope : std::uint8_t {
  Session,  // what workers and actors use together, against Config.memory_limit
  ControlGroup,  // what the daemon's control group uses
  Machine,
  Kernel,  // no meter: the kernel itself found no memory, and killed
};

struct MemoryMeter {
  MemoryScope scope = MemoryScope::Machine;
  std::uint64_t used = 0;
  std::uint64_t limit = 0;
  friend bool operator==(const MemoryMeter&, const MemoryMeter&) = default;
};

// What the end of a process costs, the least first.
enum class Loss { Nothing, Attempt, ActorState, Task, Actor };

struct MemoryUser {
  WorkerId worker;
  std::uint64_t used = 0;  // of its own: neither code nor the object store
  Loss loss = Loss::Nothing;
  bool overdrawn = false;  // uses more than it asked for
  std::uint64_t began = 0;  // when its task or its life began; of any unit
};

struct KillForMemory {
  WorkerId worker;
  std::uint64_t used = 0;
  MemoryMeter meter;  // the one that was exceeded
  friend bool operator==(const KillForMemory&, const KillForMemory&) = default;
};

class MemoryGuard {
 public:
  static constexpr Time kLookMax = std::chrono::seconds(1);
  static constexpr Time kLookMin = std::chrono::milliseconds(5);
  // Above a limit: who was killed is waited for, or nobody's end would help.
  static constexpr Time kLookAbove = std::chrono::milliseconds(50);
  // How fast one core fills memory at most, in bytes each second: what decides when to look again.
  static constexpr std::uint64_t kFillRate = std::uint64_t{4} << 30;
  // How long the end of a killed process is waited for.
  static constexpr Time kDeathPatience = std::chrono::seconds(5);

  // The first meter above its limit; nullptr: none. Only then are users asked for.
  [[nodiscard]] static const MemoryMeter* exceeded(const std::vector<MemoryMeter>& meters);
  // Until the next look: half of what `cores` need to fill the least room there is.
  [[nodiscard]] static Time until_next_look(const std::vector<MemoryMeter>& meters, int cores);

  [[nodiscard]] std::optional<KillForMemory> look(const std::vector<MemoryMeter>& meters,
                                                  const std::vector<MemoryUser>& users, Time now);
  void gone(WorkerId worker);

 private:
  std::optional<WorkerId> dying_;
  Time killed_at_{};
};

// How large the heap of a reused worker may be between two tasks. Too much is first given back to
// the system as far as it is free; what is still in use then was leaked, or is a cache.
class HeapBound {
 public:
  explicit HeapBound(std::uint64_t most) : most_(most) {}

  // Between tasks: is it time to give back what is free? Not after each task that freed much.
  [[nodiscard]] bool wants_trim(std::uint64_t heap) const {
    return heap > most_ || heap > trimmed_ + most_ / 4;
  }
  // After that: is the worker to be replaced?
  [[nodiscard]] bool is_spent(std::uint64_t heap) {
    trimmed_ = heap;
    return heap > most_;
  }

 private:
  std::uint64_t most_;
  std::uint64_t trimmed_ = 0;  // what was left the last time
};

}  // namespace mobula::core
