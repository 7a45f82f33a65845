#include "shm/crash_point.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>

namespace mobula::shm {
namespace {

constexpr std::array<CrashPointInfo, static_cast<std::size_t>(CrashPoint::kCount)> kInfos{{
#define X(name, text, meaning) {text, meaning},
    MOBULA_CRASH_POINTS(X)
#undef X
}};

std::atomic<std::int64_t> reaches_left{0};
std::atomic<std::int32_t>* budget = nullptr;

}  // namespace

namespace detail {
std::uint8_t armed_point = static_cast<std::uint8_t>(CrashPoint::kCount);

void reach_armed_point() {
  if (reaches_left.fetch_sub(1, std::memory_order_relaxed) != 1) return;
  if (budget && budget->fetch_sub(1, std::memory_order_relaxed) <= 0) return;
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();  // the signal is on its way; nothing more may happen here
}
}  // namespace detail

void set_crash_budget(std::atomic<std::int32_t>* crashes_left) { budget = crashes_left; }

const CrashPointInfo& crash_point_info(CrashPoint point) {
  return kInfos[static_cast<std::size_t>(point)];
}

void arm_crash_point(std::string_view role) {
  detail::armed_point = static_cast<std::uint8_t>(CrashPoint::kCount);
  const char* text = ::getenv("MOBULA_CRASH_POINT");
  if (!text) return;
  std::string_view wanted = text;
  if (const auto at = wanted.find('@'); at != std::string_view::npos) {
    if (wanted.substr(at + 1) != role) return;
    wanted = wanted.substr(0, at);
  }
  std::int64_t reaches = 1;
  if (const auto colon = wanted.find(':'); colon != std::string_view::npos) {
    const std::string_view digits = wanted.substr(colon + 1);
    std::from_chars(digits.data(), digits.data() + digits.size(), reaches);
    wanted = wanted.substr(0, colon);
  }
  for (std::size_t i = 0; i < kInfos.size(); ++i) {
    if (kInfos[i].name != wanted) continue;
    reaches_left.store(reaches, std::memory_order_relaxed);
    detail::armed_point = static_cast<std::uint8_t>(i);
    return;
  }
  ::fprintf(stderr, "mobula: MOBULA_CRASH_POINT names no point: %s\n", text);
}

}  // namespace mobula::shm
