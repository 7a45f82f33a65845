#include "options.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

namespace rl_es {
namespace {

Options parsed(std::vector<const char*> arguments) { return parse_options(arguments); }

TEST_CASE("without options the hopper trains within a time limit") {
  const Options options = parsed({});

  CHECK(options.environment == EnvironmentKind::kHopper);
  CHECK(options.iterations > 0);
  CHECK(options.workers > 0);
  REQUIRE(options.time_limit);
  CHECK(*options.time_limit < 180);
  CHECK(options.output == "out");
}

TEST_CASE("iterations that were asked for are not cut short by a limit that was not") {
  CHECK_FALSE(parsed({"--iterations", "500"}).time_limit);
  CHECK_FALSE(parsed({"--env", "humanoid"}).time_limit);
  CHECK(parsed({"--iterations", "500", "--time-limit=9.5"}).time_limit == 9.5);
}

TEST_CASE("values follow a space or an equals sign") {
  const Options options =
      parsed({"--env=humanoid", "--seed", "7", "--workers=3", "--output", "somewhere"});

  CHECK(options.environment == EnvironmentKind::kHumanoid);
  CHECK(options.seed == 7);
  CHECK(options.workers == 3);
  CHECK(options.output == "somewhere");
}

TEST_CASE("what makes no sense is refused with a word about it") {
  for (const std::vector<const char*>& arguments :
       std::vector<std::vector<const char*>>{{"--iterations", "0"},
                                             {"--iterations", "ten"},
                                             {"--iterations", "3x"},
                                             {"--iterations"},
                                             {"--workers", "-1"},
                                             {"--seed", "-1"},
                                             {"--time-limit", "nan"},
                                             {"--env", "walker"},
                                             {"--fast"},
                                             {"hopper"}}) {
    CAPTURE(arguments.front());
    CHECK_THROWS_AS(parse_options(arguments), std::invalid_argument);
  }
}

TEST_CASE("help names every option") {
  CHECK(parsed({"--help"}).help);
  for (const char* option : {"--env", "--iterations", "--time-limit", "--seed", "--workers",
                             "--output", "--play", "--help"}) {
    CAPTURE(option);
    CHECK(help_text().find(option) != std::string::npos);
  }
}

}  // namespace
}  // namespace rl_es
