// Carries what workers print: into a file per process and stream that prints anything, and, with a
// prefix per line, to the driver's own output.
//
// A thread of its own. The driver's output may be a paused terminal or a pipe that nobody reads:
// the thread waits for it with nothing locked, and gives up when the session ends, so that neither
// the daemon nor a session's end ever hangs on it.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace mobula::node {

class LogRelay {
 public:
  // Lines go to this process's stdout and stderr if `to_driver`.
  LogRelay(std::string folder, bool to_driver);
  ~LogRelay();
  LogRelay(const LogRelay&) = delete;
  LogRelay& operator=(const LogRelay&) = delete;

  // Takes the reading ends over. `name` is the file's, "worker-17"; `prefix` begins each line.
  void add(int out, int err, const std::string& name, const std::string& prefix);
  void rename(const std::string& name, const std::string& prefix);

  // `bars` are the last lines of the terminal from now on, below all that is printed; `lines` are
  // said once. Both go to standard error.
  void show(std::vector<std::string> bars, std::vector<std::string> lines);
  static bool is_terminal(int fd);  // that can take lines back
  static int columns(int fd);

  // Waits until all streams have ended, at most this long, and stops.
  void finish(int milliseconds);

 private:
  struct Stream {
    std::string name;
    const char* suffix;
    std::string prefix;
    std::string partial;  // a line whose end has not come yet
    int file;
    int to;
    std::size_t written = 0;
  };
  void run();
  // What is to be printed of these bytes: whole lines with their prefix. Under the mutex.
  std::string take(Stream& stream, std::string_view data);
  std::string end(int fd);
  void print(int to, std::string_view text);
  void show_now();
  void erase_bars();
  void draw_bars();
  void write_out(int to, std::string_view text);

  const std::string folder_;
  const bool to_driver_;
  int epoll_;
  int stop_;  // an eventfd: readable when the thread is to end
  int shown_;  // an eventfd: readable when there are new bars or lines
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<int, Stream> streams_;
  std::vector<std::string> bars_;
  std::string lines_;  // not printed yet
  std::vector<std::string> drawn_;  // the thread's: on the terminal, the cursor behind the last
  std::thread thread_;
};

}  // namespace mobula::node
