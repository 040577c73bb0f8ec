#include "backend/rope.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

const RopeConfig kWindow{.base = 10000.0};
const RopeConfig kCompressed{.base = 160000.0, .factor = 16, .original_context = 65536};

TEST(Rope, CompressedFrequenciesMatchThePublishedTable) {
  const auto f = rope_frequencies(kCompressed, 64);
  ASSERT_EQ(f.size(), 32U);
  // Pairs 0 to 15 keep their frequency, 25 to 31 are divided by 16, in between a linear mix.
  const std::pair<std::size_t, double> table[] = {{0, 1.0},
                                                  {1, 0.687656022},
                                                  {8, 0.05},
                                                  {15, 0.00363553858},
                                                  {16, 0.002265625},
                                                  {20, 0.000296977778},
                                                  {24, 1.953125e-05},
                                                  {25, 5.37231267e-06},
                                                  {31, 5.68052904e-07}};
  for (const auto& [i, value] : table)
    EXPECT_NEAR(f[i] / value, 1.0, 1e-7) << i;  // the table has nine digits
}

TEST(Rope, WindowFrequenciesArePlain) {
  const auto f = rope_frequencies(kWindow, 64);
  for (std::size_t i = 0; i < f.size(); ++i)
    EXPECT_EQ(f[i], static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / 64)));
}

// Tolerance: the angle itself is an f32 product; sine and cosine add at most an ulp or two.
TEST(Rope, RotatesByTheF32AngleAtEveryScale) {
  const auto f = rope_frequencies(kCompressed, 64);
  for (const std::uint32_t p : {0U, 1U, 127U, 65535U, 1048575U}) {
    std::vector<float> tail(64);
    for (std::size_t i = 0; i < 32; ++i)
      tail[2 * i] = 1.0F;
    apply_rope(tail, f, Position{p}, RopeDirection::kForward);
    for (std::size_t i = 0; i < 32; ++i) {
      const double angle = static_cast<float>(p) * f[i];
      EXPECT_NEAR(tail[2 * i], std::cos(angle), 2e-7);
      EXPECT_NEAR(tail[2 * i + 1], std::sin(angle), 2e-7);
    }
  }
}

TEST(Rope, InverseUndoesForward) {
  const auto f = rope_frequencies(kWindow, 8);
  std::vector<float> tail{1, 2, 3, 4, 5, 6, 7, 8};
  apply_rope(tail, f, Position{1000}, RopeDirection::kForward);
  EXPECT_GT(std::fabs(tail[0] - 1), 1e-3F);
  apply_rope(tail, f, Position{1000}, RopeDirection::kInverse);
  for (std::size_t i = 0; i < tail.size(); ++i)
    EXPECT_NEAR(tail[i], static_cast<float>(i + 1), 2e-6);
}

}  // namespace
}  // namespace ds4
