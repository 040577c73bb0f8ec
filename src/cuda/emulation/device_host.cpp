#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "cuda/device.h"
#include "cuda/emulation/faults.h"

namespace ds4::cuda {

namespace {

struct Faults {
  std::uint64_t launches_to_failure = 0;  // 0: none will fail
  bool failed = false;
  std::uint64_t memory_left = UINT64_MAX;
};

Faults& faults() {
  static Faults instance;
  return instance;
}

}  // namespace

namespace emulation {

void fail_after(std::uint64_t launches) {
  faults().launches_to_failure = launches;
  faults().failed = false;
}

void limit_memory(std::uint64_t bytes) {
  faults().memory_left = bytes;
}

}  // namespace emulation

void check(int, const char*) {}

int device_count() {
  return 1;
}

DeviceInfo open_device() {
  return {.name = "emulated on the host",
          .multiprocessors = 4,
          .shared_bytes_max = std::size_t{227} * 1024,
          .memory_bytes = std::uint64_t{1} << 34,
          .free_bytes = std::min(std::uint64_t{1} << 34, faults().memory_left),
          .programmatic_launch = false};
}

DeviceBuffer::DeviceBuffer(std::size_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  std::uint64_t& memory_left = faults().memory_left;
  if (bytes > memory_left) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("no device memory for {}: {} bytes asked for, {} free", what, bytes,
                            memory_left));
  }
  if (memory_left != UINT64_MAX) memory_left -= bytes;
  data_ = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{256}));
  std::memset(data_, 0xFF, bytes);  // NaN: reading what nothing wrote shows
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) ::operator delete (data_, std::align_val_t{256});
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : data_(new std::byte[bytes]), bytes_(bytes) {}

PinnedBuffer::~PinnedBuffer() {
  delete[] data_;
}

Recording::~Recording() = default;

struct Stream::Timing {};

Stream::Stream(bool programmatic, const std::string&) : programmatic_(programmatic) {}
Stream::~Stream() = default;

void Stream::check_work(int, const char* what) const {
  if (faults().failed)
    throw Error(ErrorCode::kDevice, device_failure_text(what, "an injected fault", trail_));
}

void Stream::after_launch(int code, const char* stage) {
  check_work(code, stage);
  trail_.add(stage);
  Faults& f = faults();
  f.failed = f.failed || (f.launches_to_failure != 0 && --f.launches_to_failure == 0);
}

void Stream::upload(void* device, const void* host, std::size_t bytes) {
  check_work(0, "an upload");
  if (bytes != 0) std::memcpy(device, host, bytes);
}
void Stream::download(void* host, const void* device, std::size_t bytes) {
  check_work(0, "a download");
  if (bytes != 0) std::memcpy(host, device, bytes);
}
void Stream::copy_rows(void* to,
                       std::size_t to_stride,
                       const void* from,
                       std::size_t from_stride,
                       std::size_t row_bytes,
                       std::size_t count) {
  check_work(0, "copying state rows");
  for (std::size_t i = 0; i < count; ++i)
    std::memcpy(static_cast<std::byte*>(to) + i * to_stride,
                static_cast<const std::byte*>(from) + i * from_stride, row_bytes);
}
void Stream::copy_device(void* to, const void* from, std::size_t bytes) {
  check_work(0, "a device copy");
  std::memmove(to, from, bytes);
}
void Stream::clear(void* device, std::size_t bytes) {
  check_work(0, "clearing memory");
  std::memset(device, 0, bytes);
}
void Stream::synchronize(const char* stage) {
  check_work(0, stage);
  trail_ = {};
}
bool Stream::can_record() const {
  return false;
}
void Stream::begin_recording() {}
Recording Stream::end_recording() {
  return {};
}
void Stream::replay(const Recording&) {}

Mark::Mark() = default;
Mark::~Mark() = default;
void Mark::set(Stream&) {}
void Mark::hold(Stream&) {}
void Mark::wait() {}

}  // namespace ds4::cuda
