#include "runtime/ledger.h"

#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <string_view>
#include <thread>
#include <vector>

#include "mobula/detail/runtime.h"
#include "runtime/hand_daemon_test.h"

namespace mobula::runtime {
namespace {

using namespace testing;
using shm::Address;
using shm::Record;
using shm::State;
using shm::testing::kWell;
namespace word = shm::word;

Record& publish(Ledger& ledger, Address address, State state = State::Done) {
  Record& record = ledger.record(address);
  record.kind = shm::Kind::Task;
  record.state.store(word::make(address.generation, state));
  return record;
}
void drop(Address address) { detail::release(from_shm(address)); }
// The record was given up: its slot is free, and its next use will be of another generation.
bool recycled(Ledger& ledger, Address address) {
  return ledger.record(address).state.load() == word::make(address.generation, State::Free);
}

TEST_CASE("slots are handed out once each, never slot 0, across segments") {
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    Ledger& ledger = process.this_ledger();
    std::set<std::uint32_t> slots;
    for (std::uint32_t i = 0; i < 3 * shm::kRecordsPerSegment; ++i) {
      const Address address = ledger.allocate();
      MOBULA_CHECK(address);
      MOBULA_CHECK(address.generation == 1);
      MOBULA_CHECK(slots.insert(address.slot).second);
      MOBULA_CHECK(process.ledger_of(address.slot) == &ledger);
      MOBULA_CHECK(process.counts()[address.slot].load() == 1);
      publish(ledger, address, State::Claimed);
    }
  });
  CHECK(end == kWell);
  CHECK(daemon.requests[wire::Kind::LeaseLedger] == 1);
  CHECK(daemon.requests[wire::Kind::LeaseSegment] == 3);  // slot 0 is missing in the first
}

TEST_CASE("the slot dropped last is used first, under a new generation") {
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    Ledger& ledger = process.this_ledger();
    const Address a = ledger.allocate();
    const Address b = ledger.allocate();
    for (const Address address : {a, b}) publish(ledger, address);

    for (const Address address : {a, b}) drop(address);
    MOBULA_CHECK(recycled(ledger, a) && recycled(ledger, b));
    MOBULA_CHECK((ledger.allocate() == Address{b.slot, b.generation + 1}));
    MOBULA_CHECK((ledger.allocate() == Address{a.slot, a.generation + 1}));
  });
  CHECK(end == kWell);
}

TEST_CASE(
    "a record is recycled only when it is final, unheld, not referred to, walked, and without open "
    "edges") {
  struct Row {
    const char* name;
    void (*obstruct)(Record&);
    void (*clear)(Record&);
  };
  const Row rows[] = {
      {"not final", [](Record& r) { r.state.store(word::make(1, State::Claimed)); },
       [](Record& r) { r.state.store(word::make(1, State::Failed)); }},
      {"its dependents are not told", [](Record& r) { r.state.fetch_or(word::kHasDependents); },
       [](Record& r) { r.state.fetch_and(~word::kHasDependents); }},
      {"an edge is open", [](Record& r) { r.join.fetch_or(1); },
       [](Record& r) { r.join.fetch_and(~std::uint64_t{1}); }},
      {"another process holds it", [](Record& r) { r.refs.store(shm::holds::make(1, 40, 1)); },
       [](Record& r) { r.refs.store(shm::holds::make(0, 40, 2)); }}};
  for (const Row& row : rows) {
    INFO(std::string(row.name));
    HandDaemon daemon;
    const auto end = daemon.run([&](Process& process) {
      Ledger& ledger = process.this_ledger();
      const Address address = ledger.allocate();
      Record& record = publish(ledger, address);
      row.obstruct(record);

      drop(address);
      ledger.tidy_all();
      MOBULA_CHECK(!recycled(ledger, address));
      row.clear(record);
      ledger.tidy_all();
      MOBULA_CHECK(recycled(ledger, address));
      MOBULA_CHECK(record.refs.load() == 0);
    });
    CHECK(end == kWell);
  }
}

TEST_CASE("who recycles a record confirms the last change of its count to that change's author") {
  HandDaemon daemon;
  constexpr std::uint32_t kOther = 40;
  const auto end = daemon.run([&](Process& process) {
    Ledger& ledger = process.this_ledger();
    const Address address = ledger.allocate();
    Record& record = publish(ledger, address);
    shm::Participant& other = process.memory().participant(kOther);
    shm::holds::open(other, shm::HoldOp::Hold, address, 0);
    shm::holds::change(process.memory(), kOther, record, +1);
    shm::holds::open(other, shm::HoldOp::Release, address, 0);
    shm::holds::change(process.memory(), kOther, record, -1);  // and dies before it closes

    drop(address);
    MOBULA_CHECK(recycled(ledger, address));
    MOBULA_CHECK(shm::holds::applied(process.memory(), kOther));
  });
  CHECK(end == kWell);
}

TEST_CASE("a ref that comes back while its slot waits to be recycled keeps the record") {
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    Ledger& ledger = process.this_ledger();
    const Address address = ledger.allocate();
    Record& record = publish(ledger, address, State::Claimed);
    drop(address);
    detail::retain(from_shm(address));  // found in a value, say
    record.state.store(word::make(1, State::Done));

    ledger.tidy_all();
    MOBULA_CHECK(!recycled(ledger, address));
    drop(address);
    ledger.tidy_all();
    MOBULA_CHECK(recycled(ledger, address));
  });
  CHECK(end == kWell);
}

TEST_CASE("refs that other threads drop are recycled by the thread whose ledger it is, once each") {
  constexpr std::uint32_t kRecords = 2000;
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    Ledger& ledger = process.this_ledger();
    std::vector<Address> addresses;
    for (std::uint32_t i = 0; i < kRecords; ++i) {
      const Address address = ledger.allocate();
      Record& record = publish(ledger, address);
      record.result_kind = shm::ResultKind::Stored;
      record.result_at() = process.store().allocate(1000, false).at;
      for (int copy = 0; copy < 3; ++copy) detail::retain(from_shm(address));
      addresses.push_back(address);
    }

    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (const Address address : addresses) drop(address);
      });
    }
    for (std::thread& thread : threads) thread.join();
    ledger.tidy_all();

    std::set<std::uint32_t> again;
    for (const Address address : addresses) MOBULA_CHECK(recycled(ledger, address));
    for (std::uint32_t i = 0; i < kRecords; ++i)
      MOBULA_CHECK(again.insert(ledger.allocate().slot).second);
    const std::size_t leased = process.memory().extent(0).blocks;
    for (std::size_t i = 0; i < std::min<std::size_t>(leased, kRecords); ++i) {
      MOBULA_CHECK((process.memory()
                        .block_word(process.memory().extent(0), static_cast<std::uint32_t>(i))
                        .load() &
                    shm::block::kUsed) == 0);
    }
  });
  CHECK(end == kWell);
}

TEST_CASE(
    "recycling gives the value's memory back, and a chain of arguments as long as 100000 needs no "
    "deep stack") {
  constexpr std::uint32_t kChain = 100'000;
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    Ledger& ledger = process.this_ledger();
    Address before{};
    for (std::uint32_t i = 0; i < kChain; ++i) {
      const Address address = ledger.allocate();
      Record& record = publish(ledger, address);
      if (before) {  // its argument refers to the one before it, and is the only one that does
        const std::uint64_t table[2] = {before.packed(), 1};
        std::memcpy(record.args_inline, table, sizeof table);
        record.args_size = sizeof table;
        record.flags = shm::flag::kArgsHaveRefs;
      }
      before = address;
    }
    const Store::Place place = process.store().allocate(1000, false);
    Record& last = ledger.record(before);
    last.result_kind = shm::ResultKind::Stored;
    last.result_at() = place.at;

    drop(before);
    MOBULA_CHECK(recycled(ledger, before));
    const std::uint32_t block = shm::block_index(place.at);
    shm::Extent& extent = process.memory().extent(place.at.extent);
    MOBULA_CHECK((process.memory().block_word(extent, block).load() & shm::block::kUsed) == 0);
    std::uint32_t freed = 0;
    for (std::uint32_t slot = 1; slot <= kChain; ++slot)
      freed += word::state(process.memory().record(slot).state.load()) == State::Free;
    MOBULA_CHECK(freed == kChain);
  });
  CHECK(end == kWell);
}

TEST_CASE(
    "a process holds a foreign record once, however many refs it has, and releases it with the "
    "last") {
  HandDaemon daemon;
  const Address foreign{100 * shm::kRecordsPerSegment + 1, 1};
  const auto end = daemon.run([&](Process& process) {
    Record& record = process.memory().record(foreign.slot);
    record.state.store(word::make(1, State::Done));
    const auto count = [&] { return shm::holds::count(record.refs.load()); };

    detail::adopt_decoded(from_shm(foreign));
    detail::adopt_decoded(from_shm(foreign));
    detail::retain(from_shm(foreign));
    MOBULA_CHECK(count() == 1);
    const auto* lines = reinterpret_cast<shm::HoldEntry*>(
        process.memory().segment(process.shared().hold_segments[0].load()));
    MOBULA_CHECK(lines[0].record.load() == foreign.packed());
    drop(foreign);
    drop(foreign);
    MOBULA_CHECK(count() == 1);
    drop(foreign);
    MOBULA_CHECK(count() == 0);
    MOBULA_CHECK(lines[0].record.load() == 0);
    detail::adopt_decoded(from_shm(foreign));
    MOBULA_CHECK(count() == 1);
  });
  CHECK(end == kWell);
  CHECK(daemon.requests[wire::Kind::LeaseHolds] == 1);
}

TEST_CASE("a hold table grows by a segment at a time") {
  constexpr std::uint32_t kRecords = shm::kHoldsPerSegment + 10;
  HandDaemon daemon;
  const auto end = daemon.run([](Process& process) {
    for (std::uint32_t i = 0; i < kRecords; ++i) {
      const Address foreign{200 * shm::kRecordsPerSegment + i, 1};
      process.memory().record(foreign.slot).state.store(word::make(1, State::Done));
      detail::adopt_decoded(from_shm(foreign));
      MOBULA_CHECK(shm::holds::count(process.memory().record(foreign.slot).refs.load()) == 1);
    }
  });
  CHECK(end == kWell);
  CHECK(daemon.requests[wire::Kind::LeaseHolds] == 2);
}

TEST_CASE("pushing asks for a ring once per class and for more room when it is full") {
  HandDaemon daemon;
  constexpr std::uint32_t kClass = 7;
  const auto end = daemon.run([](Process& process) {
    Ledger& ledger = process.this_ledger();
    for (int i = 0; i < 3000; ++i) {
      const Address address = ledger.allocate();
      publish(ledger, address, State::Ready);
      ledger.push(kClass, address);
    }
    ledger.push(kClass + 1, {1, 1});
  });
  CHECK(end == kWell);
  CHECK(daemon.requests[wire::Kind::OpenRing] == 2);
  CHECK(daemon.requests[wire::Kind::GrowRing] == 3);  // 256 + 512 + 1024 + 2048
}

}  // namespace
}  // namespace mobula::runtime
