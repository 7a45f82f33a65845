// Decides what is shown of tasks' progress: bars that stay at the bottom of a terminal, or a plain
// line every few seconds where there is none.
//
// Pure: counts and the time come in, lines come out. A bar begins when somebody is at it, and is
// over when nobody has been for a moment; what comes under its name after that is a new one.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace mobula::core {

struct ProgressCount {
  std::string name;
  double done = 0;   // ever, under this name
  double total = 0;  // the same; at least `done` when nobody is at it
  bool open = false;  // somebody is at it
};

class ProgressBars {
 public:
  using Time = std::chrono::nanoseconds;

  static constexpr Time kOver = std::chrono::milliseconds(500);  // nobody was at it
  static constexpr Time kPlainPause = std::chrono::seconds(5);   // between two lines of one name

  explicit ProgressBars(bool on_terminal) : on_terminal_(on_terminal) {}

  struct Shown {
    std::vector<std::string> bars;   // as they are now, each on a line; on a terminal
    std::vector<std::string> lines;  // said once, in order
  };
  // `columns`: how wide the terminal is.
  Shown step(const std::vector<ProgressCount>& counts, Time now, int columns);
  // The last lines of all that is not over yet.
  Shown finish(const std::vector<ProgressCount>& counts, Time now);
  // There is something to show, or what is shown may change with time alone.
  bool has_news(const std::vector<ProgressCount>& counts) const;

 private:
  struct Bar {
    Time begun{};
    Time open_at{};  // when somebody was at it, as far as was seen
    Time said_at{};
    double done = 0;
    double total = 0;
    double said = -1;
  };
  bool is_at_work(const ProgressCount& count) const;
  std::string text_of(const std::string& name, const Bar& bar, Time now, bool over) const;
  std::string bar_of(const std::string& name, const Bar& bar, Time now, int columns) const;

  bool on_terminal_;
  std::map<std::string, Bar> bars_;
  std::map<std::string, double> over_;  // what was done under a name in bars that are over
};

}  // namespace mobula::core
