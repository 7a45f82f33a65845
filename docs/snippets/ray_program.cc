// [program]
#include <ray/api.h>

#include <iostream>

int plus(int x, int y) { return x + y; }

class Stock {
 public:
  explicit Stock(int count) : count_(count) {}
  static Stock* Create(int count) { return new Stock(count); }
  int Add(int n) { return count_ += n; }

 private:
  int count_;
};

RAY_REMOTE(plus, Stock::Create, &Stock::Add)

int main(int argc, char** argv) {
  ray::RayConfig config;
  ray::Init(config, argc, argv);
  ray::ObjectRef<int> three = ray::Task(plus).Remote(1, 2);
  ray::ActorHandle<Stock> stock = ray::Actor(Stock::Create).SetMaxRestarts(1).Remote(10);
  const int total = *stock.Task(&Stock::Add).Remote(three).Get();
  std::cout << total << '\n';  // 13
  ray::Shutdown();
  return total == 13 ? 0 : 1;
}
// [/program]
