#pragma once
#include <filesystem>

namespace ds4::app {

// Keeps a second process from loading a model beside this one: an advisory lock on one file, held
// until destruction or the process's end, however it ends.  Confined to one thread.
class InstanceLock {
 public:
  // Takes the lock and writes this process's id into the file.  An empty path takes no lock.
  // Throws Error(kBusy), naming the other process, when it is held, and Error(kIo) when the file
  // cannot be used at all.
  explicit InstanceLock(const std::filesystem::path& path);
  InstanceLock(const InstanceLock&) = delete;
  InstanceLock& operator=(const InstanceLock&) = delete;
  ~InstanceLock();

  // DS4_LOCK_FILE when it is set (empty: no lock), else /tmp/ds4.lock.
  static std::filesystem::path default_path();

 private:
  int descriptor_ = -1;
};

}  // namespace ds4::app
