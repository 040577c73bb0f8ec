#include "backend/row_codec.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tensor/float16.h"

namespace ds4 {
namespace {

constexpr PackedRowLayout kLayout{448, 64};

std::vector<float> round_trip(const std::vector<float>& row) {
  std::vector<std::byte> packed(kLayout.bytes());
  std::vector<float> out(row.size());
  pack_attention_row(kLayout, row, packed);
  unpack_attention_row(kLayout, packed, out);
  return out;
}

std::vector<float> random_values(std::size_t count, float spread, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(count);
  for (float& value : values)
    value = normal(random);
  return values;
}

TEST(RowCodec, SizesAreThoseOfTheFormat) {
  EXPECT_EQ(kLayout.bytes(), 584U);
  EXPECT_EQ(packed_index_key_bytes(128), 68U);
}

// The definition in f64: scale 2^ceil(log2(amax / 448)), nearest E4M3 value of x / scale.
TEST(RowCodec, RowsRoundAsDefined) {
  for (const float spread : {1e-6F, 0.01F, 1.0F, 300.0F}) {
    const auto row = random_values(512, spread, 7);
    const auto rounded = round_trip(row);
    for (std::size_t block = 0; block < 7; ++block) {
      double amax = 1e-4F;
      for (std::size_t i = 0; i < 64; ++i)
        amax = std::max(amax, std::fabs(static_cast<double>(row[block * 64 + i])));
      const double scale = std::exp2(std::ceil(std::log2(amax / 448)));
      for (std::size_t i = 0; i < 64; ++i) {
        const std::size_t at = block * 64 + i;
        EXPECT_EQ(rounded[at],
                  e4m3_to_f32(f32_to_e4m3(static_cast<float>(row[at] / scale))) * scale);
      }
    }
    double amax = 1e-4F;
    for (std::size_t i = 448; i < 512; ++i)
      amax = std::max(amax, std::fabs(static_cast<double>(row[i])));
    const double unit = std::exp2(std::ceil(std::log2(amax / 32767)));
    for (std::size_t i = 448; i < 512; ++i)
      EXPECT_EQ(rounded[i], std::nearbyint(row[i] / unit) * unit);
  }
}

TEST(RowCodec, RoundedRowsSurviveStorageExactly) {
  const auto once = round_trip(random_values(512, 2.0F, 11));
  EXPECT_EQ(round_trip(once), once);
  // The largest value of a block rounds down to a power of two times 448 or 224: the scale changes,
  // the values must not.
  std::vector<float> edge(512, 0.0F);
  edge[0] = 224.2F;
  edge[1] = 0x1p-9F;
  const auto rounded = round_trip(edge);
  EXPECT_EQ(round_trip(rounded), rounded);
}

TEST(RowCodec, HadamardIsItsOwnInverse) {
  auto values = random_values(128, 1.0F, 3);
  const auto before = values;
  hadamard(values);
  EXPECT_GT(std::fabs(values[5] - before[5]), 1e-3F);
  hadamard(values);
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_NEAR(values[i], before[i], 2e-6);  // 14 f32 additions a value
  // Natural order: row 1 alternates in sign.
  std::vector<float> unit(128, 0.0F);
  unit[1] = 1.0F;
  hadamard(unit);
  for (std::size_t i = 0; i < unit.size(); ++i)
    EXPECT_EQ(unit[i], (i % 2 == 0 ? 1.0F : -1.0F) / std::sqrt(128.0F));
}

TEST(RowCodec, IndexKeysRoundAsDefinedAndSurviveStorage) {
  for (const float spread : {1e-30F, 0.05F, 40.0F}) {
    const auto key = random_values(128, spread, 5);
    auto rounded = key;
    round_index_key(rounded);
    for (std::size_t block = 0; block < 4; ++block) {
      double amax = 6 * std::exp2(-126);
      for (std::size_t i = 0; i < 32; ++i)
        amax = std::max(amax, std::fabs(static_cast<double>(key[block * 32 + i])));
      const double scale = std::exp2(std::ceil(std::log2(amax / 6)));
      for (std::size_t i = 0; i < 32; ++i) {
        const std::size_t at = block * 32 + i;
        EXPECT_EQ(rounded[at],
                  e2m1_to_f32(f32_to_e2m1(static_cast<float>(key[at] / scale))) * scale);
      }
    }
    auto again = rounded;
    round_index_key(again);
    EXPECT_EQ(again, rounded);
  }
}

TEST(RowCodec, RotaryValuesThatAreNoNumbersPackToTheLimit) {
  std::vector<float> row(512, 1.0F);
  row[450] = std::numeric_limits<float>::quiet_NaN();
  const auto rounded = round_trip(row);
  EXPECT_EQ(rounded[449], 1.0F);
  EXPECT_EQ(rounded[450], 32767.0F * 0x1p-14F);
}

TEST(RowCodec, ZerosStayZeros) {
  EXPECT_EQ(round_trip(std::vector<float>(512, 0.0F)), std::vector<float>(512, 0.0F));
  std::vector<float> key(128, 0.0F);
  round_index_key(key);
  EXPECT_EQ(key, std::vector<float>(128, 0.0F));
}

}  // namespace
}  // namespace ds4
