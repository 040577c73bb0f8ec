#include "sample/sampler.h"

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/allocation_count.h"

namespace ds4::sample {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> logs_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  logits.reserve(probabilities.size());
  for (const double p : probabilities)
    logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// Every token that comes in many draws.
std::set<int> support_of(const std::vector<float>& logits,
                         const SamplingOptions& options,
                         const TokenSet* allowed = nullptr) {
  Sampler sampler(logits.size(), 11);
  std::set<int> seen;
  for (int i = 0; i < 4000; ++i)
    seen.insert(sampler.sample(logits, options, allowed).value());
  return seen;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ArgmaxTest, TakesTheLowestIdOfEqualLogits) {
  EXPECT_EQ(argmax(std::vector<float>{1, 3, 2, 3}), TokenId{1});
  EXPECT_EQ(argmax(std::vector<float>{-5, -5}), TokenId{0});
}

TEST(ArgmaxTest, SkipsWhatIsNotFinite) {
  EXPECT_EQ(argmax(std::vector<float>{kNan, -3, kInf, -2, -kInf}), TokenId{3});
}

TEST(ArgmaxTest, NothingFiniteIsAnError) {
  EXPECT_THROW(argmax(std::vector<float>{kNan, -kInf}), Error);
  EXPECT_THROW(argmax(std::vector<float>{}), Error);
}

TEST(ArgmaxTest, ObeysTheAllowedSet) {
  const std::vector<float> logits{5, 4, 3, 2};
  TokenSet allowed(4);
  EXPECT_THROW(argmax(logits, &allowed), Error);
  allowed.insert(TokenId{3});
  allowed.insert(TokenId{2});
  EXPECT_EQ(argmax(logits, &allowed), TokenId{2});
}

TEST(ArgmaxTest, ExcludingSkipsOneToken) {
  const std::vector<float> logits{1, 9, 9, 2};
  EXPECT_EQ(argmax_excluding(logits, TokenId{1}), TokenId{2});
  EXPECT_EQ(argmax_excluding(logits, TokenId{3}), TokenId{1});
  EXPECT_THROW(argmax_excluding(std::vector<float>{1}, TokenId{0}), Error);
}

TEST(LogprobTest, IsTheLogOfTheSoftmaxAtTemperatureOne) {
  const std::vector<double> probabilities{0.5, 0.25, 0.125, 0.125};
  std::vector<float> logits = logs_of(probabilities);
  for (float& logit : logits)
    logit += 100;  // a shift changes no probability; f32 logits near 100 round to 4e-6
  for (int id = 0; id < 4; ++id)
    EXPECT_NEAR(token_logprob(logits, TokenId{id}),
                std::log(probabilities[static_cast<std::size_t>(id)]), 1e-5);
  logits.push_back(kNan);
  EXPECT_NEAR(token_logprob(logits, TokenId{0}), std::log(0.5), 1e-5);
  EXPECT_EQ(token_logprob(logits, TokenId{4}), -std::numeric_limits<double>::infinity());
}

// 2^20 equal logits: an f32 sum would stop growing exactly at 2^24 only, but a sum of weights
// e^-16.6 each beside one of weight 1 is where f32 accumulation fails: 2^20 * 2^-24 = 1/16.
TEST(LogprobTest, SmallWeightsAreNotLostInTheSum) {
  std::vector<float> logits(1U << 20U, static_cast<float>(-24 * std::log(2.0)));
  logits[0] = 0;
  EXPECT_NEAR(token_logprob(logits, TokenId{0}), -std::log(1 + 0.0625), 1e-5);
}

TEST(TopLogprobsTest, RanksByLogitThenId) {
  const std::vector<float> logits{1, 3, kNan, 3, 2, -kInf};
  Sampler sampler(logits.size(), 1);
  const auto top = sampler.top_logprobs(logits, 3);
  ASSERT_EQ(top.size(), 3U);
  EXPECT_EQ(top[0].token, TokenId{1});
  EXPECT_EQ(top[1].token, TokenId{3});
  EXPECT_EQ(top[2].token, TokenId{4});
  for (const TokenLogprob& entry : top) {
    EXPECT_EQ(entry.logit, logits[static_cast<std::size_t>(entry.token.value())]);
    EXPECT_EQ(entry.logprob, token_logprob(logits, entry.token));
  }
  EXPECT_EQ(sampler.top_logprobs(logits, 100).size(), 4U);
  EXPECT_TRUE(sampler.top_logprobs(logits, 0).empty());
}

TEST(SamplerTest, GreedyDrawsNoRandomNumber) {
  Sampler sampler(3, 5);
  const std::vector<float> logits{0, 2, 1};
  EXPECT_EQ(sampler.sample(logits, SamplingOptions::greedy()), TokenId{1});
  EXPECT_EQ(sampler.random().state(), 5U);
}

TEST(SamplerTest, EverySampledTokenTakesOneDraw) {
  const std::vector<float> logits{0, 2, 1};
  for (const SamplingOptions& options :
       {SamplingOptions{}, SamplingOptions{.top_p = 0.5F}, SamplingOptions{.top_k = 2}}) {
    Sampler sampler(3, 5);
    Random random(5);
    sampler.sample(logits, options);
    random.next();
    EXPECT_EQ(sampler.random().state(), random.state());
  }
}

TEST(SamplerTest, SameSeedSameTokens) {
  std::vector<float> logits(500);
  for (std::size_t i = 0; i < logits.size(); ++i)
    logits[i] = std::sin(static_cast<float>(i));
  const SamplingOptions options{.temperature = 0.8F, .top_k = 40, .top_p = 0.95F, .min_p = 0.01F};
  Sampler a(500, 77);
  Sampler b(500, 77);
  Sampler c(500, 78);
  int differing = 0;
  for (int i = 0; i < 200; ++i) {
    const TokenId token = a.sample(logits, options);
    EXPECT_EQ(token, b.sample(logits, options));
    differing += token != c.sample(logits, options) ? 1 : 0;
  }
  EXPECT_GT(differing, 100);  // another seed is another sequence
}

// The draw walks the kept tokens and stops where the running weight reaches u * total.  Weights 4,
// 2, 2 (of 8) at ids 0, 1, 2: u < 0.5 gives 0, and so on.
TEST(SamplerTest, UnrankedDrawWalksIdsUpward) {
  const std::vector<float> logits = logs_of({0.5, 0.25, 0.25});
  Sampler sampler(3, 9);
  Random random(9);
  for (int i = 0; i < 300; ++i) {
    const float u = random.uniform();
    const int expected = u <= 0.5F ? 0 : u <= 0.75F ? 1 : 2;
    EXPECT_EQ(sampler.sample(logits, {.min_p = 0}), TokenId{expected}) << u;
  }
}

// With top_p the walk is in order of rank: 0.5 stands at id 2.
TEST(SamplerTest, RankedDrawWalksRanksDownward) {
  const std::vector<float> logits = logs_of({0.2, 0.25, 0.5, 0.05});
  Sampler sampler(4, 9);
  Random random(9);
  for (int i = 0; i < 300; ++i) {
    const float rest = random.uniform() * 0.95F;  // 0.5 + 0.25 + 0.2 reaches 0.9
    const int expected = rest <= 0.5F ? 2 : rest <= 0.75F ? 1 : 0;
    EXPECT_EQ(sampler.sample(logits, {.top_p = 0.9F, .min_p = 0}), TokenId{expected}) << rest;
  }
}

TEST(SamplerCutTest, MinPIsRelativeToTheLikeliest) {
  const std::vector<float> logits = logs_of({0.6, 0.3, 0.07, 0.03});
  EXPECT_EQ(support_of(logits, {.min_p = 0.4F}), (std::set<int>{0, 1}));
  EXPECT_EQ(support_of(logits, {.min_p = 0.1F}), (std::set<int>{0, 1, 2}));
  EXPECT_EQ(support_of(logits, {.min_p = 1}), (std::set<int>{0}));
  EXPECT_EQ(support_of(logits, {.min_p = 0}), (std::set<int>{0, 1, 2, 3}));
  EXPECT_EQ(support_of(logits, {.top_p = 0.999F, .min_p = 0.4F}), (std::set<int>{0, 1}));
}

TEST(SamplerCutTest, TopPKeepsTheTokenThatReachesTheMass) {
  const std::vector<float> logits = logs_of({0.6, 0.3, 0.07, 0.03});
  EXPECT_EQ(support_of(logits, {.top_p = 0.5F, .min_p = 0}), (std::set<int>{0}));
  EXPECT_EQ(support_of(logits, {.top_p = 0.7F, .min_p = 0}), (std::set<int>{0, 1}));
  EXPECT_EQ(support_of(logits, {.top_p = 0.95F, .min_p = 0}), (std::set<int>{0, 1, 2}));
}

// top_k first: of {0.5, 0.3, 0.2}, renormalised {0.625, 0.375}, the first alone has 0.6 of the
// mass. Were top_p taken over the whole distribution it would keep both.
TEST(SamplerCutTest, TopKCutsBeforeTheSoftmax) {
  const std::vector<float> logits = logs_of({0.5, 0.3, 0.2});
  EXPECT_EQ(support_of(logits, {.top_k = 2, .top_p = 0.6F, .min_p = 0}), (std::set<int>{0}));
  EXPECT_EQ(support_of(logits, {.top_p = 0.6F, .min_p = 0}), (std::set<int>{0, 1}));
}

// min_p does not renormalise what top_p sees: of {0.5, 0.25, 0.125, 0.125} min_p 0.3 leaves 0.75 of
// the mass; top_p 0.7 of the whole still needs both, of the kept part it would too, but top_p 0.6
// of the kept part would need the first alone (0.667).
TEST(SamplerCutTest, MinPAndTopPCutTheSameDistribution) {
  const std::vector<float> logits = logs_of({0.5, 0.25, 0.125, 0.125});
  EXPECT_EQ(support_of(logits, {.top_p = 0.6F, .min_p = 0.3F}), (std::set<int>{0, 1}));
}

// Temperature before the cuts: at temperature 2 the square roots of {0.64, 0.32, 0.04} compare as
// 0.8 : 0.57 : 0.2, so that min_p 0.2 keeps all three; at 1 it keeps two.
TEST(SamplerCutTest, TemperatureComesBeforeTheCuts) {
  const std::vector<float> logits = logs_of({0.64, 0.32, 0.04});
  EXPECT_EQ(support_of(logits, {.min_p = 0.2F}), (std::set<int>{0, 1}));
  EXPECT_EQ(support_of(logits, {.temperature = 2, .min_p = 0.2F}), (std::set<int>{0, 1, 2}));
  EXPECT_EQ(support_of(logits, {.temperature = 2, .top_p = 0.99F, .min_p = 0.2F}),
            (std::set<int>{0, 1, 2}));
}

TEST(SamplerCutTest, TopKPrefersTheLowerIdOfEqualLogits) {
  EXPECT_EQ(support_of({1, 1, 1, 1}, {.top_k = 2, .min_p = 0}), (std::set<int>{0, 1}));
}

TEST(SamplerCutTest, TopKIsBoundedAt1024) {
  EXPECT_EQ(
      support_of(std::vector<float>(1100, 0.0F), {.top_k = 5000, .min_p = 0}).rbegin().operator*(),
      1023);
}

TEST(SamplerCutTest, OutOfRangeOptionsAreBroughtIntoRange) {
  const std::vector<float> logits = logs_of({0.6, 0.3, 0.1});
  const std::set<int> all{0, 1, 2};
  EXPECT_EQ(support_of(logits, {.top_p = 0, .min_p = 0}), all);
  EXPECT_EQ(support_of(logits, {.top_p = 1.5F, .min_p = 0}), all);
  EXPECT_EQ(support_of(logits, {.top_p = kNan, .min_p = -1}), all);
  EXPECT_EQ(support_of(logits, {.temperature = -1}), (std::set<int>{0}));
  EXPECT_EQ(support_of(logits, {.temperature = kNan}), (std::set<int>{0}));
}

TEST(SamplerCutTest, NotFiniteLogitsNeverCome) {
  const std::vector<float> logits{kNan, 1, kInf, 1, -kInf};
  const std::set<int> finite{1, 3};
  EXPECT_EQ(support_of(logits, {.min_p = 0}), finite);
  EXPECT_EQ(support_of(logits, {.top_p = 0.99F, .min_p = 0}), finite);
  EXPECT_EQ(support_of(logits, {.top_k = 5, .min_p = 0}), finite);
}

TEST(SamplerCutTest, AllowedTokensAloneAreCandidates) {
  const std::vector<float> logits{9, 1, 1, 1};
  TokenSet allowed(4);
  allowed.insert(TokenId{1});
  allowed.insert(TokenId{3});
  const std::set<int> expected{1, 3};
  EXPECT_EQ(support_of(logits, {}, &allowed), expected);  // min_p relative to the allowed best
  EXPECT_EQ(support_of(logits, {.top_k = 2}, &allowed), expected);
  EXPECT_EQ(support_of(logits, {.top_p = 0.9F}, &allowed), expected);
  allowed.clear();
  Sampler sampler(4, 1);
  EXPECT_THROW(sampler.sample(logits, {}, &allowed), Error);
}

TEST(SamplingOptionsTest, ValidateNamesFieldValueAndRange) {
  EXPECT_EQ(message_of([] { SamplingOptions{}.validate(); }), "");
  EXPECT_EQ(message_of([] { SamplingOptions::greedy().validate(); }), "");
  EXPECT_EQ(message_of([] { SamplingOptions{.top_p = 1.5F}.validate(); }),
            "top_p is 1.5: it must be greater than 0 and at most 1 (1 is off)");
  EXPECT_THROW(SamplingOptions{.temperature = -0.5F}.validate(), Error);
  EXPECT_THROW(SamplingOptions{.temperature = kNan}.validate(), Error);
  EXPECT_THROW(SamplingOptions{.temperature = kInf}.validate(), Error);
  EXPECT_THROW(SamplingOptions{.top_k = -1}.validate(), Error);
  EXPECT_THROW(SamplingOptions{.top_p = 0}.validate(), Error);
  EXPECT_THROW(SamplingOptions{.min_p = 1.1F}.validate(), Error);
  EXPECT_THROW(SamplingOptions{.min_p = kNan}.validate(), Error);
}

TEST(SamplerTest, AllocatesNothingAfterConstruction) {
  constexpr std::size_t kVocab = 20000;
  std::vector<float> logits(kVocab);
  for (std::size_t i = 0; i < kVocab; ++i)
    logits[i] = 3 * std::cos(static_cast<float>(i * i % 977));
  Sampler sampler(kVocab, 4);
  const std::array<SamplingOptions, 4> variants{
      SamplingOptions{}, SamplingOptions{.top_p = 0.999F, .min_p = 0},
      SamplingOptions{.top_k = 50, .top_p = 0.9F}, SamplingOptions::greedy()};
  const std::uint64_t before = test::allocation_count();
  for (int i = 0; i < 25; ++i) {
    for (const SamplingOptions& options : variants)
      sampler.sample(logits, options);
    sampler.top_logprobs(logits, 20);
  }
  EXPECT_EQ(test::allocation_count() - before, 0U);
}

}  // namespace
}  // namespace ds4::sample
