#include "core/job_shares.h"

#include <algorithm>
#include <utility>

namespace mobula::core {

namespace {

template <class... Cases>
struct Match : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Match(Cases...) -> Match<Cases...>;

// CPUs are dealt one at a time, and in larger parts where there are more than this.
constexpr std::int64_t kPartsMax = 1024;

ResourceAmounts larger(ResourceAmounts a, const ResourceAmounts& b) {
  for (const auto& [name, units] : b.by_name()) a.set_units(name, std::max(units, a.units(name)));
  return a;
}

// Moves what there is of `wanted` from `from` to `to`.
void move_up_to(std::int64_t wanted, const std::string& name, ResourceAmounts& from,
                ResourceAmounts& to) {
  const std::int64_t units = std::min(wanted, from.units(name));
  if (units <= 0) return;
  from.set_units(name, from.units(name) - units);
  to.set_units(name, to.units(name) + units);
}

}  // namespace

std::vector<SetShare> JobShares::step(const ShareEvent& event, Time now) {
  std::visit(Match{
                 [&](const JobOpened& opened) { jobs_.try_emplace(opened.job); },
                 [&](const JobClaims& claims) {
                   const auto known = jobs_.find(claims.job);
                   if (known != jobs_.end()) note(known->second, claims, now);
                 },
                 [&](const JobEnded& ended) { jobs_.erase(ended.job); },
                 [&](const Tick&) {},
             },
             event);
  for (auto& [id, job] : jobs_) {
    if (!job.falls_at || now < *job.falls_at) continue;
    job.wanted = job.claim.wanted;
    job.falls_at.reset();
  }
  return rebalance();
}

void JobShares::note(Job& job, const JobClaims& claims, Time now) {
  job.claim = claims.claim;
  if (job.claim.wanted.contains(job.wanted)) {
    job.wanted = job.claim.wanted;
    job.falls_at.reset();
  } else {
    job.wanted = larger(job.wanted, job.claim.wanted);
    if (!job.falls_at) job.falls_at = now + kSteady;
  }
  if (job.claim.urgent.empty()) {
    job.urgent_since = 0;
  } else if (job.urgent_since == 0) {
    job.urgent_since = ++urgencies_;
  }
  // One that has not heard the newest order may still act on an older one.
  const ResourceAmounts& at_least = claims.heard == job.number ? job.share : job.lent;
  job.lent = larger(at_least, job.claim.used);
}

std::vector<JobId> JobShares::urgent_first() const {
  std::vector<std::pair<std::uint64_t, JobId>> order;
  for (const auto& [id, job] : jobs_)
    order.emplace_back(job.urgent_since == 0 ? urgencies_ + 1 : job.urgent_since, id);
  std::sort(order.begin(), order.end());
  std::vector<JobId> jobs;
  for (const auto& [since, id] : order) jobs.push_back(id);
  return jobs;
}

// What each would have if all gave back at once what they should.
JobShares::Amounts JobShares::targets() const {
  Amounts targets;
  ResourceAmounts left = capacity_;
  for (const auto& [id, job] : jobs_) {
    targets[id] = job.claim.firm;
    left.subtract(job.claim.firm);
  }
  for (const JobId id : urgent_first()) {
    const ResourceAmounts& urgent = jobs_.at(id).claim.urgent;
    // What others have for good may stand in its way: then those behind it pass.
    if (urgent.empty() || !left.contains(urgent)) continue;
    targets[id].add(urgent);
    left.subtract(urgent);
  }
  deal_cpus(targets, left, false);
  deal_cpus(targets, left, true);
  for (const auto& [name, units] : capacity_.by_name()) {
    if (name != kCpu) deal(name, targets, left);
  }
  return targets;
}

void JobShares::deal_cpus(Amounts& targets, ResourceAmounts& left, bool beyond_wants) const {
  const std::string cpu(kCpu);
  const std::int64_t all = capacity_.units(kCpu);
  const std::int64_t part = std::max(ResourceAmounts::kUnitsPerOne, all / kPartsMax);
  const auto most = [&](const Job& job) { return beyond_wants ? all : job.wanted.units(kCpu); };
  while (left.units(kCpu) > 0) {
    const std::pair<const JobId, Job>* neediest = nullptr;
    for (const auto& entry : jobs_) {
      const std::int64_t has = targets.at(entry.first).units(kCpu);
      if (has >= most(entry.second)) continue;
      const std::int64_t least = neediest ? targets.at(neediest->first).units(kCpu) : 0;
      if (!neediest || has < least ||
          (has == least && entry.second.cpu_given > neediest->second.cpu_given))
        neediest = &entry;
    }
    if (!neediest) return;
    ResourceAmounts& target = targets.at(neediest->first);
    move_up_to(std::min(part, most(neediest->second) - target.units(kCpu)), cpu, left, target);
  }
}

void JobShares::deal(const std::string& name, Amounts& targets, ResourceAmounts& left) const {
  const auto up_to = [&](JobId id, std::int64_t units) {
    move_up_to(units - targets.at(id).units(name), name, left, targets.at(id));
  };
  for (const auto& [id, job] : jobs_)
    up_to(id, std::min(job.claim.used.units(name), job.wanted.units(name)));
  for (const auto& [id, job] : jobs_) up_to(id, job.wanted.units(name));
  if (!jobs_.empty()) up_to(jobs_.begin()->first, capacity_.units(name));
}

std::vector<SetShare> JobShares::rebalance() {
  const Amounts target = targets();
  ResourceAmounts spare = capacity_;
  for (const auto& [id, job] : jobs_) spare.subtract(job.lent);
  std::vector<SetShare> orders;
  for (const JobId id : urgent_first()) {
    Job& job = jobs_.at(id);
    ResourceAmounts share;
    for (const auto& [name, units] : target.at(id).by_name()) {
      const std::int64_t there = std::max<std::int64_t>(0, spare.units(name));
      share.set_units(name, std::min(units, job.lent.units(name) + there));
    }
    ResourceAmounts lent = larger(job.lent, share);
    spare.add(job.lent);
    spare.subtract(lent);
    job.lent = std::move(lent);
    if (share == job.share) continue;
    if (share.units(kCpu) > job.share.units(kCpu)) job.cpu_given = ++gifts_;
    job.share = std::move(share);
    orders.push_back({id, job.share, ++job.number});
  }
  return orders;
}

std::optional<Time> JobShares::next_change() const {
  std::optional<Time> next;
  for (const auto& [id, job] : jobs_) {
    if (job.falls_at && (!next || *job.falls_at < *next)) next = job.falls_at;
  }
  return next;
}

ResourceAmounts JobShares::free_besides(JobId besides) const {
  ResourceAmounts free = capacity_;
  for (const auto& [id, job] : jobs_) {
    if (id != besides) free.subtract(job.claim.used);
  }
  return free;
}

}  // namespace mobula::core
