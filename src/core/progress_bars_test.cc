#include "core/progress_bars.h"

#include <doctest/doctest.h>

using mobula::core::ProgressBars;
using mobula::core::ProgressCount;
using namespace std::chrono_literals;
using Lines = std::vector<std::string>;

namespace {
ProgressCount at(double done, double total, bool open = true) {
  return {"train", done, total, open};
}
}  // namespace

TEST_CASE("on a terminal a bar shows share, rate and the time that is left") {
  ProgressBars bars(true);
  bars.step({at(0, 1000)}, 0s, 100);

  const auto shown = bars.step({at(450, 1000)}, 5s, 100);

  CHECK(shown.bars == Lines{"[##################......................] "
                            "train: 450 of 1.0k (45 %), 90/s, 6.1 s left"});
  CHECK(shown.lines.empty());
}

TEST_CASE("a bar never takes more than the terminal's width") {
  ProgressBars bars(true);
  bars.step({at(0, 1000)}, 0s, 100);
  for (int columns = 0; columns < 120; ++columns) {
    const auto shown = bars.step({at(450, 1000)}, 5s, columns);
    REQUIRE(shown.bars.size() == 1);
    CHECK(static_cast<int>(shown.bars[0].size()) <= std::max(columns - 1, 0));
  }
}

TEST_CASE("without a terminal there is a line every five seconds in which something was done") {
  ProgressBars bars(false);
  CHECK(bars.step({at(0, 100)}, 0s, 80).lines.empty());
  CHECK(bars.step({at(10, 100)}, 4s, 80).lines.empty());
  CHECK(bars.step({at(10, 100)}, 5s, 80).lines ==
        Lines{"train: 10 of 100 (10 %), 2/s, 45.0 s left"});
  CHECK(bars.step({at(20, 100)}, 6s, 80).lines.empty());
  CHECK(bars.step({at(10, 100)}, 11s, 80).lines.empty());  // as when it was said last
  CHECK(bars.step({at(20, 100)}, 12s, 80).lines.size() == 1);
  CHECK(bars.step({at(20, 100)}, 12s, 80).bars.empty());
}

TEST_CASE("a bar is over when nobody was at it for a moment, and then said once") {
  ProgressBars bars(true);
  CHECK(!bars.has_news({}));
  CHECK(bars.has_news({at(0, 100)}));
  bars.step({at(0, 100)}, 0s, 80);
  CHECK(bars.has_news({at(100, 100, false)}));
  CHECK(bars.step({at(100, 100, false)}, 10s, 80).bars.size() == 1);
  const auto over = bars.step({at(100, 100, false)}, 11s, 80);
  CHECK(over.bars.empty());
  CHECK(over.lines == Lines{"train: 100 of 100 (100 %) in 10.0 s, 10/s"});
  CHECK(!bars.has_news({at(100, 100, false)}));
  CHECK(bars.step({at(100, 100, false)}, 12s, 80).lines.empty());
  CHECK(bars.step({at(100, 100, false)}, 12s, 80).bars.empty());
}

TEST_CASE("tasks that follow each other under one name keep one bar") {
  ProgressBars bars(true);
  bars.step({at(0, 100)}, 0s, 80);

  CHECK(bars.step({at(100, 100, false)}, 400ms, 80).bars.size() == 1);
  const auto next = bars.step({at(120, 200)}, 800ms, 80);

  REQUIRE(next.bars.size() == 1);
  CHECK(next.bars[0].find("120 of 200") != std::string::npos);
}

TEST_CASE("what comes under a name after its bar was over is a bar of its own") {
  ProgressBars bars(true);
  bars.step({at(50, 100)}, 0s, 80);
  bars.step({at(100, 100, false)}, 1s, 80);
  CHECK(bars.step({at(100, 100, false)}, 2s, 80).lines.size() == 1);

  const auto shown = bars.step({at(110, 140)}, 20s, 80);

  REQUIRE(shown.bars.size() == 1);
  CHECK(shown.bars[0].find("10 of 40") != std::string::npos);
}

TEST_CASE("one that began and ended between two looks is said, too") {
  ProgressBars bars(false);

  CHECK(bars.has_news({at(7, 7, false)}));
  CHECK(bars.step({at(7, 7, false)}, 1s, 80).lines.empty());
  CHECK(bars.step({at(7, 7, false)}, 2s, 80).lines == Lines{"train: 7 of 7 (100 %) in 0.0 s"});
}

TEST_CASE("at the end all that is not over is said") {
  ProgressBars bars(true);
  bars.step({at(1, 10), {"test", 2, 4, true}}, 0s, 80);

  const auto shown = bars.finish({at(5, 10), {"test", 4, 4, true}}, 2s);

  CHECK(shown.bars.empty());
  CHECK(shown.lines ==
        Lines{"test: 4 of 4 (100 %) in 2.0 s, 2/s", "train: 5 of 10 (50 %) in 2.0 s, 2.5/s"});
}
