#include <cstring>

#include "cuda/device.h"

namespace ds4::cuda {

void check(int, const char*) {}

int device_count() {
  return 1;
}

DeviceInfo open_device() {
  return {.name = "emulated on the host",
          .multiprocessors = 4,
          .shared_bytes_max = 227 * 1024,
          .memory_bytes = std::uint64_t{1} << 34,
          .free_bytes = std::uint64_t{1} << 34,
          .programmatic_launch = false};
}

DeviceBuffer::DeviceBuffer(std::size_t bytes, const char*) : bytes_(bytes) {
  if (bytes == 0) return;
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
void Stream::after_launch(const char*) {}

void Stream::upload(void* device, const void* host, std::size_t bytes) {
  if (bytes != 0) std::memcpy(device, host, bytes);
}
void Stream::download(void* host, const void* device, std::size_t bytes) {
  if (bytes != 0) std::memcpy(host, device, bytes);
}
void Stream::copy_rows(void* to,
                       std::size_t to_stride,
                       const void* from,
                       std::size_t from_stride,
                       std::size_t row_bytes,
                       std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    std::memcpy(static_cast<std::byte*>(to) + i * to_stride,
                static_cast<const std::byte*>(from) + i * from_stride, row_bytes);
}
void Stream::copy_device(void* to, const void* from, std::size_t bytes) {
  std::memmove(to, from, bytes);
}
void Stream::clear(void* device, std::size_t bytes) {
  std::memset(device, 0, bytes);
}
void Stream::synchronize(const char*) {}
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
