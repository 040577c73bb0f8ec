#pragma once
#include <array>
#include <cstdint>

#include "quant/format.h"

namespace ds4::quant {

// 32 values as E2M1 codes times one power of two: value = e2m1(code) * 2^(e - 127).
struct MXFP4 {
  static constexpr ElementType kType = ElementType::kMXFP4;
  static constexpr std::size_t kValues = 32;
  struct Block {
    std::uint8_t e;  // E8M0; 255 is NaN
    // Low nibbles are values 0..15, high nibbles values 16..31.
    std::array<std::uint8_t, kValues / 2> qs;
  };
  static void decode(const Block& block, std::span<float, kValues> out);
  static void encode(std::span<const float, kValues> values,
                     std::span<const float> importance,
                     Block& block);
};
static_assert(sizeof(MXFP4::Block) == 17, "GGUF fixes this layout");
static_assert(Format<MXFP4>);

}  // namespace ds4::quant
