#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace ds4::quant {

// The weights of one block's squared errors, scaled so that the largest is 1: the searches below
// then neither overflow nor underflow whatever unit the caller's importance is in.  All equal when
// the importance is empty or all zero.  Internal to the encoders.
template <std::size_t kValues>
std::array<float, kValues> error_weights(std::span<const float> importance) {
  std::array<float, kValues> weights;
  weights.fill(1.0F);
  if (importance.empty()) return weights;
  const float largest = *std::max_element(importance.begin(), importance.end());
  if (!(largest > 0)) return weights;
  // A floor keeps a value that never mattered in the sample from becoming arbitrary.
  constexpr float kFloor = 1e-6F;
  for (std::size_t i = 0; i < kValues; ++i)
    weights[i] = std::max(importance[i] / largest, kFloor);
  return weights;
}

}  // namespace ds4::quant
