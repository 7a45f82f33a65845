#include "runtime/checkpoint.h"

#include <doctest/doctest.h>

#include <vector>

namespace mobula::runtime {
namespace {

constexpr std::uint64_t kType = 7;

std::vector<std::byte> sealed() {
  std::vector<std::byte> bytes(CheckpointHeader::kSize + 100, std::byte{5});
  seal_checkpoint(bytes.data(), bytes.size(), kType, 42);
  return bytes;
}

TEST_CASE("a checkpoint is as it was sealed") {
  const std::vector<std::byte> bytes = sealed();

  CHECK(problem_with_checkpoint(bytes.data(), bytes.size(), kType).empty());
}

TEST_CASE("a bit that differs is seen, wherever it is") {
  std::vector<std::byte> bytes = sealed();

  for (std::size_t at = 0; at < bytes.size(); ++at) {
    CAPTURE(at);
    bytes[at] ^= std::byte{16};
    CHECK_FALSE(problem_with_checkpoint(bytes.data(), bytes.size(), kType).empty());
    bytes[at] ^= std::byte{16};
  }
}

TEST_CASE("what is cut short, of another class or of another format is no checkpoint") {
  std::vector<std::byte> bytes = sealed();

  CHECK(problem_with_checkpoint(bytes.data(), bytes.size() - 1, kType) == "it is cut short");
  CHECK(problem_with_checkpoint(bytes.data(), 10, kType) == "it is cut short");
  CHECK(problem_with_checkpoint(bytes.data(), bytes.size(), kType + 1) == "it is of another class");
  bytes[0] = std::byte{'2'};
  CHECK(problem_with_checkpoint(bytes.data(), bytes.size(), kType) == "it is of another format");
}

}  // namespace
}  // namespace mobula::runtime
