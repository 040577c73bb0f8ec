// Draws from a part of a row against draws from the whole row.
#include "sample/candidates.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "base/error.h"
#include "sample/sampler.h"

namespace ds4::sample {
namespace {

std::vector<float> random_row(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> row(size);
  for (float& logit : row)
    logit = normal(random);
  return row;
}

// Every token whose logit is at least `floor`, with a total that is off by `error` of itself.
CandidateSet take(const std::vector<float>& row, float floor, float temperature, double error) {
  CandidateSet set{.entries = {}, .total = 0, .complete = true, .holds_min_p = true};
  const double largest = *std::max_element(row.begin(), row.end());
  for (std::size_t i = 0; i < row.size(); ++i) {
    set.total += std::exp((row[i] - largest) / temperature);
    if (row[i] >= floor) set.entries.push_back({TokenId{static_cast<std::int32_t>(i)}, row[i]});
  }
  set.total *= 1 + error;
  return set;
}

float kth_largest(std::vector<float> row, std::size_t k) {
  std::nth_element(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(k - 1), row.end(),
                   std::greater<>());
  return row[k - 1];
}

void expect_same_draws(const SamplingOptions& options, std::size_t kept, double error) {
  for (std::uint32_t seed = 1; seed <= 50; ++seed) {
    const std::vector<float> row = random_row(3000, seed);
    const CandidateSet set = take(row, kth_largest(row, kept), options.temperature, error);
    Sampler whole(row.size(), seed);
    Sampler part(row.size(), seed);
    for (int i = 0; i < 20; ++i)
      ASSERT_EQ(whole.sample(row, options), part.sample(set, options)) << "seed " << seed;
  }
}

TEST(Candidates, TopKNeedsTheTopKAlone) {
  for (const int k : {1, 7, 40})
    for (const float top_p : {0.5F, 1.0F})
      for (const float min_p : {0.0F, 0.1F}) {
        const SamplingOptions options{
            .temperature = 0.8F, .top_k = k, .top_p = top_p, .min_p = min_p};
        expect_same_draws(options, static_cast<std::size_t>(k), 0.5);
        expect_same_draws(options, 900, 0.5);
      }
}

TEST(Candidates, MinPNeedsWhatItKeeps) {
  expect_same_draws({.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0.1F}, 500, 0.5);
  expect_same_draws({.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0.1F}, 3000, 0.5);
}

TEST(Candidates, TopPNeedsTheTotal) {
  for (const double error : {-0.9e-9, 0.0, 0.9e-9}) {
    expect_same_draws({.temperature = 1, .top_k = 0, .top_p = 0.7F, .min_p = 0}, 1000, error);
    expect_same_draws({.temperature = 0.5F, .top_k = 0, .top_p = 0.95F, .min_p = 0.02F}, 1000,
                      error);
  }
}

TEST(Candidates, GreedyTakesTheFirstOfTheLargest) {
  const CandidateSet set{.entries = {{TokenId{3}, 1.0F}, {TokenId{5}, 2.0F}, {TokenId{9}, 2.0F}},
                         .total = 0,
                         .complete = true,
                         .holds_min_p = false};
  Sampler sampler(10, 1);
  EXPECT_EQ(sampler.sample(set, SamplingOptions::greedy()), TokenId{5});
}

TEST(Candidates, WhatIsNotDecidedDrawsNothing) {
  const std::vector<float> row = random_row(3000, 3);
  CandidateSet set = take(row, kth_largest(row, 40), 1, 0);
  Sampler sampler(row.size(), 4);
  const auto before = sampler.random().state();
  const SamplingOptions flat{.temperature = 1, .top_k = 0, .top_p = 0.99F, .min_p = 0};
  set.holds_min_p = false;
  EXPECT_FALSE(sampler.sample(set, flat)) << "the head is longer than the set";
  EXPECT_FALSE(sampler.sample(set, {})) << "min-p may keep more";
  set.complete = false;
  EXPECT_FALSE(sampler.sample(set, {.top_k = 2}));
  EXPECT_EQ(sampler.random().state(), before);
}

TEST(Candidates, ACutThatTheErrorOfTheTotalStraddlesIsNotDecided) {
  // Two tokens of weight 1 and a third that makes the total exactly 4: half of it is reached at the
  // second token or, for a total a trifle larger, at the third.
  const CandidateSet set{.entries = {{TokenId{0}, 0.0F}, {TokenId{1}, 0.0F}, {TokenId{2}, -1.0F}},
                         .total = 4,
                         .complete = true,
                         .holds_min_p = true};
  Sampler sampler(3, 1);
  EXPECT_FALSE(sampler.sample(set, {.temperature = 1, .top_k = 0, .top_p = 0.5F, .min_p = 0}));
  EXPECT_TRUE(sampler.sample(set, {.temperature = 1, .top_k = 0, .top_p = 0.51F, .min_p = 0}));
}

TEST(Candidates, AnEmptyRowIsAnError) {
  const CandidateSet set{.entries = {}, .total = 0, .complete = true, .holds_min_p = false};
  Sampler sampler(3, 1);
  EXPECT_THROW(sampler.sample(set, {}), Error);
}

}  // namespace
}  // namespace ds4::sample
