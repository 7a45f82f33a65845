// The small examples run, refuse nonsense, and what they print makes sense.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "support/processes.h"

using namespace std::chrono_literals;
using mobula::test::Child;

namespace {

struct Run {
  int code = -1;
  std::string output;
};

Run run(const std::string& name, const std::vector<std::string>& arguments) {
  Child child(std::string(MOBULA_EXAMPLES_FOLDER) + "/" + name, arguments);
  const auto ending = child.wait(30s);
  return {ending && ending->signal == 0 ? ending->code : -1, child.output()};
}

// The numbers that follow `word` in the text.
std::vector<double> numbers_after(const std::string& text, const std::string& word) {
  std::vector<double> numbers;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    numbers.push_back(std::strtod(text.c_str() + at + word.size(), nullptr));
  }
  return numbers;
}

// The lines that begin so.
std::string lines_with(const std::string& text, const std::string& beginning) {
  std::istringstream stream(text);
  std::string lines;
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(beginning)) lines += line + "\n";
  }
  return lines;
}

}  // namespace

TEST_CASE("quickstart computes what it says") {
  const Run quickstart = run("quickstart", {});

  INFO(quickstart.output);
  CHECK(quickstart.code == 0);
  CHECK(quickstart.output.find("8 tasks summed a million values: 500000\n") != std::string::npos);
  CHECK(quickstart.output.find("an actor counted from 10 to 20\n") != std::string::npos);
}

TEST_CASE("monte_carlo_pi comes near pi, and gives the same for the same seed") {
  const std::vector<std::string> arguments{"--tasks", "20", "--samples", "100000", "--seed", "7"};
  const Run first = run("monte_carlo_pi", arguments);
  const Run second = run("monte_carlo_pi", arguments);
  const Run other = run("monte_carlo_pi", {"--tasks", "20", "--samples", "100000", "--seed", "8"});

  INFO(first.output);
  CHECK(first.code == 0);
  const auto pi = numbers_after(first.output, "pi = ");
  REQUIRE(pi.size() == 1);
  CHECK(std::abs(pi[0] - std::acos(-1.0)) < 5 * 0.00117);  // 5 standard errors of 2 million darts
  CHECK(numbers_after(second.output, "pi = ") == pi);
  CHECK(numbers_after(other.output, "pi = ") != pi);
}

TEST_CASE("parameter_server's loss falls to that of a perfect model, and no worker runs away") {
  const Run server = run("parameter_server", {"--workers", "4", "--steps", "30", "--ahead", "2",
                                              "--rows", "2000", "--features", "8"});

  INFO(server.output);
  CHECK(server.code == 0);
  const auto updates = numbers_after(server.output, "after ");
  const auto losses = numbers_after(server.output, "loss ");
  REQUIRE(updates.size() == 31);  // before the first step, and after each fourth
  CHECK(updates.back() == 120);
  CHECK(losses[0] > 1);
  CHECK(losses[15] < losses[0] / 10);
  CHECK(losses[30] < 0.02);  // 0.01 is the noise of the data
  const auto worst = numbers_after(server.output, "the worst weight is ");
  REQUIRE(worst.size() == 1);
  CHECK(worst[0] < 0.05);
  const auto apart = numbers_after(server.output, "at most ");
  REQUIRE(apart.size() == 1);
  CHECK(apart[0] <= 3);  // two ahead, and the step that it may begin
}

TEST_CASE("work_queue finds a number, and its producer is never far ahead") {
  const Run queue = run("work_queue", {"--bits", "16", "--size", "500", "--ahead", "4"});

  INFO(queue.output);
  CHECK(queue.code == 0);
  CHECK(queue.output.find(" begins with 16 zeros\n") != std::string::npos);
  const auto made = numbers_after(queue.output, "searched, ");
  const auto searched = numbers_after(queue.output, " zeros\n");
  REQUIRE(made.size() == 1);
  REQUIRE(!searched.empty());
  CHECK(searched.back() > 0);
  CHECK(made[0] >= searched.back() - 1);  // the producer counts a range after its push
  CHECK(made[0] <= searched.back() + 4);
}

TEST_CASE("actor_tree replaces a node that dies, and its sum is right again") {
  const Run tree = run("actor_tree", {"--size", "7", "--width", "2", "--victim", "2"});

  INFO(tree.output);
  CHECK(tree.code == 0);
  CHECK(tree.output.find("7 nodes, sum 21, 0 replaced\n") != std::string::npos);
  CHECK(tree.output.find("7 nodes, sum 21, 1 replaced\n") != std::string::npos);
  CHECK(tree.output.find("node 2 is dead: ") != std::string::npos);
}

TEST_CASE("mcts beats a player that moves at random, and plays the same for the same seed") {
  for (const std::string seed : {"1", "2", "3"}) {
    const std::vector<std::string> arguments{"--games", "1000", "--seed", seed};
    const Run game = run("mcts", arguments);

    INFO(game.output);
    CHECK(game.code == 0);
    CHECK(game.output.find("x has won\n") != std::string::npos);
    CHECK(run("mcts", arguments).output == game.output);
  }
}

TEST_CASE("replay_buffer learns to balance, and crashes of the learner change nothing") {
  const std::vector<std::string> arguments{"--rounds", "12"};
  const Run calm = run("replay_buffer", arguments);
  const Run crashing = run("replay_buffer", {"--rounds", "12", "--crash", "2"});

  INFO(calm.output);
  CHECK(calm.code == 0);
  const auto lengths = numbers_after(calm.output, "stands ");
  REQUIRE(lengths.size() == 12);
  CHECK(lengths[0] < 60);
  CHECK(lengths[11] > 150);
  CHECK(crashing.code == 0);
  CHECK(numbers_after(crashing.output, "stands ") == lengths);
}

TEST_CASE("fleet reports the same for the same seed, though vans and the dispatcher die") {
  const std::vector<std::string> arguments{"--vans", "3", "--shifts", "2", "--stops", "60"};
  const Run first = run("fleet", arguments);
  const Run second = run("fleet", arguments);
  const Run other = run("fleet", {"--vans", "3", "--shifts", "2", "--stops", "60", "--seed", "2"});

  INFO(first.output);
  CHECK(first.code == 0);
  const auto readings = numbers_after(first.output, "readings, ");
  CHECK(readings.size() == 6);  // kilometres, of each van in each shift
  CHECK(first.output.find(", broke down") != std::string::npos);
  const std::string report = lines_with(first.output, "report: ");
  CHECK(report.find(" vans were bought\n") != std::string::npos);
  CHECK(lines_with(second.output, "report: ") == report);
  CHECK(lines_with(other.output, "report: ") != report);
}

TEST_CASE("the examples explain their options and refuse nonsense") {
  for (const std::string name :
       {"monte_carlo_pi", "parameter_server", "mcts", "replay_buffer", "fleet"}) {
    CAPTURE(name);
    const Run help = run(name, {"--help"});
    CHECK(help.code == 0);
    CHECK(help.output.find("--seed N") != std::string::npos);
    CHECK(run(name, {"--unknown"}).code == 2);
    CHECK(run(name, {"--seed"}).code == 2);
    CHECK(run(name, {"--seed", "x"}).code == 2);
  }
  CHECK(run("monte_carlo_pi", {"--tasks", "0"}).code == 2);
  CHECK(run("parameter_server", {"--rows", "-1"}).code == 2);
}
