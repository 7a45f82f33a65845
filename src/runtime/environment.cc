#include "runtime/environment.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "mobula/error.h"

namespace mobula::runtime {

std::string environment_text(const RuntimeEnv& environment, const std::string& option) {
  if (environment.env_vars.empty() && environment.working_dir.empty()) return {};
  std::string text;
  if (!environment.working_dir.empty()) {
    std::error_code problem;
    const std::filesystem::path folder =
        std::filesystem::absolute(environment.working_dir, problem);
    if (environment.working_dir.find('\0') != std::string::npos ||
        !std::filesystem::is_directory(folder, problem))
      throw Error(option + ".working_dir: '" + environment.working_dir + "' is no folder" +
                  (problem ? " (" + problem.message() + ")" : ""));
    text = folder.string();
  }
  text += '\0';
  for (const auto& [name, value] : environment.env_vars) {
    if (name.empty() || name.find('=') != std::string::npos || name.find('\0') != std::string::npos)
      throw Error(option + ".env_vars: '" + name + "' is no name of an environment variable");
    if (value.find('\0') != std::string::npos)
      throw Error(option + ".env_vars: the value of " + name + " contains a zero byte");
    text += name + '=' + value + '\0';
  }
  return text;
}

bool enter_environment(std::string_view text) {
  if (text.empty()) return true;
  const std::string folder(text.substr(0, text.find('\0')));
  text.remove_prefix(folder.size() + 1);
  while (!text.empty()) {
    const std::string_view variable = text.substr(0, text.find('\0'));
    const std::size_t equals = variable.find('=');
    ::setenv(std::string(variable.substr(0, equals)).c_str(),
             std::string(variable.substr(equals + 1)).c_str(), 1);
    text.remove_prefix(variable.size() + 1);
  }
  return folder.empty() || ::chdir(folder.c_str()) == 0;
}

}  // namespace mobula::runtime
