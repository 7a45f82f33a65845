// A tree of actors that mends itself.
//
// Each node is an actor that makes its children, asks them for the sums of their subtrees, and
// answers when all have answered: Reply and then, so no process waits while a sum is on its way up.
// Each node also supervises its children: when one dies, it makes another in its place, which
// makes its own children in turn. (Those of the dead one have lost their last handle, and end.)
// A sum that was asked for in the meantime is late, and right.
#include <mobula/mobula.h>

#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "number_options.h"

namespace {

struct Sum {
  long numbers = 0;  // of all nodes of the subtree
  int nodes = 0;
  int replaced = 0;
};

// Nodes are numbered level by level, 0 is the root; a node's value is its number.
class Node {
 public:
  Node(long number, long size, long width) : number_(number), size_(size), width_(width) {
    for (long i = number * width + 1; i <= number * width + width && i < size; ++i) {
      children_.push_back({i, mobula::actor<Node>(i, size, width)});
      watch(children_.size() - 1);
    }
  }

  void sum(mobula::Reply<Sum> reply) {
    const auto round =
        std::make_shared<Round>(Round{std::move(reply), {number_, 1, replaced_}, children_.size()});
    for (std::size_t i = 0; i < children_.size(); ++i) ask(i, round);
    if (children_.empty()) round->reply.set(round->sum);
  }

  // Goes down the tree to the node of that number, which dies.
  void die(long number) {
    if (number == number_) ::kill(::getpid(), SIGKILL);
    long next = number;  // the child of ours that is above it
    while ((next - 1) / width_ != number_) next = (next - 1) / width_;
    for (const Child& child : children_)
      if (child.number == next) child.node.call<&Node::die>(number);
  }

 private:
  struct Child {
    long number;
    mobula::ActorHandle<Node> node;
    int life = 0;  // how many were here before
  };
  struct Round {  // one sum that is asked for
    mobula::Reply<Sum> reply;
    Sum sum;
    std::size_t open;  // children that have not answered
  };

  // What is given to then runs on this actor's thread, between two calls: none of it needs a lock.
  void ask(std::size_t i, const std::shared_ptr<Round>& round) {
    mobula::then(children_[i].node.call<&Node::sum>(),
                 [this, i, round, life = children_[i].life](const mobula::Result<Sum>& sum) {
                   if (!sum) {  // the child is dead: ask the one that comes after it
                     replace(i, life);
                     return ask(i, round);
                   }
                   round->sum.numbers += sum->numbers;
                   round->sum.nodes += sum->nodes;
                   round->sum.replaced += sum->replaced;
                   if (--round->open == 0) round->reply.set(round->sum);
                 });
  }

  void watch(std::size_t i) {
    mobula::then(
        mobula::monitor(children_[i].node),
        [this, i, life = children_[i].life](const mobula::Result<mobula::ActorDeath>& death) {
          std::printf("node %ld is dead: %s\n", children_[i].number,
                      death ? death->text().c_str() : "");
          std::fflush(stdout);
          replace(i, life);
        });
  }

  // The end of a child is heard of twice if it was asked for a sum, and replaced once.
  void replace(std::size_t i, int life) {
    Child& child = children_[i];
    if (child.life != life) return;
    child.node = mobula::actor<Node>(child.number, size_, width_);
    ++child.life;
    ++replaced_;
    watch(i);
  }

  long number_;
  long size_;
  long width_;
  std::vector<Child> children_;
  int replaced_ = 0;
};

void print(const Sum& sum) {
  std::printf("%d nodes, sum %ld, %d replaced\n", sum.nodes, sum.numbers, sum.replaced);
}

}  // namespace

int main(int argc, char** argv) {
  long size = 13;
  long width = 3;
  long victim = 1;
  parse_numbers(argc, argv,
                {{"--size", &size, 2, "nodes of the tree, a process each"},
                 {"--width", &width, 1, "children of a node"},
                 {"--victim", &victim, 1, "the node that dies"}});
  if (victim >= size) victim = size - 1;
  const mobula::Session session(argc, argv);

  const auto root = mobula::actor<Node>(0L, size, width);
  print(mobula::get(root.call<&Node::sum>()));

  mobula::get(root.call<&Node::die>(victim));
  Sum sum;
  do {  // it dies some time after die has returned here
    sum = mobula::get(root.call<&Node::sum>());
  } while (sum.replaced == 0);
  print(sum);
}
