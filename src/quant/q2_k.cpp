#include "quant/q2_k.h"

#include "quant/affine.h"
#include "quant/weights.h"
#include "tensor/float16.h"

namespace ds4::quant {

namespace {

constexpr std::size_t kHalfValues = 128;  // each half of a block interleaves its codes on its own
constexpr std::size_t kPlane = 32;        // values that share one pair of bits in qs
constexpr std::size_t kSubValues = 16;

}  // namespace

void Q2K::decode(const Block& block, std::span<float, kValues> out) {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  for (std::size_t i = 0; i < kValues; ++i) {
    const std::size_t half = i / kHalfValues;
    const std::size_t plane = i % kHalfValues / kPlane;
    const int q = (block.qs[half * kPlane + i % kPlane] >> (2 * plane)) & 3;
    const std::uint8_t scale = block.scales[i / kSubValues];
    out[i] = d * static_cast<float>(scale & 15) * static_cast<float>(q) -
             dmin * static_cast<float>(scale >> 4);
  }
}

void Q2K::encode(std::span<const float, kValues> values,
                 std::span<const float> importance,
                 Block& block) {
  const std::array weights = error_weights<kValues>(importance);
  const AffineEncoder<kSubBlocks, kSubValues, 3, 15> encoder(values, weights);
  block.d = encoder.d();
  block.dmin = encoder.dmin();
  for (std::size_t s = 0; s < kSubBlocks; ++s)
    block.scales[s] = static_cast<std::uint8_t>(encoder.scales()[s] | (encoder.mins()[s] << 4));
  block.qs.fill(0);
  for (std::size_t i = 0; i < kValues; ++i) {
    const std::size_t half = i / kHalfValues;
    const std::size_t plane = i % kHalfValues / kPlane;
    std::uint8_t& byte = block.qs[half * kPlane + i % kPlane];
    byte = static_cast<std::uint8_t>(byte | (encoder.codes()[i] << (2 * plane)));
  }
}

}  // namespace ds4::quant
