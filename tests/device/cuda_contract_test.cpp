// The CUDA backend held to the CPU's: layer by layer, as a whole, at odd row counts, with several
// sequences, across state transfers, and to itself across chunkings.
//
// Tolerances.  Attention takes its queries and probabilities as f16 (2^-12 relative each), tile
// products their inputs, so a layer's result moves by some 1e-3 of its size.  Rows stored as E4M3
// and index keys as E2M1 then round to a neighbour now and then, a step of 6 % of one value, and
// the router or the indexer may choose otherwise where two were equal but for rounding, which moves
// the row's logits by a fifth of their size.  Over whole models the tests therefore bound the
// median row, which such single rows do not move.
#include "backend/forward.h"
#include "cpu/machine.h"
#include "cuda/machine.h"
#include "cuda_pair.h"

namespace ds4 {
namespace {

using test::CudaPair;

constexpr double kLayerTolerance = 6e-3;
constexpr double kModelTolerance = 5e-2;

#define SKIP_WITHOUT_CARD() \
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine"

// Both machines on the same rows, every layer from the CPU's streams.
void compare_layers(const test::MatrixTypes& types,
                    std::uint32_t row_count,
                    std::uint32_t chunk,
                    const convert::ModelShape& shape = test::device_shape()) {
  test::RandomModel model(shape, types);
  const ModelConfig& config = model.config();
  cpu::CpuMachine expected(config, model.weights(), {.thread_count = 2, .rows_max = 256});
  cuda::CudaMachine found(config, model.weights(),
                          {.thread_count = 2, .rows_max = 256, .context = 512});
  const SequenceId sequence{0};
  expected.open_sequence(sequence, 512);
  found.open_sequence(sequence, 512);
  const auto tokens = test::random_tokens(config, row_count, 3);
  for (std::uint32_t from = 0; from < row_count; from += chunk) {
    const auto rows = test::rows_of(tokens, sequence, from, std::min(from + chunk, row_count));
    const RowRun run{sequence, 0, static_cast<std::uint32_t>(rows.size()), Position{from}};
    expected.begin({rows, {&run, 1}});
    found.begin({rows, {&run, 1}});
    expected.embed();
    found.embed();
    const std::size_t width = config.streams_width();
    std::vector<float> before(rows.size() * width);
    std::vector<float> a(before.size());
    std::vector<float> b(before.size());
    for (std::uint32_t l = 0; l < config.layer_count; ++l) {
      expected.read_streams(Rows(before.data(), {rows.size(), width}));
      if (l != 0) found.load_streams(ConstRows(before.data(), {rows.size(), width}));
      run_layer(expected, config, LayerIndex{l}, {});
      run_layer(found, config, LayerIndex{l}, {});
      expected.read_streams(Rows(a.data(), {rows.size(), width}));
      found.read_streams(Rows(b.data(), {rows.size(), width}));
      EXPECT_LT(test::distance(a, b).relative_rms, kLayerTolerance)
          << element_type_info(types.gate_up).name << ", layer " << l << ", rows " << from << " to "
          << from + rows.size();
    }
  }
}

class CudaFormats : public testing::TestWithParam<ElementType> {};

TEST_P(CudaFormats, EveryLayerByFewRows) {
  SKIP_WITHOUT_CARD();
  compare_layers(GetParam(), 5, 3);
}

TEST_P(CudaFormats, EveryLayerByManyRows) {
  SKIP_WITHOUT_CARD();
  compare_layers(GetParam(), 9, 9);
}

INSTANTIATE_TEST_SUITE_P(Types,
                         CudaFormats,
                         testing::Values(ElementType::kF32,
                                         ElementType::kF16,
                                         ElementType::kBF16,
                                         ElementType::kQ8_0,
                                         ElementType::kQ2K,
                                         ElementType::kQ4K,
                                         ElementType::kIQ2XXS,
                                         ElementType::kMXFP4),
                         [](const auto& format) {
                           return std::string(element_type_info(format.param).name);
                         });

// Experts of the combinations that have kernels of their own.
class CudaExperts : public testing::TestWithParam<test::MatrixTypes> {};

convert::ModelShape experts_shape() {
  convert::ModelShape shape = convert::with_layers(test::device_shape(), 2);
  shape.expert_width = 768;  // an odd number of blocks of columns
  return shape;
}

TEST_P(CudaExperts, EveryLayerBySomeRows) {
  SKIP_WITHOUT_CARD();
  compare_layers(GetParam(), 33, 11, experts_shape());
}

// To the bit, however many rows share the weights.
TEST_P(CudaExperts, RowsOfAStepAreThoseOfEachAlone) {
  SKIP_WITHOUT_CARD();
  constexpr std::uint32_t kRows = 32;
  CudaPair pair(experts_shape(), GetParam());
  Executor& executor = *pair.cuda;
  const auto tokens = test::random_tokens(pair.model.config(), kRows, 8);
  const std::size_t vocab = pair.model.config().vocab_size;
  std::vector<float> alone;
  for (const TokenId token : tokens) {
    const SequenceId sequence = executor.open_sequence(128);
    test::append(alone, test::run_rows(executor, {{token, Position{0}, sequence}}));
    executor.close_sequence(sequence);
  }
  for (const std::uint32_t count : {2U, 7U, 9U, 32U}) {
    std::vector<BatchRow> rows;
    for (std::uint32_t r = 0; r < count; ++r)
      rows.push_back({tokens[r], Position{0}, executor.open_sequence(128)});
    const std::vector<float> together = test::run_rows(executor, rows);
    for (std::uint32_t r = 0; r < count; ++r) {
      EXPECT_TRUE(std::equal(&together[r * vocab], &together[r * vocab] + vocab, &alone[r * vocab]))
          << "row " << r << " of " << count;
      executor.close_sequence(rows[r].sequence);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types,
    CudaExperts,
    testing::Values(
        test::MatrixTypes(ElementType::kQ8_0, ElementType::kIQ2XXS, ElementType::kQ2K),
        test::MatrixTypes(ElementType::kQ8_0, ElementType::kQ4K, ElementType::kQ4K),
        test::MatrixTypes(ElementType::kQ8_0, ElementType::kMXFP4, ElementType::kMXFP4)),
    [](const auto& types) { return std::string(element_type_info(types.param.gate_up).name); });

TEST(CudaContract, EveryLayerAtLengthsWhereTheIndexerChooses) {
  SKIP_WITHOUT_CARD();
  compare_layers(ElementType::kQ8_0, 260, 130);
}

// More than 16 heads: many rows' attention has a kernel of its own.
TEST(CudaContract, EveryLayerWithManyHeads) {
  SKIP_WITHOUT_CARD();
  convert::ModelShape shape = convert::with_layers(test::device_shape(), 4);
  shape.head_count = 18;
  compare_layers(ElementType::kQ8_0, 72, 36, shape);
}

TEST(CudaContract, LogitsOfEveryRowCount) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0);
  for (const std::uint32_t count : {1U, 2U, 3U, 5U, 8U, 9U, 17U, 33U, 127U, 128U, 129U}) {
    const auto tokens = test::random_tokens(pair.model.config(), count, count);
    const SequenceId a = pair.cpu->open_sequence(256);
    const SequenceId b = pair.cuda->open_sequence(256);
    const auto expected = test::run_rows(*pair.cpu, test::rows_of(tokens, a, 0, count));
    const auto found = test::run_rows(*pair.cuda, test::rows_of(tokens, b, 0, count));
    EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size),
              kModelTolerance)
        << count << " rows";
    pair.cpu->close_sequence(a);
    pair.cuda->close_sequence(b);
  }
}

TEST(CudaContract, SequencesMixedInOneBatch) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kF16);
  const auto tokens = test::random_tokens(pair.model.config(), 200, 5);
  constexpr std::uint32_t kSequences = 3;
  std::uint32_t length[kSequences] = {0, 0, 0};
  for (std::uint32_t s = 0; s < kSequences; ++s)
    ASSERT_EQ(pair.cpu->open_sequence(256), pair.cuda->open_sequence(256));
  const std::uint32_t steps[][kSequences] = {
      {1, 0, 2}, {7, 1, 1}, {1, 1, 1}, {40, 3, 129}, {1, 1, 1}};
  std::vector<float> expected;
  std::vector<float> found;
  for (const auto& step : steps) {
    std::vector<BatchRow> rows;
    for (std::uint32_t s = 0; s < kSequences; ++s) {
      const auto part = test::rows_of(tokens, SequenceId{s}, length[s], length[s] + step[s]);
      rows.insert(rows.end(), part.begin(), part.end());
      length[s] += step[s];
    }
    test::append(expected, test::run_rows(*pair.cpu, rows));
    test::append(found, test::run_rows(*pair.cuda, rows));
  }
  EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size),
            kModelTolerance);
}

TEST(CudaContract, ARowOfAStepDoesNotDependOnTheOthers) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0);
  Executor& executor = *pair.cuda;
  const auto tokens = test::random_tokens(pair.model.config(), 60, 8);
  const SequenceId alone = executor.open_sequence(128);
  const SequenceId beside = executor.open_sequence(128);
  const SequenceId other = executor.open_sequence(128);
  for (std::uint32_t p = 0; p < 50; ++p) {
    const auto expected = test::run_rows(executor, test::rows_of(tokens, alone, p, p + 1));
    std::vector<BatchRow> rows = test::rows_of(tokens, beside, p, p + 1);
    rows.push_back({tokens[59 - p], Position{p}, other});
    auto found = test::run_rows(executor, rows);
    found.resize(expected.size());
    ASSERT_EQ(expected, found) << "position " << p;
  }
}

TEST(CudaContract, StateGoesBothWays) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0);
  const auto tokens = test::random_tokens(pair.model.config(), 260, 6);
  for (const std::uint32_t length : {3U, 130U, 201U}) {
    const SequenceId a = pair.cpu->open_sequence(256);
    const SequenceId b = pair.cuda->open_sequence(256);
    static_cast<void>(test::run_rows(*pair.cpu, test::rows_of(tokens, a, 0, length)));
    test::copy_state(*pair.cpu, a, *pair.cuda, b);
    auto expected = test::run_rows(*pair.cpu, test::rows_of(tokens, a, length, length + 7));
    auto found = test::run_rows(*pair.cuda, test::rows_of(tokens, b, length, length + 7));
    EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size),
              kModelTolerance)
        << "to the card at " << length;
    const SequenceId c = pair.cpu->open_sequence(256);
    test::copy_state(*pair.cuda, b, *pair.cpu, c);
    expected = test::run_rows(*pair.cpu, test::rows_of(tokens, c, length + 7, length + 20));
    found = test::run_rows(*pair.cuda, test::rows_of(tokens, b, length + 7, length + 20));
    EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size),
              kModelTolerance)
        << "from the card at " << length + 7;
    for (const SequenceId sequence : {a, c})
      pair.cpu->close_sequence(sequence);
    pair.cuda->close_sequence(b);
  }
}

TEST(CudaContract, ChunksOfAPromptAgree) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0);
  const auto tokens = test::random_tokens(pair.model.config(), 180, 7);
  const auto total = static_cast<std::uint32_t>(tokens.size());
  std::vector<float> reference;
  for (const std::uint32_t chunk : {180U, 64U, 5U}) {
    const SequenceId sequence = pair.cuda->open_sequence(256);
    std::vector<float> all;
    for (std::uint32_t from = 0; from < total; from += chunk) {
      const auto rows = test::rows_of(tokens, sequence, from, std::min(from + chunk, total));
      test::append(all, test::run_rows(*pair.cuda, rows));
    }
    if (reference.empty()) reference = all;
    EXPECT_LT(test::typical_distance(reference, all, pair.model.config().vocab_size),
              kModelTolerance)
        << "chunks of " << chunk;
    pair.cuda->close_sequence(sequence);
  }
}

TEST(CudaContract, FewRowChunksAreEqualToTheBit) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0);
  const auto tokens = test::random_tokens(pair.model.config(), 64, 9);
  std::vector<std::vector<float>> results;
  for (const std::uint32_t chunk : {1U, 3U, 8U}) {
    const SequenceId sequence = pair.cuda->open_sequence(128);
    std::vector<float> all;
    for (std::uint32_t from = 0; from < tokens.size(); from += chunk) {
      const auto end =
          std::min<std::uint32_t>(from + chunk, static_cast<std::uint32_t>(tokens.size()));
      const auto part = test::run_rows(*pair.cuda, test::rows_of(tokens, sequence, from, end));
      all.insert(all.end(), part.begin(), part.end());
    }
    results.push_back(all);
    pair.cuda->close_sequence(sequence);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(CudaContract, DraftsAndTheirCache) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0);
  ASSERT_TRUE(pair.cuda->info().has_mtp);
  const std::uint32_t vocab = pair.model.config().vocab_size;
  const auto tokens = test::random_tokens(pair.model.config(), 60, 10);
  const SequenceId a = pair.cpu->open_sequence(128);
  const SequenceId b = pair.cuda->open_sequence(128);
  for (const auto& [from, to] : {std::pair{0U, 40U}, std::pair{40U, 41U}, std::pair{41U, 44U}}) {
    std::vector<float> expected((to - from) * std::size_t{vocab});
    std::vector<float> found(expected.size());
    const auto run = [&, first = from, end = to](Executor& executor, SequenceId sequence,
                                                 std::vector<float>& logits) {
      const auto rows = test::rows_of(tokens, sequence, first, end);
      executor.run({rows}, {.mtp_logits = Rows(logits.data(), {rows.size(), vocab})});
    };
    run(*pair.cpu, a, expected);
    run(*pair.cuda, b, found);
    EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size),
              kModelTolerance)
        << from << " to " << to;
  }
  for (std::uint32_t depth = 0; depth < 3; ++depth) {
    std::vector<float> expected(vocab);
    std::vector<float> found(vocab);
    pair.cpu->draft(a, tokens[44 + depth], depth, expected);
    pair.cuda->draft(b, tokens[44 + depth], depth, found);
    EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size),
              kModelTolerance)
        << "depth " << depth;
  }
}

TEST(CudaContract, Steering) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0);
  const ModelConfig& config = pair.model.config();
  Steering steering{
      .directions = std::vector<float>(std::size_t{config.layer_count} * config.width),
      .attention_scale = 0.5F,
      .ffn_scale = -1.5F};
  for (std::size_t i = 0; i < steering.directions.size(); ++i)
    steering.directions[i] = (i * 2654435761U >> 16) % 2 == 0 ? 0.0625F : -0.0625F;
  const auto tokens = test::random_tokens(config, 12, 11);
  const SequenceId a = pair.cpu->open_sequence(64);
  const SequenceId b = pair.cuda->open_sequence(64);
  const auto plain = test::run_rows(*pair.cuda, test::rows_of(tokens, b, 0, 4));
  static_cast<void>(test::run_rows(*pair.cpu, test::rows_of(tokens, a, 0, 4)));
  pair.cpu->set_steering(steering);
  pair.cuda->set_steering(steering);
  const auto expected = test::run_rows(*pair.cpu, test::rows_of(tokens, a, 4, 12));
  const auto found = test::run_rows(*pair.cuda, test::rows_of(tokens, b, 4, 12));
  EXPECT_LT(test::typical_distance(expected, found, pair.model.config().vocab_size),
            kModelTolerance);
}

TEST(CudaContract, ThePlanIsWhatIsAllocated) {
  SKIP_WITHOUT_CARD();
  test::RandomModel model(test::device_shape(), ElementType::kIQ2XXS);
  const cuda::CudaOptions options{.thread_count = 2, .rows_max = 64, .context = 512};
  const auto plan = cuda::plan_cuda_memory(model.config(), model.weights(), options, 512);
  const auto executor = cuda::make_cuda_executor(model.config(), model.weights(), options);
  static_cast<void>(executor->open_sequence(512));
  const auto held = executor->memory();
  ASSERT_EQ(plan.size(), held.size());
  for (std::size_t i = 0; i < plan.size(); ++i)
    EXPECT_EQ(plan[i].bytes, held[i].bytes) << plan[i].name;
}

TEST(CudaContract, RefusesWhatItsKernelsAreNotBuiltFor) {
  SKIP_WITHOUT_CARD();
  test::RandomModel model(test::small_shape());
  EXPECT_THROW(cuda::make_cuda_executor(model.config(), model.weights(), {}), Error);
  test::RandomModel right(test::device_shape());
  EXPECT_THROW(
      cuda::make_cuda_executor(right.config(), right.weights(), {.codec = RowCodec::kExact}),
      Error);
}

}  // namespace
}  // namespace ds4
