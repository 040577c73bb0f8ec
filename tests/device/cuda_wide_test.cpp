// The same comparison with as many heads, index heads and experts as the published model has, which
// the emulation would take minutes for.
#include "cuda_pair.h"

namespace ds4 {
namespace {

convert::ModelShape wide_shape() {
  convert::ModelShape shape = convert::flash_shape();
  shape.layer_count = 6;
  shape.vocab_size = 512;
  shape.width = 1024;
  shape.query_rank = 256;
  shape.output_rank = 256;
  shape.expert_width = 512;
  shape.index_top_k = 64;
  shape.expert_count = 64;
  shape.compress_ratios.erase(shape.compress_ratios.begin() + 6, shape.compress_ratios.end() - 1);
  return shape;
}

TEST(CudaWide, PromptThenDecode) {
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  test::CudaPair pair(wide_shape(), ElementType::kQ8_0, 512);
  const auto tokens = test::random_tokens(pair.model.config(), 420, 1);
  const SequenceId a = pair.cpu->open_sequence(512);
  const SequenceId b = pair.cuda->open_sequence(512);
  std::uint32_t from = 0;
  std::vector<float> expected;
  std::vector<float> found;
  for (const std::uint32_t count : {300U, 1U, 1U, 4U, 40U, 1U}) {
    test::append(expected, test::run_rows(*pair.cpu, test::rows_of(tokens, a, from, from + count)));
    test::append(found, test::run_rows(*pair.cuda, test::rows_of(tokens, b, from, from + count)));
    from += count;
  }
  EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size), 5e-2);
}

// To the bit, at lengths where attention has several parts and the indexer chooses.
TEST(CudaWide, RowsOfAStepAreThoseOfEachAlone) {
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  constexpr std::uint32_t kRows = 20;
  const test::RandomModel model(wide_shape(), ElementType::kQ8_0);
  const auto executor = cuda::make_cuda_executor(
      model.config(), model.weights(), {.thread_count = 2, .rows_max = 512, .context = 1024});
  const std::size_t vocab = model.config().vocab_size;
  std::vector<BatchRow> alone;
  std::vector<BatchRow> beside;
  for (std::uint32_t r = 0; r < kRows; ++r) {
    const std::uint32_t length = 40 + 23 * r;
    const auto tokens = test::random_tokens(model.config(), length + 1, r);
    for (std::vector<BatchRow>* rows : {&alone, &beside}) {
      const SequenceId sequence = executor->open_sequence(512);
      static_cast<void>(test::run_rows(*executor, test::rows_of(tokens, sequence, 0, length)));
      rows->push_back({tokens[length], Position{length}, sequence});
    }
  }
  const std::vector<float> together = test::run_rows(*executor, beside);
  for (std::uint32_t r = 0; r < kRows; ++r) {
    const std::vector<float> own = test::run_rows(*executor, {alone[r]});
    EXPECT_TRUE(std::equal(own.begin(), own.end(), &together[r * vocab])) << "row " << r;
  }
}

}  // namespace
}  // namespace ds4
