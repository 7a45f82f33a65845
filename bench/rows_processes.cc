// Rows about processes: how soon a session works, how soon a crash is mended, many workers, idle
// ones.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <thread>

#include "gate.h"
#include "mobula/mobula.h"
#include "processes.h"
#include "row.h"
#include "workloads.h"

namespace mobula::bench {
namespace {

std::int64_t now_ns() { return Clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

// The first attempt notes the time and kills its worker; the second says when it began.
std::int64_t crash_once(int driver, int descriptor) {
  const std::int64_t began = now_ns();
  if (this_task().attempt > 0) return began;
  const std::string path = "/proc/" + std::to_string(driver) + "/fd/" + std::to_string(descriptor);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  const std::int64_t killed = now_ns();
  if (fd < 0 || ::pwrite(fd, &killed, sizeof killed, 0) != sizeof killed) return -1;
  ::kill(::getpid(), SIGKILL);
  return -1;
}

void measure_first_result(const Runs& runs) {
  const std::uint64_t times = runs.size(7, 3);
  runs.interleave([&] { return median(repeat(times, [] { return run_probe({"first_result"}); })); },
                  [&] { return fork_exec_ms(static_cast<int>(times)); });
}

void measure_crash(const Runs& runs) {
  const int fd = ::memfd_create("stamp", MFD_CLOEXEC);
  const auto rerun_ms = [&] {
    const std::int64_t running = get(remote<crash_once>(static_cast<int>(::getpid()), fd));
    std::int64_t killed = 0;
    if (running < 0 || ::pread(fd, &killed, sizeof killed, 0) != sizeof killed) {
      throw std::runtime_error("the task that should crash did not");
    }
    return static_cast<double>(running - killed) * 1e-6;
  };
  rerun_ms();
  const std::uint64_t times = runs.size(40, 5);
  runs.interleave(
      [&] {
        const std::vector<double> ms = repeat(times, rerun_ms);
        runs.note("p99", quantile(ms, 0.99));
        return median(ms);
      },
      [&] { return kill_and_fork_ms(static_cast<int>(times)); });
  ::close(fd);
}

void measure_many_workers(const Runs& runs) {
  const std::string batches = std::to_string(runs.size(300, 50));
  runs.interleave([&] { return run_probe({"task_rate", "16", batches}); },
                  [&] { return run_probe({"task_rate", "2", batches}); });
}

// The daemon and its workers, but not the driver; beside them as many plain processes that only
// sleep.
void measure_idle(const Runs& runs) {
  const auto workers = static_cast<unsigned>(cluster_resources().at("CPU"));
  const Gate gate;
  std::vector<Ref<std::uint64_t>> held;
  held.reserve(workers);
  for (unsigned i = 0; i < workers; ++i) held.push_back(remote<wait_at_gate>(gate.address()));
  gate.await_arrivals(workers);
  gate.let_pass(workers);
  std::set<std::uint64_t> worker_pids;
  for (const std::uint64_t pid : get(held)) worker_pids.insert(pid);
  expect_equal<std::uint64_t>(worker_pids.size(), workers, "the number of workers");

  const std::string tag = tag_of_this_process();
  if (tag.empty()) throw std::runtime_error(std::string(kTagVariable) + " is not set");
  const std::vector<pid_t> processes = tagged_processes(tag);
  for (const std::uint64_t worker : worker_pids) {
    if (std::find(processes.begin(), processes.end(), static_cast<pid_t>(worker)) ==
        processes.end()) {
      throw std::runtime_error("a worker does not carry the environment of its driver");
    }
  }
  if (processes.size() <= workers) throw std::runtime_error("the node daemon was not found");

  const SleepingProcesses sleepers(static_cast<unsigned>(processes.size()));
  const std::chrono::milliseconds interval(runs.size(2000, 500));
  const auto times = [](const std::vector<pid_t>& pids) {
    std::vector<std::uint64_t> ns;
    ns.reserve(pids.size());
    for (const pid_t pid : pids) ns.push_back(cpu_time_ns(pid));
    return ns;
  };
  const auto spent = [](const std::vector<std::uint64_t>& before,
                        const std::vector<std::uint64_t>& after) {
    std::uint64_t ns = 0;
    for (std::size_t i = 0; i < before.size(); ++i)
      ns += std::max(after[i], before[i]) - before[i];  // one may have ended
    return static_cast<double>(ns);
  };
  std::this_thread::sleep_for(
      std::chrono::milliseconds(500));  // what is just over may still be tidied up
  runs.each([&] {
    const auto ours = times(processes);
    const auto plain = times(sleepers.pids());
    const auto start = Clock::now();
    std::this_thread::sleep_for(interval);
    const double percent_per_ns = 100 / (seconds_since(start) * 1e9);
    return Sample{spent(ours, times(processes)) * percent_per_ns,
                  spent(plain, times(sleepers.pids())) * percent_per_ns};
  });
}

}  // namespace

void add_process_rows(std::vector<Row>& rows) {
  rows.push_back({"start_to_first_result", "Session to the first result", "ms", Better::Lower,
                  "posix_spawn to exit", "", measure_first_result});
  rows.back().sessions = Sessions::ByProbes;
  rows.push_back({"crash_to_rerun", "kill -9 of a worker to its task running again, p50", "ms",
                  Better::Lower, "kill -9 seen by pidfd, then fork", "", measure_crash});
  rows.push_back({"workers_16", "empty tasks, 16 workers", "1/s", Better::Higher,
                  "the same with 2 workers", "", measure_many_workers});
  rows.back().sessions = Sessions::ByProbes;
  rows.push_back({"idle_cpu", "CPU of an idle daemon and 4 workers", "%", Better::Lower,
                  "as many sleeping processes", "", measure_idle});
  rows.back().config.num_cpus = 4;
}

}  // namespace mobula::bench
