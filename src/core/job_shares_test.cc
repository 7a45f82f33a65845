#include "core/job_shares.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <random>
#include <string>

namespace mobula::core {
namespace {

using namespace std::chrono_literals;

constexpr JobId kAnn{1};
constexpr JobId kBob{2};
constexpr JobId kCid{3};

ResourceAmounts amounts(std::map<std::string, double> ones) {
  return std::get<ResourceAmounts>(ResourceAmounts::parse(ones));
}
ResourceAmounts cpus(double n) { return amounts({{"CPU", n}}); }

// Jobs that do at once what they are told, unless a test holds one of them up.
class Jobs {
 public:
  explicit Jobs(ResourceAmounts capacity) : shares_(std::move(capacity)) {}

  void open(JobId job) { tell(JobOpened{job}); }
  void end(JobId job) {
    said_.erase(job);
    told_.erase(job);
    tell(JobEnded{job});
  }
  void want(JobId job, ResourceAmounts wanted) {
    said_[job].claim.wanted = std::move(wanted);
    say(job);
  }
  void has_for_good(JobId job, ResourceAmounts firm) {
    said_[job].claim.firm = std::move(firm);
    say(job);
  }
  void needs_urgently(JobId job, ResourceAmounts demand) {
    said_[job].claim.urgent = std::move(demand);
    say(job);
  }
  // Its tasks go on, whatever it is told.
  void hold_on(JobId job) { said_[job].busy = true; }
  void let_go(JobId job) {
    said_[job].busy = false;
    say(job);
  }
  void pass(Time time) {
    now_ += time;
    tell(Tick{});
  }
  ResourceAmounts share(JobId job) const { return told_.at(job); }
  double cpus_of(JobId job) const {
    return static_cast<double>(share(job).units("CPU")) / ResourceAmounts::kUnitsPerOne;
  }
  const JobShares& rules() const { return shares_; }

 private:
  struct Said {
    WorkerAllotment::Claim claim;
    std::uint64_t heard = 0;
    bool busy = false;
  };
  // Uses what it wants and may, and not less than what it has for good.
  void say(JobId job) {
    Said& said = said_[job];
    if (!said.busy) {
      said.claim.used = said.claim.firm;
      for (const auto& [name, units] : told_[job].by_name()) {
        const std::int64_t most = std::min(units, said.claim.wanted.units(name));
        said.claim.used.set_units(name, std::max(said.claim.used.units(name), most));
      }
    }
    tell(JobClaims{job, said.claim, said.heard});
  }
  void tell(const ShareEvent& event) {
    for (const SetShare& order : shares_.step(event, now_)) {
      CHECK(order.number == said_[order.job].heard + 1);
      told_[order.job] = order.amounts;
      said_[order.job].heard = order.number;
      heard_.push_back(order.job);
    }
    while (!heard_.empty()) {
      const JobId job = heard_.back();
      heard_.pop_back();
      say(job);
    }
  }

  JobShares shares_;
  Time now_{};
  std::map<JobId, Said> said_;
  std::map<JobId, ResourceAmounts> told_;
  std::vector<JobId> heard_;
};

}  // namespace

TEST_CASE("a job that is alone may use all there is before it asks") {
  Jobs jobs(amounts({{"CPU", 2}, {"GPU", 1}}));

  jobs.open(kAnn);

  CHECK(jobs.share(kAnn) == amounts({{"CPU", 2}, {"GPU", 1}}));
}

TEST_CASE("two busy jobs on two CPUs have one each, and one that is left alone has both") {
  Jobs jobs(cpus(2));
  jobs.open(kAnn);
  jobs.want(kAnn, cpus(2));
  jobs.open(kBob);
  CHECK(jobs.cpus_of(kAnn) == 2);  // Bob wants nothing yet

  jobs.want(kBob, cpus(2));

  CHECK(jobs.cpus_of(kAnn) == 1);
  CHECK(jobs.cpus_of(kBob) == 1);
  jobs.end(kAnn);
  CHECK(jobs.cpus_of(kBob) == 2);
}

TEST_CASE("a CPU changes hands only when its job has said that it uses it no more") {
  Jobs jobs(cpus(2));
  jobs.open(kAnn);
  jobs.want(kAnn, cpus(2));
  jobs.open(kBob);
  jobs.hold_on(kAnn);

  jobs.want(kBob, cpus(1));

  CHECK(jobs.cpus_of(kAnn) == 1);  // it was asked
  CHECK(jobs.rules().free().units("CPU") == 0);
  CHECK(jobs.cpus_of(kBob) == 0);  // and nothing was promised to anybody
  jobs.let_go(kAnn);
  CHECK(jobs.cpus_of(kBob) == 1);
}

TEST_CASE("CPUs that do not divide evenly go as whole ones") {
  Jobs jobs(cpus(3));
  for (const JobId job : {kAnn, kBob}) {
    jobs.open(job);
    jobs.want(job, cpus(3));
  }

  CHECK(jobs.cpus_of(kAnn) + jobs.cpus_of(kBob) == 3);
  CHECK(std::max(jobs.cpus_of(kAnn), jobs.cpus_of(kBob)) == 2);
}

TEST_CASE("a job that wants little gets it, and the others share the rest") {
  Jobs jobs(cpus(8));
  for (const auto& [job, wanted] : {std::pair{kAnn, 8}, {kBob, 2}, {kCid, 8}}) {
    jobs.open(job);
    jobs.want(job, cpus(wanted));
  }

  CHECK(jobs.cpus_of(kAnn) == 3);
  CHECK(jobs.cpus_of(kBob) == 2);
  CHECK(jobs.cpus_of(kCid) == 3);
}

TEST_CASE("what actors hold is not shared out again") {
  Jobs jobs(cpus(2));
  jobs.open(kAnn);
  jobs.want(kAnn, cpus(2));
  jobs.has_for_good(kAnn, cpus(2));
  jobs.open(kBob);

  jobs.want(kBob, cpus(1));

  CHECK(jobs.cpus_of(kAnn) == 2);
  CHECK(jobs.cpus_of(kBob) == 0);
  jobs.has_for_good(kAnn, cpus(1));
  CHECK(jobs.cpus_of(kBob) == 1);
}

TEST_CASE("a task that wants all CPUs gets its turn beside a job that is always busy") {
  Jobs jobs(cpus(2));
  for (const JobId job : {kAnn, kBob}) {
    jobs.open(job);
    jobs.want(job, cpus(2));
  }
  CHECK(jobs.cpus_of(kBob) == 1);  // of no use to it

  jobs.needs_urgently(kBob, cpus(2));

  CHECK(jobs.cpus_of(kBob) == 2);
  jobs.needs_urgently(kBob, {});
  CHECK(jobs.cpus_of(kAnn) == 1);
}

TEST_CASE("three jobs on two CPUs take turns: who has had one longest gives it up") {
  Jobs jobs(cpus(2));
  for (const JobId job : {kAnn, kBob, kCid}) {
    jobs.open(job);
    jobs.want(job, cpus(2));
  }
  std::map<JobId, int> turns;
  for (int round = 0; round < 30; ++round) {
    const JobId waits = jobs.cpus_of(kAnn) == 0 ? kAnn : jobs.cpus_of(kBob) == 0 ? kBob : kCid;
    jobs.needs_urgently(waits, cpus(1));
    jobs.needs_urgently(waits, {});  // it runs
    for (const JobId job : {kAnn, kBob, kCid}) turns[job] += jobs.cpus_of(job) > 0;
  }

  for (const auto& [job, count] : turns) {
    CAPTURE(job.value);
    CHECK(count == 20);
  }
}

TEST_CASE("a GPU stays with who uses it until it is urgent elsewhere") {
  Jobs jobs(amounts({{"CPU", 2}, {"GPU", 1}}));
  for (const JobId job : {kAnn, kBob}) {
    jobs.open(job);
    jobs.want(job, amounts({{"CPU", 1}, {"GPU", 1}}));
  }
  CHECK(jobs.share(kAnn).units("GPU") == 10'000);
  CHECK(jobs.share(kBob).units("GPU") == 0);

  jobs.needs_urgently(kBob, amounts({{"CPU", 1}, {"GPU", 1}}));

  CHECK(jobs.share(kBob).units("GPU") == 10'000);
}

TEST_CASE("what is urgent and cannot be met yet does not hold up what can") {
  Jobs jobs(amounts({{"CPU", 4}, {"GPU", 1}}));
  for (const JobId job : {kAnn, kBob, kCid}) jobs.open(job);
  jobs.want(kAnn, amounts({{"GPU", 1}}));
  jobs.has_for_good(kAnn, amounts({{"GPU", 1}}));
  jobs.want(kBob, amounts({{"CPU", 4}, {"GPU", 1}}));
  jobs.needs_urgently(kBob, amounts({{"CPU", 4}, {"GPU", 1}}));
  jobs.want(kCid, cpus(4));

  jobs.needs_urgently(kCid, cpus(4));

  CHECK(jobs.cpus_of(kCid) == 4);
}

TEST_CASE("between two bursts of a job nothing moves") {
  Jobs jobs(cpus(2));
  jobs.open(kAnn);
  jobs.want(kAnn, cpus(2));
  jobs.open(kBob);

  jobs.want(kAnn, {});
  CHECK(jobs.cpus_of(kAnn) == 2);
  REQUIRE(jobs.rules().next_change().has_value());
  CHECK(*jobs.rules().next_change() == JobShares::kSteady);
  jobs.want(kAnn, cpus(2));
  jobs.pass(2 * JobShares::kSteady);
  CHECK(jobs.cpus_of(kAnn) == 2);

  jobs.want(kAnn, {});
  jobs.pass(JobShares::kSteady);
  CHECK(jobs.cpus_of(kAnn) == 1);  // and the spare one lies where it may be wanted next
  CHECK(jobs.cpus_of(kBob) == 1);
}

TEST_CASE("more than there is is never given, whatever jobs say and when") {
  const char* given = std::getenv("MOBULA_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  INFO("replay with MOBULA_SEED=" << seed);
  std::mt19937_64 random(seed);
  const auto pick = [&](std::uint64_t below) { return random() % below; };
  const ResourceAmounts capacity = amounts({{"CPU", 4}, {"GPU", 2}});
  JobShares shares(capacity);
  struct Pretend {
    ResourceAmounts may, used;
    std::uint64_t heard = 0;
    std::vector<SetShare> on_the_way;
  };
  std::map<JobId, Pretend> jobs;
  Time now{};
  std::uint32_t last = 0;
  for (int round = 0; round < 20'000; ++round) {
    ShareEvent event = Tick{};
    now += std::chrono::milliseconds(pick(20));
    if (jobs.empty() || (jobs.size() < 5 && pick(20) == 0)) {
      const JobId fresh{++last};
      jobs[fresh];
      event = JobOpened{fresh};
    } else {
      auto at = jobs.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(pick(jobs.size())));
      auto& [id, job] = *at;
      switch (pick(8)) {
        case 0:
          event = JobEnded{id};
          jobs.erase(at);
          break;
        case 1:
        case 2:
        case 3:
          if (!job.on_the_way.empty()) {
            job.may = job.on_the_way.front().amounts;
            job.heard = job.on_the_way.front().number;
            job.on_the_way.erase(job.on_the_way.begin());
          }
          continue;
        default: {
          // Takes more, within what it may, or gives back; both are free to it.
          WorkerAllotment::Claim claim;
          ResourceAmounts used;
          for (const auto& [name, units] : capacity.by_name()) {
            const std::int64_t most = std::max(job.may.units(name), job.used.units(name));
            const auto take = static_cast<std::int64_t>(pick(3)) * ResourceAmounts::kUnitsPerOne;
            used.set_units(name, std::min(most, take));
            claim.wanted.set_units(name, static_cast<std::int64_t>(pick(5)) * 10'000);
            claim.firm.set_units(name, pick(2) == 0 ? used.units(name) : 0);
            if (pick(4) == 0)
              claim.urgent.set_units(name, static_cast<std::int64_t>(pick(3)) * 10'000);
          }
          // What it may is known to it alone: from now on it uses no more than that.
          for (const auto& [name, units] : capacity.by_name())
            used.set_units(name, std::min(used.units(name), job.may.units(name)));
          job.used = claim.used = used;
          event = JobClaims{id, claim, job.heard};
        }
      }
    }
    for (const SetShare& order : shares.step(event, now))
      jobs.at(order.job).on_the_way.push_back(order);
    ResourceAmounts all;
    for (const auto& [id, job] : jobs) {
      // Between what it uses and what it may, it is free to choose without a word.
      ResourceAmounts most = job.used;
      for (const auto& [name, units] : job.may.by_name())
        most.set_units(name, std::max(units, most.units(name)));
      all.add(most);
    }
    CAPTURE(all.describe());
    REQUIRE(capacity.contains(all));
  }
}

}  // namespace mobula::core
