#include "programs/plan.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>

namespace mobula::programs {
namespace {

constexpr std::array<std::string_view, static_cast<std::size_t>(Op::kCount)> kNames = {
    "given word", "given block", "given actor", "put word", "call",   "wide", "gather", "tree",
    "chain",      "nest",        "digest",      "open",     "unwrap", "pass", "crowd",  "put block",
    "seal block", "block",       "mend",        "parcel",   "actor",  "add",  "keep",   "recall",
    "get",        "view",        "try get",     "wait",     "drop",   "kill", "cancel"};

// Chances of 1000, by depth: drivers do what costs much, plans of tasks what is small.
struct Chance {
  Op op;
  std::uint32_t in_driver;
  std::uint32_t in_task;
};
constexpr Chance kChances[] = {
    {Op::PutWord, 50, 80},  {Op::Call, 200, 300},    {Op::Wide, 30, 20},  {Op::Gather, 50, 50},
    {Op::Tree, 30, 30},     {Op::Chain, 30, 30},     {Op::Nest, 60, 70},  {Op::Digest, 80, 70},
    {Op::Open, 30, 20},     {Op::Unwrap, 20, 5},     {Op::Pass, 20, 20},  {Op::Crowd, 40, 30},
    {Op::PutBlock, 30, 20}, {Op::SealBlock, 15, 10}, {Op::Block, 40, 40}, {Op::Mend, 25, 20},
    {Op::Parcel, 25, 15},   {Op::Actor, 12, 3},      {Op::Add, 50, 20},   {Op::Keep, 15, 5},
    {Op::Recall, 15, 5},    {Op::Get, 70, 60},       {Op::View, 20, 10},  {Op::TryGet, 30, 20},
    {Op::Wait, 25, 20},     {Op::Drop, 80, 40},      {Op::Kill, 8, 2},    {Op::Cancel, 45, 40},
};

constexpr std::size_t kActorsMax = 3;  // of a plan's own: each is a process

class Grower {
 public:
  Grower(Hash seed, const Surroundings& given) : dice_(mix(seed)), plan_{seed, given, {}} {}

  Plan grow() {
    give(Op::GivenWord, Kind::Word, plan_.given.words);
    give(Op::GivenBlock, Kind::Block, plan_.given.blocks);
    give(Op::GivenActor, Kind::Actor, plan_.given.actors);
    static constexpr std::array<std::array<std::uint32_t, 2>, kDeepest + 1> kLengths = {
        {{60, 140}, {5, 12}, {3, 6}, {2, 4}}};
    const auto [least, most] = kLengths[std::min(plan_.given.depth, kDeepest)];
    const std::size_t wanted = plan_.steps.size() + dice_.between(least, most);
    while (plan_.steps.size() < wanted) add_step(pick_op());
    return std::move(plan_);
  }

 private:
  bool in_driver() const { return plan_.given.depth == 0; }

  void give(Op op, Kind kind, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      Step step;
      step.op = op;
      step.kind = kind;
      step.shared = true;
      push(std::move(step));
    }
  }

  Op pick_op() {
    std::uint32_t all = 0;
    for (const Chance& chance : kChances) all += in_driver() ? chance.in_driver : chance.in_task;
    std::uint32_t at = dice_.below(all);
    for (const Chance& chance : kChances) {
      const std::uint32_t part = in_driver() ? chance.in_driver : chance.in_task;
      if (at < part) return chance.op;
      at -= part;
    }
    return Op::PutWord;
  }

  void push(Step step) {
    step.id = child(plan_.seed, plan_.steps.size());
    if (step.kind != Kind::None) alive_.push_back(static_cast<std::uint32_t>(plan_.steps.size()));
    plan_.steps.push_back(std::move(step));
  }

  const Step& at(std::uint32_t i) const { return plan_.steps[i]; }

  // One of the nodes that satisfy; newer ones more often. Nothing: there is none.
  template <class Predicate>
  std::optional<std::uint32_t> pick(const Predicate& predicate) {
    std::vector<std::uint32_t> fit;
    for (const std::uint32_t i : alive_) {
      if (predicate(at(i))) fit.push_back(i);
    }
    if (fit.empty()) return {};
    const std::uint32_t count = static_cast<std::uint32_t>(fit.size());
    const std::uint32_t newest = std::min(count, 6u);
    return dice_.percent(60) ? fit[count - 1 - dice_.below(newest)] : fit[dice_.below(count)];
  }
  std::optional<std::uint32_t> pick(Kind kind) {
    return pick([&](const Step& step) { return step.kind == kind; });
  }

  // Adds up to `count` inputs of a kind; the same one may come twice.
  template <class Predicate>
  void add_inputs(Step& step, std::uint32_t count, const Predicate& predicate) {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (const auto input = pick(predicate)) step.inputs.push_back(*input);
    }
  }
  static bool is_word(const Step& step) { return step.kind == Kind::Word; }
  static bool is_sure_word(const Step& step) {
    return step.kind == Kind::Word && step.sure && !step.touches_actor;
  }
  static bool is_sure_block(const Step& step) {
    return step.kind == Kind::Block && step.sure && !step.touches_actor;
  }

  void choose_fate(Step& step) {
    if (dice_.percent(5)) {
      step.fate = Fate::Throws;
    } else if (dice_.percent(4)) {
      step.fate = Fate::ThrowsAtFirst;
    } else if (dice_.percent(18)) {
      static constexpr std::int32_t kRetries[] = {0, 1, 3};
      step.retries = kRetries[dice_.below(3)];
    }
  }

  std::uint32_t block_words() {
    const std::uint32_t luck = dice_.below(100);
    if (luck < 40) return dice_.between(1, 8);
    if (luck < 80 || !in_driver()) return dice_.between(9, 500);
    return luck < 95 ? dice_.between(500, 8'000) : dice_.between(8'000, 200'000);
  }

  // It gets values itself, and so throws its inputs' errors.
  static bool gets(const Step& step) {
    return step.op == Op::Gather || step.op == Op::Open || (step.op == Op::Call && step.way == 2) ||
           (step.op == Op::Digest && step.way == 3);
  }

  // What follows from the inputs; called when they are complete.
  void inherit(Step& step) const {
    const bool sure_inputs =
        std::all_of(step.inputs.begin(), step.inputs.end(), [&](auto i) { return at(i).sure; });
    // It would try again for ever.
    if (step.fate == Fate::ThrowsAtFirst && gets(step) && !sure_inputs) step.fate = Fate::Succeeds;
    step.sure = step.sure && step.fate != Fate::Throws && step.retries < 0 && !step.doomed;
    step.sure = step.sure && sure_inputs;
    for (const std::uint32_t input : step.inputs) {
      step.touches_actor =
          step.touches_actor || at(input).touches_actor || at(input).kind == Kind::Actor;
    }
  }

  // Calls of an actor that is this plan's own are not: its state would tell of them or not.
  void choose_doom(Step& step) {
    const bool is_task = step.op != Op::PutWord && step.op != Op::PutBlock &&
                         step.op != Op::SealBlock && step.op != Op::Actor && step.op != Op::Crowd;
    const bool own_actor = step.kind == Kind::Answer && !at(step.inputs[0]).shared;
    if (is_task && !own_actor) step.doomed = dice_.percent(8);
  }

  void add_word(Step step) {
    step.kind = Kind::Word;
    choose_doom(step);
    inherit(step);
    if (step.sure && !step.inputs.empty() && step.op == Op::Call) {
      step.by_value = dice_.percent(20);
    }
    push(std::move(step));
  }
  void add_node(Step step, Kind kind) {
    step.kind = kind;
    choose_doom(step);
    inherit(step);
    push(std::move(step));
  }

  void add_step(Op op) {
    Step step;
    step.op = op;
    step.way = dice_.below(4);
    switch (op) {
      case Op::PutWord: return add_word(std::move(step));
      case Op::Call:
        choose_fate(step);
        add_inputs(step, dice_.below(5), is_word);
        return add_word(std::move(step));
      case Op::Wide:
        choose_fate(step);
        step.size = dice_.percent(70) ? 8 : 24;
        add_inputs(step, step.size, is_word);
        if (step.inputs.size() != step.size) return add_step(Op::PutWord);
        return add_word(std::move(step));
      case Op::Gather:
        choose_fate(step);
        add_inputs(step, dice_.between(1, in_driver() ? 40 : 6), is_word);
        return add_word(std::move(step));
      case Op::Tree:
        step.size = in_driver() ? dice_.between(4, 13) : dice_.between(2, 5);
        return add_word(std::move(step));
      case Op::Chain:
        step.size = in_driver() ? dice_.between(5, 400) : dice_.between(2, 8);
        add_inputs(step, 1, is_word);
        return add_word(std::move(step));
      case Op::Nest: return add_nest(std::move(step));
      case Op::Digest: return add_digest(std::move(step));
      case Op::Open:
        choose_fate(step);
        add_inputs(step, 1, [](const Step& s) { return s.kind == Kind::Parcel; });
        if (step.inputs.empty()) return add_step(Op::Parcel);
        return add_word(std::move(step));
      case Op::Unwrap:
        choose_fate(step);
        add_inputs(step, 1, [](const Step& s) { return s.kind == Kind::Answer; });
        if (step.inputs.empty()) return add_step(Op::Call);
        return add_word(std::move(step));
      case Op::Pass:
        choose_fate(step);
        add_inputs(step, 1, [](const Step& s) { return s.kind == Kind::Actor && s.shared; });
        if (step.inputs.empty()) return add_step(Op::Call);
        return add_word(std::move(step));
      case Op::Crowd: return add_crowd(std::move(step));
      case Op::PutBlock: step.size = block_words(); return add_node(std::move(step), Kind::Block);
      case Op::SealBlock: step.size = block_words(); return add_node(std::move(step), Kind::Bytes);
      case Op::Block:
        choose_fate(step);
        step.size = block_words();
        return add_node(std::move(step), Kind::Block);
      case Op::Mend: return add_mend(std::move(step));
      case Op::Parcel:
        choose_fate(step);
        add_inputs(step, dice_.below(3), is_sure_word);
        add_inputs(step, dice_.below(2), is_sure_block);
        return add_node(std::move(step), Kind::Parcel);
      case Op::Actor: return add_actor(std::move(step));
      case Op::Add:
      case Op::Keep:
      case Op::Recall: return add_actor_call(std::move(step));
      case Op::Drop: return add_drop(std::move(step));
      case Op::Kill: return add_kill(std::move(step));
      case Op::Cancel: return add_cancel(std::move(step));
      default: return add_look(std::move(step));
    }
  }

  void add_nest(Step step) {
    if (plan_.given.depth >= kDeepest) return add_step(Op::Call);
    add_inputs(step, dice_.below(3), is_sure_word);
    add_inputs(step, dice_.below(2), is_sure_block);
    if (dice_.percent(30)) {
      add_inputs(step, 1, [](const Step& s) { return s.kind == Kind::Actor && s.shared; });
    }
    add_word(std::move(step));
  }

  void add_digest(Step step) {
    choose_fate(step);
    const auto block =
        pick([](const Step& s) { return s.kind == Kind::Block || s.kind == Kind::Bytes; });
    if (!block) return add_step(Op::Block);
    step.inputs.push_back(*block);
    add_word(std::move(step));
  }

  void add_crowd(Step step) {
    step.size =
        in_driver() ? dice_.between(20, dice_.percent(20) ? 2'000 : 300) : dice_.between(3, 20);
    if (dice_.percent(70)) add_inputs(step, 1, is_word);
    if (dice_.percent(10)) step.retries = 3;
    add_node(std::move(step), Kind::Crowd);
  }

  void add_mend(Step step) {
    choose_fate(step);
    const auto block = pick(Kind::Block);
    const auto word = pick(Kind::Word);
    if (!block || !word) return add_step(Op::Block);
    step.inputs = {*block, *word};
    step.size = std::min(block_words(), 8'000u);
    add_node(std::move(step), Kind::Block);
  }

  void add_actor(Step step) {
    if (actors_ >= kActorsMax) return add_step(Op::Add);
    ++actors_;
    if (dice_.percent(30)) {
      step.shared = true;
    } else {
      static constexpr std::int32_t kRestarts[] = {-1, -1, -1, 2, 0};
      step.retries = kRestarts[dice_.below(5)];
      step.call_retries = step.retries != 0 && dice_.percent(50) ? -1 : 0;
      step.doomed = dice_.percent(25);
      step.sure = step.retries < 0 && step.call_retries < 0 && !step.doomed;
    }
    add_node(std::move(step), Kind::Actor);
  }

  static bool is_doomed_actor(const Step& s) { return s.op == Op::Actor && s.doomed; }
  static bool is_doomed_task(const Step& s) {
    return s.doomed && s.kind != Kind::Actor && s.kind != Kind::Crowd;
  }

  void add_actor_call(Step step) {
    const bool any = step.op == Op::Add;
    const auto actor =
        pick([&](const Step& s) { return s.kind == Kind::Actor && (any || !s.shared); });
    if (!actor) return add_step(actors_ < kActorsMax ? Op::Actor : Op::Call);
    step.inputs.push_back(*actor);
    if (step.op == Op::Add) {
      if (dice_.percent(5)) step.fate = Fate::Throws;
      add_inputs(step, 1, is_word);
    } else if (step.op == Op::Keep) {
      add_inputs(step, 1, is_sure_block);
    }
    if (step.op != Op::Recall && step.inputs.size() == 1) return add_step(Op::PutBlock);
    add_node(std::move(step), Kind::Answer);
  }

  void forget(std::uint32_t node) { std::erase(alive_, node); }

  void add_drop(Step step) {
    const auto node = pick([](const Step& s) {
      return s.kind != Kind::Actor ? s.kind != Kind::Answer : is_doomed_actor(s);
    });
    if (!node || at(*node).op <= Op::GivenActor) return add_look(std::move(step));
    step.inputs = {*node};
    forget(*node);
    push(std::move(step));
  }

  void add_cancel(Step step) {
    const auto task = pick(is_doomed_task);
    if (!task) return add_step(Op::Call);
    step.inputs = {*task};
    push(std::move(step));
  }

  void add_kill(Step step) {
    const auto actor = pick(is_doomed_actor);
    if (!actor) return add_step(Op::Call);
    step.inputs = {*actor};
    push(std::move(step));
  }

  void add_look(Step step) {
    if (step.op == Op::Wait) {
      add_inputs(step, dice_.between(1, 12), is_word);
      std::sort(step.inputs.begin(), step.inputs.end());
      step.inputs.erase(std::unique(step.inputs.begin(), step.inputs.end()), step.inputs.end());
      if (step.inputs.empty()) return add_step(Op::PutWord);
      step.size = dice_.between(1, static_cast<std::uint32_t>(step.inputs.size()));
    } else {
      if (step.op != Op::View && step.op != Op::TryGet) step.op = Op::Get;
      const bool view = step.op == Op::View;
      const auto node = pick([&](const Step& s) {
        return view ? s.kind == Kind::Block || s.kind == Kind::Bytes
                    : s.kind != Kind::Actor && s.kind != Kind::Bytes;
      });
      if (!node) return add_step(Op::PutWord);
      step.inputs = {*node};
    }
    push(std::move(step));
  }

  Dice dice_;
  Plan plan_;
  std::vector<std::uint32_t> alive_;
  std::size_t actors_ = 0;
};

}  // namespace

std::string_view name_of(Op op) { return kNames[static_cast<std::size_t>(op)]; }

Plan plan_of(Hash seed, const Surroundings& given) { return Grower(seed, given).grow(); }

Plan prelude_of(Hash seed) {
  Plan plan{seed, {}, {}};
  Dice dice(mix(seed));
  const auto add = [&](Op op, Kind kind, std::uint32_t size) {
    Step step;
    step.op = op;
    step.kind = kind;
    step.size = size;
    step.shared = true;
    step.id = child(seed, plan.steps.size());
    plan.steps.push_back(std::move(step));
  };
  for (std::uint32_t i = dice.between(1, 4); i > 0; --i) {
    add(dice.percent(50) ? Op::PutWord : Op::Call, Kind::Word, 0);
  }
  for (std::uint32_t i = dice.between(1, 3); i > 0; --i) {
    add(dice.percent(50) ? Op::PutBlock : Op::Block, Kind::Block, dice.between(1, 20'000));
  }
  for (std::uint32_t i = dice.below(3); i > 0; --i) add(Op::Actor, Kind::Actor, 0);
  return plan;
}

Surroundings surroundings_of(const Plan& plan, const Step& nest) {
  Surroundings given{0, 0, 0, plan.given.depth + 1};
  for (const std::uint32_t input : nest.inputs) {
    const Kind kind = plan.steps[input].kind;
    ++(kind == Kind::Word ? given.words : kind == Kind::Block ? given.blocks : given.actors);
  }
  return given;
}

std::uint64_t shape_of(const Plan& plan, const Step& step) {
  Hash shape = fold(static_cast<Hash>(step.op),
                    {static_cast<Hash>(step.fate), static_cast<Hash>(step.retries + 1),
                     static_cast<Hash>(step.call_retries + 1), step.way, step.by_value, step.shared,
                     plan.given.depth != 0, step.sure});
  Hash kinds = 0;  // of the inputs, in any order
  for (const std::uint32_t input : step.inputs) {
    const Step& from = plan.steps[input];
    kinds |= Hash{1} << static_cast<unsigned>(from.op);
  }
  return fold(shape, kinds);
}

std::uint64_t tree_tasks(std::uint32_t depth) {
  std::uint64_t last = 1, tasks = 1;
  for (std::uint32_t d = 2; d <= depth; ++d) tasks = std::exchange(last, 1 + tasks + last);
  return depth < 2 ? 1 : last;
}

Amounts amounts_of(const Plan& plan) {
  Amounts all;
  for (const Step& step : plan.steps) {
    switch (step.op) {
      case Op::PutWord:
      case Op::PutBlock:
      case Op::SealBlock: ++all.objects; break;
      case Op::Tree: all.tasks += tree_tasks(step.size); break;
      case Op::Chain:
      case Op::Crowd: all.tasks += step.size; break;
      case Op::Parcel:
        all.tasks += 1 + kParcelWords;
        ++all.objects;
        break;
      case Op::Pass: all.tasks += 2; break;
      case Op::Nest: {
        const Amounts inner = amounts_of(plan_of(step.id, surroundings_of(plan, step)));
        all.tasks += 1 + inner.tasks;
        all.objects += inner.objects;
        break;
      }
      case Op::Call:
      case Op::Wide:
      case Op::Gather:
      case Op::Digest:
      case Op::Open:
      case Op::Unwrap:
      case Op::Block:
      case Op::Mend:
      case Op::Actor:
      case Op::Add:
      case Op::Keep:
      case Op::Recall: ++all.tasks; break;
      default: break;
    }
  }
  return all;
}

}  // namespace mobula::programs
