// Decides what each step of a plan may come to, without running any of it.
//
// Values follow from lineage alone. Errors are judged by what was seen before: a step fails only
// with a cause of its own (it throws by plan; it was retried as often as it may and crashed each
// time; its actor is dead) or with the very error that one of its inputs has, and never succeeds
// when an input failed. So the check stays sharp while processes die: what is retried without end,
// and comes of nothing else, has one outcome.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "programs/plan.h"

namespace mobula::programs {

struct Outcome {
  enum class Kind : std::uint8_t {
    Unseen,
    Value,
    Thrown,       // detail: the id of the step that threw
    Crashed,      // detail: how often it was tried
    Died,         // its actor has no further life
    Unavailable,  // its actor died while it ran the call, and lives again
    Cancelled,
    Wrong,  // anything else: never allowed
  };
  Kind kind = Kind::Unseen;
  Hash detail = 0;  // Value: what it is
  friend bool operator==(const Outcome&, const Outcome&) = default;
};
std::string describe(const Outcome& outcome);

// The text by which a step that throws by plan names itself, and the way back.
std::string text_of_throw(Hash id);
std::optional<Hash> thrown_in(const std::string& text);

// What an actor answers to each call.
struct Answer {
  Hash value = 0;         // of this call alone
  Hash state = 0;         // the fold of all calls of this life, this one included
  Hash kept = 0;          // what the last kept ref names, if it was asked for; 0: none is kept
  std::uint64_t life = 0;  // unlike any other life of any actor
  std::uint64_t nth = 0;   // call of this life, from 1
};

struct GivenBlock {
  Hash hash = 0;
  std::uint32_t words = 0;
};
struct Given {
  std::vector<Hash> words;
  std::vector<GivenBlock> blocks;
};

class Oracle {
 public:
  // `faults`: processes are killed while the plan runs.
  Oracle(Plan plan, Given given, bool faults);

  const Plan& plan() const { return plan_; }
  // The value of a node; of a block its hash.
  Hash expected(std::uint32_t step) const { return expected_[step]; }
  Hash expected_of_crowd(std::uint32_t step, std::uint32_t element) const;
  std::uint32_t words(std::uint32_t step) const { return words_[step]; }
  Given given_to(const Step& nest) const;
  // Of the whole plan, as a step of another.
  Hash value() const;

  // What mobula::cancel of the step said: true, it will never have a value; false, it had ended.
  void told_of_cancel(std::uint32_t step, bool never);

  // Nothing, or what is wrong with this outcome. It counts as seen from now on.
  std::optional<std::string> judge(std::uint32_t step, const Outcome& outcome);
  std::optional<std::string> judge_of_crowd(std::uint32_t step, std::uint32_t element,
                                            const Outcome& outcome) const;

  // An actor that only this plan calls: are the answers, in the order of the calls, those of lives
  // that each begin anew and lose, double and swap nothing?
  struct Call {
    std::uint32_t step;
    Answer answer;
  };
  std::optional<std::string> judge_calls(const std::vector<Call>& calls) const;

  // The step and what it comes of, for people.
  std::string lineage(std::uint32_t step, int depth = 2) const;

 private:
  Hash value_of_input(std::uint32_t step) const;
  Hash evaluate(std::uint32_t index, const Given& given);
  bool may_succeed(std::uint32_t step) const;
  bool may_fail(std::uint32_t step, const Outcome& failure) const;
  bool fails_by_itself(std::uint32_t step, const Outcome& failure) const;
  bool dies(std::uint32_t actor) const;
  std::optional<std::string> complaint(std::uint32_t step, const Outcome& outcome,
                                       Hash expected) const;
  std::uint32_t actor_of(const Step& call) const { return call.inputs[0]; }

  Plan plan_;
  bool faults_;
  std::vector<Hash> expected_;
  std::vector<std::uint32_t> words_;
  std::vector<Outcome> seen_;
  std::vector<std::uint32_t> killed_at_;  // of actors: the step; the number of steps: never
  std::vector<std::uint32_t> dropped_at_;
  std::vector<bool> cancelled_;
};

// What tasks compute, as tasks and the oracle both call it.
constexpr Hash leaf_of_tree(Hash id) { return fold(id, {0x7ee}); }
Hash value_of_tree(Hash id, std::uint32_t depth);
constexpr Hash value_of_pass(Hash id) { return fold(id, {fold(child(id, 0), {id})}); }
constexpr Hash word_of_parcel(Hash id, std::uint32_t i) { return fold(child(id, i), {}); }
constexpr Hash block_of_parcel(Hash id) { return child(id, 1000); }
constexpr std::uint32_t kParcelBlockWords = 40;

}  // namespace mobula::programs
