// A task being run: what its function sees of it, and how its end is recorded.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "mobula/detail/runtime.h"
#include "runtime/errors.h"
#include "runtime/ledger.h"
#include "runtime/process.h"
#include "runtime/transfers.h"
#include "runtime/value.h"

namespace mobula::runtime {

// A task's logical identity: the same again when its parent is run again.
struct TaskIdentity {
  std::uint64_t parent = 0;
  std::uint64_t index = 0;
  // In an actor's journal; calls with one identity differ in it, as after a retry of their caller.
  static constexpr std::uint64_t kNotJournaled = ~std::uint64_t{0};
  std::uint64_t number = kNotJournaled;

  std::uint64_t hash() const;
  std::string text() const;  // 32 hexadecimal digits
};

// Gives a new record its identity as a child of what this thread runs, and the deadline of that.
void name_child(Ledger& ledger, shm::Record& record);
void name_apart(Ledger& ledger, shm::Record& record);  // as nobody's child

// A task on this thread's stack; `outer` is the one whose get() runs it. Of an open call
// (open_call.h) the record may be answered, and another task's, before its method returns: then
// only the copies here are its own.
struct Frame {
  Frame(Ledger& ledger_, shm::Record& record_, shm::Address address_);
  ~Frame();
  void open();  // makes its arguments readable
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

  Ledger& ledger;
  shm::Record& record;
  shm::Address address;
  Frame* outer;
  TaskIdentity identity;
  shm::Kind kind;
  std::uint32_t scheduling_class;
  std::uint64_t deadline;
  // Somebody has cancelled it: whatever its function does, it will have no value.
  bool cancelled() const {
    const std::uint64_t state = record.state.load(std::memory_order_relaxed);
    return (state & shm::word::kCancelled) && shm::word::generation(state) == address.generation;
  }
  std::string name() const;  // for messages

  // Its time is over, whether that was noticed or not.
  bool is_late() const { return deadline != 0 && now_ns() >= deadline; }

  std::uint64_t children = 0;
  std::uint32_t attempt;
  bool children_cancelled = false;
  Transfers transfers;  // of the refs inside of the result
  detail::OpenCall* open_call = nullptr;  // what it leaves to whoever answers
  // Reading arguments in order.
  ValueBytes arguments{};
  std::vector<detail::Pin> pins;  // of values that were passed as refs
  std::optional<Reader> stream;
  std::optional<detail::ArgumentTag> tag;  // of the next argument, once it was looked at
  std::optional<Reader> referred;
  detail::Pin referred_pin;
  RefAddress referred_address{};  // of the argument read last; empty: it was no Ref
};

// Thrown through an invoker, or where a call is answered: the error that a process of another
// session gave it.
struct ErrorFromElsewhere {
  ErrorValue error;
};

// Set in a process that stands for an actor of another session: what a call does instead of its
// method.
extern void (*hand_on)(Frame& frame, detail::Execution& execution);

// The innermost task of this thread; nullptr in a driver.
Frame* current_frame();

// Runs a claimed record and makes it final, or Ready again when its function threw and may be
// retried. The claim's intent stands.
void execute(Ledger& ledger, shm::Record& record, shm::Address address);

// The answer to an open call, as the end of its record: what `place` leaves as a result, or throws.
// The intent stands, and the record names this thread as its claimer.
void conclude_open(Ledger& ledger, detail::OpenCall& call,
                   const std::function<void(detail::Execution&)>& place);

// Runs an actor's constructor anew after a restart; its record was completed by the first one.
// Throws what it throws.
void construct_again(Ledger& ledger, shm::Record& creation, shm::Address address);
// Runs an actor's call anew that is final, for what it does to the actor's object; its result
// stands. Returns why it cannot be run, or nothing.
std::string repeat(Ledger& ledger, shm::Record& call, shm::Address address);
void destroy_instance() noexcept;
void replace_instance(void* instance);  // by another object of its class
const detail::StateCodec* instance_codec();  // nullptr: it cannot be saved

// The submitter's half of the agreement with the daemon about calls of a dead actor, and tasks of a
// removed placement group (submit.cc).
void fail_in_dead_class(Process& process, Ledger& ledger, shm::Record& record,
                        shm::Address address);

// Fails a call that nobody has claimed and that can never run, since its actor is at work further
// up this thread's stack (local mode).
void fail_deadlocked_call(Ledger& ledger, shm::Record& record, shm::Address address);

// Name of a task for messages, from the record alone.
std::string task_name(Process& process, shm::Record& record);
std::string describe_task(Process& process, shm::Record& record);  // "fit (id 5be2..)"

// Throws the error of a failed record.
[[noreturn]] void throw_failure(Process& process, shm::Record& record);

// Set by each thread of an actor that has several: when one waits, the CPU is the others'.
void set_one_of_several();
bool is_one_of_several();

}  // namespace mobula::runtime
