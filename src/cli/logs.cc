// mobula logs [NAME]: what workers and actors of running jobs have printed, each line with the file
// that it is from; NAME is a part of that file's name, such as a process index or "actor".
//
//   worker-7.out: loss 0.31
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "cli/commands.h"
#include "cli/session_reader.h"
#include "wire/rendezvous.h"

namespace mobula::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kPause(100);

// Prints what has come since the last time: whole lines, and at the end the rest.
class Follower {
 public:
  explicit Follower(std::string part) : part_(std::move(part)) {}

  bool look(const fs::path& folder) {
    std::error_code gone;
    std::set<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder, gone)) files.insert(entry.path());
    for (const fs::path& file : files) {
      if (file.filename().string().find(part_) != std::string::npos) read(file);
    }
    std::fflush(stdout);
    return !gone;
  }
  void finish() {
    for (auto& [file, tail] : tails_) {
      if (!tail.partial.empty()) print(file, std::exchange(tail.partial, {}));
    }
  }
  bool found() const { return !tails_.empty(); }

 private:
  struct Tail {
    std::streamoff at = 0;
    std::string partial;
  };
  void read(const fs::path& file) {
    Tail& tail = tails_[file];
    std::ifstream stream(file, std::ios::binary | std::ios::ate);
    if (!stream) return;
    if (stream.tellg() < tail.at) tail.at = 0;  // it was full and began anew
    stream.seekg(tail.at);
    std::string text(std::istreambuf_iterator<char>(stream), {});
    tail.at += static_cast<std::streamoff>(text.size());
    tail.partial += text;
    for (std::size_t end; (end = tail.partial.find('\n')) != std::string::npos;) {
      print(file, tail.partial.substr(0, end));
      tail.partial.erase(0, end + 1);
    }
  }
  static void print(const fs::path& file, const std::string& line) {
    std::printf("%s: %s\n", file.filename().c_str(), line.c_str());
  }

  std::string part_;
  std::map<fs::path, Tail> tails_;
};

}  // namespace

int logs(const Arguments& arguments) {
  Follower follower(arguments.words().empty() ? "" : arguments.words()[0]);
  std::vector<fs::path> folders;
  for (const auto& session : read_sessions(arguments.text("job").value_or("")))
    folders.push_back(fs::path(session->folder()) / "logs");
  if (folders.empty()) throw NotFound("no job runs, and logs go with their job");
  for (bool again = true; again;) {
    again = false;
    for (const fs::path& folder : folders) again = follower.look(folder) || again;
    again = again && arguments.has("follow");
    if (again) std::this_thread::sleep_for(kPause);
  }
  follower.finish();
  if (!follower.found() && !arguments.words().empty())
    throw NotFound("no log's name contains '" + arguments.words()[0] + "'");
  return 0;
}

}  // namespace mobula::cli
