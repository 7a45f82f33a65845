#include "core/host_table.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

namespace mobula::core {
namespace {

using namespace std::chrono_literals;

const ActorName kDb{"default", "db"};
const ActorName kLog{"default", "log"};
constexpr AskerId kAnn{11};
constexpr AskerId kBob{12};
constexpr AskerId kCid{13};

// A table, and the orders that came of the last fact.
class Node {
 public:
  const std::vector<HostOrder>& tell(const HostEvent& event) {
    return orders_ = table_.step(event, now_);
  }
  const std::vector<HostOrder>& pass(Time time) {
    now_ += time;
    return tell(Tick{});
  }
  // The host that is started for who wants one.
  HostId start(AskerId asker, const ActorName& name, const std::string& about = "Db") {
    tell(HostWanted{asker, name, about});
    REQUIRE(orders_.size() == 1);
    return std::get<StartHost>(orders_[0]).host;
  }
  // Why this one has none; he is told once.
  NoHost refusal(AskerId asker, const std::string& words = {}) const {
    const TellNone* told = nullptr;
    for (const HostOrder& order : orders_) {
      const auto* none = std::get_if<TellNone>(&order);
      if (!none || none->asker != asker) continue;
      CHECK(told == nullptr);
      told = none;
    }
    REQUIRE(told != nullptr);
    CHECK(told->why.find(words) != std::string::npos);
    return told->reason;
  }
  const HostTable& table() const { return table_; }
  std::vector<HostOrder> orders() const { return orders_; }

 private:
  HostTable table_;
  Time now_{};
  std::vector<HostOrder> orders_;
};

}  // namespace

TEST_CASE("who wants a host is told when it is ready, and so are those who asked meanwhile") {
  Node node;
  const HostId host = node.start(kAnn, kDb);
  CHECK(node.tell(HostAskedFor{kBob, kDb}).empty());
  CHECK(!node.table().is_ready(host));

  node.tell(HostReady{host, "/folder"});

  CHECK(node.orders() == std::vector<HostOrder>{TellFound{kAnn, host, "/folder", "Db"},
                                                TellFound{kBob, host, "/folder", "Db"}});
  CHECK(node.tell(HostAskedFor{kCid, kDb}) ==
        std::vector<HostOrder>{TellFound{kCid, host, "/folder", "Db"}});
  CHECK(node.table().is_ready(host));
  CHECK(node.table().askers().empty());
  CHECK(!node.table().next_change());
}

TEST_CASE("of two creators of one name one is told that it exists, ready or not") {
  Node node;
  const HostId host = node.start(kAnn, kDb);
  node.tell(HostWanted{kBob, kDb, "Db"});
  CHECK(node.refusal(kBob, "\"db\" in the namespace \"default\"") == NoHost::Exists);
  node.tell(HostReady{host, "/folder"});
  node.tell(HostWanted{kBob, kDb, "Db"});
  CHECK(node.refusal(kBob) == NoHost::Exists);

  CHECK(node.start(kBob, kLog) != host);
  CHECK(node.start(kCid, {"another", "db"}) != host);
}

TEST_CASE("a name that nobody has is not found") {
  Node node;
  node.tell(HostAskedFor{kAnn, kDb});
  CHECK(node.refusal(kAnn, "there is no actor \"db\"") == NoHost::NotFound);
}

TEST_CASE("when a host comes to nothing its creator is told why, and the others to look again") {
  struct Row {
    const char* what;
    NoHost reason;
    const char* words;
    std::function<HostEvent(HostId)> fact;
    bool gone;  // the table knows it no more
  };
  const std::vector<Row> rows{
      {"no process", NoHost::NotStarted, "cannot start a detached actor: no memory",
       [](HostId id) { return HostNotStarted{id, "no memory"}; }, true},
      {"constructor", NoHost::Failed, "no such file",
       [](HostId id) { return HostFailed{id, 5, "no such file"}; }, false},
      {"its end", NoHost::NotStarted, "\"db\" in the namespace \"default\" was killed",
       [](HostId id) { return HostEnded{id, "was killed by signal 9"}; }, true},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    Node node;
    const HostId host = node.start(kAnn, kDb);
    node.tell(HostAskedFor{kBob, kDb});

    node.tell(row.fact(host));

    CHECK(node.refusal(kAnn, row.words) == row.reason);
    CHECK(node.refusal(kBob) == NoHost::Later);
    CHECK(node.orders().size() == 2);
    CHECK(node.table().knows(host) == !row.gone);
    CHECK(node.start(kBob, kDb) != host);  // the name is free
  }
}

TEST_CASE("the code of a failure is its creator's alone") {
  Node node;
  const HostId host = node.start(kAnn, kDb);
  node.tell(HostAskedFor{kBob, kDb});
  node.tell(HostFailed{host, 5, "why"});
  CHECK(std::get<TellNone>(node.orders()[0]).code == 5);
  CHECK(std::get<TellNone>(node.orders()[1]).code == 0);
}

TEST_CASE("a name is free when its actor is over, and the end of its host leaves the next one") {
  Node node;
  const HostId first = node.start(kAnn, kDb);
  node.tell(HostReady{first, "/first"});
  CHECK(node.tell(HostOver{first}).empty());
  node.tell(HostAskedFor{kBob, kDb});
  CHECK(node.refusal(kBob) == NoHost::NotFound);

  const HostId second = node.start(kBob, kDb);
  node.tell(HostReady{second, "/second"});
  CHECK(node.tell(HostOver{first}).empty());
  CHECK(node.tell(HostEnded{first, "ended with code 0"}).empty());

  CHECK(node.tell(HostAskedFor{kCid, kDb}) ==
        std::vector<HostOrder>{TellFound{kCid, second, "/second", "Db"}});
  CHECK(!node.table().knows(first));
  CHECK(!node.table().empty());
  node.tell(HostEnded{second, "ended with code 0"});
  CHECK(node.table().empty());
  CHECK(node.table().names().empty());
}

TEST_CASE("a host that does not get ready in time is killed, and those who wait are told") {
  Node node;
  const HostId slow = node.start(kAnn, kDb);
  const HostId ready = node.start(kBob, kLog);
  node.tell(HostReady{ready, "/log"});
  CHECK(node.table().next_change() == HostTable::kToGetReady);
  CHECK(node.pass(HostTable::kToGetReady - 1ns).empty());

  node.pass(1ns);

  CHECK(node.refusal(kAnn, "did not come to its Session") == NoHost::NotStarted);
  CHECK(node.orders().back() == HostOrder{KillHost{slow}});
  // Its name is taken until it has ended, so that two never have it.
  node.tell(HostWanted{kCid, kDb, "Db"});
  CHECK(node.refusal(kCid) == NoHost::Exists);
  CHECK(node.tell(HostEnded{slow, "was killed by signal 9"}).empty());
  node.start(kCid, kDb);
}

TEST_CASE("there are at most so many hosts, and so many who wait") {
  Node node;
  for (std::size_t i = 0; i < HostTable::kAskersMax; ++i)
    node.start({static_cast<int>(i)}, {"default", std::to_string(i)});
  const int next = static_cast<int>(HostTable::kAskersMax);
  node.tell(HostAskedFor{{next}, {"default", "0"}});
  CHECK(node.refusal({next}) == NoHost::Limit);
  node.tell(HostWanted{{next}, kDb, "Db"});
  CHECK(node.refusal({next}) == NoHost::Limit);
  node.tell(HostAskedFor{{next}, kDb});
  CHECK(node.refusal({next}) == NoHost::NotFound);  // nothing was begun
  for (std::uint32_t i = 1; i <= HostTable::kAskersMax; ++i) node.tell(HostReady{{i}, "/folder"});
  for (std::size_t i = HostTable::kAskersMax; i < HostTable::kHostsMax; ++i)
    node.tell(HostReady{node.start(kAnn, {"default", std::to_string(i)}), "/folder"});

  node.tell(HostWanted{kBob, kDb, "Db"});
  CHECK(node.refusal(kBob, "1024") == NoHost::Limit);
  node.tell(HostEnded{{1}, "ended with code 0"});
  node.start(kBob, kDb);
}

TEST_CASE("a node that ends begins no hosts, and still tells of those that it has") {
  Node node;
  const HostId host = node.start(kAnn, kDb);
  node.tell(NoMoreHosts{});
  node.tell(HostWanted{kBob, kLog, "Log"});
  CHECK(node.refusal(kBob, "the node is ending") == NoHost::NotStarted);
  CHECK(node.tell(HostReady{host, "/folder"}).size() == 1);
}

TEST_CASE("what is said of a host that is not known changes nothing") {
  Node node;
  for (const HostEvent& event :
       {HostEvent(HostNotStarted{{7}, "why"}), HostEvent(HostReady{{7}, "/"}),
        HostEvent(HostFailed{{7}, 1, "why"}), HostEvent(HostOver{{7}}),
        HostEvent(HostEnded{{7}, "how"}), HostEvent(Tick{})}) {
    CHECK(node.tell(event).empty());
  }
  CHECK(node.table().empty());
}

}  // namespace mobula::core
