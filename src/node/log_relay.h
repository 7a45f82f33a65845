// Carries what workers print: into a file per process and stream, and, with a prefix per line, to the driver's own output.
//
// A thread of its own, so that a slow terminal never holds up the daemon.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <thread>

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

  // Waits until all streams have ended, at most this long, and stops.
  void finish(int milliseconds);

 private:
  struct Stream {
    std::string name;
    std::string prefix;
    std::string partial;  // a line whose end has not come yet
    int file;
    int to;
    std::size_t written = 0;
  };
  void run();
  void take(int fd, Stream& stream, const char* data, std::size_t size);
  void end(int fd);
  void print(Stream& stream, const char* line, std::size_t size);

  const std::string folder_;
  const bool to_driver_;
  int epoll_;
  int wake_;
  std::mutex mutex_;
  std::map<int, Stream> streams_;
  bool finishing_ = false;
  std::thread thread_;
};

}  // namespace mobula::node
