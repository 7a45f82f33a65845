// What processes ask of the daemon, and its answers: leases, classes, rings, resources.
#include "node/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "node/node_parts.h"
#include "shm/claim.h"

namespace mobula::node {
namespace {

constexpr std::uint64_t kRingEntriesMax = std::uint64_t{1} << 31;

std::string format_amounts(const core::ResourceAmounts& amounts) {
  std::string text;
  for (const auto& [name, units] : amounts.by_name()) {
    char line[64];
    ::snprintf(line, sizeof line, "=%.17g\n",
               static_cast<double>(units) / core::ResourceAmounts::kUnitsPerOne);
    text += name + line;
  }
  return text;
}

template <std::size_t N>
void copy_text(char (&to)[N], std::string_view text) {
  const std::size_t n = std::min(text.size(), N - 1);
  ::memcpy(to, text.data(), n);
  to[n] = 0;
}

}  // namespace

void Node::serve(int socket, std::uint32_t process) {
  wire::Message message;
  switch (wire::receive(socket, message)) {
    case wire::Received::Nothing: return;
    case wire::Received::Closed:
      if (socket == driver_) {
        driver_gone_ = true;
      } else {
        // Its end is on the way from the zygote, with the reason.
        Worker& worker = workers_.at(process);
        unwatch(worker.socket);
        ::close(worker.socket);
        worker.socket = -1;
      }
      return;
    case wire::Received::Message: break;
  }
  for (std::uint32_t i = 0; i < message.descriptor_count; ++i)
    ::close(message.descriptors[i]);  // nobody sends us any but at the start
  if (message.kind == wire::Kind::Leave && socket == driver_) {
    leave_asked_ = true;
    return;
  }
  if (message.kind == wire::Kind::Joined) {
    if (socket == driver_) return;
    Worker& worker = workers_.at(process);
    worker.joined = true;
    if (worker.actor) actors_.at(*worker.actor).failed_starts = 0;
    step(
        core::WorkerReady{{process},
                          worker.actor ? std::optional(core::ClassId{*worker.actor}) : std::nullopt,
                          {worker.environment}});
    return;
  }
  if (message.kind == wire::Kind::EndCancelled) {
    const auto task = shm::Address::unpack(message.c);
    if (task.slot / shm::kRecordsPerSegment < shm::kSegmentsMax) condemned_.push_back(task);
    return;
  }
  if (message.kind == wire::Kind::Deadline) return note_deadline(message);
  answer(process, message);
  message.kind = wire::Kind::Reply;
  message.descriptor_count = 0;
  wire::send(socket, message);
}

void Node::answer(std::uint32_t process, wire::Message& message) {
  message.status = wire::Status::Ok;
  const std::string asked(message.text_view());
  message.text_size = 0;
  const auto give = [&](auto& field, const auto& value, const char* what) {
    if (value) {
      field = *value;
    } else {
      refuse(message, wire::Status::Limit, what);
    }
  };
  const auto owns = [&](std::uint32_t participant) {
    const auto& mine = tables_->participants_of(process);
    return std::find(mine.begin(), mine.end(), participant) != mine.end();
  };
  switch (message.kind) {
    case wire::Kind::LeaseLedger: {
      const auto participant = tables_->open_participant(process);
      give(message.a, participant,
           "this node has as many submitting threads as it can list (4095)");
      if (participant)
        give(message.b, tables_->lease_segment(*participant),
             "no memory is left for records of tasks");
      return;
    }
    case wire::Kind::LeaseSegment:
      if (!owns(message.a))
        return refuse(message, wire::Status::Invalid, "the ledger is another process's");
      return give(message.a, tables_->lease_segment(message.a),
                  "no memory is left for records of tasks");
    case wire::Kind::LeaseHolds:
      return give(message.a, tables_->lease_holds(process, message.a),
                  "no memory is left for the table of held objects");
    case wire::Kind::LeaseStream:
      return give(message.a, tables_->lease_stream(process), "no memory is left for streams");
    case wire::Kind::LeaseJournal:
    case wire::Kind::PastRecords: {
      const auto asking = workers_.find(process);
      if (asking == workers_.end() || !asking->second.actor)
        return refuse(message, wire::Status::Invalid, "only an actor has a journal");
      const std::uint32_t cls = *asking->second.actor;
      if (message.kind == wire::Kind::PastRecords) return tell_past_records(cls, message);
      if (!tables_->lease_journal(cls, message.a))
        refuse(message, wire::Status::OutOfMemory, "no memory is left for the actor's journal");
      return;
    }
    case wire::Kind::OpenClass: message.set_text(asked); return open_class(process, message);
    case wire::Kind::FindActor: message.set_text(asked); return find_actor(process, message);
    case wire::Kind::ListActors: message.set_text(asked); return list_actors(message);
    case wire::Kind::Monitor: return monitor_actor(process, message);
    case wire::Kind::OpenRing:
      if (!owns(message.a) || message.b >= tables_->class_limit())
        return refuse(message, wire::Status::Invalid, "no such ring");
      return give(message.c, tables_->open_ring(message.a, message.b),
                  "no memory is left for queues of tasks");
    case wire::Kind::GrowRing:
      if (message.d == 0 || message.d > kRingEntriesMax || (message.d & (message.d - 1)) != 0) {
        return refuse(message, wire::Status::Invalid, "no such ring");
      }
      return give(message.c, tables_->ring_storage(message.d),
                  "no memory is left for queues of tasks");
    case wire::Kind::LeaseExtent:
    case wire::Kind::RestoreExtent: return give_extent(process, message);
    case wire::Kind::ObjectMemory: return report_object_memory(message);
    case wire::Kind::Resources: return report_resources(message);
    case wire::Kind::OpenMetric: message.set_text(asked); return open_metric(process, message);
    case wire::Kind::ReadMetrics: return report_metrics(process, message);
    case wire::Kind::Explain: return message.set_text(allotment_.explain({message.a}));
    default: return refuse(message, wire::Status::Invalid, "unknown request");
  }
}

void Node::clear_class(std::uint32_t id, shm::ClassKind kind) {
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  cls.kind.store(static_cast<std::uint32_t>(kind));
  cls.attached.store(0);
  cls.attention.store(0);
  for (auto& w : cls.sleepers) w.store(0);
  cls.searcher.store(0);
  cls.quick.store(0);
  cls.creation.store(0);
  cls.kill_request.store(0);
  cls.restarts.store(0);
  cls.environment.store(0);
  cls.death = {};
  cls.lasting.options = 0;
  cls.lasting.born = cls.lasting.taken.load();
  cls.pending_calls_max = -1;
  cls.out_of_order = 0;
  copy_text(cls.groups, "");
  copy_text(cls.name, "");
  copy_text(cls.given_name, "");
  copy_text(cls.demand_text, "");
}

// What a process runs later itself. It alone claims from the class, on a thread that is always
// there, so the rules of the allotment have nothing to say about it.
void Node::open_callback_class(std::uint32_t process, wire::Message& message) {
  const auto id = tables_->open_class();
  if (!id || callback_classes_.contains(process))
    return refuse(message, wire::Status::Limit,
                  "this node has as many scheduling classes and actors as it can list (16384)");
  clear_class(*id, shm::ClassKind::Callback);
  shm::SchedulingClass& cls = memory_.scheduling_class(*id);
  cls.attached.store(1);
  cls.slot_process[0].store(process);
  copy_text(cls.name, "(callbacks)");
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Open), std::memory_order_release);
  recovery_->open_class_ring(*id);
  callback_classes_[process] = *id;
  message.a = *id;
}

// After the repair, which failed the records of the class: what its rings still name runs nowhere.
void Node::close_callback_class(std::uint32_t process) {
  const auto it = callback_classes_.find(process);
  if (it == callback_classes_.end()) return;
  memory_.scheduling_class(it->second)
      .state.store(static_cast<std::uint32_t>(shm::ClassState::Free));
  recovery_->fail_calls(it->second);
  tables_->close_class(it->second);
  callback_classes_.erase(it);
}

void Node::open_class(std::uint32_t process, wire::Message& message) {
  if (message.a == static_cast<std::uint32_t>(shm::ClassKind::Callback))
    return open_callback_class(process, message);
  const std::string text(message.text_view());
  const wire::Fields fields = wire::split(text);
  const bool is_actor = message.a == static_cast<std::uint32_t>(shm::ClassKind::Actor);
  const std::uint32_t environment =
      environment_number(std::string(wire::rest(text, is_actor ? wire::kActorFields : 1)));
  const auto priority = static_cast<int>(message.b);
  const std::string key = text + '\0' + std::to_string(priority);
  const std::string demand_text(wire::field(fields, 0));
  const std::string_view actor_class = wire::field(fields, wire::kActorClass);
  const ActorName name =
      full_name(wire::field(fields, wire::kActorName), wire::field(fields, wire::kActorNamespace));
  const std::string pending_calls(wire::field(fields, wire::kActorPendingCalls));
  const std::string type(wire::field(fields, wire::kActorType));
  const std::string groups(wire::field(fields, wire::kActorGroups));
  const std::string lasting(wire::field(fields, wire::kActorLasting));
  const auto restarts = static_cast<int>(message.b);
  const std::uint64_t creation = message.c;
  if (is_actor &&
      shm::Address::unpack(creation).slot / shm::kRecordsPerSegment >= shm::kSegmentsMax) {
    return refuse(message, wire::Status::Invalid, "the creation of the actor is no record");
  }
  const auto retries = static_cast<int>(static_cast<std::uint32_t>(message.d));
  const bool out_of_order = message.d & wire::kOutOfOrder;
  message.text_size = 0;
  if (!is_actor) {
    if (const auto known = task_classes_.find(key); known != task_classes_.end()) {
      message.a = known->second;
      return;
    }
  }
  if (is_actor && name_is_taken(name)) {
    return refuse(message, wire::Status::Exists,
                  "there is an actor \"" + name.name + "\" in the namespace \"" + name.namespace_ +
                      "\" already; mobula::get_actor gives its handle, and so does "
                      "ActorOptions.get_if_exists");
  }
  auto parsed = core::ResourceAmounts::parse(wire::parse_amounts(demand_text));
  if (const auto* refusal = std::get_if<core::ResourceRefusal>(&parsed))
    return refuse(message, wire::Status::Invalid, refusal->describe());
  const auto& demand = std::get<core::ResourceAmounts>(parsed);
  const auto id = tables_->open_class();
  if (!id)
    return refuse(message, wire::Status::Limit,
                  "this node has as many scheduling classes and actors as it can list (16384)");

  clear_class(*id, is_actor ? shm::ClassKind::Actor : shm::ClassKind::Task);
  shm::SchedulingClass& cls = memory_.scheduling_class(*id);
  cls.attention.store(1);
  cls.creation.store(creation);
  cls.out_of_order = out_of_order;
  copy_text(cls.groups, groups);
  cls.lasting.options = is_actor ? std::strtoull(lasting.c_str(), nullptr, 10) : 0;
  cls.pending_calls_max = is_actor ? std::atoi(pending_calls.c_str()) : -1;
  copy_text(cls.name, is_actor ? actor_class : demand.describe());
  copy_text(cls.given_name, is_actor ? name.name : "");
  cls.environment.store(environment);
  copy_text(cls.demand_text, demand_text);
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Open), std::memory_order_release);
  recovery_->open_class_ring(*id);
  if (is_actor) {
    Actor& actor = actors_[*id];
    actor = Actor{};
    actor.max_restarts = restarts;
    actor.max_task_retries = retries;
    actor.demand = demand;
    actor.type = std::strtoull(type.c_str(), nullptr, 10);
    actor.one_by_one = groups.empty() && !out_of_order;
    actor.environment = environment;
  }
  rejected_.clear();
  // In local mode an actor is judged by its demand, and no process is to be started for it.
  step(core::ClassOpened{{*id},
                         is_actor && !local_ ? core::ClassKind::Actor : core::ClassKind::Task,
                         demand,
                         is_actor ? 0 : priority,
                         {is_actor ? 0 : environment}});
  if (!rejected_.empty()) {
    step(core::ClassClosed{{*id}});
    actors_.erase(*id);
    cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Free));
    tables_->close_class(*id);
    return refuse(
        message, wire::Status::Unschedulable,
        "a demand of " + demand.describe() + " can never be met: " + rejected_ +
            ". Ask for less, or give the node more (Config.num_cpus, num_gpus, resources)");
  }
  if (!is_actor) task_classes_[key] = *id;
  if (is_actor && !name.name.empty()) names_.give(name, *id);
  message.a = *id;
}

void Node::tell_past_records(std::uint32_t cls, wire::Message& message) {
  const std::vector<std::uint32_t> all = recovery_->past_segments(cls);
  const std::size_t from = std::min<std::size_t>(message.a, all.size());
  const std::size_t fit = wire::kTextMax / sizeof all[0];
  message.a = static_cast<std::uint32_t>(all.size());
  message.set_text({reinterpret_cast<const char*>(all.data() + from),
                    std::min(all.size() - from, fit) * sizeof all[0]});
}

std::uint32_t Node::environment_number(const std::string& text) {
  auto known = std::find(environments_.begin(), environments_.end(), text);
  if (known == environments_.end()) known = environments_.insert(known, text);
  return static_cast<std::uint32_t>(known - environments_.begin());
}

void Node::give_extent(std::uint32_t process, wire::Message& message) {
  using Outcome = ObjectMemory::Outcome;
  const ObjectMemory::Answer answer =
      message.kind == wire::Kind::LeaseExtent
          ? objects_->lease(process, message.c, message.d, message.b != wire::kHoldsRefs, now())
          : objects_->restore(process, message.a, now());
  switch (answer.outcome) {
    case Outcome::Granted: message.a = answer.extent; return;
    case Outcome::Later: return refuse(message, wire::Status::Later, answer.text);
    case Outcome::Full: return refuse(message, wire::Status::StoreFull, answer.text);
    case Outcome::Never: return refuse(message, wire::Status::TooLarge, answer.text);
    case Outcome::NoDisk: return refuse(message, wire::Status::OutOfDisk, answer.text);
    case Outcome::NoMemory: return refuse(message, wire::Status::OutOfMemory, answer.text);
    case Outcome::Lost: return refuse(message, wire::Status::ObjectLost, answer.text);
  }
}

void Node::report_object_memory(wire::Message& message) {
  const ObjectMemory::Counts counts = objects_->counts();
  std::string text;
  for (const auto& [name, value] : {std::pair{"capacity", counts.capacity},
                                    {"leased", counts.leased},
                                    {"warm", counts.warm},
                                    {"spilled", counts.spilled},
                                    {"on_disk", counts.on_disk},
                                    {"spilled_ever", counts.spilled_ever},
                                    {"restored_ever", counts.restored_ever},
                                    {"extents", std::uint64_t{objects_->extent_limit()}},
                                    {"segments", std::uint64_t{tables_->segment_limit()}},
                                    {"processes", std::uint64_t{tables_->process_limit()}}}) {
    text += std::string(name) + "=" + std::to_string(value) + "\n";
  }
  message.set_text(text);
}

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

void Node::report_metrics(std::uint32_t process, wire::Message& message) {
  std::string& text = read_metrics_[process];
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
  if (begin + message.text_size == text.size()) read_metrics_.erase(process);
}

void Node::report_resources(wire::Message& message) {
  core::ResourceAmounts amounts = message.a == 0 ? capacity_ : free_amounts();
  if (message.a == 1) {
    // A worker that stays attached without a task holds its class's demand only until somebody else
    // wants it.
    for (const auto& [process, worker] : workers_) {
      if (worker.actor || worker.attached == shm::kNone || worker.leaving) continue;
      const auto view = allotment_.view({worker.attached});
      if (view && memory_.process(process).sleeping.load()) amounts.add(view->demand);
    }
    amounts.set_units("object_store_memory",
                      static_cast<std::int64_t>(objects_->bytes_available()) *
                          core::ResourceAmounts::kUnitsPerOne);
  }
  message.set_text(format_amounts(amounts));
}

}  // namespace mobula::node
