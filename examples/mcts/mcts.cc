// Monte Carlo tree search for Connect Four: each node of the tree is a task.
//
// A task that has many games to play deals them out to the positions after each move, as further
// tasks, in four rounds: after each round the worse half of the moves drops out, and the last one,
// half of all games, is for the best move alone. A task that has few games plays them at random. So
// the tree is a recursion of tasks that grows deep where play is good. Deeper tasks have a higher
// priority: a subtree that was begun is finished before the next one is opened, and few tasks are
// open at a time. The first player searches; the second moves at random.
#include <mobula/mobula.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "number_options.h"

namespace {

using namespace std::chrono_literals;

constexpr int kColumns = 7;
constexpr int kRows = 6;

// A column is 7 bits, of which the top one stays empty, so that no line wraps around.
struct Board {
  std::uint64_t mover = 0;  // stones of whose turn it is
  std::uint64_t other = 0;

  bool fits(int column) const { return !((mover | other) >> (column * kColumns + kRows - 1) & 1); }
  Board after(int column) const {
    const std::uint64_t all = mover | other;
    return {other, mover | ((all + (std::uint64_t{1} << (column * kColumns))) & ~all)};
  }
  bool lost() const {  // the one who moved last has four in a row
    for (const int step : {1, kColumns - 1, kColumns, kColumns + 1}) {
      const std::uint64_t pairs = other & (other >> step);
      if (pairs & (pairs >> (2 * step))) return true;
    }
    return false;
  }
  bool full() const { return std::popcount(mover | other) == kColumns * kRows; }
};

// What the games from a position came to, for whose turn it is there: 1 won, 0.5 drawn, 0 lost.
struct Tally {
  double points = 0;
  double games = 0;
  std::vector<double> games_of_move;  // by column; empty where games were played at random
};

double random_game(Board board, std::mt19937& random) {
  for (bool own_turn = true;; own_turn = !own_turn) {
    if (board.lost()) return own_turn ? 0 : 1;
    if (board.full()) return 0.5;
    int column = 0;
    do column = static_cast<int>(random() % kColumns);
    while (!board.fits(column));
    board = board.after(column);
  }
}

constexpr int kFew = 30;  // games that are not worth dealing out

Tally search(const Board& board, int games, unsigned seed, int depth) {
  std::mt19937 random(seed);
  Tally all;
  if (games <= kFew || board.lost() || board.full()) {
    for (int i = 0; i < games; ++i) all.points += random_game(board, random);
    all.games = games;
    return all;
  }
  all.games_of_move.resize(kColumns);
  std::vector<double> points(kColumns);  // ours, after each move
  std::vector<std::size_t> columns;  // the moves that are left in the race
  for (std::size_t column = 0; column < kColumns; ++column)
    if (board.fits(static_cast<int>(column))) columns.push_back(column);

  const auto deeper = mobula::remote<search>.with({.priority = std::min(depth, 100)});
  for (const int part : {8, 8, 4, 2}) {  // half of the games are for the winner
    const int share = std::max(1, games / part / static_cast<int>(columns.size()));
    std::vector<mobula::Ref<Tally>> tallies;
    for (const std::size_t column : columns) {
      const auto its_seed = static_cast<unsigned>(random());
      tallies.push_back(deeper(board.after(static_cast<int>(column)), share, its_seed, depth + 1));
    }
    const std::vector<Tally> results = mobula::get(tallies);  // lends the CPU, or runs one itself
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const double ours = results[i].games - results[i].points;  // what is good there is bad here
      points[columns[i]] += ours;
      all.points += ours;
      all.games_of_move[columns[i]] += results[i].games;
      all.games += results[i].games;
    }
    std::sort(columns.begin(), columns.end(), [&](std::size_t a, std::size_t b) {
      const double worth_of_a = points[a] / all.games_of_move[a];
      const double worth_of_b = points[b] / all.games_of_move[b];
      return worth_of_a != worth_of_b ? worth_of_a > worth_of_b : a < b;
    });
    columns.resize(part == 4 ? 1 : (columns.size() + 1) / 2);
  }
  return all;
}

// The move most played in a search that has its time; else, of one that is small and comes first.
int choose(const Board& board, int games, unsigned seed) {
  const auto small = mobula::remote<search>.with({.priority = 100})(board, kFew + 1, seed, 1);
  const auto large = mobula::remote<search>.with({.deadline = 10s})(board, games, seed, 1);
  mobula::Result<Tally> tally = mobula::try_get(large);
  if (!tally) tally = mobula::try_get(small);  // too late: all of its tasks are cancelled
  const std::vector<double>& played = tally->games_of_move;
  return static_cast<int>(std::max_element(played.begin(), played.end()) - played.begin());
}

void print(const Board& board, bool first_moves) {
  for (int row = kRows - 1; row >= 0; --row) {
    for (int column = 0; column < kColumns; ++column) {
      const int at = column * kColumns + row;
      const bool own = board.mover >> at & 1;
      const bool empty = !((board.mover | board.other) >> at & 1);
      std::printf(" %c", empty ? '.' : own == first_moves ? 'x' : 'o');
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  long games = 5'000;
  long seed = 1;
  parse_numbers(argc, argv,
                {{"--games", &games, kFew + 1, "that are played for each move"},
                 {"--seed", &seed, 0, "same seed, same moves, if the machine is fast enough"}});
  const mobula::Session session(argc, argv);

  std::mt19937 random(static_cast<unsigned>(seed));
  Board board;
  bool first_moves = true;
  for (; !board.lost() && !board.full(); first_moves = !first_moves) {
    int column = static_cast<int>(random() % kColumns);
    if (first_moves) {
      column = choose(board, static_cast<int>(games), static_cast<unsigned>(random()));
    }
    while (!board.fits(column)) column = (column + 1) % kColumns;
    board = board.after(column);
    std::printf("%c plays column %d\n", first_moves ? 'x' : 'o', column + 1);
  }
  print(board, first_moves);
  std::printf("%s\n", !board.lost() ? "a draw" : first_moves ? "o has won" : "x has won");
}
