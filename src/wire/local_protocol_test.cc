#include "wire/local_protocol.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mobula::wire {
namespace {

constexpr std::size_t kFixedBytes = offsetof(Message, text);

class Pair {
 public:
  Pair() { REQUIRE(make_pair(ends_)); }
  ~Pair() {
    for (const int end : ends_) {
      if (end >= 0) ::close(end);
    }
  }
  int ours() const { return ends_[0]; }
  int theirs() const { return ends_[1]; }
  void close_theirs() {
    ::close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  int ends_[2] = {-1, -1};
};

std::unique_ptr<Message> message_of(Kind kind, std::string_view text = {}) {
  auto message = std::make_unique<Message>();
  message->kind = kind;
  message->set_text(text);
  return message;
}

int open_descriptors() {
  int n = 0;
  for (int fd = 0; fd < 1024; ++fd) n += ::fcntl(fd, F_GETFD) >= 0;
  return n;
}

// The same file, however it is opened.
bool same_file(int a, int b) {
  struct stat first;
  struct stat second;
  return ::fstat(a, &first) == 0 && ::fstat(b, &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

TEST_CASE("a message arrives as it was sent, with every field and its text") {
  Pair pair;
  auto sent = message_of(Kind::LeaseExtent, std::string("a\0b", 3));
  sent->status = Status::StoreFull;
  sent->a = 1;
  sent->b = 0xffffffff;
  sent->c = ~std::uint64_t{0};
  sent->d = 4;

  CHECK(send(pair.ours(), *sent));
  Message got;
  REQUIRE(receive(pair.theirs(), got) == Received::Message);
  CHECK(got.kind == Kind::LeaseExtent);
  CHECK(got.status == Status::StoreFull);
  CHECK(got.a == 1);
  CHECK(got.b == 0xffffffff);
  CHECK(got.c == ~std::uint64_t{0});
  CHECK(got.d == 4);
  CHECK(got.text_view() == std::string_view("a\0b", 3));
  CHECK(got.descriptor_count == 0);
}

TEST_CASE("messages keep their bounds and their order") {
  Pair pair;
  for (std::uint32_t i = 0; i < 20; ++i) {
    auto message = message_of(Kind::Reply, std::string(i * 100, 'x'));
    message->a = i;
    REQUIRE(send(pair.ours(), *message));
  }

  for (std::uint32_t i = 0; i < 20; ++i) {
    Message got;
    REQUIRE(receive(pair.theirs(), got) == Received::Message);
    CHECK(got.a == i);
    CHECK(got.text_size == i * 100);
  }
}

TEST_CASE("a text is cut at its limit, and one of exactly the limit is not") {
  Pair pair;
  for (const std::size_t size :
       {std::size_t{0}, kTextMax - 1, kTextMax, kTextMax + 1, kTextMax * 10}) {
    CAPTURE(size);
    const std::string text(size, 't');
    auto message = message_of(Kind::Explain, text);
    CHECK(message->text_size == std::min(size, kTextMax));

    REQUIRE(send(pair.ours(), *message));
    Message got;
    REQUIRE(receive(pair.theirs(), got) == Received::Message);
    CHECK(got.text_view() == text.substr(0, kTextMax));
  }
}

TEST_CASE(
    "descriptors arrive as open files of the receiver, closed by exec, and stay open at the "
    "sender") {
  Pair pair;
  for (std::uint32_t count = 0; count <= kDescriptorsMax; ++count) {
    CAPTURE(count);
    auto message = message_of(Kind::Welcome, "w");
    message->descriptor_count = count;
    for (std::uint32_t i = 0; i < count; ++i) message->descriptors[i] = ::memfd_create("given", 0);

    REQUIRE(send(pair.ours(), *message));
    Message got;
    REQUIRE(receive(pair.theirs(), got) == Received::Message);
    REQUIRE(got.descriptor_count == count);
    for (std::uint32_t i = 0; i < count; ++i) {
      CHECK(got.descriptors[i] != message->descriptors[i]);
      CHECK(same_file(got.descriptors[i], message->descriptors[i]));
      CHECK((::fcntl(got.descriptors[i], F_GETFD) & FD_CLOEXEC) != 0);
      ::close(got.descriptors[i]);
      ::close(message->descriptors[i]);
    }
  }
}

TEST_CASE("a descriptor passes to another process, which writes into the file it stands for") {
  Pair pair;
  const int file = ::memfd_create("given", 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(60);
    ::close(file);
    Message got;
    if (receive(pair.theirs(), got) != Received::Message || got.descriptor_count != 1) ::_exit(1);
    if (::write(got.descriptors[0], "written", 7) != 7) ::_exit(2);
    ::_exit(send(pair.theirs(), *message_of(Kind::Reply, "done")) ? 0 : 3);
  }
  auto message = message_of(Kind::Fork);
  message->descriptor_count = 1;
  message->descriptors[0] = file;
  REQUIRE(send(pair.ours(), *message));

  Message reply;
  CHECK(receive(pair.ours(), reply) == Received::Message);
  CHECK(reply.text_view() == "done");
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  char bytes[8] = {};
  CHECK(::pread(file, bytes, 7, 0) == 7);
  CHECK(std::string_view(bytes) == "written");
  ::close(file);
}

TEST_CASE("malformed bytes count as a closed connection, and leave no descriptor open") {
  struct Row {
    std::string_view name;
    std::size_t bytes;       // sent of a message with a text of 100
    std::uint32_t text_size;
    std::uint32_t announced;  // descriptors
    std::uint32_t sent;
    Received received;
  };
  constexpr std::size_t kWhole = kFixedBytes + 100;
  for (const Row& row :
       {Row{"well-formed", kWhole, 100, 0, 0, Received::Message},
        Row{"well-formed with descriptors", kWhole, 100, 2, 2, Received::Message},
        Row{"nothing", 0, 100, 0, 0, Received::Closed},
        Row{"one byte", 1, 0, 0, 0, Received::Closed},
        Row{"a cut header", kFixedBytes - 1, 0, 0, 0, Received::Closed},
        Row{"a cut header with a descriptor", kFixedBytes - 4, 0, 1, 1, Received::Closed},
        Row{"a text shorter than announced", kWhole - 1, 100, 0, 0, Received::Closed},
        Row{"a text longer than announced", kWhole, 99, 0, 0, Received::Closed},
        Row{"a text size beyond the limit", kWhole, kTextMax + 1, 0, 0, Received::Closed},
        Row{"a text size that wraps", kWhole, 0xffffffff, 0, 0, Received::Closed},
        Row{"fewer descriptors than announced", kWhole, 100, 2, 1, Received::Closed},
        Row{"more descriptors than announced", kWhole, 100, 1, 2, Received::Closed},
        Row{"descriptors without announcement", kWhole, 100, 0, 3, Received::Closed},
        Row{"an announcement without descriptors", kWhole, 100, 4, 0, Received::Closed},
        Row{"more descriptors than a message holds", kWhole, 100, 9, 9, Received::Closed}}) {
    CAPTURE(row.name);
    Pair pair;
    const int file = ::memfd_create("given", 0);
    std::vector<char> bytes(kFixedBytes + kTextMax + 100, 'x');
    Message message;
    message.kind = Kind::Reply;
    message.text_size = row.text_size;
    message.descriptor_count = row.announced;
    std::memcpy(bytes.data(), &message, kFixedBytes);
    iovec part{bytes.data(), row.bytes};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 16)] = {};
    if (row.sent > 0) {
      header.msg_control = control;
      header.msg_controllen = CMSG_SPACE(sizeof(int) * row.sent);
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int) * row.sent);
      for (std::uint32_t i = 0; i < row.sent; ++i)
        std::memcpy(CMSG_DATA(rights) + i * sizeof(int), &file, sizeof file);
    }
    REQUIRE(::sendmsg(pair.ours(), &header, 0) == static_cast<ssize_t>(row.bytes));
    const int before = open_descriptors();

    Message got;
    CHECK(receive(pair.theirs(), got) == row.received);

    CHECK(open_descriptors() ==
          before + (row.received == Received::Message ? static_cast<int>(row.sent) : 0));
    if (row.received == Received::Message) {
      for (std::uint32_t i = 0; i < row.sent; ++i) ::close(got.descriptors[i]);
    }
    ::close(file);
  }
}

TEST_CASE("bytes beyond the longest message are not read into it") {
  Pair pair;
  std::vector<char> bytes(sizeof(Message) + 5000, 'x');
  Message message;
  message.text_size = kTextMax;
  std::memcpy(bytes.data(), &message, kFixedBytes);
  REQUIRE(::send(pair.ours(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));

  struct {
    Message message;
    char guard[16] = "guarded";
  } got;
  for (int& descriptor : got.message.descriptors) descriptor = 77;
  CHECK(receive(pair.theirs(), got.message) == Received::Closed);
  CHECK(std::string_view(got.guard) == "guarded");
  for (const int descriptor : got.message.descriptors) CHECK(descriptor == 77);
}

TEST_CASE("a closed peer is noticed by sender and receiver, without a signal") {
  Pair pair;
  REQUIRE(send(pair.theirs(), *message_of(Kind::Leave)));
  pair.close_theirs();

  Message got;
  CHECK(receive(pair.ours(), got) == Received::Message);  // what was sent before is still there
  CHECK(receive(pair.ours(), got) == Received::Closed);
  CHECK_FALSE(send(pair.ours(), *message_of(Kind::Reply)));
  CHECK(receive(-1, got) == Received::Closed);
  CHECK_FALSE(send(-1, *message_of(Kind::Reply)));
}

TEST_CASE("a peer that is killed counts as closed") {
  Pair pair;
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(60);
    for (;;) ::pause();
  }
  pair.close_theirs();
  ::kill(child, SIGKILL);

  Message got;
  CHECK(receive(pair.ours(), got) == Received::Closed);
  CHECK(::waitpid(child, nullptr, 0) == child);
}

TEST_CASE("a socket that does not block says that nothing is there, or that nothing more fits") {
  Pair pair;
  for (const int end : {pair.ours(), pair.theirs()})
    REQUIRE(::fcntl(end, F_SETFL, O_NONBLOCK) == 0);

  Message got;
  CHECK(receive(pair.theirs(), got) == Received::Nothing);
  const auto large = message_of(Kind::Reply, std::string(kTextMax, 'x'));
  int sent = 0;
  while (sent < 100'000 && send(pair.ours(), *large)) ++sent;
  CHECK(sent > 0);
  CHECK(sent < 100'000);
  for (int i = 0; i < sent; ++i) REQUIRE(receive(pair.theirs(), got) == Received::Message);
  CHECK(receive(pair.theirs(), got) == Received::Nothing);
}

TEST_CASE(
    "the two ends of a pair are not inherited by programs, and no pair is made without "
    "descriptors") {
  Pair pair;
  for (const int end : {pair.ours(), pair.theirs()})
    CHECK((::fcntl(end, F_GETFD) & FD_CLOEXEC) != 0);

  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit none{3, 3};
    ::setrlimit(RLIMIT_NOFILE, &none);
    int sockets[2];
    ::_exit(!make_pair(sockets) && errno == EMFILE ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("strings in a file come out as they went in, empty ones and large ones too") {
  const std::vector<std::string> strings = {"", "a=b", std::string(100'000, 'x'), "", "end"};
  const int fd = make_strings_file("test", strings);
  REQUIRE(fd >= 0);

  CHECK(take_strings_file(::dup(fd)) == strings);
  CHECK(take_strings_file(fd) == strings);  // whoever reads it later begins at its start, too
}

TEST_CASE("a peek at a message leaves it and its descriptors for who receives it") {
  const Pair pair;
  CHECK(!peek_kind(pair.theirs()).has_value());
  auto message = message_of(Kind::Start, "text");
  message->descriptor_count = 1;
  message->descriptors[0] = pair.ours();
  REQUIRE(send(pair.ours(), *message));
  const int open_before = open_descriptors();

  CHECK(peek_kind(pair.theirs()) == Kind::Start);
  CHECK(open_descriptors() == open_before);

  auto received = std::make_unique<Message>();
  REQUIRE(receive(pair.theirs(), *received) == Received::Message);
  CHECK(received->descriptor_count == 1);
  CHECK(received->text_view() == "text");
  ::close(received->descriptors[0]);
}

TEST_CASE("a socket knows the process at its other end") {
  const Pair pair;
  CHECK(peer_pid(pair.ours()) == ::getpid());
}

}  // namespace
}  // namespace mobula::wire
