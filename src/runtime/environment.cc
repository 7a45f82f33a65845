#include "runtime/environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <filesystem>
#include <iterator>
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

namespace {

struct Parsed {
  std::string folder;
  std::vector<std::pair<std::string, std::string>> variables;
};

Parsed parse(std::string_view text) {
  Parsed parsed;
  if (text.empty()) return parsed;
  parsed.folder = text.substr(0, text.find('\0'));
  text.remove_prefix(parsed.folder.size() + 1);
  while (!text.empty()) {
    const std::string_view variable = text.substr(0, text.find('\0'));
    const std::size_t equals = variable.find('=');
    parsed.variables.emplace_back(variable.substr(0, equals), variable.substr(equals + 1));
    text.remove_prefix(variable.size() + 1);
  }
  return parsed;
}

}  // namespace

bool enter_environment(std::string_view text) {
  const Parsed parsed = parse(text);
  for (const auto& [name, value] : parsed.variables) ::setenv(name.c_str(), value.c_str(), 1);
  return parsed.folder.empty() || ::chdir(parsed.folder.c_str()) == 0;
}

EnvironmentVisits::Visit EnvironmentVisits::begin(std::string text) {
  const std::lock_guard lock(mutex_);
  visits_.push_back(std::move(text));
  change();
  return std::prev(visits_.end());
}

void EnvironmentVisits::end(Visit visit) {
  const std::lock_guard lock(mutex_);
  visits_.erase(visit);
  change();
}

void EnvironmentVisits::change() {
  const std::string& wanted = visits_.empty() ? std::string() : visits_.back();
  if (wanted == text_) return;
  for (const auto& [name, value] : replaced_)
    value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
  replaced_.clear();
  std::error_code problem;
  if (!own_folder_.empty()) std::filesystem::current_path(own_folder_, problem);
  own_folder_.clear();
  text_ = wanted;
  const Parsed parsed = parse(text_);
  for (const auto& [name, unused] : parsed.variables) {
    const char* value = ::getenv(name.c_str());
    replaced_.emplace_back(name, value ? std::optional<std::string>(value) : std::nullopt);
  }
  if (!parsed.folder.empty()) own_folder_ = std::filesystem::current_path(problem).string();
  if (!enter_environment(text_)) {
    ::fprintf(stderr, "mobula: a task cannot enter the folder %s of its runtime_env: %s\n",
              parsed.folder.c_str(), ::strerror(errno));
  }
}

}  // namespace mobula::runtime
