#include "core/spill_plan.h"

namespace mobula::core {

void SpillPlan::arrived(ExtentNumber extent, std::uint64_t bytes) {
  left(extent);
  places_[extent] = ring_.insert(hand_, {extent, bytes});
  bytes_ += bytes;
}

void SpillPlan::left(ExtentNumber extent) {
  if (const auto place = places_.find(extent); place != places_.end()) remove(place->second);
}

void SpillPlan::remove(Ring::iterator entry) {
  bytes_ -= entry->bytes;
  places_.erase(entry->extent);
  if (hand_ == entry) ++hand_;
  ring_.erase(entry);
}

std::vector<ExtentNumber> SpillPlan::choose(std::uint64_t bytes,
                                            const std::function<Use(ExtentNumber)>& use) {
  std::vector<ExtentNumber> chosen;
  std::uint64_t found = 0;
  // The first turn takes away second chances, the second one uses that.
  for (std::size_t looks = 2 * ring_.size(); looks > 0 && found < bytes && !ring_.empty();
       --looks) {
    if (hand_ == ring_.end()) hand_ = ring_.begin();
    const auto here = hand_;
    if (use(here->extent) != Use::None) {
      ++hand_;
      continue;
    }
    chosen.push_back(here->extent);
    found += here->bytes;
    remove(here);
  }
  return chosen;
}

}  // namespace mobula::core
