#pragma once
#include <array>
#include <cstdint>

#include "quant/format.h"

namespace ds4::quant {

// 256 values in 8 groups of 32, about two bits each.  A group is four sub-groups of 8 values; each
// has the magnitudes of one codebook row and signs of even parity:
//   value = d * (2 * scale + 1) / 8 * magnitude * sign, with a 4-bit scale per group.
struct IQ2XXS {
  static constexpr ElementType kType = ElementType::kIQ2XXS;
  static constexpr std::size_t kValues = 256;
  static constexpr std::size_t kGroups = 8;
  struct Block {
    std::uint16_t d;  // f16 bits
    // Four halves a group: the first two hold four codebook rows (bytes, little-endian), the last
    // two a 32-bit word of four 7-bit sign indices (low bits first) and the scale in bits 28..31.
    std::array<std::uint16_t, kValues / 8> qs;
  };
  // One group taken apart.
  struct Group {
    std::array<std::uint8_t, 4> rows;   // into kIq2XxsGrid
    std::array<std::uint8_t, 4> signs;  // sign bits, from kIq2XxsSigns
    std::uint8_t scale;                 // 4 bits
  };
  static Group group(const Block& block, std::size_t index);
  static void decode(const Block& block, std::span<float, kValues> out);
  static void encode(std::span<const float, kValues> values,
                     std::span<const float> importance,
                     Block& block);
};
static_assert(sizeof(IQ2XXS::Block) == 66, "GGUF fixes this layout");
static_assert(Format<IQ2XXS>);

}  // namespace ds4::quant
