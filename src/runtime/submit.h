// What submit.cc does of creating and calling actors once it is settled that they live in this
// session, or are stood for by one that does (detached.h).
#pragma once

#include <cstdint>
#include <string_view>

#include "mobula/detail/runtime.h"
#include "mobula/options.h"
#include "runtime/process.h"

namespace mobula::runtime {

// `detached`: not 0: the number of the one that it stands for.
detail::ActorAddress place_actor(Process& process, const detail::Call& call,
                                 const ActorOptions& options, std::string_view type,
                                 std::uint64_t detached, const Writer& writer,
                                 const std::byte* bytes, detail::EncodeAgain again, void* context);
RefAddress place_call(Process& process, const detail::Call& call, const CallOptions* options,
                      detail::ActorAddress actor, const Writer& writer, const std::byte* bytes,
                      detail::EncodeAgain again, void* context);
// Of this session alone. Throws ActorNotFoundError; `absent`: no actor has the name at all.
detail::ActorAddress find_in_session(Process& process, std::string_view name,
                                     std::string_view space, std::string_view type, bool& absent);

}  // namespace mobula::runtime
