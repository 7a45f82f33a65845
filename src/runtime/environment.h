// What a process of a runtime_env finds around it, as text: it is part of the key of a scheduling
// class, travels to the daemon and from there to the zygote, and only the new process reads it.
//
//   the working directory (absolute; empty: the driver's) \0 NAME=VALUE \0 NAME=VALUE \0 ..
#pragma once

#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mobula/options.h"

namespace mobula::runtime {

// Empty: nothing is given. Throws Error, naming the option, for what cannot be.
std::string environment_text(const RuntimeEnv& environment, const std::string& option);

// Of the calling process. False with errno set: the working directory cannot be entered.
bool enter_environment(std::string_view text);

// One process in the environments of several tasks (local mode). It has one at a time: that of the
// visit which began last and has not ended; without visits, its own. What a task sets by itself
// stays, as any global does.
class EnvironmentVisits {
 public:
  using Visit = std::list<std::string>::iterator;
  Visit begin(std::string text);
  void end(Visit visit);

 private:
  void change();

  std::mutex mutex_;
  std::list<std::string> visits_;
  std::string text_;  // in force
  std::vector<std::pair<std::string, std::optional<std::string>>> replaced_;  // variables
  std::string own_folder_;  // empty: it was not left
};

}  // namespace mobula::runtime
