#include "cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tensor/float16.h"

namespace ds4::cpu {
namespace {

std::vector<float> random_values(std::size_t count, unsigned seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values)
    value = normal(random);
  return values;
}

// Every build that this processor runs, the portable one included, against f64.
class KernelBuilds : public testing::TestWithParam<const Kernels*> {};

TEST_P(KernelBuilds, DotAndAddScaledAtOddSizes) {
  for (const std::size_t count : {0U, 1U, 7U, 31U, 32U, 33U, 64U, 511U, 512U, 1024U, 1027U}) {
    const auto a = random_values(count, 1);
    const auto b = random_values(count, 2);
    double exact = 0;
    double magnitude = 0;
    for (std::size_t i = 0; i < count; ++i) {
      exact += static_cast<double>(a[i]) * b[i];
      magnitude += std::fabs(static_cast<double>(a[i]) * b[i]);
    }
    // 32 lanes of count / 32 additions and 5 more to join them, a tail of 31, each half an ulp.
    const double tolerance = magnitude * 6e-8 * (static_cast<double>(count) / 32 + 6 + 31);
    EXPECT_NEAR(GetParam()->dot(a.data(), b.data(), count), exact, tolerance);
    std::vector<float> sum = a;
    GetParam()->add_scaled(sum.data(), b.data(), 0.5F, count);
    for (std::size_t i = 0; i < count; ++i)
      EXPECT_NEAR(sum[i], a[i] + 0.5 * b[i], 1e-6);
  }
}

TEST_P(KernelBuilds, SwigluIsSiluTimesTheClampedOther) {
  auto gate = random_values(259, 3, 8.0F);
  gate[0] = -200.0F;
  gate[1] = 200.0F;
  gate[2] = 0.0F;
  const auto up = random_values(259, 4, 8.0F);
  auto out = gate;
  GetParam()->swiglu(out.data(), up.data(), 10.0F, 0.75F, out.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double g = std::min<double>(gate[i], 10.0);
    const double exact = g / (1.0 + std::exp(-g)) * std::clamp<double>(up[i], -10.0, 10.0) * 0.75;
    EXPECT_NEAR(out[i], exact, 1e-6 + 1e-6 * std::fabs(exact)) << gate[i];
  }
}

TEST_P(KernelBuilds, StreamsAreMixed) {
  constexpr std::size_t kStreams = 3;
  constexpr std::size_t kWidth = 83;
  const auto streams = random_values(kStreams * kWidth, 5);
  const auto output = random_values(kWidth, 6);
  const auto mix = random_values(kStreams + kStreams * kStreams, 7);
  auto out = streams;
  GetParam()->expand_streams(out.data(), output.data(), mix.data(), mix.data() + kStreams, kStreams,
                             kWidth);
  for (std::size_t to = 0; to < kStreams; ++to) {
    for (std::size_t i = 0; i < kWidth; ++i) {
      double exact = static_cast<double>(mix[to]) * output[i];
      for (std::size_t from = 0; from < kStreams; ++from)
        exact +=
            static_cast<double>(mix[kStreams + from * kStreams + to]) * streams[from * kWidth + i];
      EXPECT_NEAR(out[to * kWidth + i], exact, 1e-5);
    }
  }
}

TEST_P(KernelBuilds, RowsArePooledByChannel) {
  constexpr std::size_t kWidth = 37;
  const auto values = random_values(9 * kWidth, 8);
  const auto scores = random_values(9 * kWidth, 9, 5.0F);
  std::vector<const float*> value_rows;
  std::vector<const float*> score_rows;
  for (std::size_t i = 0; i < 9; ++i) {
    value_rows.push_back(values.data() + i * kWidth);
    score_rows.push_back(scores.data() + i * kWidth);
  }
  std::vector<float> out(kWidth);
  GetParam()->pool_rows(out.data(), value_rows.data(), score_rows.data(), 9, kWidth);
  for (std::size_t j = 0; j < kWidth; ++j) {
    double sum = 0;
    double weighted = 0;
    for (std::size_t i = 0; i < 9; ++i) {
      const double weight = std::exp(static_cast<double>(scores[i * kWidth + j]));
      sum += weight;
      weighted += weight * values[i * kWidth + j];
    }
    EXPECT_NEAR(out[j], weighted / sum, 2e-6);
  }
}

TEST_P(KernelBuilds, PackedCodesUnpackExactly) {
  std::vector<std::byte> codes;
  for (unsigned code = 0; code < 256; ++code)
    if ((code & 0x7FU) != 0x7FU) codes.push_back(static_cast<std::byte>(code));
  std::vector<float> values(codes.size());
  for (const float scale : {1.0F, 0x1p-40F, 0x1p20F}) {
    GetParam()->unpack_e4m3(codes.data(), scale, values.data(), values.size());
    for (std::size_t i = 0; i < codes.size(); ++i)
      EXPECT_EQ(values[i], e4m3_to_f32(static_cast<std::uint8_t>(codes[i])) * scale) << i;
  }
  std::vector<std::byte> pairs;
  for (unsigned pair = 0; pair < 256; ++pair)
    pairs.push_back(static_cast<std::byte>(pair));
  std::vector<float> keys(512);
  GetParam()->unpack_e2m1(pairs.data(), 0.25F, keys.data(), keys.size());
  for (unsigned i = 0; i < keys.size(); ++i)
    EXPECT_EQ(keys[i], e2m1_to_f32(static_cast<std::uint8_t>(i / 2 >> (i % 2 * 4) & 15U)) * 0.25F)
        << i;
  const std::vector<std::int16_t> numbers = {0, 1, -1, 32767, -32768, 255, -256};
  std::vector<std::byte> bytes(numbers.size() * 2);
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  GetParam()->unpack_i16(bytes.data(), 0.5F, values.data(), numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i)
    EXPECT_EQ(values[i], 0.5F * static_cast<float>(numbers[i]));
}

struct AttentionCase {
  std::size_t heads;
  std::size_t dim;
  std::vector<float> queries, sinks, rows;
  std::vector<std::int32_t> index;
  std::vector<RowList> lists;
};

AttentionCase attention_case(std::size_t heads, std::size_t dim, std::size_t row_count) {
  AttentionCase c{heads,
                  dim,
                  random_values(heads * dim, 10, 2.0F),
                  random_values(heads, 11),
                  random_values((2 * row_count + 1) * dim, 12),  // never empty
                  {},
                  {}};
  for (std::size_t i = 0; i < row_count; ++i)
    c.index.push_back(static_cast<std::int32_t>(2 * i));
  c.lists = {{c.rows.data() + dim, dim, row_count / 3, nullptr},
             {c.rows.data(), dim, 0, nullptr},
             {c.rows.data(), dim, row_count, c.index.data()}};
  return c;
}

std::vector<float> attend(const Kernels& kernels, const AttentionCase& c, std::size_t heads) {
  std::vector<float> outputs(heads * c.dim, -1.0F);
  kernels.attend({c.queries.data(), c.sinks.data(), outputs.data(), heads, c.dim, 0.125F,
                  c.lists.data(), c.lists.size()});
  return outputs;
}

TEST_P(KernelBuilds, AttentionAtOddShapes) {
  for (const std::size_t row_count : {0U, 1U, 5U, 63U, 64U, 65U, 200U}) {
    const AttentionCase c = attention_case(7, 80, row_count);
    std::vector<const float*> rows;
    for (std::size_t i = 0; i < c.lists[0].count; ++i)
      rows.push_back(c.rows.data() + (1 + i) * c.dim);
    for (const std::int32_t i : c.index)
      rows.push_back(c.rows.data() + static_cast<std::size_t>(i) * c.dim);
    const auto outputs = attend(*GetParam(), c, c.heads);
    for (std::size_t h = 0; h < c.heads; ++h) {
      std::vector<double> exact(c.dim);
      double sum = std::exp(static_cast<double>(c.sinks[h]));
      for (const float* row : rows) {
        double score = 0;
        for (std::size_t i = 0; i < c.dim; ++i)
          score += static_cast<double>(c.queries[h * c.dim + i]) * row[i];
        const double weight = std::exp(0.125 * score);
        sum += weight;
        for (std::size_t i = 0; i < c.dim; ++i)
          exact[i] += weight * row[i];
      }
      for (std::size_t i = 0; i < c.dim; ++i)
        EXPECT_NEAR(outputs[h * c.dim + i], exact[i] / sum, 1e-5) << row_count << " " << h;
    }
  }
}

TEST_P(KernelBuilds, AttentionDoesNotDependOnTheOtherHeads) {
  const AttentionCase c = attention_case(8, 112, 100);
  const auto all = attend(*GetParam(), c, 8);
  for (const std::size_t heads : {1U, 2U, 3U, 5U}) {
    const auto some = attend(*GetParam(), c, heads);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << heads;
  }
}

TEST_P(KernelBuilds, KeyScoresAtOddShapes) {
  for (const std::size_t heads : {1U, 6U, 64U}) {
    constexpr std::size_t kDim = 48;
    constexpr std::size_t kKeys = 37;
    const auto queries = random_values(heads * kDim, 13);
    const auto weights = random_values(heads, 14);
    const auto keys = random_values(kKeys * kDim, 15);
    std::vector<float> scores(kKeys);
    GetParam()->score_keys(
        {queries.data(), weights.data(), heads, kDim, keys.data(), kKeys, scores.data()});
    for (std::size_t c = 0; c < kKeys; ++c) {
      double exact = 0;
      for (std::size_t h = 0; h < heads; ++h) {
        double product = 0;
        for (std::size_t i = 0; i < kDim; ++i)
          product += static_cast<double>(queries[h * kDim + i]) * keys[c * kDim + i];
        exact += weights[h] * std::max(0.0, product);
      }
      EXPECT_NEAR(scores[c], exact, 2e-5 * std::sqrt(static_cast<double>(heads)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Usable,
                         KernelBuilds,
                         testing::ValuesIn(usable_kernels().begin(), usable_kernels().end()),
                         [](const auto& build) { return build.param->name; });

}  // namespace
}  // namespace ds4::cpu
