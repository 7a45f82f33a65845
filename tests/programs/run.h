// Runs plans on Mobula, by the public API alone, and holds each outcome against the oracle.
//
// A driver's thread and a task run plans in the same way. What a task finds wrong it throws as
// Violation, which no step may come to, so it arrives at the driver whatever lies between.
#pragma once

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "mobula/mobula.h"
#include "programs/oracle.h"

namespace mobula::programs {

// What the tasks of all processes count together: in a file that each of them maps, named by an
// environment variable.
struct Tally {
  std::atomic<std::uint64_t> retried;   // attempts after the first
  std::atomic<std::uint64_t> thrown;    // by plan
  std::atomic<std::uint64_t> lives;     // of actors
  std::atomic<std::uint64_t> cancelled;  // in time
  std::atomic<std::uint64_t> crashes;   // of processes, by themselves
};
inline constexpr const char* kTallyVariable = "MOBULA_TEST_TALLY";
Tally& tally();  // of this process's own, where the variable is not set

// Something came to what nothing may come to. The text has the step with its lineage.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
// Something was waited for in vain.
class Hang : public Violation {
 public:
  using Violation::Violation;
};

using Block = std::vector<Hash>;

// What a task is told besides its inputs.
struct Job {
  Hash id = 0;
  std::uint32_t size = 0;
  std::uint32_t throws = 0;  // in its first so many attempts
  std::uint64_t faults = 0;  // 1: processes are killed meanwhile
};

struct ParcelValue {
  Hash hash = 0;
  std::vector<Ref<Hash>> made;
  Ref<Block> block;
  std::vector<Ref<Hash>> passed_words;
  std::vector<Ref<Block>> passed_blocks;
};

// An actor: its state is the fold of the calls of this life.
class Keeper {
 public:
  explicit Keeper(Hash id);
  Answer add(Job job, Hash input);
  Answer keep(Job job, Ref<Block> block, std::uint32_t words);
  Answer recall(Job job);

 private:
  Answer answer(Hash value);

  std::uint64_t life_;
  std::uint64_t calls_ = 0;
  Hash state_ = 0;
  std::vector<Ref<Block>> kept_;
};

// What a plan's runner brings along, in the order of the plan's first steps.
struct Imports {
  std::vector<Ref<Hash>> words;
  std::vector<Hash> word_values;
  std::vector<Ref<Block>> blocks;
  std::vector<GivenBlock> block_values;
  std::vector<ActorHandle<Keeper>> actors;
};

// One run of a plan. Not for two threads.
class Scope {
 public:
  Scope(Plan plan, Imports imports, bool faults);

  // Takes all steps, then looks at everything that was not dropped. Throws Violation.
  void run();
  void take_steps();
  void settle();

  const Oracle& oracle() const { return oracle_; }
  // Its words, blocks and actors, for another scope.
  Imports exports() const;

 private:
  using Node = std::variant<std::monostate, Ref<Hash>, Ref<Block>, Ref<Buffer>, Ref<ParcelValue>,
                            Ref<Answer>, ActorHandle<Keeper>, std::vector<Ref<Hash>>>;
  struct KeptView {
    std::uint32_t step;
    View<Hash> view;
  };

  void take(std::uint32_t index);
  Node make(const Step& step);
  Node make_call(const Step& step);
  Node make_gather(const Step& step);
  Node make_digest(const Step& step);
  Node make_crowd(const Step& step);
  Node make_answer(const Step& step);
  Node make_nest(const Step& step);
  Ref<Hash> make_chain(const Step& step);
  Imports imports_for(const Step& step) const;
  void look(std::uint32_t node);
  void look_at_crowd(std::uint32_t node);
  void view(std::uint32_t node);
  void try_get(std::uint32_t node, Duration timeout);
  void wait(const Step& step);
  void cancel(const Step& step);

  Job job_of(const Step& step) const;
  TaskOptions options_of(const Step& step) const;
  const Step& step(std::uint32_t i) const { return oracle_.plan().steps[i]; }
  const Ref<Hash>& word(std::uint32_t i) const { return std::get<Ref<Hash>>(nodes_[i]); }
  const Ref<Block>& block(std::uint32_t i) const { return std::get<Ref<Block>>(nodes_[i]); }
  const ActorHandle<Keeper>& keeper(const Step& call) const {
    return std::get<ActorHandle<Keeper>>(nodes_[call.inputs[0]]);
  }
  template <class T, class ToHash>
  Outcome outcome_of(std::uint32_t node, const Ref<T>& ref, Duration timeout,
                     const ToHash& to_hash);
  Outcome outcome_of(std::uint32_t node, Duration timeout);
  void judge(std::uint32_t node, const Outcome& outcome);
  [[noreturn]] void complain(std::uint32_t node, const std::string& text) const;

  Oracle oracle_;
  bool faults_;
  std::vector<Node> nodes_;
  std::vector<KeptView> views_;
  std::vector<Answer> answers_;  // by step, where there is one
  std::string error_;            // what the latest error said
};

}  // namespace mobula::programs
