#pragma once
#include "cuda/platform.cuh"

namespace ds4::cuda {

// silu(min(gate, limit)) * clamp(up, limit) * weight
DS4_DEVICE float activated(float gate, float up, float limit, float weight) {
  const float g = fminf(gate, limit);
  const float u = fminf(fmaxf(up, -limit), limit);
  return g / (1.0F + expf(-g)) * u * weight;
}

}  // namespace ds4::cuda
