#pragma once
#include <bit>
#include <cstdint>

namespace ds4 {

// The small float formats of weights and caches, each as its bits, with exact conversions to f32
// and round-to-nearest-even from it.  Pure functions; usable from any thread and in constant
// expressions.

constexpr float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// NaN stays NaN; overflow goes to infinity.
constexpr std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

constexpr float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31;
  const std::uint32_t mantissa = bits & 0x3FF;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // Zero and subnormals: mantissa * 2^-24, exact in f32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

constexpr std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000);
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return static_cast<std::uint16_t>(sign | 0x7E00);
  if (magnitude >= 0x477FF000)
    return static_cast<std::uint16_t>(sign | 0x7C00);  // rounds past 65504
  if (magnitude < 0x38800000) {
    // Below 2^-14: adding 0.5 leaves a mantissa of multiples of 2^-24, rounded to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000));
  }
  const std::uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

// E8M0: a power of two, 2^(code - 127).  Code 255 is NaN by the standard: readers refuse it.
constexpr float e8m0_to_f32(std::uint8_t code) {
  return std::bit_cast<float>(code == 0 ? 0x00400000U : static_cast<std::uint32_t>(code) << 23);
}

// E4M3FN: sign, 4 exponent bits, 3 mantissa bits; largest value 448; 0x7F and 0xFF are NaN.
constexpr float e4m3_to_f32(std::uint8_t code) {
  const std::uint32_t exponent = (code >> 3) & 15;
  const std::uint32_t mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::bit_cast<float>(0x7FC00000U);
  const float magnitude = exponent == 0
                              ? static_cast<float>(mantissa) * 0x1p-9F
                              : std::bit_cast<float>(((exponent + 120) << 23) | (mantissa << 20));
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// Nearest E4M3FN code, ties to the even mantissa, clamped to +-448.  NaN becomes 0x7F.
constexpr std::uint8_t f32_to_e4m3(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>((bits >> 24) & 0x80);
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return 0x7F;
  if (magnitude >= 0x43E00000) return static_cast<std::uint8_t>(sign | 0x7E);  // >= 448
  if (magnitude < 0x3C800000) {
    // Below 2^-6: adding 2^14 leaves multiples of 2^-9 in the mantissa, rounded to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 16384.0F;
    return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x46800000));
  }
  const std::uint32_t rounded = magnitude + 0x7FFFF + ((magnitude >> 20) & 1);
  return static_cast<std::uint8_t>(sign | ((rounded >> 20) - (120U << 3)));
}

// E2M1: codes 0..7 stand for 0, 0.5, 1, 1.5, 2, 3, 4, 6; bit 3 is the sign.
constexpr float e2m1_to_f32(std::uint8_t code) {
  const std::uint32_t exponent = (code >> 1) & 3;
  const std::uint32_t mantissa = code & 1;
  const float magnitude = exponent == 0
                              ? static_cast<float>(mantissa) * 0.5F
                              : std::bit_cast<float>(((exponent + 126) << 23) | (mantissa << 22));
  return (code & 8) != 0 ? -magnitude : magnitude;
}

// Nearest E2M1 code, ties to the even code, clamped to +-6.
constexpr std::uint8_t f32_to_e2m1(float value) {
  const auto sign = static_cast<std::uint8_t>(value < 0 ? 8 : 0);
  const float a = value < 0 ? -value : value;
  if (a <= 0.25F) return sign;
  if (a < 0.75F) return static_cast<std::uint8_t>(sign | 1);
  if (a <= 1.25F) return static_cast<std::uint8_t>(sign | 2);
  if (a < 1.75F) return static_cast<std::uint8_t>(sign | 3);
  if (a <= 2.5F) return static_cast<std::uint8_t>(sign | 4);
  if (a < 3.5F) return static_cast<std::uint8_t>(sign | 5);
  if (a <= 5.0F) return static_cast<std::uint8_t>(sign | 6);
  return static_cast<std::uint8_t>(sign | 7);
}

// ceil(log2(value)) of a positive finite f32 from its bits: a logarithm's rounding can be one off
// next to a power of two, which would double a block's scale.
constexpr int ceil_log2(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const int exponent = static_cast<int>((bits >> 23) & 255) - 127;
  return exponent + ((bits & 0x7FFFFF) != 0 ? 1 : 0);
}

}  // namespace ds4
