#include <mobula/mobula.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

// [counter]
class Counter {
 public:
  explicit Counter(int start) : n_(start) {}
  int add(int k) { return n_ += k; }
  int value() const { return n_; }

 private:
  int n_;
};
// [/counter]

// [handles]
int add_ten_times(const mobula::ActorHandle<Counter>& counter) {
  for (int i = 0; i < 10; ++i) counter.call<&Counter::add>(1);
  return mobula::get(counter.call<&Counter::value>());
}
// [/handles]

// [deadlock]
struct Shop {
  mobula::ActorHandle<Shop> self;
  void know(const mobula::ActorHandle<Shop>& me) { self = me; }
  int stock() { return 3; }
  int order() {
    try {
      return mobula::get(self.call<&Shop::stock>());
    } catch (const mobula::ActorDeadlockError& e) {
      std::puts(e.what());  // .. actor Shop (id ..) in Shop::order -> actor Shop (id ..), ..
      return stock();
    }
  }
};
// [/deadlock]

struct Printer {
  int print(int page) {
    if (mobula::this_task().attempt == 0) ::kill(::getpid(), SIGKILL);
    return page;
  }
  int pay(int pages) { return pages; }
};

struct Picky {
  explicit Picky(const std::string& name) {
    if (name.empty()) throw std::invalid_argument("a name is needed");
  }
  int ask() { return 1; }
};

// [server]
class ParameterServer {
 public:
  explicit ParameterServer(std::size_t size) : weights_(size) {}
  const std::vector<double>& weights() const { return weights_; }
  void apply(const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < weights_.size(); ++i) weights_[i] -= 0.5 * gradient[i];
  }

 private:
  std::vector<double> weights_;
};

std::vector<double> gradient(const std::vector<double>& weights, double target) {
  std::vector<double> result;
  for (const double weight : weights) result.push_back(weight - target);
  return result;
}

std::vector<double> train(int steps) {
  const auto server = mobula::actor<ParameterServer>(std::size_t{4});
  for (int i = 0; i < steps; ++i) {
    const auto weights = server.call<&ParameterServer::weights>();
    server.call<&ParameterServer::apply>(mobula::remote<gradient>(weights, 3.0));
  }
  return mobula::get(server.call<&ParameterServer::weights>());  // the last of its calls
}
// [/server]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [use]
  const mobula::ActorHandle<Counter> counter = mobula::actor<Counter>(10);  // returns at once
  const mobula::Ref<int> a = counter.call<&Counter::add>(5);
  const mobula::Ref<int> b = counter.call<&Counter::add>(a);  // its argument is the first result
  const int thirty = mobula::get(b);
  const mobula::Ref<int> c = mobula::remote<add_ten_times>(counter);  // a task calls it, too
  // [/use]
  if (mobula::get(a) != 15 || thirty != 30 || mobula::get(c) != 40) return 1;
  // [ready]
  const auto picky = mobula::actor<Picky>("");
  bool told = false;
  try {
    mobula::get(picky.ready());  // the constructor has run, or this throws what it threw
  } catch (const mobula::TaskError& e) {
    told = e.message() == "a name is needed";
  }
  // [/ready]
  // [kill]
  mobula::kill(counter);  // at once; later and pending calls fail with ActorDiedError
  const bool dead = !mobula::try_get(counter.call<&Counter::value>());
  // [/kill]
  // [retries]
  const auto printer = mobula::actor<Printer>.with({.max_restarts = 3})();
  // If the process dies meanwhile: a page that is printed twice does no harm, a payment does.
  const auto printed = printer.with({.max_task_retries = 2}).call<&Printer::print>(1);
  const auto paid = printer.with({.max_task_retries = 0}).call<&Printer::pay>(1);
  // [/retries]
  if (mobula::get(printed) != 1 || mobula::get(paid) != 1) return 1;
  const auto shop = mobula::actor<Shop>();
  shop.call<&Shop::know>(shop);
  if (mobula::get(shop.call<&Shop::order>()) != 3) return 1;
  return told && dead && train(30).at(3) > 2.99 ? 0 : 1;
}
