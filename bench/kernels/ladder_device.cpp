// The few host functions that kernels' launchers need, without the engine's libraries, so that the
// ladder is one file that runs wherever a driver is.
#include <cstdio>
#include <cstdlib>

#include <cuda_runtime.h>

#include "base/error.h"
#include "cuda/device.h"

namespace ds4::internal {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "check failed: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

}  // namespace ds4::internal

namespace ds4::cuda {

void check(int code, const char* stage) {
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", stage, cudaGetErrorString(static_cast<cudaError_t>(code)));
  std::exit(1);
}

struct Stream::Timing {};

Stream::Stream(bool programmatic, const std::string&) : programmatic_(programmatic) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
}
Stream::~Stream() {
  static_cast<void>(cudaStreamDestroy(stream_));
}
void Stream::after_launch(int code, const char* stage) {
  check(code, stage);
}
void Stream::synchronize(const char* stage) {
  check(cudaStreamSynchronize(stream_), stage);
}

}  // namespace ds4::cuda
