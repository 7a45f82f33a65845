#include "runtime/actor_state.h"

#include <stdio.h>

#include <algorithm>

#include "runtime/errors.h"
#include "runtime/execution.h"
#include "runtime/value.h"
#include "shm/claim.h"

namespace mobula {
namespace runtime {
namespace {

// Beyond these a checkpoint is taken early: what a journal keeps is memory that others want.
constexpr std::uint64_t kShareOfStore = 16;
constexpr std::uint64_t kChildrenMax = 100'000;
// Unless told how often: calls between two checkpoints. The fewer the better for the caches, in
// which their records lie, as long as saving costs little of the time between.
constexpr std::uint64_t kFewCalls = 1000;
constexpr std::uint64_t kManyCalls = 10'000;
constexpr std::uint64_t kShareOfTime = 50;

}  // namespace

ActorState::ActorState(Ledger& ledger, std::uint32_t actor_class, const detail::StateCodec& codec)
    : ledger_(ledger),
      shared_(ledger.process().memory().scheduling_class(actor_class).lasting),
      codec_(codec),
      checkpoints_(ledger, shared_, codec),
      every_(shared_.options & ~shm::kReplays),
      saved_at_(now_ns()) {
  if (!(shared_.options & shm::kReplays)) return;
  journal_.emplace(ledger, actor_class);
  journal = &*journal_;
}

ActorState::~ActorState() { journal = nullptr; }

bool ActorState::wanted(const shm::LastingState& shared) {
  return shared.options != 0 || shared.checkpoint[0].load() != 0 ||
         shared.checkpoint[1].load() != 0;
}

bool ActorState::load(const Checkpoints::Good& good, std::string& problems) {
  try {
    Reader reader(good.bytes.data + CheckpointHeader::kSize, good.size);
    replace_instance(codec_.load(detail::Execution::instance(), reader));
    return true;
  } catch (...) {
    problems += "loading it threw " + describe_current_exception().message + "; ";
    return false;
  }
}

void ActorState::restore(const std::function<void()>& construct) {
  std::string problems;
  const bool any = checkpoints_.any();
  std::optional<std::uint64_t> from;
  for (const Checkpoints::Good& good : checkpoints_.read(problems)) {
    if (load(good, problems)) {
      from = good.covers;
      break;
    }
    construct();
  }
  const bool whole_journal = journal_ && shared_.covered.load() == shared_.born;
  if (!from && any && !whole_journal) throw StateLost{problems};
  if (!problems.empty())
    ::fprintf(stderr, "mobula: a checkpoint of the actor cannot be used: %s%s\n", problems.c_str(),
              from ? "the one before it is" : "all calls are run again");
  if (journal_) replay(from.value_or(shared_.born));
}

void ActorState::replay(std::uint64_t from) {
  const std::uint64_t end = journal_->taken();
  journal_->find_children();
  replaying = true;
  for (std::uint64_t number = from; number < end; ++number) run_again(number);
  replaying = false;
  journal_->forget_children();
  since_ = end - from;
  if (due()) save();
}

void ActorState::run_again(std::uint64_t number) {
  const shm::Address address = journal_->call_at(number);
  if (!address) throw StateLost{"call " + std::to_string(number) + " of the journal is not there"};
  shm::Record& call = ledger_.record(address);
  journal_->set_running(number);
  shm::claim::intend(ledger_.shared(), address);
  if (shm::claim::take(call, address, ledger_.participant())) {
    execute(ledger_, call, address);  // takes the intent back
  } else {
    shm::claim::forget(ledger_.shared());
    if (const std::string problem = repeat(ledger_, call, address); !problem.empty())
      throw StateLost{"call " + std::to_string(number) + " cannot be run again: " + problem};
  }
  journal_->ended(call);
}

void ActorState::call_ended(shm::Record& call) {
  if (journal_) journal_->ended(call);
  ++since_;
  if (asked_ || due()) save();
}

bool ActorState::due() const {
  if (since_ < not_before_) return false;
  if (every_ != 0 && since_ >= every_) return true;
  if (!journal_) return false;
  if (every_ == 0 && since_ != 0 && since_ % kFewCalls == 0 &&
      (since_ >= kManyCalls || save_took_ * kShareOfTime <= now_ns() - saved_at_))
    return true;
  return (journal_->bytes() > ledger_.process().memory().object_capacity() / kShareOfStore ||
          journal_->children() > kChildrenMax);
}

void ActorState::save() {
  asked_ = false;
  const std::uint64_t covers = journal_ ? journal_->taken() : 0;
  const std::uint64_t began = now_ns();
  try {
    checkpoints_.save(detail::Execution::instance(), covers);
  } catch (const NodeDiedError&) {
    throw;
  } catch (...) {
    not_before_ = since_ + std::max<std::uint64_t>((every_ ? every_ : kFewCalls) / 10, 1);
    ::fprintf(stderr, "mobula: the actor's state could not be saved: %s\n",
              describe_current_exception().message.c_str());
    return;
  }
  since_ = 0;
  not_before_ = 0;
  saved_at_ = now_ns();
  save_took_ = saved_at_ - began;
  if (!journal_) return;
  journal_->forget_amounts();
  if (const auto number = checkpoints_.both_cover()) journal_->cover(*number);
}

}  // namespace runtime

namespace detail {

void refuse_to_save(std::string_view type) {
  throw Error("the state of actor " + std::string(type) +
              " cannot be saved: its class needs `void save(mobula::Writer&) const` and `void "
              "load(mobula::Reader&)`, or a codec (mobula::codec<T>, or make it an aggregate)");
}

void ask_for_checkpoint() {
  runtime::Frame* frame = runtime::current_frame();
  // The caller's own process is the actor's: nothing would be left to load it.
  if (runtime::require_process().local()) return;
  if (!frame || frame->record.kind != shm::Kind::ActorCall)
    throw Error("mobula::checkpoint is for methods of actors, called while they run");
  if (runtime::replaying) return;
  const shm::SchedulingClass& cls =
      frame->ledger.process().memory().scheduling_class(frame->record.scheduling_class);
  if (cls.groups[0] || cls.out_of_order)
    throw Error("mobula::checkpoint is for actors that run one call after the other");
  if (!runtime::actor_state) {
    const StateCodec* codec = runtime::instance_codec();
    if (!codec) refuse_to_save(cls.name);
    runtime::actor_state = std::make_unique<runtime::ActorState>(
        frame->ledger, frame->record.scheduling_class, *codec);
  }
  runtime::actor_state->ask();
}

}  // namespace detail
}  // namespace mobula
