// A day of a fleet of delivery vans.
//
// Each van is an actor that drives a shift and sends readings as a stream; a watcher, a task for
// each van, reads them, counts, warns, and files what it has seen with the dispatcher, whom it
// knows by name. Vans wear out and die on the road, with a crash of their process: the driver of
// the program, which supervises them, then buys new ones. The dispatcher's process is killed, too,
// and loses nothing. The report at the end is the same for the same seed, whatever crashed when.
#include <mobula/mobula.h>

#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "number_options.h"

namespace {

using namespace std::chrono_literals;

// ---- The town and its routes --------------------------------------------------------------------

struct Place {
  double x = 0;
  double y = 0;
};

std::vector<Place> make_town(long customers, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> km(0, 10);
  std::vector<Place> places(static_cast<std::size_t>(customers));
  for (Place& place : places) place = {km(random), km(random)};
  return places;
}

double distance(const Place& a, const Place& b) { return std::hypot(a.x - b.x, a.y - b.y); }

double length_of(std::span<const Place> tour) {
  double length = distance(tour.back(), tour.front());
  for (std::size_t i = 1; i < tour.size(); ++i) length += distance(tour[i - 1], tour[i]);
  return length;
}

// The best tour of all. 9 places take a moment, 15 take days: it ends when nobody waits any more.
double shortest_tour(std::span<const Place> places) {
  std::vector<std::size_t> order(places.size());
  std::iota(order.begin(), order.end(), 0);
  const mobula::TaskInfo me = mobula::this_task();
  double shortest = length_of(places);
  for (long tried = 0; std::next_permutation(order.begin() + 1, order.end()); ++tried) {
    if (tried % 4096 == 0 && me.should_cancel()) break;
    std::vector<Place> tour;
    for (const std::size_t i : order) tour.push_back(places[i]);
    shortest = std::min(shortest, length_of(tour));
  }
  return shortest;
}

// A tour that always goes to the nearest place next.
double quick_tour(std::span<const Place> places) {
  std::vector<Place> tour(places.begin(), places.end());
  for (auto at = tour.begin(); at + 1 < tour.end(); ++at) {
    std::iter_swap(at + 1,
                   std::min_element(at + 1, tour.end(), [&](const Place& a, const Place& b) {
                     return distance(*at, a) < distance(*at, b);
                   }));
  }
  return length_of(tour);
}

// ---- Vans ---------------------------------------------------------------------------------------

struct Reading {
  double km = 0;  // since the last one
  double temperature = 0;
  int delivered = 0;
};

class Van {
 public:
  explicit Van(unsigned seed) : random_(seed), parcels_(40 + static_cast<int>(random_() % 20)) {}

  int room() const { return parcels_; }

  // Drives a tour, a reading at each of its stops. A worn van does not come back.
  void drive(mobula::Sink<Reading>& out, double tour, int stops) {
    std::uniform_real_distribution<double> unit;
    for (int stop = 0; stop < stops; ++stop) {
      wear_ += 0.02 * unit(random_);
      if (wear_ > 1) ::kill(::getpid(), SIGKILL);
      const double temperature = 70 + 20 * wear_ + 10 * unit(random_);
      out.push({tour / stops, temperature, static_cast<int>(random_() % 3)});
    }
  }

 private:
  std::mt19937 random_;
  int parcels_;
  double wear_ = 0;
};

int plus(int a, int b) { return a + b; }

// ---- The dispatcher -----------------------------------------------------------------------------

struct Shift {
  long number = 0;
  int van = 0;
  int readings = 0;
  double km = 0;
  int delivered = 0;
  int alarms = 0;
  bool broke_down = false;
};

// Its state outlives its process: it is an aggregate, so it is saved as it is, and its methods do
// the same when they are run again.
struct Dispatcher {
  std::map<std::pair<long, int>, Shift> shifts = {};  // filed twice is filed once

  void file(const Shift& shift) { shifts[{shift.number, shift.van}] = shift; }
  std::vector<Shift> all() const {
    std::vector<Shift> result;
    for (const auto& [key, shift] : shifts) result.push_back(shift);
    return result;
  }
  int process() const { return ::getpid(); }
};

// ---- Watchers -----------------------------------------------------------------------------------

const mobula::Counter readings_total("fleet_readings_total", "that watchers have seen");
const mobula::Histogram temperatures("fleet_temperature", "of the motors", {80, 90, 95});

Shift watch(mobula::StreamRef<Reading> readings, long number, int van, int stops) {
  const mobula::Progress progress = mobula::progress(stops, "shift " + std::to_string(number));
  Shift shift{.number = number, .van = van};
  try {
    while (const std::optional<Reading> reading = readings.next()) {
      ++shift.readings;
      shift.km += reading->km;
      shift.delivered += reading->delivered;
      if (reading->temperature > 95) ++shift.alarms;
      readings_total.add();
      temperatures.observe(reading->temperature);
      progress.add();
    }
  } catch (const mobula::ActorDiedError&) {  // thrown after all that it had sent
    shift.broke_down = true;
    mobula::log(mobula::LogLevel::Warning, "a van broke down",
                {{"van", van}, {"shift", number}, {"readings", shift.readings}});
  }
  mobula::get(mobula::get_actor<Dispatcher>("dispatcher").call<&Dispatcher::file>(shift));
  return shift;
}

// ---- A parcel that is lost ----------------------------------------------------------------------

// Looks through a depot's shelves again and again, until the parcel is there or the search is off.
int search_depot(int depot, int where_it_is) {
  const mobula::TaskInfo me = mobula::this_task();
  while (!me.should_cancel()) {
    if (depot == where_it_is) return depot;
    std::this_thread::sleep_for(1ms);
  }
  return -1;  // nobody sees this
}

int find_parcel(int depots, int where_it_is) {
  std::vector<mobula::Ref<int>> searches;
  for (int depot = 0; depot < depots; ++depot) {  // they mostly sleep, and so hold no CPU
    searches.push_back(mobula::remote<search_depot>.with({.num_cpus = 0})(depot, where_it_is));
  }
  const auto [found, others] = mobula::wait(searches);
  for (const mobula::Ref<int>& other : others) mobula::cancel(other);
  return mobula::get(found[0]);
}

// ---- The fleet ----------------------------------------------------------------------------------

class Fleet {
 public:
  Fleet(long size, unsigned seed) : seed_(seed) {
    std::vector<unsigned> seeds;
    for (long i = 0; i < size; ++i) seeds.push_back(next_seed());
    const auto vans = mobula::mesh<Van>(seeds.size(), mobula::each(seeds));
    std::printf("%ld vans have room for %d parcels\n", size,
                mobula::get(mobula::reduce<plus>(vans.call<&Van::room>())));
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      vans_.push_back(vans.member(i));
      ends_.push_back(mobula::monitor(vans_[i]));
    }
  }

  // All vans drive; returns when all shifts are filed.
  void drive(long number, double tour, int stops) {
    std::vector<mobula::Ref<Shift>> watchers;
    for (std::size_t van = 0; van < vans_.size(); ++van) {
      const auto readings = vans_[van].with({.max_unread = 16}).call<&Van::drive>(tour, stops);
      watchers.push_back(mobula::remote<watch>.with({.deadline = 60s})(
          readings, number, static_cast<int>(van), stops));
    }
    for (const Shift& shift : mobula::get(watchers)) {
      if (shift.broke_down) replace(static_cast<std::size_t>(shift.van));
    }
  }

  int bought() const { return bought_; }

 private:
  void replace(std::size_t van) {
    const mobula::ActorDeath death = mobula::get(ends_[van]);
    std::fprintf(stderr, "van %zu: %s\n", van, death.text().c_str());
    vans_[van] = mobula::actor<Van>(next_seed());
    ends_[van] = mobula::monitor(vans_[van]);
    ++bought_;
  }
  unsigned next_seed() { return 1000 * seed_ + made_++; }

  unsigned seed_;
  unsigned made_ = 0;
  int bought_ = 0;
  std::vector<mobula::ActorHandle<Van>> vans_;
  std::vector<mobula::Ref<mobula::ActorDeath>> ends_;
};

// The length of the best tour that can be found in the time.
double plan(const mobula::Ref<std::vector<Place>>& town, std::chrono::milliseconds time) {
  const auto best = mobula::remote<shortest_tour>.with({.deadline = time})(town);
  const auto quick = mobula::remote<quick_tour>.with({.priority = 10})(town);
  try {
    return mobula::get(best);
  } catch (const mobula::DeadlineExceededError&) {
    return mobula::get(quick);
  }
}

void report(const std::vector<Shift>& shifts) {
  for (const Shift& shift : shifts) {
    std::printf("report: shift %ld, van %d: %3d readings, %6.1f km, %3d parcels, %2d alarms%s\n",
                shift.number, shift.van, shift.readings, shift.km, shift.delivered, shift.alarms,
                shift.broke_down ? ", broke down" : "");
  }
  for (const mobula::MetricSample& sample : mobula::metrics()) {
    if (sample.name == "fleet_readings_total")
      std::printf("report: %.0f readings were seen\n", sample.value);
  }
}

}  // namespace

int main(int argc, char** argv) {
  long vans = 4;
  long shifts = 3;
  long stops = 50;
  long customers = 16;
  long seed = 1;
  parse_numbers(argc, argv,
                {{"--vans", &vans, 1, "actors, a process each"},
                 {"--shifts", &shifts, 1, "of each van"},
                 {"--stops", &stops, 1, "readings in a shift"},
                 {"--customers", &customers, 2, "places of a tour; above 11 it is not the best"},
                 {"--seed", &seed, 0, "same seed, same report"}});
  const mobula::Session session(argc, argv, {.num_cpus = 4, .log_level = "warning"});

  const auto town = mobula::put(make_town(customers, static_cast<unsigned>(seed)));
  const double tour = plan(town, 200ms);
  std::printf("the tour is %.1f km long\n", tour);

  const auto dispatcher = mobula::actor<Dispatcher>.with({.name = "dispatcher",
                                                          .max_restarts = -1,
                                                          .recovery = mobula::Recovery::Replay,
                                                          .checkpoint_every = 5})();
  Fleet fleet(vans, static_cast<unsigned>(seed));
  for (long shift = 1; shift <= shifts; ++shift) {
    fleet.drive(shift, tour, static_cast<int>(stops));
    ::kill(mobula::get(dispatcher.call<&Dispatcher::process>()), SIGKILL);  // and nothing is lost
  }
  std::printf("the lost parcel is in depot %d\n", find_parcel(3, static_cast<int>(seed % 3)));

  report(mobula::get(dispatcher.call<&Dispatcher::all>()));
  std::printf("report: %d vans were bought\n", fleet.bought());
}
