#include "node/wait_survey.h"

#include <algorithm>
#include <utility>

#include "shm/dependents.h"
#include "shm/ring.h"
#include "shm/stream.h"

namespace mobula::node {
namespace {

using shm::Address;
using shm::Record;
using shm::State;
namespace word = shm::word;

// What one look follows at most. Beyond it records count as going on: a larger circle is not seen.
constexpr std::size_t kNodesMax = 20'000;

core::WaitNode of_record(Address address) {
  return {core::WaitNode::Kind::Record, address.packed()};
}
core::WaitNode of_thread(std::uint32_t participant) {
  return {core::WaitNode::Kind::Thread, participant};
}

}  // namespace

std::vector<WaitSurvey::Deadlock> WaitSurvey::look(const Processes& processes) {
  processes_ = &processes;
  graph_ = {};
  for (const std::uint32_t process : processes.blocked) {
    if (const std::uint32_t runner = runner_of(process); runner != shm::kNone)
      follow(of_thread(runner));
  }
  std::vector<std::vector<Node>> seen;
  std::vector<Deadlock> found;
  for (std::vector<Node>& circle : graph_.deadlocks()) {
    // The records go on meanwhile: what was seen here is not looked up again.
    const bool by_lending = begin_with_task(circle);
    if (!by_lending && !begin_with_call(circle)) continue;  // nothing could break it
    if (by_lending && circle[1 % circle.size()].kind != Node::Kind::Thread) continue;
    if (std::find(suspected_.begin(), suspected_.end(), circle) != suspected_.end())
      found.push_back(describe(circle, by_lending));
    seen.push_back(std::move(circle));
  }
  suspected_ = std::move(seen);
  return found;
}

void WaitSurvey::follow(Node from) {
  open_.assign(1, from);
  while (!open_.empty() && graph_.size() < kNodesMax) {
    const Node node = open_.back();
    open_.pop_back();
    if (!graph_.knows(node)) explore(node);
  }
}

void WaitSurvey::explore(Node node) {
  if (node.kind == Node::Kind::Thread) {
    explore_thread(static_cast<std::uint32_t>(node.id));
  } else {
    explore_record(Address::unpack(node.id));
  }
}

void WaitSurvey::explore_thread(std::uint32_t participant) {
  if (participant == shm::kNone) return;  // between two tasks: it goes on
  const shm::Participant& thread = memory_.participant(participant);
  const shm::WaitNote& note = thread.wait;
  const auto reason = static_cast<shm::WaitReason>(note.reason.load(std::memory_order_acquire));
  const std::uint32_t count = note.count.load();
  const std::uint32_t depth = thread.depth.load(std::memory_order_acquire);
  const bool for_records = reason == shm::WaitReason::Task || reason == shm::WaitReason::AnyTask;
  const bool for_item =
      reason == shm::WaitReason::StreamItem && is_drained(Address::unpack(note.record[0].load()));
  bool goes_on = !(for_records || for_item) || note.ends_by_itself.load() ||
                 count > shm::kWaitsListed || depth > shm::kIntentsMax;
  for (std::uint32_t i = 0; i < depth && !goes_on; ++i) {
    const Address task = Address::unpack(thread.executing[i].load());
    // A cancelled one is about to throw.
    goes_on = (memory_.record(task.slot).state.load() & word::kCancelled) != 0;
  }
  std::vector<Node> targets;
  for (std::uint32_t i = 0; i < count && !goes_on; ++i)
    targets.push_back(of_record(Address::unpack(note.record[i].load())));
  open_.insert(open_.end(), targets.begin(), targets.end());
  graph_.add(of_thread(participant), std::move(targets), goes_on ? 0 : note.needed.load());
}

// Is there nothing to take from the stream of a producer that has not ended? Then its reader goes
// on when the producer does. (Anybody with a StreamRef could stop it instead, as anybody with a Ref
// could cancel a call.)
bool WaitSurvey::is_drained(Address producer) const {
  const Record& record = memory_.record(producer.slot);
  const auto number = static_cast<std::uint32_t>(record.result_word);
  if (!(record.flags & shm::flag::kStream) || number >= shm::kStreamsMax) return false;
  shm::Stream& stream = shm::stream::at(memory_, number);
  const bool empty = !shm::stream::pushed(stream, stream.tail.load(std::memory_order_acquire)) &&
                     stream.stopped.load(std::memory_order_acquire) == 0;
  // It was this producer's all the time.
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  return empty && stream.record.load(std::memory_order_acquire) == producer.packed() &&
         word::generation(state) == producer.generation && !word::is_final(state);
}

void WaitSurvey::explore_record(Address address) {
  const Record& record = memory_.record(address.slot);
  const std::uint64_t state = record.state.load(std::memory_order_acquire);
  std::vector<Node> targets;
  const bool open = word::generation(state) == address.generation && !word::is_final(state);
  // An open call waits for its answer, which may come from anywhere: it counts as going on.
  if (open && word::state(state) == State::Claimed && !(record.flags & shm::flag::kOpen))
    targets = {of_thread(word::claimer(state))};
  if (open && word::state(state) == State::Waiting) targets = arguments_of(record);
  if (open && word::state(state) != State::Claimed && record.kind == shm::Kind::ActorCall)
    add_queue(address, record, targets);
  std::size_t needed = targets.size();
  if (open && word::state(state) == State::Ready && record.kind == shm::Kind::Task) {
    const auto holders = processes_->holders.find(record.scheduling_class);
    for (std::size_t i = 0; holders != processes_->holders.end() && i < holders->second.size(); ++i)
      targets.push_back(of_thread(runner_of(holders->second[i])));
    needed = std::min<std::size_t>(targets.size(), 1);  // any of them makes room for it
  }
  // The fields are its own only if it is the same record still.
  if (word::generation(record.state.load(std::memory_order_acquire)) != address.generation)
    needed = 0;
  open_.insert(open_.end(), targets.begin(), targets.end());
  graph_.add(of_record(address), std::move(targets), needed);
}

// Not those behind join records, which do not name their parents' edges: they count as going on.
std::vector<WaitSurvey::Node> WaitSurvey::arguments_of(const Record& record) const {
  std::vector<Node> targets;
  const auto bits = static_cast<std::uint32_t>(record.join.load(std::memory_order_acquire));
  const std::uint32_t edges = std::min<std::uint32_t>(record.dependencies, shm::kDependenciesMax);
  for (std::uint32_t i = 0; i < edges && record.kind != shm::Kind::Join; ++i) {
    const Address target = Address::unpack(record.dependency[i].target);
    if (target && (bits & (1u << i))) targets.push_back(of_record(target));
  }
  return targets;
}

// What a call waits for that nobody has claimed: what its actor does, and the one before it if that
// waits for an argument.
void WaitSurvey::add_queue(Address call, const Record& record, std::vector<Node>& targets) const {
  const auto actor = processes_->actors.find(record.scheduling_class);
  if (actor == processes_->actors.end()) return;
  const shm::SchedulingClass& cls = memory_.scheduling_class(actor->first);
  if (const Address creation = Address::unpack(cls.creation.load())) {
    const std::uint64_t state = memory_.record(creation.slot).state.load();
    if (word::generation(state) == creation.generation && !word::is_final(state))
      targets.push_back(of_record(creation));
  }
  if (const std::uint32_t runner = runner_of(actor->second); runner != shm::kNone)
    targets.push_back(of_thread(runner));
  const std::uint32_t caller = memory_.segment_owner(call.slot / shm::kRecordsPerSegment).load();
  for (std::uint64_t at = cls.rings.load(std::memory_order_acquire); at != 0;) {
    const auto& ring = *reinterpret_cast<const shm::RingHeader*>(memory_.heap(at));
    at = ring.next.load(std::memory_order_acquire);
    if (ring.participant.load() != caller) continue;
    const std::uint64_t tail = ring.tail.load(std::memory_order_acquire);
    const std::uint64_t head = ring.head.load(std::memory_order_acquire);
    if (tail >= head) continue;
    const Address first = Address::unpack(shm::ring::entry(memory_, ring, tail).load());
    const std::uint64_t state = memory_.record(first.slot).state.load();
    if (first == call || word::generation(state) != first.generation ||
        word::state(state) != State::Waiting)
      continue;
    // A thread has a ring for each task that calls: only what is before it in its own holds it
    // back.
    bool is_in = false;
    for (std::uint64_t t = tail; t < head && !is_in; ++t)
      is_in = shm::ring::entry(memory_, ring, t).load() == call.packed();
    if (is_in) targets.push_back(of_record(first));
  }
}

std::uint32_t WaitSurvey::runner_of(std::uint32_t process) const {
  for (const std::uint32_t p : tables_.participants_of(process)) {
    if (memory_.participant(p).depth.load(std::memory_order_acquire) > 0) return p;
  }
  return shm::kNone;
}

// A task that waits for the resources of the next node.
bool WaitSurvey::begin_with_task(std::vector<Node>& circle) const {
  const auto task = std::find_if(circle.begin(), circle.end(), [&](const Node& node) {
    if (node.kind != Node::Kind::Record) return false;
    const Record& record = memory_.record(Address::unpack(node.id).slot);
    return record.kind == shm::Kind::Task &&
           word::state(record.state.load(std::memory_order_acquire)) == State::Ready;
  });
  std::rotate(circle.begin(), task == circle.end() ? circle.begin() : task, circle.end());
  return task != circle.end();
}

// Best one that a thread of the circle waits for itself: its get throws. The failure of another one
// might reach nobody.
bool WaitSurvey::begin_with_call(std::vector<Node>& circle) const {
  const auto choose = [&](bool awaited) {
    for (std::size_t i = 0; i < circle.size(); ++i) {
      const Node& before = circle[(i + circle.size() - 1) % circle.size()];
      if (!is_open_call(circle[i]) || (awaited && before.kind != Node::Kind::Thread)) continue;
      std::rotate(circle.begin(), circle.begin() + static_cast<std::ptrdiff_t>(i), circle.end());
      return true;
    }
    return false;
  };
  return choose(true) || choose(false);
}

bool WaitSurvey::is_open_call(Node node) const {
  if (node.kind != Node::Kind::Record) return false;
  const Address address = Address::unpack(node.id);
  const Record& record = memory_.record(address.slot);
  const State state = word::state(record.state.load(std::memory_order_acquire));
  return record.kind == shm::Kind::ActorCall && (state == State::Ready || state == State::Waiting);
}

WaitSurvey::Deadlock WaitSurvey::describe(std::vector<Node> circle, bool by_lending) const {
  Deadlock found;
  if (by_lending) {
    const auto holder = static_cast<std::uint32_t>(circle[1 % circle.size()].id);
    found.holder = memory_.participant(holder).process.load();
    found.circle = std::move(circle);
    return found;
  }
  found.call = Address::unpack(circle.front().id);
  for (const Node& node : circle) {
    if (node.kind != Node::Kind::Thread) continue;
    const shm::Participant& thread = memory_.participant(static_cast<std::uint32_t>(node.id));
    const std::uint32_t depth = std::min(thread.depth.load(), shm::kIntentsMax);
    if (depth > 0) found.steps.push_back(Address::unpack(thread.executing[depth - 1].load()));
  }
  found.steps.push_back(found.call);
  found.circle = std::move(circle);
  return found;
}

}  // namespace mobula::node
