#include "tensor/float16.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

// Exhaustive: every code decodes to a value that encodes back to it.
TEST(Float16, EveryF16CodeRoundTrips) {
  for (std::uint32_t code = 0; code < 0x10000; ++code) {
    const float value = f16_to_f32(static_cast<std::uint16_t>(code));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f32_to_f16(value), code);
  }
}

TEST(Float16, F16RoundsHalfToEven) {
  for (std::uint32_t code = 0; code < 0x7BFF; ++code) {
    const double low = f16_to_f32(static_cast<std::uint16_t>(code));
    const double high = f16_to_f32(static_cast<std::uint16_t>(code + 1));
    const auto middle = static_cast<float>((low + high) / 2);  // exact in f32
    ASSERT_EQ(f32_to_f16(middle), code % 2 == 0 ? code : code + 1);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0F)), code);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 1e9F)), code + 1);
  }
  EXPECT_EQ(f32_to_f16(65519.0F), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7C00);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), 0xFC00);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::nanf("")))));
}

TEST(Float16, Bf16RoundTripsAndRoundsHalfToEven) {
  for (std::uint32_t code = 0; code < 0x7F7F; ++code) {
    const float low = bf16_to_f32(static_cast<std::uint16_t>(code));
    ASSERT_EQ(f32_to_bf16(low), code);
    const float middle = std::bit_cast<float>((code << 16) | 0x8000U);
    ASSERT_EQ(f32_to_bf16(middle), code % 2 == 0 ? code : code + 1);
  }
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::nanf("")))));
}

TEST(Float16, EveryE4m3CodeAndMidpoint) {
  for (std::uint32_t code = 0; code < 0x7F; ++code) {
    const float value = e4m3_to_f32(static_cast<std::uint8_t>(code));
    const std::uint32_t e = code >> 3;
    const std::uint32_t m = code & 7;
    const double expected =
        e == 0 ? m * std::ldexp(1.0, -9) : (1 + m / 8.0) * std::ldexp(1.0, static_cast<int>(e) - 7);
    ASSERT_EQ(value, expected);
    ASSERT_EQ(f32_to_e4m3(value), code);
    ASSERT_EQ(f32_to_e4m3(-value), code | 0x80);
    if (code == 0x7E) break;
    const float middle = (value + e4m3_to_f32(static_cast<std::uint8_t>(code + 1))) / 2;
    ASSERT_EQ(f32_to_e4m3(middle), code % 2 == 0 ? code : code + 1) << code;
    ASSERT_EQ(f32_to_e4m3(std::nextafter(middle, 0.0F)), code);
    ASSERT_EQ(f32_to_e4m3(std::nextafter(middle, 1e9F)), code + 1);
  }
  EXPECT_EQ(f32_to_e4m3(1e30F), 0x7E);
  EXPECT_EQ(f32_to_e4m3(-449.0F), 0xFE);
}

TEST(Float16, EveryE2m1CodeAndMidpoint) {
  constexpr float kValues[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (std::uint8_t code = 0; code < 8; ++code) {
    ASSERT_EQ(e2m1_to_f32(code), kValues[code]);
    ASSERT_EQ(f32_to_e2m1(kValues[code]), code);
    if (code != 0) {
      ASSERT_EQ(f32_to_e2m1(-kValues[code]), code | 8);
      ASSERT_EQ(e2m1_to_f32(code | 8), -kValues[code]);
    }
    if (code == 7) break;
    const float middle = (kValues[code] + kValues[code + 1]) / 2;
    ASSERT_EQ(f32_to_e2m1(middle), code % 2 == 0 ? code : code + 1);
    ASSERT_EQ(f32_to_e2m1(std::nextafter(middle, 0.0F)), code);
    ASSERT_EQ(f32_to_e2m1(std::nextafter(middle, 9.0F)), code + 1);
  }
  EXPECT_EQ(f32_to_e2m1(100.0F), 7);
}

TEST(Float16, CeilLog2AtPowersOfTwoAndBesideThem) {
  for (int k = -120; k <= 120; ++k) {
    const float power = std::ldexp(1.0F, k);
    ASSERT_EQ(ceil_log2(power), k);
    ASSERT_EQ(ceil_log2(std::nextafter(power, 1e38F)), k + 1);
    ASSERT_EQ(ceil_log2(std::nextafter(power, 0.0F)), k);
  }
}

TEST(Float16, E8m0IsAPowerOfTwo) {
  EXPECT_EQ(e8m0_to_f32(127), 1.0F);
  EXPECT_EQ(e8m0_to_f32(0), std::ldexp(1.0F, -127));
  EXPECT_EQ(e8m0_to_f32(254), std::ldexp(1.0F, 127));
}

}  // namespace
}  // namespace ds4
