#include <mobula/mobula.h>

// [export]
double area(double width, double height) { return width * height; }

class Account {
 public:
  explicit Account(int start) : balance_(start) {}
  int deposit(int amount) { return balance_ += amount; }

 private:
  int balance_;
};

MOBULA_EXPORT(area, &Account::deposit);
MOBULA_EXPORT_ACTOR(Account, int);  // made from an int
// [/export]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [call]
  const auto remote_area = mobula::remote_by_name<double(double, double)>("area");
  const mobula::Ref<double> four = remote_area(2.0, 2.0);
  const mobula::Ref<double> eight = remote_area.with({.max_retries = 0})(four, 2.0);

  const mobula::AnyActor account = mobula::actor_by_name<void(int)>("Account")(10);
  const mobula::Ref<int> balance = account.call<int(int)>("Account::deposit", 5);
  // [/call]
  return mobula::get(eight) == 8 && mobula::get(balance) == 15 ? 0 : 1;
}
