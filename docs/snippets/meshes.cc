#include <mobula/mobula.h>

#include <cstddef>
#include <vector>

// [block]
class Block {
 public:
  Block(int number, double heat) : number_(number), heat_(heat) {}
  double step(const std::vector<double>& sources) {
    return heat_ += sources[static_cast<std::size_t>(number_)];
  }
  double exchange(double neighbour) { return heat_ = (heat_ + neighbour) / 2; }

 private:
  int number_;
  double heat_;
};

double plus(double a, double b) { return a + b; }
// [/block]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [mesh]
  const std::vector<int> numbers{0, 1, 2, 3};
  const auto blocks = mobula::mesh<Block>(4, mobula::each(numbers), 20.0);  // 4 actors
  // [/mesh]
  // [call]
  const std::vector<double> sources{1, 2, 3, 4};
  const mobula::MeshRef<double> heats = blocks.call<&Block::step>(sources);  // a call of each
  const std::vector<double> all = mobula::get(heats);  // {21, 22, 23, 24}
  const double sum = mobula::get(mobula::reduce<plus>(heats));  // 90, by a tree of tasks
  // [/call]
  // [slice]
  const auto left = blocks.slice(0, 2);
  const auto right = blocks.slice(2, 4);
  const auto mixed = left.call<&Block::exchange>(mobula::each(heats.slice(2, 4)));
  // [/slice]
  // [errors]
  std::size_t failed = 0;
  for (const mobula::Result<double>& each : mobula::try_get(mixed)) failed += !each.has_value();
  // [/errors]
  const bool right_values = mobula::get(mixed) == std::vector<double>{22, 23};
  // [replace]
  std::vector<mobula::ActorHandle<Block>> members = blocks.members();
  mobula::kill(members[2]);
  members[2] = mobula::actor<Block>(2, 20.0);
  const mobula::MeshHandle<Block> mended(members);
  // [/replace]
  const std::vector<double> after = mobula::get(mended.call<&Block::step>(sources));
  return all == std::vector<double>{21, 22, 23, 24} && sum == 90 && right.size() == 2 &&
                 failed == 0 && right_values && after == std::vector<double>{23, 25, 23, 28}
             ? 0
             : 1;
}
