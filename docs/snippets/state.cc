#include <mobula/mobula.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

// [aggregate]
struct Account {
  std::map<std::string, long> balance = {};
  long pay(std::string who, long amount) { return balance[who] += amount; }
  int process() const { return static_cast<int>(::getpid()); }
};
// [/aggregate]

// [save_load]
class Model {
 public:
  explicit Model(std::size_t size) : weights_(size), scratch_(size) {}
  void step(double by) {
    for (double& w : weights_) w += by;
    if (++steps_ % 100 == 0) mobula::checkpoint();  // saved when this call is complete
  }
  double first() const { return weights_.front(); }
  void crash() { ::kill(::getpid(), SIGKILL); }

  void save(mobula::Writer& writer) const {
    mobula::encode(writer, weights_);
    mobula::encode(writer, steps_);
  }
  void load(mobula::Reader& reader) {  // into an object that was constructed as the first one was
    weights_ = mobula::decode<std::vector<double>>(reader);
    steps_ = mobula::decode<int>(reader);
  }

 private:
  std::vector<double> weights_;
  std::vector<double> scratch_;  // not worth saving
  int steps_ = 0;
};
// [/save_load]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.log_to_driver = false});

  // [replay]
  const auto account =
      mobula::actor<Account>.with({.max_restarts = -1, .recovery = mobula::Recovery::Replay})();
  std::vector<mobula::Ref<long>> paid;
  for (int i = 0; i < 100; ++i) paid.push_back(account.call<&Account::pay>(std::string("ann"), 1L));
  ::kill(mobula::get(account.call<&Account::process>()), SIGKILL);
  const long now = mobula::get(account.call<&Account::pay>(std::string("ann"), 1L));  // 101
  // [/replay]

  // [checkpoint]
  const auto model = mobula::actor<Model>.with({.max_restarts = 3})(std::size_t{1000});
  for (int i = 0; i < 150; ++i) model.call<&Model::step>(1.0);
  bool told = false;
  try {
    mobula::get(model.call<&Model::crash>());
  } catch (const mobula::ActorUnavailableError&) {
    told = true;
  }
  const double first = mobula::get(model.call<&Model::first>());  // 100: of its last checkpoint
  // [/checkpoint]

  std::printf("%ld paid, %g steps saved\n", now, first);
  return now == 101 && mobula::get(paid.back()) == 100 && told && first == 100 ? 0 : 1;
}
