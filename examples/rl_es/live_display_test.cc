#include "live_display.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <memory>
#include <string>

namespace rl_es {
namespace {

Progress some_progress() {
  Progress progress;
  progress.title = "rl_es: hopper";
  progress.latest.reward_mean = 123.44;
  progress.latest.reward_spread = 5.5;
  progress.finished = 3;
  progress.iterations = 10;
  progress.pairs = 40;
  progress.serving = {.requests = 7, .p50_us = 55, .p99_us = 900};
  progress.seconds = 12;
  progress.seconds_left = 75;
  return progress;
}

std::size_t characters(const std::string& text) {
  std::size_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xc0) != 0x80 ? 1 : 0;
  return count;
}

TEST_CASE("a sparkline runs from the lowest block to the highest and fits its columns") {
  CHECK(sparkline(std::vector<double>{0, 7, 3.5}, 10) == "▁█▅");
  CHECK(sparkline(std::vector<double>{4, 4}, 10) == "▁▁");
  CHECK(sparkline(std::vector<double>{}, 10).empty());
  CHECK(sparkline(std::vector<double>{1, 1, 9, 9}, 2) == "▁█");
  CHECK(characters(sparkline(std::vector<double>(1000, 1.0), 33)) == 33);
}

TEST_CASE("output that is no terminal gets one plain line for each iteration") {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::tmpfile(), std::fclose);
  LiveDisplay display(out.get());

  display.tick(some_progress());
  display.iteration_finished(some_progress());
  display.tick(some_progress());
  display.iteration_finished(some_progress());

  std::rewind(out.get());
  std::string text;
  for (int byte = std::fgetc(out.get()); byte != EOF; byte = std::fgetc(out.get()))
    text += static_cast<char>(byte);
  CHECK(text == plain_line(some_progress()) + "\n" + plain_line(some_progress()) + "\n");
  CHECK(text.find('\x1b') == text.npos);
}

TEST_CASE("a plain line names reward, spread, serving and the time left") {
  const std::string line = plain_line(some_progress());

  for (const char* part :
       {"iteration 3/10", "123.4 +- 5.5", "p50 55 us, p99 900 us", "75 s left"}) {
    CAPTURE(part);
    CHECK(line.find(part) != line.npos);
  }
}

TEST_CASE("no line of the panel is wider than the terminal") {
  for (const std::size_t columns : {10u, 40u, 80u, 200u}) {
    const std::vector<double> history(500, 1.0);
    for (const std::string& line : panel(some_progress(), history, columns)) {
      CAPTURE(line);
      CHECK(characters(line) <= columns);
    }
  }
}

}  // namespace
}  // namespace rl_es
