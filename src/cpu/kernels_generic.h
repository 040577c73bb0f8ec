#pragma once
#include <array>
#include <cstddef>

#include "cpu/kernels.h"

// The loops behind Kernels, written so that compilers vectorise them; each kernels_<isa>.cpp
// includes this file and is compiled with that instruction set's flags.  Everything has internal
// linkage, so code built for one instruction set cannot stand in for another's.
namespace ds4::cpu {
namespace {

constexpr std::size_t kLanes = 32;

float dot_generic(const float* a, const float* b, std::size_t count) {
  std::array<float, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l)
      lanes[l] += a[i + l] * b[i + l];
  for (std::size_t l = 0; i + l < count; ++l)
    lanes[l] += a[i + l] * b[i + l];
  for (std::size_t half = kLanes / 2; half != 0; half /= 2)
    for (std::size_t l = 0; l < half; ++l)
      lanes[l] += lanes[l + half];
  return lanes[0];
}

void add_scaled_generic(float* sum, const float* a, float scale, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    sum[i] += scale * a[i];
}

}  // namespace
}  // namespace ds4::cpu
