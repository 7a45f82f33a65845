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
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

#include "shm/check.h"
#include "shm/claim.h"
#include "shm/futex.h"

extern char** environ;

namespace mobula::node {
namespace {

// What epoll reports: the process whose socket it is, or one of these.
constexpr std::uint64_t kTagDriver = 1ull << 32;
constexpr std::uint64_t kTagZygote = 2ull << 32;
constexpr std::uint64_t kTagBell = 3ull << 32;
constexpr std::uint64_t kTagDriverEnd = 5ull << 32;
constexpr std::uint64_t kTagWorker = 4ull << 32;  // | process

constexpr std::uint32_t kDriverProcess = 1;  // the daemon's own entry is 0
constexpr int kTickMs = 5;           // between looks while something waits
constexpr int kQuietLooks = 20;      // then the daemon sleeps until it is rung
constexpr int kOrphanTickMs = 200;   // while a dead process's ledgers stand
constexpr int kWorkersMax = 1200;
constexpr std::uint64_t kRingEntriesMax = std::uint64_t{1} << 31;
constexpr int kZygoteFailuresMax = 3;
constexpr rlim_t kWorkerStack = 64 << 20;  // recursion by get() runs deep in one worker
constexpr int kActorStartsMax = 3;    // failed ones, of an actor's process
constexpr int kLeaveGraceMs = 300;   // for workers to end by themselves
constexpr int kExitConstructorFailed = 76;
constexpr int kDeathWaitMs = 2000;       // from SIGKILL to the end of a process
constexpr std::size_t kForksAtOnce =
    64;  // orders without an answer: more could fill both sockets, and block both ends

int open_pidfd(std::uint32_t pid) {
  return static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
}
void signal_pidfd(int pidfd, int signal) {
  ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0);
}

std::map<std::string, double> parse_amounts(std::string_view text) {
  std::map<std::string, double> amounts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string line(text.substr(0, end));
    if (const std::size_t equals = line.find('='); equals != std::string::npos) {
      amounts[line.substr(0, equals)] = ::strtod(line.c_str() + equals + 1, nullptr);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return amounts;
}

std::string format_amounts(const core::ResourceAmounts& amounts) {
  std::string text;
  for (const auto& [name, units] : amounts.by_name()) {
    char line[64];
    ::snprintf(line, sizeof line, "=%.17g\n",
               static_cast<double>(units) / core::ResourceAmounts::kUnitsPerOne);
    text += name + line;
  }
  return text;
}

void refuse(wire::Message& message, wire::Status status, std::string_view why) {
  message.status = status;
  message.set_text(why);
}

template <std::size_t N>
void copy_text(char (&to)[N], std::string_view text) {
  const std::size_t n = std::min(text.size(), N - 1);
  ::memcpy(to, text.data(), n);
  to[n] = 0;
}

}  // namespace

Node::Node(int driver) : driver_(driver), begin_(std::chrono::steady_clock::now()) {
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
  if (message.kind != wire::Kind::Start || message.descriptor_count != 2) return false;
  program_ = message.descriptors[0];
  // Its end by pidfd, too: a child that it forked may keep the socket open after it is dead.
  const pid_t driver_pid = ::getppid();
  const int driver_end = open_pidfd(static_cast<std::uint32_t>(driver_pid));
  if (driver_end >= 0) watch(driver_end, kTagDriverEnd);
  if (::getppid() != driver_pid) return false;
  std::string arguments;
  char buffer[4096];
  for (ssize_t n; (n = ::read(message.descriptors[1], buffer, sizeof buffer)) > 0;)
    arguments.append(buffer, static_cast<std::size_t>(n));
  ::close(message.descriptors[1]);
  for (std::size_t at = 0; at < arguments.size();) {
    const std::size_t end = arguments.find('\0', at);
    arguments_.push_back(arguments.substr(at, end - at));
    at = end + 1;
  }
  log_to_driver_ = (message.d & 1) != 0;

  auto amounts = parse_amounts(message.text_view());
  amounts["object_store_memory"] = static_cast<double>(message.c);
  auto parsed = core::ResourceAmounts::parse(amounts);
  if (const auto* refusal = std::get_if<core::ResourceRefusal>(&parsed))
    throw std::runtime_error("Config: " + refusal->describe());
  capacity_ = std::get<core::ResourceAmounts>(parsed);

  directory_ = std::make_unique<SessionDirectory>();
  logs_ = std::make_unique<LogRelay>(directory_->logs(), log_to_driver_);
  if (!shm::Memory::create(message.c, &control_fd_, &object_fd_))
    throw std::runtime_error(std::string("cannot make shared memory: ") + ::strerror(errno));
  if (const char* problem = memory_.map(control_fd_, object_fd_, message.c, true))
    throw std::runtime_error(problem);
  std::uint64_t session = 0;
  while (session == 0) {
    if (::getrandom(&session, sizeof session, 0) != sizeof session)
      throw std::runtime_error("no random numbers from the system");
  }
  cpu_set_t cpus;
  const int cores = ::sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
  tables_ = std::make_unique<Tables>(memory_, session, static_cast<std::uint32_t>(cores));
  const auto self = tables_->open_process(shm::ProcessRole::Daemon);
  const auto participant = tables_->open_participant(*self);
  MOBULA_CHECK(self && participant);
  memory_.process(*self).pid = static_cast<std::uint32_t>(::getpid());
  recovery_ = std::make_unique<Recovery>(memory_, *tables_, *participant);
  const auto driver = tables_->open_process(shm::ProcessRole::Driver);
  MOBULA_CHECK(driver == kDriverProcess);
  start_zygote();

  const int cpus_here =
      static_cast<int>(capacity_.units("CPU") / core::ResourceAmounts::kUnitsPerOne);
  step(core::PoolLimits{std::min(std::max(cpus_here, 1), 64), kWorkersMax});
  step(core::NodeCapacity{capacity_});

  wire::Message welcome;
  welcome.kind = wire::Kind::Welcome;
  welcome.a = *driver;
  welcome.c = message.c;
  welcome.set_text(directory_->path());  // should we be killed, the driver removes it
  welcome.descriptor_count = 3;
  welcome.descriptors[0] = control_fd_;
  welcome.descriptors[1] = object_fd_;
  welcome.descriptors[2] = bell_;
  return wire::send(driver_, welcome);
}

// Starts the driver's own program once more; it stops at its Session and waits for orders to fork.
void Node::start_zygote() {
  int sockets[2];
  int out[2];
  int err[2];
  if (!wire::make_pair(sockets) || ::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) {
    throw std::runtime_error(std::string("cannot start workers: ") + ::strerror(errno));
  }
  std::vector<std::string> environment;
  for (char** e = environ; *e; ++e) environment.emplace_back(*e);
  environment.push_back("MOBULA_ZYGOTE_SOCKET=3");
  std::vector<char*> env;
  std::vector<char*> args;
  for (std::string& e : environment) env.push_back(e.data());
  for (std::string& a : arguments_) args.push_back(a.data());
  env.push_back(nullptr);
  args.push_back(nullptr);
  const pid_t daemon = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != daemon) ::_exit(1);
    ::setrlimit(RLIMIT_NOFILE, &user_descriptors_);
    rlimit stack{};
    ::getrlimit(RLIMIT_STACK, &stack);
    stack.rlim_cur = std::min(stack.rlim_max, std::max(stack.rlim_cur, kWorkerStack));
    ::setrlimit(RLIMIT_STACK, &stack);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    // The program last: descriptor 3 may be its own.
    const int program = ::fcntl(program_, F_DUPFD_CLOEXEC, 10);
    ::dup2(sockets[1], 3);
    ::fexecve(program, args.data(), env.data());
    ::fprintf(stderr, "mobula: cannot start the program as a worker: %s\n", ::strerror(errno));
    ::_exit(127);
  }
  ::close(sockets[1]);
  ::close(out[1]);
  ::close(err[1]);
  if (pid < 0) throw std::runtime_error(std::string("cannot start workers: ") + ::strerror(errno));
  zygote_pid_ = static_cast<std::uint32_t>(pid);
  zygote_socket_ = sockets[0];
  zygote_ready_ = false;
  logs_->add(out[0], err[0], "zygote-" + std::to_string(pid), "(worker start) ");
  watch(zygote_socket_, kTagZygote);
  wire::Message welcome;
  welcome.kind = wire::Kind::Welcome;
  welcome.c = memory_.object_capacity();
  welcome.descriptor_count = 3;
  welcome.descriptors[0] = control_fd_;
  welcome.descriptors[1] = object_fd_;
  welcome.descriptors[2] = bell_;
  wire::send(zygote_socket_, welcome);
}

void Node::start_worker(std::optional<core::ClassId> actor) {
  const auto process =
      tables_->open_process(actor ? shm::ProcessRole::Actor : shm::ProcessRole::Worker);
  int sockets[2] = {-1, -1};
  int out[2] = {-1, -1};
  int err[2] = {-1, -1};
  if (!process || zygote_failures_ >= kZygoteFailuresMax || !wire::make_pair(sockets) ||
      ::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) {
    for (const int fd : {sockets[0], sockets[1], out[0], out[1], err[0], err[1]}) {
      if (fd >= 0) ::close(fd);
    }
    if (process) tables_->close_process(*process);
    step(core::WorkerStartFailed{actor});
    if (actor && actors_.contains(actor->value))
      bury_actor(actor->value, shm::Death::NotStarted, {});
    return;
  }
  Worker& worker = workers_[*process];
  worker = Worker{};
  worker.socket = sockets[0];
  if (actor) {
    worker.actor = actor->value;
    actors_[actor->value].worker = *process;
  }
  watch(worker.socket, kTagWorker | *process);
  // The log's name gets the pid once it is known; the streams begin at once.
  worker.log_name = (actor ? "actor-" : "worker-") + std::to_string(*process);
  logs_->add(out[0], err[0], worker.log_name, "(worker) ");
  wire::Message order;
  order.kind = wire::Kind::Fork;
  order.a = *process;
  order.b = static_cast<std::uint32_t>(actor ? shm::ProcessRole::Actor : shm::ProcessRole::Worker);
  order.descriptor_count = 3;
  order.descriptors[0] = sockets[1];
  order.descriptors[1] = out[1];
  order.descriptors[2] = err[1];
  waiting_forks_.push_back(order);
  order_forks();
}

void Node::order_forks() {
  while (zygote_ready_ && !waiting_forks_.empty() && forks_ordered_ < kForksAtOnce) {
    wire::Message order = waiting_forks_.front();
    waiting_forks_.pop_front();
    const bool sent = wire::send(zygote_socket_, order);
    for (std::uint32_t i = 0; i < 3; ++i) ::close(order.descriptors[i]);
    if (sent) {
      ++forks_ordered_;
    } else {
      worker_exited(order.a, 127 << 8);
    }
  }
}

// ---- What processes and the zygote say.

int Node::run() {
  ::signal(SIGPIPE, SIG_IGN);
  bool started = false;
  while (!driver_gone_ && !leave_asked_) {
    int timeout = -1;
    if (started) {
      look_round();
      const bool ledgers_left = recovery_->settle_orphans();
      const bool orphans = tables_->sweep_orphans() || ledgers_left;
      quiet_looks_ = busy_ ? 0 : quiet_looks_ + 1;
      timeout = quiet_looks_ < kQuietLooks ? kTickMs : orphans ? kOrphanTickMs : -1;
      // Announced before the last look: who pushes or blocks after it sees the flag and rings.
      memory_.header().daemon_sleeps.store(1, std::memory_order_seq_cst);
      const bool was_busy = busy_;
      look_round();
      if (busy_ && !was_busy) timeout = kTickMs;
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
      } else if (tag == kTagZygote) {
        hear_zygote();
      } else if ((tag >> 32) == (kTagWorker >> 32)) {
        const auto process = static_cast<std::uint32_t>(tag);
        if (const auto it = workers_.find(process); it != workers_.end() && it->second.socket >= 0)
          serve(it->second.socket, process);
      }
    }
    if (started) tables_->prepare_segment();
  }
  end_session(leave_asked_);
  return 0;
}

void Node::serve(int socket, std::uint32_t process) {
  wire::Message message;
  switch (wire::receive(socket, message)) {
    case wire::Received::Nothing: return;
    case wire::Received::Closed:
      if (socket == driver_) {
        driver_gone_ = true;
      } else {
        // Its end is on the way from the zygote, with the reason.
        Worker& worker = workers_.at(process);
        unwatch(worker.socket);
        ::close(worker.socket);
        worker.socket = -1;
      }
      return;
    case wire::Received::Message: break;
  }
  for (std::uint32_t i = 0; i < message.descriptor_count; ++i)
    ::close(message.descriptors[i]);  // nobody sends us any but at the start
  if (message.kind == wire::Kind::Leave && socket == driver_) {
    leave_asked_ = true;
    return;
  }
  if (message.kind == wire::Kind::Joined) {
    if (socket == driver_) return;
    Worker& worker = workers_.at(process);
    worker.joined = true;
    step(core::WorkerReady{
        {process}, worker.actor ? std::optional(core::ClassId{*worker.actor}) : std::nullopt});
    return;
  }
  answer(process, message);
  message.kind = wire::Kind::Reply;
  message.descriptor_count = 0;
  wire::send(socket, message);
}

void Node::answer(std::uint32_t process, wire::Message& message) {
  message.status = wire::Status::Ok;
  const std::string asked(message.text_view());
  message.text_size = 0;
  const auto give = [&](auto& field, const auto& value, const char* what) {
    if (value) {
      field = *value;
    } else {
      refuse(message, wire::Status::Limit, what);
    }
  };
  const auto owns = [&](std::uint32_t participant) {
    const auto& mine = tables_->participants_of(process);
    return std::find(mine.begin(), mine.end(), participant) != mine.end();
  };
  switch (message.kind) {
    case wire::Kind::LeaseLedger: {
      const auto participant = tables_->open_participant(process);
      give(message.a, participant,
           "this node has as many submitting threads as it can list (4095)");
      if (participant)
        give(message.b, tables_->lease_segment(*participant),
             "no memory is left for records of tasks");
      return;
    }
    case wire::Kind::LeaseSegment:
      if (!owns(message.a))
        return refuse(message, wire::Status::Invalid, "the ledger is another process's");
      return give(message.a, tables_->lease_segment(message.a),
                  "no memory is left for records of tasks");
    case wire::Kind::LeaseHolds:
      return give(message.a, tables_->lease_holds(process, message.a),
                  "no memory is left for the table of held objects");
    case wire::Kind::OpenClass: message.set_text(asked); return open_class(process, message);
    case wire::Kind::OpenRing:
      if (!owns(message.a) || message.b >= tables_->class_limit())
        return refuse(message, wire::Status::Invalid, "no such ring");
      return give(message.c, tables_->open_ring(message.a, message.b),
                  "no memory is left for queues of tasks");
    case wire::Kind::GrowRing:
      if (message.d == 0 || message.d > kRingEntriesMax || (message.d & (message.d - 1)) != 0) {
        return refuse(message, wire::Status::Invalid, "no such ring");
      }
      return give(message.c, tables_->ring_storage(message.d),
                  "no memory is left for queues of tasks");
    case wire::Kind::LeaseExtent: return lease_extent(process, message);
    case wire::Kind::Resources: return report_resources(message);
    case wire::Kind::Explain: return message.set_text(allotment_.explain({message.a}));
    default: return refuse(message, wire::Status::Invalid, "unknown request");
  }
}

void Node::open_class(std::uint32_t process, wire::Message& message) {
  const std::string text(message.text_view());
  const bool is_actor = message.a == static_cast<std::uint32_t>(shm::ClassKind::Actor);
  const std::size_t split = is_actor ? text.rfind("\n") : std::string::npos;
  const std::string demand_text = is_actor ? text.substr(0, split) : text;
  const auto restarts = static_cast<int>(message.b);
  const std::uint64_t creation = message.c;
  if (is_actor &&
      (split == std::string::npos ||
       shm::Address::unpack(creation).slot / shm::kRecordsPerSegment >= shm::kSegmentsMax)) {
    return refuse(message, wire::Status::Invalid, "the creation of the actor is no record");
  }
  const auto retries = static_cast<int>(static_cast<std::int64_t>(message.d));
  message.text_size = 0;
  if (!is_actor) {
    if (const auto known = task_classes_.find(demand_text); known != task_classes_.end()) {
      message.a = known->second;
      return;
    }
  }
  auto parsed = core::ResourceAmounts::parse(parse_amounts(demand_text));
  if (const auto* refusal = std::get_if<core::ResourceRefusal>(&parsed))
    return refuse(message, wire::Status::Invalid, refusal->describe());
  const auto& demand = std::get<core::ResourceAmounts>(parsed);
  const auto id = tables_->open_class();
  if (!id)
    return refuse(message, wire::Status::Limit,
                  "this node has as many scheduling classes and actors as it can list (16384)");

  shm::SchedulingClass& cls = memory_.scheduling_class(*id);
  cls.kind.store(
      static_cast<std::uint32_t>(is_actor ? shm::ClassKind::Actor : shm::ClassKind::Task));
  cls.attached.store(0);
  cls.attention.store(1);
  for (auto& w : cls.sleepers) w.store(0);
  cls.searcher.store(0);
  cls.quick.store(0);
  cls.creation.store(creation);
  cls.kill_request.store(0);
  cls.restarts.store(0);
  cls.death = {};
  copy_text(cls.name, is_actor ? text.substr(split + 1) : demand.describe());
  copy_text(cls.demand_text, demand_text);
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Open), std::memory_order_release);
  recovery_->open_class_ring(*id);
  if (is_actor) actors_[*id] = Actor{restarts, retries, demand};
  rejected_.clear();
  step(core::ClassOpened{{*id}, is_actor ? core::ClassKind::Actor : core::ClassKind::Task, demand});
  if (!rejected_.empty()) {
    step(core::ClassClosed{{*id}});
    actors_.erase(*id);
    cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Free));
    tables_->close_class(*id);
    return refuse(message, wire::Status::Unschedulable,
                  "a demand of " + demand.describe() + " can never be met: " + rejected_ +
                      ". Ask for less, or give the node more (Config.num_cpus, num_gpus, resources)");
  }
  if (!is_actor) task_classes_[demand_text] = *id;
  message.a = *id;
  static_cast<void>(process);
}

void Node::lease_extent(std::uint32_t process, wire::Message& message) {
  Tables::ExtentRefusal refusal;
  if (const auto extent = tables_->lease_extent(process, message.c, message.d, refusal)) {
    message.a = *extent;
    return;
  }
  refuse(message, refusal.never ? wire::Status::TooLarge : wire::Status::StoreFull, refusal.text);
}

void Node::report_resources(wire::Message& message) {
  core::ResourceAmounts amounts = message.a == 0 ? capacity_ : allotment_.free();
  if (message.a == 1) {
    // A worker that stays attached without a task holds its class's demand only until somebody else
    // wants it.
    for (const auto& [process, worker] : workers_) {
      if (worker.actor || worker.attached == shm::kNone || worker.leaving) continue;
      const auto view = allotment_.view({worker.attached});
      if (view && memory_.process(process).sleeping.load()) amounts.add(view->demand);
    }
    amounts.set_units("object_store_memory",
                      static_cast<std::int64_t>(tables_->object_bytes_free()) *
                          core::ResourceAmounts::kUnitsPerOne);
  }
  message.set_text(format_amounts(amounts));
}

void Node::hear_zygote() {
  wire::Message message;
  if (wire::receive(zygote_socket_, message) != wire::Received::Message) return lost_zygote();
  if (message.kind == wire::Kind::ZygoteReady) {
    zygote_ready_ = true;
    zygote_failures_ = 0;
    order_forks();
  } else if (message.kind == wire::Kind::Forked) {
    --forks_ordered_;
    order_forks();
    const auto it = workers_.find(message.a);
    if (it == workers_.end()) return;
    Worker& worker = it->second;
    worker.pid = message.b;
    if (worker.pid == 0) return worker_exited(message.a, 127 << 8);
    worker.pidfd = open_pidfd(worker.pid);
    memory_.process(message.a).pid = worker.pid;
    const std::string who =
        worker.actor ? std::string(memory_.scheduling_class(*worker.actor).name) : "worker";
    logs_->rename(worker.log_name, "(" + who + " pid=" + std::to_string(worker.pid) + ") ");
  } else if (message.kind == wire::Kind::Exited) {
    for (auto& [process, worker] : workers_) {
      if (worker.pid == message.b) return worker_exited(process, static_cast<int>(message.c));
    }
  }
}

// Without it its workers die, too (PDEATHSIG), and nobody tells us how.
void Node::lost_zygote() {
  unwatch(zygote_socket_);
  ::close(zygote_socket_);
  zygote_socket_ = -1;
  zygote_ready_ = false;
  forks_ordered_ = 0;
  int status = 0;
  ::waitpid(static_cast<pid_t>(zygote_pid_), &status, 0);
  for (wire::Message& order : waiting_forks_) {
    for (std::uint32_t i = 0; i < 3; ++i) ::close(order.descriptors[i]);
  }
  waiting_forks_.clear();
  ++zygote_failures_;
  if (zygote_failures_ >= kZygoteFailuresMax) {
    ::fprintf(stderr,
              "mobula: the program ended %d times in a row before it reached its mobula::Session, "
              "so no worker can be started "
              "(last time: %s %d). Construct the Session first in main().\n",
              zygote_failures_, WIFSIGNALED(status) ? "signal" : "exit code",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  }
  if (zygote_failures_ < kZygoteFailuresMax) start_zygote();
  std::vector<std::uint32_t> lost;
  for (auto& [process, worker] : workers_) lost.push_back(process);
  for (const std::uint32_t process : lost) {
    // Repairs are for the dead: a worker that still runs would change what we mend.
    Worker& worker = workers_.at(process);
    kill_worker(worker);
    pollfd end{worker.pidfd >= 0 ? worker.pidfd : worker.socket,
               static_cast<short>(worker.pidfd >= 0 ? POLLIN : 0), 0};
    if (end.fd >= 0) ::poll(&end, 1, kDeathWaitMs);
    worker_exited(process, SIGKILL);
  }
}

void Node::worker_exited(std::uint32_t process, int status) {
  Worker worker = workers_.at(process);
  workers_.erase(process);
  if (worker.socket >= 0) {
    unwatch(worker.socket);
    ::close(worker.socket);
  }
  if (worker.pidfd >= 0) ::close(worker.pidfd);
  const ProcessEnd end{worker.pid, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                       WIFEXITED(status) ? WEXITSTATUS(status) : 0};

  // The class forgets it before anybody is woken for its tasks.
  const std::uint32_t cls_id = worker.attached;
  if (cls_id != shm::kNone) {
    shm::SchedulingClass& cls = memory_.scheduling_class(cls_id);
    const std::uint32_t slot = memory_.process(process).class_slot.load();
    cls.sleepers[slot / 64].fetch_and(~(std::uint64_t{1} << (slot % 64)));
    cls.slot_process[slot].store(shm::kNone);
    cls.attached.fetch_sub(1);
    std::uint32_t searcher = process + 1;
    cls.searcher.compare_exchange_strong(searcher, 0);
    cls.quick.store(0);
  }
  memory_.process(process).assigned_class.store(shm::kNone);

  std::optional<Recovery::ActorFate> fate;
  bool wanted = worker.retired;
  if (worker.actor && actors_.contains(*worker.actor)) {
    Actor& actor = actors_.at(*worker.actor);
    shm::SchedulingClass& cls = memory_.scheduling_class(*worker.actor);
    // Without a handle there is no creation to run again.
    wanted = cls.kill_request.load() != 0 || end.exit_code == kExitConstructorFailed;
    fate = Recovery::ActorFate{
        !wanted && (actor.max_restarts < 0 || actor.restarts < actor.max_restarts),
        actor.max_task_retries};
  }
  recovery_->repair(process, end, fate ? &*fate : nullptr);
  close_actors_without_creation(process);
  if (worker.joined) {
    step(core::WorkerGone{{process}});
  } else {
    step(core::WorkerStartFailed{worker.actor ? std::optional(core::ClassId{*worker.actor})
                                              : std::nullopt});
  }
  if (worker.actor)
    worker.joined ? actor_ended(*worker.actor, end, wanted)
                  : actor_start_failed(*worker.actor, end);
  if (cls_id != shm::kNone && !worker.actor && depth_of(cls_id) > 0)
    shm::doorbell::wake_one(memory_, memory_.scheduling_class(cls_id));
}

// ---- Actors.

void Node::actor_ended(std::uint32_t id, const ProcessEnd& end, bool wanted) {
  const auto it = actors_.find(id);
  if (it == actors_.end() || it->second.dead) return;
  Actor& actor = it->second;
  actor.worker = shm::kNone;
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  if (!wanted && (actor.max_restarts < 0 || actor.restarts < actor.max_restarts)) {
    ++actor.restarts;
    cls.restarts.store(static_cast<std::uint32_t>(actor.restarts));
    step(core::ClassOpened{{id}, core::ClassKind::Actor, actor.demand});
    return;
  }
  const shm::Death cause = (cls.kill_request.load() & shm::kKill)    ? shm::Death::Killed
                           : end.exit_code == kExitConstructorFailed ? shm::Death::ConstructorFailed
                           : actor.ending && end.signal == 0 && end.exit_code == 0
                               ? shm::Death::OutOfScope
                               : shm::Death::Crashed;
  bury_actor(id, cause, end);
}

// Its process died before it joined: no fault of the actor, so none of its restarts is spent. Not
// without end, though.
void Node::actor_start_failed(std::uint32_t id, const ProcessEnd& end) {
  const auto it = actors_.find(id);
  if (it == actors_.end() || it->second.dead) return;
  Actor& actor = it->second;
  actor.worker = shm::kNone;
  if (memory_.scheduling_class(id).kill_request.load() & shm::kKill)
    return bury_actor(id, shm::Death::Killed, end);
  if (++actor.failed_starts > kActorStartsMax) return bury_actor(id, shm::Death::NotStarted, end);
  step(core::ClassOpened{{id}, core::ClassKind::Actor, actor.demand});
}

void Node::bury_actor(std::uint32_t id, shm::Death cause, const ProcessEnd& end) {
  Actor& actor = actors_.at(id);
  actor.dead = true;
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  cls.death = {static_cast<std::uint32_t>(cause), end.signal, end.exit_code, end.pid};
  cls.state.store(static_cast<std::uint32_t>(shm::ClassState::Dead), std::memory_order_seq_cst);
  std::atomic_thread_fence(
      std::memory_order_seq_cst);  // before we empty the rings (see submit_call)
  recovery_->fail_calls(id);
  step(core::ClassClosed{{id}});
}

// Its creator died between opening the class and submitting the creation.
void Node::close_actors_without_creation(std::uint32_t process) {
  const auto& dead = tables_->participants_of(process);
  for (auto& [id, actor] : actors_) {
    if (actor.dead) continue;
    const auto creation = shm::Address::unpack(memory_.scheduling_class(id).creation.load());
    const std::uint32_t owner =
        memory_.segment_owner(creation.slot / shm::kRecordsPerSegment).load();
    if (std::find(dead.begin(), dead.end(), owner) == dead.end()) continue;
    const std::uint64_t state = memory_.record(creation.slot).state.load();
    const bool never_submitted = shm::word::state(state) == shm::State::Free &&
                                 shm::word::generation(state) + 1 == creation.generation;
    if (never_submitted)
      memory_.scheduling_class(id).kill_request.fetch_or(shm::kKill | shm::kLastHandleGone);
  }
}

void Node::serve_actors() {
  std::vector<std::uint32_t> over;
  for (auto& [id, actor] : actors_) {
    shm::SchedulingClass& cls = memory_.scheduling_class(id);
    const std::uint64_t request = cls.kill_request.load(std::memory_order_acquire);
    if (actor.dead) {
      if ((request & shm::kLastHandleGone) && actor.worker == shm::kNone) over.push_back(id);
      continue;
    }
    if (request == 0) continue;
    if (actor.worker == shm::kNone) {  // not started, or between two lives
      if (request & shm::kKill)
        bury_actor(id, shm::Death::Killed, {});
      else if (depth_of(id) == 0)
        bury_actor(id, shm::Death::OutOfScope, {});
      continue;
    }
    Worker& worker = workers_.at(actor.worker);
    if (request & shm::kKill) {
      // Its process may not be known yet; then at a later look.
      busy_ = true;
      kill_worker(worker);
    } else if (!actor.ending) {
      actor.ending = true;
      memory_.process(actor.worker).must_leave.store(1, std::memory_order_seq_cst);
      wake(actor.worker);
    }
  }
  for (const std::uint32_t id : over) {
    // No handle is left that could name the class: its entry serves the next actor.
    actors_.erase(id);
    memory_.scheduling_class(id).state.store(static_cast<std::uint32_t>(shm::ClassState::Free));
    tables_->close_class(id);
  }
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
  serve_actors();
  sample_workers();
  sample_classes();
  step(core::Tick{});
  const auto pool = allotment_.pool();
  if (pool.starting > 0) busy_ = true;
}

void Node::sample_workers() {
  const bool wanted = memory_.header().wants_idle.load(std::memory_order_relaxed) != 0;
  std::vector<core::WorkerEvent> events;
  for (auto& [process, worker] : workers_) {
    if (!worker.joined) continue;
    shm::Process& shared = memory_.process(process);
    if (worker.leaving) {
      busy_ = true;
      if (shared.works_for.load(std::memory_order_seq_cst) != shm::kNone) continue;
      leave_class(process);
      events.push_back(core::WorkerIdle{{process}});
      continue;
    }
    const bool blocked = shared.blocked_threads.load(std::memory_order_seq_cst) > 0;
    if (blocked != worker.blocked) {
      worker.blocked = blocked;
      if (blocked) {
        events.push_back(core::WorkerBlocked{{process}});
      } else {
        events.push_back(core::WorkerUnblocked{{process}});
      }
    }
    if (wanted && worker.attached != shm::kNone && !worker.actor &&
        shared.sleeping.load(std::memory_order_seq_cst)) {
      events.push_back(core::WorkerIdle{{process}});
    }
  }
  for (const core::WorkerEvent& event : events) step(event);
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
    if (depth != 0 && able == 0) unserved = true;
    if (depth != 0 && view && static_cast<std::int64_t>(depth) > able) unserved = true;
    // With nobody to take the next task, or about to sleep for long, we want to hear of it.
    cls.attention.store(able == 0 || quiet_looks_ + 1 >= kQuietLooks ? 1 : 0,
                        std::memory_order_seq_cst);
  }
  for (const auto& [id, actor] : actors_) {
    if (!actor.dead && actor.worker == shm::kNone) unserved = true;
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
      start_worker(start->for_actor);
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

void Node::attach(std::uint32_t process, std::uint32_t id) {
  Worker& worker = workers_.at(process);
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  // The lowest number that nobody has; when all are taken, workers share one, which costs late
  // wake-ups only.
  std::uint32_t slot = process % (shm::kSleeperWords * 64);
  std::vector<bool> taken(shm::kSleeperWords * 64, false);
  for (const auto& [other, w] : workers_) {
    if (other != process && w.attached == id)
      taken[memory_.process(other).class_slot.load()] = true;
  }
  for (std::uint32_t s = 0; s < taken.size(); ++s) {
    if (!taken[s]) {
      slot = s;
      break;
    }
  }
  worker.attached = id;
  worker.leaving = false;
  cls.slot_process[slot].store(process);
  cls.attached.fetch_add(1);
  shm::Process& shared = memory_.process(process);
  shared.class_slot.store(slot);
  // Before it sees the class, so that a detachment right after is not taken for an answered one.
  shared.works_for.store(id);
  shared.assigned_class.store(id, std::memory_order_release);
  wake(process);
}

void Node::leave_class(std::uint32_t process) {
  Worker& worker = workers_.at(process);
  shm::SchedulingClass& cls = memory_.scheduling_class(worker.attached);
  const std::uint32_t slot = memory_.process(process).class_slot.load();
  cls.sleepers[slot / 64].fetch_and(~(std::uint64_t{1} << (slot % 64)));
  cls.slot_process[slot].store(shm::kNone);
  cls.attached.fetch_sub(1);
  worker.attached = shm::kNone;
  worker.leaving = false;
}

void Node::wake(std::uint32_t process) {
  shm::Bell& bell = memory_.process(process).bell;
  bell.value.fetch_add(1);
  shm::futex_wake_all(shm::futex_word(bell.value));
}

void Node::kill_worker(Worker& worker) {
  if (worker.pidfd >= 0) signal_pidfd(worker.pidfd, SIGKILL);
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
  logs_->finish(orderly ? 500 : 50);
  directory_->remove();
  if (orderly && !driver_gone_) {
    wire::Message reply;
    reply.kind = wire::Kind::Reply;
    wire::send(driver_, reply);
  }
}

}  // namespace mobula::node
