#include "cpu/kernels.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace ds4::cpu {
namespace {

TEST(Kernels, BestAgreesWithPortableAndF64AtOddSizes) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const std::size_t count : {0U, 1U, 7U, 31U, 32U, 33U, 64U, 511U, 512U, 1024U, 1027U}) {
    std::vector<float> a(count);
    std::vector<float> b(count);
    double exact = 0;
    double magnitude = 0;
    for (std::size_t i = 0; i < count; ++i) {
      a[i] = normal(random);
      b[i] = normal(random);
      exact += static_cast<double>(a[i]) * b[i];
      magnitude += std::fabs(static_cast<double>(a[i]) * b[i]);
    }
    // 32 lanes of count / 32 additions and 5 more to join them, each within half an ulp.
    const double tolerance = magnitude * 6e-8 * (static_cast<double>(count) / 32 + 6);
    for (const Kernels* kernels : {&portable_kernels(), &best_kernels()}) {
      EXPECT_NEAR(kernels->dot(a.data(), b.data(), count), exact, tolerance) << kernels->name;
      std::vector<float> sum = a;
      kernels->add_scaled(sum.data(), b.data(), 0.5F, count);
      for (std::size_t i = 0; i < count; ++i)
        EXPECT_NEAR(sum[i], a[i] + 0.5 * b[i], 1e-6);
    }
  }
}

}  // namespace
}  // namespace ds4::cpu
