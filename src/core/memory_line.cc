#include "core/memory_line.h"

#include <algorithm>

namespace mobula::core {

bool MemoryLine::its_turn(const Asker& asker, Time now) {
  std::erase_if(places_, [&](const Place& place) { return now - place.asked > kForgotten; });
  if (asker.bytes <= capacity_ / kSmallPart || places_.empty()) return true;
  stand_in_line(asker, now);
  const auto first = std::find_if(places_.begin(), places_.end(), [&](const Place& place) {
    return place.asker == asker || !place.stuck;
  });
  return first->asker == asker;
}

void MemoryLine::must_wait(const Asker& asker, bool stuck, Time now) {
  stand_in_line(asker, now).stuck = stuck;
}

void MemoryLine::leave(const Asker& asker) {
  std::erase_if(places_, [&](const Place& place) { return place.asker == asker; });
}

// At the end of it, unless it has its place already.
MemoryLine::Place& MemoryLine::stand_in_line(const Asker& asker, Time now) {
  auto place = std::find_if(places_.begin(), places_.end(),
                            [&](const Place& other) { return other.asker == asker; });
  if (place == places_.end()) place = places_.insert(place, {asker, now});
  place->asked = now;
  return *place;
}

}  // namespace mobula::core
