// on_node NAME WORDS PROGRAM: the program ends well beside a node that stays of this name, and says
// the words. The node ends with this one.
#include <cstdio>
#include <exception>
#include <string>

#include "support/staying_node.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string name = argv[1];
  try {
    const mobula::test::OwnPlace place;
    const mobula::test::StayingNode node(place, {}, name);
    mobula::test::Child program(argv[3], {}, place.variables(name));
    const auto ending = program.wait(std::chrono::seconds(20));
    const std::string output = program.output();
    std::fputs(output.c_str(), stdout);
    const bool well = ending && ending->signal == 0 && ending->code == 0;
    return well && output.find(argv[2]) != std::string::npos ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "on_node: %s\n", e.what());
    return 1;
  }
}
