// What is asked of actors beside calls: names, ends, and who is told of them.
#include <unistd.h>

#include <string>
#include <vector>

#include "mobula/actor.h"
#include "runtime/detached.h"
#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/ledger.h"
#include "runtime/local_mode.h"
#include "runtime/process.h"
#include "runtime/submit.h"

namespace mobula {
namespace {

using runtime::LocalMode;
using runtime::Process;

constexpr std::size_t kNameMax = 100;
constexpr useconds_t kAskAgainUs = 100;  // a creator takes microseconds to submit

}  // namespace

namespace detail {

void check_actor_name(std::string_view name, const char* what) {
  if (name.size() > kNameMax) {
    throw Error(std::string(what) + " has " + std::to_string(name.size()) +
                " characters; at most 100 are possible");
  }
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f)
      throw Error(std::string(what) + " has a control character");
  }
}

ActorAddress find_actor(std::string_view name, std::string_view space, std::string_view type,
                        bool& absent) {
  if (name.empty()) throw Error("get_actor: the name is empty");
  check_actor_name(name, "the name of an actor");
  check_actor_name(space, "the namespace of an actor");
  return runtime::find_anywhere(runtime::require_process(), name, space, type, absent);
}
ActorAddress find_actor(std::string_view name, std::string_view space, std::string_view type) {
  bool absent = false;
  return find_actor(name, space, type, absent);
}

}  // namespace detail

detail::ActorAddress runtime::find_in_session(Process& process, std::string_view name,
                                              std::string_view space, std::string_view type,
                                              bool& absent) {
  for (;; ::usleep(kAskAgainUs)) {
    wire::Message message;
    message.kind = wire::Kind::FindActor;
    message.c = detail::hash_text(type);
    message.set_text(wire::join({std::string(name), std::string(space)}));
    try {
      const shm::Address creation = process.take_hold(message);
      if (creation) return {runtime::from_shm(creation), message.a};
    } catch (const ActorNotFoundError&) {
      absent = message.status == wire::Status::NotFound;
      throw;
    }
  }
}

namespace detail {

RefAddress monitor_actor(ActorAddress actor, std::uint64_t session) {
  check_ref(actor.creation, session);
  wire::Message message;
  message.kind = wire::Kind::Monitor;
  message.a = actor.actor_class;
  return runtime::from_shm(runtime::require_process().take_hold(message));
}

void kill_actor(ActorAddress actor, std::uint64_t session, bool no_restart) {
  check_ref(actor.creation, session);
  Process& process = runtime::require_process();
  if (process.local()) no_restart = true;  // its process is the caller's own
  const std::uint64_t detached = process.memory().scheduling_class(actor.actor_class).detached;
  if (detached != 0) runtime::end_detached(process, detached, no_restart);
  if (detached != 0 && !no_restart) return;
  process.memory()
      .scheduling_class(actor.actor_class)
      .kill_request.fetch_or(no_restart ? shm::kKill : shm::kKillOnce, std::memory_order_seq_cst);
  process.daemon().ring(process.memory().header());
  if (LocalMode* local = process.local()) local->killed(runtime::to_shm(actor.creation));
}

}  // namespace detail

std::vector<NamedActor> list_named_actors(bool all_namespaces) {
  Process& process = runtime::require_process();
  std::vector<NamedActor> all;
  for (bool more = true; more;) {
    wire::Message message;
    message.kind = wire::Kind::ListActors;
    message.a = all_namespaces ? 1 : 0;
    if (!all.empty()) message.set_text(wire::join({all.back().namespace_, all.back().name}));
    process.daemon().demand(message);
    const wire::Fields fields = wire::split(message.text_view());
    for (std::size_t i = 0; i + 1 < fields.size(); i += 2)
      all.push_back({std::string(fields[i + 1]), std::string(fields[i])});
    more = message.a == 1;
  }
  runtime::list_detached(process, all_namespaces, all);
  return all;
}

void exit_actor() {
  const runtime::Frame* frame = runtime::current_frame();
  if (!frame || frame->kind == shm::Kind::Task)
    throw Error("exit_actor is for methods of actors; what runs here is none");
  Process& process = frame->ledger.process();
  // Seen by our own thread when the method returns, so that it is the last one.
  process.memory()
      .scheduling_class(frame->scheduling_class)
      .kill_request.fetch_or(shm::kLeave, std::memory_order_seq_cst);
  if (process.local()) process.daemon().ring(process.memory().header());  // no process will end
}

std::string ActorDeath::text() const {
  const std::string process = "its process " + std::to_string(process_id);
  switch (reason) {
    case DeathReason::Crashed:
      if (process_id == 0) return "the session that it lived in has ended";  // of a detached one
      return signal != 0 ? process + " was killed by " + runtime::describe_signal(signal)
                         : process + " exited with code " + std::to_string(exit_code);
    case DeathReason::Killed: return "it was killed by mobula::kill";
    case DeathReason::Left: return "it left by itself (mobula::exit_actor)";
    case DeathReason::OutOfScope: return "no handle to it was left";
    case DeathReason::ConstructorFailed: return "it could not be constructed";
    case DeathReason::NotStarted: return "no process could be started for it";
    case DeathReason::PlacementGroupRemoved: return "its placement group was removed";
    case DeathReason::StateLost: return "what was kept of its state cannot be used";
    case DeathReason::OutOfMemory: return process + " was killed for want of memory";
  }
  return {};
}

}  // namespace mobula
