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
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/session_reader.h"
#include "wire/rendezvous.h"

namespace mobula::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kPause(100);

struct Logs {
  std::string job;
  fs::path folder;
};

// Prints what has come since the last time: whole lines, and at the end the rest.
class Follower {
 public:
  Follower(std::string part, bool json) : part_(std::move(part)), json_(json) {}

  bool look(const Logs& logs) {
    std::error_code gone;
    std::set<fs::path> files;
    for (const auto& entry : fs::directory_iterator(logs.folder, gone)) files.insert(entry.path());
    for (const fs::path& file : files) {
      if (file.filename().string().find(part_) != std::string::npos) read(logs.job, file);
    }
    std::fflush(stdout);
    return !gone;
  }
  void finish() {
    for (auto& [file, tail] : tails_) {
      if (!tail.partial.empty()) tell(tail.job, file, std::exchange(tail.partial, {}));
    }
  }
  bool found() const { return !tails_.empty(); }
  bool printed() const {
    return std::ranges::any_of(tails_, [](const auto& entry) { return entry.second.at != 0; });
  }

 private:
  struct Tail {
    std::string job;
    std::streamoff at = 0;
    std::string partial;
  };
  void read(const std::string& job, const fs::path& file) {
    Tail& tail = tails_[file];
    tail.job = job;
    std::ifstream stream(file, std::ios::binary | std::ios::ate);
    if (!stream) return;
    if (stream.tellg() < tail.at) tail.at = 0;  // it was full and began anew
    stream.seekg(tail.at);
    std::string text(std::istreambuf_iterator<char>(stream), {});
    tail.at += static_cast<std::streamoff>(text.size());
    tail.partial += text;
    for (std::size_t end; (end = tail.partial.find('\n')) != std::string::npos;) {
      tell(job, file, tail.partial.substr(0, end));
      tail.partial.erase(0, end + 1);
    }
  }
  void tell(const std::string& job, const fs::path& file, const std::string& line) const {
    if (json_)
      return print({{"JOB", "LOG", "LINE"}, {{job, file.filename().string(), line}}}, true);
    std::printf("%s: %s\n", file.filename().c_str(), line.c_str());
  }

  std::string part_;
  bool json_;
  std::map<fs::path, Tail> tails_;
};

}  // namespace

int logs(const Arguments& arguments) {
  Follower follower(arguments.words().empty() ? "" : arguments.words()[0], arguments.has("json"));
  std::vector<Logs> jobs;
  for (const auto& session : read_sessions(arguments.text("job").value_or("")))
    jobs.push_back({session->id(), fs::path(session->folder()) / "logs"});
  if (jobs.empty()) throw NotFound("no job runs, and logs go with their job");
  for (bool again = true; again;) {
    again = false;
    for (const Logs& job : jobs) again = follower.look(job) || again;
    again = again && arguments.has("follow");
    if (again) std::this_thread::sleep_for(kPause);
  }
  follower.finish();
  if (!follower.found() && !arguments.words().empty())
    throw NotFound("no log's name contains '" + arguments.words()[0] + "'");
  if (!follower.printed() && !arguments.has("follow"))
    std::fputs("mobula: nothing has been printed yet\n", stderr);
  return 0;
}

}  // namespace mobula::cli
