#include "node/monitors.h"

#include <algorithm>

#include "mobula/error.h"
#include "shm/claim.h"
#include "shm/holds.h"

namespace mobula::node {

using shm::Address;
using shm::Record;
using shm::State;
namespace word = shm::word;

Monitors::Monitors(shm::Memory& memory, Tables& tables, std::uint32_t daemon_participant,
                   shm::ReadySink& sink)
    : memory_(memory), tables_(tables), me_(daemon_participant), sink_(sink) {}

std::optional<Address> Monitors::record_of(std::uint32_t actor) {
  if (const auto known = records_.find(actor); known != records_.end()) return known->second;
  const auto slot = take_slot();
  if (!slot) return {};
  Record& record = memory_.record(*slot);
  const Address address{*slot, word::generation(record.state.load()) + 1};
  record.dependents.store(0);
  record.join.store(shm::dependents::join_word(address.generation, 0));
  record.function = 0;
  record.scheduling_class = actor;
  record.kind = shm::Kind::Monitor;
  record.result_kind = shm::ResultKind::None;
  record.flags = 0;
  record.dependencies = 0;
  record.args_size = 0;
  record.parent = record.index = 0;
  // Claimed by us, who will complete it: nobody else touches it, and waiting for it is no deadlock.
  record.state.store(word::with_claimer(word::make(address.generation, State::Claimed), me_),
                     std::memory_order_release);
  records_.emplace(actor, address);
  return address;
}

void Monitors::actor_died(std::uint32_t actor, const ActorDeath& death) {
  const auto it = records_.find(actor);
  if (it == records_.end()) return;
  Record& record = memory_.record(it->second.slot);
  if (word::is_final(record.state.load())) return;
  Writer writer(record.result_inline, shm::kResultInlineMax);
  encode<ActorDeath>(writer, death);
  record.result_size = static_cast<std::uint32_t>(writer.size());
  record.result_kind = shm::ResultKind::Inline;
  shm::claim::complete(memory_, memory_.participant(me_), record, it->second, State::Done, sink_);
}

void Monitors::granted(std::uint32_t group) { complete(group, State::Done); }

void Monitors::group_removed(std::uint32_t group) { complete(group, State::Failed); }

void Monitors::complete(std::uint32_t group, State state) {
  const auto it = records_.find(group);
  if (it == records_.end()) return;
  Record& record = memory_.record(it->second.slot);
  if (word::is_final(record.state.load())) return;
  if (state == State::Failed) {
    record.error() = {
        static_cast<std::uint32_t>(ErrorCode::kPlacementGroupRemoved), 0, 0, 0, 0, group, 0};
    record.result_kind = shm::ResultKind::ErrorCode;
  }
  shm::claim::complete(memory_, memory_.participant(me_), record, it->second, state, sink_);
}

void Monitors::forget(std::uint32_t actor) {
  const auto it = records_.find(actor);
  if (it == records_.end()) return;
  forgotten_.push_back(it->second);
  records_.erase(it);
  tidy();
}

// Nobody takes the first hold of a forgotten record any more.
void Monitors::tidy() {
  std::erase_if(forgotten_, [&](Address address) {
    Record& record = memory_.record(address.slot);
    const std::uint64_t refs = record.refs.load(std::memory_order_acquire);
    if (shm::holds::count(refs) != 0) return false;
    shm::holds::acknowledge(memory_, refs, me_);
    record.refs.store(0);
    record.state.store(word::make(address.generation, State::Free), std::memory_order_release);
    free_.push_back(address.slot);
    return true;
  });
}

std::optional<std::uint32_t> Monitors::take_slot() {
  tidy();
  if (free_.empty() && !find_slots()) return {};
  const std::uint32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

bool Monitors::find_slots() {
  if (used_ == shm::kRecordsPerSegment) {
    const auto segment = tables_.lease_segment(me_);
    if (!segment) return false;
    segment_ = *segment;
    used_ = 0;
  }
  const auto there = memory_.more_records(segment_, used_);
  if (!there) return false;
  const std::uint32_t begin = segment_ * shm::kRecordsPerSegment;
  for (std::uint32_t slot = begin + *there; slot-- > begin + used_;) {
    if (slot != 0) free_.push_back(slot);
  }
  used_ = *there;
  return true;
}

}  // namespace mobula::node
