// What processes ask of the daemon, and its answers: leases, rings, memory, resources. Classes are
// opened in node_classes.cc, metrics counted in node_metrics.cc.
#include "node/node.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

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
  message.close_descriptors();  // nobody sends us any but at the start
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
  if (message.kind == wire::Kind::Obituary) return note_obituary(process, message);
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
    case wire::Kind::OpenGroup: message.set_text(asked); return open_group(message);
    case wire::Kind::RemoveGroup: return remove_group(message.c);
    case wire::Kind::ReadGroup: message.set_text(asked); return read_group(message);
    case wire::Kind::GroupReady: return hold_group(process, message);
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
    case wire::Kind::StayingNode:
      if (node_folder_.empty())
        return refuse(message, wire::Status::NotFound, "the node is the driver's own");
      return message.set_text(wire::join({node_folder_, namespace_}));
    case wire::Kind::Explain: return message.set_text(explain(message.a));
    default: return refuse(message, wire::Status::Invalid, "unknown request");
  }
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

void Node::report_resources(wire::Message& message) {
  core::ResourceAmounts amounts = message.a == 0 ? capacity_ : free_amounts();
  if (message.a == 1) {
    // A worker that stays attached without a task holds its class's demand only until somebody else
    // wants it.
    for (const auto& [process, worker] : workers_) {
      if (worker.actor || worker.attached == shm::kNone || worker.leaving) continue;
      const auto view = allotment_.view({worker.attached});
      if (view && memory_.process(process).sleeping.load())
        amounts.add(core::of_node(view->demand));
    }
    amounts.set_units("object_store_memory",
                      static_cast<std::int64_t>(objects_->bytes_available()) *
                          core::ResourceAmounts::kUnitsPerOne);
  }
  message.set_text(format_amounts(amounts));
}

}  // namespace mobula::node
