// The pages of docs/ say what is there: the guide quotes programs that are compiled and run, every
// crash point is explained, links lead somewhere, and a test that a page names exists.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "shm/crash_point.h"

namespace {

namespace fs = std::filesystem;
using Lines = std::vector<std::string>;

const fs::path kRoot = MOBULA_SOURCE_DIR;

std::string read(const fs::path& file) {
  std::ifstream stream(file);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

Lines lines_of(const std::string& text) {
  std::istringstream stream(text);
  Lines lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string_view trimmed(std::string_view line) {
  const std::size_t begin = std::min(line.find_first_not_of(' '), line.size());
  const std::size_t end = line.find_last_not_of(' ');
  return line.substr(begin, end == std::string_view::npos ? 0 : end + 1 - begin);
}

// Without the indentation that all lines share.
std::string flush_left(const Lines& lines) {
  std::size_t indentation = std::string::npos;
  for (const std::string& line : lines) {
    if (!line.empty()) indentation = std::min(indentation, line.find_first_not_of(' '));
  }
  std::string text;
  for (const std::string& line : lines)
    text += (line.empty() ? line : line.substr(indentation)) + "\n";
  return text;
}

// The parts of a program: what stands between "// [name]" and "// [/name]", in C "/* [name] */".
std::map<std::string, std::string> parts_of(const std::string& program) {
  std::map<std::string, std::string> parts;
  std::string name;
  Lines lines;
  for (const std::string& line : lines_of(program)) {
    std::string_view text = trimmed(line);
    std::string comment;
    if (text.starts_with("/* [") && text.ends_with("] */")) {
      comment = "//" + std::string(text.substr(2, text.size() - 5));
      text = comment;
    }
    if (!name.empty() && text == "// [/" + name + "]") {
      parts[name] = flush_left(lines);
      name.clear();
    } else if (!name.empty()) {
      lines.push_back(line);
    } else if (text.starts_with("// [") && text.ends_with("]")) {
      name = text.substr(4, text.size() - 5);
      lines.clear();
    }
  }
  return parts;
}

struct Quote {
  int line;  // of the page, where its code begins
  std::string source;  // "hello.cc part"; empty: the code does not say where it is from
  std::string code;
};

// Each block of C++ or C on a page, and the comment "<!-- hello.cc part -->" in the line before it.
std::vector<Quote> quotes_of(const std::string& page) {
  std::vector<Quote> quotes;
  const Lines lines = lines_of(page);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (lines[i] != "```cpp" && lines[i] != "```c") continue;
    Quote quote{static_cast<int>(i) + 2, {}, {}};
    if (i > 0 && lines[i - 1].starts_with("<!-- ") && lines[i - 1].ends_with(" -->"))
      quote.source = lines[i - 1].substr(5, lines[i - 1].size() - 9);
    while (++i < lines.size() && lines[i] != "```") quote.code += lines[i] + "\n";
    quotes.push_back(quote);
  }
  return quotes;
}

// "hello.cc part" -> its code, for all programs of the folder.
std::map<std::string, std::string> all_parts() {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::directory_iterator(kRoot / "docs/snippets")) {
    const std::string file = entry.path().filename().string();
    const bool program = file.ends_with(".cc") || file.ends_with(".c");
    if (!program || file.ends_with("_test.cc")) continue;
    for (auto& [name, code] : parts_of(read(entry.path()))) all[file + " " + name] = code;
  }
  return all;
}

std::vector<fs::path> pages() {
  std::vector<fs::path> all;
  for (const auto& entry : fs::recursive_directory_iterator(kRoot / "docs")) {
    if (entry.path().extension() == ".md") all.push_back(entry.path());
  }
  return all;
}

// Targets of the links of a page that lead into the tree.
std::vector<std::string> links_of(const std::string& page) {
  std::vector<std::string> links;
  for (std::size_t at = page.find("]("); at != std::string::npos; at = page.find("](", at + 1)) {
    const std::size_t end = page.find_first_of(")#\n", at + 2);
    const std::string link = page.substr(at + 2, end - at - 2);
    const bool is_path = !link.empty() && link.find("://") == std::string::npos &&
                         link.find_first_of(" <>(&") == std::string::npos;
    if (is_path) links.push_back(link);
  }
  return links;
}

struct NamedTest {
  std::string file;
  std::string title;
};

// Tests that a page names in the form `path/of_test.cc` "title".
std::vector<NamedTest> tests_named_in(const std::string& page) {
  std::vector<NamedTest> tests;
  std::string file;
  for (std::size_t at = 0; at < page.size(); ++at) {
    if (page[at] == '`') {
      const std::size_t end = std::min(page.find('`', at + 1), page.size());
      const std::string code = page.substr(at + 1, end - at - 1);
      if (code.ends_with(".cc")) file = code;
      at = end;
    } else if (page[at] == '"' && !file.empty()) {
      const std::size_t end = std::min(page.find('"', at + 1), page.size());
      tests.push_back({file, page.substr(at + 1, end - at - 1)});
      at = end;
    } else if (page[at] == '\n') {
      file.clear();
    }
  }
  return tests;
}

// Without blanks and quotation marks: a title may be broken into several literals.
std::string bare(const std::string& text) {
  std::string result;
  std::copy_if(text.begin(), text.end(), std::back_inserter(result),
               [](char c) { return c != ' ' && c != '\n' && c != '"'; });
  return result;
}

}  // namespace

TEST_CASE("the guide quotes the programs beside it word for word, and nothing else") {
  const auto parts = all_parts();

  std::set<std::string> quoted;
  for (const Quote& quote : quotes_of(read(kRoot / "docs/guide.md"))) {
    INFO("docs/guide.md:" << quote.line << ": " << quote.source);
    REQUIRE(parts.contains(quote.source));
    CHECK(quote.code == parts.at(quote.source));
    quoted.insert(quote.source);
  }

  for (const auto& [source, code] : parts) {
    CAPTURE(source);
    CHECK(quoted.contains(source));
  }
}

TEST_CASE("every crash point is explained in the tour and in the protocol") {
  for (const char* page : {"docs/architecture.md", "docs/protocol.md"}) {
    CAPTURE(page);
    const std::string text = read(kRoot / page);
    for (std::size_t i = 0; i < static_cast<std::size_t>(mobula::shm::CrashPoint::kCount); ++i) {
      const auto& point = mobula::shm::crash_point_info(static_cast<mobula::shm::CrashPoint>(i));
      CAPTURE(point.name);
      CHECK(text.find("`" + std::string(point.name) + "`") != std::string::npos);
    }
  }
}

TEST_CASE("links between the pages and into the tree lead somewhere") {
  for (const fs::path& page : pages()) {
    CAPTURE(page.string());
    for (const std::string& link : links_of(read(page))) {
      CAPTURE(link);
      CHECK(fs::exists(page.parent_path() / link));
    }
  }
}

TEST_CASE("a test that docs/faults.md names exists under that title") {
  const auto named = tests_named_in(read(kRoot / "docs/faults.md"));

  CHECK(!named.empty());
  for (const NamedTest& test : named) {
    CAPTURE(test.file);
    CAPTURE(test.title);
    const std::string title = "TEST_CASE(" + bare(test.title);
    const std::string text = bare(read(kRoot / test.file));
    const bool exists = text.find(title + ")") != std::string::npos ||
                        text.find(title + "*") != std::string::npos;  // with a decorator
    CHECK(exists);
  }
}

TEST_CASE("a quote that differs, a missing source and a broken title are noticed") {
  const auto parts = parts_of("int a;\n  // [x]\n  int b;\n    int c;\n  // [/x]\nint d;\n");
  const auto quotes =
      quotes_of("<!-- a.cc x -->\n```cpp\nint b;\n  int c;\n```\n\n```cpp\nint e;\n```\n");
  const auto tests = tests_named_in("| `t.cc` \"one\", \"two\" |\n\"three\"\n");

  CHECK(parts == std::map<std::string, std::string>{{"x", "int b;\n  int c;\n"}});
  REQUIRE(quotes.size() == 2);
  CHECK(quotes[0].source == "a.cc x");
  CHECK(quotes[0].code == parts.at("x"));
  CHECK(quotes[1].source.empty());
  CHECK(quotes[1].code != parts.at("x"));
  REQUIRE(tests.size() == 2);
  CHECK(tests[1].title == "two");
  CHECK(bare("TEST_CASE(\n    \"a b \"\n    \"c\")") == "TEST_CASE(abc)");
  CHECK(links_of("[a](b.md) [c](https://d) [e](f/g.h#12)") ==
        std::vector<std::string>{"b.md", "f/g.h"});
}
