#include "quant/mxfp4.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/weights.h"
#include "tensor/float16.h"

namespace ds4::quant {

namespace {

constexpr float kLargest = 6.0F;  // of E2M1
constexpr int kExponentBias = 127;
constexpr int kCodeMax = 254;  // 255 is NaN

// Fills `block` with the nearest codes at scale 2^(e - 127), returns the weighted squared error.
float quantize(std::span<const float, MXFP4::kValues> values,
               const std::array<float, MXFP4::kValues>& weights,
               std::uint8_t e,
               MXFP4::Block& block) {
  constexpr std::size_t kHalf = MXFP4::kValues / 2;
  block.e = e;
  const float scale = e8m0_to_f32(e);
  const float inverse = 1 / scale;  // a power of two: exact, and finite for every e
  float error = 0;
  std::array<std::uint8_t, MXFP4::kValues> codes;
  for (std::size_t i = 0; i < MXFP4::kValues; ++i) {
    codes[i] = f32_to_e2m1(values[i] * inverse);
    const float difference = e2m1_to_f32(codes[i]) * scale - values[i];
    error += weights[i] * difference * difference;
  }
  for (std::size_t i = 0; i < kHalf; ++i)
    block.qs[i] = static_cast<std::uint8_t>(codes[i] | (codes[i + kHalf] << 4));
  return error;
}

}  // namespace

void MXFP4::decode(const Block& block, std::span<float, kValues> out) {
  const float scale = e8m0_to_f32(block.e);
  for (std::size_t i = 0; i < kValues / 2; ++i) {
    out[i] = e2m1_to_f32(block.qs[i] & 15) * scale;
    out[i + kValues / 2] = e2m1_to_f32(block.qs[i] >> 4) * scale;
  }
}

void MXFP4::encode(std::span<const float, kValues> values,
                   std::span<const float> importance,
                   Block& block) {
  const std::array weights = error_weights<kValues>(importance);
  float largest = 0;
  for (const float value : values)
    largest = std::max(largest, std::abs(value));
  if (!(largest > 0)) {
    block = {};
    return;
  }
  // The smallest scale that clips nothing, and the next smaller ones that clip the largest values
  // but resolve the others better.
  const int widest = ceil_log2(largest / kLargest) + kExponentBias;
  float best = std::numeric_limits<float>::infinity();
  for (int e = widest; e >= widest - 2; --e) {
    Block candidate;
    const auto code = static_cast<std::uint8_t>(std::clamp(e, 0, kCodeMax));
    const float error = quantize(values, weights, code, candidate);
    if (error < best) {
      best = error;
      block = candidate;
    }
  }
}

}  // namespace ds4::quant
