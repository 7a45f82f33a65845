#include "shm/memory_use.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace mobula::shm {
namespace {

// The file's bytes, or as many as matter of it; empty: it is not there.
std::string read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char bytes[8192];
  std::string text;
  for (ssize_t n; text.size() < sizeof bytes && (n = ::read(fd, bytes, sizeof bytes)) > 0;)
    text.append(bytes, static_cast<std::size_t>(n));
  ::close(fd);
  return text;
}

// The number behind a name that begins a line: "MemTotal:  24684060 kB".
std::uint64_t number_of(std::string_view text, std::string_view name) {
  for (std::size_t at = text.find(name); at != std::string_view::npos;
       at = text.find(name, at + 1)) {
    if (at != 0 && text[at - 1] != '\n') continue;
    return std::strtoull(text.data() + at + name.size(), nullptr, 10);
  }
  return 0;
}

}  // namespace

std::uint64_t private_memory(std::uint32_t pid) {
  // Pages: all addresses, those in memory, and of these those of files and shared memory.
  const std::string text = read_file("/proc/" + std::to_string(pid) + "/statm");
  char* at = const_cast<char*>(text.c_str());
  std::strtoull(at, &at, 10);
  const std::uint64_t resident = std::strtoull(at, &at, 10);
  const std::uint64_t shared = std::strtoull(at, &at, 10);
  static const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return (resident - std::min(shared, resident)) * page;
}

MemoryGauge::MemoryGauge(std::string root) : root_(std::move(root)) {
  const std::string groups = read_file(root_ + "/proc/self/cgroup");
  for (std::size_t at = 0; at < groups.size();) {
    const std::size_t end = std::min(groups.find('\n', at), groups.size());
    const std::string_view line = std::string_view(groups).substr(at, end - at);
    at = end + 1;
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string path(line.substr(second + 1));
    const std::string controllers =
        "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
    if (controllers == ",,") consider(root_ + "/sys/fs/cgroup", path, true);
    if (controllers.find(",memory,") != std::string::npos)
      consider(root_ + "/sys/fs/cgroup/memory", path, false);
  }
}

// The group and all around it. In a container the path may be the host's, and only the topmost
// folder is there.
void MemoryGauge::consider(std::string folder, std::string path, bool unified) {
  for (;;) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    Group group{folder + path, unified, 0};
    const std::string text =
        read_file(group.folder + (unified ? "/memory.max" : "/memory.limit_in_bytes"));
    group.limit = std::strtoull(text.c_str(), nullptr, 10);  // "max": 0
    const auto room = [this](const Group& g) {
      return static_cast<std::int64_t>(g.limit) - static_cast<std::int64_t>(used(g));
    };
    if (group.limit != 0 && group.limit < machine().limit &&
        (!group_ || room(group) < room(*group_))) {
      group_ = std::move(group);
    }
    const std::size_t parent = path.rfind('/');
    if (parent == std::string::npos) return;
    path.resize(parent);
  }
}

MemoryUse MemoryGauge::machine() const {
  const std::string text = read_file(root_ + "/proc/meminfo");
  const std::uint64_t total = number_of(text, "MemTotal:") << 10;
  return {total - std::min(total, number_of(text, "MemAvailable:") << 10), total};
}

std::uint64_t MemoryGauge::used(const Group& group) const {
  const std::string file = group.unified ? "/memory.current" : "/memory.usage_in_bytes";
  const std::uint64_t all = std::strtoull(read_file(group.folder + file).c_str(), nullptr, 10);
  if (all < group.limit / 2) return all;  // the rest is costlier to read, and does not matter yet
  const std::string text = read_file(group.folder + "/memory.stat");
  // Cached files that nobody has touched lately are given up before anybody is killed.
  return all -
         std::min(all, number_of(text, group.unified ? "inactive_file " : "total_inactive_file "));
}

std::optional<MemoryUse> MemoryGauge::control_group() const {
  if (!group_) return std::nullopt;
  return MemoryUse{used(*group_), group_->limit};
}

std::uint64_t MemoryGauge::limit() const { return group_ ? group_->limit : machine().limit; }

std::uint64_t MemoryGauge::kernel_kills() const {
  if (!group_) return number_of(read_file(root_ + "/proc/vmstat"), "oom_kill ");
  const std::string file = group_->unified ? "/memory.events" : "/memory.oom_control";
  return number_of(read_file(group_->folder + file), "oom_kill ");
}

}  // namespace mobula::shm
