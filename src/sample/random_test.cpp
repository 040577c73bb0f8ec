#include "sample/random.h"

#include <cmath>
#include <cstdint>

#include <gtest/gtest.h>

namespace ds4::sample {
namespace {

// The recurrence by hand for state 1: 1 ^ 1>>12 = 1; ^ <<25 = 2^25 + 1; ^ >>27 = 2^25 + 1.
TEST(RandomTest, FirstOutputOfStateOneIsTheRecurrenceByHand) {
  Random random(1);
  EXPECT_EQ(random.next(), ((std::uint64_t{1} << 25U) + 1) * 0x2545f4914f6cdd1dULL);
  EXPECT_EQ(random.state(), (std::uint64_t{1} << 25U) + 1);
}

TEST(RandomTest, ZeroSeedIsTheGoldenRatioState) {
  Random zero(0);
  Random golden(0x9e3779b97f4a7c15ULL);
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(zero.next(), golden.next());
}

TEST(RandomTest, UniformIsTheTop24BitsOfNext) {
  Random words(42);
  Random draws(42);
  for (int i = 0; i < 1000; ++i) {
    const float draw = draws.uniform();
    EXPECT_EQ(draw, static_cast<float>(words.next() >> 40U) / 16777216.0F);
    EXPECT_GE(draw, 0.0F);
    EXPECT_LT(draw, 1.0F);
  }
}

TEST(RandomTest, StateContinuesTheSequence) {
  Random random(7);
  random.next();
  Random copy(random.state());
  EXPECT_EQ(random.next(), copy.next());
}

// The mean of 100,000 uniform draws has a standard deviation of sqrt(1/12 / 1e5) = 0.0009.
TEST(RandomTest, MeanIsOneHalf) {
  constexpr int kDraws = 100000;
  Random random(3);
  double sum = 0;
  for (int i = 0; i < kDraws; ++i)
    sum += random.uniform();
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * 0.0009);
}

}  // namespace
}  // namespace ds4::sample
