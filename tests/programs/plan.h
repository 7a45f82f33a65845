// Decides what a random program does: a plan, grown from a seed, of steps that make values (nodes
// of the task graph) and of steps that look at them.
//
// Pure: the same seed and surroundings give the same plan in every process, so that a task can run
// a plan of its own of which only the seed travelled. Steps name earlier ones as inputs; which of
// these may fail, and how, is the oracle's business (oracle.h).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "programs/lineage.h"

namespace mobula::programs {

enum class Op : std::uint8_t {
  // Given from outside: what whoever runs the plan brings along.
  GivenWord,
  GivenBlock,
  GivenActor,
  // Words.
  PutWord,
  Call,    // a task of up to four words
  Wide,    // a task of 8 or 24 words: more edges than a record has room for
  Gather,  // a task that gets refs which it was passed in a vector
  Tree,    // recursion by tasks, of depth `size`
  Chain,   // `size` tasks, each on the last one's value
  Nest,    // a task that runs a plan of its own
  Digest,  // a task that reads a block: copied, as a span, as a view, by bytes
  Open,    // a task that takes a parcel apart
  Unwrap,  // a task of what an actor answered
  Pass,    // a task that calls an actor
  // Others.
  Crowd,      // `size` tasks of one word: a value each
  PutBlock,   // `size` words
  SealBlock,  // written in place, as bytes
  Block,      // a task's result
  Mend,       // a task that makes a block of a block and a word
  Parcel,     // a task's result with refs inside, its own and passed ones
  Actor,
  Add,     // a call: state becomes the fold of all calls
  Keep,    // a call that keeps a ref in the actor
  Recall,  // a call that reads what the last kept ref names
  // Looks.
  Get,
  View,
  TryGet,  // with a short timeout
  Wait,
  Drop,   // the program's last ref to a node
  Kill,   // mobula::kill of an actor
  Cancel,  // mobula::cancel of a task, or of a call of a shared actor
  kCount,
};

std::string_view name_of(Op op);

enum class Fate : std::uint8_t {
  Succeeds,
  Throws,        // always
  ThrowsAtFirst  // at its first two attempts, with retry_exceptions
};

// What a node is, as an input of others.
enum class Kind : std::uint8_t { None, Word, Crowd, Block, Bytes, Parcel, Answer, Actor };

struct Step {
  Op op = Op::Call;
  Kind kind = Kind::None;
  Fate fate = Fate::Succeeds;
  // Actors: how a task of theirs is placed does not matter to values; see the oracle.
  bool shared = false;      // others than this plan's runner may call it
  bool doomed = false;      // may be cancelled, an actor killed or dropped
  bool by_value = false;    // word inputs are got first, and passed as values
  std::int32_t retries = -1;       // tasks: max_retries; actors: max_restarts
  std::int32_t call_retries = -1;  // actors: max_task_retries
  std::uint32_t size = 0;
  std::uint32_t way = 0;  // which of several ways to do the same
  Hash id = 0;
  std::vector<std::uint32_t> inputs;  // earlier steps; for calls of actors the actor comes first
  // Nothing can make it fail but a bug: all that it comes of is retried without end.
  bool sure = true;
  bool touches_actor = false;  // its lineage has calls of actors
};

// What the plan's runner brings along.
struct Surroundings {
  std::uint32_t words = 0;
  std::uint32_t blocks = 0;
  std::uint32_t actors = 0;
  std::uint32_t depth = 0;  // 0: a driver's thread; plans of tasks are smaller and smaller
  friend bool operator==(const Surroundings&, const Surroundings&) = default;
};

struct Plan {
  Hash seed = 0;
  Surroundings given;
  std::vector<Step> steps;
};

Plan plan_of(Hash seed, const Surroundings& given);

// What a task started by `Nest` gets along: the first words, blocks and shared actors among the
// inputs, in order.
Surroundings surroundings_of(const Plan& plan, const Step& nest);

// What others are given for their own plans.
Plan prelude_of(Hash seed);

// Steps whose shapes are equal take the same paths: what is done to which kinds of inputs, how it
// may fail.
std::uint64_t shape_of(const Plan& plan, const Step& step);

// Tasks and calls that the plan leads to, each counted once, and values that are put.
struct Amounts {
  std::uint64_t tasks = 0;
  std::uint64_t objects = 0;
};
Amounts amounts_of(const Plan& plan);

// Tasks that recursion of this depth takes.
std::uint64_t tree_tasks(std::uint32_t depth);
inline constexpr std::uint32_t kParcelWords = 3;  // refs that a parcel's task makes itself
inline constexpr std::uint32_t kDeepest = 3;      // plans within plans

}  // namespace mobula::programs
