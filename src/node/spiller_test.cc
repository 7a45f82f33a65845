#include "node/spiller.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstring>

#include "node/world_test.h"

namespace mobula::node {
namespace {

using namespace testing;
using namespace shm::testing;

constexpr std::uint64_t kMiB = 1 << 20;

struct Disk {
  DiskResult carry_out(DiskJob job) {
    spiller->post(std::move(job));
    return result();
  }
  DiskResult result() {
    std::vector<DiskResult> results;
    REQUIRE(eventually([&] {
      results = spiller->take_results();
      return !results.empty();
    }));
    REQUIRE(results.size() == 1);
    return results[0];
  }
  DiskJob job(DiskJob::Order order, ByteRange whole, std::vector<ByteRange> runs,
              std::uint64_t file_offset) {
    DiskJob made;
    made.order = order;
    made.extent = 7;
    made.whole = whole;
    made.runs = std::move(runs);
    for (const ByteRange& run : made.runs) made.bytes += run.size;
    made.file_offset = file_offset;
    return made;
  }
  void fill(ByteRange range, int value) {
    std::memset(memory.object_window(range.offset), value, range.size);
  }
  bool filled(ByteRange range, int value) {
    const std::byte* bytes = memory.object(range.offset);
    return std::all_of(bytes, bytes + range.size,
                       [&](std::byte b) { return std::to_integer<int>(b) == value; });
  }
  bool has_pages(ByteRange range) {
    std::vector<unsigned char> present(range.size / shm::kPage);
    REQUIRE(::mincore(memory.object_window(range.offset), range.size, present.data()) == 0);
    return std::any_of(present.begin(), present.end(), [](unsigned char p) { return p & 1; });
  }

  Folder folder;
  Session session{4 * kMiB};
  shm::Memory& memory = session.memory();
  std::unique_ptr<Spiller> spiller = std::make_unique<Spiller>(memory, folder.path);
};

TEST_CASE("bytes go to a file without a name and come back, and their pages go meanwhile") {
  Disk disk;
  const ByteRange whole{kMiB, kMiB};
  const std::vector<ByteRange> runs = {{kMiB, 4096}, {kMiB + 65536, 8192}};
  disk.fill(runs[0], 1);
  disk.fill(runs[1], 2);

  const DiskResult written = disk.carry_out(disk.job(DiskJob::Order::Write, whole, runs, 4096));
  CHECK(written.error == 0);
  CHECK(written.job.extent == 7);
  CHECK_FALSE(disk.has_pages(whole));
  CHECK(std::filesystem::is_empty(disk.folder.path));
  struct stat about;
  REQUIRE(::fstat(disk.folder.nameless_file(), &about) == 0);
  CHECK((about.st_mode & 0777) == 0600);

  DiskJob job = disk.job(DiskJob::Order::Read, whole, runs, 4096);
  job.checksum = written.job.checksum;
  const DiskResult read = disk.carry_out(job);
  CHECK(read.error == 0);
  CHECK_FALSE(read.damaged);
  CHECK(disk.filled(runs[0], 1));
  CHECK(disk.filled(runs[1], 2));
  CHECK(disk.has_pages({kMiB + 512 * 1024, 4096}));  // of all of it, so that no reader takes them

  disk.folder.damage(4096 + 5000);
  CHECK(disk.carry_out(job).damaged);
}

TEST_CASE("a place that is discarded takes no room on the disk any more") {
  Disk disk;
  const ByteRange whole{0, 2 * kMiB};
  disk.fill(whole, 3);
  REQUIRE(disk.carry_out(disk.job(DiskJob::Order::Write, whole, {whole}, 0)).error == 0);
  const int file = disk.folder.nameless_file();
  const auto blocks = [&] {
    struct stat about;
    REQUIRE(::fsync(file) == 0);
    REQUIRE(::fstat(file, &about) == 0);
    return about.st_blocks * 512;
  };
  REQUIRE(blocks() >= 2 * static_cast<std::int64_t>(kMiB));

  disk.spiller->post(disk.job(DiskJob::Order::Discard, whole, {whole}, 0));
  CHECK(eventually([&] { return blocks() < static_cast<std::int64_t>(kMiB); }));
}

TEST_CASE("a file that cannot be made, or may not grow, is an error, and the bytes stay") {
  Disk disk;
  const ByteRange whole{0, kMiB};
  disk.fill(whole, 4);
  const DiskJob job = disk.job(DiskJob::Order::Write, whole, {whole}, 0);
  REQUIRE(::rmdir(disk.folder.path.c_str()) == 0);
  CHECK(disk.carry_out(job).error == ENOENT);
  CHECK(disk.filled(whole, 4));

  REQUIRE(::mkdir(disk.folder.path.c_str(), 0700) == 0);
  rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{4096, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  CHECK(disk.carry_out(job).error == EFBIG);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(disk.filled(whole, 4));

  CHECK(disk.carry_out(job).error == 0);
}

TEST_CASE("a file that lost its end is an error when it is read") {
  Disk disk;
  const ByteRange whole{0, kMiB};
  disk.fill(whole, 5);
  const DiskResult written = disk.carry_out(disk.job(DiskJob::Order::Write, whole, {whole}, 0));
  REQUIRE(::ftruncate(disk.folder.nameless_file(), 5000) == 0);

  DiskJob job = disk.job(DiskJob::Order::Read, whole, {whole}, 0);
  job.checksum = written.job.checksum;
  CHECK(disk.carry_out(job).error == EIO);
}

TEST_CASE("it rings when there are results, and ends with work left") {
  Disk disk;
  const ByteRange whole{0, kMiB};
  const DiskJob job = disk.job(DiskJob::Order::Write, whole, {whole}, 0);
  pollfd bell{disk.spiller->results_bell(), POLLIN, 0};
  CHECK(::poll(&bell, 1, 0) == 0);
  disk.spiller->post(job);
  CHECK(::poll(&bell, 1, 60'000) == 1);
  disk.result();
  CHECK(::poll(&bell, 1, 0) == 0);

  for (int i = 0; i < 10'000; ++i) disk.spiller->post(job);
  disk.spiller.reset();
  CHECK(disk.folder.nameless_file() == -1);
}

TEST_CASE("what is wrong with a folder is said") {
  Folder folder;
  CHECK(Spiller::problem_with(folder.path).empty());
  CHECK(Spiller::problem_with(folder.path + "/missing") ==
        folder.path + "/missing: No such file or directory");
  const int file = ::open((folder.path + "/file").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  REQUIRE(file >= 0);
  ::close(file);
  CHECK(Spiller::problem_with(folder.path + "/file") == folder.path + "/file is no folder");
  CHECK(Spiller::problem_with(Spiller::default_folder()).empty());
}

}  // namespace
}  // namespace mobula::node
