#pragma once
#include <array>
#include <cstdint>

#include "quant/format.h"

namespace ds4::quant {

// 256 values in 8 sub-blocks of 32, four bits each: value = d * scale * q - dmin * min, with a
// 6-bit scale and a 6-bit min per sub-block.
struct Q4K {
  static constexpr ElementType kType = ElementType::kQ4K;
  static constexpr std::size_t kValues = 256;
  static constexpr std::size_t kSubBlocks = 8;
  struct Block {
    std::uint16_t d;                      // f16 bits: scale of the scales
    std::uint16_t dmin;                   // f16 bits: scale of the mins
    std::array<std::uint8_t, 12> scales;  // packed: see scale_and_min()
    // Values 64g + i are low nibbles, 64g + 32 + i high nibbles of qs[32g + i] (g < 4, i < 32).
    std::array<std::uint8_t, kValues / 2> qs;
  };
  struct ScaleMin {
    std::uint8_t scale;  // 6 bits
    std::uint8_t min;    // 6 bits
  };
  // Unpacks sub-block `index` (< 8): the first four lie whole in the low 6 bits of bytes 0..3
  // (scales) and 4..7 (mins); the last four have their low nibbles in bytes 8..11 and their high
  // two bits on top of the first eight bytes.
  static constexpr ScaleMin scale_and_min(const Block& block, std::size_t index) {
    const auto& s = block.scales;
    if (index < 4) {
      return {static_cast<std::uint8_t>(s[index] & 63),
              static_cast<std::uint8_t>(s[index + 4] & 63)};
    }
    return {static_cast<std::uint8_t>((s[index + 4] & 15) | ((s[index - 4] >> 6) << 4)),
            static_cast<std::uint8_t>((s[index + 4] >> 4) | ((s[index] >> 6) << 4))};
  }
  static void decode(const Block& block, std::span<float, kValues> out);
  static void encode(std::span<const float, kValues> values,
                     std::span<const float> importance,
                     Block& block);
};
static_assert(sizeof(Q4K::Block) == 144, "GGUF fixes this layout");
static_assert(Format<Q4K>);

}  // namespace ds4::quant
