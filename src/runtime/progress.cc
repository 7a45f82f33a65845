#include "mobula/progress.h"

#include <atomic>
#include <cmath>
#include <utility>

#include "mobula/detail/runtime.h"
#include "mobula/error.h"
#include "mobula/metrics.h"
#include "mobula/session.h"
#include "runtime/process.h"
#include "wire/local_protocol.h"

namespace mobula {
namespace {

void check_amount(double amount, const char* what) {
  if (!(amount >= 0) || !std::isfinite(amount))
    throw Error(std::string(what) + " is to be a number that is not negative");
}

}  // namespace

struct Progress::State {
  detail::Metric metric;
  double total;
  std::uint64_t session;
  std::atomic<double> done{0};

  std::atomic<double>* cells() const {
    return session == detail::current_session() && session != 0 ? metric.cells() : nullptr;
  }
  void change(std::size_t cell, double by) const {
    if (std::atomic<double>* mine = cells()) mine[cell].fetch_add(by, std::memory_order_relaxed);
  }
};

Progress::Progress(double total, std::string name) {
  check_amount(total, "the total of a progress");
  detail::check_actor_name(name, "the name of a progress");
  if (name.empty()) name = is_initialized() ? this_task().name : "(driver)";
  state_.reset(new State{detail::Metric(wire::kProgress, wire::kProgressPrefix + name, name, {}),
                         total, detail::current_session()});
  state_->change(wire::kProgressTotal, total);
  state_->change(wire::kProgressOpen, 1);
  if (runtime::Process* process = runtime::current_process())
    process->daemon().ring(process->memory().header());  // it looks at us from now on
}

Progress::~Progress() {
  if (!state_) return;
  const double done = state_->done.load();
  state_->change(wire::kProgressClosed, done);
  state_->change(wire::kProgressDone, -done);
  state_->change(wire::kProgressTotal, -state_->total);
  state_->change(wire::kProgressOpen, -1);
}

Progress::Progress(Progress&&) noexcept = default;
Progress& Progress::operator=(Progress&& other) noexcept {
  Progress(std::move(other)).state_.swap(state_);
  return *this;
}

void Progress::add(double done) const {
  check_amount(done, "what is done of a progress");
  if (!state_) return;
  state_->done.fetch_add(done, std::memory_order_relaxed);
  state_->change(wire::kProgressDone, done);
}

Progress progress(double total, std::string name) { return {total, std::move(name)}; }

}  // namespace mobula
