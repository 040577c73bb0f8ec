#pragma once
#include <array>
#include <cstdint>

#include "quant/format.h"

namespace ds4::quant {

// 256 values in 16 sub-blocks of 16, two bits each: value = d * scale * q - dmin * min, with a
// 4-bit scale and a 4-bit min per sub-block.
struct Q2K {
  static constexpr ElementType kType = ElementType::kQ2K;
  static constexpr std::size_t kValues = 256;
  static constexpr std::size_t kSubBlocks = 16;
  struct Block {
    std::array<std::uint8_t, kSubBlocks> scales;  // low nibble scale, high nibble min
    // Values 128h + 32j + i (h < 2, j < 4, i < 32) are bits 2j, 2j + 1 of qs[32h + i].
    std::array<std::uint8_t, kValues / 4> qs;
    std::uint16_t d;     // f16 bits: scale of the scales
    std::uint16_t dmin;  // f16 bits: scale of the mins
  };
  static void decode(const Block& block, std::span<float, kValues> out);
  static void encode(std::span<const float, kValues> values,
                     std::span<const float> importance,
                     Block& block);
};
static_assert(sizeof(Q2K::Block) == 84, "GGUF fixes this layout");
static_assert(Format<Q2K>);

}  // namespace ds4::quant
