// The saved states of an actor: what one consists of, and which two are kept.
//
// A checkpoint is an object of the store without a Ref: the actor's class names its record
// (shm::LastingState::checkpoint), which keeps it beyond the process that wrote it, and the refs
// inside of it with it. The new one takes the place of the older of the two by one store, so that
// at each moment at least one is whole. Nobody believes what he reads: the sum is checked, and a
// checkpoint that is damaged, or of another class or format, is never loaded.
//
//   [header, 64 bytes] [state as Writer wrote it] [table of refs, if there are some]
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mobula/detail/runtime.h"
#include "runtime/ledger.h"
#include "runtime/process.h"
#include "runtime/value.h"

namespace mobula::runtime {

struct CheckpointHeader {
  static constexpr std::uint64_t kMagic = 0x3174706b6362616du;  // the 1 is the format's version
  static constexpr std::uint64_t kSize = 64;  // the state behind it keeps its alignment

  std::uint64_t magic;
  std::uint64_t type;  // StateCodec::type
  std::uint64_t covers;  // number of the first call that it does not contain
  std::uint64_t size;  // of all, with the header
  std::uint64_t checksum;  // XXH3 of all, with 0 in this place
};

// Seals bytes whose state is in place.
void seal_checkpoint(std::byte* data, std::uint64_t size, std::uint64_t type, std::uint64_t covers);
// What is wrong with these bytes as a checkpoint of the class; empty: nothing.
std::string problem_with_checkpoint(const std::byte* data, std::uint64_t size, std::uint64_t type);

class Checkpoints {
 public:
  // Looks at what earlier processes of the actor have left.
  Checkpoints(Ledger& ledger, shm::LastingState& shared, const detail::StateCodec& codec);

  // Saves the object as it is before call number `covers`. Throws what saving throws; nothing has
  // changed then.
  void save(const void* instance, std::uint64_t covers);
  // Calls below this number are in both checkpoints; nothing: there are not two good ones.
  std::optional<std::uint64_t> both_cover() const;

  bool any() const { return slots_[0].record || slots_[1].record; }
  struct Good {
    ValueBytes bytes;
    std::uint64_t size;  // of what the object wrote
    std::uint64_t covers;
  };
  // Good ones, the newest first. Each that is not adds its problem to `problems`.
  std::vector<Good> read(std::string& problems);

 private:
  struct Slot {
    shm::Address record;
    std::uint64_t sequence = 0;
    std::uint64_t covers = 0;
    bool good = false;
  };

  Ledger& ledger_;
  shm::LastingState& shared_;
  const detail::StateCodec& codec_;
  Slot slots_[2];
};

}  // namespace mobula::runtime
