// Placement groups over real processes: taken as a whole, kept for who names them, removed with all
// that is in them.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::Bundle;
using mobula::placement_group;
using mobula::PlacementGroup;
using mobula::PlacementGroupRemovedError;
using mobula::PlacementGroupScheduling;
using mobula::PlacementGroupState;
using mobula::Ref;
using mobula::remote;
using mobula::remove_placement_group;
using mobula::Strategy;
using mobula::UnschedulableError;
using mobula::test::amount_of;
using mobula::test::eventually;
using mobula::test::gate_is_open;
using mobula::test::is_gone;
using mobula::test::needs_workers;
using mobula::test::open_gate;
using mobula::test::Scratch;
using mobula::test::wait_at_gate;

namespace placement_groups {

int one() { return 1; }
int plus_one(int x) { return x + 1; }
int process() { return static_cast<int>(::getpid()); }
double my_cpus() { return amount_of(mobula::this_task().resources, "CPU"); }
// Says that it runs, and waits to be let go.
int hold(std::string entered, std::string gate) {
  open_gate(entered);
  wait_at_gate(gate);
  return static_cast<int>(::getpid());
}
int die_once(std::string mark) {
  if (gate_is_open(mark)) return 2;
  open_gate(mark);
  ::kill(::getpid(), SIGKILL);
  return 0;
}
// Gets a task that is outside of the group, or inside.
int outside() { return mobula::get(remote<one>()) + 1; }
int inside(PlacementGroup group) {
  const PlacementGroupScheduling here(group);
  std::vector<Ref<int>> children;
  for (int i = 0; i < 4; ++i) children.push_back(remote<one>.with({.scheduling = here})());
  int sum = 0;
  for (const Ref<int>& child : children) sum += mobula::get(child);
  return sum;
}
// The group gets its last CPU from this task.
int takes_the_node() {
  const PlacementGroup group = placement_group({{{"CPU", 4}}});
  group.wait();
  const Ref<int> task = remote<one>.with({.scheduling = PlacementGroupScheduling{group}})();
  const int result = mobula::get(task);
  remove_placement_group(group);
  return result;
}
bool waits_for(PlacementGroup group) { return group.wait(); }

struct Resident {
  int process() const { return static_cast<int>(::getpid()); }
  int hold(std::string entered, std::string gate) {
    return placement_groups::hold(std::move(entered), std::move(gate));
  }
};

double free_cpus() { return amount_of(mobula::available_resources(), "CPU"); }
bool all_is_free() {
  return eventually(20s, [] { return free_cpus() == 4; });
}
PlacementGroupState state_of(const PlacementGroup& group) {
  const auto all = mobula::placement_groups();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const auto& row) { return row.group.id == group.id; });
  REQUIRE(found != all.end());
  return found->state;
}

}  // namespace placement_groups
using namespace placement_groups;

TEST_CASE("a group has its resources when it is ready, and others do not get them") {
  const PlacementGroup group = placement_group({{{"CPU", 1}}, {{"CPU", 2}}}, Strategy::Pack);

  mobula::get(group.ready(), 20s);
  CHECK(group.wait(0s));
  CHECK(state_of(group) == PlacementGroupState::Created);
  CHECK(eventually(20s, [] { return free_cpus() == 1; }));
  CHECK(mobula::get(remote<one>(), 20s) == 1);

  remove_placement_group(group);
  CHECK(all_is_free());
  CHECK(state_of(group) == PlacementGroupState::Removed);
  remove_placement_group(group);
}

TEST_CASE(
    "tasks and actors of a group run there, by bundle or anywhere, with what they asked for") {
  const PlacementGroup group = placement_group({{{"CPU", 1}}, {{"CPU", 3}}}, Strategy::StrictPack);
  const PlacementGroupScheduling any(group);

  CHECK(mobula::get(remote<my_cpus>.with({.scheduling = any})(), 20s) == 1);
  CHECK(mobula::get(remote<my_cpus>.with(
                        {.num_cpus = 3, .scheduling = PlacementGroupScheduling{group, 1}})(),
                    20s) == 3);
  CHECK(mobula::get(remote<one>.with({.num_cpus = 0, .scheduling = any})(), 20s) == 1);
  const auto resident = mobula::actor<Resident>.with({.num_cpus = 1, .scheduling = any})();
  CHECK(mobula::get(resident.call<&Resident::process>(), 20s) > 0);
  CHECK(mobula::get(remote<inside>.with({.scheduling = any})(group), 20s) == 4);

  remove_placement_group(group);
  CHECK(all_is_free());
}

TEST_CASE("what can never be had is refused at the call with a sentence") {
  const auto why = [](const std::vector<Bundle>& bundles, Strategy strategy) {
    try {
      placement_group(bundles, strategy);
    } catch (const UnschedulableError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const Bundle cpu{{"CPU", 1}};
  CHECK(why({cpu, cpu}, Strategy::StrictSpread).find("there is one node") != std::string::npos);
  CHECK(why({{{"CPU", 5}}}, Strategy::Pack).find("this node has 4 in all") != std::string::npos);
  CHECK(why({{{"CPU", 3}}, {{"CPU", 2}}}, Strategy::Spread).find("CPU 5") != std::string::npos);
  CHECK_THROWS_AS(placement_group({}), mobula::Error);
  CHECK_THROWS_AS(placement_group({{}}), mobula::Error);
  CHECK_THROWS_AS(placement_group({{{"CPU", -1}}}), mobula::Error);

  const PlacementGroup group = placement_group({cpu, cpu}, Strategy::Spread);
  const auto in = [&](int bundle) { return PlacementGroupScheduling{group, bundle}; };
  CHECK_THROWS_AS(remote<one>.with({.num_cpus = 2, .scheduling = in(-1)})(), UnschedulableError);
  CHECK_THROWS_AS(remote<one>.with({.num_cpus = 2, .scheduling = in(0)})(), UnschedulableError);
  CHECK_THROWS_AS(remote<one>.with({.num_gpus = 1, .scheduling = in(0)})(), UnschedulableError);
  CHECK_THROWS_AS(mobula::actor<Resident>.with({.num_cpus = 2, .scheduling = in(1)})(),
                  UnschedulableError);
  CHECK_THROWS_AS(remote<one>.with({.scheduling = in(2)})(), mobula::Error);
  CHECK_THROWS_AS(remote<one>.with({.scheduling = in(-2)})(), mobula::Error);
  CHECK_THROWS_AS(remote<one>.with({.scheduling = PlacementGroupScheduling{PlacementGroup{}}})(),
                  mobula::Error);
  CHECK(mobula::get(remote<one>.with({.scheduling = in(1)})(), 20s) == 1);
  remove_placement_group(group);
  CHECK(all_is_free());
}

TEST_CASE("a group has its name alone, and gives it back when it is removed") {
  const PlacementGroup group = placement_group({{{"CPU", 1}}}, Strategy::Pack, {.name = "train"});

  const PlacementGroup same = mobula::get_placement_group("train");
  CHECK(same.id == group.id);
  CHECK(same.bundles == group.bundles);
  CHECK(same.strategy == Strategy::Pack);
  CHECK_THROWS_AS(placement_group({{{"CPU", 1}}}, Strategy::Pack, {.name = "train"}),
                  mobula::Error);
  CHECK_THROWS_AS(mobula::get_placement_group("serve"), mobula::Error);

  remove_placement_group(group);
  CHECK_THROWS_AS(mobula::get_placement_group("train"), mobula::Error);
  const PlacementGroup next = placement_group({{{"CPU", 4}}}, Strategy::Pack, {.name = "train"});
  CHECK(mobula::get_placement_group("train").id == next.id);
  CHECK(next.id != group.id);
  remove_placement_group(next);
  CHECK(all_is_free());
}

TEST_CASE("a group waits until it can have all, and its tasks wait for it" * needs_workers()) {
  Scratch scratch;
  const Ref<int> busy =
      remote<hold>.with({.num_cpus = 3})(scratch.file("entered"), scratch.file("gate"));
  wait_at_gate(scratch.file("entered"));

  const PlacementGroup group = placement_group({{{"CPU", 2}}});
  const Ref<int> task = remote<one>.with({.scheduling = PlacementGroupScheduling{group}})();
  const Ref<bool> waiter = remote<waits_for>.with({.num_cpus = 0})(group);
  const Ref<int> after = remote<plus_one>(task);
  CHECK_FALSE(group.wait(50ms));
  CHECK(state_of(group) == PlacementGroupState::Pending);
  CHECK_THROWS_AS(mobula::get(task, 0s), mobula::GetTimeoutError);

  open_gate(scratch.file("gate"));
  CHECK(group.wait(20s));
  CHECK(mobula::get(waiter, 20s));
  CHECK(mobula::get(after, 20s) == 2);
  mobula::get(busy, 20s);
  remove_placement_group(group);
  CHECK(all_is_free());
}

TEST_CASE("a group gets what tasks leave that ended long ago or end at last" * needs_workers()) {
  for (const int cpus : {4, 2}) {
    mobula::get(remote<one>.with({.num_cpus = static_cast<double>(cpus)})(), 20s);
    Scratch scratch;
    const Ref<int> busy =
        remote<hold>.with({.num_cpus = 2})(scratch.file("entered"), scratch.file("gate"));
    wait_at_gate(scratch.file("entered"));
    const PlacementGroup group = placement_group({{{"CPU", 3}}});
    CHECK_FALSE(group.wait(200ms));  // by then the daemon has nothing else to look at

    open_gate(scratch.file("gate"));
    CHECK(group.wait(20s));
    mobula::get(busy, 20s);
    remove_placement_group(group);
    CHECK(all_is_free());
  }
}

TEST_CASE("a task that waits for a group lends it its own CPU meanwhile") {
  CHECK(mobula::get(remote<takes_the_node>(), 20s) == 1);
  CHECK(all_is_free());
}

TEST_CASE("a task of a group that has the whole node runs the task outside of it that it gets") {
  const PlacementGroup group = placement_group({{{"CPU", 4}}});
  CHECK(mobula::get(remote<outside>.with({.scheduling = PlacementGroupScheduling{group}})(), 20s) ==
        2);
  remove_placement_group(group);
  CHECK(all_is_free());
}

TEST_CASE("groups that each want most of the node get it one after the other" * needs_workers()) {
  std::vector<PlacementGroup> groups;
  std::vector<Ref<int>> tasks;
  for (int i = 0; i < 5; ++i) {
    groups.push_back(placement_group({{{"CPU", 3}}}));
    tasks.push_back(
        remote<one>.with({.num_cpus = 3, .scheduling = PlacementGroupScheduling{groups.back()}})());
  }

  for (std::size_t i = 0; i < groups.size(); ++i) {
    CHECK(mobula::get(tasks[i], 20s) == 1);
    CHECK(mobula::get(remote<one>(), 20s) == 1);  // the rest of the node is there for others
    if (i + 1 < groups.size()) CHECK(state_of(groups[i + 1]) == PlacementGroupState::Pending);
    remove_placement_group(groups[i]);
  }
  CHECK(all_is_free());
}

TEST_CASE("removing a group ends what is in it, says so, and leaves others alone" *
          needs_workers()) {
  Scratch scratch;
  const PlacementGroup group =
      placement_group({{{"CPU", 1}}, {{"CPU", 2}}}, Strategy::Pack, {.name = "doomed"});
  const PlacementGroupScheduling in(group);
  const auto resident =
      mobula::actor<Resident>.with({.max_restarts = 5, .num_cpus = 1, .scheduling = in})();
  const auto end = mobula::monitor(resident);
  const int actor_pid = mobula::get(resident.call<&Resident::process>(), 20s);
  const Ref<int> call =
      resident.call<&Resident::hold>(scratch.file("called"), scratch.file("gate"));
  const Ref<int> running =
      remote<hold>.with({.scheduling = in})(scratch.file("ran"), scratch.file("gate"));
  const Ref<int> other = remote<hold>(scratch.file("other"), scratch.file("gate"));
  wait_at_gate(scratch.file("called"));
  wait_at_gate(scratch.file("ran"));
  wait_at_gate(scratch.file("other"));
  std::vector<Ref<int>> queued;
  for (int i = 0; i < 50; ++i)
    queued.push_back(remote<one>.with({.num_cpus = 2, .scheduling = in})());
  const Ref<int> blocked = remote<plus_one>.with({.scheduling = in})(running);
  const Ref<int> hanging = remote<plus_one>.with({.scheduling = in})(other);
  const Ref<int> dependent = remote<plus_one>(queued[0]);

  remove_placement_group(group);

  const auto removed = [](const Ref<int>& ref) {
    try {
      mobula::get(ref, 20s);
    } catch (const PlacementGroupRemovedError& e) {
      return std::string(e.what()).find("\"doomed\"") != std::string::npos;
    }
    return false;
  };
  CHECK(removed(running));
  for (const Ref<int>& task : queued) CHECK(removed(task));
  CHECK(removed(blocked));
  CHECK(removed(hanging));
  CHECK(removed(dependent));
  try {
    mobula::get(call, 20s);
    FAIL("the call has a result");
  } catch (const mobula::ActorDiedError& e) {
    CHECK(std::string(e.what()).find("\"doomed\"") != std::string::npos);
  }
  CHECK(mobula::get(end, 20s).reason == mobula::DeathReason::PlacementGroupRemoved);
  CHECK(eventually(20s, [&] { return is_gone(actor_pid); }));
  CHECK_THROWS_AS(remote<one>.with({.num_cpus = 0.5, .scheduling = in})(),
                  PlacementGroupRemovedError);
  CHECK(removed(remote<one>.with({.num_cpus = 2, .scheduling = in})()));  // of a class known here
  CHECK_THROWS_AS(mobula::get(resident.call<&Resident::process>(), 20s), mobula::ActorDiedError);
  CHECK_THROWS_AS(group.ready(), PlacementGroupRemovedError);

  open_gate(scratch.file("gate"));
  CHECK(mobula::get(other, 20s) > 0);
  CHECK(all_is_free());
}

TEST_CASE("a group that is removed before it was granted fails who waits for it" *
          needs_workers()) {
  Scratch scratch;
  const Ref<int> busy =
      remote<hold>.with({.num_cpus = 4})(scratch.file("entered"), scratch.file("gate"));
  wait_at_gate(scratch.file("entered"));
  const PlacementGroup group = placement_group({{{"CPU", 1}}});
  const Ref<void> ready = group.ready();
  const Ref<int> task = remote<one>.with({.scheduling = PlacementGroupScheduling{group}})();
  const auto resident =
      mobula::actor<Resident>.with({.scheduling = PlacementGroupScheduling{group}})();

  remove_placement_group(group);

  CHECK_THROWS_AS(mobula::get(ready, 20s), PlacementGroupRemovedError);
  CHECK_THROWS_AS(mobula::get(task, 20s), PlacementGroupRemovedError);
  CHECK_THROWS_AS(mobula::get(resident.call<&Resident::process>(), 20s), mobula::ActorDiedError);
  open_gate(scratch.file("gate"));
  mobula::get(busy, 20s);
  CHECK(all_is_free());
}

TEST_CASE("a task of a group whose process crashes is tried again in the group" * needs_workers()) {
  Scratch scratch;
  const PlacementGroup group = placement_group({{{"CPU", 4}}});

  CHECK(mobula::get(remote<die_once>.with({.scheduling = PlacementGroupScheduling{group}})(
                        scratch.file("died")),
                    20s) == 2);
  remove_placement_group(group);
  CHECK(all_is_free());
}

TEST_CASE("groups come and go by the hundred, and leave nothing behind") {
  for (int i = 0; i < mobula::test::scaled(300, 30); ++i) {
    const PlacementGroup group = placement_group({{{"CPU", 2}}, {{"CPU", 2}}});
    if (i % 3 == 0) REQUIRE(group.wait(20s));
    if (i % 7 == 0)
      REQUIRE(mobula::get(remote<one>.with({.scheduling = PlacementGroupScheduling{group}})(),
                          20s) == 1);
    remove_placement_group(group);
  }
  CHECK(all_is_free());
  // The daemon looks whether it can let go of them some time after they were removed.
  CHECK(eventually(20s, [] { return mobula::placement_groups().size() <= 101; }));
}

TEST_CASE("other places: this node and no label are everywhere, another node is nowhere") {
  const std::string here = mobula::nodes()[0].node_id;
  const auto runs = [](mobula::Scheduling scheduling) {
    return mobula::get(remote<one>.with({.scheduling = std::move(scheduling)})(), 20s) == 1;
  };
  CHECK(runs(mobula::SpreadScheduling{}));
  CHECK(runs(mobula::NodeAffinity{here}));
  CHECK(runs(mobula::NodeAffinity{"elsewhere", /*soft=*/true}));
  CHECK(runs(mobula::NodeLabel{.soft = {{"zone", "a"}}}));
  CHECK_THROWS_AS(runs(mobula::NodeAffinity{"elsewhere"}), UnschedulableError);
  CHECK_THROWS_AS(runs(mobula::NodeLabel{.hard = {{"zone", "a"}}}), UnschedulableError);
  CHECK_THROWS_AS(mobula::actor<Resident>.with({.scheduling = mobula::NodeAffinity{"elsewhere"}})(),
                  UnschedulableError);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 4, .object_store_memory = 64ULL << 20});
}
