// Ladders of kernels: what a case must do at least, the card's ceilings, and each version checked
// against a naive one and timed.  Needs a card and no file.
//
//   kernel_ladder             everything; minutes
//   kernel_ladder --few       products of 1 to 32 rows
//   kernel_ladder --check     only whether results are right, at small sizes; exits with 1 if not
#include <cstdint>
#include <cstring>

#include "cuda/platform.cuh"
#include "ladder.h"

namespace ds4::ladder {

namespace {

DS4_KERNEL void copy(const cuda::Words4* from, cuda::Words4* to, std::size_t count) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride)
    to[i] = from[i];
}

// 16 independent tiles a warp, no memory.
DS4_KERNEL void multiply(std::uint32_t rounds, float* out) {
  float sum[16][4] = {};
  std::uint32_t a[4] = {threadIdx.x, threadIdx.x * 3, threadIdx.x * 5, threadIdx.x * 7};
  std::uint32_t b[2] = {threadIdx.x * 11, threadIdx.x * 13};
  for (std::uint32_t r = 0; r < rounds; ++r) {
#pragma unroll
    for (int i = 0; i < 16; ++i)
      cuda::multiply_tile(sum[i], a, b);
    a[0] ^= r;
  }
  float total = 0;
  for (int i = 0; i < 16; ++i)
    total += sum[i][0] + sum[i][1] + sum[i][2] + sum[i][3];
  out[std::size_t{blockIdx.x} * blockDim.x + threadIdx.x] = total;
}

}  // namespace

Ceilings ceilings(cuda::Stream& stream) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  Ceilings most;
  {
    Device<cuda::Words4> from(kBytes / 16);
    Device<cuda::Words4> to(kBytes / 16);
    const double seconds = median_seconds(stream, [&] {
      cuda::launch(stream, "copy", {.grid_x = 132 * 8, .threads = 512}, copy, from.get(), to.get(),
                   kBytes / 16);
    });
    most.bytes_per_second = 2.0 * kBytes / seconds;
  }
  constexpr std::uint32_t kRounds = 4000;
  for (const std::uint32_t warps : {4U, 8U, 16U}) {
    Device<float> out(132 * warps * 32);
    const double seconds = median_seconds(stream, [&] {
      cuda::launch(stream, "multiply", {.grid_x = 132, .threads = warps * 32}, multiply, kRounds,
                   out.get());
    });
    const double flops = 132.0 * warps * kRounds * 16 * 16 * 8 * 16 * 2 / seconds;
    std::printf("mma.sync, %2u warps a multiprocessor: %.0f TF/s\n", warps, flops * 1e-12);
    most.flops = std::max(most.flops, flops);
  }
  return most;
}

}  // namespace ds4::ladder

int main(int argument_count, char** arguments) {
  const bool check_only = argument_count > 1 && std::strcmp(arguments[1], "--check") == 0;
  const bool only_few = argument_count > 1 && std::strcmp(arguments[1], "--few") == 0;
  ds4::cuda::check(cudaSetDevice(0), "selecting the card");
  cudaDeviceProp properties{};
  ds4::cuda::check(cudaGetDeviceProperties(&properties, 0), "reading the card's properties");
  std::printf("%s, %d multiprocessors, %zu KiB shared a block\n", properties.name,
              properties.multiProcessorCount, properties.sharedMemPerBlockOptin / 1024);
  ds4::cuda::Stream stream(properties.major >= 9);
  if (check_only) {
    ds4::ladder::check_tiles(stream);
    ds4::ladder::experts_ladder(stream, {1e12, 1e15}, true);
    ds4::ladder::attend_ladder(stream, {1e12, 1e15}, {0, 30720});
    std::printf("%d wrong\n", ds4::ladder::wrong_results);
    return ds4::ladder::wrong_results == 0 ? 0 : 1;
  }
  const ds4::ladder::Ceilings most = ds4::ladder::ceilings(stream);
  std::printf("copy: %.2f TB/s\n", most.bytes_per_second * 1e-12);
  ds4::ladder::experts_ladder(stream, most, false);
  if (only_few) return ds4::ladder::wrong_results == 0 ? 0 : 1;
  ds4::ladder::tile_ladder(stream, most);
  ds4::ladder::attend_ladder(stream, most, {0, 30720, 126976});
  return ds4::ladder::wrong_results == 0 ? 0 : 1;
}
