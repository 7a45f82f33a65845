// Decides how much of a node's resources each of its jobs may use, when several drivers share it.
//
// A job says what it could use, what of that it cannot give back, and what it uses; it hears how
// much it may use. What it was given is counted as its until it has said, after it heard of less,
// that it uses less: so two jobs never have the same CPU.
//
// - First comes what cannot be taken back (firm): demands of actors, what blocked tasks keep.
// - Then what is urgent: a demand that has waited for WorkerAllotment::kPatience and does not fit
//   into its job's share, in the order of their coming. So a task that wants all CPUs gets its
//   turn, and so does each of three jobs on two CPUs.
// - Then CPUs, one by one, to who has least (max-min fair in whole CPUs). Among equals who was
//   given one last keeps it: it has not had its turn yet.
// - Everything else (GPUs, memory, the user's own) stays with who uses it, then goes to the oldest
//   job that wants it.
// - What nobody wants lies with the jobs that may want it next, so that they need not ask: CPUs
//   with who has fewest, the rest with the oldest job.
//
// Wants rise at once and fall after kSteady: between two bursts of a job nothing moves.
//
// Pure rules: facts and their time in, orders out. What is said here is about jobs; who runs which
// task of a job is decided there (worker_allotment.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <variant>
#include <vector>

#include "core/worker_allotment.h"

namespace mobula::core {

struct JobId {
  std::uint32_t value = 0;  // rises: the older job has the smaller one
  friend auto operator<=>(const JobId&, const JobId&) = default;
};

// ---- Facts. One about a job that is not known changes nothing.

struct JobOpened {
  JobId job;
};
struct JobClaims {
  JobId job;
  WorkerAllotment::Claim claim;
  std::uint64_t heard = 0;  // the number of the newest SetShare that the job had heard
};
// All that it held is free.
struct JobEnded {
  JobId job;
};
using ShareEvent = std::variant<JobOpened, JobClaims, JobEnded, Tick>;

// ---- Orders.

// The job may use so much, no more. Numbers of a job's orders rise from 1.
struct SetShare {
  JobId job;
  ResourceAmounts amounts;
  std::uint64_t number = 0;
  friend bool operator==(const SetShare&, const SetShare&) = default;
};

class JobShares {
 public:
  static constexpr Time kSteady = std::chrono::milliseconds(50);

  explicit JobShares(ResourceAmounts capacity) : capacity_(std::move(capacity)) {}

  [[nodiscard]] std::vector<SetShare> step(const ShareEvent& event, Time now);

  // When a Tick is due, if nothing else happens before.
  [[nodiscard]] std::optional<Time> next_change() const;

  [[nodiscard]] const ResourceAmounts& capacity() const { return capacity_; }
  // What all jobs but this one leave free.
  [[nodiscard]] ResourceAmounts free_besides(JobId job) const;
  [[nodiscard]] ResourceAmounts free() const { return free_besides({}); }

 private:
  struct Job {
    WorkerAllotment::Claim claim;  // as it said last
    ResourceAmounts wanted;        // as it counts: falls late
    std::optional<Time> falls_at;
    std::uint64_t urgent_since = 0;  // in the order of such claims; 0: none
    ResourceAmounts share;           // as it was told last
    std::uint64_t number = 0;        // of that order
    ResourceAmounts lent;            // what it may be using, for all that is known here
    std::uint64_t cpu_given = 0;     // in the order of such gifts: when it got a CPU last
  };
  using Amounts = std::map<JobId, ResourceAmounts>;

  void note(Job& job, const JobClaims& claims, Time now);
  [[nodiscard]] std::vector<JobId> urgent_first() const;
  [[nodiscard]] Amounts targets() const;
  void deal_cpus(Amounts& targets, ResourceAmounts& left, bool beyond_wants) const;
  void deal(const std::string& name, Amounts& targets, ResourceAmounts& left) const;
  [[nodiscard]] std::vector<SetShare> rebalance();

  ResourceAmounts capacity_;
  std::map<JobId, Job> jobs_;  // oldest first
  std::uint64_t urgencies_ = 0;
  std::uint64_t gifts_ = 0;
};

}  // namespace mobula::core
