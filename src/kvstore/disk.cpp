#include "kvstore/disk.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"

namespace ds4::kvstore {

namespace {

constexpr std::size_t kWriteBlockBytes = std::size_t{4} << 20;
constexpr std::string_view kMarkSuffix = ".lock";

void lock_whole_file(int descriptor, int operation, const std::filesystem::path& path) {
  while (::flock(descriptor, operation) != 0) {
    if (errno != EINTR) throw_errno("cannot lock", path.string());
  }
}

}  // namespace

std::string_view write_step_name(WriteStep step) {
  switch (step) {
    case WriteStep::kCreate:
      return "create";
    case WriteStep::kWrite:
      return "write";
    case WriteStep::kSync:
      return "sync";
    case WriteStep::kRename:
      return "rename";
    case WriteStep::kSyncDirectory:
      return "sync_directory";
    case WriteStep::kCatalogue:
      return "catalogue";
    case WriteStep::kUnlink:
      return "unlink";
  }
  return "unknown";
}

void make_private_directory(const std::filesystem::path& path) {
  std::error_code failure;
  if (std::filesystem::is_directory(path, failure)) return;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), failure);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw_errno("cannot create directory", path.string());
}

void sync_directory(const std::filesystem::path& path, const StepHook& hook) {
  reach(hook, WriteStep::kSyncDirectory, path);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw_errno("cannot open directory", path.string());
  const int result = ::fsync(descriptor);
  const int code = errno;
  ::close(descriptor);
  errno = code;
  // Some file systems cannot sync a directory and say so; there is nothing more to be done there.
  if (result != 0 && errno != EINVAL) throw_errno("cannot sync directory", path.string());
}

bool is_writable_directory(const std::filesystem::path& path) {
  return ::access(path.c_str(), W_OK | X_OK) == 0;
}

void fill_random(std::span<std::uint8_t> bytes) {
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = ::getrandom(bytes.data() + filled, bytes.size() - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("cannot read", "the system's random source");
    filled += static_cast<std::size_t>(count);
  }
}

std::string random_hex(std::size_t byte_count) {
  std::vector<std::uint8_t> bytes(byte_count);
  fill_random(bytes);
  return to_hex(bytes);
}

bool remove_file(const std::filesystem::path& path, const StepHook& hook) {
  reach(hook, WriteStep::kUnlink, path);
  if (::unlink(path.c_str()) == 0) return true;
  if (errno == ENOENT) return false;
  throw_errno("cannot remove", path.string());
}

std::uint64_t file_number(const std::filesystem::path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_ino) : 0;
}

void prefetch_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return;
  static_cast<void>(::posix_fadvise(descriptor, 0, 0, POSIX_FADV_WILLNEED));
  ::close(descriptor);
}

TemporaryFile::TemporaryFile(const std::filesystem::path& path, const StepHook& hook)
    : path_(path),
      hook_(&hook) {
  reach(hook, WriteStep::kCreate, path);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor_ < 0) throw_errno("cannot create", path.string());
}

TemporaryFile::TemporaryFile(TemporaryFile&& other) noexcept
    : path_(std::move(other.path_)),
      hook_(other.hook_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

TemporaryFile::~TemporaryFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(path_.c_str());
}

void TemporaryFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    reach(*hook_, WriteStep::kWrite, path_);
    const std::size_t block = std::min(bytes.size(), kWriteBlockBytes);
    const ssize_t count = ::write(descriptor_, bytes.data(), block);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("cannot write", path_.string());
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  // Only a hint, so that the disk works while the next file is prepared.
  static_cast<void>(::sync_file_range(descriptor_, 0, 0, SYNC_FILE_RANGE_WRITE));
}

void TemporaryFile::sync() {
  reach(*hook_, WriteStep::kSync, path_);
  if (::fsync(descriptor_) != 0) throw_errno("cannot sync", path_.string());
}

bool TemporaryFile::publish_new(const std::filesystem::path& target) {
  reach(*hook_, WriteStep::kRename, target);
  // A hard link fails when the name is taken, on every file system that can link.
  if (::link(path_.c_str(), target.c_str()) == 0) {
    ::unlink(path_.c_str());
    ::close(std::exchange(descriptor_, -1));
    return true;
  }
  if (errno == EEXIST) return false;
  if (errno != EPERM && errno != EOPNOTSUPP && errno != EMLINK)
    throw_errno("cannot name", target.string());
  publish_over(target);
  return true;
}

void TemporaryFile::publish_over(const std::filesystem::path& target) {
  reach(*hook_, WriteStep::kRename, target);
  if (::rename(path_.c_str(), target.c_str()) != 0)
    throw_errno("cannot rename to", target.string());
  ::close(std::exchange(descriptor_, -1));
}

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor_ < 0) throw_errno("cannot open", path.string());
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor_);
    throw Error(ErrorCode::kBadFormat, fmt::format("{} is not a regular file", path.string()));
  }
  bytes_ = static_cast<std::uint64_t>(info.st_size);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      bytes_(other.bytes_) {}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void InputFile::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t count = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("cannot read", path_.string());
    if (count == 0)
      throw Error(ErrorCode::kBadFormat, fmt::format("{} ends too early", path_.string()));
    offset += static_cast<std::uint64_t>(count);
    out = out.subspan(static_cast<std::size_t>(count));
  }
}

FileLock::FileLock(const std::filesystem::path& path) {
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor_ < 0) throw_errno("cannot open", path.string());
  try {
    lock_whole_file(descriptor_, LOCK_EX, path);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

FileLock::~FileLock() {
  ::close(descriptor_);
}

OwnerMark::OwnerMark(const std::filesystem::path& directory) : name_(random_hex(8)) {
  path_ = directory / (name_ + std::string(kMarkSuffix));
  // Locked before it has its name: a mark that can be seen and is not locked is a dead one.
  const std::filesystem::path unnamed = directory / (name_ + ".new");
  descriptor_ = ::open(unnamed.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor_ < 0) throw_errno("cannot create", unnamed.string());
  lock_whole_file(descriptor_, LOCK_EX, unnamed);
  if (::rename(unnamed.c_str(), path_.c_str()) != 0) {
    ::close(descriptor_);
    throw_errno("cannot rename to", path_.string());
  }
}

OwnerMark::~OwnerMark() {
  ::unlink(path_.c_str());
  ::close(descriptor_);
}

std::vector<std::string> OwnerMark::dead_owners(const std::filesystem::path& directory) {
  std::vector<std::string> dead;
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    if (file.path().extension() != kMarkSuffix) continue;
    const int descriptor = ::open(file.path().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0) continue;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) dead.push_back(file.path().stem().string());
    ::close(descriptor);
  }
  return dead;
}

void OwnerMark::forget(const std::filesystem::path& directory, const std::string& name) {
  ::unlink((directory / (name + std::string(kMarkSuffix))).c_str());
}

}  // namespace ds4::kvstore
