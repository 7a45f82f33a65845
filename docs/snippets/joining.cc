#include <mobula/mobula.h>

#include <cstdio>
#include <string>

int square(int x) { return x * x; }

int main(int argc, char** argv) {
  // [join]
  mobula::Config config{.address = "team", .num_cpus = 1};  // of the node's CPUs, one at most
  try {
    const mobula::Session session(argc, argv, config);
    std::printf("%d\n", mobula::get(mobula::remote<square>(7)));
  } catch (const mobula::Error& e) {
    std::puts(e.what());  // cannot join the node 'team': no node runs here ..; start one: ..
    config.address = "local";  // a node of our own, then
  }
  // [/join]
  if (config.address != "local") return 0;  // somebody runs a node of that name here
  const mobula::Session session(argc, argv, config);
  return mobula::get(mobula::remote<square>(7)) == 49 ? 0 : 1;
}
