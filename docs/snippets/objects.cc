#include <mobula/mobula.h>

#include <cstddef>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

// [in_place]
// Read the store in place, whatever the size: no copy is made for the task.
double sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}
std::size_t words(std::string_view text) {
  std::size_t n = text.empty() ? 0 : 1;
  for (const char c : text) n += c == ' ';
  return n;
}
// [/in_place]

std::size_t bytes_set(std::span<const std::byte> bytes) {
  std::size_t n = 0;
  for (const std::byte b : bytes) n += b != std::byte{0};
  return n;
}

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [put]
  const mobula::Ref<std::vector<double>> table = mobula::put(std::vector<double>(1'000'000, 0.5));
  std::vector<mobula::Ref<double>> sums;
  for (int i = 0; i < 4; ++i) sums.push_back(mobula::remote<sum>(table));  // one object for all
  // [/put]
  for (const double s : mobula::get(sums)) {
    if (s != 500'000) return 1;
  }
  // [view]
  const mobula::View<double> view = mobula::get_view(table);  // read-only, pins while it lives
  const double first = view[0];
  // [/view]
  // [buffer]
  mobula::Buffer buffer = mobula::create_buffer(1 << 20);  // bytes of the store itself
  for (std::size_t i = 0; i < buffer.size(); i += 2) buffer.data()[i] = std::byte{1};
  const mobula::Ref<mobula::Buffer> bytes = buffer.seal();  // an object from now on, and no copy
  // [/buffer]
  const bool half = mobula::get(mobula::remote<bytes_set>(bytes)) == (1 << 19);
  const bool three = mobula::get(mobula::remote<words>("one two three")) == 3;
  return first == 0.5 && half && three && mobula::get_view(bytes).size() == 1 << 20 ? 0 : 1;
}
