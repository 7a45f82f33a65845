#include "programs/run.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

#include "runtime/execution.h"

namespace mobula::programs {

using namespace std::chrono_literals;

Tally& tally() {
  static Tally* const shared = [] {
    static Tally own;
    const char* file = ::getenv(kTallyVariable);
    const int fd = file ? ::open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return &own;
    void* mapped = ::mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    return mapped == MAP_FAILED ? &own : static_cast<Tally*>(mapped);
  }();
  return *shared;
}

namespace {

constexpr Duration kPatience = 60s;  // nothing in a program takes a tenth of it

class PlannedThrow : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The beginning of every task.
void begin(const Job& job) {
  const std::uint32_t attempt = runtime::current_frame()->attempt;
  if (attempt > 0) tally().retried.fetch_add(1, std::memory_order_relaxed);
  if (attempt >= job.throws) return;
  tally().thrown.fetch_add(1, std::memory_order_relaxed);
  throw PlannedThrow(text_of_throw(job.id));
}

Hash checked(std::span<const Hash> words, const char* how) {
  const auto hash = read_block(words);
  if (!hash) throw Violation(std::string("a block of wrong words, read ") + how);
  return block_value(*hash, words.size());
}

Block filled(Hash hash, std::uint32_t words) {
  Block block(words);
  fill_block(block, hash);
  return block;
}

// --- the tasks ---

template <class... H>
Hash call(Job job, H... inputs) {
  begin(job);
  Hash value = job.id;
  ((value = fold(value, inputs)), ...);
  return value;
}
// The same, with arguments that have no room in the record.
template <class... H>
Hash call_far(Job job, std::string padding, H... inputs) {
  if (padding != std::string(200, static_cast<char>('a' + job.id % 26)))
    throw Violation("an argument's text is wrong");
  return call(job, inputs...);
}
Hash call_by_refs(Job job, Ref<Hash> a, Ref<Hash> b) {
  begin(job);
  const Hash first = get(a, kPatience);
  return fold(job.id, {first, get(b, kPatience)});
}
Hash gather(Job job, std::vector<Ref<Hash>> refs) {
  begin(job);
  Hash value = job.id;
  for (const auto& ref : refs) value = fold(value, get(ref, kPatience));
  return value;
}
Hash gather_by_name(Job job, std::map<std::string, Ref<Hash>> refs) {
  begin(job);
  Hash value = job.id;
  for (const auto& [name, ref] : refs) value = fold(value, get(ref, kPatience));
  return value;
}
Hash tree(Job job) {
  begin(job);
  if (job.size < 2) return leaf_of_tree(job.id);
  constexpr auto endless = [] { return TaskOptions{.max_retries = -1}; };
  static const TaskOptions options = endless();
  const auto a = remote<tree>.with(options)(Job{child(job.id, 0), job.size - 1, 0, job.faults});
  const auto b = remote<tree>.with(options)(Job{child(job.id, 1), job.size - 2, 0, job.faults});
  const Hash left = get(a, kPatience);
  return fold(job.id, {left, get(b, kPatience)});
}
Hash nest(Job job, Imports imports) {
  begin(job);
  const Surroundings given{static_cast<std::uint32_t>(imports.words.size()),
                           static_cast<std::uint32_t>(imports.blocks.size()),
                           static_cast<std::uint32_t>(imports.actors.size()), job.size};
  Scope scope(plan_of(job.id, given), std::move(imports), job.faults != 0);
  scope.run();
  return fold(job.id, {scope.oracle().value()});
}
Hash digest(Job job, const Block& block) {
  begin(job);
  return fold(job.id, {checked(block, "as a copy")});
}
Hash digest_span(Job job, std::span<const Hash> block) {
  begin(job);
  return fold(job.id, {checked(block, "as a span")});
}
Hash digest_view(Job job, View<Hash> block) {
  begin(job);
  return fold(job.id, {checked(block, "as a view")});
}
Hash digest_ref(Job job, Ref<Block> block) {
  begin(job);
  return fold(job.id, {checked(get_view(block, kPatience), "behind a ref")});
}
Hash digest_bytes(Job job, std::span<const std::byte> bytes) {
  begin(job);
  return fold(job.id, {checked({reinterpret_cast<const Hash*>(bytes.data()), bytes.size() / 8},
                               "as bytes")});
}
Hash open(Job job, const ParcelValue& parcel) {
  begin(job);
  Hash value = fold(job.id, {parcel.hash});
  for (const auto& ref : parcel.made) value = fold(value, get(ref, kPatience));
  value = fold(value, checked(get_view(parcel.block, kPatience), "in a parcel"));
  for (const auto& ref : parcel.passed_words) value = fold(value, get(ref, kPatience));
  for (const auto& ref : parcel.passed_blocks)
    value = fold(value, checked(get_view(ref, kPatience), "passed in a parcel"));
  return value;
}
Hash unwrap(Job job, Answer answer) {
  begin(job);
  return fold(job.id, {answer.value});
}
Hash pass(Job job, ActorHandle<Keeper> keeper) {
  begin(job);
  const auto answer = keeper.call<&Keeper::add>(Job{child(job.id, 0), 0, 0, job.faults}, job.id);
  return fold(job.id, {get(answer, kPatience).value});
}
Block make_block(Job job) {
  begin(job);
  return filled(job.id, job.size);
}
Block mend(Job job, const Block& block, Hash word) {
  begin(job);
  return filled(fold(job.id, {checked(block, "to be mended"), word}), job.size);
}
ParcelValue parcel(Job job, std::vector<Ref<Hash>> words, std::vector<Ref<Block>> blocks) {
  begin(job);
  ParcelValue made{job.id, {}, {}, std::move(words), std::move(blocks)};
  for (std::uint32_t i = 0; i < kParcelWords; ++i) {
    const Job inner{child(job.id, i), 0, 0, job.faults};
    made.made.push_back(remote<call<>>.with({.max_retries = -1})(inner));
  }
  made.block = put(filled(block_of_parcel(job.id), kParcelBlockWords));
  return made;
}

// `call` with as many inputs as there are; refs, or their values.
template <auto F, class Argument, std::size_t... I>
Ref<Hash> submit(const TaskOptions& options, const std::vector<Argument>& inputs, const Job& job,
                 std::index_sequence<I...>) {
  return remote<F>.with(options)(job, inputs[I]...);
}
template <auto F, class Argument, std::size_t... I>
Ref<Hash> submit_far(const TaskOptions& options, const std::vector<Argument>& inputs,
                     const Job& job, std::index_sequence<I...>) {
  const std::string padding(200, static_cast<char>('a' + job.id % 26));
  return remote<F>.with(options)(job, padding, inputs[I]...);
}

template <std::size_t>
using HashOf = Hash;
template <std::size_t N, class Argument, std::size_t... I>
Ref<Hash> submit_words(const TaskOptions& options, const std::vector<Argument>& inputs,
                       const Job& job, bool far, std::index_sequence<I...> all) {
  return far ? submit_far<&call_far<HashOf<I>...>>(options, inputs, job, all)
             : submit<&call<HashOf<I>...>>(options, inputs, job, all);
}
template <class Argument>
Ref<Hash> submit_call(const TaskOptions& options, const std::vector<Argument>& inputs,
                      const Job& job, bool far) {
  switch (inputs.size()) {
    case 0: return submit_words<0>(options, inputs, job, far, std::make_index_sequence<0>());
    case 1: return submit_words<1>(options, inputs, job, far, std::make_index_sequence<1>());
    case 2: return submit_words<2>(options, inputs, job, far, std::make_index_sequence<2>());
    case 3: return submit_words<3>(options, inputs, job, far, std::make_index_sequence<3>());
    case 4: return submit_words<4>(options, inputs, job, far, std::make_index_sequence<4>());
    case 8: return submit_words<8>(options, inputs, job, far, std::make_index_sequence<8>());
    case 24: return submit_words<24>(options, inputs, job, far, std::make_index_sequence<24>());
    default: throw Violation("no task has so many parameters");
  }
}

// --- what an error means ---

Outcome crashed(const std::string& text) {
  // Whoever died by anything but SIGKILL was not killed by us.
  if (text.find("was killed by SIGKILL") == std::string::npos) return {Outcome::Kind::Wrong, 0};
  if (text.find("it was tried once") != std::string::npos) return {Outcome::Kind::Crashed, 1};
  constexpr std::string_view kTried = "it was tried ";
  const std::size_t at = text.find(kTried);
  if (at == std::string::npos) return {Outcome::Kind::Wrong, 0};
  return {Outcome::Kind::Crashed, std::strtoull(text.c_str() + at + kTried.size(), nullptr, 10)};
}

// Errors of inputs that a task got inside arrive as what it threw; what its input got inside, as
// what that one threw, and so on: the innermost stands in the text.
Outcome outcome_of_throw(const TaskError& error) {
  const std::string& type = error.type_name();
  const std::string text = type + ": " + error.message();
  const auto names = [&](const char* name) {
    return text.find(std::string("mobula::") + name + ":") != std::string::npos;
  };
  if (names("programs::Violation") || names("programs::Hang")) return {Outcome::Kind::Wrong, 0};
  if (const auto id = thrown_in(error.message())) return {Outcome::Kind::Thrown, *id};
  if (names("WorkerCrashedError")) return crashed(error.message());
  if (names("ActorDiedError")) return {Outcome::Kind::Died, 0};
  if (names("ActorUnavailableError")) return {Outcome::Kind::Unavailable, 0};
  if (names("TaskCancelledError")) return {Outcome::Kind::Cancelled, 0};
  return {Outcome::Kind::Wrong, 0};
}

Outcome outcome_of_error(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kTaskError: return outcome_of_throw(dynamic_cast<const TaskError&>(error));
    case ErrorCode::kWorkerCrashed: return crashed(error.what());
    case ErrorCode::kActorDied: return {Outcome::Kind::Died, 0};
    case ErrorCode::kActorUnavailable: return {Outcome::Kind::Unavailable, 0};
    case ErrorCode::kTaskCancelled: return {Outcome::Kind::Cancelled, 0};
    default: return {Outcome::Kind::Wrong, 0};
  }
}

Given given_by(const Imports& imports) { return {imports.word_values, imports.block_values}; }

}  // namespace

// --- the actor ---

Keeper::Keeper(Hash id) : life_(fold(id, {static_cast<Hash>(::getpid()), runtime::now_ns()})) {
  tally().lives.fetch_add(1, std::memory_order_relaxed);
}

Answer Keeper::answer(Hash value) {
  state_ = fold(state_, value);
  return {value, state_, 0, life_, ++calls_};
}

Answer Keeper::add(Job job, Hash input) {
  begin(job);
  return answer(fold(job.id, {input}));
}

Answer Keeper::keep(Job job, Ref<Block> block, std::uint32_t words) {
  begin(job);
  const View<Hash> view = get_view(block, kPatience);
  if (view.size() != words) throw Violation("a block of wrong size came to an actor");
  kept_.push_back(block);
  return answer(fold(job.id, {checked(view, "by an actor")}));
}

Answer Keeper::recall(Job job) {
  begin(job);
  Answer told = answer(fold(job.id, {}));
  if (!kept_.empty()) told.kept = checked(get_view(kept_.back(), kPatience), "of an actor's own");
  return told;
}

// --- a plan's run ---

Scope::Scope(Plan plan, Imports imports, bool faults)
    : oracle_(std::move(plan), given_by(imports), faults), faults_(faults) {
  const std::size_t count = oracle_.plan().steps.size();
  nodes_.resize(count);
  answers_.resize(count);
  std::size_t i = 0;
  for (auto& ref : imports.words) nodes_[i++] = std::move(ref);
  for (auto& ref : imports.blocks) nodes_[i++] = std::move(ref);
  for (auto& handle : imports.actors) nodes_[i++] = std::move(handle);
}

void Scope::run() {
  take_steps();
  settle();
}

void Scope::take_steps() {
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) take(i);
}

void Scope::settle() {
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) look(i);
  for (const KeptView& kept : views_) {
    if (checked(kept.view, "again") !=
        block_value(oracle_.expected(kept.step), oracle_.words(kept.step)))
      complain(kept.step, "its view changed");
  }
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    if (step(i).op != Op::Actor || step(i).shared) continue;
    std::vector<Oracle::Call> calls;
    for (std::uint32_t j = i + 1; j < nodes_.size(); ++j) {
      if (step(j).kind == Kind::Answer && step(j).inputs[0] == i && answers_[j].nth != 0)
        calls.push_back({j, answers_[j]});
    }
    if (const auto complaint = oracle_.judge_calls(calls)) complain(i, *complaint);
  }
}

Imports Scope::exports() const {
  Imports all;
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    if (step(i).kind == Kind::Word) {
      all.words.push_back(word(i));
      all.word_values.push_back(oracle_.expected(i));
    } else if (step(i).kind == Kind::Block) {
      all.blocks.push_back(block(i));
      all.block_values.push_back({oracle_.expected(i), oracle_.words(i)});
    } else if (step(i).kind == Kind::Actor) {
      all.actors.push_back(std::get<ActorHandle<Keeper>>(nodes_[i]));
    }
  }
  return all;
}

void Scope::take(std::uint32_t index) {
  const Step& s = step(index);
  switch (s.op) {
    case Op::GivenWord:
    case Op::GivenBlock:
    case Op::GivenActor: return;
    case Op::Get: return look(s.inputs[0]);
    case Op::View: return view(s.inputs[0]);
    case Op::TryGet: return try_get(s.inputs[0], s.way * 100us);
    case Op::Wait: return wait(s);
    case Op::Drop: nodes_[s.inputs[0]] = {}; return;
    case Op::Cancel: return cancel(s);
    case Op::Kill: return kill(std::get<ActorHandle<Keeper>>(nodes_[s.inputs[0]]));
    default: nodes_[index] = make(s);
  }
}

Job Scope::job_of(const Step& s) const {
  const std::uint32_t throws = s.fate == Fate::Throws          ? ~std::uint32_t{0}
                               : s.fate == Fate::ThrowsAtFirst ? 2
                                                               : 0;
  return {s.id, s.size, throws, faults_};
}

TaskOptions Scope::options_of(const Step& s) const {
  return {.max_retries = s.retries, .retry_exceptions = s.fate == Fate::ThrowsAtFirst};
}

Scope::Node Scope::make(const Step& s) {
  switch (s.op) {
    case Op::PutWord: return put(s.id);
    case Op::PutBlock: return put(filled(s.id, s.size));
    case Op::SealBlock: {
      Buffer buffer = create_buffer(s.size * sizeof(Hash));
      fill_block({reinterpret_cast<Hash*>(buffer.data()), s.size}, s.id);
      return buffer.seal();
    }
    case Op::Call:
    case Op::Wide: return make_call(s);
    case Op::Gather: return make_gather(s);
    case Op::Tree: return remote<tree>.with(options_of(s))(job_of(s));
    case Op::Chain: return make_chain(s);
    case Op::Nest: return make_nest(s);
    case Op::Digest: return make_digest(s);
    case Op::Open:
      return remote<open>.with(options_of(s))(job_of(s),
                                              std::get<Ref<ParcelValue>>(nodes_[s.inputs[0]]));
    case Op::Unwrap:
      return remote<unwrap>.with(options_of(s))(job_of(s),
                                                std::get<Ref<Answer>>(nodes_[s.inputs[0]]));
    case Op::Pass: return remote<pass>.with(options_of(s))(job_of(s), keeper(s));
    case Op::Crowd: return make_crowd(s);
    case Op::Block: return remote<make_block>.with(options_of(s))(job_of(s));
    case Op::Mend:
      return remote<mend>.with(options_of(s))(job_of(s), block(s.inputs[0]), word(s.inputs[1]));
    case Op::Parcel: {
      std::vector<Ref<Hash>> words;
      std::vector<Ref<Block>> blocks;
      for (const std::uint32_t i : s.inputs) {
        if (step(i).kind == Kind::Word) words.push_back(word(i));
        if (step(i).kind == Kind::Block) blocks.push_back(block(i));
      }
      return remote<parcel>.with(options_of(s))(job_of(s), words, blocks);
    }
    case Op::Actor:
      return actor<Keeper>.with({.max_restarts = s.retries, .max_task_retries = s.call_retries})(
          s.id);
    default: return make_answer(s);
  }
}

Scope::Node Scope::make_call(const Step& s) {
  const bool far = s.way == 1;
  if (s.by_value) {
    std::vector<Hash> values;
    for (const std::uint32_t i : s.inputs) values.push_back(get(word(i), kPatience));
    return submit_call(options_of(s), values, job_of(s), far);
  }
  if (s.way == 2 && s.inputs.size() == 2) {
    return remote<call_by_refs>.with(options_of(s))(job_of(s), word(s.inputs[0]),
                                                    word(s.inputs[1]));
  }
  std::vector<Ref<Hash>> refs;
  for (const std::uint32_t i : s.inputs) refs.push_back(word(i));
  return submit_call(options_of(s), refs, job_of(s), far);
}

Scope::Node Scope::make_gather(const Step& s) {
  if (s.way == 0) {
    std::map<std::string, Ref<Hash>> refs;  // in order by name
    for (const std::uint32_t i : s.inputs) refs[std::to_string(1000 + refs.size())] = word(i);
    return remote<gather_by_name>.with(options_of(s))(job_of(s), refs);
  }
  std::vector<Ref<Hash>> refs;
  for (const std::uint32_t i : s.inputs) refs.push_back(word(i));
  return remote<gather>.with(options_of(s))(job_of(s), refs);
}

Scope::Node Scope::make_digest(const Step& s) {
  const auto options = options_of(s);
  const Job job = job_of(s);
  const std::uint32_t i = s.inputs[0];
  if (step(i).kind == Kind::Bytes)
    return remote<digest_bytes>.with(options)(job, std::get<Ref<Buffer>>(nodes_[i]));
  switch (s.way) {
    case 0: return remote<digest>.with(options)(job, block(i));
    case 1: return remote<digest_span>.with(options)(job, block(i));
    case 2: return remote<digest_view>.with(options)(job, block(i));
    default: return remote<digest_ref>.with(options)(job, block(i));
  }
}

Scope::Node Scope::make_crowd(const Step& s) {
  std::vector<Ref<Hash>> refs;
  refs.reserve(s.size);
  const auto options = options_of(s);
  for (std::uint32_t i = 0; i < s.size; ++i) {
    const Job job{child(s.id, i), 0, 0, faults_};
    refs.push_back(s.inputs.empty() ? remote<call<>>.with(options)(job)
                                    : remote<call<Hash>>.with(options)(job, word(s.inputs[0])));
  }
  return refs;
}

Ref<Hash> Scope::make_chain(const Step& s) {
  Ref<Hash> last = s.inputs.empty() ? put(Hash{0}) : word(s.inputs[0]);
  const auto options = options_of(s);
  for (std::uint32_t i = 0; i < s.size; ++i)
    last = remote<call<Hash>>.with(options)(Job{child(s.id, i), 0, 0, faults_}, last);
  return last;
}

Scope::Node Scope::make_answer(const Step& s) {
  const Job job = job_of(s);
  switch (s.op) {
    case Op::Add: return keeper(s).call<&Keeper::add>(job, word(s.inputs[1]));
    case Op::Keep:
      return keeper(s).call<&Keeper::keep>(job, block(s.inputs[1]), oracle_.words(s.inputs[1]));
    default: return keeper(s).call<&Keeper::recall>(job);
  }
}

Scope::Node Scope::make_nest(const Step& s) {
  Job job = job_of(s);
  job.size = oracle_.plan().given.depth + 1;
  return remote<nest>.with(options_of(s))(job, imports_for(s));
}

Imports Scope::imports_for(const Step& s) const {
  Imports imports;
  const Given given = oracle_.given_to(s);
  imports.word_values = given.words;
  imports.block_values = given.blocks;
  for (const std::uint32_t i : s.inputs) {
    if (step(i).kind == Kind::Word) imports.words.push_back(word(i));
    if (step(i).kind == Kind::Block) imports.blocks.push_back(block(i));
    if (step(i).kind == Kind::Actor)
      imports.actors.push_back(std::get<ActorHandle<Keeper>>(nodes_[i]));
  }
  return imports;
}

// --- looking at nodes ---

template <class T, class ToHash>
Outcome Scope::outcome_of(std::uint32_t node, const Ref<T>& ref, Duration timeout,
                          const ToHash& to_hash) {
  error_.clear();
  try {
    return {Outcome::Kind::Value, to_hash(ref)};
  } catch (const GetTimeoutError&) {
    if (timeout < kPatience) return {};
    throw Hang("waited a minute for " + oracle_.lineage(node));
  } catch (const Error& error) {
    const Outcome outcome = outcome_of_error(error);
    error_ = error.what();
    return outcome;
  }
}

Outcome Scope::outcome_of(std::uint32_t node, Duration timeout) {
  return std::visit(
      [&]<class N>(const N& n) -> Outcome {
        if constexpr (std::is_same_v<N, Ref<Hash>>) {
          return outcome_of(node, n, timeout, [&](const auto& ref) { return get(ref, timeout); });
        } else if constexpr (std::is_same_v<N, Ref<Block>>) {
          return outcome_of(node, n, timeout, [&](const auto& ref) {
            const Block words = get(ref, timeout);
            checked(words, "by get");
            if (words.size() != oracle_.words(node)) complain(node, "its size is wrong");
            return words[0];
          });
        } else if constexpr (std::is_same_v<N, Ref<Buffer>>) {
          return outcome_of(node, n, timeout, [&](const auto& ref) {
            const View<std::byte> bytes = get_view(ref, timeout);
            const std::span words(reinterpret_cast<const Hash*>(bytes.data()), bytes.size() / 8);
            checked(words, "by get_view of a buffer");
            if (words.size() != oracle_.words(node)) complain(node, "its size is wrong");
            return words[0];
          });
        } else if constexpr (std::is_same_v<N, Ref<ParcelValue>>) {
          return outcome_of(node, n, timeout,
                            [&](const auto& ref) { return get(ref, timeout).hash; });
        } else if constexpr (std::is_same_v<N, Ref<Answer>>) {
          return outcome_of(node, n, timeout, [&](const auto& ref) {
            answers_[node] = get(ref, timeout);
            return answers_[node].value;
          });
        } else {
          return {};
        }
      },
      nodes_[node]);
}

void Scope::look(std::uint32_t node) {
  if (std::holds_alternative<std::vector<Ref<Hash>>>(nodes_[node])) return look_at_crowd(node);
  judge(node, outcome_of(node, kPatience));
}

void Scope::look_at_crowd(std::uint32_t node) {
  const auto& refs = std::get<std::vector<Ref<Hash>>>(nodes_[node]);
  for (std::uint32_t i = 0; i < refs.size(); ++i) {
    const Outcome outcome =
        outcome_of(node, refs[i], kPatience, [&](const auto& ref) { return get(ref, kPatience); });
    if (const auto complaint = oracle_.judge_of_crowd(node, i, outcome))
      complain(node, "element " + std::to_string(i) + ": " + *complaint);
  }
}

void Scope::view(std::uint32_t node) {
  if (std::holds_alternative<Ref<Block>>(nodes_[node])) {
    const Outcome outcome = outcome_of(node, block(node), kPatience, [&](const auto& ref) {
      View<Hash> view = get_view(ref, kPatience);
      const auto hash = read_block(view);
      if (!hash || view.size() != oracle_.words(node)) complain(node, "its view is wrong");
      if (views_.size() < 4) views_.push_back({node, std::move(view)});
      return *hash;
    });
    judge(node, outcome);
  } else {
    look(node);
  }
}

void Scope::try_get(std::uint32_t node, Duration timeout) {
  if (std::holds_alternative<std::vector<Ref<Hash>>>(nodes_[node])) return;
  if (const auto* ref = std::get_if<Ref<Hash>>(&nodes_[node])) {
    const Outcome outcome = outcome_of(
        node, *ref, timeout, [&](const auto& r) { return mobula::try_get(r, timeout).value(); });
    return judge(node, outcome);
  }
  judge(node, outcome_of(node, timeout));
}

void Scope::wait(const Step& s) {
  std::vector<std::uint32_t> steps;
  std::vector<Ref<Hash>> refs;
  for (const std::uint32_t i : s.inputs) {  // a plan may be given the same ref twice
    if (std::find(refs.begin(), refs.end(), word(i)) != refs.end()) continue;
    refs.push_back(word(i));
    steps.push_back(i);
  }
  const std::size_t wanted = std::min<std::size_t>(s.size, refs.size());
  const Duration timeout = s.way == 0 ? Duration(0) : s.way == 1 ? Duration(1ms) : kPatience;
  const auto [ready, pending] = mobula::wait(refs, {.num_returns = wanted, .timeout = timeout});
  if (ready.size() > wanted || ready.size() + pending.size() != refs.size())
    complain(steps[0], "wait parted its refs wrongly");
  if (timeout == kPatience && ready.size() != wanted)
    throw Hang("waited a minute for any of some, first " + oracle_.lineage(steps[0]));
  std::size_t r = 0, p = 0;
  for (std::size_t i = 0; i < refs.size(); ++i) {
    if (r < ready.size() && ready[r] == refs[i]) {
      ++r;
      const Outcome outcome = outcome_of(steps[i], Duration(0));
      if (outcome.kind == Outcome::Kind::Unseen)
        complain(steps[i], "wait called it ready, and it is not");
      judge(steps[i], outcome);
    } else if (p < pending.size() && pending[p] == refs[i]) {
      ++p;
    } else {
      complain(steps[i], "wait lost it, or changed the order");
    }
  }
}

void Scope::cancel(const Step& s) {
  const std::uint32_t node = s.inputs[0];
  const bool is_call = step(node).kind == Kind::Answer;
  // By force it ends a process, and whatever else runs there.
  const CancelOptions options{.force = faults_ && !is_call && s.way == 0, .recursive = s.way != 1};
  const bool never = std::visit(
      [&]<class N>(const N& ref) {
        if constexpr (std::is_same_v<N, Ref<Hash>> || std::is_same_v<N, Ref<Block>> ||
                      std::is_same_v<N, Ref<ParcelValue>> || std::is_same_v<N, Ref<Answer>>) {
          return mobula::cancel(ref, options);
        } else {
          return false;
        }
      },
      nodes_[node]);
  if (never) tally().cancelled.fetch_add(1, std::memory_order_relaxed);
  oracle_.told_of_cancel(node, never);
}

void Scope::judge(std::uint32_t node, const Outcome& outcome) {
  if (outcome.kind == Outcome::Kind::Unseen) return;
  if (const auto complaint = oracle_.judge(node, outcome)) complain(node, *complaint);
}

void Scope::complain(std::uint32_t node, const std::string& text) const {
  throw Violation(text + (error_.empty() ? "" : " (" + error_ + ")") + "\n" +
                  oracle_.lineage(node));
}

}  // namespace mobula::programs
