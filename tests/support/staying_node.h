// A node that stays, in a folder of the test's own, and runs of the real `mobula` command beside
// it.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/processes.h"
#include "support/scratch.h"
#include "wire/rendezvous.h"

namespace mobula::test {

inline std::string mobula_command() {
  return (std::filesystem::path(own_program()).parent_path() / "mobula").string();
}

struct CommandRun {
  int code = -1;  // -1: it did not end by itself
  std::string output;
};

// Nodes and sessions under `home`, and nobody else's.
class OwnPlace {
 public:
  const Scratch& home() const { return home_; }
  std::map<std::string, std::string> variables(const std::string& address = {}) const {
    return {{"MOBULA_TMPDIR", home_.path().string()}, {"MOBULA_ADDRESS", address}};
  }
  CommandRun run(const std::vector<std::string>& arguments) const {
    Child child(mobula_command(), arguments, variables());
    const auto ending = child.wait(std::chrono::seconds(30));
    return {ending && ending->signal == 0 ? ending->code : -1, child.output()};
  }
  std::filesystem::path folder() const {
    return home_.path() / ("mobula-" + std::to_string(::geteuid()));
  }

 private:
  Scratch home_;
};

// `mobula start --head --block` as a child: its process keeps the one that serves.
class StayingNode {
 public:
  explicit StayingNode(const OwnPlace& place, const std::vector<std::string>& options = {},
                       const std::string& name = "test")
      : folder_(place.folder() / ("node-" + name)) {
    std::vector<std::string> words{
        "start", "--head", "--block", "--name", name, "--num-cpus=2", "--object-store-memory=256M"};
    words.insert(words.end(), options.begin(), options.end());
    keeper_.emplace(mobula_command(), words, place.variables());
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!answers()) {
      if (std::chrono::steady_clock::now() > end || keeper_->wait(std::chrono::milliseconds(1)))
        throw std::runtime_error("the node did not start: " + keeper_->output());
    }
  }

  Child& keeper() { return *keeper_; }
  // Its children are what the keeper started, and the daemons of sessions are of these.
  pid_t head() const {
    for (const SeenProcess& seen : family_of(keeper_->tag())) {
      if (seen.parent == keeper_->pid()) return seen.pid;
    }
    return 0;
  }
  bool answers() const {
    try {
      ::close(wire::connect_in(folder_.string()));
      return true;
    } catch (const std::runtime_error&) {
      return false;
    }
  }
  std::string socket() const { return (folder_ / "socket").string(); }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  std::optional<Child> keeper_;
};

}  // namespace mobula::test
