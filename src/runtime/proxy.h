// The process of an actor that stands for a detached one (detached.h): it hands calls on to the
// host, and answers each when the host has.
//
// It is an ordinary actor's process with one thread more. The actor's thread takes calls in their
// order, leaves each open (open_call.h) and writes it to the host's door; the other one reads what
// comes from there. When the host says that its actor is dead, or is gone itself, open calls fail
// and the daemon is told, which ends this actor with the same reason.
#pragma once

#include <cstdint>
#include <string>

#include "mobula/detail/runtime.h"

namespace mobula::runtime {

// Constructs it; its arguments are ProxyArguments.
const detail::FunctionInfo& proxy_constructor();

struct ProxyArguments {
  std::string folder;  // of the host's session
  std::uint64_t number;  // by which the node knows the actor
  static void write(void* arguments, Writer& writer);
};

// The name of the socket in the folder of a host's session.
inline constexpr const char* kDoorName = "door";

}  // namespace mobula::runtime
