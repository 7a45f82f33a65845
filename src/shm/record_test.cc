#include "shm/record.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "shm/processes_test.h"

namespace mobula::shm {
namespace {

TEST_CASE("an address is one word, and the word 0 is no record") {
  for (const Address address :
       {Address{1, 0}, Address{kSegmentsMax * kRecordsPerSegment - 1, 1}, Address{7, 0xffffffff}}) {
    CHECK(Address::unpack(address.packed()) == address);
    CHECK(address);
  }
  CHECK_FALSE(Address::unpack(0));
  CHECK(Address{3, 4}.packed() != Address{4, 3}.packed());
}

TEST_CASE("each part of a state word changes without touching the others") {
  const std::uint64_t full =
      word::with_claimer(word::make(0xfedcba98, State::Ready) | word::kWaiters | word::kAnyWaiter |
                             word::kHasDependents,
                         0xabc);

  CHECK(word::state(full) == State::Ready);
  CHECK(word::generation(full) == 0xfedcba98);
  CHECK(word::claimer(full) == 0xabc);
  CHECK(word::attempt(full) == 0);

  std::uint64_t tried = full;
  for (std::uint32_t attempt = 1; attempt < 256; ++attempt) {
    tried = word::with_next_attempt(tried);
    CHECK(word::attempt(tried) == attempt);
  }
  CHECK((tried & ~word::kAttemptMask) == full);
  CHECK(word::with_next_attempt(tried) ==
        full);  // 256 attempts: counts on from 0, and spills nowhere

  const std::uint64_t other = word::with_claimer(full, 0x123);
  CHECK(word::claimer(other) == 0x123);
  CHECK(word::with_claimer(other, 0xabc) == full);
  CHECK(word::with_state(word::with_state(full, State::Claimed), State::Ready) == full);
}

TEST_CASE("only Done and Failed are final") {
  for (const State state : {State::Free, State::Waiting, State::Ready, State::Claimed}) {
    CHECK_FALSE(word::is_final(word::make(9, state) | word::kWaiters | word::kHasDependents));
  }
  CHECK(word::is_final(word::make(9, State::Done)));
  CHECK(word::is_final(word::make(9, State::Failed)));
}

TEST_CASE("a claimer's number has room for every participant") {
  const std::uint64_t last =
      word::with_claimer(word::make(1, State::Claimed), kParticipantsMax - 1);

  CHECK(word::claimer(last) == kParticipantsMax - 1);
  CHECK(word::generation(last) == 1);
}

TEST_CASE("a join record's edges take the lines after the first, a task's only its own") {
  Record record{};
  const auto* begin = reinterpret_cast<const std::byte*>(&record);
  const auto line_of = [&](const Dependency& edge) {
    return (reinterpret_cast<const std::byte*>(&edge) - begin) / static_cast<int>(kCacheLine);
  };

  record.kind = Kind::Join;
  CHECK(line_of(record.edge(0)) == 1);
  CHECK(line_of(record.edge(kJoinDependencies - 1)) == 3);
  CHECK(reinterpret_cast<const std::byte*>(&record.edge(kJoinDependencies - 1) + 1) ==
        begin + kRecordSize);
  record.kind = Kind::Task;
  CHECK(line_of(record.edge(0)) == 2);
  CHECK(line_of(record.edge(kDependenciesMax - 1)) == 2);
}

TEST_CASE("the tables of the control memory follow each other and never overlap") {
  struct Table {
    std::size_t begin;
    std::size_t size;
  };
  const std::vector<Table> tables = {
      {0, sizeof(ControlHeader)},
      {ControlLayout::kProcesses, kProcessesMax * sizeof(Process)},
      {ControlLayout::kParticipants, kParticipantsMax * sizeof(Participant)},
      {ControlLayout::kClasses, kClassesMax * sizeof(SchedulingClass)},
      {ControlLayout::kExtents, kExtentsMax * sizeof(Extent)},
      {ControlLayout::kSegments, std::size_t{kSegmentsMax} * 8},
      {ControlLayout::kHeap, kHeapSize},
      {ControlLayout::kRecords, std::size_t{kSegmentsMax} * kSegmentSize},
      {ControlLayout::kSize, 0}};

  for (std::size_t i = 0; i + 1 < tables.size(); ++i) {
    CAPTURE(i);
    CHECK(tables[i].begin + tables[i].size <= tables[i + 1].begin);
    CHECK(tables[i].begin % kPage == 0);
  }
  CHECK(ControlLayout::kRecords % kSegmentSize == 0);
}

TEST_CASE("the first and the last entry of each table lie where the map says") {
  testing::Session session;
  const Memory& memory = session.memory();
  const auto* base = reinterpret_cast<const std::byte*>(&memory.header());
  const auto offset = [&](const auto& entry) {
    return static_cast<std::size_t>(reinterpret_cast<const std::byte*>(&entry) - base);
  };

  CHECK(offset(memory.process(0)) == ControlLayout::kProcesses);
  CHECK(offset(memory.process(kProcessesMax - 1)) + sizeof(Process) <=
        ControlLayout::kParticipants);
  CHECK(offset(memory.participant(kParticipantsMax - 1)) + sizeof(Participant) <=
        ControlLayout::kClasses);
  CHECK(offset(memory.scheduling_class(kClassesMax - 1)) + sizeof(SchedulingClass) <=
        ControlLayout::kExtents);
  CHECK(offset(memory.extent(kExtentsMax - 1)) + sizeof(Extent) <= ControlLayout::kSegments);
  CHECK(offset(memory.segment_owner(kSegmentsMax - 1)) + 8 <= ControlLayout::kHeap);
  CHECK(offset(*memory.heap(kHeapSize)) <= ControlLayout::kRecords);
  CHECK(offset(memory.record(kSegmentsMax * kRecordsPerSegment - 1)) + kRecordSize ==
        ControlLayout::kSize);
  CHECK(memory.segment(3) == reinterpret_cast<std::byte*>(&memory.record(3 * kRecordsPerSegment)));
}

}  // namespace
}  // namespace mobula::shm
