#include "node/actor_names.h"

#include <doctest/doctest.h>

using mobula::node::ActorName;
using mobula::node::ActorNames;

namespace {
const ActorName kServer{"training", "server"};
const ActorName kServerElsewhere{"tests", "server"};
}  // namespace

TEST_CASE("a name is found in its own namespace only, until its actor is forgotten") {
  ActorNames names;
  names.give(kServer, 3);

  CHECK(names.find(kServer) == 3);
  CHECK(!names.find(kServerElsewhere));
  names.give(kServerElsewhere, 4);
  CHECK(names.find(kServer) == 3);
  CHECK(names.find(kServerElsewhere) == 4);

  names.forget(3);
  names.forget(3);
  CHECK(!names.find(kServer));
  CHECK(names.find(kServerElsewhere) == 4);
}

TEST_CASE("who lost his name to another one does not take it along when he is forgotten") {
  ActorNames names;
  names.give(kServer, 3);

  names.give(kServer, 5);
  names.forget(3);

  CHECK(names.find(kServer) == 5);
  CHECK(names.all().size() == 1);
}

TEST_CASE("an actor has one name at a time") {
  ActorNames names;
  names.give(kServer, 3);

  names.give(kServerElsewhere, 3);

  CHECK(!names.find(kServer));
  CHECK(names.find(kServerElsewhere) == 3);
}
