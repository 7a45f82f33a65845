#include "programs/oracle.h"

#include <doctest/doctest.h>

namespace mobula::programs {
namespace {

using Kind_ = Outcome::Kind;

Step step(Op op, Kind kind, std::vector<std::uint32_t> inputs = {}) {
  Step made;
  made.op = op;
  made.kind = kind;
  made.inputs = std::move(inputs);
  return made;
}

Plan plan_with(std::vector<Step> steps) {
  Plan plan{1, {}, std::move(steps)};
  for (std::size_t i = 0; i < plan.steps.size(); ++i) plan.steps[i].id = child(1, i);
  return plan;
}

// What a correct run would see of every node.
Outcome right(const Oracle& oracle, std::uint32_t i) { return {Kind_::Value, oracle.expected(i)}; }

}  // namespace

TEST_CASE("equal seeds give equal plans, other seeds others") {
  const Surroundings given{2, 1, 1, 0};
  for (Hash seed = 0; seed < 50; ++seed) {
    const Plan a = plan_of(seed, given), b = plan_of(seed, given), c = plan_of(seed + 1000, given);
    REQUIRE(a.steps.size() == b.steps.size());
    bool differs = a.steps.size() != c.steps.size();
    for (std::size_t i = 0; i < a.steps.size(); ++i) {
      CHECK(a.steps[i].id == b.steps[i].id);
      CHECK(a.steps[i].inputs == b.steps[i].inputs);
      differs = differs || a.steps[i].op != c.steps[i].op;
    }
    CHECK(differs);
  }
}

TEST_CASE("plans name only steps that come before, and none that was dropped") {
  for (Hash seed = 0; seed < 300; ++seed) {
    const Plan plan = plan_of(seed, {2, 2, 1, static_cast<std::uint32_t>(seed % 4)});
    std::vector<bool> dropped(plan.steps.size());
    for (std::uint32_t i = 0; i < plan.steps.size(); ++i) {
      for (const std::uint32_t input : plan.steps[i].inputs) {
        REQUIRE(input < i);
        CHECK_FALSE(dropped[input]);
      }
      if (plan.steps[i].op == Op::Drop) dropped[plan.steps[i].inputs[0]] = true;
    }
    CHECK(amounts_of(plan).tasks < 1'000'000);
  }
}

TEST_CASE("a value passes only if it is the one that lineage gives") {
  const auto make = [] {
    return Oracle(
        plan_with({step(Op::PutWord, Kind::Word), step(Op::PutWord, Kind::Word),
                   step(Op::Call, Kind::Word, {0, 1}), step(Op::Call, Kind::Word, {1, 0})}),
        {}, true);
  };
  Oracle oracle = make();
  CHECK(oracle.expected(2) != oracle.expected(3));
  for (std::uint32_t i = 0; i < 4; ++i) CHECK_FALSE(oracle.judge(i, right(oracle, i)));

  Oracle swapped = make();
  CHECK(swapped.judge(2, right(swapped, 3)));
  CHECK(swapped.judge(1, right(swapped, 0)));
  CHECK(make().judge(0, {Kind_::Wrong, 0}));
}

TEST_CASE("what was seen once has to be seen again") {
  Step flaky = step(Op::Call, Kind::Word);
  flaky.retries = 0;
  Oracle oracle(plan_with({flaky}), {}, true);

  CHECK_FALSE(oracle.judge(0, {Kind_::Crashed, 1}));
  CHECK(oracle.judge(0, right(oracle, 0)));
}

TEST_CASE("a crash is an outcome where retries end, there are faults, and all were used") {
  Step flaky = step(Op::Call, Kind::Word);
  flaky.retries = 1;
  const auto judge = [&](const Step& first, bool faults, Outcome outcome) {
    return Oracle(plan_with({first}), {}, faults).judge(0, outcome).has_value();
  };
  CHECK_FALSE(judge(flaky, true, {Kind_::Crashed, 2}));
  CHECK(judge(flaky, true, {Kind_::Crashed, 1}));
  CHECK(judge(flaky, false, {Kind_::Crashed, 2}));
  CHECK(judge(step(Op::Call, Kind::Word), true, {Kind_::Crashed, 1}));
  CHECK(judge(step(Op::PutWord, Kind::Word), true, {Kind_::Died, 0}));
}

TEST_CASE("a step fails with its input's error, and with no other") {
  Step thrower = step(Op::Call, Kind::Word);
  thrower.fate = Fate::Throws;
  const Plan plan =
      plan_with({thrower, step(Op::PutWord, Kind::Word), step(Op::Call, Kind::Word, {0, 1})});
  const Outcome thrown{Kind_::Thrown, plan.steps[0].id};
  CHECK_FALSE(Oracle(plan, {}, true).judge(2, thrown));
  CHECK(Oracle(plan, {}, true).judge(1, thrown));
  CHECK(Oracle(plan, {}, true).judge(2, {Kind_::Thrown, plan.steps[1].id}));
  Oracle oracle(plan, {}, true);
  CHECK(oracle.judge(2, right(oracle, 2)));  // it cannot have a value
  CHECK(oracle.judge(0, right(oracle, 0)));
  CHECK(thrown_in("x " + text_of_throw(77) + " y") == Hash{77});
}

TEST_CASE("who was told of a cancel sees no other outcome, and nobody else sees that") {
  const Plan plan = plan_with({step(Op::Call, Kind::Word), step(Op::Call, Kind::Word, {0})});
  const Outcome cancelled{Kind_::Cancelled, 0};
  CHECK(Oracle(plan, {}, true).judge(0, cancelled));
  Oracle oracle(plan, {}, true);
  oracle.told_of_cancel(0, true);
  CHECK(oracle.judge(1, right(oracle, 1)));
  CHECK_FALSE(oracle.judge(0, cancelled));
  Oracle late(plan, {}, true);
  late.told_of_cancel(0, false);
  CHECK(late.judge(0, cancelled));
}

TEST_CASE("an actor's answers lose, double and swap no call of a life") {
  const Oracle oracle(
      plan_with({step(Op::Actor, Kind::Actor), step(Op::PutWord, Kind::Word),
                 step(Op::Add, Kind::Answer, {0, 1}), step(Op::Add, Kind::Answer, {0, 1}),
                 step(Op::Add, Kind::Answer, {0, 1})}),
      {}, true);
  const auto answer = [&](std::uint32_t call, std::uint64_t life, std::vector<std::uint32_t> all) {
    Hash state = 0;
    for (const std::uint32_t i : all) state = fold(state, oracle.expected(i));
    return Oracle::Call{call, {oracle.expected(call), state, 0, life, all.size()}};
  };
  CHECK_FALSE(
      oracle.judge_calls({answer(2, 7, {2}), answer(3, 7, {2, 3}), answer(4, 7, {2, 3, 4})}));
  CHECK_FALSE(oracle.judge_calls({answer(2, 7, {2}), answer(3, 8, {3}), answer(4, 8, {3, 4})}));
  CHECK(oracle.judge_calls({answer(2, 7, {2}), answer(3, 7, {3, 2})}));
  CHECK(oracle.judge_calls({answer(2, 7, {2}), answer(3, 7, {3})}));
  CHECK(oracle.judge_calls({answer(2, 7, {2}), answer(3, 7, {2, 2, 3})}));
  CHECK(oracle.judge_calls({answer(2, 7, {2}), answer(3, 8, {2, 3})}));
}

TEST_CASE("a torn block is no block") {
  std::vector<Hash> words(100);
  fill_block(words, 5);
  CHECK(read_block(words) == Hash{5});
  words[99] ^= 1;
  CHECK_FALSE(read_block(words).has_value());
}

}  // namespace mobula::programs
