// Decides which extents of objects leave memory for the disk when memory gets scarce.
//
// Second chance ("clock"; Corbató 1968): extents lie on a ring in the order in which they came, and
// a hand goes round. One that was used since the hand's last visit stays for another turn; one that
// is being used stays; the others go.
//
// It knows numbers and sizes only; the caller says how each extent is used.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <unordered_map>
#include <vector>

namespace mobula::core {

using ExtentNumber = std::uint32_t;

class SpillPlan {
 public:
  enum class Use {
    None,
    Lately,  // since it was last asked for; asking makes it None
    Now,  // it cannot leave
  };

  // The extent may be spilled from now on: it lies just behind the hand, so it is met last.
  void arrived(ExtentNumber extent, std::uint64_t bytes);
  // It was freed. Nothing happens if it is not on the ring.
  void left(ExtentNumber extent);

  // Takes extents of at least `bytes` bytes together off the ring, fewer if there are not as many
  // that can leave. Ends after two turns.
  std::vector<ExtentNumber> choose(std::uint64_t bytes,
                                   const std::function<Use(ExtentNumber)>& use);

  std::uint64_t bytes() const { return bytes_; }  // on the ring

 private:
  struct Entry {
    ExtentNumber extent;
    std::uint64_t bytes;
  };
  using Ring = std::list<Entry>;

  void remove(Ring::iterator entry);

  Ring ring_;
  Ring::iterator hand_ = ring_.end();  // the next to be looked at; end(): the first
  std::unordered_map<ExtentNumber, Ring::iterator> places_;
  std::uint64_t bytes_ = 0;
};

}  // namespace mobula::core
