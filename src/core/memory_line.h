// Decides who is served next among those who want memory of the object store while it is scarce.
//
// Large requests are met in the order in which they came. Small ones pass: whoever waits for much
// may be waiting for somebody who needs a little to go on. A request that nothing can be done for
// at present does not hold up those behind it, and one that is not made again is forgotten.
//
// It knows numbers and sizes only; the caller says whether there is room.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace mobula::core {

class MemoryLine {
 public:
  using Time = std::chrono::nanoseconds;
  static constexpr std::uint64_t kSmallPart = 64;  // small: up to this part of the capacity
  static constexpr Time kForgotten = std::chrono::milliseconds(200);  // after it asked last

  struct Asker {  // a process may want several sizes at a time
    std::uint32_t process = 0;
    std::uint64_t bytes = 0;
    friend bool operator==(const Asker&, const Asker&) = default;
  };

  explicit MemoryLine(std::uint64_t capacity) : capacity_(capacity) {}

  // May it be served now? If not, it stands in line.
  bool its_turn(const Asker& asker, Time now);
  // There was no room for it: it stands in line. `stuck`: nothing can be done for it at present.
  void must_wait(const Asker& asker, bool stuck, Time now);
  // It was served, or wants it no more. Nothing happens if it does not stand in line.
  void leave(const Asker& asker);

 private:
  struct Place {
    Asker asker;
    Time asked;  // last
    bool stuck = false;
  };

  Place& stand_in_line(const Asker& asker, Time now);

  std::uint64_t capacity_;
  std::vector<Place> places_;  // who came first is first
};

}  // namespace mobula::core
