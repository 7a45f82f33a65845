// The options of the small examples: "--name N", a number each.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <string_view>

struct NumberOption {
  std::string_view name;
  long* value;  // holds the default
  long least;
  std::string_view what;
};

// Sets the values from the command line. Ends the program after --help (0) and nonsense (2).
inline void parse_numbers(int argc, char** argv, std::initializer_list<NumberOption> options) {
  const auto help = [&](std::FILE* out) {
    std::fprintf(out, "%s:\n", argv[0]);
    for (const NumberOption& option : options) {
      std::fprintf(out, "  %.*s N  %.*s (%ld)\n", static_cast<int>(option.name.size()),
                   option.name.data(), static_cast<int>(option.what.size()), option.what.data(),
                   *option.value);
    }
    std::exit(out == stdout ? 0 : 2);
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--help" || name == "-h") help(stdout);
    if (name.starts_with("--mobula-")) continue;  // the Session's
    const NumberOption* found = nullptr;
    for (const NumberOption& option : options) found = option.name == name ? &option : found;
    if (!found || ++i == argc) return help(stderr);
    char* end = nullptr;
    const long value = std::strtol(argv[i], &end, 10);
    if (end == argv[i] || *end != 0 || value < found->least) return help(stderr);
    *found->value = value;
  }
}
