// The control: what is nearly the same as the files beside it, and right.
#include <mobula/mobula.h>

#include <chrono>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

int square(int x) { return x * x; }
struct Counter {
  explicit Counter(int start) : n(start) {}
  int add(int k) { return n += k; }
  void later(mobula::Reply<int> reply, int k) { reply.set(n + k); }
  int n;
};

// Options are aggregates, and their fields are in this order.
const mobula::TaskOptions task_options{.num_cpus = 1,
                                       .num_gpus = 0,
                                       .memory = 1 << 20,
                                       .resources = {{"lamp", 1}},
                                       .max_retries = 3,
                                       .retry_exceptions = false,
                                       .name = "task",
                                       .scheduling = mobula::SpreadScheduling{},
                                       .runtime_env = {.env_vars = {}, .working_dir = {}},
                                       .priority = 0};
const mobula::ActorOptions actor_options{.name = "actor",
                                         .namespace_ = "default",
                                         .lifetime = mobula::Lifetime::NonDetached,
                                         .max_restarts = 0,
                                         .max_task_retries = 0,
                                         .recovery = mobula::Recovery::None,
                                         .max_concurrency = 1,
                                         .concurrency_groups = {},
                                         .num_cpus = 1,
                                         .num_gpus = 0,
                                         .memory = 1 << 20,
                                         .resources = {{"lamp", 1}},
                                         .get_if_exists = false,
                                         .max_pending_calls = -1,
                                         .scheduling = mobula::NodeLabel{}};
const mobula::Config config{.address = {},
                            .num_cpus = 1,
                            .num_gpus = 0,
                            .resources = {},
                            .object_store_memory = 16 << 20,
                            .namespace_ = {},
                            .spill_directory = {},
                            .log_to_driver = true};
const mobula::WaitOptions wait_options{
    .num_returns = 1, .timeout = std::chrono::seconds(1), .fetch_local = true};
const mobula::CancelOptions cancel_options{.force = false, .recursive = true};
const mobula::KillOptions kill_options{.no_restart = true};

// A function of the program's own is not hidden by what get() says of things that are no refs.
int get(std::string_view text) { return static_cast<int>(text.size()); }
struct RefsOfMine {
  operator std::vector<mobula::Ref<void>>() const { return {}; }
};
struct RefOfMine : mobula::Ref<int> {};
void gets(const mobula::Ref<int>& ref, const mobula::MeshRef<int>& results) {
  using namespace mobula;
  using std::chrono::milliseconds;
  std::tuple<int, std::string> both;
  int sum = get(ref) + get(ref, milliseconds(1)) + get<int>(ref) + get("seven") + get<0>(both);
  std::vector<int> all = get(std::vector{ref, ref});
  all = get(results);
  all = get(results, milliseconds(1));
  sum += get(RefOfMine());
  get(Ref<void>());
  get(std::vector<Ref<void>>());
  get(RefsOfMine());
  static_cast<void>(sum);
}

void call(const mobula::Ref<int>& ref, const mobula::Ref<mobula::Buffer>& buffer) {
  mobula::remote<square>(7);
  mobula::remote<square>(ref);
  mobula::remote<square>.with({.num_cpus = 1})(7);
  mobula::actor<Counter>(1).call<&Counter::add>(ref);
  mobula::Ref<int> answer = mobula::actor<Counter>(1).call<&Counter::later>(ref);
  mobula::then(answer, [](mobula::Result<int> result) { static_cast<void>(result); });
  mobula::get_view(buffer);
  gets(ref, {});
  mobula::put(7);
}
