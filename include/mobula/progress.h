// How far tasks have come, shown by the driver: one bar for each name, added up over all processes.
//
//   std::vector<double> simulate(int episodes) {
//     const mobula::Progress progress = mobula::progress(episodes, "episodes");
//     for (int i = 0; i < episodes; ++i) { ...; progress.add(); }
//
// On a terminal there are bars with rate and time left; elsewhere a line every few seconds, and one
// at the end, both on standard error. Nothing is shown if Config.log_to_driver is false, and
// outside of a session.
#pragma once

#include <memory>
#include <string>

namespace mobula {

// A share of the work under a name. It ends with its object: what was not done then is not waited
// for any more. If its process dies, the share is taken back, to be begun anew by a further
// attempt.
class Progress {
 public:
  Progress(double total, std::string name);
  ~Progress();
  Progress(Progress&&) noexcept;
  Progress& operator=(Progress&&) noexcept;

  // So much more is done. Any thread; some nanoseconds. Throws Error: negative, or no number.
  void add(double done = 1) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// `total` of whatever is counted is to be done, beside what other tasks have under this name.
// Without a name: that of the task. Throws Error: `total` is negative or no number, the name is
// longer than 100 bytes or has control characters.
[[nodiscard]] Progress progress(double total, std::string name = {});

}  // namespace mobula
