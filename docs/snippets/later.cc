#include <mobula/mobula.h>

#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

int price_of(const std::string& item) { return static_cast<int>(item.size()) * 10; }

// [mailbox]
class Mailbox {
 public:
  void receive(mobula::Reply<std::string> reply) { waiting_.push_back(std::move(reply)); }
  void send(const std::string& text) {
    for (mobula::Reply<std::string>& reply : waiting_) reply.set(text);
    waiting_.clear();
  }

 private:
  std::vector<mobula::Reply<std::string>> waiting_;
};
// [/mailbox]

// [then]
class Shop {
 public:
  void order(mobula::Reply<int> reply, const std::string& item) {
    mobula::then(mobula::remote<price_of>(item),
                 [this, reply = std::move(reply)](const mobula::Result<int>& price) mutable {
                   if (!price) return reply.fail(price.exception());
                   sold_ += *price;  // between two calls, on the actor's thread: no lock
                   reply.set(sold_);
                 });
  }
  int sold() const { return sold_; }  // answered while orders are open

 private:
  int sold_ = 0;
};
// [/then]

// [index]
class Index {
 public:
  std::size_t add(const std::string& word) {
    const std::lock_guard lock(mutex_);
    words_.push_back(word);
    return words_.size();
  }
  std::size_t size() {
    const std::lock_guard lock(mutex_);
    return words_.size();
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> words_;
};
// [/index]

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  // [receive]
  const auto mailbox = mobula::actor<Mailbox>();
  const mobula::Ref<std::string> mail = mailbox.call<&Mailbox::receive>();  // its result is text
  mailbox.call<&Mailbox::send>("hello");
  const std::string text = mobula::get(mail);
  // [/receive]
  const auto shop = mobula::actor<Shop>();
  const int sold = mobula::get(shop.call<&Shop::order>("lamp"));
  // [threads]
  const auto index =
      mobula::actor<Index>.with({.max_concurrency = 4, .concurrency_groups = {{"status", 1}}})();
  for (int i = 0; i < 100; ++i) index.call<&Index::add>("word");  // four at a time
  const auto status = index.with({.concurrency_group = "status"});
  const std::size_t so_far = mobula::get(status.call<&Index::size>());  // waits for none of them
  // [/threads]
  std::printf("%s, sold for %d\n", text.c_str(), sold);
  return text == "hello" && sold == 40 && so_far <= 100 ? 0 : 1;
}
