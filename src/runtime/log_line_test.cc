#include "runtime/log_line.h"

#include <doctest/doctest.h>

#include <cmath>

using mobula::LogField;
using mobula::runtime::log_line;
using mobula::runtime::LogFormat;
using mobula::runtime::LogLimit;

TEST_CASE("a line has each field as key=value, with quotation marks where they are needed") {
  const std::vector<LogField> fields = {{"level", "info"},     {"text", "two words"}, {"n", -3},
                                        {"share", 0.25},       {"big", 1e300},        {"on", true},
                                        {"empty", ""},         {"path", "/a/b"},      {"eq", "a=b"},
                                        {"quote", "say \"x\""}};
  CHECK(log_line(LogFormat::Text, fields) ==
        "level=info text=\"two words\" n=-3 share=0.25 big=1e+300 on=true empty=\"\" path=/a/b "
        "eq=\"a=b\" quote=\"say \\\"x\\\"\"\n");
}

TEST_CASE("as JSON, a line is one object whose numbers are numbers") {
  CHECK(log_line(LogFormat::Json, {{"text", "two words"}, {"n", -3}, {"on", false}, {"x", 1.5}}) ==
        "{\"text\":\"two words\",\"n\":-3,\"on\":false,\"x\":1.5}\n");
  CHECK(log_line(LogFormat::Json, {}) == "{}\n");
  // JSON has no such numbers.
  CHECK(log_line(LogFormat::Json, {{"x", std::nan("")}, {"y", -INFINITY}}) ==
        "{\"x\":\"nan\",\"y\":\"-inf\"}\n");
}

TEST_CASE("whatever the values contain, a line is one line of UTF-8") {
  const std::string all = [] {
    std::string bytes;
    for (int c = 0; c < 256; ++c) bytes += static_cast<char>(c);
    return bytes;
  }();
  for (const LogFormat format : {LogFormat::Text, LogFormat::Json}) {
    const std::string line = log_line(format, {{"text", all}, {all, "x"}});
    CHECK(line.find('\n') == line.size() - 1);
    for (const char c : line.substr(0, line.size() - 1))
      CHECK(static_cast<unsigned char>(c) >= ' ');
  }
  const auto json = [](std::string_view text) { return log_line(LogFormat::Json, {{"t", text}}); };
  CHECK(json("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80") ==
        "{\"t\":\"a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"}\n");
  for (const char* wrong : {"\xff", "\xc0", "\xc3", "\xf8"})
    CHECK(json(wrong) == "{\"t\":\"\xef\xbf\xbd\"}\n");
  CHECK(json("\xed\xa0\x80") ==
        "{\"t\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}\n");  // half a pair
}

TEST_CASE("each key is in a line once, and is a word") {
  CHECK(log_line(LogFormat::Text, {{"a", 1}, {"a", 2}, {"a b", 3}, {"", 4}, {"a", 5}}) ==
        "a=1 a_=2 a_b=3 _=4 a__=5\n");
}

TEST_CASE("a line is bounded") {
  std::vector<LogField> fields;
  for (int i = 0; i < 100; ++i) fields.emplace_back("k", std::string(10'000, 'x'));
  CHECK(fields[0].value().size() < 5'000);
  CHECK(log_line(LogFormat::Text, fields).size() < 33 << 10);
}

TEST_CASE("a place may write a burst, then some lines a second, and says how many it did not") {
  LogLimit limit;
  std::uint64_t now = 1'000'000'000;
  std::uint64_t suppressed = 0;
  int written = 0;
  for (int i = 0; i < 1000; ++i) written += limit.admit(now, suppressed);
  CHECK(written == LogLimit::kBurst);

  now += 1'000'000'000;
  CHECK(limit.admit(now, suppressed));
  CHECK(suppressed == 900);
  written = 1;
  for (int i = 0; i < 1000; ++i) written += limit.admit(now, suppressed);
  CHECK(written == LogLimit::kPerSecond);
  CHECK(suppressed == 0);

  now += 3'600'000'000'000;
  written = 0;
  for (int i = 0; i < 1000; ++i) written += limit.admit(now, suppressed);
  CHECK(written == LogLimit::kBurst);
}

TEST_CASE("times are of UTC, with microseconds") {
  CHECK(mobula::runtime::utc_time(0, 0) == "1970-01-01T00:00:00.000000Z");
  CHECK(mobula::runtime::utc_time(1'769'860'800, 123'456'789) == "2026-01-31T12:00:00.123456Z");
}
