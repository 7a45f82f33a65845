#include "runtime/detached.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <stdexcept>

#include "runtime/carried.h"
#include "runtime/errors.h"
#include "runtime/journal.h"
#include "runtime/local_mode.h"
#include "runtime/proxy.h"
#include "runtime/submit.h"
#include "runtime/value.h"
#include "wire/rendezvous.h"

extern char** environ;

namespace mobula::runtime {
namespace {

using detail::ActorAddress;
using detail::Call;
using detail::EncodeAgain;

constexpr useconds_t kAskAgainUs = 2000;  // while another creator's process is starting or ending
constexpr const char* kMemoryVariable = "MOBULA_DETACHED_OBJECT_MEMORY";

struct StayingNode {
  std::uint64_t session = 0;  // for which it was asked
  std::string folder;  // empty: the node is the driver's own
  std::string own_namespace;
};

StayingNode node_of(Process& process) {
  if (process.local()) return {};
  static std::mutex mutex;
  static StayingNode known;
  const std::lock_guard lock(mutex);
  if (known.session == process.session()) return known;
  wire::Message message;
  message.kind = wire::Kind::StayingNode;
  process.daemon().ask(message);
  known = {process.session(), {}, {}};
  if (message.status == wire::Status::Ok) {
    const wire::Fields fields = wire::split(message.text_view());
    known.folder = wire::field(fields, 0);
    known.own_namespace = wire::field(fields, 1);
  }
  return known;
}

// Asks the node's daemon, and replaces the message by the answer.
void ask(const StayingNode& node, wire::Message& message) {
  int socket = -1;
  try {
    socket = wire::connect_in(node.folder);
  } catch (const std::runtime_error&) {
    throw_node_died();
  }
  const bool answered =
      wire::send(socket, message) && wire::receive(socket, message) == wire::Received::Message;
  ::close(socket);
  if (!answered) throw_node_died();
  message.close_descriptors();
}

// A detached actor as the node describes it.
struct Found {
  explicit Found(const wire::Message& message) : number(message.c) {
    const wire::Fields fields = wire::split(message.text_view());
    folder = wire::field(fields, 0);
    class_name = wire::field(fields, 1);
    type = ::strtoull(std::string(wire::field(fields, 2)).c_str(), nullptr, 10);
    pending_calls_max = ::atoi(std::string(wire::field(fields, 3)).c_str());
  }
  std::uint64_t number;
  std::string folder;  // of its host's session
  std::string class_name;
  std::uint64_t type;
  int pending_calls_max;
};

std::optional<Found> find_on_node(const StayingNode& node, std::string_view name,
                                  const std::string& space) {
  for (;; ::usleep(kAskAgainUs)) {
    wire::Message message;
    message.kind = wire::Kind::FindHost;
    message.set_text(wire::join({space, std::string(name)}));
    ask(node, message);
    if (message.status == wire::Status::NotFound) return {};
    if (message.status == wire::Status::Ok) return Found(message);
    if (message.status != wire::Status::Later) throw_status(message);
  }
}

std::uint64_t stands_for(Process& process, const ActorAddress& actor) {
  return process.memory().scheduling_class(actor.actor_class).detached;
}

// The one that it stood for is gone, and its name may be another's: it ends at once.
void end_proxy(Process& process, const ActorAddress& actor) {
  process.memory()
      .scheduling_class(actor.actor_class)
      .kill_request.fetch_or(shm::kKill, std::memory_order_seq_cst);
  process.daemon().ring(process.memory().header());
  detail::release(actor.creation);
}

std::optional<ActorAddress> find_here(Process& process, std::string_view name,
                                      std::string_view space, std::string_view type) {
  bool absent = false;
  try {
    return find_in_session(process, name, space, type, absent);
  } catch (const ActorNotFoundError&) {
    if (absent) return {};
    throw;
  }
}

[[noreturn]] void throw_taken(std::string_view name) {
  throw ActorAlreadyExistsError("this program has an actor \"" + std::string(name) +
                                "\" already, which is not the detached one");
}

// The actor of this session that stands for it: the one that there is, or a new one.
ActorAddress proxy_of(Process& process, const Found& found, std::string_view name,
                      const std::string& space, std::string_view type) {
  ActorOptions options;
  options.name = name;
  options.namespace_ = space;
  options.max_restarts = -1;  // its process holds nothing that would be lost
  options.max_pending_calls = found.pending_calls_max;
  for (;;) {
    if (const auto here = find_here(process, name, space, type)) {
      if (stands_for(process, *here) == found.number) return *here;
      if (stands_for(process, *here) == 0) {
        detail::release(here->creation);
        throw_taken(name);
      }
      end_proxy(process, *here);
    }
    ProxyArguments arguments{found.folder, found.number};
    Writer writer(nullptr, 0);
    ProxyArguments::write(&arguments, writer);
    try {
      return place_actor(process, Call{&proxy_constructor()}, options, type, found.number, writer,
                         nullptr, &ProxyArguments::write, &arguments);
    } catch (const ActorAlreadyExistsError&) {  // another process of the session was faster
    }
  }
}

// ---- The surroundings in which an actor's host is to begin: those of this process.

int surroundings_file(std::uint32_t* argument_count) {
  std::vector<std::string> strings = detail::own_arguments();
  *argument_count = static_cast<std::uint32_t>(strings.size());
  strings.push_back(std::filesystem::current_path().string());
  for (char** entry = environ; *entry; ++entry) strings.emplace_back(*entry);
  return wire::make_strings_file("mobula-surroundings", strings);
}

// What is closed when a question has been asked.
struct Descriptors {
  ~Descriptors() {
    for (const int fd : fds) {
      if (fd >= 0) ::close(fd);
    }
  }
  int fds[3] = {-1, -1, -1};
};

struct Values {
  std::vector<detail::Bytes> kept;
  std::vector<wire::Part> parts;
  std::vector<std::uint64_t> sizes;
};

// Waits for the refs among the arguments. Throws their errors.
Values values_of(Process& process, const Call& call) {
  Values values;
  for (std::size_t i = 0; i < call.waits_for_count; ++i) {
    const RefAddress ref = call.waits_for[i];
    values.kept.push_back(detail::get_bytes(ref, process.session(), std::nullopt));
    if (has_flag(process.memory().record(ref.slot), shm::flag::kResultHasRefs))
      throw Error(describe_inner_refs("the value of an argument"));
    values.parts.push_back({values.kept.back().data, values.kept.back().size});
    values.sizes.push_back(values.kept.back().size);
  }
  return values;
}

std::vector<std::byte> written(std::size_t size, EncodeAgain again, void* context) {
  std::vector<std::byte> bytes(size);
  Writer writer(bytes.data(), size);
  again(context, writer);
  return bytes;
}

std::uint64_t wanted_memory() {
  const char* given = ::getenv(kMemoryVariable);
  if (!given || !*given) return 0;
  char* end = nullptr;
  const std::uint64_t bytes = ::strtoull(given, &end, 10);
  if (*end || bytes == 0) {
    throw Error(std::string(kMemoryVariable) + " is '" + given +
                "'; it must be a number of bytes above 0");
  }
  return (bytes + (2 << 20) - 1) / (2 << 20) * (2 << 20);
}

// The number of a call's refs is told apart from those inside of its values by their sum.
void check_inner_refs(const Writer& writer, const Call& call) {
  if (writer.refs().size() != call.waits_for_count)
    throw Error(describe_inner_refs("an argument of a detached actor's call"));
}

}  // namespace

std::string describe_inner_refs(const std::string& what) {
  return what +
         " has a Ref or a handle inside; calls of detached actors are carried from one job to "
         "another, as values. Pass the Ref itself in the place of its value, or the name of an "
         "actor";
}

ActorAddress create_detached(Process& process, const Call& call, const ActorOptions& options,
                             std::string_view type, const Writer& writer, EncodeAgain again,
                             void* context) {
  const std::string option = "ActorOptions.lifetime = Detached";
  if (options.name.empty())
    throw Error(option + " needs a name, by which the actor is found later");
  if (process.local()) throw Error(option + " is not for local mode, where no process stays");
  const StayingNode node = node_of(process);
  if (node.folder.empty()) {
    throw Error(option +
                " needs a node that stays, and this one ends with its driver. Start one (mobula "
                "start --head) and join it (Config.address, or MOBULA_ADDRESS=auto)");
  }
  refuse_in_replay("detached actors");
  if (!process.placement_of(options.scheduling).empty()) {
    throw Error(option +
                " cannot be in a placement group: the actor outlives the job, and the group does "
                "not");
  }
  check_inner_refs(writer, call);
  const std::string space = options.namespace_.empty() ? node.own_namespace : options.namespace_;

  CarriedActor order{{call.function->key, std::string(type), {}, writer.size(), {}, {}}, options};
  std::vector<std::size_t> places;
  Writer measure(nullptr, 0, &places);
  again(context, measure);
  order.call.places.assign(places.begin(), places.end());
  order.options.namespace_ = space;
  order.options.lifetime = Lifetime::NonDetached;
  order.options.get_if_exists = false;
  const std::vector<std::byte> arguments = written(writer.size(), again, context);
  const std::uint64_t memory = wanted_memory();

  for (;;) {
    if (options.get_if_exists) {
      bool absent = false;
      try {
        return find_anywhere(process, options.name, space, type, absent);
      } catch (const ActorNotFoundError&) {
        if (!absent) throw;
      }
    }
    const Values values = values_of(process, call);
    order.call.sizes = values.sizes;
    const std::vector<std::byte> header = carried_header(order);
    std::vector<wire::Part> parts{header, arguments};
    parts.insert(parts.end(), values.parts.begin(), values.parts.end());
    wire::Message message;
    message.kind = wire::Kind::OpenHost;
    message.d = memory;
    message.set_text(wire::join({space, options.name, std::string(type.substr(0, kTypeNameShown)),
                                 std::to_string(detail::hash_text(type)),
                                 std::to_string(options.max_pending_calls)}));
    Descriptors files;
    files.fds[0] = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    files.fds[1] = surroundings_file(&message.a);
    files.fds[2] = wire::make_bytes_file("mobula-order", parts);
    if (std::ranges::any_of(files.fds, [](int fd) { return fd < 0; }))
      throw Error(std::string("cannot hand on a detached actor: ") + ::strerror(errno));
    message.descriptor_count = 3;
    std::ranges::copy(files.fds, message.descriptors);
    ask(node, message);
    if (message.status == wire::Status::Exists && options.get_if_exists) continue;
    if (message.status != wire::Status::Ok) throw_status(message);
    const Found made(message);
    try {
      return proxy_of(process, made, options.name, space, type);
    } catch (...) {
      end_detached(process, made.number, true);
      throw;
    }
  }
}

ActorAddress find_anywhere(Process& process, std::string_view name, std::string_view given_space,
                           std::string_view type, bool& absent) {
  std::optional<ActorAddress> here;
  std::string why;
  absent = false;
  try {
    here = find_in_session(process, name, given_space, type, absent);
    if (stands_for(process, *here) == 0) return *here;
  } catch (const ActorNotFoundError& e) {
    if (!absent) throw;
    why = e.what();
  }
  const StayingNode node = node_of(process);
  if (node.folder.empty()) throw ActorNotFoundError(why);
  const std::string space = given_space.empty() ? node.own_namespace : std::string(given_space);
  const std::optional<Found> there = find_on_node(node, name, space);
  if (here && there && stands_for(process, *here) == there->number) return *here;
  if (here) end_proxy(process, *here);
  absent = !there;
  const std::string which =
      "the actor \"" + std::string(name) + "\" in the namespace \"" + space + "\" ";
  if (!there) throw ActorNotFoundError(which + "is dead, or there is none");
  if (there->type != detail::hash_text(type)) {
    throw ActorNotFoundError(which + "is of class " + there->class_name +
                             ", which is not the one asked for");
  }
  return proxy_of(process, *there, name, space, type);
}

// ---- Calls.

namespace {

struct Wrapped {
  const std::vector<std::byte>& header;
  EncodeAgain again;
  void* context;
  static void write(void* wrapped, Writer& writer) {
    const auto& self = *static_cast<const Wrapped*>(wrapped);
    writer.bytes(self.header.data(), self.header.size());
    writer.align(kProxiedAlignment);
    self.again(self.context, writer);
  }
};

}  // namespace

RefAddress call_detached(Process& process, const Call& call, const CallOptions* options,
                         ActorAddress actor, const std::byte* bytes, EncodeAgain again,
                         void* context) {
  if (call.stream)
    throw Error(
        "methods that push into a Sink are not for detached actors, whose results are "
        "carried from one job to another");
  std::vector<std::size_t> places;
  Writer measure(nullptr, 0, &places);
  again(context, measure);
  check_inner_refs(measure, call);
  ProxiedCall proxied;
  proxied.places.assign(places.begin(), places.end());
  CallOptions own;
  if (options) {
    own = *options;
    proxied.group = std::exchange(own.concurrency_group, {});
    proxied.retries = std::exchange(own.max_task_retries, {});
  }
  const std::vector<std::byte> header = carried_header(proxied);
  Wrapped wrapped{header, again, context};
  Writer whole(nullptr, 0);
  Wrapped::write(&wrapped, whole);
  return place_call(process, call, options ? &own : nullptr, actor, whole, bytes, &Wrapped::write,
                    &wrapped);
}

// ---- Ends and lists.

void end_detached(Process& process, std::uint64_t number, bool no_restart) {
  wire::Message message;
  message.kind = wire::Kind::KillHost;
  message.c = number;
  message.a = no_restart ? 0 : 1;
  ask(node_of(process), message);
  if (message.status != wire::Status::Ok && message.status != wire::Status::NotFound)
    throw_status(message);
}

void list_detached(Process& process, bool all_namespaces, std::vector<NamedActor>& list) {
  const StayingNode node = node_of(process);
  if (node.folder.empty()) return;
  const auto key = [](const NamedActor& actor) { return std::pair(actor.namespace_, actor.name); };
  NamedActor last;
  for (bool more = true; more;) {
    wire::Message message;
    message.kind = wire::Kind::ListHosts;
    message.a = all_namespaces ? 1 : 0;
    message.set_text(wire::join({node.own_namespace, last.namespace_, last.name}));
    ask(node, message);
    if (message.status != wire::Status::Ok) throw_status(message);
    const wire::Fields fields = wire::split(message.text_view());
    for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
      last = {std::string(fields[i + 1]), std::string(fields[i])};
      list.push_back(last);
    }
    more = message.a == 1;
  }
  std::ranges::sort(list, {}, key);
  const auto doubles = std::ranges::unique(list, {}, key);
  list.erase(doubles.begin(), doubles.end());
}

}  // namespace mobula::runtime

bool mobula::detail::node_stays() {
  return !mobula::runtime::node_of(mobula::runtime::require_process()).folder.empty();
}
