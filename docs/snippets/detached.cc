#include <mobula/mobula.h>

#include <cstdio>
#include <map>
#include <string>

class Registry {
 public:
  void note(const std::string& key, int value) { values_[key] = value; }
  int of(const std::string& key) const { return values_.at(key); }

 private:
  std::map<std::string, int> values_;
};

void first_driver() {
  // [create]
  const auto registry = mobula::actor<Registry>.with(
      {.name = "registry", .lifetime = mobula::Lifetime::Detached, .get_if_exists = true})();
  mobula::get(registry.call<&Registry::note>("epoch", 7));
  // [/create]
}

int later_driver() {
  // [find]
  const auto registry = mobula::get_actor<Registry>("registry");
  const int epoch = mobula::get(registry.call<&Registry::of>("epoch"));
  mobula::kill(registry);  // or it stays until the node ends
  // [/find]
  return epoch;
}

// Two sessions are two jobs, as those of two programs.
int main(int argc, char** argv) {
  {
    const mobula::Session session(argc, argv);
    try {
      first_driver();
    } catch (const mobula::Error& e) {
      std::puts(e.what());  // needs a node that stays, and this one ends with its driver ..
      return 1;
    }
  }
  const mobula::Session session(argc, argv);
  const int epoch = later_driver();
  std::printf("the epoch is %d\n", epoch);
  return epoch == 7 ? 0 : 1;
}
