// A parameter server: an actor keeps the weights of a linear model, tasks compute gradients.
//
// The data lies in the object store in shards, which the tasks read in place. In each iteration
// one task a shard computes the gradient for the newest weights, and the server applies them in
// the order of the shards: the same seed gives the same losses for any number of workers.
#include <mobula/mobula.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Options {
  long iterations = 30;
  long shards = 8;
  long rows = 20'000;  // a shard
  long features = 16;
  long seed = 1;
};

constexpr const char* kHelp =
    "parameter_server [--iterations N] [--shards N] [--rows N] [--features N] [--seed N]\n"
    "  --iterations N  steps of gradient descent (30)\n"
    "  --shards N      parts of the data, one task each in every step (8)\n"
    "  --rows N        samples in each part (20000)\n"
    "  --features N    weights of the model (16)\n"
    "  --seed N        same seed, same losses (1)\n";

[[noreturn]] void refuse(const std::string& why) {
  std::fprintf(stderr, "parameter_server: %s\n%s", why.c_str(), kHelp);
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
    long* value = name == "--iterations" ? &options.iterations
                  : name == "--shards"   ? &options.shards
                  : name == "--rows"     ? &options.rows
                  : name == "--features" ? &options.features
                  : name == "--seed"     ? &options.seed
                                         : nullptr;
    if (!value) refuse("unknown option " + std::string(name));
    if (++i == argc) refuse(std::string(name) + " needs a number");
    char* end = nullptr;
    *value = std::strtol(argv[i], &end, 10);
    if (*end != 0 || end == argv[i]) refuse(std::string(argv[i]) + " is no number");
  }
  if (options.iterations < 1 || options.shards < 1 || options.rows < 1 || options.features < 1) {
    refuse("iterations, shards, rows and features are at least 1");
  }
  return options;
}

constexpr double kNoise = 0.1;

std::vector<double> true_weights(long seed, long features) {
  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  std::normal_distribution<double> normal;
  std::vector<double> weights(static_cast<std::size_t>(features));
  for (double& weight : weights) weight = normal(random);
  return weights;
}

// Rows of features, each followed by its target.
std::vector<double> make_shard(long seed, long shard, long rows, std::span<const double> weights) {
  std::seed_seq words{seed, shard};
  std::mt19937_64 random(words);
  std::normal_distribution<double> normal;
  std::vector<double> data;
  data.reserve(static_cast<std::size_t>(rows) * (weights.size() + 1));
  for (long row = 0; row < rows; ++row) {
    double target = kNoise * normal(random);
    for (const double weight : weights) {
      data.push_back(normal(random));
      target += weight * data.back();
    }
    data.push_back(target);
  }
  return data;
}

// Sums over the shard: the gradient, then the squared error, then the number of rows.
std::vector<double> gradient(std::span<const double> shard, std::span<const double> weights) {
  const std::size_t features = weights.size();
  std::vector<double> sums(features + 2);
  for (std::size_t at = 0; at < shard.size(); at += features + 1) {
    const double* row = shard.data() + at;
    double error = -row[features];
    for (std::size_t i = 0; i < features; ++i) error += weights[i] * row[i];
    for (std::size_t i = 0; i < features; ++i) sums[i] += error * row[i];
    sums[features] += error * error;
  }
  sums[features + 1] = static_cast<double>(shard.size() / (features + 1));
  return sums;
}

class Server {
 public:
  explicit Server(long features)
      : weights_(static_cast<std::size_t>(features)), sums_(weights_.size() + 2) {}

  const std::vector<double>& weights() const { return weights_; }

  void add(const std::vector<double>& sums) {
    for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += sums[i];
  }
  // One step down the mean gradient; the mean squared error before it.
  double step(double rate) {
    const std::size_t features = weights_.size();
    const double rows = sums_[features + 1];
    const double loss = sums_[features] / rows;
    for (std::size_t i = 0; i < features; ++i) weights_[i] -= rate * sums_[i] / rows;
    sums_.assign(sums_.size(), 0);
    return loss;
  }

 private:
  std::vector<double> weights_;
  std::vector<double> sums_;  // of this step's gradients
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const mobula::Session session(argc, argv);

  const std::vector<double> truth = true_weights(options.seed, options.features);
  std::vector<mobula::Ref<std::vector<double>>> shards;
  for (long shard = 0; shard < options.shards; ++shard) {
    shards.push_back(mobula::remote<make_shard>(options.seed, shard, options.rows, truth));
  }

  const auto server = mobula::actor<Server>(options.features);
  std::vector<mobula::Ref<double>> losses;
  for (long iteration = 0; iteration < options.iterations; ++iteration) {
    const auto weights = server.call<&Server::weights>();
    for (const auto& shard : shards) {
      server.call<&Server::add>(mobula::remote<gradient>(shard, weights));
    }
    losses.push_back(server.call<&Server::step>(0.3));
  }

  // Everything is submitted; the losses come as they are ready.
  for (std::size_t i = 0; i < losses.size(); ++i) {
    std::printf("iteration %zu: loss %.6f\n", i + 1, mobula::get(losses[i]));
  }
  const std::vector<double> weights = mobula::get(server.call<&Server::weights>());
  double worst = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double error = weights[i] > truth[i] ? weights[i] - truth[i] : truth[i] - weights[i];
    if (error > worst) worst = error;
  }
  std::printf("the loss of a perfect model is %.4f; the worst weight is %.6f off\n",
              kNoise * kNoise, worst);
}
