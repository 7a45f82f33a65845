// Carries bytes of objects between memory and one file, in a thread of its own, so that the
// daemon's loop never waits for a disk.
//
// The file has no name once it is open: it is gone with the daemon, however that ends, and nobody
// else can open it. Many extents share it; the owner of this class decides where each lies. What
// was written is summed up (XXH3) in the daemon's own memory, so damage to the file is seen when it
// is read.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "shm/memory.h"

namespace mobula::node {

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

struct DiskJob {
  enum class Order {
    Write,  // the runs to the file, then their extent's pages go
    Read,  // the runs from the file, into fresh pages
    Discard,  // the file's bytes are not needed any more
  };
  Order order = Order::Write;
  std::uint32_t extent = 0;
  ByteRange whole;  // of the extent, in object memory
  std::vector<ByteRange> runs;  // what of it is in use, in object memory
  std::uint64_t file_offset = 0;
  std::uint64_t bytes = 0;  // of all runs
  std::uint64_t checksum = 0;  // set by Write, checked by Read
};

struct DiskResult {
  DiskJob job;
  int error = 0;  // errno
  bool damaged = false;  // read, but not what was written
};

class Spiller {
 public:
  // `folder`: where the file will be made, at the first Write.
  Spiller(const shm::Memory& memory, std::string folder);
  // Ends within about one chunk's write; what is under way is given up.
  ~Spiller();
  Spiller(const Spiller&) = delete;
  Spiller& operator=(const Spiller&) = delete;

  // What is wrong with the folder; empty: nothing.
  static std::string problem_with(const std::string& folder);
  // TMPDIR, /tmp or /var/tmp: the first that exists and does not lie in memory itself.
  static std::string default_folder();

  void post(DiskJob job);
  // What was done since the last call; Discard is not reported.
  std::vector<DiskResult> take_results();
  int results_bell() const { return bell_; }  // an eventfd: readable when there are results
  const std::string& folder() const { return folder_; }

 private:
  void run();
  DiskResult carry_out(DiskJob job);
  int open_file();
  template <class Transfer>
  int each_chunk(const DiskJob& job, const Transfer& transfer);
  int write(DiskJob& job);
  int read(DiskJob& job, bool& damaged);
  void write_back(std::uint64_t bytes);

  const shm::Memory& memory_;
  const std::string folder_;
  int bell_;
  int file_ = -1;  // the thread's
  std::uint64_t not_on_disk_ = 0;  // bytes that only the page cache has; the thread's

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<DiskJob> jobs_;
  std::vector<DiskResult> results_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace mobula::node
