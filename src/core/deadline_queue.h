// Decides whose time is over: tasks that have a deadline, the earliest first.
//
// Most end long before, and nobody says so. What has ended is forgotten when the queue has doubled
// since it was last looked through, so that it is as large as what is open, and costs a constant
// time for each task.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mobula::core {

class DeadlineQueue {
 public:
  using Time = std::chrono::nanoseconds;
  struct Entry {
    Time at{};
    std::uint64_t task = 0;
    friend bool operator==(const Entry&, const Entry&) = default;
  };

  // `is_over(task)`: it has ended.
  template <class IsOver>
  void add(Entry entry, const IsOver& is_over) {
    if (entries_.size() >= look_through_at_) {
      std::erase_if(entries_, [&](const Entry& e) { return is_over(e.task); });
      std::make_heap(entries_.begin(), entries_.end(), later);
      look_through_at_ = std::max(kSmall, 2 * entries_.size());
    }
    entries_.push_back(entry);
    std::push_heap(entries_.begin(), entries_.end(), later);
  }

  // When the next one is due.
  std::optional<Time> next() const {
    return entries_.empty() ? std::nullopt : std::optional(entries_.front().at);
  }

  // Takes out the earliest, if it is due.
  std::optional<std::uint64_t> take_due(Time now) {
    if (entries_.empty() || entries_.front().at > now) return std::nullopt;
    std::pop_heap(entries_.begin(), entries_.end(), later);
    const std::uint64_t task = entries_.back().task;
    entries_.pop_back();
    return task;
  }

  std::size_t size() const { return entries_.size(); }

  static constexpr std::size_t kSmall = 1024;  // so many are kept without a look

 private:
  static bool later(const Entry& a, const Entry& b) { return a.at > b.at; }

  std::vector<Entry> entries_;  // a heap
  std::size_t look_through_at_ = kSmall;
};

}  // namespace mobula::core
