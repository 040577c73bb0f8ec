#include "cuda/device.h"

#include <chrono>
#include <fstream>
#include <map>

#include <cuda_runtime.h>
#include <fmt/format.h>

namespace ds4::cuda {

namespace {

std::string reason_text(cudaError_t error) {
  return fmt::format("{} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
}

std::string free_memory_text() {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return "unknown";
  return fmt::format("{} of {} MiB", free_bytes >> 20, total_bytes >> 20);
}

}  // namespace

void check(int code, const char* stage) {
  const auto error = static_cast<cudaError_t>(code);
  if (error == cudaSuccess) return;
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("{}: the card has no memory left, {} free; choose a smaller context, "
                            "fewer sessions or a smaller chunk",
                            stage, free_memory_text()));
  }
  throw Error(ErrorCode::kDevice, device_failure_text(stage, reason_text(error), {}));
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return 0;
  return count;
}

DeviceInfo open_device() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("backend 'cuda' finds no card ({}); install the NVIDIA driver or use "
                            "--backend cpu",
                            error == cudaSuccess ? "no device" : cudaGetErrorString(error)));
  }
  check(cudaSetDevice(0), "selecting the card");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "reading the card's properties");
  if (properties.major < 8) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{} has compute capability {}.{}; the CUDA backend needs 8.0",
                            properties.name, properties.major, properties.minor));
  }
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "reading the card's memory");
  return {.name = fmt::format("{} (sm_{}{})", properties.name, properties.major, properties.minor),
          .multiprocessors = static_cast<std::uint32_t>(properties.multiProcessorCount),
          .shared_bytes_max = properties.sharedMemPerBlockOptin,
          .memory_bytes = total_bytes,
          .free_bytes = free_bytes,
          .programmatic_launch = properties.major >= 9};
}

DeviceBuffer::DeviceBuffer(std::size_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("no device memory for {}: {} MiB asked for, {} free; choose a smaller "
                            "context, fewer sessions or a smaller chunk",
                            what, bytes >> 20, free_memory_text()));
  }
  check(error, what);
  data_ = static_cast<std::byte*>(data);
}

// Destructors cannot report: a failed context shows at the next synchronize().
DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) static_cast<void>(cudaFree(data_));
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("no page-locked host memory: {} MiB asked for", bytes >> 20));
  }
  check(error, "allocating page-locked memory");
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) static_cast<void>(cudaFreeHost(data_));
}

Recording::~Recording() {
  if (graph_ != nullptr) static_cast<void>(cudaGraphExecDestroy(graph_));
}

struct Stream::Timing {
  struct Entry {
    std::uint64_t launches = 0;
    double seconds = 0;
  };
  std::string path;
  std::map<std::pair<std::uint32_t, std::string>, Entry> stages;  // by rows and stage
  std::chrono::steady_clock::time_point last = std::chrono::steady_clock::now();
};

Stream::Stream(bool programmatic, const std::string& stage_times) : programmatic_(programmatic) {
  if (!stage_times.empty()) {
    timing_ = std::make_unique<Timing>();
    timing_->path = stage_times;
  }
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
}

Stream::~Stream() {
  static_cast<void>(cudaStreamDestroy(stream_));
  if (!timing_) return;
  std::ofstream file(timing_->path);
  for (const auto& [key, entry] : timing_->stages)
    file << entry.seconds << ' ' << entry.launches << ' ' << key.first << ' ' << key.second << '\n';
}

void Stream::check_work(int code, const char* what) const {
  const auto error = static_cast<cudaError_t>(code);
  if (error == cudaSuccess || error == cudaErrorMemoryAllocation) return check(code, what);
  throw Error(ErrorCode::kDevice, device_failure_text(what, reason_text(error), trail_));
}

void Stream::after_launch(int code, const char* stage) {
  check_work(code, stage);
  if (recording_) return kept_trail_.add(stage);
  trail_.add(stage);
  if (!timing_) return;
  check_work(cudaStreamSynchronize(stream_), stage);
  trail_ = {};
  const auto now = std::chrono::steady_clock::now();
  Timing::Entry& entry = timing_->stages[{rows_, stage}];
  ++entry.launches;
  entry.seconds += std::chrono::duration<double>(now - timing_->last).count();
  timing_->last = now;
}

void Stream::upload(void* device, const void* host, std::size_t bytes) {
  check_work(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "an upload");
}

void Stream::download(void* host, const void* device, std::size_t bytes) {
  check_work(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "a download");
}

void Stream::copy_rows(void* to,
                       std::size_t to_stride,
                       const void* from,
                       std::size_t from_stride,
                       std::size_t row_bytes,
                       std::size_t count) {
  check_work(cudaMemcpy2DAsync(to, to_stride, from, from_stride, row_bytes, count,
                               cudaMemcpyDefault, stream_),
             "copying state rows");
}

void Stream::copy_device(void* to, const void* from, std::size_t bytes) {
  check_work(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "a device copy");
}

void Stream::clear(void* device, std::size_t bytes) {
  check_work(cudaMemsetAsync(device, 0, bytes, stream_), "clearing memory");
}

void Stream::synchronize(const char* stage) {
  check_work(cudaStreamSynchronize(stream_), stage);
  trail_ = {};
}

bool Stream::can_record() const {
  return !timing_;
}

void Stream::begin_recording() {
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "recording a pass");
  recording_ = true;
  kept_trail_ = {};
}

Recording Stream::end_recording() {
  recording_ = false;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream_, &graph), "recording a pass");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
  static_cast<void>(cudaGraphDestroy(graph));
  check(error, "preparing a recorded pass");
  return Recording(exec, kept_trail_);
}

void Stream::replay(const Recording& recording) {
  check_work(cudaGraphLaunch(recording.get(), stream_), "replaying a pass");
  trail_.add(recording.trail());
}

Mark::Mark() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  event_ = event;
}

Mark::~Mark() {
  static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(event_)));
}

void Mark::set(Stream& stream) {
  check(cudaEventRecord(static_cast<cudaEvent_t>(event_), stream.get()), "recording an event");
}

void Mark::hold(Stream& stream) {
  check(cudaStreamWaitEvent(stream.get(), static_cast<cudaEvent_t>(event_), 0), "ordering streams");
}

void Mark::wait() {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(event_)), "waiting for a copy");
}

}  // namespace ds4::cuda
