// What the card hands over of a row's logits draws the same tokens as the whole row.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "cuda/device.h"
#include "cuda/sample.h"
#include "cuda_pair.h"
#include "sample/sampler.h"

namespace ds4 {
namespace {

using sample::CandidateQuery;
using sample::CandidateSet;
using sample::Sampler;
using sample::SamplingOptions;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rows as models make them, and rows as they should not be.
std::vector<std::vector<float>> make_rows(std::size_t vocab, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> rows;
  const auto add = [&](const auto& value) {
    rows.emplace_back(vocab);
    for (std::size_t i = 0; i < vocab; ++i)
      rows.back()[i] = value(i);
  };
  add([&](std::size_t) { return 3 * normal(random); });
  add([&](std::size_t i) { return normal(random) + (i % 97 == 5 ? 14.0F : 0.0F); });
  add([&](std::size_t) { return std::round(normal(random)); });
  add([&](std::size_t i) { return i == vocab / 2 ? 30.0F : normal(random); });
  add([&](std::size_t i) {
    return i % 3 == 0 ? -kInfinity : (i % 3 == 1 ? std::nanf("") : 2 * normal(random));
  });
  add([&](std::size_t i) { return i + 7 < vocab ? -kInfinity : normal(random); });
  add([&](std::size_t i) { return i % 2 == 0 ? 0.0F : -0.0F; });
  return rows;
}

std::vector<SamplingOptions> all_options() {
  std::vector<SamplingOptions> all = {SamplingOptions::greedy(), {}};
  for (const float temperature : {0.3F, 1.0F, 1.7F})
    for (const int top_k : {0, 1, 40, 1024})
      for (const float top_p : {0.2F, 0.95F, 1.0F})
        for (const float min_p : {0.0F, 0.05F, 0.5F})
          all.push_back(
              {.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p});
  return all;
}

std::vector<CandidateSet> collect(const std::vector<std::vector<float>>& rows,
                                  const CandidateQuery& query) {
  const std::size_t vocab = rows.front().size();
  cuda::Stream stream(false);
  cuda::SampleBuffers buffers(static_cast<std::uint32_t>(rows.size()) + 1);
  const cuda::DeviceBuffer logits(rows.size() * vocab * sizeof(float), "logits");
  for (std::size_t r = 0; r < rows.size(); ++r)
    stream.upload(logits.as<float>() + r * vocab, rows[r].data(), vocab * sizeof(float));
  const std::vector<CandidateQuery> queries(rows.size(), query);
  std::vector<CandidateSet> sets(rows.size());
  buffers.collect(stream, logits.as<float>(), static_cast<std::uint32_t>(vocab), queries, sets);
  return sets;
}

// Draws from the sets and from the rows; returns how many sets did not decide.
std::uint32_t compare(const std::vector<std::vector<float>>& rows, const CandidateQuery& query) {
  const std::size_t vocab = rows.front().size();
  const SamplingOptions& o = query.options;
  const std::vector<CandidateSet> sets = collect(rows, query);
  std::uint32_t undecided = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    Sampler from_row(vocab, r + 1);
    Sampler from_set(vocab, r + 1);
    std::vector<float> row = rows[r];
    if (query.excluded.value() >= 0)
      row[static_cast<std::size_t>(query.excluded.value())] = -kInfinity;
    for (int draw = 0; draw < 8; ++draw) {
      const auto before = from_set.random().state();
      const auto found = from_set.sample(sets[r], o);
      if (!found) {
        ++undecided;
        EXPECT_EQ(before, from_set.random().state());
        break;
      }
      EXPECT_EQ(from_row.sample(row, o), *found)
          << "row " << r << ", temperature " << o.temperature << ", top_k " << o.top_k << ", top_p "
          << o.top_p << ", min_p " << o.min_p << ", " << sets[r].entries.size() << " entries";
    }
  }
  return undecided;
}

TEST(CudaSample, DrawsAsFromTheWholeRow) {
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  for (const std::size_t vocab : {100UL, 2048UL, 5001UL}) {
    const auto rows = make_rows(vocab, static_cast<std::uint32_t>(vocab));
    std::uint32_t undecided = 0;
    std::uint32_t cases = 0;
    for (const SamplingOptions& options : all_options()) {
      undecided += compare(rows, {options});
      cases += static_cast<std::uint32_t>(rows.size());
    }
    std::printf("vocabulary %zu: %u of %u sets need the whole row\n", vocab, undecided, cases);
  }
}

TEST(CudaSample, AFullVocabulary) {
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  const auto rows = make_rows(129280, 5);
  EXPECT_EQ(compare(rows, {SamplingOptions::greedy()}), 0U);
  // Rows 2 and 6 have thousands of equal tokens, which only whole rows can hold.
  EXPECT_LE(compare(rows, {{}}), 2U);
  EXPECT_LE(compare(rows, {{.temperature = 1, .top_k = 40, .top_p = 0.95F, .min_p = 0}}), 2U);
  EXPECT_LE(compare(rows, {{.temperature = 0.6F, .top_k = 0, .top_p = 0.9F, .min_p = 0}}), 4U);
}

TEST(CudaSample, AnExcludedTokenNeverComes) {
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  const auto rows = make_rows(2048, 6);
  const TokenId best = sample::argmax(rows[3]);
  const auto greedy = collect(rows, {SamplingOptions::greedy(), best});
  EXPECT_EQ(greedy[3].entries.at(0).token, sample::argmax_excluding(rows[3], best));
  compare(rows, {{}, best});
}

TEST(CudaSample, NothingFiniteIsAnError) {
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  const std::vector<std::vector<float>> rows = {std::vector<float>(300, std::nanf(""))};
  for (const SamplingOptions& options : {SamplingOptions::greedy(), SamplingOptions{}}) {
    const auto sets = collect(rows, {options});
    Sampler sampler(300, 1);
    EXPECT_THROW(sampler.sample(sets[0], options), Error);
  }
}

// Through the executor: what a step hands over belongs to the logits that stay behind.
TEST(CudaSample, AStepHandsOverCandidates) {
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  test::CudaPair pair(test::device_shape(), ElementType::kQ8_0, 32);
  Executor& executor = *pair.cuda;
  const std::size_t vocab = executor.config().vocab_size;
  ASSERT_GE(executor.info().candidate_rows_max, 3U);
  const auto tokens = test::random_tokens(executor.config(), 12, 31);
  const SequenceId a = executor.open_sequence(64);
  const SequenceId b = executor.open_sequence(64);
  auto rows = test::rows_of(tokens, a, 0, 5);
  const auto expected = test::run_rows(executor, rows);
  rows = test::rows_of(tokens, b, 0, 5);
  rows[1].wants_logits = true;
  rows[3].wants_logits = true;
  rows[4].wants_logits = true;
  const std::vector<CandidateQuery> queries = {{SamplingOptions::greedy()}, {{}}, {{}}};
  std::vector<CandidateSet> sets(3);
  executor.run({rows}, {.queries = queries, .candidates = sets});
  const std::size_t positions[] = {1, 3, 4};
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<float> logits(vocab);
    executor.read_logits(i, logits);
    const std::span<const float> whole(expected.data() + positions[i] * vocab, vocab);
    EXPECT_TRUE(std::equal(whole.begin(), whole.end(), logits.begin())) << i;
    Sampler from_row(vocab, 9);
    Sampler from_set(vocab, 9);
    const auto drawn = from_set.sample(sets[i], queries[i].options);
    ASSERT_TRUE(drawn);
    EXPECT_EQ(from_row.sample(whole, queries[i].options), *drawn);
  }
}

}  // namespace
}  // namespace ds4
