#include "node/metrics.h"

#include <cstring>

namespace mobula::node {
namespace {

constexpr std::uint32_t kCellsPerPage = shm::kPage / sizeof(double);

std::uint32_t cells_of(std::uint32_t kind, const MetricSample& series) {
  if (kind == wire::kProgress) return wire::kProgressCells;
  if (kind != static_cast<std::uint32_t>(MetricKind::Histogram)) return 1;
  return static_cast<std::uint32_t>(series.bounds.size()) + 2;  // the last two: above, and the sum
}

}  // namespace

Metrics::Opened Metrics::open(std::uint32_t process, std::uint32_t kind,
                              const MetricSample& series) {
  auto& same_name = series_[series.name];
  if (!same_name.empty()) {
    const Series& known = same_name.begin()->second;
    if (known.kind != kind)
      return {0, "the metric " + series.name + " exists already, and is of another kind"};
    if (known.shown.bounds != series.bounds)
      return {0, "the histogram " + series.name + " exists already, and has other bounds"};
  }
  auto [it, is_new] = same_name.try_emplace(series.tags);
  Series& found = it->second;
  const std::uint32_t count = cells_of(kind, series);
  if (is_new) {
    found.kind = kind;
    found.shown = series;
    found.shown.kind = static_cast<MetricKind>(kind);
    found.kept.assign(count, 0);
  }
  if (const auto cells = found.cells.find(process); cells != found.cells.end())
    return {cells->second, {}};
  const std::uint64_t cells = take_cells(process, count);
  if (cells == 0) return {0, "no memory is left for metrics"};
  found.cells.emplace(process, cells);
  return {cells, {}};
}

std::uint64_t Metrics::take_cells(std::uint32_t process, std::uint32_t count) {
  Pages& mine = pages_[process];
  if (mine.pages.empty() || mine.used + count > kCellsPerPage) {
    if (free_pages_.empty()) {
      const auto page = tables_.metrics_page();
      if (!page) return 0;
      free_pages_.push_back(*page);
    }
    mine.pages.push_back(free_pages_.back());
    mine.used = 0;
    free_pages_.pop_back();
  }
  const std::uint64_t cells = mine.pages.back() + mine.used * sizeof(double);
  mine.used += count;
  return cells;
}

void Metrics::process_died(std::uint32_t process) {
  const auto pages = pages_.find(process);
  if (pages == pages_.end()) return;
  for (auto& [name, same_name] : series_) {
    for (auto& [tags, series] : same_name) {
      const auto it = series.cells.find(process);
      if (it == series.cells.end()) continue;
      // What it had begun and not finished will be begun anew, and what there was is gone with it.
      const bool is_gauge = series.kind == static_cast<std::uint32_t>(MetricKind::Gauge);
      const std::size_t first = series.kind == wire::kProgress ? wire::kProgressClosed : 0;
      for (std::size_t i = first; i < series.kept.size() && !is_gauge; ++i)
        series.kept[i] += at(it->second)[i].load(std::memory_order_relaxed);
      series.cells.erase(it);
    }
  }
  for (const std::uint64_t page : pages->second.pages) {
    std::memset(memory_.heap(page), 0, shm::kPage);
    free_pages_.push_back(page);
  }
  pages_.erase(pages);
}

std::vector<double> Metrics::sum(const Series& series) const {
  std::vector<double> all = series.kept;
  for (const auto& [process, cells] : series.cells) {
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] += at(cells)[i].load(std::memory_order_relaxed);
  }
  return all;
}

std::vector<MetricSample> Metrics::samples() const {
  std::vector<MetricSample> samples;
  for (const auto& [name, same_name] : series_) {
    for (const auto& [tags, series] : same_name) {
      if (series.kind == wire::kProgress) continue;
      MetricSample sample = series.shown;
      const std::vector<double> cells = sum(series);
      sample.value = cells.back();
      if (sample.kind == MetricKind::Histogram)
        sample.counts.assign(cells.begin(), cells.end() - 1);
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

std::vector<Metrics::Progress> Metrics::progress() const {
  std::vector<Progress> all;
  const std::string prefix = wire::kProgressPrefix;
  for (auto it = series_.lower_bound(prefix); it != series_.end() && it->first.starts_with(prefix);
       ++it) {
    for (const auto& [tags, series] : it->second) {
      const std::vector<double> cells = sum(series);
      const double closed = cells[wire::kProgressClosed];
      all.push_back({series.shown.description, cells[wire::kProgressDone] + closed,
                     cells[wire::kProgressTotal] + closed, cells[wire::kProgressOpen] > 0});
    }
  }
  return all;
}

}  // namespace mobula::node
