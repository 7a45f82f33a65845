#include "core/host_table.h"

#include <algorithm>
#include <utility>

namespace mobula::core {
namespace {

constexpr char kTooManyWait[] = "too many wait for detached actors that are being started";

}  // namespace

std::vector<HostOrder> HostTable::step(const HostEvent& event, Time now) {
  std::visit([&](const auto& fact) { apply(fact, now); }, event);
  return std::exchange(orders_, {});
}

std::optional<Time> HostTable::next_change() const {
  std::optional<Time> next;
  for (const auto& [id, host] : hosts_) {
    const Time late = host.begun + kToGetReady;
    if (!host.ready) next = std::min(next.value_or(late), late);
  }
  return next;
}

bool HostTable::is_ready(HostId host) const {
  const auto found = hosts_.find(host);
  return found != hosts_.end() && found->second.ready;
}

std::vector<AskerId> HostTable::askers() const {
  std::vector<AskerId> all;
  for (const auto& [id, host] : hosts_)
    all.insert(all.end(), host.waiting.begin(), host.waiting.end());
  return all;
}

// ---- Questions.

void HostTable::apply(const HostWanted& event, Time now) {
  const auto refuse = [&](NoHost reason, std::string why) {
    orders_.push_back(TellNone{event.asker, reason, 0, std::move(why)});
  };
  if (ending_) return refuse(NoHost::NotStarted, "the node is ending");
  if (names_.contains(event.name)) {
    return refuse(NoHost::Exists, "there is a detached actor " + event.name.quoted() +
                                      " already; mobula::get_actor gives its handle, and so does "
                                      "ActorOptions.get_if_exists");
  }
  if (hosts_.size() >= kHostsMax)
    return refuse(NoHost::Limit, "the node has 1024 detached actors, its most");
  if (waiting_ >= kAskersMax) return refuse(NoHost::Limit, kTooManyWait);
  const HostId id{++last_};
  names_[event.name] = id;
  hosts_[id] = {event.name, event.about, now, false, {}, event.asker, {}};
  wait_for(id, event.asker);
  orders_.push_back(StartHost{id});
}

void HostTable::apply(const HostAskedFor& event, Time) {
  const auto known = names_.find(event.name);
  if (known != names_.end()) return wait_for(known->second, event.asker);
  orders_.push_back(
      TellNone{event.asker, NoHost::NotFound, 0,
               "there is no actor " + event.name.quoted() + ": none was created, or it is dead"});
}

void HostTable::wait_for(HostId id, AskerId asker) {
  Host& host = hosts_.at(id);
  if (!host.ready && waiting_ >= kAskersMax) {
    orders_.push_back(TellNone{asker, NoHost::Limit, 0, kTooManyWait});
    return;
  }
  host.waiting.push_back(asker);
  ++waiting_;
  if (host.ready) tell_found(id);
}

void HostTable::tell_found(HostId id) {
  Host& host = hosts_.at(id);
  for (const AskerId asker : host.waiting)
    orders_.push_back(TellFound{asker, id, host.folder, host.about});
  waiting_ -= host.waiting.size();
  host.waiting.clear();
}

// `creator`: what that one is told; its asker does not matter.
void HostTable::tell_none(Host& host, const TellNone& creator) {
  for (const AskerId asker : host.waiting) {
    TellNone told = creator;
    told.asker = asker;
    if (asker != host.creator) {
      told.reason = NoHost::Later;
      told.code = 0;
    }
    orders_.push_back(std::move(told));
  }
  waiting_ -= host.waiting.size();
  host.waiting.clear();
}

void HostTable::free_name(HostId id) {
  const auto known = names_.find(hosts_.at(id).name);
  if (known != names_.end() && known->second == id) names_.erase(known);
}

// ---- What becomes of hosts.

void HostTable::apply(const HostNotStarted& event, Time) {
  const auto found = hosts_.find(event.host);
  if (found == hosts_.end()) return;
  free_name(event.host);
  tell_none(found->second,
            {{}, NoHost::NotStarted, 0, "cannot start a detached actor: " + event.why});
  hosts_.erase(found);
}

void HostTable::apply(const HostReady& event, Time) {
  const auto found = hosts_.find(event.host);
  if (found == hosts_.end()) return;
  found->second.ready = true;
  found->second.folder = event.folder;
  tell_found(event.host);
}

void HostTable::apply(const HostFailed& event, Time) {
  const auto found = hosts_.find(event.host);
  if (found == hosts_.end()) return;
  free_name(event.host);
  tell_none(found->second, {{}, NoHost::Failed, event.code, event.why});
}

void HostTable::apply(const HostOver& event, Time) {
  if (hosts_.contains(event.host)) free_name(event.host);
}

void HostTable::apply(const HostEnded& event, Time) {
  const auto found = hosts_.find(event.host);
  if (found == hosts_.end()) return;
  Host& host = found->second;
  free_name(event.host);
  tell_none(host, {{},
                   NoHost::NotStarted,
                   0,
                   "the process of the detached actor " + host.name.quoted() + " " + event.how +
                       " before it came to its Session; its output is the node's"});
  hosts_.erase(found);
}

void HostTable::apply(const NoMoreHosts&, Time) { ending_ = true; }

void HostTable::apply(const Tick&, Time now) {
  for (auto& [id, host] : hosts_) {
    if (host.ready || now < host.begun + kToGetReady) continue;
    tell_none(host, {{},
                     NoHost::NotStarted,
                     0,
                     "the process of the detached actor " + host.name.quoted() +
                         " did not come to its Session within a minute"});
    orders_.push_back(KillHost{id});
    host.begun = now;
  }
}

}  // namespace mobula::core
