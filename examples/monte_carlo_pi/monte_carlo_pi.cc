// Estimates pi by throwing darts: many tasks throw, an actor collects and tells how far it is.
//
// Each task draws from a stream of its own, seeded by its number, so the estimate depends on
// the seed and the number of tasks only, and not on how many workers there are or who was first.
#include <mobula/mobula.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Options {
  long tasks = 64;
  long samples = 1'000'000;  // a task
  long seed = 1;
};

constexpr const char* kHelp =
    "monte_carlo_pi [--tasks N] [--samples N] [--seed N]\n"
    "  --tasks N    tasks that throw darts (64)\n"
    "  --samples N  darts of each task (1000000)\n"
    "  --seed N     same seed, same estimate (1)\n";

[[noreturn]] void refuse(const std::string& why) {
  std::fprintf(stderr, "monte_carlo_pi: %s\n%s", why.c_str(), kHelp);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--help" || name == "-h") {
      std::fputs(kHelp, stdout);
      std::exit(0);
    }
    long* value = name == "--tasks"     ? &options.tasks
                  : name == "--samples" ? &options.samples
                  : name == "--seed"    ? &options.seed
                                        : nullptr;
    if (!value) refuse("unknown option " + std::string(name));
    if (++i == argc) refuse(std::string(name) + " needs a number");
    char* end = nullptr;
    *value = std::strtol(argv[i], &end, 10);
    if (*end != 0 || end == argv[i]) refuse(std::string(argv[i]) + " is no number");
  }
  if (options.tasks < 1 || options.samples < 1)
    refuse("at least one task and one sample are needed");
  return options;
}

class Progress {
 public:
  explicit Progress(long tasks) : tasks_(tasks) {}

  // The sums so far, for whoever asks.
  std::vector<long> report(long inside, long samples) {
    inside_ += inside;
    samples_ += samples;
    ++done_;
    return state();
  }
  std::vector<long> state() const { return {done_, tasks_, inside_, samples_}; }

 private:
  long tasks_;
  long done_ = 0;
  long inside_ = 0;
  long samples_ = 0;
};

// Throws darts at the unit square; the number within the quarter circle.
long throw_darts(long seed, long task, long samples, mobula::ActorHandle<Progress> progress) {
  std::seed_seq words{seed, task};
  std::mt19937_64 random(words);
  std::uniform_real_distribution<double> coordinate(0, 1);
  long inside = 0;
  for (long i = 0; i < samples; ++i) {
    const double x = coordinate(random);
    const double y = coordinate(random);
    inside += x * x + y * y <= 1;
  }
  progress.call<&Progress::report>(inside, samples);
  return inside;
}

double pi_of(long inside, long samples) {
  return 4.0 * static_cast<double>(inside) / static_cast<double>(samples);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const mobula::Session session(argc, argv);
  const auto start = std::chrono::steady_clock::now();

  const auto progress = mobula::actor<Progress>(options.tasks);
  std::vector<mobula::Ref<long>> darts;
  for (long task = 0; task < options.tasks; ++task) {
    darts.push_back(mobula::remote<throw_darts>(options.seed, task, options.samples, progress));
  }

  // Tasks report when they end; who wants to know asks the actor, and nobody waits for that.
  std::vector<mobula::Ref<long>> pending = darts;
  while (!pending.empty()) {
    auto [ready, rest] = mobula::wait(
        pending, {.num_returns = pending.size(), .timeout = std::chrono::milliseconds(200)});
    pending = std::move(rest);
    const std::vector<long> state = mobula::get(progress.call<&Progress::state>());
    if (state[3] > 0) {
      std::printf("%ld of %ld tasks: pi is about %.6f\n", state[0], state[1],
                  pi_of(state[2], state[3]));
      std::fflush(stdout);
    }
  }

  long inside = 0;
  for (const long hits : mobula::get(darts)) inside += hits;
  const double samples = static_cast<double>(options.tasks) * static_cast<double>(options.samples);
  const double pi = pi_of(inside, options.tasks * options.samples);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("pi = %.6f, %.6f away, standard error %.6f; %.0f million darts a second\n", pi,
              std::abs(pi - std::acos(-1.0)), 4 * std::sqrt(pi / 4 * (1 - pi / 4) / samples),
              samples / seconds / 1e6);
}
