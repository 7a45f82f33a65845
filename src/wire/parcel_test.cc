#include "wire/parcel.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <string>
#include <thread>

namespace mobula::wire {
namespace {

struct Pair {
  Pair() { REQUIRE(make_pair(ends)); }
  ~Pair() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  int ends[2];
};

std::string received(int socket, std::uint64_t limit) {
  Message message;
  ParcelBytes bytes;
  if (receive(socket, message) != Received::Message) return "(closed)";
  return open_parcel(message, limit, bytes) ? std::string(bytes.text()) : "(refused)";
}

bool send_text(int socket, std::string_view text) {
  Message message;
  message.kind = Kind::Answer;
  const std::array parts{part_of(text.substr(0, text.size() / 2)),
                         part_of(text.substr(text.size() / 2))};
  return send_parcel(socket, message, parts) == Sent::Sent;
}

// As an ill-meaning peer would.
bool send_file(int socket, int fd) {
  Message message;
  message.kind = Kind::Answer;
  message.descriptor_count = 1;
  message.descriptors[0] = fd;
  const bool sent = send(socket, message);
  ::close(fd);
  return sent;
}

}  // namespace

TEST_CASE("a parcel arrives as it was sent, be it empty, small or large") {
  Pair pair;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, kTextMax, kTextMax + 1, std::size_t{5} << 20}) {
    CAPTURE(size);
    std::string text(size, 'x');
    for (std::size_t i = 0; i < size; i += 101) text[i] = static_cast<char>('a' + i % 26);

    REQUIRE(send_text(pair.ends[0], text));

    CHECK(received(pair.ends[1], 8 << 20) == text);
  }
}

TEST_CASE("what is larger than the limit, and what is no file in memory, is refused") {
  Pair pair;
  REQUIRE(send_text(pair.ends[0], std::string(kTextMax + 1, 'x')));
  CHECK(received(pair.ends[1], kTextMax) == "(refused)");
  REQUIRE(send_text(pair.ends[0], "four"));
  CHECK(received(pair.ends[1], 3) == "(refused)");

  REQUIRE(send_file(pair.ends[0], ::open("/dev/zero", O_RDONLY | O_CLOEXEC)));
  CHECK(received(pair.ends[1], 1 << 20) == "(refused)");
  int pipe_ends[2];
  REQUIRE(::pipe2(pipe_ends, O_CLOEXEC) == 0);
  REQUIRE(send_file(pair.ends[0], pipe_ends[0]));  // would wait for ever
  CHECK(received(pair.ends[1], 1 << 20) == "(refused)");
  ::close(pipe_ends[1]);
}

TEST_CASE("a parcel whose other side is gone is told from one that was sent") {
  int ends[2];
  REQUIRE(make_pair(ends));
  ::close(ends[1]);
  CHECK(!send_text(ends[0], "x"));
  CHECK(!send_text(ends[0], std::string(kTextMax + 1, 'x')));
  ::close(ends[0]);
}

}  // namespace mobula::wire
