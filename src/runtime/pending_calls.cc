#include "runtime/pending_calls.h"

#include <string>

#include "mobula/error.h"
#include "runtime/errors.h"
#include "shm/record.h"

namespace mobula::runtime {

void PendingCalls::admit(const shm::Memory& memory, std::uint32_t actor, shm::Address call) {
  const shm::SchedulingClass& cls = memory.scheduling_class(actor);
  const auto most = static_cast<std::size_t>(cls.pending_calls_max);
  const std::lock_guard lock(mutex_);
  Calls& calls = by_actor_[actor];
  if (const std::uint64_t creation = cls.creation.load(); calls.creation != creation)
    calls = {creation, {}};
  const auto is_over = [&](shm::Address address) {
    const std::uint64_t state = memory.record(address.slot).state.load(std::memory_order_acquire);
    if (shm::word::generation(state) + 1 == address.generation) return false;  // being submitted
    return shm::word::generation(state) != address.generation || shm::word::is_final(state) ||
           shm::word::state(state) == shm::State::Free;
  };
  auto& unfinished = calls.unfinished;
  while (!unfinished.empty() && is_over(unfinished.front())) unfinished.pop_front();
  if (unfinished.size() >= most) std::erase_if(unfinished, is_over);
  if (unfinished.size() >= most) {
    throw PendingCallsLimitError(
        describe_actor(memory, cls) + " has not finished " + std::to_string(most) +
        " calls of this process, as many as its ActorOptions.max_pending_calls allows; get or wait "
        "for some of their results first");
  }
  unfinished.push_back(call);
}

}  // namespace mobula::runtime
