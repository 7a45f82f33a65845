#include "core/deadline_queue.h"

#include <doctest/doctest.h>

namespace mobula::core {
namespace {

using namespace std::chrono_literals;

constexpr auto kNoneIsOver = [](std::uint64_t) { return false; };

TEST_CASE("tasks are due in the order of their deadlines, and not before") {
  DeadlineQueue queue;
  for (const std::uint64_t task : {30u, 10u, 20u})
    queue.add({std::chrono::milliseconds(task), task}, kNoneIsOver);

  CHECK(queue.next() == 10ms);
  CHECK(queue.take_due(9ms) == std::nullopt);
  CHECK(queue.take_due(25ms) == 10u);
  CHECK(queue.take_due(25ms) == 20u);
  CHECK(queue.take_due(25ms) == std::nullopt);
  CHECK(queue.next() == 30ms);
}

TEST_CASE("a queue of tasks that end in time stays small, and loses none that does not") {
  DeadlineQueue queue;
  const auto is_over = [](std::uint64_t task) { return task % 1000 != 0; };
  for (std::uint64_t task = 0; task < 100'000; ++task) queue.add({1h, task}, is_over);

  CHECK(queue.size() <= DeadlineQueue::kSmall + 100);
  std::size_t open = 0;
  while (const auto task = queue.take_due(1h)) open += !is_over(*task);
  CHECK(open == 100);
  CHECK(queue.next() == std::nullopt);
}

}  // namespace
}  // namespace mobula::core
