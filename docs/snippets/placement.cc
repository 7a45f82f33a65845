#include <mobula/mobula.h>

#include <cstdio>

struct Weights {
  int sum = 0;
  int apply(int gradient) { return sum += gradient; }
};
int compute(int x) { return 2 * x; }

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.num_cpus = 3});
  // [group]
  const mobula::PlacementGroup group = mobula::placement_group(
      {{{"CPU", 1}}, {{"CPU", 2}}}, mobula::Strategy::Pack, {.name = "training"});
  const mobula::PlacementGroupScheduling first(group, 0);
  const mobula::PlacementGroupScheduling any(group);

  const auto server = mobula::actor<Weights>.with({.num_cpus = 1, .scheduling = first})();
  const auto gradient = mobula::remote<compute>.with({.scheduling = any})(3);
  server.call<&Weights::apply>(gradient);
  // [/group]
  const int sum = mobula::get(server.call<&Weights::apply>(1));
  const auto waiting = mobula::remote<compute>.with({.scheduling = first})(1);
  // [remove]
  mobula::remove_placement_group(group);
  try {
    mobula::get(waiting);
  } catch (const mobula::PlacementGroupRemovedError& error) {
    std::puts(error.what());  // names the group
  }
  // [/remove]
  // [elsewhere]
  const mobula::NodeAffinity here{mobula::nodes()[0].node_id};
  const mobula::NodeAffinity gone{"a node that was", /*soft=*/true};
  const auto local = mobula::remote<compute>.with({.scheduling = here})(1);
  const auto anywhere = mobula::remote<compute>.with({.scheduling = gone})(1);
  // [/elsewhere]
  return sum == 7 && !mobula::try_get(waiting) && mobula::get(local) + mobula::get(anywhere) == 4
             ? 0
             : 1;
}
