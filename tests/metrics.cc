// Metrics as users meet them: added up over processes, kept beyond their deaths, read by
// Prometheus.
#include "support/scenario.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"

using namespace std::chrono_literals;
using mobula::actor;
using mobula::Counter;
using mobula::Gauge;
using mobula::Histogram;
using mobula::MetricKind;
using mobula::MetricSample;
using mobula::MetricTags;
using mobula::Ref;
using mobula::remote;
using mobula::test::Child;
using mobula::test::eventually;
using mobula::test::scaled;

namespace measured {

const Counter episodes("episodes_total", "that were simulated");  // before there is any session

int simulate(int times) {
  for (int i = 0; i < times; ++i) episodes.add();
  return times;
}
int count_by_tag(std::string route) {
  const Counter requests("requests_total", "that came", {{"host", "a"}});
  requests.with({{"route", route}}).add(2);
  return 0;
}
int observe(double value) {
  const Histogram seconds("task_seconds", "that tasks took", {0.1, 1, 10});
  seconds.observe(value);
  return 0;
}
int fail() { throw std::runtime_error("on purpose"); }
int nothing() { return 0; }

struct Queue {
  Gauge length{"queue_length", "of all queues"};
  Counter pushed{"pushed_total"};
  int push(int n) {
    pushed.add(n);
    length.add(n);
    return n;
  }
  int die() { return ::kill(::getpid(), SIGKILL); }
};

const Counter booked("booked_total");
const Histogram amounts("amounts", "that were booked", {10, 100});
struct Ledger {
  int balance = 0;
  int book(int amount) {
    booked.add();
    amounts.observe(amount);
    Gauge("balance").set(balance += amount);
    return balance;
  }
  int process() const { return ::getpid(); }
};

const MetricSample* find(const std::vector<MetricSample>& all, const std::string& name,
                         const MetricTags& tags = {}) {
  const auto it = std::find_if(all.begin(), all.end(), [&](const MetricSample& sample) {
    return sample.name == name && sample.tags == tags;
  });
  return it == all.end() ? nullptr : &*it;
}
double value_of(const std::string& name, const MetricTags& tags = {}) {
  const auto all = mobula::metrics();
  const MetricSample* sample = find(all, name, tags);
  return sample ? sample->value : -1;
}

// Two sessions of one process: what was counted in the first is not in the second.
int two_sessions(int argc, char** argv) {
  const Counter counter("in_each_session");
  counter.add(100);  // in none
  for (int session = 1; session <= 2; ++session) {
    const mobula::Session running(argc, argv, {.num_cpus = 1});
    counter.add(session);
    mobula::get(remote<simulate>(3));
    if (value_of("in_each_session") != session || value_of("episodes_total") != 3) return session;
  }
  counter.add(100);
  return 0;
}

}  // namespace measured
using namespace measured;

TEST_CASE("what all processes and threads count is added up") {
  const double before = std::max(0.0, value_of("episodes_total"));
  std::vector<Ref<int>> tasks;
  for (int i = 0; i < 20; ++i) tasks.push_back(remote<simulate>(1000));
  std::thread thread([] { simulate(5000); });
  simulate(5000);
  thread.join();
  mobula::get(tasks);

  CHECK(value_of("episodes_total") == before + 30'000);
  const auto all = mobula::metrics();
  const MetricSample* episodes_seen = find(all, "episodes_total");
  REQUIRE(episodes_seen != nullptr);
  CHECK(episodes_seen->kind == MetricKind::Counter);
  CHECK(episodes_seen->description == "that were simulated");
}

TEST_CASE("each set of tags is counted by itself") {
  std::vector<Ref<int>> tasks;
  for (int i = 0; i < 30; ++i) tasks.push_back(remote<count_by_tag>(i % 3 ? "/a" : "/b"));
  mobula::get(tasks);

  CHECK(value_of("requests_total", {{"host", "a"}, {"route", "/a"}}) == 40);
  CHECK(value_of("requests_total", {{"host", "a"}, {"route", "/b"}}) == 20);
  CHECK(value_of("requests_total", {{"host", "a"}}) == 0);
}

TEST_CASE("a dead process leaves its counters behind, and takes its gauges along") {
  const double pushed_before = std::max(0.0, value_of("pushed_total"));
  const auto stays = actor<Queue>();
  for (int round = 1; round <= 5; ++round) {
    const auto queue = actor<Queue>();
    mobula::get(stays.call<&Queue::push>(1), 20s);
    mobula::get(queue.call<&Queue::push>(10), 20s);
    CHECK(value_of("queue_length") == 10 + round);
    CHECK(value_of("pushed_total") == pushed_before + 11 * round);

    queue.call<&Queue::die>();
    mobula::get(mobula::monitor(queue), 20s);

    CHECK(value_of("queue_length") == round);
    CHECK(value_of("pushed_total") == pushed_before + 11 * round);
  }
}

TEST_CASE("a call that is replayed is not counted again, and sets its gauges") {
  const auto ledger =
      actor<Ledger>.with({.max_restarts = 1, .recovery = mobula::Recovery::Replay})();
  for (int i = 0; i < 5; ++i) mobula::get(ledger.call<&Ledger::book>(20), 20s);

  ::kill(mobula::get(ledger.call<&Ledger::process>(), 20s), SIGKILL);
  CHECK(mobula::get(ledger.call<&Ledger::process>(), 20s) > 0);

  CHECK(value_of("balance") == 100);
  CHECK(value_of("booked_total") == 5);
  CHECK(value_of("amounts") == 100);
  CHECK(mobula::get(ledger.call<&Ledger::book>(20), 20s) == 120);
  CHECK(value_of("booked_total") == 6);
}

TEST_CASE("a histogram tells how many values are up to each bound, and their sum") {
  std::vector<Ref<int>> tasks;
  for (const double value : {0.05, 0.1, 0.5, 5.0, 10.0, 11.0, 1000.0})
    tasks.push_back(remote<observe>(value));
  mobula::get(tasks);

  const auto all = mobula::metrics();
  const MetricSample* seconds = find(all, "task_seconds");
  REQUIRE(seconds != nullptr);
  CHECK(seconds->bounds == std::vector<double>{0.1, 1, 10});
  CHECK(seconds->counts == std::vector<std::uint64_t>{2, 1, 2, 2});
  CHECK(seconds->value == doctest::Approx(1026.65));
}

TEST_CASE("a metric that is made again and again is one") {
  for (int i = 0; i < 2000; ++i) {
    const Counter again("again_total");
    again.add();
  }
  CHECK(value_of("again_total") == 2000);
}

TEST_CASE("hundreds of metrics, more than one answer of the node holds, are all there") {
  std::vector<Counter> counters;
  for (int i = 0; i < 600; ++i) {
    counters.emplace_back("many_total", std::string(400, 'd'),
                          MetricTags{{"number", std::to_string(i)}});
    counters.back().add(i);
  }

  const auto all = mobula::metrics();
  for (int i = 0; i < 600; ++i) {
    const MetricSample* one = find(all, "many_total", {{"number", std::to_string(i)}});
    REQUIRE(one != nullptr);
    CHECK(one->value == i);
  }
}

TEST_CASE("the text is what Prometheus reads") {
  const std::vector<MetricSample> samples = {
      {"a_total", "with \\ and\nanother line", MetricKind::Counter, {}, 3, {}, {}},
      {"b", "", MetricKind::Gauge, {{"k", "say \"x\"\n\\"}}, -0.5, {}, {}},
      {"b", "", MetricKind::Gauge, {{"k", "2"}, {"l", "z"}}, 1e300, {}, {}},
      {"c", "seconds", MetricKind::Histogram, {{"t", "1"}}, 7.25, {0.5, 2}, {1, 0, 3}}};

  CHECK(mobula::to_prometheus(samples) ==
        "# HELP a_total with \\\\ and\\nanother line\n"
        "# TYPE a_total counter\n"
        "a_total 3\n"
        "# TYPE b gauge\n"
        "b{k=\"say \\\"x\\\"\\n\\\\\"} -0.5\n"
        "b{k=\"2\",l=\"z\"} 1e+300\n"
        "# HELP c seconds\n"
        "# TYPE c histogram\n"
        "c_bucket{t=\"1\",le=\"0.5\"} 1\n"
        "c_bucket{t=\"1\",le=\"2\"} 1\n"
        "c_bucket{t=\"1\",le=\"+Inf\"} 4\n"
        "c_sum{t=\"1\"} 7.25\n"
        "c_count{t=\"1\"} 4\n");
  mobula::get(remote<simulate>(1));
  CHECK(mobula::metrics_text().find("# TYPE episodes_total counter\nepisodes_total ") !=
        std::string::npos);
}

TEST_CASE("names, tags, bounds and values without sense are refused") {
  for (const char* name :
       {"", "1st", "with blank", "dash-ed", "\xc3\xa4", "mobula_own", "new\nline"})
    CHECK_THROWS_AS(Counter{name}, mobula::Error);
  CHECK_THROWS_AS(Counter(std::string(101, 'x')), mobula::Error);
  CHECK_THROWS_AS(Counter("long_text", std::string(501, 'x')), mobula::Error);
  for (const char* key : {"", "a-b", "__a", "le", "a:b", "1"})
    CHECK_THROWS_AS(Counter("tagged", "", {{key, "x"}}), mobula::Error);
  CHECK_THROWS_AS(Counter("tagged", "", {{"a", std::string(101, 'x')}}), mobula::Error);
  for (const std::vector<double>& bounds :
       {std::vector<double>{}, {1, 1}, {2, 1}, {1, INFINITY}, {NAN}, std::vector<double>(41, 1)})
    CHECK_THROWS_AS(Histogram("odd", "", bounds), mobula::Error);

  const Counter counter("only_grows");
  CHECK_THROWS_AS(counter.add(-1), mobula::Error);
  CHECK_THROWS_AS(counter.add(NAN), mobula::Error);
  CHECK_THROWS_AS(counter.add(INFINITY), mobula::Error);
  CHECK_THROWS_AS(Gauge("g").set(NAN), mobula::Error);
  CHECK_THROWS_AS(Histogram("h", "", {1}).observe(NAN), mobula::Error);
  CHECK(value_of("only_grows") == 0);
}

int make_gauge_of_counter() {
  const Gauge gauge("kind_of_driver");
  return 0;
}
TEST_CASE("one name is of one kind, in one process and in all") {
  const Counter counter("kind_of_driver");
  const Histogram histogram("bounds_of_driver", "", {1, 2});

  CHECK_THROWS_AS(Gauge{"kind_of_driver"}, mobula::Error);
  CHECK_THROWS_AS(Gauge("kind_of_driver", "", {{"other", "tags"}}), mobula::Error);
  CHECK_THROWS_AS(Histogram("bounds_of_driver", "", {1, 3}), mobula::Error);
  CHECK_THROWS_AS(mobula::get(remote<make_gauge_of_counter>(), 20s), mobula::TaskError);
  counter.add(4);
  CHECK(value_of("kind_of_driver") == 4);
}

TEST_CASE("the node counts tasks, failures, restarts, crashes and spilled bytes") {
  const auto before = mobula::metrics();
  const auto more = [&](const char* name) { return value_of(name) - find(before, name)->value; };

  for (int i = 0; i < 10; ++i) mobula::get(remote<nothing>(), 20s);
  for (int i = 0; i < 3; ++i) CHECK(!mobula::try_get(remote<fail>(), 20s));
  const auto queue = actor<Queue>.with({.max_restarts = 1})();
  for (int life = 0; life < 2; ++life) CHECK(!mobula::try_get(queue.call<&Queue::die>(), 20s));
  mobula::get(mobula::monitor(queue), 20s);
  std::vector<Ref<std::vector<char>>> large;
  for (int i = 0; i < 12; ++i) large.push_back(mobula::put(std::vector<char>(4 << 20, 'x')));

  CHECK(eventually(10s, [&] { return more("mobula_tasks_run_total") >= 13; }));
  CHECK(more("mobula_tasks_failed_total") == 5);
  CHECK(more("mobula_actor_restarts_total") == 1);
  CHECK(more("mobula_process_crashes_total") == 2);
  CHECK(more("mobula_objects_spilled_bytes_total") > 8 << 20);
  CHECK(value_of("mobula_actors") >= 0);
  CHECK(value_of("mobula_workers") >= 1);
}

TEST_CASE("each session counts anew, and outside of one nothing is counted") {
  Child child(mobula::test::own_program(), {"--case", "two_sessions"});
  const auto ending = child.wait(60s);
  INFO(child.output());
  REQUIRE(ending.has_value());
  CHECK(ending->signal == 0);
  CHECK(ending->code == 0);
}

TEST_CASE("the driver shows its metrics at the end if it is asked to") {
  for (const bool asked : {false, true}) {
    CAPTURE(asked);
    Child child(mobula::test::own_program(), {"--case", "two_sessions"},
                {{"MOBULA_SHOW_METRICS", asked ? "1" : "0"}});
    REQUIRE(child.wait(60s).has_value());
    const std::string output = child.output();
    for (const char* words : {"mobula: the metrics of this session\n", "\nin_each_session ",
                              "\nmobula_tasks_run_total "}) {
      CAPTURE(words);
      CHECK((output.find(words) != std::string::npos) == asked);
    }
  }
}

TEST_CASE("the table tells of a histogram how many values, their mean, and where they lie") {
  const std::vector<MetricSample> samples{
      {"a_total", "", MetricKind::Counter, {{"k", "v"}}, 3, {}, {}},
      {"b", "", MetricKind::Histogram, {}, 10, {1, 2}, {3, 1, 1}},
      {"empty", "", MetricKind::Histogram, {}, 0, {1}, {0, 0}}};

  CHECK(mobula::to_table(samples) ==
        "a_total{k=\"v\"}  3\n"
        "b               5 values, mean 2, p50 <= 1, p99 > 2\n"
        "empty           no values\n");
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--case") return measured::two_sessions(argc, argv);
  return mobula::test::run_in_session(argc, argv,
                                      {.num_cpus = 2, .object_store_memory = 32ULL << 20});
}
