#include "core/worker_allotment.h"

#include "core/bundles.h"

#include <doctest/doctest.h>

template <>
struct doctest::StringMaker<mobula::core::WorkerActions> {
  static doctest::String convert(const mobula::core::WorkerActions& actions) {
    std::string text = "{";
    for (const auto& action : actions) text += " " + mobula::core::describe(action) + ";";
    return (text + " }").c_str();
  }
};

namespace mobula::core {
namespace {

using namespace std::chrono_literals;

constexpr Time kStart = 1s;
constexpr Time kLater = kStart + WorkerAllotment::kSettling;
constexpr Time kMuchLater = kStart + WorkerAllotment::kPatience;
constexpr ClassId kTrain{1};
constexpr ClassId kServe{2};
constexpr ClassId kPlay{3};
constexpr WorkerId kAnn{11};
constexpr WorkerId kBob{12};
constexpr WorkerId kCid{13};

ResourceAmounts amounts(const std::map<std::string, double>& ones) {
  return std::get<ResourceAmounts>(ResourceAmounts::parse(ones));
}

const ResourceAmounts kOneCpu = amounts({{"CPU", 1}});

// A node with so many CPUs whose workers have all joined and wait.
struct Node {
  WorkerAllotment allotment;

  explicit Node(double cpus, const std::vector<WorkerId>& workers = {}, int workers_max = 8)
      : Node(amounts({{"CPU", cpus}}), workers, workers_max) {}
  Node(const ResourceAmounts& capacity, const std::vector<WorkerId>& workers, int workers_max) {
    tell(PoolLimits{0, workers_max});
    tell(NodeCapacity{capacity});
    for (const WorkerId worker : workers) tell(WorkerReady{worker, std::nullopt});
  }
  WorkerActions tell(const WorkerEvent& event, Time now = kStart) {
    return allotment.step(event, now);
  }
  void open(ClassId cls, const ResourceAmounts& demand = kOneCpu) {
    REQUIRE(tell(ClassOpened{cls, ClassKind::Task, demand}) == WorkerActions{});
  }
};

TEST_CASE("an idle worker goes where the backlog per worker is deepest") {
  Node node{3};
  node.open(kTrain);
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 4});
  node.tell(BacklogSeen{kServe, 9});

  CHECK(node.tell(WorkerReady{kAnn, {}}) == WorkerActions{AttachWorker{kAnn, kServe}});
  CHECK(node.tell(WorkerReady{kBob, {}}) == WorkerActions{AttachWorker{kBob, kServe}});
  CHECK(node.tell(WorkerReady{kCid, {}}) == WorkerActions{AttachWorker{kCid, kTrain}});
}

TEST_CASE("equal needs are served in the order of class ids") {
  Node node{2, {kAnn}};
  node.open(kServe);
  node.open(kTrain);
  node.tell(BacklogSeen{kServe, 0});

  CHECK(node.tell(BacklogSeen{kTrain, 5}) ==
        WorkerActions{AttachWorker{kAnn, kTrain}, StartWorker{}});
  CHECK(node.tell(BacklogSeen{kServe, 5}) == WorkerActions{});
  CHECK(node.tell(WorkerReady{kBob, {}}) == WorkerActions{AttachWorker{kBob, kServe}});
}

TEST_CASE("a class gets no more workers than it has waiting tasks") {
  Node node{4, {kAnn, kBob, kCid}};
  node.open(kTrain);

  CHECK(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{AttachWorker{kCid, kTrain}});
  CHECK(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{});
  CHECK(node.tell(BacklogSeen{kTrain, 2}) == WorkerActions{AttachWorker{kBob, kTrain}});
}

TEST_CASE("a task that still waits when its worker has settled gets another worker") {
  Node node{4, {kAnn, kBob}};
  node.open(kTrain);
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{AttachWorker{kBob, kTrain}});

  CHECK(node.tell(BacklogSeen{kTrain, 1}, kLater) == WorkerActions{AttachWorker{kAnn, kTrain}});
}

TEST_CASE("a resting worker serves its own class's next task without any order") {
  Node node{2, {kAnn, kBob}};
  node.open(kTrain);
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{AttachWorker{kBob, kTrain}});
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(WorkerIdle{kBob});

  CHECK(node.tell(BacklogSeen{kTrain, 1}, kLater) == WorkerActions{});
}

TEST_CASE("a worker holds its class's demand while it is attached") {
  Node node{amounts({{"CPU", 4}, {"GPU", 1}}), {kAnn, kBob}, 8};
  node.open(kTrain, amounts({{"CPU", 1}, {"GPU", 0.5}}));

  node.tell(BacklogSeen{kTrain, 1});

  CHECK(node.allotment.free() == amounts({{"CPU", 3}, {"GPU", 0.5}}));
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(WorkerGone{kBob});
  CHECK(node.allotment.free() == amounts({{"CPU", 4}, {"GPU", 1}}));
}

TEST_CASE("an idle attached worker stays until another class wants its resources") {
  Node node{1, {kAnn}};
  node.tell(PoolLimits{/*workers_warm=*/1, 8});
  node.open(kTrain);
  node.open(kServe);
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{AttachWorker{kAnn, kTrain}});
  node.tell(BacklogSeen{kTrain, 0});

  CHECK(node.tell(WorkerIdle{kAnn}) == WorkerActions{});
  CHECK(node.tell(Tick{}, kStart + 60s) == WorkerActions{});
  CHECK(node.tell(BacklogSeen{kServe, 1}, kStart + 60s) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.allotment.view(kTrain)->leaving == 1);
  CHECK(node.allotment.free().units("CPU") == 0);
  CHECK(node.tell(WorkerIdle{kAnn}, kStart + 60s) == WorkerActions{AttachWorker{kAnn, kServe}});
}

TEST_CASE("a resting worker whose own class has a waiting task is left to it") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 1});
  REQUIRE(node.tell(WorkerIdle{kAnn}) == WorkerActions{});

  CHECK(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{});
  CHECK(node.tell(BacklogSeen{kTrain, 0}) == WorkerActions{DetachWorker{kAnn}});
}

TEST_CASE("an idle attached worker is detached when another class wants its place") {
  Node node{4, {kAnn}, /*workers_max=*/1};
  node.open(kTrain);
  node.open(kServe);
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{AttachWorker{kAnn, kTrain}});
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(WorkerIdle{kAnn});

  CHECK(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{});
  CHECK(node.tell(WorkerIdle{kAnn}) == WorkerActions{AttachWorker{kAnn, kServe}});
}

TEST_CASE("a blocked worker lends its CPU, and nothing but its CPU") {
  Node node{amounts({{"CPU", 1}, {"GPU", 1}}), {kAnn, kBob}, 8};
  node.open(kTrain, amounts({{"CPU", 1}, {"GPU", 1}}));
  node.open(kServe);
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{AttachWorker{kBob, kTrain}});
  REQUIRE(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{});

  CHECK(node.tell(WorkerBlocked{kBob}) == WorkerActions{AttachWorker{kAnn, kServe}});
  CHECK(node.allotment.free() == ResourceAmounts{});
}

TEST_CASE("a worker that waits for what needs its resources lends them all until it goes on") {
  const ResourceAmounts lamp = amounts({{"CPU", 1}, {"lamp", 1}});
  Node node{amounts({{"CPU", 2}, {"lamp", 1}}), {kAnn, kBob}, 8};
  node.open(kTrain, lamp);
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(WorkerBlocked{kBob});
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}, kLater) == WorkerActions{});
  CHECK(node.allotment.blocked_holders(kTrain) == std::vector{kBob});

  CHECK(node.tell(WorkerStuck{kBob}, kLater) == WorkerActions{AttachWorker{kAnn, kTrain}});
  CHECK(node.allotment.blocked_holders(kTrain).empty());
  // It takes one task, and no more.
  CHECK(node.tell(Tick{}, kLater + WorkerAllotment::kSettling) ==
        WorkerActions{DetachWorker{kAnn}});
  node.tell(WorkerUnblocked{kBob}, kMuchLater);
  CHECK(node.allotment.free().units("lamp") == -ResourceAmounts::kUnitsPerOne);
  node.tell(BacklogSeen{kTrain, 0}, kMuchLater);
  node.tell(WorkerIdle{kAnn}, kMuchLater);
  CHECK(node.allotment.free().units("lamp") == 0);
}

TEST_CASE("a worker that is not blocked is never taken for stuck") {
  Node node{amounts({{"CPU", 2}, {"lamp", 1}}), {kAnn, kBob}, 8};
  node.open(kTrain, amounts({{"CPU", 1}, {"lamp", 1}}));
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(BacklogSeen{kTrain, 1}, kLater);

  CHECK(node.allotment.blocked_holders(kTrain).empty());
  CHECK(node.tell(WorkerStuck{kBob}, kLater) == WorkerActions{});
  CHECK(node.allotment.free().units("lamp") == 0);
}

TEST_CASE("unblocking takes the CPU back at once, and resting workers mend the surplus") {
  Node node{1, {kAnn, kBob}};
  node.open(kTrain);
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(BacklogSeen{kServe, 1});
  REQUIRE(node.tell(WorkerBlocked{kBob}) == WorkerActions{AttachWorker{kAnn, kServe}});
  node.tell(BacklogSeen{kServe, 0});

  CHECK(node.tell(WorkerUnblocked{kBob}) == WorkerActions{});
  CHECK(node.allotment.free().units("CPU") == -10'000);
  CHECK(node.tell(WorkerIdle{kAnn}) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}) == WorkerActions{});
  CHECK(node.allotment.free().units("CPU") == 0);
}

TEST_CASE("a surplus that lasts is mended by a busy worker that leaves after its task") {
  Node node{1, {kAnn, kBob}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 100});
  REQUIRE(node.tell(WorkerBlocked{kBob}) == WorkerActions{AttachWorker{kAnn, kTrain}});
  REQUIRE(node.tell(WorkerUnblocked{kBob}) == WorkerActions{});

  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{});
}

TEST_CASE("when all workers are blocked, another one is started for the backlog") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  REQUIRE(node.tell(BacklogSeen{kTrain, 5}) == WorkerActions{AttachWorker{kAnn, kTrain}});

  CHECK(node.tell(WorkerBlocked{kAnn}) == WorkerActions{StartWorker{}});
  CHECK(node.tell(WorkerReady{kBob, {}}) == WorkerActions{AttachWorker{kBob, kTrain}});
  CHECK(node.tell(WorkerBlocked{kBob}) == WorkerActions{StartWorker{}});
}

TEST_CASE("an exhausted pool is reported once per episode") {
  Node node{1, {kAnn, kBob}, /*workers_max=*/2};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 5});
  REQUIRE(node.tell(WorkerBlocked{kBob}) == WorkerActions{AttachWorker{kAnn, kTrain}});

  CHECK(node.tell(WorkerBlocked{kAnn}) == WorkerActions{PoolExhausted{kTrain}});
  CHECK(node.tell(BacklogSeen{kTrain, 6}) == WorkerActions{});
  CHECK(node.allotment.explain(kTrain) ==
        "waits for a worker: 2 of at most 2 exist (2 blocked, 0 of actors, 0 about to come free)");

  node.tell(BacklogSeen{kTrain, 0});
  CHECK(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{PoolExhausted{kTrain}});
}

TEST_CASE("starting workers are counted, so that the same backlog never starts them twice") {
  Node node{2};
  node.open(kTrain);

  CHECK(node.tell(BacklogSeen{kTrain, 100}) == WorkerActions{StartWorker{}, StartWorker{}});
  CHECK(node.tell(BacklogSeen{kTrain, 200}) == WorkerActions{});
  CHECK(node.allotment.pool() == WorkerAllotment::PoolView{0, 0, 2});
  CHECK(node.allotment.explain(kTrain) == "waits for a worker: 2 starting");
}

TEST_CASE("the pool never grows beyond workers_max") {
  Node node{4, {}, /*workers_max=*/1};
  node.open(kTrain);

  CHECK(node.tell(BacklogSeen{kTrain, 100}) == WorkerActions{StartWorker{}});
}

TEST_CASE("warm workers are started before there is any work, and kept afterwards") {
  WorkerAllotment allotment;
  CHECK(allotment.step(PoolLimits{2, 8}, kStart) == WorkerActions{});

  CHECK(allotment.step(NodeCapacity{amounts({{"CPU", 2}})}, kStart) ==
        WorkerActions{StartWorker{}, StartWorker{}});
  for (const WorkerId worker : {kAnn, kBob, kCid}) {
    CHECK(allotment.step(WorkerReady{worker, {}}, kStart) == WorkerActions{});
  }
  CHECK(allotment.step(Tick{}, kStart + WorkerAllotment::kIdleKept) ==
        WorkerActions{RetireWorker{kAnn}});
  CHECK(allotment.step(Tick{}, kStart + 100s) == WorkerActions{});
  CHECK(allotment.step(WorkerGone{kBob}, kStart + 100s) == WorkerActions{StartWorker{}});
}

TEST_CASE("resting workers beyond the warm ones leave their classes and retire") {
  Node node{3, {kAnn, kBob, kCid}};
  node.tell(PoolLimits{1, 8});
  node.open(kTrain);
  node.open(kServe, amounts({{"CPU", 0.5}}));
  node.tell(BacklogSeen{kTrain, 2});
  node.tell(BacklogSeen{kServe, 1});
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(BacklogSeen{kServe, 0});
  node.tell(WorkerIdle{kAnn}, kStart + 1s);
  node.tell(WorkerIdle{kBob}, kStart + 2s);
  node.tell(WorkerIdle{kCid});
  CHECK(node.allotment.has_surplus());

  constexpr Time kOver = kStart + 1s + WorkerAllotment::kIdleKept;
  CHECK(node.tell(Tick{}, kOver - 1ns) == WorkerActions{DetachWorker{kCid}});
  CHECK(node.tell(Tick{}, kOver) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, kOver) == WorkerActions{RetireWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kCid}, kOver) == WorkerActions{RetireWorker{kCid}});
  CHECK(node.tell(Tick{}, kOver + 100s) == WorkerActions{});  // the last one stays warm
  CHECK_FALSE(node.allotment.has_surplus());
}

TEST_CASE("a worker that has worked meanwhile is not surplus yet") {
  Node node{2, {kAnn, kBob}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(WorkerIdle{kBob});
  constexpr Time kOver = kStart + WorkerAllotment::kIdleKept;

  CHECK(node.tell(WorkerWorked{kBob}, kOver) == WorkerActions{RetireWorker{kAnn}});
  node.tell(WorkerIdle{kBob}, kOver);
  CHECK(node.tell(Tick{}, kOver + 1s) == WorkerActions{});
  CHECK(node.tell(Tick{}, 2 * kOver) == WorkerActions{DetachWorker{kBob}});
}

TEST_CASE("a surplus worker that leaves its class goes to one that wants it") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(WorkerIdle{kAnn});
  constexpr Time kOver = kStart + WorkerAllotment::kIdleKept;
  REQUIRE(node.tell(Tick{}, kOver) == WorkerActions{DetachWorker{kAnn}});

  CHECK(node.tell(BacklogSeen{kServe, 1}, kOver) == WorkerActions{});
  CHECK(node.tell(WorkerIdle{kAnn}, kOver) == WorkerActions{AttachWorker{kAnn, kServe}});
}

TEST_CASE("a spent worker is replaced when its task is done") {
  Node node{2, {kAnn, kBob}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 1});

  CHECK(node.tell(WorkerSpent{kBob}, kLater) ==
        WorkerActions{DetachWorker{kBob}, AttachWorker{kAnn, kTrain}});
  CHECK(node.tell(WorkerSpent{kBob}, kLater) == WorkerActions{});
  CHECK(node.tell(WorkerIdle{kBob}, kLater) == WorkerActions{RetireWorker{kBob}});
  node.tell(BacklogSeen{kTrain, 1}, kLater + WorkerAllotment::kSettling);
  CHECK(node.allotment.pool().starting == 1);
}

TEST_CASE("a class whose task ran out of memory gets one more worker after each pause") {
  Node node{3, {kAnn, kBob, kCid}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 9});
  const auto starts = [&](Time now) {
    node.tell(BacklogSeen{kTrain, 9}, now);
    return node.allotment.pool().starting;
  };

  node.tell(WorkerGone{kAnn, /*out_of_memory=*/true}, kLater);
  node.tell(WorkerGone{kBob, /*out_of_memory=*/true}, kLater);
  CHECK(starts(kLater + 1s) == 0);  // Cid goes on alone
  CHECK(node.allotment.explain(kTrain) ==
        "is held back to 1 worker, since with more of them its tasks ran out of memory");
  CHECK(starts(kLater + WorkerAllotment::kHeldBack) == 0);  // the pause has doubled
  CHECK(starts(kLater + 2 * WorkerAllotment::kHeldBack) == 1);
  CHECK(starts(kLater + 4 * WorkerAllotment::kHeldBack) == 2);
}

TEST_CASE("a class that ran out of memory always keeps one worker, and starts anew once idle") {
  Node node{2, {kAnn, kBob}};
  node.open(kTrain);
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{AttachWorker{kBob, kTrain}});

  CHECK(node.tell(WorkerGone{kBob, /*out_of_memory=*/true}, kLater) ==
        WorkerActions{AttachWorker{kAnn, kTrain}});
  node.tell(BacklogSeen{kTrain, 0}, kLater);
  node.tell(WorkerIdle{kAnn}, kLater);
  node.tell(Tick{}, kLater + WorkerAllotment::kHeldBack);
  node.tell(BacklogSeen{kTrain, 2}, kLater + WorkerAllotment::kHeldBack);
  CHECK(node.allotment.pool().starting == 1);
}

TEST_CASE("failed starts are tried again after a pause that doubles") {
  Node node{1};
  node.open(kTrain);
  REQUIRE(node.tell(BacklogSeen{kTrain, 1}) == WorkerActions{StartWorker{}});

  CHECK(node.tell(WorkerStartFailed{}) == WorkerActions{});
  CHECK(node.allotment.explain(kTrain) == "waits for a worker: the last 1 start failed");
  CHECK(node.tell(Tick{}, kStart + 99ms) == WorkerActions{});
  CHECK(node.tell(Tick{}, kStart + 100ms) == WorkerActions{StartWorker{}});
  CHECK(node.tell(WorkerStartFailed{}, kStart + 100ms) == WorkerActions{});
  CHECK(node.tell(Tick{}, kStart + 299ms) == WorkerActions{});
  CHECK(node.tell(Tick{}, kStart + 300ms) == WorkerActions{StartWorker{}});
}

TEST_CASE("a class without CPU demand gets at most two workers for each CPU") {
  Node node{1, {kAnn, kBob, kCid}};
  node.open(kTrain, {});

  CHECK(node.tell(BacklogSeen{kTrain, 50}).size() == 2);
  CHECK(node.tell(BacklogSeen{kTrain, 50}, kLater) == WorkerActions{});
  CHECK(node.allotment.explain(kTrain) ==
        "wants no CPU, and has 2 workers, the most for such a class here");
  CHECK(node.tell(WorkerBlocked{kCid}, kLater) == WorkerActions{AttachWorker{kAnn, kTrain}});
}

TEST_CASE("a demand beyond the node's capacity is rejected with a sentence that says why") {
  Node node{2};

  CHECK(node.tell(ClassOpened{kTrain, ClassKind::Task, amounts({{"GPU", 0.5}})}) ==
        WorkerActions{RejectClass{kTrain, "it wants GPU 0.5, but this node has 0 in all"}});
  CHECK(node.tell(BacklogSeen{kTrain, 5}) == WorkerActions{});
  CHECK(node.allotment.explain(kTrain) ==
        "can never run here: it wants GPU 0.5, but this node has 0 in all");
  CHECK(node.tell(ClassOpened{kServe, ClassKind::Actor, amounts({{"CPU", 3}})}) ==
        WorkerActions{RejectClass{kServe, "it wants CPU 3, but this node has 2 in all"}});
}

TEST_CASE("a class that was opened before the capacity was known is judged when it is") {
  WorkerAllotment allotment;
  CHECK(allotment.step(PoolLimits{0, 4}, kStart) == WorkerActions{});
  CHECK(allotment.step(ClassOpened{kTrain, ClassKind::Task, amounts({{"CPU", 2}})}, kStart) ==
        WorkerActions{});
  CHECK(allotment.explain(kTrain) == "waits until the node's capacity is known");

  CHECK(allotment.step(NodeCapacity{kOneCpu}, kStart) ==
        WorkerActions{RejectClass{kTrain, "it wants CPU 2, but this node has 1 in all"}});
}

TEST_CASE("a class that shrinking makes impossible is rejected, and its workers leave") {
  Node node{2, {kAnn}};
  node.open(kTrain, amounts({{"CPU", 2}}));
  node.tell(BacklogSeen{kTrain, 1});

  CHECK(node.tell(NodeCapacity{kOneCpu}) ==
        WorkerActions{RejectClass{kTrain, "it wants CPU 2, but this node has 1 in all"},
                      DetachWorker{kAnn}});
  node.tell(WorkerIdle{kAnn});
  CHECK(node.allotment.free() == kOneCpu);
}

TEST_CASE("an actor holds its demand from the start order until its worker is gone") {
  Node node{1};

  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) ==
        WorkerActions{StartWorker{kPlay}});
  CHECK(node.allotment.free().units("CPU") == 0);
  CHECK(node.allotment.explain(kPlay) == "its worker is starting");
  CHECK(node.tell(WorkerReady{kAnn, kPlay}) == WorkerActions{AttachWorker{kAnn, kPlay}});
  CHECK(node.tell(WorkerIdle{kAnn}) == WorkerActions{});
  CHECK(node.allotment.explain(kPlay) == "its worker 11 takes its calls");
  CHECK(node.tell(WorkerGone{kAnn}) == WorkerActions{});
  CHECK(node.allotment.free().units("CPU") == 10'000);
  CHECK(node.allotment.explain(kPlay) == "its worker is gone");
}

TEST_CASE("opening an actor again after its worker is gone starts it again") {
  Node node{1};
  node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu});
  node.tell(WorkerReady{kAnn, kPlay});

  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) == WorkerActions{});
  node.tell(WorkerGone{kAnn});
  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) ==
        WorkerActions{StartWorker{kPlay}});
  CHECK(node.tell(WorkerStartFailed{kPlay}) == WorkerActions{});
  CHECK(node.allotment.free() == kOneCpu);
}

TEST_CASE("closing an actor retires its worker, also one that is still starting") {
  Node node{1};
  node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu});
  node.tell(WorkerReady{kAnn, kPlay});

  CHECK(node.tell(ClassClosed{kPlay}) == WorkerActions{RetireWorker{kAnn}});
  CHECK(node.allotment.free() == kOneCpu);
  node.tell(ClassOpened{kServe, ClassKind::Actor, kOneCpu});
  CHECK(node.tell(ClassClosed{kServe}) == WorkerActions{});
  CHECK(node.allotment.free() == kOneCpu);
  CHECK(node.tell(WorkerReady{kBob, kServe}) == WorkerActions{RetireWorker{kBob}});
}

TEST_CASE("closing a task class lets its workers finish, and keeps their resources until then") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 3});

  CHECK(node.tell(ClassClosed{kTrain}) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.allotment.free().units("CPU") == 0);
  CHECK(node.allotment.explain(kTrain) == "is closed, and its last workers finish their tasks");
  CHECK(node.tell(WorkerIdle{kAnn}) == WorkerActions{});
  CHECK(node.allotment.free() == kOneCpu);
  CHECK_FALSE(node.allotment.view(kTrain).has_value());
}

TEST_CASE("a waiting actor gets the CPU of an idle attached worker at once") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(BacklogSeen{kTrain, 0});
  node.tell(WorkerIdle{kAnn});

  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) ==
        WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(BacklogSeen{kTrain, 9}) == WorkerActions{});
  CHECK(node.tell(WorkerIdle{kAnn}) == WorkerActions{StartWorker{kPlay}});
}

TEST_CASE("a waiting actor gets the CPU of a busy task worker after patience") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 100});

  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) == WorkerActions{});
  CHECK(node.allotment.explain(kPlay) == "waits for CPU 1: 1 of 1 is held by class 1 (1 worker)");
  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, kMuchLater) == WorkerActions{StartWorker{kPlay}});
}

TEST_CASE("a small actor passes a large one that waits for another actor's end") {
  Node node{3};
  node.tell(ClassOpened{kTrain, ClassKind::Actor, amounts({{"CPU", 2}})});
  CHECK(node.tell(ClassOpened{kServe, ClassKind::Actor, amounts({{"CPU", 2}})}) == WorkerActions{});

  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) ==
        WorkerActions{StartWorker{kPlay}});
  CHECK(node.allotment.explain(kServe) ==
        "waits for CPU 2: all 3 are held by class 1 (starting), class 3 (starting)");
}

TEST_CASE("a small actor does not take what tasks are about to give to a large one") {
  Node node{2, {kAnn}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(ClassOpened{kServe, ClassKind::Actor, amounts({{"CPU", 2}})});

  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) == WorkerActions{});
  CHECK(node.allotment.explain(kPlay) ==
        "waits for its turn: what is free is kept for class 2 first");
  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, kMuchLater) == WorkerActions{StartWorker{kServe}});
}

TEST_CASE("an actor takes the place of an idle worker when the pool is full") {
  Node node{2, {kAnn}, /*workers_max=*/1};

  CHECK(node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu}) ==
        WorkerActions{RetireWorker{kAnn}});
  CHECK(node.tell(Tick{}) == WorkerActions{});
  CHECK(node.tell(WorkerGone{kAnn}) == WorkerActions{StartWorker{kPlay}});
}

TEST_CASE("an actor that finds the pool full of actors is reported") {
  Node node{2, {}, /*workers_max=*/1};
  node.tell(ClassOpened{kPlay, ClassKind::Actor, kOneCpu});
  node.tell(WorkerReady{kAnn, kPlay});

  CHECK(node.tell(ClassOpened{kServe, ClassKind::Actor, kOneCpu}) ==
        WorkerActions{PoolExhausted{kServe}});
  CHECK(node.tell(Tick{}) == WorkerActions{});
}

TEST_CASE("a class that gets nothing for a while takes a busy worker, and loses it the same way") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 1000});
  REQUIRE(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{});

  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, kMuchLater) == WorkerActions{AttachWorker{kAnn, kServe}});
  CHECK(node.tell(Tick{}, kMuchLater + 19ms) == WorkerActions{});
  CHECK(node.tell(Tick{}, kMuchLater + 20ms) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, kMuchLater + 20ms) ==
        WorkerActions{AttachWorker{kAnn, kTrain}});
}

TEST_CASE("a worker has its turn with a class before the next starving class may ask for it") {
  Node node{1, {kAnn}};
  node.open(kTrain);
  node.open(kServe);
  node.open(kPlay);
  node.tell(BacklogSeen{kTrain, 9});
  node.tell(BacklogSeen{kServe, 9});
  node.tell(BacklogSeen{kPlay, 9});
  REQUIRE(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kAnn}});

  CHECK(node.tell(WorkerIdle{kAnn}, kMuchLater) == WorkerActions{AttachWorker{kAnn, kServe}});
  CHECK(node.tell(Tick{}, kMuchLater + 19ms) == WorkerActions{});
  CHECK(node.tell(Tick{}, kMuchLater + 20ms) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, kMuchLater + 20ms) == WorkerActions{AttachWorker{kAnn, kPlay}});
}

TEST_CASE("a pool that is about to grow is not exhausted") {
  Node node{2, {kAnn}, /*workers_max=*/2};
  node.open(kTrain);
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(WorkerBlocked{kAnn});
  REQUIRE(node.tell(WorkerStartFailed{}) == WorkerActions{});

  CHECK(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{});
}

TEST_CASE("a large demand collects the workers of small ones, which do not get them back before") {
  Node node{2, {kAnn, kBob}};
  node.open(kTrain);
  node.open(kServe, amounts({{"CPU", 2}}));
  node.tell(BacklogSeen{kTrain, 1000});
  node.tell(BacklogSeen{kServe, 1});

  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kAnn}, DetachWorker{kBob}});
  CHECK(node.tell(WorkerIdle{kAnn}, kMuchLater) == WorkerActions{});
  CHECK(node.tell(WorkerIdle{kBob}, kMuchLater) == WorkerActions{AttachWorker{kBob, kServe}});
}

TEST_CASE("two classes with equal backlogs end up with equal shares") {
  const std::vector<WorkerId> workers = {{1}, {2}, {3}, {4}};
  Node node{4, workers};
  node.open(kTrain);
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 1000});
  node.tell(BacklogSeen{kServe, 1000});
  REQUIRE(node.allotment.view(kTrain)->workers == 4);

  int moves = 0;
  for (Time now = kStart; now < kStart + 1s; now += 10ms) {
    for (const WorkerAction& action : node.tell(Tick{}, now)) {
      const auto* detached = std::get_if<DetachWorker>(&action);
      REQUIRE(detached != nullptr);
      ++moves;
      REQUIRE(node.tell(WorkerIdle{detached->worker}, now).size() == 1);
    }
  }

  CHECK(node.allotment.view(kTrain)->workers == 2);
  CHECK(node.allotment.view(kServe)->workers == 2);
  CHECK(moves == 2);
}

TEST_CASE("the explanation names what is lacking and who holds it") {
  Node node{2, {kAnn, kBob}};
  node.open(kPlay);
  node.open(kTrain);
  node.tell(BacklogSeen{kPlay, 9});
  node.tell(BacklogSeen{kTrain, 1});

  CHECK(node.allotment.explain(kTrain) == "waits for CPU 1: all 2 are held by class 3 (2 workers)");
  CHECK(node.allotment.explain(ClassId{99}) == "is not open on this node");
  node.tell(BacklogSeen{kTrain, 0});
  CHECK(node.allotment.explain(kTrain) == "has no waiting tasks");
}

TEST_CASE("a share bounds what is given, and not what could ever be asked for") {
  Node node{2, {kAnn, kBob}};
  node.tell(ShareChanged{kOneCpu});
  node.open(kTrain);
  node.open(kServe, amounts({{"CPU", 2}}));  // not refused: the share may grow

  CHECK(node.tell(BacklogSeen{kTrain, 9}) == WorkerActions{AttachWorker{kBob, kTrain}});
  CHECK(node.tell(BacklogSeen{kTrain, 9}, kLater) == WorkerActions{});
  CHECK(node.tell(ShareChanged{amounts({{"CPU", 2}})}, kLater) ==
        WorkerActions{AttachWorker{kAnn, kTrain}});
}

TEST_CASE("a share that falls takes resting workers at once and busy ones after a while") {
  Node node{2, {kAnn, kBob}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 2});
  node.tell(BacklogSeen{kTrain, 0}, kLater);
  node.tell(WorkerIdle{kAnn}, kLater);

  CHECK(node.tell(ShareChanged{}, kLater) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.allotment.is_overdrawn());
  CHECK(node.tell(Tick{}, kLater + WorkerAllotment::kPatience) ==
        WorkerActions{DetachWorker{kBob}});
}

TEST_CASE("a claim is what runs and what waits, up to what the node has") {
  Node node{amounts({{"CPU", 4}, {"GPU", 1}}), {kAnn, kBob}, 8};
  node.tell(ShareChanged{amounts({{"CPU", 2}, {"GPU", 1}})});
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 2});
  node.tell(BacklogSeen{kTrain, 1}, kLater);
  CHECK(node.allotment.claim(kLater) ==
        WorkerAllotment::Claim{amounts({{"CPU", 3}}), {}, {}, amounts({{"CPU", 2}})});

  node.tell(BacklogSeen{kTrain, 100}, kLater);
  node.tell(ClassOpened{kPlay, ClassKind::Actor, amounts({{"GPU", 1}})}, kLater);

  const auto claim = node.allotment.claim(kLater);
  CHECK(claim.wanted == amounts({{"CPU", 4}, {"GPU", 1}}));
  CHECK(claim.firm == amounts({{"GPU", 1}}));  // its process is starting
}

TEST_CASE("what rests is not claimed, and what blocked tasks keep is claimed for good") {
  Node node{amounts({{"CPU", 2}, {"GPU", 1}}), {kAnn, kBob}, 8};
  node.open(kTrain);
  node.open(kServe, amounts({{"CPU", 1}, {"GPU", 1}}));
  node.tell(BacklogSeen{kTrain, 1});
  node.tell(BacklogSeen{kServe, 1});
  node.tell(BacklogSeen{kTrain, 0}, kLater);
  node.tell(BacklogSeen{kServe, 0}, kLater);
  node.tell(WorkerIdle{kBob}, kLater);
  node.tell(WorkerBlocked{kAnn}, kLater);

  const auto claim = node.allotment.claim(kLater);

  CHECK(claim.wanted == amounts({{"GPU", 1}}));
  CHECK(claim.firm == amounts({{"GPU", 1}}));
  CHECK(claim.used == amounts({{"CPU", 1}, {"GPU", 1}}));
}

TEST_CASE("a demand that does not fit into the share is urgent after a while, the oldest first") {
  Node node{4, {kAnn}};
  node.tell(ShareChanged{kOneCpu});
  node.open(kServe, amounts({{"CPU", 3}}));
  node.open(kPlay, amounts({{"CPU", 2}}));
  node.tell(BacklogSeen{kServe, 1});
  node.tell(BacklogSeen{kPlay, 1}, kLater);
  CHECK(node.allotment.claim(kLater).urgent.empty());

  CHECK(node.allotment.claim(kMuchLater + 1s).urgent == amounts({{"CPU", 3}}));
  CHECK(node.allotment.explain(kServe) ==
        "waits for CPU 3: of the node's 4 this job may use 1 at present, and uses 0");
}

TEST_CASE("facts about workers and classes that are not known change nothing") {
  Node node{1, {kAnn}};
  const WorkerEvent events[] = {
      WorkerIdle{kBob},    WorkerBlocked{kBob},    WorkerUnblocked{kBob}, WorkerGone{kBob},
      ClassClosed{kServe}, BacklogSeen{kServe, 7}, WorkerBlocked{kAnn},   WorkerUnblocked{kAnn},
      WorkerIdle{kAnn},    WorkerReady{kAnn, {}},  WorkerStartFailed{},   WorkerStartFailed{kServe},
  };
  for (const WorkerEvent& event : events) {
    CAPTURE(event.index());
    CHECK(node.tell(event) == WorkerActions{});
    CHECK(node.allotment.pool() == WorkerAllotment::PoolView{1, 1, 0});
    CHECK(node.allotment.free() == kOneCpu);
  }
}

// ---- Priorities.

constexpr Time kTurnOver = kStart + WorkerAllotment::kPatience;

void open_with_priority(Node& node, ClassId cls, int priority) {
  REQUIRE(node.tell(ClassOpened{cls, ClassKind::Task, kOneCpu, priority}) == WorkerActions{});
}

TEST_CASE("an idle worker goes to the higher priority, however deep the backlog of the lower is") {
  Node node{2};
  open_with_priority(node, kTrain, 0);
  open_with_priority(node, kServe, 7);
  node.tell(BacklogSeen{kTrain, 1000});
  node.tell(BacklogSeen{kServe, 1});

  CHECK(node.tell(WorkerReady{kAnn, {}}) == WorkerActions{AttachWorker{kAnn, kServe}});
  CHECK(node.tell(WorkerReady{kBob, {}}) == WorkerActions{AttachWorker{kBob, kTrain}});
}

TEST_CASE("a higher priority takes all workers of a lower one, at once") {
  Node node{2, {kAnn, kBob}};
  open_with_priority(node, kTrain, -1);
  open_with_priority(node, kServe, 1);
  node.tell(BacklogSeen{kTrain, 1000});
  const Time soon = kStart + 1us;  // they have hardly been attached

  CHECK(node.tell(BacklogSeen{kServe, 1000}, soon) ==
        WorkerActions{DetachWorker{kAnn}, DetachWorker{kBob}});
  CHECK(node.tell(WorkerIdle{kAnn}, soon) == WorkerActions{AttachWorker{kAnn, kServe}});
  CHECK(node.tell(WorkerIdle{kBob}, soon) == WorkerActions{AttachWorker{kBob, kServe}});
}

TEST_CASE("a lower priority takes no worker of a higher one that has a backlog of its own") {
  Node node{2, {kAnn, kBob}};
  open_with_priority(node, kTrain, 0);
  open_with_priority(node, kServe, 1);
  node.tell(BacklogSeen{kServe, 1});
  node.tell(BacklogSeen{kTrain, 1000});
  REQUIRE(node.allotment.view(kServe)->workers == 1);

  node.tell(BacklogSeen{kServe, 1}, kLater);  // it has settled, and a task still waits
  for (Time at = kTurnOver; at < kStart + WorkerAllotment::kOutranked; at += 5ms) {
    for (const WorkerAction& action : node.tell(Tick{}, at)) {
      const auto* detached = std::get_if<DetachWorker>(&action);
      REQUIRE((detached && detached->worker == kAnn));  // the one that kTrain has
    }
  }
}

TEST_CASE("a lower priority without a worker gets one for a turn, once it has waited for long") {
  Node node{1, {kAnn}};
  open_with_priority(node, kTrain, 0);
  open_with_priority(node, kServe, 1);
  node.tell(BacklogSeen{kServe, 1000});
  node.tell(BacklogSeen{kTrain, 1000});
  REQUIRE(node.allotment.view(kServe)->workers == 1);

  const Time turn = kStart + WorkerAllotment::kOutranked;
  CHECK(node.tell(Tick{}, turn - 1ms) == WorkerActions{});
  CHECK(node.tell(Tick{}, turn) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, turn) == WorkerActions{AttachWorker{kAnn, kTrain}});
  CHECK(node.tell(Tick{}, turn + WorkerAllotment::kPatience - 1ms) == WorkerActions{});
  CHECK(node.tell(Tick{}, turn + WorkerAllotment::kPatience) == WorkerActions{DetachWorker{kAnn}});
  CHECK(node.tell(WorkerIdle{kAnn}, turn + WorkerAllotment::kPatience) ==
        WorkerActions{AttachWorker{kAnn, kServe}});
}

TEST_CASE("a lower priority takes over as always when the higher one has nothing that waits") {
  Node node{1, {kAnn}};
  open_with_priority(node, kTrain, 0);
  open_with_priority(node, kServe, 1);
  node.tell(BacklogSeen{kServe, 1});
  node.tell(BacklogSeen{kServe, 0});
  node.tell(BacklogSeen{kTrain, 5});

  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kAnn}});
}

// ---- Environments.

constexpr EnvironmentId kElsewhere{7};

TEST_CASE("workers serve classes of their own environment only") {
  Node node{3, {kAnn}};
  node.open(kTrain);
  REQUIRE(node.tell(ClassOpened{kServe, ClassKind::Task, kOneCpu, 0, kElsewhere}) ==
          WorkerActions{});

  CHECK(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{StartWorker{std::nullopt, kElsewhere}});
  CHECK(node.tell(WorkerReady{kBob, {}, kElsewhere}) == WorkerActions{AttachWorker{kBob, kServe}});
  node.tell(BacklogSeen{kServe, 0});
  node.tell(WorkerIdle{kBob});
  CHECK(node.tell(BacklogSeen{kTrain, 2}) ==
        WorkerActions{AttachWorker{kAnn, kTrain}, StartWorker{}});
}

TEST_CASE("a worker of another environment ends when it is not needed, and a warm one stays") {
  Node node{2, {kAnn}};
  node.tell(PoolLimits{1, 8});
  node.open(kTrain);
  REQUIRE(node.tell(ClassOpened{kServe, ClassKind::Task, kOneCpu, 0, kElsewhere}) ==
          WorkerActions{});
  node.tell(BacklogSeen{kServe, 1});
  node.tell(WorkerReady{kBob, {}, kElsewhere});
  node.tell(BacklogSeen{kServe, 0});
  node.tell(WorkerIdle{kBob});
  REQUIRE(node.allotment.has_surplus());

  const Time over = kStart + WorkerAllotment::kIdleKept;
  CHECK(node.tell(Tick{}, over) == WorkerActions{DetachWorker{kBob}});
  CHECK(node.tell(WorkerIdle{kBob}, over) == WorkerActions{RetireWorker{kBob}});
  node.tell(WorkerGone{kBob}, over);
  CHECK_FALSE(node.allotment.has_surplus());
}

TEST_CASE("in a full pool an idle worker of another environment makes place") {
  Node node{2, {kAnn}, /*workers_max=*/1};
  REQUIRE(node.tell(ClassOpened{kServe, ClassKind::Task, kOneCpu, 0, kElsewhere}) ==
          WorkerActions{});

  CHECK(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{RetireWorker{kAnn}});
  CHECK(node.tell(WorkerGone{kAnn}) == WorkerActions{StartWorker{std::nullopt, kElsewhere}});
}

// ---- Placement groups.

constexpr ClassId kGroup{7};

ClassOpened group_of(const Bundles& bundles, ClassId id = kGroup) {
  return {id, ClassKind::Group, sum_of(bundles), 0, {}, {}, offer_of(id.value, bundles)};
}
ClassOpened member(ClassId cls, ClassKind kind, const ResourceAmounts& demand,
                   std::optional<std::uint32_t> bundle = {}) {
  return {cls, kind, demand_in(kGroup.value, bundle, demand), 0, {}, kGroup};
}

TEST_CASE("a group is granted all it demands, and others do not get that any more") {
  Node node{3, {kAnn, kBob, kCid}};

  CHECK(node.tell(group_of({kOneCpu, kOneCpu})) == WorkerActions{GrantGroup{kGroup}});

  CHECK(of_node(node.allotment.free()) == kOneCpu);
  node.open(kTrain);
  CHECK(node.tell(BacklogSeen{kTrain, 3}) == WorkerActions{AttachWorker{kCid, kTrain}});
  CHECK(node.allotment.explain(kTrain) ==
        "waits for CPU 1: all 3 are held by class 1 (1 worker), class 7 (for its bundles)");
}

TEST_CASE("tasks of a group are served from its bundles, and from nothing else") {
  Node node{4, {kAnn, kBob, kCid}};
  node.tell(group_of({kOneCpu, kOneCpu}));
  node.tell(member(kTrain, ClassKind::Task, kOneCpu, 1));
  node.tell(member(kServe, ClassKind::Task, kOneCpu));

  CHECK(node.tell(BacklogSeen{kTrain, 5}) == WorkerActions{AttachWorker{kCid, kTrain}});
  CHECK(node.tell(BacklogSeen{kServe, 5}) == WorkerActions{AttachWorker{kBob, kServe}});

  CHECK(node.allotment.explain(kTrain) ==
        "waits for CPU 1 of the group's bundles: all 2 are held by class 1 (1 worker), class 2 (1 "
        "worker)");
  CHECK(of_node(node.allotment.free()) == amounts({{"CPU", 2}}));
}

TEST_CASE("a group waits for all of it, is given what tasks leave, and its tasks wait for it") {
  Node node{2, {kAnn, kBob, kCid}};
  node.open(kTrain);
  node.tell(BacklogSeen{kTrain, 9});

  CHECK(node.tell(group_of({kOneCpu, kOneCpu})) == WorkerActions{});
  node.tell(member(kServe, ClassKind::Task, {}));
  CHECK(node.tell(BacklogSeen{kServe, 1}) == WorkerActions{});
  CHECK(node.allotment.explain(kServe) ==
        "waits for its placement group, class 7, which waits for CPU 2: all 2 are held by class 1 "
        "(2 workers)");

  CHECK(node.tell(Tick{}, kMuchLater) == WorkerActions{DetachWorker{kBob}, DetachWorker{kCid}});
  CHECK(node.tell(WorkerIdle{kBob}, kMuchLater) == WorkerActions{});
  CHECK(node.tell(WorkerIdle{kCid}, kMuchLater) ==
        WorkerActions{GrantGroup{kGroup}, AttachWorker{kCid, kServe}});
}

TEST_CASE("a small group passes a large one that waits for an actor's end") {
  Node node{3};
  node.tell(ClassOpened{kPlay, ClassKind::Actor, amounts({{"CPU", 2}})});

  CHECK(node.tell(group_of({amounts({{"CPU", 2}})})) == WorkerActions{});
  CHECK(node.tell(group_of({kOneCpu}, {8})) == WorkerActions{GrantGroup{{8}}});
}

TEST_CASE("a demand beyond its bundle, or of a group that is gone, is rejected with a sentence") {
  Node node{4};
  node.tell(group_of({kOneCpu, kOneCpu}));

  CHECK(node.tell(member(kTrain, ClassKind::Task, amounts({{"CPU", 2}}), 0)) ==
        WorkerActions{RejectClass{kTrain, "it wants CPU 2 of bundle 0, but that has 1 in all"}});
  node.tell(ClassClosed{kGroup});
  CHECK(node.tell(member(kServe, ClassKind::Task, kOneCpu)) ==
        WorkerActions{RejectClass{kServe, "it is of a placement group that was removed"}});
}

TEST_CASE("a group that is closed keeps its resources until the last of its workers has left") {
  Node node{2, {kAnn}};
  node.tell(group_of({kOneCpu}));
  node.tell(member(kTrain, ClassKind::Task, kOneCpu));
  node.tell(BacklogSeen{kTrain, 2});

  CHECK(node.tell(ClassClosed{kGroup}) == WorkerActions{DetachWorker{kAnn}});
  CHECK(of_node(node.allotment.free()) == kOneCpu);
  CHECK(node.tell(BacklogSeen{kTrain, 2}) == WorkerActions{});

  node.tell(WorkerGone{kAnn});
  CHECK(node.allotment.free() == amounts({{"CPU", 2}}));
  CHECK_FALSE(node.allotment.view(kGroup).has_value());
}

TEST_CASE("an actor of a group holds its bundle, also after the group was closed, until it ends") {
  Node node{2};
  node.tell(group_of({kOneCpu}));
  CHECK(node.tell(member(kPlay, ClassKind::Actor, kOneCpu)) == WorkerActions{StartWorker{kPlay}});
  node.tell(WorkerReady{kAnn, kPlay});

  node.tell(ClassClosed{kGroup});
  CHECK(of_node(node.allotment.free()) == kOneCpu);
  node.tell(WorkerGone{kAnn});
  CHECK(node.allotment.free() == amounts({{"CPU", 2}}));
}

TEST_CASE("a task of a group that blocks lends its CPU to its group alone") {
  Node node{1, {kAnn, kBob}};
  node.tell(group_of({kOneCpu}));
  node.tell(member(kTrain, ClassKind::Task, kOneCpu));
  node.open(kServe);
  node.tell(BacklogSeen{kTrain, 2});
  node.tell(BacklogSeen{kServe, 1});

  CHECK(node.tell(WorkerBlocked{kBob}) == WorkerActions{AttachWorker{kAnn, kTrain}});
  CHECK(of_node(node.allotment.free()) == ResourceAmounts{});
}

TEST_CASE("what groups hold is firm in a claim, what one waits for is wanted, and urgent in time") {
  Node node{3};
  node.tell(group_of({kOneCpu}));
  node.tell(member(kTrain, ClassKind::Actor, kOneCpu));
  node.tell(ShareChanged{amounts({{"CPU", 2}})});
  node.tell(group_of({amounts({{"CPU", 2}})}, {8}));

  const WorkerAllotment::Claim claim = node.allotment.claim(kMuchLater);

  CHECK(claim.firm == kOneCpu);
  CHECK(claim.used == kOneCpu);
  CHECK(claim.wanted == amounts({{"CPU", 3}}));
  CHECK(claim.urgent == amounts({{"CPU", 2}}));
}

}  // namespace
}  // namespace mobula::core
