#include "runtime/helping.h"

#include <algorithm>
#include <cstring>

#include "runtime/execution.h"
#include "shm/crash_point.h"
#include "wire/local_protocol.h"

namespace mobula::runtime {
namespace {

thread_local std::uint32_t help_class = shm::kNone;
thread_local const char* stack_limit = nullptr;

// Does this worker hold all that tasks of the class demand? Then they can run inside of its own.
bool covers(const shm::Memory& memory, std::uint32_t scheduling_class) {
  if (scheduling_class == help_class) return true;
  thread_local std::pair<std::uint32_t, std::uint32_t> asked{shm::kNone, shm::kNone};
  thread_local bool answer = false;
  if (asked == std::pair{help_class, scheduling_class}) return answer;
  asked = {help_class, scheduling_class};
  const shm::SchedulingClass& mine_class = memory.scheduling_class(help_class);
  const shm::SchedulingClass& its_class = memory.scheduling_class(scheduling_class);
  const auto& mine_text = mine_class.demand_text;
  const auto& its_text = its_class.demand_text;
  const auto held = wire::parse_amounts(mine_text);
  const auto demand = wire::parse_amounts(its_text);
  const bool cut =
      std::strlen(its_text) + 1 == sizeof its_text;  // then it demands more than is told
  const bool same_environment = mine_class.environment.load() == its_class.environment.load();
  // One of a group runs with what that has, and only when it has it.
  const bool in_place =
      its_class.placement_group == 0 || (its_class.placement_group == mine_class.placement_group &&
                                         its_class.bundle == mine_class.bundle);
  answer = !cut && same_environment && in_place &&
           std::all_of(demand.begin(), demand.end(), [&](const auto& wanted) {
             const auto mine = held.find(wanted.first);
             return mine != held.end() && mine->second >= wanted.second;
           });
  return answer;
}

// Not a local variable's address: a sanitizer may keep those elsewhere.
const char* stack_position() { return static_cast<const char*>(__builtin_frame_address(0)); }

bool is_for_us(Process& process, const shm::Record& record) {
  if (help_class == shm::kNone) return false;
  const std::uint64_t seen = record.state.load(std::memory_order_acquire);
  return shm::word::state(seen) == shm::State::Ready && record.kind == shm::Kind::Task &&
         covers(process.memory(), record.scheduling_class);
}

}  // namespace

bool may_help(Process& process, const shm::Record& record) {
  // With room for help()'s own frame: who may help must not be refused there, and ask again.
  constexpr std::ptrdiff_t kOwnFrame = 8 << 10;
  return is_for_us(process, record) && stack_position() >= stack_limit + kOwnFrame;
}

bool help(Process& process, shm::Record& record, shm::Address address) {
  if (!is_for_us(process, record) || stack_position() < stack_limit) return false;
  Ledger& ledger = process.this_ledger();
  // More than once only when its exception is one to be tried again.
  for (;;) {
    const std::uint64_t seen = record.state.load(std::memory_order_acquire);
    if (shm::word::is_final(seen)) return true;
    if (!is_for_us(process, record)) return false;
    shm::claim::intend(ledger.shared(), address);
    shm::crash_point(shm::CrashPoint::ClaimIntent);
    if (!shm::claim::take(record, address, ledger.participant())) {
      shm::claim::forget(ledger.shared());
      return false;
    }
    shm::crash_point(shm::CrashPoint::ClaimTaken);
    execute(ledger, record, address);
    std::atomic<std::uint64_t>& done = process.shared().tasks_done;
    done.store(done.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
}

void set_help_class(std::uint32_t scheduling_class) { help_class = scheduling_class; }
void set_stack_limit(const char* lowest) { stack_limit = lowest; }

}  // namespace mobula::runtime
