#pragma once
#include <array>
#include <cstdint>

#include "quant/format.h"

namespace ds4::quant {

// 32 values as signed bytes times one f16 scale: value = d * q.
// NOLINTNEXTLINE(readability-identifier-naming): the name of the format.
struct Q8_0 {
  static constexpr ElementType kType = ElementType::kQ8_0;
  static constexpr std::size_t kValues = 32;
  struct Block {
    std::uint16_t d;  // f16 bits
    std::array<std::int8_t, kValues> q;
  };
  static void decode(const Block& block, std::span<float, kValues> out);
  static void encode(std::span<const float, kValues> values,
                     std::span<const float> importance,
                     Block& block);
};
static_assert(sizeof(Q8_0::Block) == 34, "GGUF fixes this layout");
static_assert(Format<Q8_0>);

}  // namespace ds4::quant
