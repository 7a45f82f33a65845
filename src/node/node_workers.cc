// Worker processes: started by the zygote, attached to classes, mourned.
#include "node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "node/node_parts.h"
#include "shm/claim.h"
#include "shm/futex.h"

extern char** environ;

namespace mobula::node {
namespace {

constexpr int kZygoteFailuresMax = 3;
constexpr rlim_t kWorkerStack = 64 << 20;  // recursion by get() runs deep in one worker
constexpr int kDeathWaitMs = 2000;         // from SIGKILL to the end of a process
constexpr std::size_t kForksAtOnce =
    64;  // orders without an answer: more could fill both sockets, and block both ends

void signal_pidfd(int pidfd, int signal) {
  ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0);
}

bool is_readable(int fd) {
  pollfd poll{fd, POLLIN, 0};
  return fd >= 0 && ::poll(&poll, 1, 0) > 0;
}

}  // namespace

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
  // Its end by pidfd, too: a child that was stopped as soon as it was forked keeps the socket open.
  zygote_end_ = open_pidfd(zygote_pid_);
  if (zygote_end_ >= 0) watch(zygote_end_, kTagZygoteEnd);
  wire::Message welcome;
  welcome.kind = wire::Kind::Welcome;
  welcome.c = memory_.object_capacity();
  welcome.descriptor_count = 3;
  welcome.descriptors[0] = control_fd_;
  welcome.descriptors[1] = object_fd_;
  welcome.descriptors[2] = bell_;
  wire::send(zygote_socket_, welcome);
}

void Node::start_worker(std::optional<core::ClassId> actor, core::EnvironmentId environment) {
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
    if (!start_failure_told_) {
      start_failure_told_ = true;
      ::fprintf(stderr, "mobula: no further worker can be started: %s\n",
                !process ? "all 4096 entries for processes are taken (those of dead workers stay "
                           "while refs to their values are held)"
                : zygote_failures_ >= kZygoteFailuresMax ? "the process that forks them keeps dying"
                                                         : ::strerror(errno));
    }
    if (process) tables_->close_process(*process);
    step(core::WorkerStartFailed{actor, environment});
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
  } else {
    worker.environment = environment.value;
  }
  watch(worker.socket, kTagWorker | *process);
  // The log's name gets the pid once it is known; the streams begin at once.
  worker.log_name = (actor ? "actor-" : "worker-") + std::to_string(*process);
  logs_->add(out[0], err[0], worker.log_name, "(worker) ");
  wire::Message order;
  order.kind = wire::Kind::Fork;
  order.a = *process;
  order.b = static_cast<std::uint32_t>(actor ? shm::ProcessRole::Actor : shm::ProcessRole::Worker);
  order.set_text(environments_[actor ? actors_[actor->value].environment : environment.value]);
  order.descriptor_count = 3;
  order.descriptors[0] = sockets[1];
  order.descriptors[1] = out[1];
  order.descriptors[2] = err[1];
  waiting_forks_.push_back(order);
  order_forks();
}

void Node::order_forks() {
  while (zygote_ready_ && !waiting_forks_.empty() && forks_ordered_ < kForksAtOnce) {
    const wire::Message& order = waiting_forks_.front();
    // It has died, and lost_zygote will tell of it. To take that for a failed start would use up
    // all starts of an actor before we hear of the death.
    if (!wire::send(zygote_socket_, order)) return;
    for (std::uint32_t i = 0; i < 3; ++i) ::close(order.descriptors[i]);
    waiting_forks_.pop_front();
    ++forks_ordered_;
  }
}

void Node::hear_zygote() {
  if (!is_readable(zygote_socket_)) return;  // it was of the one before
  wire::Message message;
  if (wire::receive(zygote_socket_, message) != wire::Received::Message) return lost_zygote();
  if (message.kind == wire::Kind::ZygoteReady) {
    zygote_ready_ = true;
    if (message.descriptor_count == 1) {
      if (functions_ >= 0) ::close(functions_);
      functions_ = message.descriptors[0];
    }
    zygote_memory_ = shm::private_memory(zygote_pid_);
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

// What it had told comes first.
void Node::zygote_ended() {
  const std::uint32_t pid = zygote_pid_;
  while (is_readable(zygote_end_) && is_readable(zygote_socket_) && zygote_pid_ == pid)
    hear_zygote();
  if (is_readable(zygote_end_)) lost_zygote();
}

// Without it its workers die, too (PDEATHSIG), and nobody tells us how.
void Node::lost_zygote() {
  unwatch(zygote_socket_);
  ::close(zygote_socket_);
  zygote_socket_ = -1;
  if (zygote_end_ >= 0) {
    unwatch(zygote_end_);
    ::close(std::exchange(zygote_end_, -1));
  }
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
  ProcessEnd end{worker.pid, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                 WIFEXITED(status) ? WEXITSTATUS(status) : 0};
  if (end.signal == SIGKILL) end.cause = cause_of_kill(worker);
  guard_.gone({process});
  metrics_->process_died(process);
  read_metrics_.erase(process);
  counted_.tasks += memory_.process(process).tasks_done.load();
  counted_.failed += memory_.process(process).tasks_failed.load();
  counted_.crashes += end.signal != 0 || end.exit_code != 0;
  if (worker.killed_for) memory_look_at_ = {};  // is there room now?

  // The class forgets it before anybody is woken for its tasks.
  const std::uint32_t cls_id = worker.attached;
  if (cls_id != shm::kNone) {
    shm::SchedulingClass& cls = memory_.scheduling_class(cls_id);
    give_slot_back(process, cls_id);
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
    const bool orderly = end.signal == 0 && end.exit_code == 0;
    if (orderly && (cls.kill_request.load() & shm::kLeave)) end.cause = {shm::Death::Left};
    if (cls.kill_request.load() & shm::kGroupRemoved) end.cause = {shm::Death::GroupRemoved};
    // Without a handle there is no creation to run again.
    wanted = shm::is_meant_to_end(cls.kill_request.load()) ||
             end.exit_code == wire::kExitConstructorFailed || end.exit_code == wire::kExitStateLost;
    fate = Recovery::ActorFate{
        !wanted && (actor.max_restarts < 0 || actor.restarts < actor.max_restarts),
        actor.max_task_retries, *worker.actor};
  }
  recovery_->repair(process, end, fate ? &*fate : nullptr);
  close_callback_class(process);
  close_actors_without_creation(process);
  if (worker.joined) {
    step(core::WorkerGone{{process}, end.cause.death == shm::Death::OutOfMemory});
  } else {
    step(core::WorkerStartFailed{
        worker.actor ? std::optional(core::ClassId{*worker.actor}) : std::nullopt,
        {worker.environment}});
  }
  if (worker.actor)
    worker.joined ? actor_ended(*worker.actor, end, wanted)
                  : actor_start_failed(*worker.actor, end);
  if (cls_id != shm::kNone && !worker.actor && depth_of(cls_id) > 0)
    shm::doorbell::wake_one(memory_, memory_.scheduling_class(cls_id));
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
  if (worker.actor) actors_.at(id).attached_at = now();
  cls.slot_process[slot].store(process);
  cls.attached.fetch_add(1);
  shm::Process& shared = memory_.process(process);
  shared.class_slot.store(slot);
  // Before it sees the class, so that a detachment right after is not taken for an answered one.
  shared.works_for.store(id);
  shared.assigned_class.store(id, std::memory_order_release);
  wake(process);
}

// The process's number among the workers of the class goes to another one that shares it, if any:
// that one may sleep, and would not be found.
void Node::give_slot_back(std::uint32_t process, std::uint32_t id) {
  shm::SchedulingClass& cls = memory_.scheduling_class(id);
  const std::uint32_t slot = memory_.process(process).class_slot.load();
  cls.sleepers[slot / 64].fetch_and(~(std::uint64_t{1} << (slot % 64)));
  cls.slot_process[slot].store(shm::kNone);
  for (const auto& [other, worker] : workers_) {
    if (other == process || worker.attached != id ||
        memory_.process(other).class_slot.load() != slot)
      continue;
    cls.slot_process[slot].store(other);
    wake(other);  // all that share it announce themselves anew
  }
}

void Node::leave_class(std::uint32_t process) {
  Worker& worker = workers_.at(process);
  shm::SchedulingClass& cls = memory_.scheduling_class(worker.attached);
  give_slot_back(process, worker.attached);
  cls.attached.fetch_sub(1);
  worker.attached = shm::kNone;
  worker.leaving = false;
  worker.rests = false;
  worker.blocked = false;  // it has no task; that it blocks in the next one must be seen as new
}

void Node::wake(std::uint32_t process) {
  shm::Bell& bell = memory_.process(process).bell;
  bell.value.fetch_add(1);
  shm::futex_wake_all(shm::futex_word(bell.value));
}

// Ends the processes of tasks that were cancelled by force. Such a task stays claimed until its
// process is dead, so the signal hits no other one. A process that is not known yet: at a later
// look.
void Node::end_condemned() {
  for (const shm::Address task : recovery_->take_condemned()) condemned_.push_back(task);
  std::erase_if(condemned_, [&](shm::Address task) {
    const std::uint64_t state = memory_.record(task.slot).state.load(std::memory_order_acquire);
    if (shm::word::generation(state) != task.generation ||
        shm::word::state(state) != shm::State::Claimed || !(state & shm::word::kForce))
      return true;
    const auto worker =
        workers_.find(memory_.participant(shm::word::claimer(state)).process.load());
    if (worker == workers_.end() || worker->second.actor) return true;
    kill_worker(worker->second);
    busy_ = true;
    return false;
  });
}

void Node::note_deadline(const wire::Message& message) {
  const auto task = shm::Address::unpack(message.c);
  if (task.slot / shm::kRecordsPerSegment >= shm::kSegmentsMax) return;
  const core::Time at = std::chrono::nanoseconds(std::min<std::uint64_t>(message.d, INT64_MAX)) -
                        begin_.time_since_epoch();
  deadlines_.add({at, message.c}, [this](std::uint64_t packed) {
    const auto noted = shm::Address::unpack(packed);
    const std::uint64_t state = memory_.record(noted.slot).state.load(std::memory_order_relaxed);
    return shm::word::generation(state) != noted.generation || shm::word::is_final(state) ||
           shm::word::state(state) == shm::State::Free;
  });
}

// One that runs notices by itself; what nobody has begun, or nobody looks at, ends here.
void Node::end_late() {
  while (const auto task = deadlines_.take_due(now()))
    recovery_->expire(shm::Address::unpack(*task));
}

void Node::kill_worker(Worker& worker) {
  worker.killed_by_us = true;
  if (worker.pidfd >= 0) signal_pidfd(worker.pidfd, SIGKILL);
}

}  // namespace mobula::node
