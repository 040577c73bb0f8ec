#include "quant/q4_k.h"

#include "quant/affine.h"
#include "quant/weights.h"
#include "tensor/float16.h"

namespace ds4::quant {

namespace {

constexpr std::size_t kSubValues = 32;

// The inverse of Q4K::scale_and_min() for all sub-blocks.
void pack_scales(const std::array<std::uint8_t, Q4K::kSubBlocks>& scales,
                 const std::array<std::uint8_t, Q4K::kSubBlocks>& mins,
                 Q4K::Block& block) {
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t high = i + 4;
    block.scales[i] = static_cast<std::uint8_t>(scales[i] | ((scales[high] >> 4) << 6));
    block.scales[high] = static_cast<std::uint8_t>(mins[i] | ((mins[high] >> 4) << 6));
    block.scales[i + 8] = static_cast<std::uint8_t>((scales[high] & 15) | ((mins[high] & 15) << 4));
  }
}

}  // namespace

void Q4K::decode(const Block& block, std::span<float, kValues> out) {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  for (std::size_t s = 0; s < kSubBlocks; ++s) {
    const ScaleMin packed = scale_and_min(block, s);
    const float scale = d * static_cast<float>(packed.scale);
    const float min = dmin * static_cast<float>(packed.min);
    for (std::size_t i = 0; i < kSubValues; ++i) {
      const std::uint8_t byte = block.qs[s / 2 * kSubValues + i];
      const int q = s % 2 == 0 ? byte & 15 : byte >> 4;
      out[s * kSubValues + i] = scale * static_cast<float>(q) - min;
    }
  }
}

void Q4K::encode(std::span<const float, kValues> values,
                 std::span<const float> importance,
                 Block& block) {
  const std::array weights = error_weights<kValues>(importance);
  const AffineEncoder<kSubBlocks, kSubValues, 15, 63> encoder(values, weights);
  block.d = encoder.d();
  block.dmin = encoder.dmin();
  pack_scales(encoder.scales(), encoder.mins(), block);
  const auto& codes = encoder.codes();
  for (std::size_t pair = 0; pair < kSubBlocks / 2; ++pair) {
    const std::size_t low = pair * 2 * kSubValues;
    for (std::size_t i = 0; i < kSubValues; ++i) {
      block.qs[pair * kSubValues + i] =
          static_cast<std::uint8_t>(codes[low + i] | (codes[low + kSubValues + i] << 4));
    }
  }
}

}  // namespace ds4::quant
