#include "wire/local_protocol.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "wire/parcel.h"

namespace mobula::wire {
namespace {

constexpr std::size_t kFixedBytes = offsetof(Message, text);

}  // namespace

void Message::close_descriptors() {
  for (std::uint32_t i = 0; i < descriptor_count; ++i) ::close(descriptors[i]);
  descriptor_count = 0;
}

void Message::set_text(std::string_view t) {
  text_size = static_cast<std::uint32_t>(std::min(t.size(), kTextMax));
  if (text_size != 0) std::memcpy(text, t.data(), text_size);  // an empty view may have no data
}

bool send(int socket, const Message& message) {
  iovec bytes{const_cast<Message*>(&message), kFixedBytes + message.text_size};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)] = {};
  if (message.descriptor_count > 0) {
    const std::size_t size = sizeof(int) * message.descriptor_count;
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(size);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(rights), message.descriptors, size);
  }
  for (;;) {
    const ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
    if (sent >= 0) return true;
    if (errno != EINTR) return false;
  }
}

Received receive(int socket, Message& message) {
  iovec bytes{&message, offsetof(Message, descriptors)};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)];
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0)
    return errno == EAGAIN || errno == EWOULDBLOCK ? Received::Nothing : Received::Closed;
  if (got == 0) return Received::Closed;

  std::uint32_t descriptors = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    descriptors = static_cast<std::uint32_t>((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    std::memcpy(message.descriptors, CMSG_DATA(c), descriptors * sizeof(int));
  }
  const bool whole = static_cast<std::size_t>(got) >= kFixedBytes &&
                     !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
                     static_cast<std::size_t>(got) == kFixedBytes + message.text_size &&
                     descriptors == message.descriptor_count;
  if (whole) return Received::Message;
  for (std::uint32_t i = 0; i < descriptors; ++i) ::close(message.descriptors[i]);
  return Received::Closed;
}

std::map<std::string, double> parse_amounts(std::string_view text) {
  std::map<std::string, double> amounts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string line(text.substr(0, end));
    if (const std::size_t equals = line.find('='); equals != std::string::npos) {
      amounts[line.substr(0, equals)] = std::strtod(line.c_str() + equals + 1, nullptr);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return amounts;
}

std::string join(const std::vector<std::string>& fields) {
  std::string text;
  for (const std::string& one : fields) text.append(one).push_back('\0');
  if (!text.empty()) text.pop_back();
  return text;
}

Fields split(std::string_view text) {
  Fields fields;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\0'), text.size());
    fields.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return fields;
}

int make_strings_file(const char* name, const std::vector<std::string>& strings) {
  std::string all = join(strings);
  if (!strings.empty()) all.push_back('\0');
  const Part bytes = part_of(all);
  return make_bytes_file(name, {&bytes, 1});
}

std::vector<std::string> take_strings_file(int fd) {
  std::string all;
  char buffer[4096];
  for (ssize_t n; (n = ::pread(fd, buffer, sizeof buffer, static_cast<off_t>(all.size()))) > 0;)
    all.append(buffer, static_cast<std::size_t>(n));
  ::close(fd);
  const Fields fields = split(all);
  return {fields.begin(), fields.end()};
}

std::optional<Kind> peek_kind(int socket) {
  Kind kind{};
  // Without room for them, descriptors stay where they are.
  if (::recv(socket, &kind, sizeof kind, MSG_PEEK | MSG_DONTWAIT) != sizeof kind) return {};
  return kind;
}

pid_t peer_pid(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

std::string_view rest(std::string_view text, std::size_t fields) {
  for (; fields > 0; --fields) {
    const std::size_t end = std::min(text.find('\0'), text.size());
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return text;
}

bool make_pair(int sockets[2]) {
  return ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0;
}

}  // namespace mobula::wire
