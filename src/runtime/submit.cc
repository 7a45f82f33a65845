// From a call to a record: tasks, actor creations, actor calls and puts.
#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "mobula/detail/callback.h"
#include "mobula/detail/runtime.h"
#include "mobula/export.h"
#include "mobula/options.h"
#include "runtime/call_threads.h"
#include "runtime/callbacks.h"
#include "runtime/detached.h"
#include "runtime/execution.h"
#include "runtime/journal.h"
#include "runtime/ledger.h"
#include "runtime/local_mode.h"
#include "runtime/process.h"
#include "runtime/submit.h"
#include "runtime/value.h"
#include "shm/check.h"
#include "shm/dependents.h"

namespace mobula::detail {

namespace {

using runtime::Ledger;
using runtime::LocalMode;
using runtime::Process;
using runtime::to_shm;
using shm::Address;
using shm::Record;
using shm::State;

constexpr std::uint64_t kNameAlignment =
    64;  // arguments keep the alignment that they were encoded with

struct Encoded {
  const Writer& writer;
  const std::byte* bytes;
  EncodeAgain again;
  void* context;
};

std::int16_t check_retries(int retries, const char* option) {
  constexpr int kRetriesMax = 250;  // attempts are counted in eight bits of the state word
  if (retries < -1 || retries > kRetriesMax) {
    throw Error(std::string(option) + " is " + std::to_string(retries) +
                "; it must be -1 (without end) or from 0 to " + std::to_string(kRetriesMax));
  }
  return static_cast<std::int16_t>(retries);
}

void check_unread(std::size_t max_unread) {
  if (max_unread == 0 || max_unread > shm::kStreamSlots) {
    throw Error("max_unread is " + std::to_string(max_unread) + "; it must be from 1 to " +
                std::to_string(shm::kStreamSlots));
  }
}

template <class Options>
std::size_t unread_by(const Options* options) {
  return options ? options->max_unread : Options().max_unread;
}

void check_priority(int priority) {
  constexpr int kMost = 100;
  if (priority < -kMost || priority > kMost)
    throw Error("TaskOptions.priority is " + std::to_string(priority) +
                "; it goes from -100 to 100");
}

// Calls one after the other are what a journal can tell and a checkpoint lies between.
void check_lasting_state(const ActorOptions& options) {
  const bool replay = options.recovery == Recovery::Replay;
  const std::uint64_t every_max = replay ? 100'000 : (std::uint64_t{1} << 31) - 1;
  if (options.checkpoint_every > every_max) {
    throw Error("ActorOptions.checkpoint_every is " + std::to_string(options.checkpoint_every) +
                "; it must be from 0 to " + std::to_string(every_max) +
                (replay ? " with Recovery::Replay" : ""));
  }
  if (!replay && options.checkpoint_every == 0) return;
  if (options.max_concurrency != 1 || !options.concurrency_groups.empty() ||
      options.allow_out_of_order_execution) {
    throw Error(
        "ActorOptions.recovery = Replay and checkpoint_every are for actors that run one call "
        "after the other; leave max_concurrency, concurrency_groups and "
        "allow_out_of_order_execution out");
  }
}

void check_names(const ActorOptions& options) {
  check_actor_name(options.name, "ActorOptions.name");
  check_actor_name(options.namespace_, "ActorOptions.namespace_");
  if (options.name.empty() && !options.namespace_.empty())
    throw Error("ActorOptions.namespace_ is given without a name");
  if (options.name.empty() && options.get_if_exists)
    throw Error("ActorOptions.get_if_exists is given without a name");
  if (options.max_pending_calls < -1 || options.max_pending_calls == 0) {
    throw Error("ActorOptions.max_pending_calls is " + std::to_string(options.max_pending_calls) +
                "; it must be -1 (without end) or at least 1");
  }
}

// Writes the arguments into the record or the store, and takes a ref to each ref among them until
// the task is final.
void place_arguments(Ledger& ledger, Record& record, const Encoded& arguments,
                     const std::string* name) {
  const std::size_t refs = arguments.writer.refs().size();
  const std::uint64_t prefix =
      name ? (8 + name->size() + kNameAlignment - 1) / kNameAlignment * kNameAlignment : 0;
  const std::uint64_t size = prefix + runtime::size_with_refs(arguments.writer.size(), refs);
  const std::string_view text = name ? std::string_view(*name) : std::string_view();
  if (size > shm::kArgsInlineMax) {
    record.args_at() =
        runtime::store_value(ledger.process(), size, prefix, arguments.writer, arguments.bytes,
                             arguments.again, arguments.context, text);
    record.flags |= shm::flag::kArgsStored;
  } else {
    runtime::write_name(record.args_inline, text);
    runtime::write_value(record.args_inline + prefix, arguments.writer, arguments.bytes,
                         arguments.again, arguments.context);
    record.args_size = static_cast<std::uint32_t>(size);
  }
  if (name) record.flags |= shm::flag::kNamed;
  if (refs == 0) return;
  record.flags |= shm::flag::kArgsHaveRefs;
  for (const RefAddress& ref : arguments.writer.refs()) retain(ref);
}

void check_deadline(const std::optional<Duration>& deadline, const char* option) {
  if (deadline && *deadline < Duration::zero())
    throw Error(std::string(option) + " is negative; it counts from the call on");
}

// The earlier one of its own and of the task that submits it.
void set_deadline(Record& record, Duration own) {
  const std::uint64_t now = runtime::now_ns();
  const auto in = static_cast<std::uint64_t>(own.count());
  const std::uint64_t at = in > ~std::uint64_t{0} - now ? ~std::uint64_t{0} : now + in;
  record.deadline = record.deadline == 0 ? at : std::min(at, record.deadline);
}

// Once it is published. A task that nobody runs ends in time, too: the daemon sees to it.
void tell_deadline(Process& process, const Record& record, Address address) {
  if (record.deadline == 0) return;
  wire::Message message;
  message.kind = wire::Kind::Deadline;
  message.c = address.packed();
  message.d = record.deadline;
  process.daemon().tell(message);
}

void name_task(Ledger& ledger, Record& record, Address address) {
  runtime::name_child(ledger, record);
  if (runtime::journal && runtime::current_frame()) runtime::journal->submitted(address);
}

// What a call that is run again submitted in this place when it was run before.
std::optional<RefAddress> submitted_before(shm::Kind kind, std::uint64_t function,
                                           bool perhaps = false) {
  runtime::Frame* frame = runtime::replaying ? runtime::current_frame() : nullptr;
  if (!frame) return {};
  return runtime::journal->submitted_before(*frame, kind, function, perhaps);
}

// Hangs a record on what it waits for. More edges than fit become a tree of join records, each of
// which is satisfied when its own edges are.
class Dependencies {
 public:
  explicit Dependencies(Ledger& ledger) : ledger_(ledger), memory_(ledger.process().memory()) {}

  // Leaves the record Waiting (its submission bit still open) or, with nothing to wait for,
  // untouched; true: it waits.
  bool hang(Record& record, Address address, const RefAddress* targets, std::size_t count) {
    std::vector<RefAddress> open;
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t state =
          memory_.record(targets[i].slot).state.load(std::memory_order_acquire);
      if (!shm::word::is_final(state)) open.push_back(targets[i]);
    }
    if (open.empty()) return false;
    hang_edges(record, address, open, shm::kDependenciesMax);
    return true;
  }

 private:
  static constexpr std::uint32_t kSubmission = 1u << shm::dependents::kSubmissionBit;

  void hang_edges(Record& record, Address address, std::span<const RefAddress> targets,
                  std::size_t room) {
    // One edge per target if they fit; otherwise as few joins as hold them all, so that these are
    // full.
    const std::size_t joins =
        (targets.size() + shm::kJoinDependencies - 1) / shm::kJoinDependencies;
    const std::size_t edges = targets.size() <= room ? targets.size() : std::min(joins, room);
    record.dependencies = static_cast<std::uint8_t>(edges);
    const std::uint32_t bits = (1u << edges) - 1;
    record.join.store(shm::dependents::join_word(address.generation, bits | kSubmission),
                      std::memory_order_relaxed);
    for (std::uint32_t i = 0; i < edges; ++i) record.edge(i).target = 0;
    // release: walkers that find an edge see the join word
    record.state.store(shm::word::make(address.generation, State::Waiting),
                       std::memory_order_release);
    // The targets are shared out evenly: an edge stands for one target, or for a join record over
    // its share.
    for (std::size_t i = 0; i < edges; ++i) {
      const std::size_t begin = targets.size() * i / edges;
      const std::size_t end = targets.size() * (i + 1) / edges;
      const auto edge = static_cast<std::uint32_t>(i);
      if (end - begin == 1) {
        record.edge(edge).target = to_shm(targets[begin]).packed();
        if (!shm::dependents::hang(memory_.record(targets[begin].slot), record, address.slot,
                                   edge)) {
          shm::dependents::satisfy(memory_, address.slot, address.generation, edge, ledger_);
        }
      } else {
        hang_join(address, edge, targets.subspan(begin, end - begin));
      }
    }
  }

  void hang_join(Address parent, std::uint32_t edge, std::span<const RefAddress> targets) {
    const Address address = ledger_.allocate();
    Record& join = memory_.record(address.slot);
    join.kind = shm::Kind::Join;
    join.function = shm::dependents::link(parent.slot, edge);
    join.scheduling_class = parent.generation;
    hang_edges(join, address, targets, shm::kJoinDependencies);
    shm::dependents::satisfy(memory_, address.slot, address.generation,
                             shm::dependents::kSubmissionBit, ledger_);
    release(
        runtime::from_shm(address));  // nobody refers to it: it is recycled when it is satisfied
  }

  Ledger& ledger_;
  shm::Memory& memory_;
};

// Publishes a filled-in record: at once, or when what it waits for is there.
void submit(Ledger& ledger, Record& record, Address address, const Call& call) {
  shm::Memory& memory = ledger.process().memory();
  shm::crash_point(shm::CrashPoint::SubmitFieldsWritten);
  const bool actor_call = record.kind == shm::Kind::ActorCall;
  const bool waits =
      call.waits_for_count != 0 &&
      Dependencies(ledger).hang(record, address, call.waits_for, call.waits_for_count);
  if (waits) {
    shm::crash_point(shm::CrashPoint::SubmitLinked);
    // An actor's call takes its place in the order now, and holds it while it waits.
    if (actor_call) ledger.push(record.scheduling_class, address);
    shm::dependents::satisfy(memory, address.slot, address.generation,
                             shm::dependents::kSubmissionBit, ledger);
    return;
  }
  // release: whoever claims it sees its fields
  record.state.store(shm::word::make(address.generation, State::Ready), std::memory_order_release);
  shm::crash_point(shm::CrashPoint::SubmitReady);
  ledger.push(record.scheduling_class, address);
}

// A call of an actor, behind those of an actor that its dead process made and nobody has taken yet.
class AfterEarlierCalls {
 public:
  AfterEarlierCalls(const Call& call, std::uint32_t actor_class) : call_(&call) {
    if (!runtime::journal || !runtime::current_frame()) return;
    earlier_ = runtime::journal->calls_before(actor_class);
    if (earlier_.empty()) return;
    waits_for_.assign(call.waits_for, call.waits_for + call.waits_for_count);
    for (const Ref<void>& ref : earlier_) waits_for_.push_back(ref.address());
    behind_ = call;
    behind_.waits_for = waits_for_.data();
    behind_.waits_for_count = waits_for_.size();
    call_ = &behind_;
  }
  AfterEarlierCalls(const AfterEarlierCalls&) = delete;
  AfterEarlierCalls& operator=(const AfterEarlierCalls&) = delete;

  const Call& call() const { return *call_; }

 private:
  const Call* call_;
  Call behind_;
  std::vector<Ref<void>> earlier_;  // held until the edges hang
  std::vector<RefAddress> waits_for_;
};

Record& new_record(Ledger& ledger, Address address, shm::Kind kind, const FunctionInfo& function,
                   bool is_child = true) {
  Record& record = ledger.record(address);
  record.kind = kind;
  record.function = function.key;
  record.retries = 0;
  is_child ? name_task(ledger, record, address) : runtime::name_apart(ledger, record);
  return record;
}

// Killed counts as dead at once, though the daemon may not have come to it.
bool is_dead(const shm::SchedulingClass& cls) {
  return cls.state.load(std::memory_order_seq_cst) ==
             static_cast<std::uint32_t>(shm::ClassState::Dead) ||
         shm::is_doomed(cls.kill_request.load(std::memory_order_relaxed));
}

// The daemon empties the rings of a dead actor, and of a removed group, after it has marked the
// class; we look at the class after our push. So one of us fails the call.
void fail_if_dead(Process& process, Ledger& ledger, Record& record, Address address) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (is_dead(process.memory().scheduling_class(record.scheduling_class))) {
    runtime::fail_in_dead_class(process, ledger, record, address);
  }
}

// A record that was given a slot and cannot be submitted after all.
class Unsubmitted {
 public:
  Unsubmitted(Ledger& ledger, Address address) : ledger_(ledger), address_(address) {}
  ~Unsubmitted() {
    if (!address_) return;
    Record& record = ledger_.record(address_);
    record.parent = 0;  // nobody's child: who is run again submits it again
    record.state.store(shm::word::make(address_.generation, State::Failed),
                       std::memory_order_release);
    release(runtime::from_shm(address_));
  }
  void submitted() { address_ = {}; }

 private:
  Ledger& ledger_;
  Address address_;
};

}  // namespace

RefAddress submit_task(const Call& call, const Writer& writer, const std::byte* bytes,
                       EncodeAgain again, void* context) {
  Process& process = runtime::require_process();
  const TaskOptions* options = call.options;
  if (options) {
    check_retries(options->max_retries, "TaskOptions.max_retries");
    check_unread(options->max_unread);
    check_deadline(options->deadline, "TaskOptions.deadline");
    check_priority(options->priority);
  }
  if (call.stream) runtime::refuse_in_replay("tasks that give a stream");
  if (const auto before = submitted_before(shm::Kind::Task, call.function->key)) return *before;
  const std::uint32_t scheduling_class = process.class_of(options);
  Ledger& ledger = process.this_ledger();
  const Address address = ledger.allocate();
  Unsubmitted guard(ledger, address);
  Record& record = new_record(ledger, address, shm::Kind::Task, *call.function);
  record.scheduling_class = scheduling_class;
  record.retries = static_cast<std::int16_t>(options ? options->max_retries : 3);
  if (options && options->retry_exceptions) record.flags |= shm::flag::kRetryExceptions;
  if (options && options->deadline) set_deadline(record, *options->deadline);
  place_arguments(ledger, record, {writer, bytes, again, context},
                  options && !options->name.empty() ? &options->name : nullptr);
  if (call.stream) *call.stream = ledger.open_stream(record, address, unread_by(options));
  guard.submitted();
  const bool in_group =
      options && std::holds_alternative<PlacementGroupScheduling>(options->scheduling);
  if (in_group && is_dead(process.memory().scheduling_class(scheduling_class))) {
    record.state.store(shm::word::make(address.generation, State::Ready),
                       std::memory_order_release);  // in no ring: fail_if_dead ends it
  } else {
    submit(ledger, record, address, call);
  }
  if (!writer.refs().empty()) ledger.holds_arguments(address);
  if (in_group) fail_if_dead(process, ledger, record, address);
  tell_deadline(process, record, address);
  return runtime::from_shm(address);
}

ActorAddress submit_actor(const Call& call, const ActorOptions* given, std::string_view type,
                          const Writer& writer, const std::byte* bytes, EncodeAgain again,
                          void* context) {
  static const ActorOptions kDefaults;
  const ActorOptions& options = given ? *given : kDefaults;
  check_retries(options.max_restarts, "ActorOptions.max_restarts");
  check_retries(options.max_task_retries, "ActorOptions.max_task_retries");
  check_names(options);
  check_lasting_state(options);
  Process& process = runtime::require_process();
  if (options.lifetime == Lifetime::Detached)
    return runtime::create_detached(process, call, options, type, writer, again, context);
  return runtime::place_actor(process, call, options, type, 0, writer, bytes, again, context);
}

void check_class_of_method(ActorAddress actor, std::uint64_t session, const Export& method,
                           std::string_view name) {
  check_ref(actor.creation, session);
  const std::string_view actual =
      runtime::require_process().memory().scheduling_class(actor.actor_class).name;
  // The compiler spells a template's arguments as they were written, so only its name counts.
  const auto plain = [](std::string_view type) {
    return type.substr(0, std::min(type.find('<'), runtime::kTypeNameShown));
  };
  if (method.class_name.empty() || plain(method.class_name) == plain(actual)) return;
  throw Error(std::string(name) + " is a method of " + std::string(method.class_name) +
              ", and the actor is of class " + std::string(actual) +
              "; MOBULA_EXPORT_INHERITED exports what a class inherits");
}

namespace {

// Inlined into both of its callers, of which one is on every call's path.
[[gnu::always_inline]] inline RefAddress place(Process& process, const Call& call,
                                               const CallOptions* options, ActorAddress actor,
                                               const Writer& writer, const std::byte* bytes,
                                               EncodeAgain again, void* context) {
  if (call.stream) runtime::refuse_in_replay("calls that give a stream");
  if (const auto before = submitted_before(shm::Kind::ActorCall, call.function->key))
    return *before;
  shm::SchedulingClass& cls = process.memory().scheduling_class(actor.actor_class);
  const std::uint16_t group = options ? runtime::group_number(cls, options->concurrency_group) : 0;
  Ledger& ledger = process.this_ledger();
  const Address address = ledger.allocate();
  Unsubmitted guard(ledger, address);
  if (cls.pending_calls_max >= 0)
    process.pending_calls().admit(process.memory(), actor.actor_class, address);
  Record& record = new_record(ledger, address, shm::Kind::ActorCall, *call.function);
  record.scheduling_class = actor.actor_class;
  if (options && options->deadline) set_deadline(record, *options->deadline);
  record.retries = options && options->max_task_retries
                       ? static_cast<std::int16_t>(*options->max_task_retries)
                       : shm::kRetriesOfActor;
  record.group = group;
  place_arguments(ledger, record, {writer, bytes, again, context},
                  options && !options->name.empty() ? &options->name : nullptr);
  if (call.stream) *call.stream = ledger.open_stream(record, address, unread_by(options));
  guard.submitted();
  const AfterEarlierCalls ordered(call, actor.actor_class);
  if (is_dead(cls)) {  // no ring carries it: nobody would empty that any more
    record.state.store(shm::word::make(address.generation, State::Ready),
                       std::memory_order_release);
  } else {
    submit(ledger, record, address, ordered.call());
  }
  if (!writer.refs().empty()) ledger.holds_arguments(address);
  fail_if_dead(process, ledger, record, address);
  tell_deadline(process, record, address);
  return runtime::from_shm(address);
}

}  // namespace

RefAddress submit_call(const Call& call, const CallOptions* options, ActorAddress actor,
                       const Writer& writer, const std::byte* bytes, EncodeAgain again,
                       void* context) {
  if (options) {
    check_deadline(options->deadline, "CallOptions.deadline");
    check_unread(options->max_unread);
    if (options->max_task_retries)
      check_retries(*options->max_task_retries, "CallOptions.max_task_retries");
  }
  Process& process = runtime::require_process();
  if (process.memory().scheduling_class(actor.actor_class).detached != 0) [[unlikely]]
    return runtime::call_detached(process, call, options, actor, bytes, again, context);
  return place(process, call, options, actor, writer, bytes, again, context);
}

}  // namespace mobula::detail

namespace mobula::runtime {

using namespace detail;

ActorAddress place_actor(Process& process, const Call& call, const ActorOptions& options,
                         std::string_view type, std::uint64_t detached, const Writer& writer,
                         const std::byte* bytes, EncodeAgain again, void* context) {
  // One that stands for another is nobody's child: whether it is made depends on who came before.
  const bool is_child = detached == 0;
  if (const auto before = is_child ? submitted_before(shm::Kind::ActorCreate, call.function->key,
                                                      /*perhaps=*/options.get_if_exists)
                                   : std::nullopt)
    return {*before, process.memory().record(before->slot).scheduling_class};
  if (options.get_if_exists) {
    bool absent = false;
    try {
      return find_actor(options.name, options.namespace_, type, absent);
    } catch (const ActorNotFoundError&) {
      if (!absent) throw;  // otherwise it is made, unless somebody is faster
    }
  }
  Ledger& ledger = process.this_ledger();
  const Address address = ledger.allocate();
  Unsubmitted guard(ledger, address);
  Record& record = new_record(ledger, address, shm::Kind::ActorCreate, *call.function, is_child);
  record.deadline = 0;  // it outlives the task that makes it
  record.scheduling_class = shm::kNone;
  // Kept for a restart, until the actor's last handle goes.
  place_arguments(ledger, record, {writer, bytes, again, context}, nullptr);
  try {
    record.scheduling_class = process.open_actor_class(options, type, address, detached);
  } catch (const ActorAlreadyExistsError&) {
    if (!options.get_if_exists) throw;
    return place_actor(process, call, options, type, detached, writer, bytes, again, context);
  }
  shm::crash_point(shm::CrashPoint::CreateOpened);
  guard.submitted();
  // The actor's process looks for the record that its class names; no ring carries it.
  shm::Memory& memory = process.memory();
  if (call.waits_for_count != 0 &&
      Dependencies(ledger).hang(record, address, call.waits_for, call.waits_for_count)) {
    shm::dependents::satisfy(memory, address.slot, address.generation,
                             shm::dependents::kSubmissionBit, ledger);
  } else {
    record.state.store(shm::word::make(address.generation, State::Ready),
                       std::memory_order_release);
    ledger.publish(record, address);
  }
  fail_if_dead(process, ledger, record, address);  // it could not be started at all
  process.daemon().ring(memory.header());
  return {runtime::from_shm(address), record.scheduling_class};
}

RefAddress place_call(Process& process, const Call& call, const CallOptions* options,
                      ActorAddress actor, const Writer& writer, const std::byte* bytes,
                      EncodeAgain again, void* context) {
  return place(process, call, options, actor, writer, bytes, again, context);
}

}  // namespace mobula::runtime

namespace mobula::detail {

RefAddress put_encoded(const Writer& writer, const std::byte* bytes, EncodeAgain again,
                       void* context) {
  Process& process = runtime::require_process();
  if (const auto before = submitted_before(shm::Kind::Put, 0)) return *before;
  Ledger& ledger = process.this_ledger();
  const Address address = ledger.allocate();
  Unsubmitted guard(ledger, address);
  Record& record = ledger.record(address);
  record.kind = shm::Kind::Put;
  record.function = 0;
  name_task(ledger, record, address);
  runtime::place_result(process, record, writer, bytes, again, context);
  for (const RefAddress& ref : writer.refs()) retain(ref);
  guard.submitted();
  record.state.store(shm::word::make(address.generation, State::Done), std::memory_order_release);
  return runtime::from_shm(address);
}

void run_when_ready(RefAddress target, std::uint64_t session, std::unique_ptr<Callback> callback) {
  check_ref(target, session);
  runtime::refuse_in_replay("methods that use then");
  Process& process = runtime::require_process();
  const std::uint32_t scheduling_class = process.callbacks().scheduling_class();
  Ledger& ledger = process.this_ledger();
  const Address address = ledger.allocate();
  static const FunctionInfo kNoFunction{};
  Record& record = new_record(ledger, address, shm::Kind::Callback, kNoFunction);
  record.scheduling_class = scheduling_class;
  const std::uint64_t waiting = process.callbacks().add(
      std::move(callback), Ref<void>::own(runtime::from_shm(address)), runtime::to_shm(target));
  std::memcpy(record.args_inline, &waiting, sizeof waiting);
  record.args_size = sizeof waiting;
  submit(ledger, record, address, Call{.waits_for = &target, .waits_for_count = 1});
}

void run_after(Duration delay, std::unique_ptr<Callback> callback) {
  if (delay < Duration::zero()) throw Error("the time of call_after is negative");
  runtime::refuse_in_replay("methods that use call_after");
  const std::uint64_t now = runtime::now_ns();
  const auto ns = static_cast<std::uint64_t>(delay.count());
  runtime::require_process().callbacks().after(std::min(now + ns, runtime::Callbacks::kNever - 1),
                                               std::move(callback));
}

OpenBuffer open_buffer(std::uint64_t size) {
  // As a vector of bytes is encoded: a count, then the bytes where such a block begins.
  const std::size_t alignment = block_alignment<std::byte>(size);
  const std::size_t begin = (sizeof size + alignment - 1) / alignment * alignment;
  Process& process = runtime::require_process();
  if (size > process.memory().object_capacity()) {
    throw ObjectStoreFullError("a buffer of " + std::to_string(size) +
                               " bytes is larger than the object store of " +
                               std::to_string(process.memory().object_capacity()) + " bytes; " +
                               process.memory().object_capacity_setting() + " sets its size");
  }
  runtime::Store::Place place = process.store().allocate(begin + size, false);
  std::memset(place.data, 0, begin);
  std::memcpy(place.data, &size, sizeof size);
  OpenBuffer buffer{place.data + begin, size, process.session(), {}, std::move(place.pin)};
  static_assert(sizeof buffer.place == sizeof place.at);
  std::memcpy(buffer.place, &place.at, sizeof place.at);
  return buffer;
}

RefAddress seal_buffer(OpenBuffer& buffer) {
  if (!buffer.data) throw Error("the Buffer is empty: it was sealed or moved from");
  Process& process = runtime::require_process();
  if (buffer.session != process.session())
    throw Error("the Buffer belongs to a session that has ended");
  if (const auto before = submitted_before(shm::Kind::Put, 0)) {
    abandon_buffer(buffer);
    return *before;
  }
  Ledger& ledger = process.this_ledger();
  const Address address = ledger.allocate();
  Record& record = ledger.record(address);
  record.kind = shm::Kind::Put;
  record.function = 0;
  name_task(ledger, record, address);
  shm::crash_point(shm::CrashPoint::SealBefore);
  std::memcpy(&record.result_at(), buffer.place, sizeof buffer.place);
  record.result_kind = shm::ResultKind::Stored;
  record.state.store(shm::word::make(address.generation, State::Done), std::memory_order_release);
  buffer = {};
  return runtime::from_shm(address);
}

void abandon_buffer(OpenBuffer& buffer) noexcept {
  if (Process* process = runtime::current_process();
      process && process->session() == buffer.session) {
    shm::StoredAt at;
    std::memcpy(&at, buffer.place, sizeof at);
    process->memory().give_back(at);
  }
  buffer = {};
}

}  // namespace mobula::detail
