// What is exported is called by its name, also out of libraries that the session loads.
#include <mobula/export.h>

#include <fstream>
#include <string>
#include <typeinfo>
#include <vector>

#include "support/scenario.h"

using mobula::actor_by_name;
using mobula::AnyActor;
using mobula::Error;
using mobula::get;
using mobula::Ref;
using mobula::remote_by_name;

namespace own {

int subtract(int a, int b) { return a - b; }
double scale(double x) { return 2 * x; }
int scale(int x) { return 3 * x; }
std::size_t length(const std::string& text) { return text.size(); }

struct Base {
  int base() const { return 7; }
};
struct Derived : Base {
  int own() const { return 8; }
};
int ask(const AnyActor& actor) { return get(actor.call<int()>("Derived::own")); }

MOBULA_EXPORT(subtract, length, &Base::base, &Derived::own, ask);
MOBULA_EXPORT_AS("scale_double", static_cast<double (*)(double)>(scale));
MOBULA_EXPORT_AS("scale_int", static_cast<int (*)(int)>(scale));
MOBULA_EXPORT_INHERITED(Derived, base);
MOBULA_EXPORT_ACTOR(Derived);

template <class E, class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    CHECK(typeid(e) == typeid(E));
    return e.what();
  }
  return {};
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// Loads it as a session would at its start; the session that runs is not touched.
std::string refusal_of(const std::string& search_path) {
  char name[] = "program";
  char* arguments[] = {name, nullptr};
  return message_of<mobula::LibraryLoadError>(
      [&] { const mobula::Session second(1, arguments, {.code_search_path = search_path}); });
}

}  // namespace own

int offset(int x) { return x - 1000; }  // the library's function of this name is another

using own::has;
using own::message_of;
using own::refusal_of;

TEST_CASE("an exported function is called by its name, with values, refs and options") {
  const auto subtract = remote_by_name<int(int, int)>("subtract");
  const Ref<int> five = subtract(8, 3);
  const Ref<int> two = subtract.with({.num_cpus = 1, .name = "by name"})(five, 3);

  CHECK(get(five) == 5);
  CHECK(get(two) == 2);
  CHECK_THROWS_AS(remote_by_name<int(int, int)>("subtract").with({.num_cpus = 64})(five, 3),
                  mobula::UnschedulableError);
  CHECK(has(message_of<mobula::TaskError>(
                [] { get(remote_by_name<int(int)>("fail").with({.name = "the failing one"})(3)); }),
            "task the failing one (id "));
  CHECK(get(remote_by_name<std::size_t(std::string)>("length")("four")) == 4);
  CHECK(get(remote_by_name<std::size_t(std::string_view)>("length")("seven..")) == 7);
}

TEST_CASE("overloads are exported under names of their own") {
  CHECK(get(remote_by_name<double(double)>("scale_double")(1.25)) == 2.5);
  CHECK(get(remote_by_name<int(int)>("scale_int")(5)) == 15);
}

TEST_CASE("functions of a library run in workers, fail as others do, and submit tasks") {
  const std::vector<double> values(100'000, 0.5);

  CHECK(get(remote_by_name<int(int, int)>("add")(20, 22)) == 42);
  CHECK(get(remote_by_name<double(std::vector<double>)>("total")(values)) == 50'000);
  CHECK(get(remote_by_name<int(int)>("twice_remotely")(21)) == 42);
  CHECK(has(message_of<mobula::TaskError>([] { get(remote_by_name<int(int)>("fail")(3)); }),
            "code 3"));
}

TEST_CASE("a library's function is meant by its name though the program has another of that name") {
  CHECK(offset(1) == -999);
  CHECK(get(remote_by_name<int(int)>("offset")(1)) == 1001);
}

TEST_CASE("an exported class and a factory make actors, whose methods are called by name") {
  const AnyActor tally = actor_by_name<void(int)>("Tally")(10);
  const AnyActor echo = actor_by_name<void()>("Echo::make").with({.name = "the echo"})();
  CHECK_THROWS_AS(actor_by_name<void()>("Echo::make").with({.name = "the echo"})(),
                  mobula::ActorAlreadyExistsError);

  CHECK(get(tally.call<int(int)>("Tally::add", 5)) == 15);
  CHECK(get(tally.call<int(int)>("Tally::add", tally.call<int()>("Tally::sum"))) == 30);
  CHECK(get(echo.call<std::string(std::string)>("Echo::say", "ab")) == "abab");

  mobula::kill(tally);
  CHECK_THROWS_AS(get(tally.call<int()>("Tally::sum")), mobula::ActorDiedError);
}

TEST_CASE("the handle of a class that is not known travels, and is made of one that is") {
  const mobula::ActorHandle<own::Derived> known = mobula::actor<own::Derived>();
  const AnyActor any(known);

  CHECK(get(remote_by_name<int(AnyActor)>("ask")(any)) == 8);
  CHECK(get(any.call<int()>("Derived::base")) == 7);
  CHECK(any == AnyActor(known));
}

TEST_CASE("a name that nothing has, another kind and another signature are told at the call") {
  const AnyActor derived = actor_by_name<void()>("Derived")();

  const std::string unknown =
      message_of<mobula::FunctionNotFoundError>([] { remote_by_name<int(int)>("ad"); });
  CHECK(has(unknown, "nothing is exported as ad"));
  CHECK(has(unknown, "add, "));
  CHECK(has(message_of<Error>([] { remote_by_name<int(int)>("Tally"); }),
            "Tally is exported as a class of actors, not as a function"));
  const std::string signature = message_of<Error>([] { remote_by_name<int(int, double)>("add"); });
  CHECK(has(signature, "exported as int"));
  CHECK(has(signature, "double"));
  CHECK(has(message_of<Error>([&] { derived.call<int()>("Base::base"); }),
            "the actor is of class own::Derived"));
  CHECK_THROWS_AS(AnyActor().call<int()>("Derived::own"), Error);
}

TEST_CASE("a library that cannot be used makes the session's start fail and say why") {
  const std::string folder = MOBULA_PLUGIN_FOLDER;
  const mobula::test::Scratch scratch;
  std::ofstream(scratch.path() / "text.so") << "this is no library";

  CHECK(has(refusal_of("/there/is/no/such.so"), "/there/is/no/such.so"));
  CHECK(has(refusal_of(scratch.path()), "text.so"));
  CHECK(has(refusal_of(scratch.path().string() + "/text.so:"), "text.so"));
  CHECK(has(refusal_of(folder + "/same_name"), "two things are exported as add"));
  CHECK(has(refusal_of(folder + "/nothing_exported"), "it exported nothing"));
  const mobula::test::Scratch empty;
  CHECK(has(refusal_of(empty.path()), "holds no *.so"));
  CHECK(get(remote_by_name<int(int, int)>("add")(20, 22)) == 42);
}

int main(int argc, char** argv) {
  return mobula::test::run_in_session(
      argc, argv, {.num_cpus = 2, .code_search_path = MOBULA_PLUGIN_FOLDER "/arithmetic"});
}
