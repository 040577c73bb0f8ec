#pragma once
#include "cuda/platform.cuh"

namespace ds4::cuda {

// Sums over a warp or a block in a fixed order, the result in every thread.

DS4_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask != 0; mask /= 2)
    value += shuffle_xor(value, mask);
  return value;
}

DS4_DEVICE float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask != 0; mask /= 2)
    value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

// `partial` is shared memory for 32 floats; free again after the next block_sync().
DS4_DEVICE float block_sum(float value, float* partial) {
  value = warp_sum(value);
  const std::uint32_t warp = threadIdx.x / 32;
  block_sync();
  if (threadIdx.x % 32 == 0) partial[warp] = value;
  block_sync();
  float sum = 0;
  for (std::uint32_t w = 0; w < blockDim.x / 32; ++w)
    sum += partial[w];
  return sum;
}

// Activations in shared memory stand with four floats of padding after every 16, so that lanes 16
// columns apart do not meet in one bank.
DS4_DEVICE std::uint32_t padded(std::uint32_t column) {
  return column + column / 16 * 4;
}

}  // namespace ds4::cuda
