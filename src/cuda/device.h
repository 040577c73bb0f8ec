#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "cuda/launch_trail.h"

struct CUstream_st;
struct CUgraphExec_st;

namespace ds4::cuda {

// The card and what is allocated on it: thin owners over the CUDA runtime.  Declared without CUDA's
// headers, so that host code and the host emulation of kernels use the same names; device.cpp and
// emulation/device_host.cpp implement them.  Confined to one thread.

// Throws Error(kOutOfMemory | kDevice) naming `stage` unless `code` (a cudaError_t) is success.
void check(int code, const char* stage);

// What the card is.
struct DeviceInfo {
  std::string name;
  std::uint32_t multiprocessors = 0;
  std::size_t shared_bytes_max = 0;  // of one block, opted in
  std::uint64_t memory_bytes = 0;
  std::uint64_t free_bytes = 0;
  bool programmatic_launch = false;  // sm_90 and later
};

// Cards that this process can use.  Never throws: no driver means none.
int device_count();
// Makes card 0 current and describes it.  Throws Error(kUnsupported) when there is none.
DeviceInfo open_device();

// Device memory; move-only.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // Throws Error(kOutOfMemory) with `what` and the bytes asked for.
  DeviceBuffer(std::size_t bytes, const char* what);
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Page-locked host memory, which copies run beside kernels from; move-only.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t bytes);
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PinnedBuffer();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// A recorded sequence of launches; move-only.
class Recording {
 public:
  Recording() = default;
  Recording(CUgraphExec_st* graph, const LaunchTrail& trail) : graph_(graph), trail_(trail) {}
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  Recording(Recording&& other) noexcept
      : graph_(std::exchange(other.graph_, nullptr)),
        trail_(other.trail_) {}
  Recording& operator=(Recording&& other) noexcept {
    std::swap(graph_, other.graph_);
    std::swap(trail_, other.trail_);
    return *this;
  }
  ~Recording();  // NOLINT(performance-trivially-destructible): trivial in the emulation alone
  CUgraphExec_st* get() const { return graph_; }
  const LaunchTrail& trail() const { return trail_; }

 private:
  CUgraphExec_st* graph_ = nullptr;
  LaunchTrail trail_;
};

// An ordered queue of launches and copies.  Errors of earlier work surface at a later call, whose
// message names the launches since the last synchronize().  With a `stage_times` file every launch
// waits, so that an error names its stage, and at the end the file gets seconds, launches, the rows
// of the step and the stage, a line each.
class Stream {
 public:
  explicit Stream(bool programmatic, const std::string& stage_times = {});
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream();

  CUstream_st* get() const { return stream_; }
  bool programmatic() const { return programmatic_; }
  // Launches from now on belong to a step of so many rows.
  void count_for(std::uint32_t rows) { rows_ = rows; }
  // For launch(): `code` is what starting the kernel returned.
  void after_launch(int code, const char* stage);

  void upload(void* device, const void* host, std::size_t bytes);
  void download(void* host, const void* device, std::size_t bytes);
  // `count` rows of `row_bytes`, with a stride on each side; either side may be the device.
  void copy_rows(void* to,
                 std::size_t to_stride,
                 const void* from,
                 std::size_t from_stride,
                 std::size_t row_bytes,
                 std::size_t count);
  void copy_device(void* to, const void* from, std::size_t bytes);
  void clear(void* device, std::size_t bytes);
  // Waits for everything.  Throws Error(kDevice) when any of it failed.
  void synchronize(const char* stage);

  // Launches between the two are kept, not run; returns nothing runnable where recording is not
  // supported, and then they ran.
  bool can_record() const;
  void begin_recording();
  Recording end_recording();
  void replay(const Recording& recording);

 private:
  CUstream_st* stream_ = nullptr;
  bool programmatic_ = false;
  std::uint32_t rows_ = 0;
  [[maybe_unused]] bool recording_ = false;
  // Throws unless `code` is success; what this call or an earlier launch did wrong.
  void check_work(int code, const char* what) const;

  LaunchTrail trail_;       // since the last synchronize()
  LaunchTrail kept_trail_;  // of the recording under way
  struct Timing;
  std::unique_ptr<Timing> timing_;  // null: launches do not wait
};

// A point on a stream that another thread of work can be waited at.
class Mark {
 public:
  Mark();
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  ~Mark();  // NOLINT(performance-trivially-destructible): trivial in the emulation alone
  void set(Stream& stream);
  void wait();
  // What `stream` is given from now on waits for the mark.
  void hold(Stream& stream);

 private:
  [[maybe_unused]] void* event_ = nullptr;
};

}  // namespace ds4::cuda
