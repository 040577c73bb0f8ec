#include "base/file.h"

#include <cerrno>
#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace ds4 {

namespace {

constexpr std::size_t kWriteBufferBytes = std::size_t{1} << 20;

// Closes a descriptor on every path out of a function.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct stat stat_regular_file(int fd, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) throw_errno("cannot stat", path.string());
  if (S_ISDIR(info.st_mode)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is a directory; a file was expected", path.string()));
  }
  if (!S_ISREG(info.st_mode)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is not a regular file", path.string()));
  }
  return info;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) throw_errno("cannot open", path.string());
  const struct stat info = stat_regular_file(fd.get(), path);
  size_ = static_cast<std::size_t>(info.st_size);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) throw_errno("cannot map", path.string());
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::touch(std::span<const std::byte> range) {
  constexpr std::size_t kPageBytes = 4096;
  unsigned sum = 0;
  for (std::size_t i = 0; i < range.size(); i += kPageBytes)
    sum += static_cast<unsigned>(range[i]);
  // The sum must be used, or the loop is dead code.
  static_cast<void>(*const_cast<volatile unsigned*>(&sum));
}

AtomicFileWriter::AtomicFileWriter(const std::filesystem::path& target, unsigned mode)
    : target_(target) {
  buffer_.reserve(kWriteBufferBytes);
  struct stat info {};
  if (::stat(target.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    if (S_ISDIR(info.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("cannot write {}: it is a directory", target.string()));
    }
    // A device or a pipe is written, never replaced by a file of its name.
    descriptor_ = ::open(target.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) throw_errno("cannot open", target.string());
    return;
  }
  std::error_code unknown;
  const auto kind = std::filesystem::status(target, unknown).type();
  if (kind == std::filesystem::file_type::directory) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is a directory; a file was expected", target.string()));
  }
  if (kind != std::filesystem::file_type::regular &&
      kind != std::filesystem::file_type::not_found) {
    descriptor_ = ::open(target.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    temporary_ = target;
    temporary_ += fmt::format(".tmp.{}", ::getpid());
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  }
  if (descriptor_ < 0) throw_errno("cannot create", target.string());
}

AtomicFileWriter::~AtomicFileWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFileWriter::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFileWriter::write(std::string_view text) {
  written_ += text.size();
  buffer_.append(text);
  if (buffer_.size() >= kWriteBufferBytes) flush();
}

void AtomicFileWriter::pad_to(std::size_t alignment) {
  const std::size_t over = written_ % alignment;
  if (over != 0) write(std::string(alignment - over, '\0'));
}

void AtomicFileWriter::flush() {
  std::string_view rest = buffer_;
  while (!rest.empty()) {
    const ssize_t count = ::write(descriptor_, rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("cannot write", target_.string());
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
  buffer_.clear();
}

void AtomicFileWriter::commit() {
  flush();
  if (temporary_.empty()) {
    if (::close(std::exchange(descriptor_, -1)) != 0) throw_errno("cannot close", target_.string());
    return;
  }
  if (::fsync(descriptor_) != 0) throw_errno("cannot sync", target_.string());
  if (::rename(temporary_.c_str(), target_.c_str()) != 0)
    throw_errno("cannot rename to", target_.string());
  ::close(std::exchange(descriptor_, -1));
  const std::filesystem::path parent = target_.has_parent_path() ? target_.parent_path() : ".";
  const Descriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());
}

std::string read_text_file(const std::filesystem::path& path, std::size_t bytes_max) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) throw_errno("cannot open", path.string());
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw_errno("cannot stat", path.string());
  if (S_ISDIR(info.st_mode)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is a directory; a file was expected", path.string()));
  }
  std::string text;
  std::string block(std::size_t{1} << 16, '\0');
  for (;;) {
    const ssize_t count = ::read(fd.get(), block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("cannot read", path.string());
    if (count == 0) return text;
    text.append(block.data(), static_cast<std::size_t>(count));
    if (text.size() > bytes_max) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} is larger than the limit of {} bytes", path.string(), bytes_max));
    }
  }
}

}  // namespace ds4
