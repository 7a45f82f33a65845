#include "shm/crash_point.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <optional>
#include <vector>

namespace mobula::shm {
namespace {

constexpr std::array<CrashPointInfo, static_cast<std::size_t>(CrashPoint::kCount)> kInfos{{
#define X(name, text, meaning) {text, meaning},
    MOBULA_CRASH_POINTS(X)
#undef X
}};

struct ArmedCrash {
  CrashPoint point;
  std::int64_t reach;
  std::uint32_t bit;  // its place in the list
};
std::vector<ArmedCrash> armed;
std::array<std::atomic<std::int64_t>, static_cast<std::size_t>(CrashPoint::kCount)> reached{};
std::atomic<std::uint32_t>* open_crashes = nullptr;

// "name[:n][@role]". Nothing: it is for another role, or names no point.
std::optional<ArmedCrash> parse(std::string_view text, std::string_view role, std::uint32_t bit) {
  std::string_view wanted = text;
  if (const auto at = wanted.find('@'); at != std::string_view::npos) {
    if (wanted.substr(at + 1) != role) return {};
    wanted = wanted.substr(0, at);
  }
  std::int64_t reach = 1;
  if (const auto colon = wanted.find(':'); colon != std::string_view::npos) {
    const std::string_view digits = wanted.substr(colon + 1);
    std::from_chars(digits.data(), digits.data() + digits.size(), reach);
    wanted = wanted.substr(0, colon);
  }
  for (std::size_t i = 0; i < kInfos.size(); ++i) {
    if (kInfos[i].name == wanted) return ArmedCrash{static_cast<CrashPoint>(i), reach, bit};
  }
  ::fprintf(stderr, "mobula: MOBULA_CRASH_POINT names no point: %.*s\n",
            static_cast<int>(text.size()), text.data());
  return {};
}

}  // namespace

namespace detail {
std::uint64_t armed_points = 0;

void reach_armed_point(CrashPoint point) {
  const std::int64_t now =
      reached[static_cast<std::size_t>(point)].fetch_add(1, std::memory_order_relaxed) + 1;
  for (const ArmedCrash& crash : armed) {
    if (crash.point != point || crash.reach != now) continue;
    const std::uint32_t bit = 1u << crash.bit;
    if (open_crashes && !(open_crashes->fetch_and(~bit, std::memory_order_relaxed) & bit)) continue;
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();  // the signal is on its way; nothing more may happen here
  }
}
}  // namespace detail

void set_open_crashes(std::atomic<std::uint32_t>* open) { open_crashes = open; }

const CrashPointInfo& crash_point_info(CrashPoint point) {
  return kInfos[static_cast<std::size_t>(point)];
}

void arm_crash_points(std::string_view role) {
  armed.clear();
  detail::armed_points = 0;
  const char* list = ::getenv("MOBULA_CRASH_POINT");
  std::string_view rest = list ? list : "";
  for (std::uint32_t bit = 0; !rest.empty() && bit < 32; ++bit) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    if (const auto crash = parse(rest.substr(0, comma), role, bit)) {
      armed.push_back(*crash);
      detail::armed_points |= std::uint64_t{1} << static_cast<int>(crash->point);
    }
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
}

}  // namespace mobula::shm
