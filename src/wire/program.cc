#include "wire/program.h"

#include <filesystem>
#include <system_error>

namespace mobula::wire {

std::string program_of(pid_t pid) {
  std::error_code problem;
  const auto path = std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", problem);
  if (problem == std::errc::no_such_file_or_directory || problem == std::errc::no_such_process)
    return {};
  return problem ? "unknown" : path.filename().string();
}

}  // namespace mobula::wire
