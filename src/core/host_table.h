// Decides which name belongs to which of a node's detached actors, and who is told what of it.
//
// Each lives by a process that is started for it, its host.
//
// - A name is given before the host is started, so that of two creators one is told that it exists.
// - Who asks for it meanwhile waits, as its creator does, until the host is ready. If it never is,
//   the creator is told why, and the others to look again.
// - A host that is not ready kToGetReady after its start is killed.
// - A name is free again when its actor is dead for good or killed, or its host has ended; then it
//   may be another's, and the end of the first changes nothing about that.
//
// Pure rules: facts and their time in, orders out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/actor_name.h"
#include "core/worker_allotment.h"

namespace mobula::core {

struct HostId {
  std::uint32_t value = 0;  // rises, and is not used again
  friend auto operator<=>(const HostId&, const HostId&) = default;
};
// Somebody who has asked, and is answered once.
struct AskerId {
  int value = -1;
  friend auto operator<=>(const AskerId&, const AskerId&) = default;
};

// ---- Facts. One about a host that is not known changes nothing.

// `about`: what those who find it are told.
struct HostWanted {
  AskerId asker;
  ActorName name;
  std::string about;
};
struct HostAskedFor {
  AskerId asker;
  ActorName name;
};
// Its process could not be started.
struct HostNotStarted {
  HostId host;
  std::string why;
};
struct HostReady {
  HostId host;
  std::string folder;  // where calls are taken
};
// Its actor could not be made. `code` is passed on.
struct HostFailed {
  HostId host;
  std::uint32_t code = 0;
  std::string why;
};
// Its actor is dead for good, or was asked to die; the process may live on for a while.
struct HostOver {
  HostId host;
};
struct HostEnded {
  HostId host;
  std::string how;  // "was killed by signal 9"
};
struct NoMoreHosts {};  // the node ends
using HostEvent = std::variant<HostWanted, HostAskedFor, HostNotStarted, HostReady, HostFailed,
                               HostOver, HostEnded, NoMoreHosts, Tick>;

// ---- Orders.

struct StartHost {
  HostId host;
  friend bool operator==(const StartHost&, const StartHost&) = default;
};
struct KillHost {
  HostId host;
  friend bool operator==(const KillHost&, const KillHost&) = default;
};
struct TellFound {
  AskerId asker;
  HostId host;
  std::string folder;
  std::string about;
  friend bool operator==(const TellFound&, const TellFound&) = default;
};
enum class NoHost : std::uint8_t {
  Exists,  // the name is another's
  NotFound,  // nobody has the name
  Later,  // it has just failed: who asks again may find another
  Limit,  // too many
  NotStarted,  // no process, or none that got ready
  Failed,  // HostFailed; with its code
};
struct TellNone {
  AskerId asker;
  NoHost reason = NoHost::NotFound;
  std::uint32_t code = 0;
  std::string why;
  friend bool operator==(const TellNone&, const TellNone&) = default;
};
using HostOrder = std::variant<StartHost, KillHost, TellFound, TellNone>;

class HostTable {
 public:
  static constexpr std::size_t kHostsMax = 1024;
  static constexpr std::size_t kAskersMax = 256;  // that wait
  static constexpr Time kToGetReady = std::chrono::seconds(60);  // its program may do much first

  [[nodiscard]] std::vector<HostOrder> step(const HostEvent& event, Time now);

  // When a Tick is due, if nothing else happens before.
  [[nodiscard]] std::optional<Time> next_change() const;

  [[nodiscard]] bool empty() const { return hosts_.empty(); }
  [[nodiscard]] bool knows(HostId host) const { return hosts_.contains(host); }
  // Ordered by namespace, then name; also of those that are not ready.
  [[nodiscard]] const std::map<ActorName, HostId>& names() const { return names_; }
  [[nodiscard]] bool is_ready(HostId host) const;
  [[nodiscard]] const ActorName& name_of(HostId host) const { return hosts_.at(host).name; }
  [[nodiscard]] std::vector<AskerId> askers() const;  // that wait

 private:
  struct Host {
    ActorName name;
    std::string about;
    Time begun{};
    bool ready = false;
    std::string folder;
    AskerId creator;
    std::vector<AskerId> waiting;  // the creator among them
  };

  void apply(const HostWanted& event, Time now);
  void apply(const HostAskedFor& event, Time now);
  void apply(const HostNotStarted& event, Time now);
  void apply(const HostReady& event, Time now);
  void apply(const HostFailed& event, Time now);
  void apply(const HostOver& event, Time now);
  void apply(const HostEnded& event, Time now);
  void apply(const NoMoreHosts& event, Time now);
  void apply(const Tick& event, Time now);
  void wait_for(HostId id, AskerId asker);
  void tell_found(HostId id);
  void tell_none(Host& host, const TellNone& creator);
  void free_name(HostId id);

  std::map<HostId, Host> hosts_;
  std::map<ActorName, HostId> names_;
  std::uint32_t last_ = 0;
  std::size_t waiting_ = 0;
  bool ending_ = false;
  std::vector<HostOrder> orders_;
};

}  // namespace mobula::core
