#include "node/spiller.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "shm/crash_point.h"

#ifndef TMPFS_MAGIC
#define TMPFS_MAGIC 0x01021994
#endif

namespace mobula::node {
namespace {

constexpr std::uint64_t kChunk = 8 << 20;        // between looks whether to stop
constexpr std::uint64_t kWriteBack = 64 << 20;   // then the page cache is told to let go

// Sums up bytes as they pass.
class Checksum {
 public:
  Checksum() { XXH3_64bits_reset(&state_); }
  void add(const void* bytes, std::uint64_t size) { XXH3_64bits_update(&state_, bytes, size); }
  std::uint64_t value() const { return XXH3_64bits_digest(&state_); }

 private:
  alignas(64) XXH3_state_t state_;
};

// pread or pwrite until all is done. 0, or errno; a file that ends too early is EIO.
template <class Transfer, class Byte>
int transfer_all(const Transfer& transfer, int file, Byte* bytes, std::uint64_t size,
                 std::uint64_t offset) {
  while (size > 0) {
    const ssize_t n = transfer(file, bytes, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    bytes += n;
    size -= static_cast<std::uint64_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
  return 0;
}

}  // namespace

Spiller::Spiller(const shm::Memory& memory, std::string folder)
    : memory_(memory),
      folder_(std::move(folder)),
      bell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_([this] { run(); }) {}

Spiller::~Spiller() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
  if (file_ >= 0) ::close(file_);
  ::close(bell_);
}

std::string Spiller::problem_with(const std::string& folder) {
  struct stat about;
  if (::stat(folder.c_str(), &about) != 0) return folder + ": " + ::strerror(errno);
  if (!S_ISDIR(about.st_mode)) return folder + " is no folder";
  if (::access(folder.c_str(), W_OK | X_OK) != 0) return folder + ": " + ::strerror(errno);
  return {};
}

std::string Spiller::default_folder() {
  const char* given = ::getenv("TMPDIR");
  for (const char* folder : {given && *given ? given : "/tmp", "/var/tmp"}) {
    struct statfs about;
    if (::statfs(folder, &about) == 0 && about.f_type != TMPFS_MAGIC &&
        problem_with(folder).empty())
      return folder;
  }
  return "/tmp";
}

void Spiller::post(DiskJob job) {
  {
    const std::lock_guard lock(mutex_);
    // Somebody waits for what is read, and it was written before: it need not wait for what is
    // written now.
    const auto at = job.order != DiskJob::Order::Read
                        ? jobs_.end()
                        : std::find_if(jobs_.begin(), jobs_.end(), [](const DiskJob& other) {
                            return other.order != DiskJob::Order::Read;
                          });
    jobs_.insert(at, std::move(job));
  }
  changed_.notify_one();
}

std::vector<DiskResult> Spiller::take_results() {
  std::uint64_t rings = 0;
  while (::read(bell_, &rings, sizeof rings) > 0) {
  }
  const std::lock_guard lock(mutex_);
  return std::exchange(results_, {});
}

void Spiller::run() {
  // A limit on file sizes shall be an error, not the daemon's end; programs that it starts keep
  // theirs.
  sigset_t too_large;
  ::sigemptyset(&too_large);
  ::sigaddset(&too_large, SIGXFSZ);
  ::pthread_sigmask(SIG_BLOCK, &too_large, nullptr);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    DiskJob job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    DiskResult result = carry_out(std::move(job));
    lock.lock();
    if (result.job.order == DiskJob::Order::Discard) continue;
    results_.push_back(std::move(result));
    const std::uint64_t one = 1;
    while (::write(bell_, &one, sizeof one) < 0 && errno == EINTR) {
    }
  }
}

DiskResult Spiller::carry_out(DiskJob job) {
  DiskResult result;
  switch (job.order) {
    case DiskJob::Order::Write: result.error = write(job); break;
    case DiskJob::Order::Read: result.error = read(job, result.damaged); break;
    case DiskJob::Order::Discard:
      // A disk that cannot do this keeps the bytes until the place is written again.
      ::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(job.file_offset), static_cast<off_t>(job.bytes));
      break;
  }
  result.job = std::move(job);
  return result;
}

int Spiller::open_file() {
  file_ = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file_ >= 0) return 0;
  // Not every file system can make a file without a name.
  std::string name = folder_ + "/mobula-spill-XXXXXX";
  file_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (file_ < 0) return errno;
  ::unlink(name.c_str());
  return 0;
}

// Calls transfer(offset in object memory, size, offset in the file) for each piece of what is in
// use, until one fails or we are to stop. 0, or errno.
template <class Transfer>
int Spiller::each_chunk(const DiskJob& job, const Transfer& transfer) {
  std::uint64_t in_file = job.file_offset;
  for (const ByteRange& run : job.runs) {
    for (std::uint64_t done = 0; done < run.size;) {
      if (stop_.load(std::memory_order_relaxed)) return ECANCELED;
      const std::uint64_t size = std::min(kChunk, run.size - done);
      if (const int error = transfer(run.offset + done, size, in_file)) return error;
      done += size;
      in_file += size;
    }
  }
  return 0;
}

int Spiller::write(DiskJob& job) {
  if (file_ < 0) {
    if (const int error = open_file()) return error;
  }
  Checksum sum;
  const int error =
      each_chunk(job, [&](std::uint64_t offset, std::uint64_t size, std::uint64_t to) {
        const std::byte* from = memory_.object(offset);
        sum.add(from, size);
        return transfer_all(::pwrite, file_, from, size, to);
      });
  if (error) return error;
  job.checksum = sum.value();
  shm::crash_point(shm::CrashPoint::SpillWritten);
  write_back(job.bytes);
  memory_.drop_pages(job.whole.offset, job.whole.size);
  shm::crash_point(shm::CrashPoint::SpillDropped);
  return 0;
}

// What was spilled to free memory shall not fill it again as the file's cache.
void Spiller::write_back(std::uint64_t bytes) {
  not_on_disk_ += bytes;
  if (not_on_disk_ < kWriteBack) return;
  not_on_disk_ = 0;
  ::sync_file_range(
      file_, 0, 0,
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  ::posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED);
}

int Spiller::read(DiskJob& job, bool& damaged) {
  if (!shm::Memory::populate(memory_.object_window(job.whole.offset), job.whole.size))
    return ENOMEM;
  Checksum sum;
  const int error =
      each_chunk(job, [&](std::uint64_t offset, std::uint64_t size, std::uint64_t from) {
        std::byte* to = memory_.object_window(offset);
        if (const int problem = transfer_all(::pread, file_, to, size, from)) return problem;
        sum.add(to, size);
        return 0;
      });
  if (error) return error;
  damaged = sum.value() != job.checksum;
  shm::crash_point(shm::CrashPoint::RestoreRead);
  return 0;
}

}  // namespace mobula::node
