#include "quant/q8_0.h"

#include <algorithm>
#include <cmath>

#include "quant/weights.h"
#include "tensor/float16.h"

namespace ds4::quant {

namespace {

constexpr float kLargest = 127.0F;
constexpr float kF16Largest = 65504.0F;

// Fills `block` with the nearest codes at the f16 scale next to `scale` and returns the weighted
// squared error.
float quantize(std::span<const float, Q8_0::kValues> values,
               const std::array<float, Q8_0::kValues>& weights,
               float scale,
               Q8_0::Block& block) {
  block.d = f32_to_f16(std::min(scale, kF16Largest));
  const float stored = f16_to_f32(block.d);
  const float inverse = stored > 0 ? 1 / stored : 0.0F;
  float error = 0;
  for (std::size_t i = 0; i < Q8_0::kValues; ++i) {
    const float q = std::clamp(std::nearbyint(values[i] * inverse), -kLargest, kLargest);
    block.q[i] = static_cast<std::int8_t>(q);
    const float difference = stored * q - values[i];
    error += weights[i] * difference * difference;
  }
  return error;
}

}  // namespace

void Q8_0::decode(const Block& block, std::span<float, kValues> out) {
  const float d = f16_to_f32(block.d);
  for (std::size_t i = 0; i < kValues; ++i)
    out[i] = d * static_cast<float>(block.q[i]);
}

void Q8_0::encode(std::span<const float, kValues> values,
                  std::span<const float> importance,
                  Block& block) {
  const std::array weights = error_weights<kValues>(importance);
  float largest = 0;
  for (const float value : values)
    largest = std::max(largest, std::abs(value));
  const float error = quantize(values, weights, largest / kLargest, block);
  if (error == 0) return;
  // The best scale for these codes, by least squares; kept when its own codes are better.
  float product = 0;
  float square = 0;
  for (std::size_t i = 0; i < kValues; ++i) {
    const auto q = static_cast<float>(block.q[i]);
    product += weights[i] * q * values[i];
    square += weights[i] * q * q;
  }
  if (!(square > 0)) return;
  Block refined;
  if (quantize(values, weights, product / square, refined) < error) block = refined;
}

}  // namespace ds4::quant
