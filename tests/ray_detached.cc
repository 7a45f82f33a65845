// A program written for Ray whose actors are detached: another one finds them by their name.
#include "support/scenario.h"

#include <ray/api.h>

#include <string>
#include <string_view>
#include <vector>

#include "support/staying_node.h"

using namespace std::chrono_literals;
using mobula::test::Child;
using mobula::test::OwnPlace;
using mobula::test::StayingNode;

class Tally {
 public:
  int Add(int n) { return sum_ += n; }
  int MakeChild(int n);

 private:
  int sum_ = 0;
};
Tally* MakeTally() { return new Tally(); }
int Tally::MakeChild(int n) {
  return *ray::Actor(MakeTally).SetName("child").Remote().Task(&Tally::Add).Remote(n).Get();
}
RAY_REMOTE(MakeTally, &Tally::Add, &Tally::MakeChild);

namespace {

int run(int argc, char** argv) {
  ray::RayConfig config;
  config.default_actor_lifetime = ray::ActorLifetime::DETACHED;
  ray::Init(config, argc, argv);
  int sum = 0;
  if (std::string_view(argv[2]) == "creates") {
    auto tally = ray::Actor(MakeTally).SetName("tally").Remote();
    sum = *tally.Task(&Tally::Add).Remote(20).Get();
  } else if (std::string_view(argv[2]) == "nests") {
    auto parent = ray::Actor(MakeTally).Remote();
    parent.Task(&Tally::MakeChild).Remote(20).Get();
    auto child = *ray::GetActor<Tally>("child");
    parent.Kill();
    sum = *child.Task(&Tally::Add).Remote(22).Get();
  } else if (auto tally = ray::GetActor<Tally>("tally")) {
    sum = *tally->Task(&Tally::Add).Remote(22).Get();
    tally->Kill();
  }
  ray::Shutdown();
  return sum;
}

Child start(const OwnPlace& place, const std::string& what) {
  return {mobula::test::own_program(), {"--driver", what}, place.variables("test")};
}

}  // namespace

TEST_CASE("an actor of a program with DETACHED actors is found by the next program") {
  const OwnPlace place;
  StayingNode node(place);
  Child first = start(place, "creates");
  const auto created = first.wait(30s);
  INFO(first.output());
  REQUIRE(created.has_value());
  CHECK(created->code == 20);

  Child second = start(place, "finds");
  const auto found = second.wait(30s);

  INFO(second.output());
  REQUIRE(found.has_value());
  CHECK(found->code == 42);
}

TEST_CASE("without a node that stays, or without a name, they are the job's") {
  const OwnPlace place;
  Child own(mobula::test::own_program(), {"--driver", "nests"}, place.variables());
  const auto ended = own.wait(30s);

  INFO(own.output());
  REQUIRE(ended.has_value());
  CHECK(ended->code == 42);
}

int main(int argc, char** argv) {
  if (argc >= 3 && std::string_view(argv[1]) == "--driver") return run(argc, argv);
  doctest::Context context(argc, argv);
  return context.run();
}
