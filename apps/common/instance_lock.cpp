#include "common/instance_lock.h"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"
#include "common/environment.h"

namespace ds4::app {

namespace {

// The process id that the holder wrote; empty when it has not yet.
std::string read_holder(int descriptor) {
  char text[32];
  const ssize_t count = ::pread(descriptor, text, sizeof text, 0);
  std::string holder(text, count > 0 ? static_cast<std::size_t>(count) : 0);
  return holder.substr(0, holder.find_first_not_of("0123456789"));
}

int open_lock_file(const char* path) {
  const int flags = O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  const int descriptor = ::open(path, O_RDWR | flags, 0666);
  // Another user's file: not ours to write, but it can be locked all the same.
  if (descriptor < 0 && (errno == EACCES || errno == EROFS))
    return ::open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  return descriptor;
}

}  // namespace

InstanceLock::InstanceLock(const std::filesystem::path& path) {
  if (path.empty()) return;
  descriptor_ = open_lock_file(path.c_str());
  if (descriptor_ < 0) throw_errno("cannot open the lock file", path.string());
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const bool held = errno == EWOULDBLOCK;
    const std::string holder = held ? read_holder(descriptor_) : "";
    ::close(descriptor_);
    if (!held) throw_errno("cannot lock", path.string());
    throw Error(ErrorCode::kBusy,
                fmt::format("another instance{} is running (lock file {}); end it first, or set "
                            "DS4_LOCK_FILE to run beside it",
                            holder.empty() ? "" : " (process " + holder + ")", path.string()));
  }
  const std::string text = fmt::format("{}\n", ::getpid());
  // The id is for people alone: a file that takes no writing still locks.
  if (::ftruncate(descriptor_, 0) == 0 && ::pwrite(descriptor_, text.data(), text.size(), 0) < 0)
    return;
}

InstanceLock::~InstanceLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::filesystem::path InstanceLock::default_path() {
  const char* const path = environment("DS4_LOCK_FILE");
  return path != nullptr ? path : "/tmp/ds4.lock";
}

}  // namespace ds4::app
