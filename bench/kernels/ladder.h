#pragma once
#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include <cuda_runtime.h>

#include "cuda/device.h"

namespace ds4::ladder {

// Memory of the card for one case; freed with it.
template <class T>
class Device {
 public:
  explicit Device(std::size_t count) : count_(count) {
    cuda::check(cudaMalloc(&data_, count * sizeof(T)), "allocating");
  }
  // Streams of the cases do not wait for copies and fills: these are complete when they return.
  explicit Device(const std::vector<T>& from) : Device(from.size()) {
    cuda::check(cudaMemcpy(data_, from.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
                "uploading");
    cuda::check(cudaDeviceSynchronize(), "uploading");
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { static_cast<void>(cudaFree(data_)); }
  T* get() const { return data_; }
  std::size_t count() const { return count_; }
  // Every byte 0xFF: NaN, so that what nothing wrote shows.
  void poison() {
    cuda::check(cudaMemset(data_, 0xFF, count_ * sizeof(T)), "poisoning");
    cuda::check(cudaDeviceSynchronize(), "poisoning");
  }
  std::vector<T> download() const {
    std::vector<T> to(count_);
    cuda::check(cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
                "downloading");
    return to;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

// Median seconds of `work` on the stream, of `repeats` after one that is thrown away.
inline double median_seconds(cuda::Stream& stream,
                             const std::function<void()>& work,
                             int repeats = 7) {
  cudaEvent_t from;
  cudaEvent_t to;
  cudaEventCreate(&from);
  cudaEventCreate(&to);
  work();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    cudaEventRecord(from, stream.get());
    work();
    cudaEventRecord(to, stream.get());
    cuda::check(cudaEventSynchronize(to), "timing");
    float ms = 0;
    cudaEventElapsedTime(&ms, from, to);
    seconds.push_back(ms * 1e-3);
  }
  cudaEventDestroy(from);
  cudaEventDestroy(to);
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// What the card does at best, measured by ceilings().
struct Ceilings {
  double bytes_per_second = 0;  // read plus written by a copy
  double flops = 0;             // mma.sync f16 with f32 sums, operands in registers
};
Ceilings ceilings(cuda::Stream& stream);

// Results that were wrong so far.
inline int wrong_results = 0;
// What to print behind an error.
inline const char* verdict(double error, double limit) {
  if (error < limit) return "";
  ++wrong_results;
  return "  WRONG";
}

void tile_ladder(cuda::Stream& stream, const Ceilings& most);
// Every format, width and use of a tile product, small, both ways.
void check_tiles(cuda::Stream& stream);
// Experts and dense products of a few rows.
void experts_ladder(cuda::Stream& stream, const Ceilings& most, bool check_only);
// Positions that chunks begin at.
void attend_ladder(cuda::Stream& stream,
                   const Ceilings& most,
                   const std::vector<std::uint32_t>& firsts);

}  // namespace ds4::ladder
