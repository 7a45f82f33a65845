// mobula why ID: why a task, call or actor has not run, or a placement group is not there, followed
// to where it ends.
//
//   task mean (9a0c..2b) waits for 1 of its arguments
//     task simulate (9a0c..2a) is ready: waits for CPU 1: all 2 are held by actor Camera (9a0c..17)
//     (1 worker), tasks of CPU 1, such as render (1 worker)
#include <cstdio>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <utility>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/session_reader.h"
#include "mobula/error.h"
#include "runtime/errors.h"
#include "shm/dependents.h"

namespace mobula::cli {
namespace {

constexpr int kLevelsMax = 12;
constexpr int kEdgesShown = 5;

class Reason {
 public:
  Reason(SessionReader& session, bool json)
      : session_(session), memory_(session.memory()), json_(json) {}

  void tell_task(std::uint32_t slot, int level) {
    shm::Record& record = memory_.record(slot);
    const std::uint64_t state = record.state.load(std::memory_order_acquire);
    const bool known = !told_.insert(slot).second;
    if (record.kind == shm::Kind::Join) return tell_edges(record, state, level);
    const std::string who = what_is(record);
    if (known) return say(level, who + ": see above");
    switch (shm::word::state(state)) {
      case shm::State::Free: return say(level, who + " is gone");
      case shm::State::Waiting: {
        const int open = open_edges(record, state);
        say(level, who + " waits for " + std::to_string(open) + " of its arguments");
        return tell_edges(record, state, level + 1);
      }
      case shm::State::Ready: return tell_ready(record, who, level);
      case shm::State::Claimed: return tell_running(record, state, who, level);
      case shm::State::Done: return say(level, who + " has finished");
      case shm::State::Failed: return say(level, who + failure(record, state));
    }
  }

  void tell_actor(std::uint32_t id, int level) {
    const shm::SchedulingClass& cls = memory_.scheduling_class(id);
    const std::string state = actor_state(session_, id);
    const std::string who =
        "actor " + std::string(cls.name) + " (" + runtime::actor_id(memory_, cls) + ") ";
    if (state == "dead") {
      return say(level, who + runtime::describe_death(
                                  memory_, shm::DeathCause::unpack(cls.death.cause),
                                  cls.death.signal, cls.death.exit_code, cls.death.pid));
    }
    if (state != "alive") {
      const auto creation = shm::Address::unpack(cls.creation.load());
      const auto created = memory_.record(creation.slot).state.load();
      if (shm::word::generation(created) == creation.generation &&
          shm::word::state(created) == shm::State::Waiting) {
        say(level, who + "is " + state + ": its constructor's arguments are not there");
        return tell_task(creation.slot, level + 1);
      }
      return say(level, who + "is " + state + ": " + explain(id));
    }
    const std::uint64_t calls = session_.depth_of(cls);
    const std::string process = "process " + std::to_string(session_.pid_of_actor(id));
    say(level, who +
                   (cls.detached != 0 ? "is detached, and " + process + " stands for it here"
                                      : "is alive in " + process) +
                   ", and " + std::to_string(calls) + (calls == 1 ? " call waits" : " calls wait"));
    if (cls.detached != 0) return tell_detached(cls.detached, level + 1);
    tell_what_runs(id, level + 1);
  }

  void tell_group(std::uint32_t id) {
    const shm::SchedulingClass& cls = memory_.scheduling_class(id);
    say(0, std::string(cls.name) + " (" + group_id(cls) + ") " + explain(id));
  }

 private:
  void say(int level, const std::string& text) const {
    if (json_) return print({{"LEVEL", "TEXT"}, {{static_cast<double>(level), text}}}, true);
    std::printf("%s%s\n", std::string(static_cast<std::size_t>(2 * level), ' ').c_str(),
                text.c_str());
  }

  std::string what_is(const shm::Record& record) const {
    const char* kind = record.kind == shm::Kind::Task          ? "task "
                       : record.kind == shm::Kind::ActorCall   ? "call "
                       : record.kind == shm::Kind::ActorCreate ? "constructor "
                                                               : "value ";
    return kind + session_.name_of(record) + " (" + task_id(record) + ")";
  }

  // With what its classes are: the daemon's rules know them by number only.
  std::string explain(std::uint32_t cls) {
    static const std::regex numbered("class ([0-9]+)");
    const std::string text = session_.explain(cls);
    std::string told;
    auto rest = text.begin();
    for (std::sregex_iterator it(text.begin(), text.end(), numbered), end; it != end; ++it) {
      told.append(rest, (*it)[0].first)
          .append(name_of_class(std::strtoull((*it)[1].str().c_str(), nullptr, 10)));
      rest = (*it)[0].second;
    }
    return told.append(rest, text.end());
  }

  std::string name_of_class(std::uint64_t id) const {
    if (id >= shm::kClassesMax) return "class " + std::to_string(id);
    const shm::SchedulingClass& cls = memory_.scheduling_class(static_cast<std::uint32_t>(id));
    switch (static_cast<shm::ClassKind>(cls.kind.load())) {
      case shm::ClassKind::Actor:
        return "actor " + std::string(cls.name) + " (" + runtime::actor_id(memory_, cls) + ")";
      case shm::ClassKind::Task: return "tasks of " + std::string(cls.name) + functions_of(id);
      default: return cls.name;
    }
  }

  // ", such as simulate": a task of the class that runs or, if none does, one that could.
  std::string functions_of(std::uint64_t cls) const {
    std::set<std::pair<bool, std::string>> found;
    session_.each_record([&](std::uint32_t, const shm::Record& record, std::uint64_t state) {
      if (record.kind != shm::Kind::Task || record.scheduling_class != cls) return;
      const bool ready = shm::word::state(state) == shm::State::Ready;
      if (ready || shm::word::state(state) == shm::State::Claimed)
        found.emplace(ready, session_.name_of(record));
    });
    return found.empty() ? "" : ", such as " + found.begin()->second;
  }

  // The edges whose bit is still set, of the record as it was seen.
  template <class Visit>
  void each_open_edge(shm::Record& record, std::uint64_t state, const Visit& visit) const {
    const std::uint64_t join = record.join.load(std::memory_order_acquire);
    if (join >> 32 != shm::word::generation(state)) return;
    for (std::uint32_t i = 0; i < record.dependencies && i < shm::kJoinDependencies; ++i) {
      if (!(join & (1u << i))) continue;
      const auto target = shm::Address::unpack(record.edge(i).target);
      if (target.slot / shm::kRecordsPerSegment < session_.count("segments")) visit(target.slot);
    }
  }
  int open_edges(shm::Record& record, std::uint64_t state) const {
    int open = 0;
    each_open_edge(record, state, [&](std::uint32_t) { ++open; });
    return open;
  }
  void tell_edges(shm::Record& record, std::uint64_t state, int level) {
    if (level > kLevelsMax) return say(level, "...");
    int shown = 0;
    each_open_edge(record, state, [&](std::uint32_t slot) {
      if (shown++ < kEdgesShown) tell_task(slot, level);
    });
    if (shown > kEdgesShown) say(level, "and " + std::to_string(shown - kEdgesShown) + " more");
  }

  void tell_ready(const shm::Record& record, const std::string& who, int level) {
    if (record.kind == shm::Kind::Task)
      return say(level, who + " is ready: " + explain(record.scheduling_class));
    say(level, who + (record.kind == shm::Kind::ActorCall ? " waits for its turn in its actor"
                                                          : " waits for its actor's process"));
    tell_actor(record.scheduling_class, level + 1);
  }

  void tell_running(const shm::Record& record, std::uint64_t state, const std::string& who,
                    int level) {
    if (record.kind == shm::Kind::ActorCall) {
      if (const auto detached = memory_.scheduling_class(record.scheduling_class).detached) {
        say(level, who + " was handed on to its actor, which is detached");
        return tell_detached(detached, level + 1);
      }
    }
    const shm::Participant& runs = memory_.participant(shm::word::claimer(state));
    const std::uint32_t process = runs.process.load();
    const std::uint32_t pid = process < shm::kProcessesMax ? memory_.process(process).pid : 0;
    say(level, who + " runs in process " + std::to_string(pid) + ", attempt " +
                   std::to_string(shm::word::attempt(state) + 1));
    tell_wait(runs, level + 1);
  }

  // What the thread that runs it sleeps for.
  void tell_wait(const shm::Participant& runs, int level) {
    const auto reason = static_cast<shm::WaitReason>(runs.wait.reason.load());
    if (reason == shm::WaitReason::Memory) return say(level, "it waits for object memory");
    if (reason == shm::WaitReason::None || level > kLevelsMax) return;
    const std::uint32_t count = runs.wait.count.load();
    say(level, "it waits in " + std::string(reason == shm::WaitReason::Task ? "get" : "wait") +
                   (count > 1 ? " for " + std::to_string(runs.wait.needed.load()) + " of " +
                                    std::to_string(count)
                              : ""));
    for (std::uint32_t i = 0; i < std::min(count, shm::kWaitsListed); ++i) {
      const auto target = shm::Address::unpack(runs.wait.record[i].load());
      if (target && target.slot / shm::kRecordsPerSegment < session_.count("segments") &&
          !shm::word::is_final(memory_.record(target.slot).state.load()))
        tell_task(target.slot, level + 1);
    }
  }

  // In the session that the actor lives in. Which of its calls is ours is not known there.
  void tell_detached(std::uint64_t number, int level) {
    for (const auto& other : read_sessions()) {
      if (other->node() != session_.node() || other->memory().header().hosts.load() != number)
        continue;
      other->each_actor([&](std::uint32_t id, const shm::SchedulingClass&) {
        Reason(*other, json_).tell_actor(id, level);
      });
      return;
    }
    say(level, "the job that it lives in has just ended");
  }

  void tell_what_runs(std::uint32_t actor, int level) {
    session_.each_record([&](std::uint32_t slot, const shm::Record& record, std::uint64_t state) {
      if (shm::word::state(state) == shm::State::Claimed && record.scheduling_class == actor &&
          record.kind == shm::Kind::ActorCall && !told_.contains(slot))
        tell_task(slot, level);
    });
  }

  std::string failure(shm::Record& record, std::uint64_t state) const {
    if (state & shm::word::kCancelled) return " was cancelled";
    if (record.result_kind != shm::ResultKind::ErrorCode)
      return " has thrown; who gets its ref is told what";
    try {
      runtime::throw_compact(memory_, record.error(), record.function,
                             session_.name_of(record) + " (id " + task_id(record) + ")");
    } catch (const Error& e) {
      return std::string(" has failed: ") + e.what();
    }
  }

  SessionReader& session_;
  const shm::Memory& memory_;
  const bool json_;
  std::set<std::uint32_t> told_;
};

}  // namespace

int why(const Arguments& arguments) {
  if (arguments.words().empty())
    throw UsageError(
        "why what? The id of a task, an actor or a placement group; see: mobula list tasks");
  const std::string& id = arguments.words()[0];
  for (const auto& session : read_sessions(arguments.text("job").value_or(""))) {
    std::optional<std::uint32_t> task;
    std::optional<std::uint32_t> actor;
    std::optional<std::uint32_t> group;
    session->each_record([&](std::uint32_t slot, const shm::Record& record, std::uint64_t) {
      if (record.kind != shm::Kind::Join && task_id(record) == id) task = slot;
    });
    session->each_actor([&](std::uint32_t cls, const shm::SchedulingClass& seen) {
      if (runtime::actor_id(session->memory(), seen) == id) actor = cls;
    });
    session->each_group([&](std::uint32_t cls, const shm::SchedulingClass& seen) {
      if (group_id(seen) == id) group = cls;
    });
    Reason reason(*session, arguments.has("json"));
    if (task) reason.tell_task(*task, 0);
    if (actor) reason.tell_actor(*actor, 0);
    if (group) reason.tell_group(*group);
    if (task || actor || group) return 0;
  }
  throw NotFound("nothing has the id " + id +
                 " now: what has finished and is not held is gone; see: mobula list tasks");
}

}  // namespace mobula::cli
