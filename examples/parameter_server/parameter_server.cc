// An asynchronous parameter server: an actor keeps the weights of a linear model, and workers
// improve them, each at its own pace.
//
// A worker asks for the weights, computes the gradient of its shard, which it reads in place, and
// sends it; whatever gradient comes is applied at once. The shards are of different sizes, so some
// workers are faster. Who is too far ahead of the slowest one gets its answer later: its question
// is a Reply that the server keeps, while it goes on with the others. How good the weights are is
// computed by tasks beside all this; their results come back to the server by then(), as its
// answers come to the workers. No thread waits for anything.
#include <mobula/mobula.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "number_options.h"

namespace {

using Weights = std::vector<double>;

constexpr double kRate = 0.2;  // of a round in which each worker makes one step
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

// Calls fn with each row, which begins with its features, and how far the weights are off there.
template <class F>
void for_each_error(std::span<const double> shard, const Weights& weights, const F& fn) {
  for (std::size_t at = 0; at < shard.size(); at += weights.size() + 1) {
    const double* row = shard.data() + at;
    fn(row, std::inner_product(weights.begin(), weights.end(), row, -row[weights.size()]));
  }
}
double rows_of(std::span<const double> shard, const Weights& weights) {
  return static_cast<double>(shard.size() / (weights.size() + 1));
}

Weights gradient(std::span<const double> shard, const Weights& weights) {
  Weights mean(weights.size());
  const double rows = rows_of(shard, weights);
  for_each_error(shard, weights, [&](const double* row, double error) {
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += error * row[i] / rows;
  });
  return mean;
}

double mean_squared_error(std::span<const double> shard, const Weights& weights) {
  double sum = 0;
  for_each_error(shard, weights, [&](const double*, double error) { sum += error * error; });
  return sum / rows_of(shard, weights);
}

struct Loss {
  long updates = 0;
  double value = 0;
};

struct Report {
  Weights weights;
  std::vector<Loss> losses;  // in the order of the updates
  long apart = 0;  // steps, between the first and the last worker, at the most
  long held_back = 0;  // answers that had to wait
};

class Server {
 public:
  Server(long features, long workers, long ahead, mobula::Ref<std::vector<double>> test_data)
      : weights_(static_cast<std::size_t>(features)),
        steps_(static_cast<std::size_t>(workers)),
        ahead_(ahead),
        test_data_(std::move(test_data)) {
    evaluate();
  }

  // The newest weights, as soon as the worker is at most `ahead` steps before the slowest one.
  void weights(mobula::Reply<Weights> reply, std::size_t worker) {
    if (!may_go_on(worker)) ++report_.held_back;
    questions_.push_back({worker, std::move(reply)});
    answer_those_who_may_go_on();
  }

  void apply(std::size_t worker, const Weights& gradient) {
    const double rate = kRate / static_cast<double>(steps_.size());
    for (std::size_t i = 0; i < weights_.size(); ++i) weights_[i] -= rate * gradient[i];
    ++steps_[worker];
    const auto [last, first] = std::minmax_element(steps_.begin(), steps_.end());
    report_.apart = std::max(report_.apart, *first - *last);
    if (++updates_ % static_cast<long>(steps_.size()) == 0) evaluate();
    answer_those_who_may_go_on();
  }

  // Answered when all that was begun is done.
  void report(mobula::Reply<Report> reply) {
    asked_for_report_ = std::move(reply);
    report_if_done();
  }

 private:
  struct Question {
    std::size_t worker;
    mobula::Reply<Weights> reply;
  };

  bool may_go_on(std::size_t worker) const {
    return steps_[worker] - *std::min_element(steps_.begin(), steps_.end()) <= ahead_;
  }

  void answer_those_who_may_go_on() {
    for (Question& question : questions_)
      if (may_go_on(question.worker)) question.reply.set(weights_);
    std::erase_if(questions_, [](const Question& question) { return !question.reply; });
  }

  // The task gets the weights of now; nobody waits for it, and updates go on.
  void evaluate() {
    ++evaluations_;
    mobula::then(mobula::remote<mean_squared_error>(test_data_, weights_),
                 [this, updates = updates_](const mobula::Result<double>& loss) {
                   --evaluations_;
                   if (loss) report_.losses.push_back({updates, *loss});
                   report_if_done();
                 });
  }

  void report_if_done() {
    if (!asked_for_report_ || evaluations_ != 0) return;
    report_.weights = weights_;
    std::sort(report_.losses.begin(), report_.losses.end(),
              [](const Loss& a, const Loss& b) { return a.updates < b.updates; });
    asked_for_report_.set(report_);
  }

  Weights weights_;
  std::vector<long> steps_;  // that each worker has made
  long ahead_;
  long updates_ = 0;
  std::vector<Question> questions_;  // not answered yet
  mobula::Ref<std::vector<double>> test_data_;
  int evaluations_ = 0;  // under way
  Report report_;
  mobula::Reply<Report> asked_for_report_;
};

// Makes its steps one after the other and waits nowhere: each goes on when the server has answered.
class Worker {
 public:
  Worker(mobula::ActorHandle<Server> server, std::size_t number,
         const mobula::Ref<std::vector<double>>& shard)
      : server_(std::move(server)), number_(number), shard_(mobula::get_view(shard)) {}

  void train(mobula::Reply<void> done, long steps) {
    done_ = std::move(done);
    steps_left_ = steps;
    step();
  }

 private:
  void step() {
    if (steps_left_-- == 0) return done_.set();
    mobula::then(server_.call<&Server::weights>(number_),
                 [this](const mobula::Result<Weights>& weights) {
                   if (!weights) return done_.fail(weights.exception());
                   server_.call<&Server::apply>(number_, gradient(shard_, *weights));
                   step();
                 });
  }

  mobula::ActorHandle<Server> server_;
  std::size_t number_;
  mobula::View<double> shard_;  // read where it lies
  long steps_left_ = 0;
  mobula::Reply<void> done_;
};

}  // namespace

int main(int argc, char** argv) {
  long workers = 8;
  long steps = 40;
  long ahead = 2;
  long rows = 10'000;
  long features = 16;
  long seed = 1;
  parse_numbers(argc, argv,
                {{"--workers", &workers, 1, "actors with a part of the data each"},
                 {"--steps", &steps, 1, "of gradient descent that each worker makes"},
                 {"--ahead", &ahead, 0, "steps that a worker may be before the slowest one"},
                 {"--rows", &rows, 1, "samples of the smallest part"},
                 {"--features", &features, 1, "weights of the model"},
                 {"--seed", &seed, 0, "same seed, same data"}});
  const mobula::Session session(argc, argv);

  const Weights truth = true_weights(seed, features);
  const auto test_data = mobula::remote<make_shard>(seed, workers, rows, truth);
  const auto server = mobula::actor<Server>(features, workers, ahead, test_data);
  std::vector<mobula::ActorHandle<Worker>> group;
  std::vector<mobula::Ref<void>> done;
  for (long worker = 0; worker < workers; ++worker) {
    const auto shard = mobula::remote<make_shard>(seed, worker, rows * (1 + worker % 4), truth);
    group.push_back(mobula::actor<Worker>(server, static_cast<std::size_t>(worker), shard));
    done.push_back(group.back().call<&Worker::train>(steps));
  }
  for (const auto& each : done) mobula::get(each);

  const Report report = mobula::get(server.call<&Server::report>());
  for (const Loss& loss : report.losses)
    std::printf("after %4ld updates: loss %.6f\n", loss.updates, loss.value);
  double worst = 0;
  for (std::size_t i = 0; i < truth.size(); ++i)
    worst = std::max(worst, std::abs(report.weights[i] - truth[i]));
  std::printf("the loss of a perfect model is %.4f; the worst weight is %.6f off\n",
              kNoise * kNoise, worst);
  std::printf("workers were at most %ld steps apart; %ld answers had to wait\n", report.apart,
              report.held_back);
}
