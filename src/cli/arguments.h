// Reads a command line: words, options with a value (--name=x or --name x) and flags.
//
// Hand-written, since this is all that the commands need: what is unknown is refused by name.
#pragma once

#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mobula::cli {

// The command line makes no sense: a sentence.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// What was asked for is not there: no node, no such task. A sentence.
struct NotFound : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Arguments {
 public:
  struct Known {
    std::vector<std::string_view> options;  // that take a value
    std::vector<std::string_view> flags;
    std::size_t words_max = 0;
  };
  // Throws UsageError.
  Arguments(const Known& known, const std::vector<std::string>& command_line);

  bool has(const std::string& flag) const { return given_.contains(flag); }
  std::optional<std::string> text(const std::string& option) const;
  // Not negative. Throws UsageError that names the option.
  std::optional<double> number(const std::string& option) const;
  // "2G", "512M", "64KiB", "1000". Throws UsageError.
  std::optional<std::uint64_t> bytes(const std::string& option) const;
  const std::vector<std::string>& words() const { return words_; }

 private:
  std::map<std::string, std::string> given_;
  std::vector<std::string> words_;
};

}  // namespace mobula::cli
