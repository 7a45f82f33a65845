// Actors that outlive their driver, as a session sees them that calls them.
//
//   caller --record--> proxy --door--> host --record--> actor
//   `------ this session ------'       `--- its session ---'
//
// The actor lives in a session of its own, whose driver is its host (host.h). Here an actor without
// resources stands for it, the proxy (proxy.h): to callers it is the actor, so what is true of
// actors (order of calls, names, monitors, deferred answers, repair) holds without further rules;
// its process hands each call on to the host and answers it with what comes back. It goes with its
// last handle here; the actor stays.
//
// Between sessions calls are carried as values: a Ref that stands for a parameter is replaced by
// its value, and a Ref or handle inside of a value is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mobula/actor.h"
#include "runtime/process.h"

namespace mobula::runtime {

// What precedes the arguments of a call of a proxy.
struct ProxiedCall {
  std::string group;  // CallOptions.concurrency_group
  std::vector<std::uint64_t> places;  // of the refs' addresses in the arguments
  std::optional<int> retries;  // CallOptions.max_task_retries
};
// The arguments begin at a multiple of this, so that they are aligned as without it.
inline constexpr std::size_t kProxiedAlignment = 128;

detail::ActorAddress create_detached(Process& process, const detail::Call& call,
                                     const ActorOptions& options, std::string_view type,
                                     const Writer& writer, detail::EncodeAgain again,
                                     void* context);
RefAddress call_detached(Process& process, const detail::Call& call, const CallOptions* options,
                         detail::ActorAddress actor, const std::byte* bytes,
                         detail::EncodeAgain again, void* context);
// By name, in this session or on the node; as detail::find_actor.
detail::ActorAddress find_anywhere(Process& process, std::string_view name, std::string_view space,
                                   std::string_view type, bool& absent);
// Ends the one that a proxy stands for, or lets it start again.
void end_detached(Process& process, std::uint64_t number, bool no_restart);
std::string describe_inner_refs(const std::string& what);  // for an error
// Adds those of the node, unless they are in the list.
void list_detached(Process& process, bool all_namespaces, std::vector<NamedActor>& list);

}  // namespace mobula::runtime
