// Decides whether every include points the way the house is built.
//
// A room may include what stands below it and nothing beside or above; the floor (shm, core) knows
// no I/O library; what stands for a user's program sees the public headers alone. Only the text is
// read, so the rules hold for code that this build leaves out, and the test takes milliseconds.
//
//   shm, core, wire  <  gcs, node, runtime, sim  <  cli, python, libs  <  examples

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string_view>;

// "a b" as {"a", "b"}.
Names words(std::string_view text) {
  Names result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    result.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

struct Violation {
  std::string file;
  int line;
  std::string rule;
  bool operator==(const Violation&) const = default;
};

// Rooms by floor. A room is named by the folder that an include of it starts with.
const std::map<std::string_view, int> kFloors = {
    {"shm", 1}, {"core", 1}, {"wire", 1},   {"gcs", 2},  {"node", 2},    {"runtime", 2},
    {"sim", 2}, {"cli", 3},  {"python", 3}, {"libs", 3}, {"examples", 4}};

// Everything but what is too heavy for users (see kHeavy) and what does I/O (see kIo).
const Names kStandard = words(
    "algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat "
    "charconv chrono cinttypes climits clocale cmath codecvt compare complex concepts "
    "condition_variable coroutine csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib "
    "cstring ctime cuchar cwchar cwctype deque exception execution expected filesystem "
    "format forward_list fstream functional future initializer_list iomanip ios iosfwd "
    "iostream istream iterator latch limits list locale map memory memory_resource mutex "
    "new numbers numeric optional ostream queue random ranges ratio regex scoped_allocator "
    "semaphore set shared_mutex source_location span sstream stack stdexcept stop_token "
    "streambuf string string_view syncstream system_error thread tuple type_traits "
    "typeindex typeinfo unordered_map unordered_set utility valarray variant vector "
    "version");

const Names kHeavy = {"format", "functional", "iostream", "regex"};

// A standard header of I/O or threads, or the start of a path that belongs to such a library.
const Names kIo = {"condition_variable", "filesystem", "fstream", "future",
                   "iostream",           "semaphore",  "thread"};
const Names kIoPaths = words(
    "arpa/ boost/ flatbuffers/ hiredis/ liburing netdb.h netinet/ openssl/ poll.h rocksdb/ "
    "spdlog/ sys/epoll.h sys/poll.h sys/select.h sys/socket.h sys/un.h");

// In core, time and randomness arrive as values: none of these words may stand in its code.
const Names kOutsideWorld = {"::now(", "random_device", "std::rand(", "getenv(", "this_thread"};

bool contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool starts_with_any(std::string_view text, const Names& starts) {
  return std::any_of(starts.begin(), starts.end(),
                     [&](std::string_view start) { return text.starts_with(start); });
}

std::string_view first_folder(std::string_view path) {
  const std::size_t slash = path.find('/');
  return slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash);
}

struct Include {
  int line;
  std::string_view path;
  bool quoted;
};

struct Source {
  std::string file;  // from the root of the tree
  std::vector<std::string> lines;  // without comments
};

// Blanks comments, also those over several lines, so that prose may say "#include" or "::now(".
// A literal that holds the start of a comment ends the line early: less is checked, nothing is
// invented.
Source parse(std::string file, std::string_view text) {
  Source source{std::move(file), {}};
  bool in_comment = false;
  std::string line;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    if (at == text.size() || text[at] == '\n') {
      source.lines.push_back(std::move(line));
      line.clear();
    } else if (in_comment) {
      if (text.substr(at, 2) == "*/") {
        in_comment = false;
        ++at;
      }
    } else if (text.substr(at, 2) == "/*") {
      in_comment = true;
      ++at;
    } else if (text.substr(at, 2) == "//") {
      at = std::min(text.find('\n', at), text.size()) - 1;
    } else {
      line += text[at];
    }
  }
  return source;
}

std::vector<Include> includes_of(const Source& source) {
  std::vector<Include> includes;
  const auto skip_blanks = [](std::string_view& text) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  };
  for (std::size_t index = 0; index < source.lines.size(); ++index) {
    std::string_view rest = source.lines[index];
    skip_blanks(rest);
    if (!rest.starts_with('#')) continue;
    rest.remove_prefix(1);
    skip_blanks(rest);
    if (!rest.starts_with("include")) continue;
    rest.remove_prefix(std::string_view("include").size());
    skip_blanks(rest);
    if (rest.empty() || (rest.front() != '<' && rest.front() != '"')) continue;
    const bool quoted = rest.front() == '"';
    rest.remove_prefix(1);
    const std::size_t end = rest.find(quoted ? '"' : '>');
    if (end != std::string_view::npos)
      includes.push_back({static_cast<int>(index) + 1, rest.substr(0, end), quoted});
  }
  return includes;
}

// The room of a file of the tree ("src/shm/ring.cc" -> "shm"); "mobula" is the room of the public
// headers.
std::string_view room_of_file(std::string_view file) {
  if (file.starts_with("include/")) return "mobula";
  if (file.starts_with("src/")) return first_folder(file.substr(4));
  return first_folder(file);
}

// The room that an include leads to, or nothing for a header of somebody else.
std::string room_of_include(const std::string& file, const Include& include) {
  std::string path(include.path);
  if (include.quoted && (path.starts_with("../") || path.find('/') == std::string::npos)) {
    path = (fs::path(file).parent_path() / path).lexically_normal().generic_string();
    return std::string(room_of_file(path));
  }
  const std::string_view room = first_folder(path);
  if (room == "mobula" || kFloors.contains(room) || room == "tests" || room == "bench")
    return std::string(room);
  if (room == "src" || room == "include") return std::string(room_of_file(path));
  return {};
}

// The rule that this include breaks, or nothing.
std::string broken_rule(const std::string& file, const Include& include) {
  const std::string_view room = room_of_file(file);
  const std::string target = room_of_include(file, include);
  const std::string what(include.path);
  const bool is_test = file.ends_with("_test.cc");

  if (room == "mobula") {
    if (target == "mobula") return {};
    const bool for_others =
        file.starts_with("include/mobula/interop/") || file.starts_with("include/mobula/compat/");
    if (for_others && target.empty()) return {};  // a header for a library names that library
    if (file == "include/mobula.h" && (what == "stddef.h" || what == "stdint.h"))
      return {};  // of C
    if (contains(kHeavy, include.path)) return "<" + what + "> is too heavy for a public header";
    if (include.quoted || !contains(kStandard, include.path)) {
      return "public headers include the standard library and mobula/ only, not " + what;
    }
    return {};
  }
  if (target.empty()) {
    const bool floor = room == "shm" || room == "core";
    if (!floor || is_test) return {};
    if (contains(kIo, include.path) || starts_with_any(include.path, kIoPaths)) {
      return std::string(room) + " knows no I/O library, thread or file: " + what;
    }
    if (room == "core" && !contains(kStandard, include.path)) {
      return "core includes the standard library only, not " + what;
    }
    return {};
  }
  if (target == room || target == "mobula" || room == "tests") return {};
  if (room == "bench") {
    return target == "shm" ? "" : "bench includes mobula/ and, for raw limits, shm: not " + target;
  }
  if (room == "libs" || room == "examples") {
    const bool lib_below = room == "examples" && target == "libs";
    return lib_below ? ""
                     : std::string(room) + " is written against the public API alone: not " + what;
  }
  if (!kFloors.contains(room)) return {};
  if (!kFloors.contains(target))
    return is_test ? "" : std::string(room) + " must not include " + what;
  if (kFloors.at(target) < kFloors.at(room)) return {};
  return std::string(room) + " must not include " + target + ": it does not stand below";
}

std::vector<Violation> violations_of(const std::string& file, std::string_view text) {
  const Source source = parse(file, text);
  std::vector<Violation> violations;
  for (const Include& include : includes_of(source)) {
    if (std::string rule = broken_rule(file, include); !rule.empty()) {
      violations.push_back({file, include.line, std::move(rule)});
    }
  }
  if (room_of_file(file) == "core" && !file.ends_with("_test.cc")) {
    for (std::size_t index = 0; index < source.lines.size(); ++index) {
      for (const std::string_view word : kOutsideWorld) {
        if (source.lines[index].find(word) == std::string::npos) continue;
        violations.push_back(
            {file, static_cast<int>(index) + 1,
             "core gets time, randomness and settings as values: no " + std::string(word)});
      }
    }
  }
  return violations;
}

std::string rule_of(const std::string& file, const std::string& include_line) {
  const auto violations = violations_of(file, include_line + "\n");
  return violations.empty() ? "" : violations.front().rule;
}

}  // namespace

TEST_CASE("includes of the tree point one way") {
  const fs::path root = MOBULA_SOURCE_DIR;
  const Names endings = {".h", ".hpp", ".cc", ".cpp", ".inc"};
  int files = 0;

  for (const std::string_view top :
       {"src", "include", "libs", "examples", "sim", "bench", "python", "tests"}) {
    if (!fs::exists(root / top)) continue;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / top)) {
      if (!entry.is_regular_file() || !contains(endings, entry.path().extension().string()))
        continue;
      std::ifstream stream(entry.path(), std::ios::binary);
      std::stringstream text;
      text << stream.rdbuf();
      ++files;
      for (const Violation& found :
           violations_of(entry.path().lexically_relative(root).generic_string(), text.str())) {
        FAIL_CHECK(found.file << ":" << found.line << ": " << found.rule);
      }
    }
  }

  CHECK(files > 1);  // at least this file and another one were found
}

TEST_CASE("an include is judged by where it stands and where it leads") {
  struct Row {
    std::string_view name, file, include;
    bool allowed;
  };
  const std::vector<Row> rows = {
      {"own room", "src/shm/ring.cc", "#include \"shm/ring.h\"", true},
      {"own room without folder", "src/shm/ring.cc", "#include \"ring.h\"", true},
      {"standard library on the floor", "src/core/refs.h", "#include <map>", true},
      {"public header on the floor", "src/core/refs.h", "#include \"mobula/result.h\"", true},
      {"down", "src/node/daemon.cc", "#include \"core/refs.h\"", true},
      {"two floors down", "src/cli/main.cc", "#include \"wire/frame.h\"", true},
      {"up from the floor", "src/core/refs.cc", "#include \"node/daemon.h\"", false},
      {"up by dots", "src/core/refs.cc", "#include \"../node/daemon.h\"", false},
      {"sideways on the floor", "src/core/refs.cc", "#include \"shm/ring.h\"", false},
      {"sideways above it", "src/runtime/driver.cc", "#include \"node/daemon.h\"", false},
      {"up from a test", "src/shm/ring_test.cc", "#include \"runtime/driver.h\"", false},
      {"up to a library", "src/runtime/driver.cc", "#include \"libs/rl/rl.h\"", false},
      {"mapping in shm", "src/shm/arena.cc", "#include <sys/mman.h>", true},
      {"futex in shm", "src/shm/bell.cc", "# include <linux/futex.h>", true},
      {"mapping in core", "src/core/refs.cc", "#include <sys/mman.h>", false},
      {"socket in shm", "src/shm/arena.cc", "#include <sys/socket.h>", false},
      {"thread in shm", "src/shm/arena.cc", "#include <thread>", false},
      {"thread in a test of shm", "src/shm/arena_test.cc", "#include <thread>", true},
      {"asio in core", "src/core/refs.cc", "#include <boost/asio.hpp>", false},
      {"socket in node", "src/node/daemon.cc", "#include <sys/socket.h>", true},
      {"standard library in public", "include/mobula/ref.h", "#include <vector>", true},
      {"public in public", "include/mobula/detail/x.h", "#include <mobula/ref.h>", true},
      {"neighbour in public", "include/mobula/detail/x.h", "#include \"../ref.h\"", true},
      {"heavy header in public", "include/mobula/ref.h", "#include <functional>", false},
      {"system header in public", "include/mobula/ref.h", "#include <unistd.h>", false},
      {"a room in public", "include/mobula/ref.h", "#include \"shm/ring.h\"", false},
      {"others' library in public", "include/mobula/ref.h", "#include <fmt/core.h>", false},
      {"others' library in a header for it", "include/mobula/interop/eigen.h",
       "#include <Eigen/Core>", true},
      {"C's library in the header for C", "include/mobula.h", "#include <stdint.h>", true},
      {"C's library in C++", "include/mobula/ref.h", "#include <stdint.h>", false},
      {"a room in a header for others", "include/mobula/compat/ray/api.h",
       "#include \"shm/ring.h\"", false},
      {"public in an example", "examples/pi/pi.cc", "#include <mobula/mobula.h>", true},
      {"physics in an example", "examples/rl/env.cc", "#include <mujoco/mujoco.h>", true},
      {"a library in an example", "examples/rl/env.cc", "#include \"libs/rl/rl.h\"", true},
      {"a room in an example", "examples/rl/env.cc", "#include \"runtime/driver.h\"", false},
      {"a room by path in an example", "examples/rl/env.cc", "#include \"../../src/shm/ring.h\"",
       false},
      {"an example in a library", "libs/rl/rl.cc", "#include \"examples/rl/env.h\"", false},
      {"a room in a library", "libs/rl/rl.cc", "#include \"core/refs.h\"", false},
      {"raw limits in bench", "bench/limits.cc", "#include \"shm/ring.h\"", true},
      {"runtime in bench", "bench/tasks.cc", "#include \"runtime/driver.h\"", false},
      {"rules in the simulator", "sim/cluster.cc", "#include \"core/refs.h\"", true},
      {"the daemon in the simulator", "sim/cluster.cc", "#include \"node/daemon.h\"", false},
      {"in a comment", "src/core/refs.cc", "// #include <thread>", true},
      {"in a long comment", "src/core/refs.cc", "/* so\n#include <thread>\n*/", true},
      {"after a long comment", "src/core/refs.cc", "/* so\n*/ #include <thread>", false},
  };

  for (const Row& row : rows) {
    INFO(row.name << ": " << row.file << " with " << row.include);
    CHECK(rule_of(std::string(row.file), std::string(row.include)).empty() == row.allowed);
  }
}

TEST_CASE("a turned arrow is reported with file, line and rule") {
  const auto found =
      violations_of("src/core/refs.cc", "// rules\n\n#include <map>\n#include \"node/daemon.h\"\n");

  CHECK(found == std::vector<Violation>{{"src/core/refs.cc", 4,
                                         "core must not include node: it does not stand below"}});
}

TEST_CASE("core does not ask what time it is") {
  const std::string text =
      "// steady_clock::now() is for shells\nauto t = std::chrono::steady_clock::now();\n";

  const auto in_core = violations_of("src/core/refs.cc", text);

  REQUIRE(in_core.size() == 1);
  CHECK(in_core.front().line == 2);
  CHECK(violations_of("src/node/daemon.cc", text).empty());
  CHECK(violations_of("src/core/refs_test.cc", text).empty());
}
