// Decides which scheduling class gets which worker process, within the node's resources.
//
// It sees depths, never single tasks, so it costs nothing per task. Pure rules: every fact
// arrives as an event with its time, every effect leaves as an action, and equal events give
// equal actions.
//
//               WorkerReady                AttachWorker               DetachWorker
//   StartWorker ----------> unattached ------------------> attached ----------------> leaving
//                             |    ^                 at work | resting | blocked         |
//                             |    '------------------- WorkerIdle ----------------------'
//                             '--RetireWorker--> retiring --WorkerGone--> (gone, from any state)
//
// - A worker holds its class's demand from AttachWorker until it has left: WorkerIdle from a
//   leaving worker, or WorkerGone. A blocked worker lends its CPU, and only that, to others.
//   Unblocking takes the CPU back at once, also when that oversubscribes the node: a task that
//   has its arguments must never wait for the one it lent its CPU to. The surplus is mended
//   by detaching.
// - Whether it lends the rest, too, is not decided here: it does when somebody has found out that
//   it waits, round some corners, for a task that needs what it holds (WorkerStuck). Who serves
//   a class with what was lent so leaves it after the task that it has taken.
// - An actor's worker is a process of its own, which holds the demand from StartWorker until
//   the worker is gone or the class closed. It is never detached.
// - Who is served first: waiting actors in their order, then task classes that got nothing
//   for kPatience, then the others by depth / (workers + 1). The first two reserve what
//   they wait for, so that a large demand is not starved by small ones that fit sooner.
//   A small actor may pass a large one, but only with resources that the large one
//   cannot use yet: actors keep theirs for life, and an actor that waits for another
//   actor's end may wait for ever.
// - Of classes with tasks that wait, the one of higher priority is served first, and takes workers
//   from those of lower priority after the task that they are at. A class without any worker gets
//   one all the same when it has waited for kOutranked, for kPatience or one task: so the lowest
//   goes on, slowly.
// - A worker is born into an environment, and serves classes of that one only. Those of the node's
//   own are the warm ones; others go when they have found nothing for kIdleKept.
// - A placement group waits in one line with the actors, and like them keeps what it got for as
//   long as it is open. It gets all or nothing. What it keeps is served to its own tasks and actors
//   by the same rules (bundles.h); it is free again when it is closed and the last of them has
//   left.
// - Workers beyond workers_warm that find nothing for kIdleKept go, those of classes too: what
//   a burst of blocked tasks started ends after it. A spent worker goes after its task.
// - A class whose task was ended for want of memory gets no more workers than it has left, and
//   one more after each pause: too many at a time would be ended again and again.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/resources.h"

namespace mobula::core {

using Time = std::chrono::nanoseconds;  // since the start of the node

struct ClassId {
  std::uint32_t value = 0;
  friend auto operator<=>(const ClassId&, const ClassId&) = default;
};

struct WorkerId {
  std::uint32_t value = 0;
  friend auto operator<=>(const WorkerId&, const WorkerId&) = default;
};

enum class ClassKind { Task, Actor, Group };

// What the processes of a class find around them; 0 is the node's own.
struct EnvironmentId {
  std::uint32_t value = 0;
  friend auto operator<=>(const EnvironmentId&, const EnvironmentId&) = default;
};

// ---- Facts. A fact about a worker or class that is not known (any more) changes nothing.

// What the node has. Nothing is started or rejected before this is known.
struct NodeCapacity {
  ResourceAmounts amounts;
  friend bool operator==(const NodeCapacity&, const NodeCapacity&) = default;
};
// How much of the capacity may be used here at present, when others share the node (job_shares.h).
// A capacity that is told later is there as a whole again.
struct ShareChanged {
  ResourceAmounts amounts;
  friend bool operator==(const ShareChanged&, const ShareChanged&) = default;
};
// Processes: workers_warm wait for work even when there is none; workers_max is the most there
// may ever be, actors' workers and those being started included.
struct PoolLimits {
  int workers_warm = 0;
  int workers_max = 0;
  friend bool operator==(const PoolLimits&, const PoolLimits&) = default;
};
// Opening the class of an actor whose worker is gone asks for a new worker: a restart. A class
// that was rejected may be opened again too; opening one that is open changes nothing.
struct ClassOpened {
  ClassId cls;
  ClassKind kind = ClassKind::Task;
  ResourceAmounts demand;
  int priority = 0;  // of a task class: the higher comes first
  EnvironmentId environment = {};  // of a task class
  std::optional<ClassId> group = {};  // of tasks or an actor in one: whose offer it demands of
  ResourceAmounts offer = {};  // of a group
  friend bool operator==(const ClassOpened&, const ClassOpened&) = default;
};
// Its workers are detached; an actor's is retired. Nothing more is started in a group; its actors
// stay until they are closed themselves.
struct ClassClosed {
  ClassId cls;
  friend bool operator==(const ClassClosed&, const ClassClosed&) = default;
};
// A sample: the ready tasks of a task class that nobody has claimed.
struct BacklogSeen {
  ClassId cls;
  std::int64_t depth = 0;
  friend bool operator==(const BacklogSeen&, const BacklogSeen&) = default;
};
// A process has joined. For an actor, `started_for` repeats StartWorker::for_actor.
struct WorkerReady {
  WorkerId worker;
  std::optional<ClassId> started_for;
  EnvironmentId environment = {};  // as StartWorker said
  friend bool operator==(const WorkerReady&, const WorkerReady&) = default;
};
// A process that was ordered by StartWorker ended, or failed to start, before it joined.
struct WorkerStartFailed {
  std::optional<ClassId> started_for;
  EnvironmentId environment = {};
  friend bool operator==(const WorkerStartFailed&, const WorkerStartFailed&) = default;
};
// An attached worker found nothing to do for a while (may be repeated as long as that is so),
// or a leaving worker has finished its task and come back. After DetachWorker only the latter
// may be sent: an older "found nothing", still on its way, would free what a task uses.
struct WorkerIdle {
  WorkerId worker;
  friend bool operator==(const WorkerIdle&, const WorkerIdle&) = default;
};
// The worker's task waits in get or wait.
struct WorkerBlocked {
  WorkerId worker;
  friend bool operator==(const WorkerBlocked&, const WorkerBlocked&) = default;
};
struct WorkerUnblocked {
  WorkerId worker;
  friend bool operator==(const WorkerUnblocked&, const WorkerUnblocked&) = default;
};
// Its heap, at rest, is larger than it may be: it is replaced when its task is done.
struct WorkerSpent {
  WorkerId worker;
  friend bool operator==(const WorkerSpent&, const WorkerSpent&) = default;
};
// An attached worker has run tasks since WorkerIdle was last said of it.
struct WorkerWorked {
  WorkerId worker;
  friend bool operator==(const WorkerWorked&, const WorkerWorked&) = default;
};
// It is blocked, and will be until a task has run that needs what it holds.
struct WorkerStuck {
  WorkerId worker;
  friend bool operator==(const WorkerStuck&, const WorkerStuck&) = default;
};
struct WorkerGone {
  WorkerId worker;
  bool out_of_memory = false;  // it was killed for want of memory
  friend bool operator==(const WorkerGone&, const WorkerGone&) = default;
};
// Time passes. To be sent every 10 ms or so while tasks wait, and now and then otherwise.
struct Tick {
  friend bool operator==(const Tick&, const Tick&) = default;
};

using WorkerEvent =
    std::variant<NodeCapacity, ShareChanged, PoolLimits, ClassOpened, ClassClosed, BacklogSeen,
                 WorkerReady, WorkerStartFailed, WorkerIdle, WorkerBlocked, WorkerUnblocked,
                 WorkerStuck, WorkerSpent, WorkerWorked, WorkerGone, Tick>;

// ---- Orders.

// Start one process; it answers by WorkerReady or WorkerStartFailed.
struct StartWorker {
  std::optional<ClassId> for_actor;
  EnvironmentId environment = {};  // of workers for tasks
  friend bool operator==(const StartWorker&, const StartWorker&) = default;
};
// The worker takes tasks of this class from now on. Also sent to an actor's new worker.
struct AttachWorker {
  WorkerId worker;
  ClassId cls;
  friend bool operator==(const AttachWorker&, const AttachWorker&) = default;
};
// The worker finishes the task it has, if any, claims no more, and answers by WorkerIdle.
struct DetachWorker {
  WorkerId worker;
  friend bool operator==(const DetachWorker&, const DetachWorker&) = default;
};
// The process is to end; WorkerGone follows.
struct RetireWorker {
  WorkerId worker;
  friend bool operator==(const RetireWorker&, const RetireWorker&) = default;
};
// The demand exceeds the node's capacity: it can never run here. The reason is a sentence.
struct RejectClass {
  ClassId cls;
  std::string reason;
  friend bool operator==(const RejectClass&, const RejectClass&) = default;
};
// The class waits for a worker, and none will come: workers_max processes exist, and all are
// blocked or belong to actors. Said once until the class has a worker again or stops waiting.
struct PoolExhausted {
  ClassId cls;
  friend bool operator==(const PoolExhausted&, const PoolExhausted&) = default;
};
// The group has all that it demanded.
struct GrantGroup {
  ClassId cls;
  friend bool operator==(const GrantGroup&, const GrantGroup&) = default;
};

using WorkerAction = std::variant<StartWorker, AttachWorker, DetachWorker, RetireWorker,
                                  RejectClass, PoolExhausted, GrantGroup>;
using WorkerActions = std::vector<WorkerAction>;

std::string describe(ClassId cls);  // "class 3"
// "attach worker 7 to class 3", for logs.
std::string describe(const WorkerAction& action);

// ---- The rules.

class WorkerAllotment {
 public:
  // How long a class with backlog may get nothing before workers that are busy elsewhere are
  // asked to leave for it. Long against attaching a worker (well under 1 ms), so that
  // changing classes stays rare; short against what a person notices.
  static constexpr Time kPatience = std::chrono::milliseconds(20);
  // The same for a class while others of higher priority have tasks that wait: the others keep
  // 98 % of what they ask for.
  static constexpr Time kOutranked = std::chrono::seconds(1);
  // How long a newly attached or woken worker counts as one that will take a waiting task:
  // within it the next samples of the backlog do not know of it yet.
  static constexpr Time kSettling = std::chrono::milliseconds(5);
  // How long a worker beyond workers_warm is kept that has nothing to do. A new one costs about
  // a millisecond.
  static constexpr Time kIdleKept = std::chrono::seconds(3);
  // How long a class that ran out of memory is held back until it may have one worker more; it
  // doubles each time that was one too many.
  static constexpr Time kHeldBack = std::chrono::seconds(10);
  static constexpr Time kHeldBackMax = std::chrono::minutes(10);
  // The pause after a failed start; it doubles with each failure in a row.
  static constexpr Time kFailedStartPause = std::chrono::milliseconds(100);
  static constexpr Time kFailedStartPauseMax = std::chrono::seconds(5);

  // Applies one event. The caller carries out the actions, in order. `now` never goes back.
  [[nodiscard]] WorkerActions step(const WorkerEvent& event, Time now);

  // One sentence: why tasks of this class (or this actor) wait right now, for instance
  // "waits for CPU 1: all 2 are held by class 3 (2 workers)". What class 3 is for, readers know.
  [[nodiscard]] std::string explain(ClassId cls) const;

  // True while workers exist that will be retired unless they get work: time must pass then.
  [[nodiscard]] bool has_surplus() const;

  // Of a task class that waits for a resource of which all there is is held by blocked workers:
  // these. None if it waits for anything else, or for nothing.
  [[nodiscard]] std::vector<WorkerId> blocked_holders(ClassId cls) const;

  // What it could use of the node, for who shares it out (job_shares.h).
  struct Claim {
    ResourceAmounts wanted;  // by running and waiting tasks and actors, up to the capacity
    ResourceAmounts firm;  // of it, what cannot be taken back from actors and blocked tasks
    ResourceAmounts urgent;  // the demand of who has waited longest and does not fit into the share
    ResourceAmounts used;  // held right now
    friend bool operator==(const Claim&, const Claim&) = default;
  };
  [[nodiscard]] Claim claim(Time now) const;
  // True while more is held than may be.
  [[nodiscard]] bool is_overdrawn() const { return surplus_since_.has_value(); }

  // For `mobula list` and the dashboard.
  struct ClassView {
    ClassKind kind = ClassKind::Task;
    ResourceAmounts demand;
    std::int64_t depth = 0;
    int workers = 0;  // attached, those blocked and leaving included
    int blocked = 0;
    int leaving = 0;
    friend bool operator==(const ClassView&, const ClassView&) = default;
  };
  struct PoolView {
    int workers = 0;  // processes that have joined and are not gone
    int unattached = 0;  // of these, waiting for a class
    int starting = 0;  // ordered, not yet joined
    friend bool operator==(const PoolView&, const PoolView&) = default;
  };
  [[nodiscard]] std::optional<ClassView> view(ClassId cls) const;
  [[nodiscard]] PoolView pool() const;
  // Below zero in CPU while unblocked workers oversubscribe the node.
  [[nodiscard]] const ResourceAmounts& free() const { return free_; }

 private:
  enum class ClassPhase {
    Open,  // a task class that may get workers
    Waiting,  // an actor without a worker, a group without its resources
    Starting,  // an actor whose worker has been ordered
    Alive,  // an actor with its worker, a group with its resources
    Ended,  // an actor whose worker is gone, until it is opened again or closed
    Closing,  // closed, kept until the last worker has left
    Rejected,  // can never run here
  };
  struct Class {
    ClassKind kind = ClassKind::Task;
    ClassPhase phase = ClassPhase::Open;
    ResourceAmounts demand;
    std::int64_t depth = 0;
    int priority = 0;
    EnvironmentId environment;
    std::optional<ClassId> group;
    ResourceAmounts offer;  // of a group
    bool granted = false;  // a group
    std::uint64_t order = 0;  // of opening: actors and groups are served in it
    std::optional<Time> wanting_since;  // wants a worker; got and lost none since
    bool exhaustion_told = false;
    std::string rejection;
    struct HeldBack {
      int workers_most;
      Time pause;
      Time raised_at;
    };
    std::optional<HeldBack> held_back;  // since tasks ran out of memory
  };
  enum class WorkerPhase { Unattached, Attached, Leaving, Retiring };
  struct Worker {
    WorkerPhase phase = WorkerPhase::Unattached;
    EnvironmentId environment;
    std::optional<ClassId> cls;
    bool for_actor = false;
    bool blocked = false;
    bool lends_all = false;  // blocked, and stuck
    bool borrows = false;  // serves its class with what another one lends: one task
    bool resting = false;  // attached, and said that it found nothing
    bool surplus = false;  // it leaves its class because it had nothing to do
    bool spent = false;  // to retire once it has left its class
    bool on_turn = false;  // attached because its class had waited for long
    std::optional<Time> settles_at;  // until then it is about to take a waiting task
    Time since{};  // of the last change of phase
    ResourceAmounts held;
  };
  struct Tally {  // of one task class
    int workers = 0;
    int able = 0;  // attached, neither blocked nor leaving
    int resting = 0;
    int settling = 0;
  };
  struct Plan;

  void apply(const WorkerEvent& event, Time now, WorkerActions& actions);
  void open(const ClassOpened& opened, Time now, WorkerActions& actions);
  void close(ClassId id, Time now, WorkerActions& actions);
  void end_members(ClassId group, Time now, WorkerActions& actions);
  void see_backlog(const BacklogSeen& seen, Time now);
  void join(const WorkerReady& ready, Time now, WorkerActions& actions);
  void start_failed(const WorkerStartFailed& failed, Time now);
  void idle(WorkerId id, Time now, WorkerActions& actions);
  void spent(WorkerId id, Time now, WorkerActions& actions);
  void worked(WorkerId id, Time now);
  void lend_cpu(WorkerId id);
  void lend_all(WorkerId id);
  void take_cpu_back(WorkerId id);
  void gone(const WorkerGone& left, Time now);
  void hold_back(ClassId id, Time now);
  void ease(Class& cls, const Tally& tally, Time now);
  void set_capacity(const ResourceAmounts& amounts, Time now, WorkerActions& actions);
  void set_granted(const ResourceAmounts& amounts);
  bool judge(ClassId id, WorkerActions& actions);

  void decide(Time now, WorkerActions& actions);
  Plan survey(Time now, WorkerActions& actions);
  void mend_surplus(Plan& plan, WorkerActions& actions);
  void serve_actors(Plan& plan, WorkerActions& actions);
  void serve_starving(Plan& plan, WorkerActions& actions);
  void serve_by_need(Plan& plan, WorkerActions& actions);
  void serve(ClassId id, Plan& plan, WorkerActions& actions);
  void start_workers(const Plan& plan, WorkerActions& actions);
  void retire_surplus(const Plan& plan, WorkerActions& actions);
  void detach_surplus(Plan& plan, WorkerActions& actions);

  bool start_actor(ClassId id, Plan& plan, WorkerActions& actions);
  void grant(ClassId group, Plan& plan, WorkerActions& actions);
  bool give_worker(ClassId id, Plan& plan, WorkerActions& actions);
  bool claim_place(ClassId id, Plan& plan, WorkerActions& actions);
  bool claim_resources(ClassId id, Plan& plan, WorkerActions& actions);
  enum class From { Anywhere, OtherEnvironments };
  [[nodiscard]] std::optional<WorkerId> pick_resting(const Plan& plan, std::string_view resource,
                                                     std::optional<ClassId> but,
                                                     From from = From::Anywhere) const;
  [[nodiscard]] std::optional<WorkerId> pick_busy(const Plan& plan, std::string_view resource,
                                                  std::optional<ClassId> beneficiary) const;
  [[nodiscard]] bool may_be_asked(WorkerId id, const Plan& plan, std::string_view resource,
                                  std::optional<ClassId> but) const;
  [[nodiscard]] bool has_had_its_turn(WorkerId id, Time now) const;
  [[nodiscard]] bool may_lose_one(const Plan& plan, ClassId donor,
                                  std::optional<ClassId> beneficiary) const;
  [[nodiscard]] bool outranks(ClassId higher, ClassId lower) const;
  [[nodiscard]] bool outranks_any(ClassId id) const;
  [[nodiscard]] Time patience(ClassId id) const;
  [[nodiscard]] std::optional<WorkerId> warmest_unattached(EnvironmentId environment) const;
  [[nodiscard]] std::optional<WorkerId> coldest_unattached() const;
  [[nodiscard]] std::optional<WorkerId> coldest_unused(Time now) const;

  void attach(WorkerId id, ClassId cls, Time now, WorkerActions& actions);
  void detach(WorkerId id, Time now, WorkerActions& actions);
  void retire(WorkerId id, Time now, WorkerActions& actions);
  void set_held(Worker& worker, const ResourceAmounts& held);
  void forget_if_left(ClassId id);
  [[nodiscard]] bool is_left(ClassId id) const;
  [[nodiscard]] std::string impossible(const Class& cls) const;
  [[nodiscard]] bool is_lent_to(const ResourceAmounts& demand) const;
  [[nodiscard]] int processes() const;
  [[nodiscard]] int own_processes() const;
  [[nodiscard]] int starting() const;
  [[nodiscard]] std::map<ClassId, Tally> tally() const;
  [[nodiscard]] std::int64_t unserved(const Class& cls, const Tally& tally) const;
  [[nodiscard]] std::string explain_lack(const Class& cls, const std::string& resource) const;
  [[nodiscard]] std::string explain_pool() const;

  std::optional<ResourceAmounts> capacity_;
  ResourceAmounts granted_;  // of it, what may be used here
  ResourceAmounts free_;  // of that, what nobody holds
  PoolLimits limits_;
  std::map<ClassId, Class> classes_;  // ordered, so that replays match
  std::map<WorkerId, Worker> workers_;
  std::map<ClassId, int> actor_starts_;  // ordered for an actor and not joined; may be closed
  std::map<EnvironmentId, int> starting_;  // ordered for task classes and not joined
  int failed_starts_ = 0;  // in a row
  std::optional<Time> starts_paused_until_;
  std::optional<Time> surplus_since_;
  // As of the last step, for explain(): who waits for what is being freed, first in line
  // first, and who waits for a process that is starting.
  std::vector<ClassId> reserved_for_;
  std::set<ClassId> starting_for_;
  std::uint64_t opened_ = 0;
};

}  // namespace mobula::core
