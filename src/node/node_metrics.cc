// What is counted: by processes, in pages that the daemon hands out, and by the daemon itself.
#include <algorithm>
#include <tuple>

#include "node/node.h"
#include "node/node_parts.h"

namespace mobula::node {

void Node::open_metric(std::uint32_t process, wire::Message& message) {
  const std::string text(message.text_view());
  message.text_size = 0;
  if (message.a > static_cast<std::uint32_t>(MetricKind::Histogram) && message.a != wire::kProgress)
    return refuse(message, wire::Status::Invalid, "there is no such kind of metric");
  try {
    Reader reader(reinterpret_cast<const std::byte*>(text.data()), text.size());
    const Metrics::Opened opened = metrics_->open(process, message.a, decode<MetricSample>(reader));
    if (!opened.problem.empty()) return refuse(message, wire::Status::Invalid, opened.problem);
    message.c = opened.cells;
  } catch (const Error& e) {
    refuse(message, wire::Status::Invalid, e.what());
  }
}

// What the daemon counts anyway.
std::vector<MetricSample> Node::own_metrics() const {
  std::uint64_t tasks = counted_.tasks;
  std::uint64_t failed = counted_.failed + recovery_->failed();
  const auto add = [&](std::uint32_t process) {
    tasks += memory_.process(process).tasks_done.load(std::memory_order_relaxed);
    failed += memory_.process(process).tasks_failed.load(std::memory_order_relaxed);
  };
  add(kDriverProcess);
  for (const auto& [process, worker] : workers_) add(process);
  const auto actors =
      std::count_if(actors_.begin(), actors_.end(), [](const auto& a) { return !a.second.dead; });
  const ObjectMemory::Counts memory = objects_->counts();
  std::vector<MetricSample> samples;
  const auto tell = [&](const char* name, MetricKind kind, auto value, const char* description) {
    samples.push_back({name, description, kind, {}, static_cast<double>(value), {}, {}});
  };
  using enum MetricKind;
  tell("mobula_actor_restarts_total", Counter, counted_.restarts, "Actors' lives after the first");
  tell("mobula_actors", Gauge, actors, "Actors that are not dead");
  tell("mobula_object_store_bytes", Gauge, memory.leased, "Of the object store, handed out");
  tell("mobula_objects_restored_bytes_total", Counter, memory.restored_ever, "Read back from disk");
  tell("mobula_objects_spilled_bytes_total", Counter, memory.spilled_ever, "Written to disk");
  tell("mobula_process_crashes_total", Counter, counted_.crashes,
       "Workers and actors that ended by a signal or with an exit code");
  tell("mobula_tasks_failed_total", Counter, failed, "Tasks and calls that ended with an error");
  tell("mobula_tasks_run_total", Counter, tasks, "Attempts of tasks and calls that ended");
  tell("mobula_workers", Gauge, workers_.size(), "Processes of workers and actors");
  return samples;
}

// `reader`: a process, or a tool by its tag.
void Node::report_metrics(std::uint64_t reader, wire::Message& message) {
  std::string& text = read_metrics_[reader];
  if (message.c == 0) {
    std::vector<MetricSample> all = metrics_->samples();
    for (MetricSample& sample : own_metrics()) all.push_back(std::move(sample));
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return std::tie(a.name, a.tags) < std::tie(b.name, b.tags);
    });
    Writer measure(nullptr, 0);
    encode<std::vector<MetricSample>>(measure, all);
    text.resize(measure.size());
    Writer writer(reinterpret_cast<std::byte*>(text.data()), text.size());
    encode<std::vector<MetricSample>>(writer, all);
  }
  const auto begin = std::min<std::size_t>(message.c, text.size());
  message.d = text.size();
  message.set_text(std::string_view(text).substr(begin, wire::kTextMax));
  if (begin + message.text_size == text.size()) read_metrics_.erase(reader);
}

}  // namespace mobula::node
