#include "node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

#include "node/node_parts.h"
#include "shm/check.h"
#include "shm/claim.h"
#include "shm/futex.h"
#include "wire/rendezvous.h"

extern char** environ;

namespace mobula::node {
namespace {

constexpr int kTickMs = 5;          // between looks while something waits
constexpr int kQuietLooks = 20;     // then the daemon sleeps until it is rung
constexpr core::Time kLookPauseMax = std::chrono::milliseconds(5);
constexpr int kOrphanTickMs = 200;  // while a dead process's ledgers stand
constexpr core::Time kSurveyPause = std::chrono::milliseconds(500);  // while workers are surplus
constexpr int kDeadlockTickMs =
    100;  // while an actor waits in a call: for circles without a last step
constexpr core::Time kLongestSleep = std::chrono::hours(1);  // epoll counts ms in an int
constexpr core::Time kProgressPause = std::chrono::milliseconds(100);  // while tasks tell of theirs
constexpr int kLeaveGraceMs = 300;  // for workers to end by themselves
constexpr double kAllThereIs = 1ull << 62;  // bytes of disk

}  // namespace

Node::Node(int driver, int node, std::string node_name)
    : driver_(driver),
      node_(node),
      node_name_(std::move(node_name)),
      begin_(std::chrono::steady_clock::now()) {
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  bell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  // Each worker costs the daemon four descriptors; workers get the user's own limit back.
  ::getrlimit(RLIMIT_NOFILE, &user_descriptors_);
  rlimit descriptors = user_descriptors_;
  descriptors.rlim_cur = descriptors.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &descriptors);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // what tasks leave running comes to us, and ends with us
  watch(driver_, kTagDriver);
  watch(bell_, kTagBell);
  if (node_ < 0) return;
  ::fcntl(node_, F_SETFD, FD_CLOEXEC);
  watch(node_, kTagNode);
}

Node::~Node() = default;

core::Time Node::now() const { return std::chrono::steady_clock::now() - begin_; }

void Node::watch(int fd, std::uint64_t tag) {
  epoll_event event{EPOLLIN | EPOLLRDHUP, {.u64 = tag}};
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

void Node::unwatch(int fd) { ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); }

// ---- Starting.

bool Node::start(const wire::Message& message) {
  const bool joins = node_ >= 0;
  if (message.kind != wire::Kind::Start || message.descriptor_count != (joins ? 4 : 2) ||
      joins != ((message.d & wire::kStartJoins) != 0))
    return false;
  program_ = message.descriptors[0];
  // Its end by pidfd, too: a child that it forked may keep the socket open after it is dead.
  const pid_t driver_pid = joins ? wire::peer_pid(driver_) : ::getppid();
  const int driver_end = open_pidfd(static_cast<std::uint32_t>(driver_pid));
  if (driver_end >= 0) watch(driver_end, kTagDriverEnd);
  if (!joins && ::getppid() != driver_pid) return false;
  const auto strings = wire::take_strings_file(message.descriptors[1]);
  if (strings.size() < message.b) return false;
  arguments_.assign(strings.begin(), strings.begin() + message.b);
  log_to_driver_ = (message.d & wire::kStartLogs) != 0;
  local_ = (message.d & wire::kStartLocal) != 0;

  limit_memory(message);
  const wire::Fields settings = wire::split(message.text_view());
  auto amounts = wire::parse_amounts(wire::field(settings, 0));
  namespace_ = wire::field(settings, 2);
  const auto spill_limit = amounts.extract(wire::kSettingSpillLimit);
  std::uint64_t object_memory = message.c;
  capacity_ = joins ? part_of_node(message, amounts, &object_memory)
                    : own_capacity(message, std::move(amounts), &object_memory);

  directory_ = std::make_unique<SessionDirectory>();
  if (joins) live_like_the_driver(message, strings);
  logs_ = std::make_unique<LogRelay>(directory_->logs(), log_to_driver_);
  progress_ = core::ProgressBars(LogRelay::is_terminal(STDERR_FILENO));  // the driver's by now
  if (!shm::Memory::create(object_memory, &control_fd_, &object_fd_))
    throw std::runtime_error(std::string("cannot make shared memory: ") + ::strerror(errno));
  if (const char* problem = memory_.map(control_fd_, object_fd_, object_memory, true))
    throw std::runtime_error(problem);
  cpu_set_t cpus;
  const int cores = ::sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
  tables_ = std::make_unique<Tables>(memory_, random_id(), static_cast<std::uint32_t>(cores));
  if (node_id_ != 0) memory_.header().node = node_id_;
  open_object_memory(std::string(wire::field(settings, 1)),
                     spill_limit.empty() ? kAllThereIs : spill_limit.mapped());
  const auto self = tables_->open_process(shm::ProcessRole::Daemon);
  const auto participant = tables_->open_participant(*self);
  MOBULA_CHECK(self && participant);
  memory_.process(*self).pid = static_cast<std::uint32_t>(::getpid());
  recovery_ = std::make_unique<Recovery>(memory_, *tables_, *objects_, *participant);
  waits_ = std::make_unique<WaitSurvey>(memory_, *tables_);
  metrics_ = std::make_unique<Metrics>(memory_, *tables_);
  monitors_ = std::make_unique<Monitors>(memory_, *tables_, *participant, *recovery_);
  const auto driver = tables_->open_process(shm::ProcessRole::Driver);
  MOBULA_CHECK(driver == kDriverProcess);
  memory_.process(kDriverProcess).pid = static_cast<std::uint32_t>(driver_pid);
  memory_.header().worker_heap_max = worker_heap_max();
  if (!local_) start_zygote();

  const int cpus_here =
      static_cast<int>(capacity_.units("CPU") / core::ResourceAmounts::kUnitsPerOne);
  step(local_ ? core::PoolLimits{}
              : core::PoolLimits{std::min(std::max(cpus_here, 1), 64), kWorkersMax});
  step(core::NodeCapacity{capacity_});
  if (joins) step(core::ShareChanged{});  // until it is told of one

  try {
    tools_ = wire::listen_in(directory_->path());
    watch(tools_, kTagTools);
  } catch (const std::runtime_error& e) {  // tools will not see the session; it works without them
    if (log_to_driver_) ::fprintf(stderr, "mobula: %s\n", e.what());
  }

  wire::Message welcome;
  welcome.kind = wire::Kind::Welcome;
  welcome.a = *driver;
  welcome.c = object_memory;
  welcome.set_text(directory_->path());  // should we be killed, the driver removes it
  welcome.descriptor_count = 3;
  welcome.descriptors[0] = control_fd_;
  welcome.descriptors[1] = object_fd_;
  welcome.descriptors[2] = bell_;
  return wire::send(driver_, welcome);
}

// `spill_folder`: empty: the default one. `spill_limit`: bytes of disk at most; 0: nothing is
// spilled.
void Node::open_object_memory(std::string spill_folder, double spill_limit) {
  const auto disk = static_cast<std::uint64_t>(std::min(spill_limit, kAllThereIs));
  if (disk > 0) {
    if (spill_folder.empty()) spill_folder = Spiller::default_folder();
    if (const std::string problem = Spiller::problem_with(spill_folder); !problem.empty())
      throw std::runtime_error("Config.spill_directory: " + problem);
    spiller_ = std::make_unique<Spiller>(memory_, spill_folder);
    watch(spiller_->results_bell(), kTagSpiller);
  }
  objects_ = std::make_unique<ObjectMemory>(memory_, *tables_, spiller_.get(), disk);
}

core::ResourceAmounts Node::own_capacity(const wire::Message& start,
                                         std::map<std::string, double> asked,
                                         std::uint64_t* object_memory) {
  *object_memory = start.c;
  asked["object_store_memory"] = static_cast<double>(start.c);
  auto parsed = core::ResourceAmounts::parse(asked);
  if (const auto* refusal = std::get_if<core::ResourceRefusal>(&parsed))
    throw std::runtime_error("Config: " + refusal->describe());
  return std::get<core::ResourceAmounts>(parsed);
}

// ---- The loop.

int Node::run() {
  ::signal(SIGPIPE, SIG_IGN);
  bool started = false;
  while (!driver_gone_ && !leave_asked_ && !node_gone_ && !has_drained()) {
    int timeout = -1;
    if (started && look_can_wait()) {
      timeout = 1;
    } else if (started) {
      const core::Time begin = now();
      look_round();
      look_for_deadlocks();
      show_progress();
      monitors_->tidy();
      const bool ledgers_left = recovery_->settle_orphans();
      const bool orphans = objects_->look_after(now()) || ledgers_left;
      quiet_looks_ = busy_ ? 0 : quiet_looks_ + 1;
      timeout = quiet_looks_ < kQuietLooks ? kTickMs : orphans ? kOrphanTickMs : -1;
      // Announced before the last look: who pushes or blocks after it sees the flag and rings.
      memory_.header().daemon_sleeps.store(1, std::memory_order_seq_cst);
      std::atomic_thread_fence(std::memory_order_seq_cst);
      const bool was_busy = busy_;
      look_round();
      if (busy_ && !was_busy) timeout = kTickMs;
      claim_share();
      timeout = until_next_look(timeout);
      if ((timeout < 0 || timeout > kDeadlockTickMs) && an_actor_waits()) timeout = kDeadlockTickMs;
      looked_at_ = now();
      look_took_ = looked_at_ - begin;
    }
    epoll_event events[64];
    const int n = ::epoll_wait(epoll_, events, 64, timeout);
    if (started) memory_.header().daemon_sleeps.store(0, std::memory_order_seq_cst);
    for (int i = 0; i < n; ++i) {
      const std::uint64_t tag = events[i].data.u64;
      if (tag == kTagBell) {
        std::uint64_t rings = 0;
        while (::read(bell_, &rings, sizeof rings) > 0) {
        }
        quiet_looks_ = 0;
      } else if (tag == kTagDriver) {
        if (started) {
          serve(driver_, kDriverProcess);
          continue;
        }
        wire::Message message;
        const bool heard = wire::receive(driver_, message) == wire::Received::Message;
        try {
          started = heard && start(message);
          if (!started) return 1;
        } catch (const std::exception& e) {
          wire::Message reply;
          reply.kind = wire::Kind::Reply;
          refuse(reply, wire::Status::Invalid, e.what());
          wire::send(driver_, reply);
          return 1;
        }
      } else if (tag == kTagDriverEnd) {
        driver_gone_ = true;
      } else if (tag == kTagSpiller) {
        // looked at in each round
      } else if (tag == kTagZygote) {
        hear_zygote();
      } else if (tag == kTagZygoteEnd) {
        zygote_ended();
      } else if (tag == kTagNode) {
        hear_node();
      } else if (tag == kTagTools) {
        admit_tool();
      } else if ((tag >> 32) == (kTagTool >> 32)) {
        serve_tool(static_cast<int>(tag & 0xffffffff));
      } else if ((tag >> 32) == (kTagWorker >> 32)) {
        const auto process = static_cast<std::uint32_t>(tag);
        if (const auto it = workers_.find(process); it != workers_.end() && it->second.socket >= 0)
          serve(it->second.socket, process);
      }
    }
    if (started) tables_->prepare_segment();
  }
  end_session(leave_asked_ || has_drained());
  return 0;
}

// A look at a thousand actors takes as long as serving some messages: while these come one after
// the other, a tenth of the time is enough for looks. `daemon_sleeps` is not set meanwhile, so what
// is rung for waits for five milliseconds at most.
bool Node::look_can_wait() const {
  constexpr core::Time kCheap = std::chrono::microseconds(100);
  constexpr int kShare = 10;
  return look_took_ > kCheap && now() - looked_at_ < std::min(kShare * look_took_, kLookPauseMax);
}

// The epoll timeout in ms: `timeout`, or sooner, if time alone may bring something to do.
int Node::until_next_look(int timeout) {
  const auto sooner = [&](core::Time pause) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(pause).count();
    timeout = timeout < 0 ? static_cast<int>(ms) : std::min(timeout, static_cast<int>(ms));
  };
  if (allotment_.has_surplus()) sooner(kSurveyPause);
  if (anybody_works()) sooner(watch_memory());
  if (const auto next = deadlines_.next()) sooner(std::clamp(*next - now(), {}, kLongestSleep));
  // Asked after `daemon_sleeps` was set: who begins one later rings.
  if (log_to_driver_ && progress_.has_news(counts_of_progress())) sooner(kProgressPause);
  if (drain_until_) sooner(std::chrono::milliseconds(kTickMs));
  return timeout;
}

// ---- Looking round: facts for the allotment, and its orders.

std::uint64_t Node::depth_of(std::uint32_t id) const {
  std::uint64_t depth = 0;
  for (std::uint64_t at = memory_.scheduling_class(id).rings.load(std::memory_order_acquire);
       at != 0;) {
    auto& ring = *reinterpret_cast<shm::RingHeader*>(memory_.heap(at));
    depth += ring.depth();
    at = ring.next.load(std::memory_order_acquire);
  }
  return depth;
}

void Node::look_round() {
  busy_ = false;
  order_forks();
  serve_actors();
  serve_groups();
  end_condemned();
  end_late();
  sample_workers();
  sample_classes();
  step(core::Tick{});
  const auto pool = allotment_.pool();
  if (pool.starting > 0) busy_ = true;
}

void Node::sample_workers() {
  // Who shares a node tells it what it does not need, and gives back what it should.
  const bool wanted =
      node_ >= 0 || memory_.header().wants_idle.load(std::memory_order_relaxed) != 0;
  const bool survey = allotment_.has_surplus() && now() >= survey_at_;
  if (survey) survey_at_ = now() + kSurveyPause;
  std::vector<std::uint32_t> joined;
  for (const auto& [process, worker] : workers_) {
    if (worker.joined) joined.push_back(process);
  }
  // Each as it is now: what was said of the one before may have made this one leave.
  for (const std::uint32_t process : joined) {
    if (const auto it = workers_.find(process); it != workers_.end())
      sample_worker(process, it->second, wanted, survey);
  }
}

// `wanted`: somebody waits for a worker. `survey`: some may be there for nothing.
void Node::sample_worker(std::uint32_t process, Worker& worker, bool wanted, bool survey) {
  shm::Process& shared = memory_.process(process);
  const core::WorkerId id{process};
  if (worker.ends_with_group) return;  // it is as good as gone
  // Also of a worker that is to leave: its last task may wait for one that needs its CPU.
  const bool blocked = shared.blocked_threads.load(std::memory_order_seq_cst) > 0;
  if (blocked != worker.blocked) {
    worker.blocked = blocked;
    blocked ? step(core::WorkerBlocked{id}) : step(core::WorkerUnblocked{id});
  }
  if (worker.leaving) {
    busy_ = true;
    if (shared.works_for.load(std::memory_order_seq_cst) != shm::kNone) return;
    leave_class(process);
    return step(core::WorkerIdle{id});
  }
  if (!worker.spent && shared.spent.load(std::memory_order_acquire)) {
    worker.spent = true;
    step(core::WorkerSpent{id});
  }
  if (worker.leaving || worker.attached == shm::kNone || worker.actor) return;
  const bool sleeps = shared.sleeping.load(std::memory_order_seq_cst);
  const std::uint64_t done = shared.tasks_done.load(std::memory_order_relaxed);
  // Woken by a submitter, it must not be taken for one that may leave at once.
  if ((worker.rests && !sleeps) || (survey && done != worker.tasks_done)) {
    worker.rests = false;
    step(core::WorkerWorked{id});
  }
  if (survey) worker.tasks_done = done;
  // That step may have made it leave: it finds nothing, but has not left yet.
  if (sleeps && (wanted || survey) && !worker.leaving) {
    worker.rests = true;
    step(core::WorkerIdle{id});
  }
}

void Node::sample_classes() {
  bool unserved = false;
  for (const auto& [demand, id] : task_classes_) {
    shm::SchedulingClass& cls = memory_.scheduling_class(id);
    const std::uint64_t depth = depth_of(id);
    std::uint64_t& last = depths_[id];
    if (depth != 0 || last != 0) {
      step(core::BacklogSeen{{id}, static_cast<std::int64_t>(depth)});
      busy_ = true;
    }
    // A sleeper beside a backlog: its waker judged wrongly, or died.
    if (depth != 0 && shm::doorbell::sleepers(cls) != 0 && cls.searcher.load() == 0)
      shm::doorbell::wake_one(memory_, cls);
    last = depth;
    const auto view = allotment_.view({id});
    const int able = view ? view->workers - view->blocked - view->leaving : 0;
    // Who is able may be busy for long: only who sleeps there will take it at once.
    if (depth != 0 && depth > shm::doorbell::sleepers(cls)) unserved = true;
    // With nobody to take the next task, or about to sleep for long, we want to hear of it.
    cls.attention.store(able == 0 || quiet_looks_ + 1 >= kQuietLooks ? 1 : 0,
                        std::memory_order_seq_cst);
  }
  for (const auto& [id, actor] : actors_) {
    if (!actor.dead && actor.worker == shm::kNone && !local_) unserved = true;
  }
  for (const auto& [id, group] : groups_) {
    if (!group.granted && !group.removed && !local_) unserved = true;
  }
  if (unserved) busy_ = true;
  memory_.header().wants_idle.store(unserved ? 1 : 0, std::memory_order_seq_cst);
}

// An order may cause the next fact (a worker that cannot be started): that is taken up when all
// orders before it are carried out.
void Node::step(const core::WorkerEvent& event) {
  facts_.push_back(event);
  if (stepping_) return;
  stepping_ = true;
  while (!facts_.empty()) {
    const core::WorkerEvent next = facts_.front();
    facts_.pop_front();
    carry_out(allotment_.step(next, now()));
  }
  stepping_ = false;
}

void Node::carry_out(const core::WorkerActions& actions) {
  for (const core::WorkerAction& action : actions) {
    if (const auto* start = std::get_if<core::StartWorker>(&action)) {
      start_worker(start->for_actor, start->environment);
    } else if (const auto* attached = std::get_if<core::AttachWorker>(&action)) {
      attach(attached->worker.value, attached->cls.value);
    } else if (const auto* detach = std::get_if<core::DetachWorker>(&action)) {
      Worker& worker = workers_.at(detach->worker.value);
      worker.leaving = true;
      memory_.process(detach->worker.value)
          .assigned_class.store(shm::kNone, std::memory_order_seq_cst);
      wake(detach->worker.value);
      busy_ = true;
    } else if (const auto* retire = std::get_if<core::RetireWorker>(&action)) {
      workers_.at(retire->worker.value).retired = true;
      memory_.process(retire->worker.value).must_leave.store(1, std::memory_order_seq_cst);
      wake(retire->worker.value);
    } else if (const auto* grant = std::get_if<core::GrantGroup>(&action)) {
      group_granted(grant->cls.value);
    } else if (const auto* reject = std::get_if<core::RejectClass>(&action)) {
      rejected_ = reject->reason;
    } else if (const auto* exhausted = std::get_if<core::PoolExhausted>(&action)) {
      ::fprintf(
          stderr,
          "mobula: all %d worker processes are blocked or belong to actors, and tasks wait: %s\n",
          kWorkersMax, allotment_.explain(exhausted->cls).c_str());
    }
  }
}

std::vector<core::ProgressCount> Node::counts_of_progress() const {
  std::vector<core::ProgressCount> counts;
  for (const Metrics::Progress& one : metrics_->progress())
    counts.push_back({one.name, one.done, one.total, one.open});
  return counts;
}

void Node::show_progress() {
  if (!log_to_driver_ || now() < progress_at_) return;
  progress_at_ = now() + kProgressPause;
  const auto counts = counts_of_progress();
  if (!progress_.has_news(counts)) return;
  const auto shown = progress_.step(counts, now(), LogRelay::columns(STDERR_FILENO));
  logs_->show(shown.bars, shown.lines);
}

// ---- The end.

void Node::end_session(bool orderly) {
  if (!tables_) return;
  memory_.header().session_over.store(1, std::memory_order_seq_cst);
  for (auto& [process, worker] : workers_) wake(process);
  for (wire::Message& order : waiting_forks_) {
    for (std::uint32_t i = 0; i < 3; ++i) ::close(order.descriptors[i]);
  }
  waiting_forks_.clear();
  // Workers that are idle leave by themselves; the others are killed after a grace time, or at once
  // if the driver died.
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed_ms = [&] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 begin)
        .count();
  };
  while (orderly && elapsed_ms() < kLeaveGraceMs) {
    bool any = false;
    for (auto& [process, worker] : workers_) {
      pollfd poll{worker.pidfd, POLLIN, 0};
      any = any || (worker.pidfd >= 0 && ::poll(&poll, 1, 0) == 0);
    }
    if (!any) break;
    ::usleep(300);
  }
  for (auto& [process, worker] : workers_) kill_worker(worker);
  if (zygote_socket_ >= 0) {
    ::kill(static_cast<pid_t>(zygote_pid_),
           SIGKILL);  // our own child, not reaped yet: the number is still its
    ::waitpid(static_cast<pid_t>(zygote_pid_), nullptr, 0);
  }
  // Whatever tasks had started came to us when its parent died.
  for (int round = 0; round < 100; ++round) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    std::ifstream list("/proc/self/task/" + std::to_string(::getpid()) + "/children");
    bool any = false;
    for (pid_t child; list >> child;) {
      any = true;
      ::kill(child, SIGKILL);
    }
    if (!any) break;
    ::usleep(500);
  }
  if (log_to_driver_) logs_->show({}, progress_.finish(counts_of_progress(), now()).lines);
  logs_->finish(orderly ? 500 : 50);
  directory_->remove();
  if (leave_asked_ && !driver_gone_) {
    wire::Message reply;
    reply.kind = wire::Kind::Reply;
    wire::send(driver_, reply);
  }
}

}  // namespace mobula::node
