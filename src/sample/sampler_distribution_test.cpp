// Frequencies of many seeded draws against distributions worked out by hand.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "sample/sampler.h"

namespace ds4::sample {
namespace {

struct Case {
  const char* name;
  std::vector<double> weights;  // the model's distribution, up to a factor
  SamplingOptions options;
  std::vector<double> expected;  // what must come, up to a factor; 0: never
  int draws = 20000;
};

// Pearson's statistic over the tokens that may come.  For k of them it is chi-square with k - 1
// degrees of freedom: mean k - 1, variance 2 (k - 1).  The bound is six standard deviations above
// the mean; the seed is fixed, so the test either always passes or always fails, and a wrong cut or
// temperature moves the statistic by hundreds.
void expect_distribution(const Case& c, std::size_t token_base, std::size_t vocab_size) {
  SCOPED_TRACE(c.name);
  std::vector<float> logits(vocab_size, -200.0F);
  for (std::size_t i = 0; i < c.weights.size(); ++i)
    logits[token_base + i] = static_cast<float>(std::log(c.weights[i]));
  std::vector<int> counts(vocab_size);
  Sampler sampler(vocab_size, 2024);
  for (int i = 0; i < c.draws; ++i)
    ++counts[static_cast<std::size_t>(sampler.sample(logits, c.options).value())];

  const double total = std::accumulate(c.expected.begin(), c.expected.end(), 0.0);
  double statistic = 0;
  int outcomes = 0;
  int drawn = 0;
  for (std::size_t i = 0; i < c.expected.size(); ++i) {
    const int count = counts[token_base + i];
    drawn += count;
    if (c.expected[i] == 0) {
      EXPECT_EQ(count, 0) << "token " << i;
      continue;
    }
    const double expected = c.draws * c.expected[i] / total;
    statistic += (count - expected) * (count - expected) / expected;
    ++outcomes;
  }
  EXPECT_EQ(drawn, c.draws) << "a token outside the case came";
  EXPECT_LT(statistic, (outcomes - 1) + 6 * std::sqrt(2.0 * (outcomes - 1)) + 1e-9);
}

std::vector<Case> cases() {
  return {
      {"plain softmax", {8, 4, 2, 1, 1}, {.min_p = 0}, {8, 4, 2, 1, 1}},
      {"temperature 2 takes square roots",
       {16, 9, 4, 1},
       {.temperature = 2, .min_p = 0},
       {4, 3, 2, 1}},
      {"temperature 0.5 squares", {3, 2, 1}, {.temperature = 0.5F, .min_p = 0}, {9, 4, 1}},
      {"default min_p 0.05 drops below a twentieth of the likeliest",
       {100, 50, 6, 4, 4},
       {},
       {100, 50, 6, 0, 0}},
      {"top_p 0.8 of 16", {8, 4, 2, 1, 1}, {.top_p = 0.8F, .min_p = 0}, {8, 4, 2, 0, 0}},
      {"top_p with min_p ending first",
       {8, 4, 2, 1, 1},
       {.top_p = 0.99F, .min_p = 0.2F},
       {8, 4, 2, 0, 0}},
      {"top_k 2", {8, 4, 2, 1, 1}, {.top_k = 2, .min_p = 0}, {8, 4, 0, 0, 0}},
      {"top_k 3, then top_p 0.8 of 14: 8 + 4 reach 11.2",
       {8, 4, 2, 1, 1},
       {.top_k = 3, .top_p = 0.8F, .min_p = 0},
       {8, 4, 0, 0, 0}},
      {"top_k 4 at temperature 2, then min_p 0.4",
       {16, 9, 4, 1, 1},
       {.temperature = 2, .top_k = 4, .min_p = 0.4F},
       {4, 3, 2, 0, 0}},
  };
}

TEST(SamplerDistributionTest, MatchesTheHandDerivedOne) {
  for (const Case& c : cases()) {
    expect_distribution(c, 0, c.weights.size());
    expect_distribution(c, 150, 300);
  }
}

// A head of the ranking that spans several pieces of the partial sort: 2,000 tokens with weights
// falling as 1/(i + 1), cut at half the mass.
TEST(SamplerDistributionTest, TopPReachesPastTheFirstPiecesOfTheRanking) {
  constexpr std::size_t kTokens = 2000;
  std::vector<double> weights(kTokens);
  for (std::size_t i = 0; i < kTokens; ++i)
    weights[i * 7 % kTokens] = 1.0 / static_cast<double>(i + 20);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> ranked = weights;
  std::sort(ranked.begin(), ranked.end(), std::greater<>());
  double mass = 0;
  std::size_t kept = 0;
  while (mass < 0.75 * total)
    mass += ranked[kept++];
  ASSERT_GT(kept, 512U);
  std::vector<double> expected = weights;
  for (double& weight : expected)
    weight = weight < ranked[kept - 1] ? 0 : weight;
  expect_distribution({"long head", weights, {.top_p = 0.75F, .min_p = 0}, expected, 8000}, 0,
                      kTokens);
}

}  // namespace
}  // namespace ds4::sample
