// Counters, gauges and histograms of the user's own, added up over all processes of the session.
//
//   const mobula::Counter episodes("episodes", "that were simulated");
//   double simulate(int seed) { episodes.add(); ... }
//
// A metric may be a global, or made where it is used: all of one name and the same tags are one.
// Each process counts in memory of its own, so that counting takes some nanoseconds and no lock;
// making a metric asks the node the first time, and looks into a table the next. What a process
// counted stays counted when it is gone; its gauges are gone with it. Outside of a session nothing
// is counted.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace mobula {

using MetricTags = std::map<std::string, std::string>;

enum class MetricKind : std::uint32_t { Counter, Gauge, Histogram };

namespace detail {

// What all metrics of this process of one name and the same tags share.
struct MetricState;

class Metric {
 public:
  Metric(std::uint32_t kind, std::string name, std::string description, MetricTags tags,
         std::vector<double> bounds = {});
  Metric with(const MetricTags& more) const;
  // Where this process counts; nullptr outside of a session.
  std::atomic<double>* cells() const;
  const std::vector<double>& bounds() const;

 private:
  std::shared_ptr<MetricState> state_;
};

}  // namespace detail

// All of these throw Error when they are made: a name is letters, digits, "_" and ":", up to 100,
// not beginning with a digit or "mobula_"; there are at most 8 tags, whose keys are letters, digits
// and "_", up to 50, and whose values have up to 100 bytes; the description has up to 500; one name
// is of one kind. If there is no session then, the kind is compared at the first use, which throws.

// Counts what happens; only grows.
class Counter {
 public:
  explicit Counter(std::string name, std::string description = {}, MetricTags tags = {});
  // The same metric with further tags: counted by itself.
  Counter with(const MetricTags& tags) const { return Counter(metric_.with(tags)); }
  void add(double by = 1) const;  // throws Error: negative, or no number

 private:
  explicit Counter(detail::Metric metric) : metric_(std::move(metric)) {}
  detail::Metric metric_;
};

// Says how much there is of something. What is shown is the sum over the living processes.
class Gauge {
 public:
  explicit Gauge(std::string name, std::string description = {}, MetricTags tags = {});
  Gauge with(const MetricTags& tags) const { return Gauge(metric_.with(tags)); }
  void set(double value) const;  // of this process; throws Error: no finite number
  void add(double by) const;  // the same

 private:
  explicit Gauge(detail::Metric metric) : metric_(std::move(metric)) {}
  detail::Metric metric_;
};

// Says how values are distributed: how many are at most each of `bounds`, how many there are, and
// their sum.
class Histogram {
 public:
  // `bounds`: ascending, finite, from 1 to 40; one name has the same ones everywhere.
  Histogram(std::string name, std::string description, std::vector<double> bounds,
            MetricTags tags = {});
  Histogram with(const MetricTags& tags) const { return Histogram(metric_.with(tags)); }
  void observe(double value) const;  // throws Error: no finite number

 private:
  explicit Histogram(detail::Metric metric) : metric_(std::move(metric)) {}
  detail::Metric metric_;
};

// One metric of one set of tags, added up over the session's processes.
struct MetricSample {
  std::string name;
  std::string description;
  MetricKind kind = MetricKind::Counter;
  MetricTags tags;
  double value = 0;  // of a histogram: the sum of what was observed
  std::vector<double> bounds;  // of a histogram
  std::vector<std::uint64_t> counts;  // of a histogram: up to each bound, and above the last
};

// All metrics of the session, ordered by name and tags: the user's, and the node's own, whose names
// begin with "mobula_". Throws Error without a session.
std::vector<MetricSample> metrics();

// The same as text, in the form in which Prometheus reads it.
std::string metrics_text();
std::string to_prometheus(const std::vector<MetricSample>& samples);

// The same for people, a line each; of a histogram how many values there were, their mean, and
// between which of its bounds the median and the 99th percentile lie. Config.show_metrics shows it
// at the end.
std::string to_table(const std::vector<MetricSample>& samples);

}  // namespace mobula
