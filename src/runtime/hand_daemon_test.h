// A node daemon worked by hand: the test answers what a real process of the runtime asks for.
//
// It leases in the simplest way that keeps the promises of the tables; a test gives the answers it
// is about by itself. The process under test is a child, with the memory mapped for itself.
#pragma once

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <map>

#include "runtime/ledger.h"
#include "runtime/process.h"
#include "shm/processes_test.h"
#include "wire/local_protocol.h"

namespace mobula::runtime::testing {

inline constexpr std::uint32_t kProcess = 3;

class HandDaemon {
 public:
  explicit HandDaemon(std::size_t object_capacity = 64 << 20) : session(object_capacity) {
    session.memory().header().session = 1;
    for (std::uint32_t s = 0; s < shm::kSegmentsMax; ++s)
      session.memory().segment_owner(s).store(shm::kNone);
    for (auto& segment : session.memory().process(kProcess).hold_segments)
      segment.store(shm::kNone);
  }

  // Runs body(process) in a process that has joined, and serves it until it ends. `answer(message)`
  // may answer a request itself: true. Returns how the process ended.
  template <class Body, class Answer>
  shm::testing::Ending run(const Body& body, const Answer& answer) {
    int sockets[2];
    REQUIRE(wire::make_pair(sockets));
    shm::testing::Child child([&] {
      ::close(sockets[0]);
      wire::Message welcome;
      welcome.kind = wire::Kind::Welcome;
      welcome.a = kProcess;
      welcome.c = session.object_capacity();
      welcome.descriptors[0] = ::fcntl(session.control(), F_DUPFD_CLOEXEC, 0);
      welcome.descriptors[1] = ::fcntl(session.objects(), F_DUPFD_CLOEXEC, 0);
      welcome.descriptors[2] = ::eventfd(0, EFD_CLOEXEC);
      Process process(sockets[1], welcome, shm::ProcessRole::Driver, nullptr);
      set_current_process(&process);
      body(process);
      set_current_process(nullptr);
    });
    ::close(sockets[1]);
    wire::Message message;
    while (wire::receive(sockets[0], message) == wire::Received::Message) {
      if (message.kind == wire::Kind::Joined) continue;
      ++requests[message.kind];
      message.status = wire::Status::Ok;
      message.text_size = 0;
      if (!answer(message)) lease(message);
      message.kind = wire::Kind::Reply;
      if (!wire::send(sockets[0], message)) break;
    }
    ::close(sockets[0]);
    return child.end();
  }
  template <class Body>
  shm::testing::Ending run(const Body& body) {
    return run(body, [](wire::Message&) { return false; });
  }

  // Makes entry `i` stand for `size` bytes at `offset`, in blocks of `block_size` (0: one). Its
  // generations go on.
  void lease_extent(std::uint32_t i, std::uint64_t offset, std::uint64_t size,
                    std::uint64_t block_size, bool spillable = true) {
    shm::Extent& e = session.memory().extent(i);
    if (e.words == 0) e.words = session.take_heap(shm::kBlocksPerExtentMax * 4);
    auto* words = reinterpret_cast<std::atomic<std::uint32_t>*>(session.memory().heap(e.words));
    ++generation_;
    for (std::uint32_t b = 0; b < shm::kBlocksPerExtentMax; ++b)
      words[b].store(shm::block::free(generation_ * 1000));
    e.word_one.store(shm::block::free(generation_ * 1000));
    e.offset = offset;
    e.size = size;
    e.block_size = block_size == 0 ? size : block_size;
    e.blocks = block_size == 0 ? 1
                               : static_cast<std::uint32_t>(std::min<std::uint64_t>(
                                     size / block_size, shm::kBlocksPerExtentMax));
    e.spillable = spillable ? 1 : 0;
    session.memory().pins(kProcess, i).fetch_add(1);
    e.lessee.store(kProcess);
    e.in_use.store(1);
  }

  shm::testing::Session session;
  std::map<wire::Kind, int> requests;

 private:
  void lease(wire::Message& message) {
    shm::Memory& memory = session.memory();
    switch (message.kind) {
      case wire::Kind::LeaseLedger:
        message.a = next_participant_++;
        memory.participant(message.a).process.store(kProcess);
        message.b = lease_segment(message.a);
        return;
      case wire::Kind::LeaseSegment: message.a = lease_segment(message.a); return;
      case wire::Kind::LeaseHolds:
        memory.process(kProcess).hold_segments[message.a].store(next_segment_);
        message.a = next_segment_++;
        return;
      case wire::Kind::OpenRing: message.c = shm::testing::open_ring(session); return;
      case wire::Kind::GrowRing: message.c = session.take_heap(message.d * 8); return;
      case wire::Kind::LeaseExtent: {
        const std::uint64_t size = shm::whole_pages(message.c);
        lease_extent(next_extent_, next_object_, size, message.d, message.b != wire::kHoldsRefs);
        next_object_ += size;
        message.a = next_extent_++;
        return;
      }
      default: message.status = wire::Status::Invalid;
    }
  }
  std::uint32_t lease_segment(std::uint32_t participant) {
    session.memory().segment_owner(next_segment_).store(participant);
    return next_segment_++;
  }

  std::uint32_t next_participant_ = 5;
  std::uint32_t next_segment_ = 0;
  std::uint32_t next_extent_ = 0;
  std::uint64_t next_object_ = 0;
  std::uint32_t generation_ = 0;
};

}  // namespace mobula::runtime::testing
