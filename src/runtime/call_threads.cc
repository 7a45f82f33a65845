#include "runtime/call_threads.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "mobula/error.h"
#include "runtime/execution.h"
#include "runtime/ledger.h"
#include "shm/claim.h"
#include "shm/futex.h"

namespace mobula::runtime {
namespace {

constexpr int kThreadsMax = 1000;  // of one actor

struct NamedGroup {
  std::string_view name;
  int threads;
};

std::vector<NamedGroup> parse_groups(std::string_view text) {
  std::vector<NamedGroup> groups;
  while (!text.empty()) {
    const std::size_t equals = text.find('=');
    const std::size_t end = text.find('\n');
    groups.push_back({text.substr(0, equals), std::atoi(text.data() + equals + 1)});
    text.remove_prefix(end + 1);
  }
  return groups;
}

}  // namespace

std::string groups_text(const ActorOptions& options) {
  int all = 0;
  const auto check = [&](const std::string& what, int threads) {
    all += threads;
    if (threads < 1 || threads > kThreadsMax || all > kThreadsMax) {
      throw Error(what + " is " + std::to_string(threads) +
                  "; it must be at least 1, and an actor has at most " +
                  std::to_string(kThreadsMax) + " threads");
    }
  };
  check("ActorOptions.max_concurrency", options.max_concurrency);
  if (options.max_concurrency == 1 && options.concurrency_groups.empty()) return {};
  std::string text = "=" + std::to_string(options.max_concurrency) + "\n";
  for (const auto& [name, threads] : options.concurrency_groups) {
    if (name.empty() || name.find_first_of("=\n") != std::string::npos)
      throw Error("ActorOptions.concurrency_groups: '" + name + "' is no name of a group");
    check("ActorOptions.concurrency_groups[" + name + "]", threads);
    text += name + "=" + std::to_string(threads) + "\n";
  }
  if (text.size() >= sizeof shm::SchedulingClass::groups)
    throw Error("ActorOptions.concurrency_groups: the names are too long, or too many");
  return text;
}

std::uint16_t group_number(const shm::SchedulingClass& cls, std::string_view name) {
  if (name.empty()) return 0;
  std::string known;
  std::uint16_t number = 0;
  for (const NamedGroup& group : parse_groups(cls.groups)) {
    if (group.name == name) return number;
    if (number++ > 0) known += (known.empty() ? "" : ", ") + std::string(group.name);
  }
  throw Error("actor " + std::string(cls.name) + " has no concurrency group '" + std::string(name) +
              "'; it has " + (known.empty() ? "none (ActorOptions.concurrency_groups)" : known));
}

CallThreads::CallThreads(Process& process, shm::SchedulingClass& cls)
    : process_(process), class_(cls), out_of_order_(cls.out_of_order != 0) {
  for (const NamedGroup& named : parse_groups(cls.groups)) {
    Group& group = *groups_.emplace_back(std::make_unique<Group>());
    for (int i = 0; i < named.threads; ++i)
      std::thread([this, &group] { serve(group); }).detach();  // until the process ends
  }
}

shm::State CallThreads::state_of(shm::Address address) const {
  const std::uint64_t state =
      process_.memory().record(address.slot).state.load(std::memory_order_acquire);
  return shm::word::generation(state) == address.generation ? shm::word::state(state)
                                                            : shm::State::Free;
}

std::uint64_t& CallThreads::seen_in(const shm::RingHeader& ring) {
  const auto [at, fresh] = seen_.try_emplace(&ring, 0);
  if (fresh) at->second = ring.tail.load(std::memory_order_acquire);
  return at->second;
}

bool CallThreads::has_work() {
  for (std::uint64_t at = class_.rings.load(std::memory_order_acquire); at != 0;) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(process_.memory().heap(at));
    at = ring.next.load(std::memory_order_acquire);
    const std::uint64_t seen = seen_in(ring);
    if (seen >= ring.head.load(std::memory_order_acquire)) continue;
    const auto address = shm::Address::unpack(
        shm::ring::entry(process_.memory(), ring, seen).load(std::memory_order_relaxed));
    if (out_of_order_ || state_of(address) != shm::State::Waiting) return true;
  }
  return std::any_of(passed_.begin(), passed_.end(), [&](shm::Address address) {
    return state_of(address) != shm::State::Waiting;
  });
}

// An entry may be overwritten once the tail has passed it: not before its call is claimed.
void CallThreads::follow(shm::RingHeader& ring, std::uint64_t seen) {
  std::uint64_t tail = ring.tail.load(std::memory_order_acquire);
  const std::uint64_t before = tail;
  for (; tail < seen; ++tail) {
    const shm::State state = state_of(shm::Address::unpack(
        shm::ring::entry(process_.memory(), ring, tail).load(std::memory_order_relaxed)));
    if (state == shm::State::Ready || state == shm::State::Waiting) break;
  }
  // acq_rel: our reads of the entries come before the pusher's use of their places
  std::uint64_t expected = before;
  if (tail != before) ring.tail.compare_exchange_strong(expected, tail, std::memory_order_acq_rel);
}

void CallThreads::queue(shm::Address address, Group& group) {
  handed_over_.fetch_add(1, std::memory_order_seq_cst);
  {
    const std::lock_guard lock(group.mutex);
    group.queue.push_back(address);
  }
  group.filled.notify_one();
}

void CallThreads::serve(Group& group) {
  try {
    set_one_of_several();
    Ledger& ledger = process_.this_ledger();
    shm::Process& shared = process_.shared();
    for (;;) {
      std::unique_lock lock(group.mutex);
      group.filled.wait(lock, [&] { return !group.queue.empty(); });
      const shm::Address address = group.queue.front();
      group.queue.pop_front();
      lock.unlock();
      shm::Record& record = process_.memory().record(address.slot);
      if (!(class_.kill_request.load(std::memory_order_seq_cst) & shm::kKill)) {
        shm::claim::intend(ledger.shared(), address);
        shm::crash_point(shm::CrashPoint::ClaimIntent);
        if (shm::claim::take(record, address, ledger.participant())) {
          shm::crash_point(shm::CrashPoint::ClaimTaken);
          execute(ledger, record, address);
        } else {
          shm::claim::forget(ledger.shared());
        }
      }
      if (handed_over_.fetch_sub(1, std::memory_order_seq_cst) == 1) {
        process_.tidy();
        if (shared.must_leave.load(std::memory_order_seq_cst)) {
          shared.bell.value.fetch_add(1, std::memory_order_seq_cst);
          shm::futex_wake_all(shm::futex_word(shared.bell.value));
        }
      }
    }
  } catch (const NodeDiedError&) {
    ::_exit(0);
  } catch (const Error& e) {
    ::fprintf(stderr, "mobula: a thread of an actor cannot go on: %s\n", e.what());
    ::_exit(1);
  }
}

}  // namespace mobula::runtime
