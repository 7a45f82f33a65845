// Memory: what workers and actors use, and whose end makes room when it runs out.
#include "node/node.h"

#include <stdio.h>

#include <algorithm>

#include "node/node_parts.h"

namespace mobula::node {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kHeapMaxLeast = 64 * kMiB;
constexpr core::Time kKernelKillIsRecent = std::chrono::seconds(5);

const char* whose_memory(core::MemoryScope scope) {
  switch (scope) {
    case core::MemoryScope::Session: return "were used by workers and actors";
    case core::MemoryScope::ControlGroup: return "of the control group were in use";
    default: return "of the machine's memory were in use";
  }
}

std::uint32_t in_mib(std::uint64_t bytes) { return static_cast<std::uint32_t>(bytes / kMiB); }

}  // namespace

void Node::limit_memory(const wire::Message& start) {
  memory_threshold_ = start.a / wire::kThresholdOne;
  if (start.d & wire::kStartLimitsMemory)
    memory_limit_ = static_cast<std::uint64_t>(wire::parse_amounts(start.text_view()).at("memory"));
  kernel_kills_ = kernel_kills_seen_ = gauge_.kernel_kills();
}

// Half of the memory is for what tasks use while they run; the other half, in equal shares, is
// what idle workers may keep.
std::uint64_t Node::worker_heap_max() const {
  std::uint64_t memory = memory_limit_;
  if (memory == 0) {
    const auto usable = static_cast<double>(gauge_.limit()) * memory_threshold_;
    memory = static_cast<std::uint64_t>(usable);
    memory -= std::min(memory, memory_.object_capacity());
  }
  const auto cpus = capacity_.units("CPU") / core::ResourceAmounts::kUnitsPerOne;
  return std::max(kHeapMaxLeast,
                  memory / 2 / static_cast<std::uint64_t>(std::max<std::int64_t>(1, cpus)));
}

bool Node::anybody_works() const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
    // An actor may have threads of its own, which work while it sleeps.
    return entry.second.joined &&
           (entry.second.actor || memory_.process(entry.first).sleeping.load() == 0);
  });
}

// Looks if it is time to; the time until the next look.
core::Time Node::watch_memory() {
  if (now() < memory_look_at_) return memory_look_at_ - now();
  const core::Time begin = now();
  // The counter may be the whole machine's. What it counted long ago was somebody else: a death is
  // heard of when the memory is torn down, within seconds.
  if (begin - kernel_kills_seen_at_ >= kKernelKillIsRecent) {
    kernel_kills_ = std::max(kernel_kills_, kernel_kills_seen_);
    kernel_kills_seen_ = gauge_.kernel_kills();
    kernel_kills_seen_at_ = begin;
  }
  const std::vector<core::MemoryMeter> meters = read_meters();
  if (core::MemoryGuard::exceeded(meters)) {
    if (const auto kill = guard_.look(meters, memory_users(), now())) {
      Worker& worker = workers_.at(kill->worker.value);
      worker.killed_for = *kill;
      kill_worker(worker);
      // A task that is tried again would not be heard of otherwise.
      if (log_to_driver_) {
        ::fprintf(stderr, "mobula: killed process %u, which used %u MiB: %u of at most %u MiB %s\n",
                  worker.pid, in_mib(kill->used), in_mib(kill->meter.used),
                  in_mib(kill->meter.limit), whose_memory(kill->meter.scope));
      }
    }
  }
  // With a thousand workers a look takes milliseconds: never more than a tenth of the time.
  const core::Time pause =
      std::max(core::MemoryGuard::until_next_look(meters, static_cast<int>(memory_.header().cores)),
               9 * (now() - begin));
  memory_look_at_ = now() + pause;
  return pause;
}

std::vector<core::MemoryMeter> Node::read_meters() const {
  std::vector<core::MemoryMeter> meters;
  if (memory_limit_ != 0) {
    std::uint64_t used = 0;
    for (const auto& [process, worker] : workers_) used += heap_of(worker);
    meters.push_back({core::MemoryScope::Session, used, memory_limit_});
  }
  const auto with_threshold = [&](core::MemoryScope scope, const shm::MemoryUse& use) {
    const auto limit = static_cast<double>(use.limit) * memory_threshold_;
    meters.push_back({scope, use.used, static_cast<std::uint64_t>(limit)});
  };
  if (const auto group = gauge_.control_group())
    with_threshold(core::MemoryScope::ControlGroup, *group);
  with_threshold(core::MemoryScope::Machine, gauge_.machine());
  return meters;
}

std::uint64_t Node::heap_of(const Worker& worker) const {
  if (worker.pid == 0) return 0;
  const std::uint64_t all = shm::private_memory(worker.pid);
  return all - std::min(all, zygote_memory_);
}

std::vector<core::MemoryUser> Node::memory_users() const {
  std::vector<core::MemoryUser> users;
  for (const auto& [process, worker] : workers_) {
    if (worker.joined && worker.pidfd >= 0) users.push_back(memory_user(process, worker));
  }
  return users;
}

core::MemoryUser Node::memory_user(std::uint32_t process, const Worker& worker) const {
  core::MemoryUser user;
  user.worker = {process};
  user.used = heap_of(worker);
  user.loss = loss_of(process, worker);
  if (const auto view = allotment_.view({worker.attached})) {
    const std::int64_t asked = view->demand.units("memory") / core::ResourceAmounts::kUnitsPerOne;
    user.overdrawn = asked > 0 && user.used > static_cast<std::uint64_t>(asked);
  }
  // An actor is compared by its age with other actors only, so the units may differ.
  user.began = worker.actor
                   ? static_cast<std::uint64_t>(actors_.at(*worker.actor).attached_at.count())
                   : memory_.process(process).task_began.load(std::memory_order_relaxed);
  return user;
}

// A look at a process that goes on: it may be wrong by a task, and then costs an attempt more.
core::Loss Node::loss_of(std::uint32_t process, const Worker& worker) const {
  if (worker.actor) {
    const Actor& actor = actors_.at(*worker.actor);
    const bool restarts = actor.max_restarts < 0 || actor.restarts < actor.max_restarts;
    return restarts ? core::Loss::ActorState : core::Loss::Actor;
  }
  core::Loss loss = core::Loss::Nothing;
  for (const std::uint32_t participant : tables_->participants_of(process)) {
    const auto outermost =
        shm::Address::unpack(memory_.participant(participant).executing[0].load());
    if (!outermost) continue;
    const shm::Record& record = memory_.record(outermost.slot);
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    if (shm::word::generation(state) != outermost.generation ||
        shm::word::state(state) != shm::State::Claimed)
      continue;
    const auto attempt = static_cast<std::int32_t>(shm::word::attempt(state));
    const bool again = record.retries < 0 || attempt < record.retries;
    loss = std::max(loss, again ? core::Loss::Attempt : core::Loss::Task);
  }
  return loss;
}

// Who was killed by us, by the kernel for want of memory, or by anybody else.
shm::DeathCause Node::cause_of_kill(const Worker& worker) {
  if (worker.killed_for) {
    const core::KillForMemory& kill = *worker.killed_for;
    return {shm::Death::OutOfMemory, static_cast<std::uint8_t>(kill.meter.scope), in_mib(kill.used),
            in_mib(kill.meter.limit)};
  }
  if (worker.ends_with_group) return {shm::Death::GroupRemoved};
  if (worker.killed_once) return {shm::Death::Killed};
  if (worker.killed_by_us || gauge_.kernel_kills() <= kernel_kills_) return {};
  ++kernel_kills_;
  return {shm::Death::OutOfMemory, static_cast<std::uint8_t>(core::MemoryScope::Kernel), 0, 0};
}

}  // namespace mobula::node
