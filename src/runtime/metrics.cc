#include "runtime/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <functional>
#include <mutex>
#include <utility>

#include "mobula/codec.h"
#include "mobula/error.h"
#include "runtime/journal.h"
#include "runtime/process.h"

namespace mobula {
namespace detail {

struct MetricState {
  std::uint32_t kind;
  MetricSample series;
  // `cells` is of this session; written in this order, read in the other.
  std::atomic<std::atomic<double>*> cells{nullptr};
  std::atomic<std::uint64_t> session{0};
};

namespace {

constexpr std::size_t kNameMax = 100;
constexpr std::size_t kDescriptionMax = 500;
constexpr std::size_t kTagsMax = 8;
constexpr std::size_t kTagKeyMax = 50;
constexpr std::size_t kTagValueMax = 100;
constexpr std::size_t kBoundsMax = 40;

// Ordered, so that states are found again; never emptied, as the metrics of a program are few.
std::mutex states_mutex;
std::map<std::pair<std::string, MetricTags>, std::shared_ptr<MetricState>>& states() {
  static auto* all = new std::map<std::pair<std::string, MetricTags>, std::shared_ptr<MetricState>>;
  return *all;  // metrics of static storage may be used after every destructor
}

bool is_word(std::string_view text, bool with_colon) {
  const auto letter = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (with_colon && c == ':');
  };
  return !text.empty() && letter(text[0]) && std::all_of(text.begin(), text.end(), [&](char c) {
    return letter(c) || (c >= '0' && c <= '9');
  });
}

void check_name(const std::string& name) {
  if (name.size() > kNameMax || !is_word(name, true))
    throw Error("'" + name.substr(0, kNameMax) +
                "' is no name of a metric: up to 100 letters, digits, _ and :, no digit first");
  if (name.starts_with("mobula_"))
    throw Error("the metric '" + name + "': names that begin with mobula_ are the library's own");
}

void check_series(std::uint32_t kind, const MetricSample& series) {
  if (kind == wire::kProgress) return;
  check_name(series.name);
  const std::string who = "the metric " + series.name + ": ";
  if (series.description.size() > kDescriptionMax)
    throw Error(who + "its description is longer than 500 bytes");
  if (series.tags.size() > kTagsMax) throw Error(who + "it has more than 8 tags");
  for (const auto& [key, value] : series.tags) {
    if (key.size() > kTagKeyMax || !is_word(key, false) || key.starts_with("__") || key == "le")
      throw Error(who + "'" + key.substr(0, kTagKeyMax) + "' is no name of a tag");
    if (value.size() > kTagValueMax)
      throw Error(who + "the value of its tag " + key + " is longer than 100 bytes");
  }
  if (kind != static_cast<std::uint32_t>(MetricKind::Histogram)) return;
  const auto& bounds = series.bounds;
  const bool finite =
      std::all_of(bounds.begin(), bounds.end(), [](double b) { return std::isfinite(b); });
  const bool ascending =
      std::adjacent_find(bounds.begin(), bounds.end(), std::greater_equal<>()) == bounds.end();
  if (bounds.empty() || bounds.size() > kBoundsMax || !finite || !ascending)
    throw Error(who + "its bounds are to be finite and ascending, from 1 to 40 of them");
}

std::shared_ptr<MetricState> state_of(std::uint32_t kind, MetricSample series) {
  check_series(kind, series);
  const std::lock_guard lock(states_mutex);
  std::shared_ptr<MetricState>& state = states()[{series.name, series.tags}];
  if (!state) {
    state = std::make_shared<MetricState>();
    state->kind = kind;
    state->series = std::move(series);
  } else if (state->kind != kind || state->series.bounds != series.bounds) {
    throw Error("the metric " + series.name +
                " exists already, and is of another kind or has other bounds");
  }
  return state;
}

// Asks the node where this process counts.
std::atomic<double>* bind(MetricState& state) {
  runtime::Process* process = runtime::current_process();
  if (!process) return nullptr;
  const std::lock_guard lock(states_mutex);
  if (state.session.load(std::memory_order_acquire) != process->session()) {
    wire::Message message;
    message.kind = wire::Kind::OpenMetric;
    message.a = state.kind;
    alignas(8) std::byte bytes[wire::kTextMax];
    Writer writer(bytes, sizeof bytes);
    encode<MetricSample>(writer, state.series);
    message.set_text({reinterpret_cast<const char*>(bytes), writer.size()});
    process->daemon().demand(message);
    state.cells.store(reinterpret_cast<std::atomic<double>*>(process->memory().heap(message.c)),
                      std::memory_order_relaxed);
    state.session.store(process->session(), std::memory_order_release);
  }
  return state.cells.load(std::memory_order_relaxed);
}

}  // namespace

Metric::Metric(std::uint32_t kind, std::string name, std::string description, MetricTags tags,
               std::vector<double> bounds) {
  MetricSample series;
  series.name = std::move(name);
  series.description = std::move(description);
  series.tags = std::move(tags);
  series.bounds = std::move(bounds);
  state_ = state_of(kind, std::move(series));
  cells();
}

Metric Metric::with(const MetricTags& more) const {
  MetricTags tags = more;
  tags.insert(state_->series.tags.begin(), state_->series.tags.end());
  return Metric(state_->kind, state_->series.name, state_->series.description, std::move(tags),
                state_->series.bounds);
}

std::atomic<double>* Metric::cells() const {
  // acquire: the cells are of the session that is read
  const std::uint64_t session = state_->session.load(std::memory_order_acquire);
  if (session != 0 && session == current_session())
    return state_->cells.load(std::memory_order_relaxed);
  return bind(*state_);
}

const std::vector<double>& Metric::bounds() const { return state_->series.bounds; }

}  // namespace detail

namespace {

void check_finite(double value, const char* what) {
  if (!std::isfinite(value)) throw Error(std::string(what) + ": the value is no finite number");
}

// relaxed: sums are read now and then, and order nothing
void add_to(std::atomic<double>* cell, double by) {
  if (cell) cell->fetch_add(by, std::memory_order_relaxed);
}
// Where a counter or histogram counts what happens now; nullptr: nowhere, or it is counted already.
std::atomic<double>* cells_for_now(const detail::Metric& metric) {
  return runtime::repeating ? nullptr : metric.cells();
}

constexpr auto kCounter = static_cast<std::uint32_t>(MetricKind::Counter);
constexpr auto kGauge = static_cast<std::uint32_t>(MetricKind::Gauge);
constexpr auto kHistogram = static_cast<std::uint32_t>(MetricKind::Histogram);

}  // namespace

Counter::Counter(std::string name, std::string description, MetricTags tags)
    : metric_(kCounter, std::move(name), std::move(description), std::move(tags)) {}
void Counter::add(double by) const {
  if (!(by >= 0) || !std::isfinite(by))
    throw Error("Counter.add: a counter only grows, by a finite number");
  add_to(cells_for_now(metric_), by);
}

Gauge::Gauge(std::string name, std::string description, MetricTags tags)
    : metric_(kGauge, std::move(name), std::move(description), std::move(tags)) {}
void Gauge::set(double value) const {
  check_finite(value, "Gauge.set");
  if (std::atomic<double>* cell = metric_.cells()) cell->store(value, std::memory_order_relaxed);
}
void Gauge::add(double by) const {
  check_finite(by, "Gauge.add");
  add_to(metric_.cells(), by);
}

Histogram::Histogram(std::string name, std::string description, std::vector<double> bounds,
                     MetricTags tags)
    : metric_(kHistogram, std::move(name), std::move(description), std::move(tags),
              std::move(bounds)) {}
void Histogram::observe(double value) const {
  check_finite(value, "Histogram.observe");
  std::atomic<double>* const cells = cells_for_now(metric_);
  if (!cells) return;
  const std::vector<double>& bounds = metric_.bounds();
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  add_to(&cells[bucket], 1);
  add_to(&cells[bounds.size() + 1], value);
}

std::vector<MetricSample> metrics() {
  runtime::Process& process = runtime::require_process();
  return runtime::read_metrics([&](std::uint64_t begin) {
    wire::Message message;
    message.kind = wire::Kind::ReadMetrics;
    message.c = begin;
    process.daemon().demand(message);
    return message;
  });
}

std::string metrics_text() { return to_prometheus(metrics()); }

namespace {

std::string number(double value) {
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}

std::string escaped(std::string_view text, bool quotes) {
  std::string result;
  for (const char c : text) {
    if (c == '\n') {
      result += "\\n";
      continue;
    }
    if (c == '\\' || (quotes && c == '"')) result += '\\';
    result += c;
  }
  return result;
}

// `{route="/a",le="0.5"}`
std::string labels(const MetricTags& tags, const std::string& le = {}) {
  std::string text;
  const auto add = [&](const std::string& key, const std::string& value) {
    text += (text.empty() ? "{" : ",") + key + "=\"" + escaped(value, true) + "\"";
  };
  for (const auto& [key, value] : tags) add(key, value);
  if (!le.empty()) add("le", le);
  return text.empty() ? text : text + "}";
}

// "200 values, mean 66.5, p50 <= 100, p99 > 100"
std::string describe_histogram(const MetricSample& sample) {
  std::uint64_t count = 0;
  for (const std::uint64_t in : sample.counts) count += in;
  if (count == 0) return "no values";
  char mean[40];
  std::snprintf(mean, sizeof mean, "%.6g", sample.value / static_cast<double>(count));
  const auto reach = [&](double part) -> std::string {
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < sample.bounds.size(); ++i) {
      below += sample.counts[i];
      if (static_cast<double>(below) >= part * static_cast<double>(count))
        return "<= " + number(sample.bounds[i]);
    }
    return "> " + number(sample.bounds.back());
  };
  return std::to_string(count) + (count == 1 ? " value" : " values") + ", mean " + mean + ", p50 " +
         reach(0.5) + ", p99 " + reach(0.99);
}

void add_histogram(std::string& text, const MetricSample& sample) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < sample.counts.size(); ++i) {
    count += sample.counts[i];
    const std::string le = i < sample.bounds.size() ? number(sample.bounds[i]) : "+Inf";
    text += sample.name + "_bucket" + labels(sample.tags, le) + " " + std::to_string(count) + "\n";
  }
  text += sample.name + "_sum" + labels(sample.tags) + " " + number(sample.value) + "\n";
  text += sample.name + "_count" + labels(sample.tags) + " " + std::to_string(count) + "\n";
}

}  // namespace

std::string to_prometheus(const std::vector<MetricSample>& samples) {
  static constexpr const char* kTypes[] = {"counter", "gauge", "histogram"};
  std::string text;
  std::string last;
  for (const MetricSample& sample : samples) {
    if (sample.name != last) {
      last = sample.name;
      if (!sample.description.empty())
        text += "# HELP " + sample.name + " " + escaped(sample.description, false) + "\n";
      text += "# TYPE " + sample.name + " " + kTypes[static_cast<std::size_t>(sample.kind)] + "\n";
    }
    if (sample.kind == MetricKind::Histogram) {
      add_histogram(text, sample);
    } else {
      text += sample.name + labels(sample.tags) + " " + number(sample.value) + "\n";
    }
  }
  return text;
}

std::string to_table(const std::vector<MetricSample>& samples) {
  std::size_t width = 0;
  for (const MetricSample& sample : samples)
    width = std::max(width, sample.name.size() + labels(sample.tags).size());
  std::string text;
  for (const MetricSample& sample : samples) {
    std::string name = sample.name + labels(sample.tags);
    name.resize(width, ' ');
    text +=
        name + "  " +
        (sample.kind == MetricKind::Histogram ? describe_histogram(sample) : number(sample.value)) +
        "\n";
  }
  return text;
}

}  // namespace mobula
