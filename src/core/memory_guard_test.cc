#include "core/memory_guard.h"

#include <doctest/doctest.h>

namespace mobula::core {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr Time kStart = 1s;
constexpr WorkerId kAnn{11};
constexpr WorkerId kBob{12};
constexpr WorkerId kCid{13};
constexpr MemoryMeter kFull{MemoryScope::Session, 11 * kGiB, 10 * kGiB};
constexpr MemoryMeter kRoomy{MemoryScope::Machine, 11 * kGiB, 64 * kGiB};

MemoryUser task(WorkerId worker, std::uint64_t began, std::uint64_t used = 4 * kGiB) {
  return {worker, used, Loss::Attempt, false, began};
}
std::optional<WorkerId> victim(const std::vector<MemoryUser>& users) {
  const auto kill = MemoryGuard().look({kFull}, users, kStart);
  return kill ? std::optional(kill->worker) : std::nullopt;
}

TEST_CASE("nobody is killed below the limit, and the youngest task above it") {
  MemoryGuard guard;

  CHECK(guard.look({kRoomy}, {task(kAnn, 1), task(kBob, 2)}, kStart) == std::nullopt);
  CHECK(guard.look({kRoomy, kFull}, {task(kAnn, 1), task(kBob, 2)}, kStart) ==
        KillForMemory{kBob, 4 * kGiB, kFull});
}

TEST_CASE("the next kill waits until the killed process has gone") {
  MemoryGuard guard;
  const std::vector<MemoryUser> users{task(kAnn, 1), task(kBob, 2)};
  REQUIRE(guard.look({kFull}, users, kStart)->worker == kBob);

  CHECK(guard.look({kFull}, users, kStart + 1s) == std::nullopt);
  guard.gone(kCid);
  CHECK(guard.look({kFull}, users, kStart + 1s) == std::nullopt);
  guard.gone(kBob);
  CHECK(guard.look({kFull}, {task(kAnn, 1)}, kStart + 1s)->worker == kAnn);
  CHECK(guard.look({kFull}, {task(kCid, 1)}, kStart + 1s + MemoryGuard::kDeathPatience)->worker ==
        kCid);  // one that cannot end does not save the others for ever
}

TEST_CASE("who loses least goes first, whatever its age") {
  const auto losing = [](WorkerId worker, Loss loss, std::uint64_t began) {
    return MemoryUser{worker, 4 * kGiB, loss, false, began};
  };
  const Loss losses[] = {Loss::Nothing, Loss::Attempt, Loss::ActorState, Loss::Task, Loss::Actor};
  for (std::size_t i = 0; i + 1 < std::size(losses); ++i) {
    CAPTURE(i);
    CHECK(victim({losing(kAnn, losses[i + 1], 9), losing(kBob, losses[i], 1)}) == kBob);
  }
}

TEST_CASE("a task that uses more than it asked for goes before younger ones") {
  std::vector<MemoryUser> users{task(kAnn, 1), task(kBob, 2)};
  users[0].overdrawn = true;

  CHECK(victim(users) == kAnn);
}

TEST_CASE("whose end would free little is spared") {
  CHECK(victim({task(kAnn, 1, 9 * kGiB), task(kBob, 2, 1 * kGiB)}) == kAnn);
  CHECK(victim({task(kAnn, 1, 5 * kGiB), task(kBob, 2, 3 * kGiB)}) == kBob);
}

TEST_CASE("when others fill the machine nobody is killed") {
  CHECK(victim({task(kAnn, 1, kGiB / 5), task(kBob, 2, kGiB / 5)}) == std::nullopt);
  CHECK(victim({}) == std::nullopt);
}

TEST_CASE("the less room there is, the sooner memory is looked at again") {
  const auto wait = [](std::uint64_t room, int cores) {
    return MemoryGuard::until_next_look({{MemoryScope::Machine, 0, room}}, cores);
  };
  CHECK(wait(1000 * kGiB, 2) == MemoryGuard::kLookMax);
  CHECK(wait(~std::uint64_t{0}, 1) == MemoryGuard::kLookMax);
  CHECK(wait(kGiB, 1) == 125ms);
  CHECK(wait(kGiB, 2) == 62'500us);
  CHECK(wait(0, 1) == MemoryGuard::kLookMin);
  CHECK(MemoryGuard::until_next_look({kRoomy, kFull}, 1) == MemoryGuard::kLookAbove);
  CHECK(MemoryGuard::until_next_look({}, 1) == MemoryGuard::kLookMax);
}

TEST_CASE("a heap is trimmed when it has grown, and its worker is spent when that does not help") {
  HeapBound bound(1000);
  CHECK_FALSE(bound.wants_trim(250));
  CHECK(bound.wants_trim(251));

  CHECK_FALSE(bound.is_spent(240));
  CHECK_FALSE(bound.wants_trim(490));  // not after each task
  CHECK(bound.wants_trim(491));
  CHECK_FALSE(bound.is_spent(1000));
  CHECK(bound.wants_trim(1001));
  CHECK(bound.is_spent(1001));
}

}  // namespace
}  // namespace mobula::core
