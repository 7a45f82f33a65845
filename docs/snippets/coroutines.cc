#include <mobula/coroutine.h>
#include <mobula/mobula.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

using namespace std::chrono_literals;

std::string fetch(const std::string& page) { return "text of " + page; }

// [crawler]
class Crawler {
 public:
  mobula::Async<int> letters(std::vector<std::string> pages) {
    std::vector<mobula::Ref<std::string>> texts;
    for (const std::string& page : pages) texts.push_back(mobula::remote<fetch>(page));
    const std::size_t first = co_await mobula::when_any(texts);  // other calls run meanwhile
    std::printf("%s came first\n", pages[first].c_str());
    int letters = 0;
    for (const std::string& text : co_await mobula::when_all(texts))
      letters += static_cast<int>(text.size());
    co_await pause();  // another coroutine
    total_ += letters;
    co_return letters;
  }
  int total() const { return total_; }

 private:
  mobula::Async<void> pause() { co_await mobula::sleep_for(5ms); }
  int total_ = 0;
};
// [/crawler]

// [stream]
mobula::Stream<int> squares(int n) {
  for (int i = 0; i < n; ++i) {
    const int square = i * i;
    co_yield square;  // waits for room as push does
  }
}
// [/stream]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [crawl]
  const auto crawler = mobula::actor<Crawler>();
  const std::vector<std::string> pages{"/", "/a", "/b"};
  const mobula::Ref<int> letters = crawler.call<&Crawler::letters>(pages);  // its result is an int
  const int sum = mobula::get(letters);
  // [/crawl]
  mobula::StreamRef<int> stream = mobula::remote<squares>(4);
  int squared = 0;
  for (const int item : stream) squared += item;
  return sum == 29 && mobula::get(crawler.call<&Crawler::total>()) == 29 && squared == 14 ? 0 : 1;
}
