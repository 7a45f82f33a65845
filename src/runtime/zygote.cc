// How a program becomes its own worker: the daemon starts it once more as a zygote, which runs
// main() up to the Session and there waits for orders to fork. A fork is warm (libraries loaded,
// memory mapped) and takes a fraction of a millisecond.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>

#include "runtime/environment.h"
#include "runtime/process.h"
#include "runtime/registry.h"
#include "runtime/worker.h"
#include "wire/local_protocol.h"

namespace mobula::runtime {
namespace {

// With more busy processes than cores, one that is woken waits for the end of a running one's time
// slice: 3 ms by default, which is what an actor's answer would take while simulations run. Shorter
// slices let it in sooner, and actors, which mostly answer, before tasks, which mostly compute.
constexpr std::uint64_t kWorkerSliceNs = 1'000'000;
constexpr std::uint64_t kActorSliceNs = 200'000;

// Linux 6.12 and later take it as the slice of an ordinary process; earlier ones ignore it.
void ask_for_time_slice(std::uint64_t ns) {
  struct {
    std::uint32_t size;
    std::uint32_t policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime;
    std::uint64_t deadline;
    std::uint64_t period;
  } attributes{};
  attributes.size = sizeof attributes;
  attributes.nice = ::getpriority(PRIO_PROCESS, 0);
  attributes.runtime = ns;
  ::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

// When the machine has no memory left, the kernel takes a worker, whose task can be run again, and
// not the driver or the daemon. Raising one's own score needs no right.
void offer_to_the_kernel() {
  const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  static_cast<void>(!::write(fd, "1000", 4));
  ::close(fd);
}

class Zygote {
 public:
  explicit Zygote(int socket) : socket_(socket) {}

  [[noreturn]] void run() {
    wire::Message welcome;
    if (wire::receive(socket_, welcome) != wire::Received::Message ||
        welcome.kind != wire::Kind::Welcome)
      ::_exit(1);
    memory_ = std::make_unique<shm::Memory>();
    if (const char* problem =
            memory_->map(welcome.descriptors[0], welcome.descriptors[1], welcome.c, false)) {
      ::fprintf(stderr, "mobula: a worker cannot join the node: %s\n", problem);
      ::_exit(1);
    }
    ::close(welcome.descriptors[0]);
    ::close(welcome.descriptors[1]);
    bell_ = welcome.descriptors[2];

    sigset_t child;
    ::sigemptyset(&child);
    ::sigaddset(&child, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child, &old_mask_);
    const int deaths = ::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    wire::Message ready;
    ready.kind = wire::Kind::ZygoteReady;
    const int functions = wire::make_strings_file("mobula-functions", function_names());
    if (functions >= 0) ready.descriptors[ready.descriptor_count++] = functions;
    wire::send(socket_, ready);
    if (functions >= 0) ::close(functions);
    for (;;) {
      pollfd polls[2] = {{socket_, POLLIN, 0}, {deaths, POLLIN, 0}};
      if (::poll(polls, 2, -1) < 0 && errno != EINTR) ::_exit(1);
      if (polls[1].revents) report_deaths(deaths);
      if (polls[0].revents) take_order();
    }
  }

 private:
  void report_deaths(int deaths) {
    signalfd_siginfo info;
    while (::read(deaths, &info, sizeof info) > 0) {
    }
    int status = 0;
    for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      wire::Message exited;
      exited.kind = wire::Kind::Exited;
      exited.b = static_cast<std::uint32_t>(pid);
      exited.c = static_cast<std::uint64_t>(static_cast<std::uint32_t>(status));
      wire::send(socket_, exited);
    }
  }

  void take_order() {
    wire::Message order;
    if (wire::receive(socket_, order) != wire::Received::Message) ::_exit(0);  // the daemon is gone
    if (order.kind != wire::Kind::Fork || order.descriptor_count != 3) return;
    const pid_t zygote = ::getpid();
    const pid_t pid = ::fork();
    if (pid == 0) become_worker(order, zygote);
    wire::Message forked;
    forked.kind = wire::Kind::Forked;
    forked.a = order.a;
    forked.b = pid > 0 ? static_cast<std::uint32_t>(pid) : 0;
    forked.c = static_cast<std::uint64_t>(errno);
    wire::send(socket_, forked);
    order.close_descriptors();
  }

  [[noreturn]] void become_worker(const wire::Message& order, pid_t zygote) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != zygote) ::_exit(0);  // it died before the line above
    ::close(socket_);
    ::sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
    ::dup2(order.descriptors[1], STDOUT_FILENO);
    ::dup2(order.descriptors[2], STDERR_FILENO);
    ::close(order.descriptors[1]);
    ::close(order.descriptors[2]);
    ::setvbuf(stdout, nullptr, _IOLBF, 0);
    if (!enter_environment(order.text_view())) {
      ::fprintf(stderr, "mobula: a worker cannot enter the folder %.*s of its runtime_env: %s\n",
                static_cast<int>(order.text_size), order.text, ::strerror(errno));
      ::fflush(nullptr);
      ::_exit(1);
    }
    const bool actor = order.b == static_cast<std::uint32_t>(shm::ProcessRole::Actor);
    ask_for_time_slice(actor ? kActorSliceNs : kWorkerSliceNs);
    offer_to_the_kernel();
    wire::Message welcome;
    welcome.kind = wire::Kind::Welcome;
    welcome.a = order.a;
    welcome.descriptors[0] = welcome.descriptors[1] = -1;  // mapped already
    welcome.descriptors[2] = bell_;
    try {
      // Never destroyed: the process ends by _exit, and user code may use it until then.
      auto* process = new Process(order.descriptors[0], welcome,
                                  static_cast<shm::ProcessRole>(order.b), std::move(memory_));
      process->set_environment(std::string(order.text_view()));
      set_current_process(process);
      run_worker(*process);
    } catch (const std::exception& e) {
      ::fprintf(stderr, "mobula: a worker could not start: %s\n", e.what());
    }
    ::fflush(nullptr);
    ::_exit(1);
  }

  int socket_;
  int bell_ = -1;
  sigset_t old_mask_{};
  std::unique_ptr<shm::Memory> memory_;
};

}  // namespace

void run_zygote_if_asked() {
  const char* descriptor = ::getenv("MOBULA_ZYGOTE_SOCKET");
  if (!descriptor) return;
  const int socket = ::atoi(descriptor);
  ::unsetenv("MOBULA_ZYGOTE_SOCKET");  // programs that tasks start are not workers
  ::fflush(nullptr);  // or each worker would print again what the program has printed so far
  Zygote(socket).run();
}

}  // namespace mobula::runtime
