// Ray's Gauge, Histogram, Counter and Sum: mobula's metrics, shown by `mobula metrics`.
//
// As in Ray, the keys of the tags are told when a metric is made and their values at each record.
// One record per microsecond or so; mobula::Counter, which keeps its tags, takes nanoseconds.
#pragma once

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mobula/metrics.h"
#include "object_ref.h"

namespace ray {

// Throw RayException: names, keys and values that mobula's metrics do not take.
class Metric {
 public:
  using Tags = std::unordered_map<std::string, std::string>;

  virtual ~Metric() = default;
  std::string GetName() const { return name_; }

  // Also throws RayException for a tag whose key the metric was not made with.
  void Record(double value, const Tags& tags) {
    for (const auto& [key, unused] : tags) {
      if (std::find(tag_keys_.begin(), tag_keys_.end(), key) == tag_keys_.end())
        throw internal::RayException("metric " + name_ + " was not made with the tag key " + key);
    }
    internal::translated([&] { record(value, {tags.begin(), tags.end()}); });
  }

 protected:
  Metric(const std::string& name, const std::string& description, const std::string& unit,
         std::vector<std::string> tag_keys)
      : name_(name),
        description_(unit.empty() ? description : description + " (" + unit + ")"),
        tag_keys_(std::move(tag_keys)) {}

  std::string name_;
  std::string description_;

 private:
  virtual void record(double value, const mobula::MetricTags& tags) = 0;

  std::vector<std::string> tag_keys_;
};

// The last value of each process; what is shown is the sum over the living processes.
class Gauge : public Metric {
 public:
  Gauge(const std::string& name, const std::string& description, const std::string& unit,
        const std::vector<std::string>& tag_keys = {})
      : Metric(name, description, unit, tag_keys),
        gauge_(internal::translated([&] { return mobula::Gauge(name_, description_); })) {}
  void Set(double value, const Tags& tags) { Record(value, tags); }

 private:
  void record(double value, const mobula::MetricTags& tags) override {
    gauge_.with(tags).set(value);
  }
  mobula::Gauge gauge_;
};

class Histogram : public Metric {
 public:
  // boundaries: ascending.
  Histogram(const std::string& name, const std::string& description, const std::string& unit,
            const std::vector<double> boundaries, const std::vector<std::string>& tag_keys = {})
      : Metric(name, description, unit, tag_keys), histogram_(internal::translated([&] {
          return mobula::Histogram(name_, description_, boundaries);
        })) {}
  void Observe(double value, const Tags& tags) { Record(value, tags); }

 private:
  void record(double value, const mobula::MetricTags& tags) override {
    histogram_.with(tags).observe(value);
  }
  mobula::Histogram histogram_;
};

// Grows only: a negative value throws.
class Counter : public Metric {
 public:
  Counter(const std::string& name, const std::string& description, const std::string& unit,
          const std::vector<std::string>& tag_keys = {})
      : Metric(name, description, unit, tag_keys),
        counter_(internal::translated([&] { return mobula::Counter(name_, description_); })) {}
  void Inc(double value, const Tags& tags) { Record(value, tags); }

 private:
  void record(double value, const mobula::MetricTags& tags) override {
    counter_.with(tags).add(value);
  }
  mobula::Counter counter_;
};

// What was recorded, added up; as a Counter.
class Sum : public Counter {
 public:
  using Counter::Counter;
};

}  // namespace ray
