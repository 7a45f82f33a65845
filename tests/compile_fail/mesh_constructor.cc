// The members' class has no such constructor; what is dealt counts as what one member gets.
// expect: the actor's class has no constructor that takes these arguments
// names: CheckConstructor<false, Counter, Sensor, bool>
#include <mobula/mobula.h>

#include <vector>

struct Sensor {
  int port;
};
struct Counter {
  explicit Counter(int start) : n(start) {}
  int n;
};
void call(const std::vector<Sensor>& sensors) {
  mobula::mesh<Counter>(sensors.size(), mobula::each(sensors), true);
}
