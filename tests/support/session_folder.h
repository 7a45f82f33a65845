// Where a session keeps its folder (of logs), and how a test gives it a place of its own.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/scratch.h"

namespace mobula::test {

// Environment that puts the folder of all sessions under `home`.
inline std::map<std::string, std::string> session_folder_variables(const Scratch& home) {
  return {{"MOBULA_TMPDIR", home.path().string()}};
}

// What sessions have left under `home`.
inline std::vector<std::string> session_folders(const Scratch& home) {
  std::vector<std::string> found;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(home.path(), gone)) {
    found.push_back(entry.path().string());
  }
  return found;
}

}  // namespace mobula::test
