#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace ds4 {

// A whole file mapped read-only.  Owns the mapping: views into it die with it.  Move-only; reading
// from several threads is safe.  A file that another process truncates while it is mapped raises
// SIGBUS on access, which is outside what this class can report.
class MappedFile {
 public:
  MappedFile() = default;
  // Throws Error(kNotFound | kIo) when the path does not name a readable regular file.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // Reads every page of `range` (a part of bytes()) so that later use does not fault.
  // Cost: one read of the range from disk when it is not cached.
  static void touch(std::span<const std::byte> range);

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::filesystem::path path_;
};

// Writes a file so that a reader sees the old content or the whole new one, never a part: bytes go
// to a temporary name beside the target; commit() syncs, renames and syncs the directory.  A writer
// destroyed without commit() removes its temporary file.  A target that is a device or a pipe is
// written as it goes.  Confined to one thread.
class AtomicFileWriter {
 public:
  // Creates the temporary file with `mode`; throws Error(kIo) when the directory is not writable.
  explicit AtomicFileWriter(const std::filesystem::path& target, unsigned mode = 0644);
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;
  ~AtomicFileWriter();

  // Appends; buffered.  Throws Error(kIo), for example when the disk is full.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Appends zero bytes up to the next multiple of `alignment`.
  void pad_to(std::size_t alignment);
  std::uint64_t size() const { return written_; }
  void commit();

 private:
  void flush();

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::uint64_t written_ = 0;
  std::string buffer_;
};

// The whole file as text.  Throws Error(kNotFound | kIo), or Error(kInvalidArgument) above
// `bytes_max`.
std::string read_text_file(const std::filesystem::path& path, std::size_t bytes_max);

}  // namespace ds4
