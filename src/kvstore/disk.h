#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Files as the store writes and reads them: private (0700, 0600), complete or absent.  A file is
// written under a temporary name, synced, renamed and its directory synced; whoever dies in between
// leaves a temporary file that the next owner of the directory removes.
namespace ds4::kvstore {

// The points where a crash or a full disk can fall between two system calls.
enum class WriteStep {
  kCreate,         // before a temporary file is created
  kWrite,          // before each block is written
  kSync,           // before a file's data is synced
  kRename,         // before it gets its name
  kSyncDirectory,  // before the directory is synced
  kCatalogue,      // before a catalogue transaction commits
  kUnlink,         // before a file is removed
};

std::string_view write_step_name(WriteStep step);

// Called before each step, on the thread that takes it; throwing from it is the step's failure.
// For tests; empty in production.
using StepHook = std::function<void(WriteStep step, const std::filesystem::path& path)>;

inline void reach(const StepHook& hook, WriteStep step, const std::filesystem::path& path) {
  if (hook) hook(step, path);
}

// Creates `path` and what is missing above it; the last folder is 0700 when it is new.
void make_private_directory(const std::filesystem::path& path);
void sync_directory(const std::filesystem::path& path, const StepHook& hook);
// False when nothing can be created in `path`.
bool is_writable_directory(const std::filesystem::path& path);
// Lower-case hexadecimal of `byte_count` bytes of the system's random source.
std::string random_hex(std::size_t byte_count);
void fill_random(std::span<std::uint8_t> bytes);
// Removes the file if it is there.  True when it was.  Throws Error(kIo) when it cannot be removed.
bool remove_file(const std::filesystem::path& path, const StepHook& hook);

// Tells files of one directory apart; 0 when there is none of this name.
std::uint64_t file_number(const std::filesystem::path& path);

// Asks the kernel to read the whole file ahead; does nothing when it cannot.
void prefetch_file(const std::filesystem::path& path);

// A file being written beside its final place.  Removed by the destructor unless published.
// Confined to one thread.
class TemporaryFile {
 public:
  // Creates `path` (0600), which must not exist.  Throws Error(kIo).
  TemporaryFile(const std::filesystem::path& path, const StepHook& hook);
  TemporaryFile(TemporaryFile&& other) noexcept;
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile();

  // Appends and asks the kernel to begin writing back.  Throws Error(kIo), as when the disk is
  // full.
  void write(std::span<const std::byte> bytes);
  void sync();
  // Gives the file the name `target` unless that name is taken: false, and the file is dropped.
  bool publish_new(const std::filesystem::path& target);
  // Gives the file the name `target`, in place of what had it.
  void publish_over(const std::filesystem::path& target);

 private:
  std::filesystem::path path_;
  const StepHook* hook_;
  int descriptor_ = -1;
};

// A file open for positioned reads.  Confined to one thread.
class InputFile {
 public:
  // Throws Error(kNotFound | kIo), or Error(kBadFormat) when it is not a regular file.
  explicit InputFile(const std::filesystem::path& path);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  std::uint64_t bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  // Fills `out` from `offset`.  Throws Error(kBadFormat) when the file ends before.
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

// A file lock held for the life of the object, across processes; released by the kernel when the
// process dies.  Confined to one thread.
class FileLock {
 public:
  // Waits for the lock on `path`, creating the file (0600).
  explicit FileLock(const std::filesystem::path& path);
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

 private:
  int descriptor_ = -1;
};

// This process's mark in a shared directory: a locked file in `directory`.  As long as it lives its
// leases and temporary files are respected by others.  Removed by the destructor.
class OwnerMark {
 public:
  explicit OwnerMark(const std::filesystem::path& directory);
  OwnerMark(const OwnerMark&) = delete;
  OwnerMark& operator=(const OwnerMark&) = delete;
  ~OwnerMark();

  const std::string& name() const { return name_; }

  // Names of owners that died without removing their mark.
  static std::vector<std::string> dead_owners(const std::filesystem::path& directory);
  static void forget(const std::filesystem::path& directory, const std::string& name);

 private:
  std::filesystem::path path_;
  std::string name_;
  int descriptor_ = -1;
};

}  // namespace ds4::kvstore
