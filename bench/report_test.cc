#include "report.h"

#include <doctest/doctest.h>

#include <cmath>

#include "machine_limits.h"

namespace mobula::bench {
namespace {

Row row_in(const std::string& unit) {
  return {"some_row", "a title", unit, Better::Higher, "a limit", "1/s", [](const Runs&) {}};
}

TEST_CASE("quantiles lie between the samples") {
  const std::vector<double> samples{4, 1, 3, 2};

  CHECK(quantile(samples, 0) == 1);
  CHECK(quantile(samples, 1) == 4);
  CHECK(median(samples) == doctest::Approx(2.5));
  CHECK(quantile({7}, 0.99) == 7);
  CHECK_THROWS(median({}));
}

TEST_CASE("the ratio pairs each value with the limit of its own run") {
  const Summary summary = summarize({{10, 20}, {30, 60}, {5, 10}});

  CHECK(summary.value == 10);
  CHECK(summary.least == 5);
  CHECK(summary.greatest == 30);
  CHECK(summary.limit == 20);
  CHECK(summary.ratio == doctest::Approx(0.5));
}

TEST_CASE("a limit of nothing has no ratio") {
  CHECK(std::isnan(summarize({{0.1, 0}, {0.2, 0.1}}).ratio));
}

TEST_CASE("figures are shown in the unit that fits their size") {
  const struct {
    double value;
    const char* unit;
    const char* text;
  } table[] = {{2'310'000, "1/s", "2.31 M/s"}, {45'600, "1/s", "45.6 k/s"},
               {4.9, "1/s", "4.90 /s"},        {0.0125, "us", "12.5 ns"},
               {2.5, "us", "2.50 us"},         {1'230, "us", "1.23 ms"},
               {0.042, "s", "42.0 ms"},        {12.83, "GB/s", "12.8 GB/s"},
               {0.0031, "%", "0.0031 %"},      {0, "%", "0.00 %"}};

  for (const auto& line : table) {
    INFO(line.text);
    CHECK(with_unit(line.value, line.unit) == line.text);
  }
}

TEST_CASE("a row's JSON is one line with its figures and notes") {
  Outcome outcome;
  outcome.samples = {{2, 4}, {3, 4}};
  outcome.notes["p99"] = {8, 10};

  CHECK(
      json_line(row_in("us"), outcome) ==
      R"({"row":"some_row","value":2.5,"unit":"us","limit":4,"ratio":0.625,"spread":[2,3],"runs":2,"limit_name":"a limit","p99":9})");
}

TEST_CASE("a failed row's JSON has the reason and no figures") {
  Outcome outcome;
  outcome.samples = {{2, 4}};
  outcome.error = "wrong \"sum\"\n";

  CHECK(
      json_line(row_in("us"), outcome) ==
      R"({"row":"some_row","value":null,"unit":"us","limit":null,"ratio":null,"spread":null,"runs":0,"limit_name":"a limit","error":"wrong \"sum\"\u000a"})");
}

TEST_CASE("value and limit take turns at being first") {
  std::string order;
  std::vector<Sample> samples;
  const Runs runs(
      3, false,
      {[&](Sample sample) { samples.push_back(sample); }, [](const std::string&, double) {}});

  runs.interleave(
      [&] {
        order += 'v';
        return 1.0;
      },
      [&] {
        order += 'l';
        return 2.0;
      });

  CHECK(order == "vllvvl");
  REQUIRE(samples.size() == 3);
  CHECK(samples[1].value == 1);
  CHECK(samples[1].limit == 2);
}

TEST_CASE("the raw limits finish with right sums and positive figures") {
  CHECK(ledger_loop_per_s(3) > 0);
  CHECK(ledger_in_place_per_s(5'000, 2) > 0);
  CHECK(ledger_read_per_s(1'500) > 0);
  CHECK(spin_round_trip_us(10) > 0);
  CHECK(futex_round_trip_us(3, std::chrono::nanoseconds(0)) > 0);
  CHECK(kill_and_fork_ms(1) > 0);
}

TEST_CASE("a copy beyond the end of warm memory is refused") {
  const WarmMemory target(4096);
  const std::vector<std::byte> source(8192);

  CHECK(memcpy_gb_s(target, source.data(), 4096) > 0);
  CHECK_THROWS(memcpy_gb_s(target, source.data(), 8192));
}

}  // namespace
}  // namespace mobula::bench
