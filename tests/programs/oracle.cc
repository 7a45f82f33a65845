#include "programs/oracle.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>
#include <utility>

namespace mobula::programs {
namespace {

constexpr std::string_view kThrown = "thrown by plan ";

std::string hex(Hash hash) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

bool is_call(Op op) { return op == Op::Add || op == Op::Keep || op == Op::Recall; }

bool is_task(Op op) {
  switch (op) {
    case Op::Call:
    case Op::Wide:
    case Op::Gather:
    case Op::Digest:
    case Op::Open:
    case Op::Unwrap:
    case Op::Pass:
    case Op::Crowd:
    case Op::Block:
    case Op::Mend:
    case Op::Parcel: return true;
    default: return false;  // the rest is retried without end, or is no task
  }
}

}  // namespace

std::string describe(const Outcome& outcome) {
  switch (outcome.kind) {
    case Outcome::Kind::Unseen: return "not seen";
    case Outcome::Kind::Value: return "the value " + hex(outcome.detail);
    case Outcome::Kind::Thrown: return "what step id " + hex(outcome.detail) + " threw";
    case Outcome::Kind::Crashed:
      return "WorkerCrashedError after " + std::to_string(outcome.detail) + " attempts";
    case Outcome::Kind::Died: return "ActorDiedError";
    case Outcome::Kind::Unavailable: return "ActorUnavailableError";
    case Outcome::Kind::Cancelled: return "TaskCancelledError";
    case Outcome::Kind::Wrong: return "something that no step may come to";
  }
  return {};
}

std::string text_of_throw(Hash id) { return std::string(kThrown) + hex(id); }

std::optional<Hash> thrown_in(const std::string& text) {
  const std::size_t at = text.find(kThrown);
  if (at == std::string::npos) return {};
  Hash id = 0;
  const char* first = text.data() + at + kThrown.size();
  const auto [end, error] = std::from_chars(first, text.data() + text.size(), id, 16);
  if (error != std::errc() || end != first + 16) return {};
  return id;
}

Hash value_of_tree(Hash id, std::uint32_t depth) {
  if (depth < 2) return leaf_of_tree(id);
  return fold(id, {value_of_tree(child(id, 0), depth - 1), value_of_tree(child(id, 1), depth - 2)});
}

Oracle::Oracle(Plan plan, Given given, bool faults) : plan_(std::move(plan)), faults_(faults) {
  const std::size_t count = plan_.steps.size();
  expected_.resize(count);
  words_.resize(count);
  seen_.resize(count);
  cancelled_.resize(count);
  killed_at_.assign(count, static_cast<std::uint32_t>(count));
  dropped_at_.assign(count, static_cast<std::uint32_t>(count));
  for (std::uint32_t i = 0; i < count; ++i) {
    const Step& step = plan_.steps[i];
    if (step.op == Op::Kill) killed_at_[step.inputs[0]] = std::min(killed_at_[step.inputs[0]], i);
    if (step.op == Op::Drop) dropped_at_[step.inputs[0]] = i;
    expected_[i] = evaluate(i, given);
  }
}

Hash Oracle::value_of_input(std::uint32_t step) const {
  const Kind kind = plan_.steps[step].kind;
  return kind == Kind::Block || kind == Kind::Bytes ? block_value(expected_[step], words_[step])
                                                    : expected_[step];
}

Hash Oracle::evaluate(std::uint32_t index, const Given& given) {
  const Step& step = plan_.steps[index];
  const Hash id = step.id;
  words_[index] = step.size;
  switch (step.op) {
    case Op::GivenWord: return given.words[index];
    case Op::GivenBlock: {
      const GivenBlock& block = given.blocks[index - plan_.given.words];
      words_[index] = block.words;
      return block.hash;
    }
    case Op::Tree: return value_of_tree(id, step.size);
    case Op::Chain: {
      Hash value = step.inputs.empty() ? 0 : expected_[step.inputs[0]];
      for (std::uint32_t i = 0; i < step.size; ++i) value = fold(child(id, i), {value});
      return value;
    }
    case Op::Nest: {
      const Oracle inner(plan_of(id, surroundings_of(plan_, step)), given_to(step), faults_);
      return fold(id, {inner.value()});
    }
    case Op::Pass: return value_of_pass(id);
    case Op::Add:
    case Op::Keep: return fold(id, {value_of_input(step.inputs[1])});
    case Op::Recall: return fold(id, {});
    case Op::Open: {
      const Step& parcel = plan_.steps[step.inputs[0]];
      Hash value = fold(id, {expected_[step.inputs[0]]});
      for (std::uint32_t i = 0; i < kParcelWords; ++i) {
        value = fold(value, word_of_parcel(parcel.id, i));
      }
      value = fold(value, block_value(block_of_parcel(parcel.id), kParcelBlockWords));
      for (const std::uint32_t passed : parcel.inputs) value = fold(value, value_of_input(passed));
      return value;
    }
    default: {
      Hash value = id;
      if (step.op == Op::Parcel) return value;
      for (const std::uint32_t input : step.inputs) value = fold(value, value_of_input(input));
      return value;
    }
  }
}

Hash Oracle::expected_of_crowd(std::uint32_t step, std::uint32_t element) const {
  const Step& crowd = plan_.steps[step];
  const Hash id = child(crowd.id, element);
  return crowd.inputs.empty() ? id : fold(id, {expected_[crowd.inputs[0]]});
}

Given Oracle::given_to(const Step& nest) const {
  Given given;
  for (const std::uint32_t input : nest.inputs) {
    const Kind kind = plan_.steps[input].kind;
    if (kind == Kind::Word) given.words.push_back(expected_[input]);
    if (kind == Kind::Block) given.blocks.push_back({expected_[input], words_[input]});
  }
  return given;
}

Hash Oracle::value() const {
  Hash all = plan_.seed;
  for (const Hash hash : expected_) all = fold(all, hash);
  return all;
}

void Oracle::told_of_cancel(std::uint32_t step, bool never) {
  cancelled_[step] = cancelled_[step] || never;
}

bool Oracle::may_succeed(std::uint32_t index) const {
  const Step& step = plan_.steps[index];
  if (step.fate == Fate::Throws || cancelled_[index]) return false;
  if (is_call(step.op) && index > killed_at_[actor_of(step)]) return false;
  return std::all_of(step.inputs.begin(), step.inputs.end(), [&](std::uint32_t input) {
    return seen_[input].kind == Outcome::Kind::Unseen ? may_succeed(input)
                                                      : seen_[input].kind == Outcome::Kind::Value;
  });
}

bool Oracle::may_fail(std::uint32_t index, const Outcome& failure) const {
  if (fails_by_itself(index, failure)) return true;
  const Step& step = plan_.steps[index];
  return std::any_of(step.inputs.begin(), step.inputs.end(), [&](std::uint32_t input) {
    if (plan_.steps[input].kind == Kind::Actor) return false;
    return seen_[input].kind == Outcome::Kind::Unseen ? may_fail(input, failure)
                                                      : seen_[input] == failure;
  });
}

bool Oracle::dies(std::uint32_t actor) const {
  const Step& step = plan_.steps[actor];
  if (killed_at_[actor] < plan_.steps.size()) return true;
  // Without a handle nobody can construct it again for the calls that are left.
  const bool dropped = dropped_at_[actor] < plan_.steps.size();
  return faults_ && (step.retries >= 0 || dropped);
}

bool Oracle::fails_by_itself(std::uint32_t index, const Outcome& failure) const {
  const Step& step = plan_.steps[index];
  switch (failure.kind) {
    case Outcome::Kind::Cancelled: return cancelled_[index];
    case Outcome::Kind::Thrown: return step.fate == Fate::Throws && failure.detail == step.id;
    case Outcome::Kind::Crashed:
      return faults_ && is_task(step.op) && step.retries >= 0 &&
             failure.detail == static_cast<Hash>(step.retries) + 1;
    case Outcome::Kind::Died: return is_call(step.op) && dies(actor_of(step));
    case Outcome::Kind::Unavailable: {
      if (!is_call(step.op) || !faults_) return false;
      const Step& actor = plan_.steps[actor_of(step)];
      return actor.retries != 0 && actor.call_retries == 0 && !actor.shared;
    }
    default: return false;
  }
}

std::optional<std::string> Oracle::complaint(std::uint32_t step, const Outcome& outcome,
                                             Hash expected) const {
  if (cancelled_[step] && outcome.kind != Outcome::Kind::Cancelled)
    return "it gave " + describe(outcome) + ", though cancel had said that it never would";
  if (outcome.kind == Outcome::Kind::Value) {
    if (outcome.detail != expected) {
      return "it gave " + hex(outcome.detail) + ", and its lineage says " + hex(expected);
    }
    if (!may_succeed(step)) return "it has a value, though it or one of its inputs failed";
  } else if (!may_fail(step, outcome)) {
    return "it gave " + describe(outcome) + ", for which it has no cause";
  }
  return {};
}

std::optional<std::string> Oracle::judge(std::uint32_t step, const Outcome& outcome) {
  if (seen_[step].kind != Outcome::Kind::Unseen && seen_[step] != outcome) {
    return "it gave " + describe(seen_[step]) + " and later " + describe(outcome);
  }
  seen_[step] = outcome;
  return complaint(step, outcome, expected_[step]);
}

std::optional<std::string> Oracle::judge_of_crowd(std::uint32_t step, std::uint32_t element,
                                                  const Outcome& outcome) const {
  return complaint(step, outcome, expected_of_crowd(step, element));
}

std::optional<std::string> Oracle::judge_calls(const std::vector<Call>& calls) const {
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const Answer& answer = calls[i].answer;
    if (answer.nth == 0 || answer.nth > i + 1) {
      return "call " + std::to_string(i + 1) + " says that it is number " +
             std::to_string(answer.nth) + " of this life";
    }
    const bool same_life = i > 0 && calls[i - 1].answer.life == answer.life;
    if (answer.nth != (same_life ? calls[i - 1].answer.nth + 1 : 1)) {
      return "call " + std::to_string(i + 1) + " is number " + std::to_string(answer.nth) +
             " of its life, after number " +
             (i > 0 ? std::to_string(calls[i - 1].answer.nth) : "0") +
             (same_life ? " of the same life" : " of another");
    }
    Hash state = 0, kept = 0;
    for (std::size_t j = i + 1 - answer.nth; j <= i; ++j) {
      const Step& step = plan_.steps[calls[j].step];
      state = fold(state, calls[j].answer.value);
      if (step.op == Op::Keep) kept = value_of_input(step.inputs[1]);
    }
    if (state != answer.state) return "the state after call " + std::to_string(i + 1) + " is wrong";
    if (plan_.steps[calls[i].step].op == Op::Recall && answer.kept != kept) {
      return "call " + std::to_string(i + 1) + " read " + hex(answer.kept) +
             " behind the last ref that the actor kept, and not " + hex(kept);
    }
  }
  return {};
}

std::string Oracle::lineage(std::uint32_t index, int depth) const {
  const Step& step = plan_.steps[index];
  std::string text =
      "step " + std::to_string(index) + " " + std::string(name_of(step.op)) +
      " id=" + hex(step.id) + " size=" + std::to_string(step.size) +
      " way=" + std::to_string(step.way) + " retries=" + std::to_string(step.retries) +
      " call_retries=" + std::to_string(step.call_retries) +
      " fate=" + std::to_string(static_cast<int>(step.fate)) + (step.sure ? " sure" : "") +
      (step.shared ? " shared" : "") + " expected=" + hex(expected_[index]) +
      " seen: " + describe(seen_[index]) + "\n";
  if (depth == 0) return text;
  std::string inner;
  for (const std::uint32_t input : step.inputs) {
    const std::string of_input = lineage(input, depth - 1);
    if (inner.find(of_input) == std::string::npos) inner += of_input;
  }
  for (std::size_t at = 0; at < inner.size();) {
    const std::size_t end = inner.find('\n', at) + 1;
    text += "  " + inner.substr(at, end - at);
    at = end;
  }
  return text;
}

}  // namespace mobula::programs
