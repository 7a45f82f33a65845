// Options of tasks, actors, waits and sessions: aggregates for designated initialisers, fields in
// this order.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "mobula/scheduling.h"

namespace mobula {

using Duration = std::chrono::nanoseconds;

// What the process of a task or actor finds around it. Those with different ones never share a
// process. What a task submits runs in its environment, unless it is given another one, which then
// is relative to the driver's. All of it together may have some 3000 bytes.
struct RuntimeEnv {
  std::map<std::string, std::string> env_vars = {};  // added to those of the driver, or replacing
  std::string working_dir = {};  // an existing folder; empty: the driver's
};

struct TaskOptions {
  std::optional<double> num_cpus = {};  // default 1; 0 is allowed
  std::optional<double> num_gpus = {};  // default 0
  std::optional<double> memory = {};  // bytes: for placement; who uses more is killed first
  std::map<std::string, double> resources = {};  // the user's own
  int max_retries = 3;  // further attempts after a worker crash; -1: without end; 0: none
  bool retry_exceptions = false;  // also when the function throws
  std::string name = {};  // shown in errors and tools instead of the function's
  Scheduling scheduling = {};  // where it may run (scheduling.h)
  RuntimeEnv runtime_env = {};
  // From -100 to 100: tasks of a higher one get workers first, also those at work on a lower one,
  // as soon as these have ended their task.
  int priority = 0;
  // From the submission on; not negative. A task that has not ended by then is cancelled, and get
  // throws DeadlineExceededError. What it submits has no later deadline than itself.
  std::optional<Duration> deadline = {};
  // Of a task that pushes into a Sink: items that may lie unread before a push waits, from 1 to
  // 1024. Stored ones (above 48 bytes) wait from 64 MiB on, or from a quarter of the store.
  std::size_t max_unread = 1024;
};

// Detached: the actor outlives its handles and its driver, and ends when it is killed, leaves or
// dies for good, or with its node. It needs a name and a node that stays (Config.address); creating
// it waits until its process is there. Its calls are carried between jobs as values: a Ref in the
// place of a value is waited for and replaced by it, Refs and handles inside of arguments and
// results are refused (Error), and so are methods that push into a Sink.
enum class Lifetime { NonDetached, Detached };

// What a crash costs an actor that is started again (max_restarts). None: it goes on from its last
// checkpoint, or from its constructor; a call that was interrupted fails, or is repeated
// (max_task_retries). Replay: the calls that it took since the checkpoint are run again in their
// order, and interrupted ones to their end, so that no update is lost or applied twice. What a call
// submits or puts is there once, however often the call is run; only what it does outside of Mobula
// is repeated. So its methods must do the same again when they are given the same: the clock,
// random numbers, files and should_cancel() belong into arguments. (What get and wait told a call,
// they tell it again.) Not with max_concurrency, concurrency_groups and
// allow_out_of_order_execution.
enum class Recovery { None, Replay };

struct ActorOptions {
  std::string name = {};  // for get_actor, up to 100 bytes; one living actor has it at a time
  std::string namespace_ = {};  // of the name; empty: the program's (Config.namespace_)
  Lifetime lifetime = Lifetime::NonDetached;
  int max_restarts = 0;  // times its process is started anew after a crash; -1: without end
  // Further attempts of a call that a crash interrupted, in the actor's next life (max_restarts),
  // before all calls that had not begun; -1: without end. With Replay each such call is run to its
  // end, whatever this says. A method's exception is final.
  int max_task_retries = 0;
  Recovery recovery = Recovery::None;
  // Calls between two checkpoints of its state (mobula::checkpoint() says what is saved), at most
  // 100,000 with Replay. 0: on demand only; with Replay after 1000 if saving takes a fiftieth of
  // their time or less, at the latest after 10,000. With Replay it is taken early when it lets go
  // of much: a sixteenth of the object store, or 100,000 records.
  std::uint64_t checkpoint_every = 0;
  int max_concurrency = 1;  // threads that run its calls; above 1 these must guard its state
  std::map<std::string, int> concurrency_groups = {};  // further threads, by CallOptions' name
  bool allow_out_of_order_execution = false;  // a call that waits does not hold back later ones
  std::optional<double> num_cpus = {};  // held for the actor's life; default 0
  std::optional<double> num_gpus = {};
  std::optional<double> memory = {};
  std::map<std::string, double> resources = {};
  // A handle of the actor that has the name, if there is one; ActorNotFoundError if that is of
  // another class.
  bool get_if_exists = false;
  // Calls of one process that may wait or run at a time; one more throws PendingCallsLimitError.
  // -1: without end.
  int max_pending_calls = -1;
  Scheduling scheduling = {};  // where it may live (scheduling.h)
  RuntimeEnv runtime_env = {};
};

// Of one call of an actor.
struct CallOptions {
  std::string name = {};  // shown in errors and tools instead of the method's
  std::string concurrency_group = {};  // whose threads run it; empty: those of max_concurrency
  std::optional<int> max_task_retries = {};  // instead of the actor's
  std::optional<Duration> deadline = {};  // from the call on, as in TaskOptions
  std::size_t max_unread = 1024;  // as in TaskOptions
};

struct GetEachOptions {
  // Bytes of values that are kept in the store's memory at once, the one that is read and those
  // behind it; more if one alone is larger.
  std::uint64_t memory_budget = std::uint64_t{64} << 20;
};

struct WaitOptions {
  std::size_t num_returns = 1;  // from 1 to the number of refs
  std::optional<Duration> timeout = {};  // absent: for ever; 0: only look
  bool fetch_local = true;  // matters between nodes only
};

struct Config {
  std::string address = {};  // of a node to join; empty: start a private one
  std::optional<double> num_cpus = {};  // default: the cores this process may run on
  std::optional<double> num_gpus = {};  // default 0
  std::map<std::string, double> resources = {};  // the user's own; no name begins with "config."
  std::optional<std::uint64_t> object_store_memory =
      {};  // bytes; default 30 % of the machine's memory
  std::string namespace_ = {};  // of actors' names; empty: "default"
  // Where objects go that do not fit into the store any more, in a file without a name. Empty:
  // TMPDIR, /tmp or /var/tmp, whichever is not memory itself.
  std::string spill_directory = {};
  bool log_to_driver = true;  // workers' output appears here, each line with a prefix
  std::optional<std::uint64_t> spill_limit = {};  // bytes on disk; absent: all there are; 0: none
  // Bytes that workers and actors may use together, besides the object store: at least 64 MiB.
  // Above it one after the other is killed. Absent: only the machine limits them.
  std::optional<std::uint64_t> memory_limit = {};
  // The share of the machine's memory, or of the control group's, above which workers are killed,
  // whoever uses it: above 0; 1: never, and the kernel decides.
  double memory_threshold = 0.95;
  // Runs tasks and actors in this process and thread, for debugging: a task when it is submitted, a
  // call when it is made. The environment's MOBULA_LOCAL_MODE=1, or 0, comes first.
  bool local_mode = false;
  // With local_mode: each task runs in a thread of its own, beside who submits it. Then tasks may
  // wait for each other by other means than refs, and the order is chance.
  bool local_threads = false;
  // Libraries to load, by the driver and by its workers: files, or folders of which all *.so are
  // taken, parted by ':'. See export.h.
  std::string code_search_path = {};
  std::string log_level = {};  // debug, info, warning or error; empty: $MOBULA_LOG_LEVEL, or info
  std::string log_format = {};  // text or json; empty: $MOBULA_LOG_FORMAT, or text
  // When the session ends by shutdown() or its destructor, its metrics appear on standard error, as
  // to_table has them. The environment's MOBULA_SHOW_METRICS=1, or 0, comes first.
  bool show_metrics = false;
};

}  // namespace mobula
