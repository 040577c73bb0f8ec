// The state machine of an executor: however a sequence comes to a length, its state and logits are
// the same, to the last bit.
#include <cstring>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "cpu/cpu_executor.h"
#include "support/random_model.h"

namespace ds4 {
namespace {

using Logits = std::vector<float>;

class ExecutorTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = new test::RandomModel(test::small_shape()); }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }

  static std::unique_ptr<Executor> make_executor(std::uint32_t threads = 1,
                                                 RowCodec codec = RowCodec::kPacked) {
    return cpu::make_cpu_executor(model_->config(), model_->weights(),
                                  {.thread_count = threads, .rows_max = 640, .codec = codec});
  }

  static test::RandomModel* model_;
};

test::RandomModel* ExecutorTest::model_ = nullptr;

// Runs tokens [from, to) of `tokens` as one batch and returns the logits of the last.
Logits run(Executor& executor,
           SequenceId sequence,
           const std::vector<TokenId>& tokens,
           std::uint32_t from,
           std::uint32_t to) {
  std::vector<BatchRow> rows;
  for (std::uint32_t p = from; p < to; ++p)
    rows.push_back({tokens[p], Position{p}, sequence, p + 1 == to});
  Logits logits(executor.config().vocab_size);
  executor.run({rows}, {.logits = Rows(logits.data(), {1, logits.size()})});
  return logits;
}

std::vector<Logits> decode_all(Executor& executor, const std::vector<TokenId>& tokens) {
  const SequenceId sequence = executor.open_sequence(static_cast<std::uint32_t>(tokens.size()) + 1);
  std::vector<Logits> all;
  for (std::uint32_t p = 0; p < tokens.size(); ++p)
    all.push_back(run(executor, sequence, tokens, p, p + 1));
  executor.close_sequence(sequence);
  return all;
}

std::vector<std::vector<std::byte>> read_all(const Executor& executor, SequenceId sequence) {
  std::vector<std::vector<std::byte>> all;
  for (const StateSection& section : executor.layout().sections(executor.length(sequence))) {
    all.emplace_back(section.bytes());
    executor.read_state(sequence, section, all.back());
  }
  return all;
}

void copy_state(const Executor& from, SequenceId source, Executor& to, SequenceId target) {
  const std::uint32_t length = from.length(source);
  to.begin_restore(target, length);
  for (const StateSection& section : from.layout().sections(length)) {
    std::vector<std::byte> bytes(section.bytes());
    from.read_state(source, section, bytes);
    to.write_state(target, section, bytes);
  }
}

TEST_F(ExecutorTest, PrefillThenDecodeEqualsDecodeForEveryLength) {
  const auto executor = make_executor();
  const auto tokens = test::random_tokens(model_->config(), 310, 1);
  const auto expected = decode_all(*executor, tokens);
  const SequenceId sequence = executor->open_sequence(320);
  for (std::uint32_t n = 1; n <= 300; ++n) {
    executor->truncate(sequence, 0);
    ASSERT_EQ(run(*executor, sequence, tokens, 0, n), expected[n - 1]) << n;
    for (std::uint32_t p = n; p < n + 5; ++p)
      ASSERT_EQ(run(*executor, sequence, tokens, p, p + 1), expected[p]) << n << " then " << p;
  }
}

TEST_F(ExecutorTest, AnyChunkingGivesTheSameState) {
  const auto executor = make_executor();
  const auto tokens = test::random_tokens(model_->config(), 530, 2);
  const SequenceId whole = executor->open_sequence(600);
  const Logits expected = run(*executor, whole, tokens, 0, 530);
  const auto state = read_all(*executor, whole);
  for (const std::uint32_t chunk : {1U, 2U, 3U, 4U, 5U, 127U, 128U, 129U, 512U}) {
    const SequenceId sequence = executor->open_sequence(600);
    Logits logits;
    for (std::uint32_t p = 0; p < 530; p += chunk)
      logits = run(*executor, sequence, tokens, p, std::min(530U, p + chunk));
    EXPECT_EQ(logits, expected) << chunk;
    EXPECT_EQ(read_all(*executor, sequence), state) << chunk;
    executor->close_sequence(sequence);
  }
}

TEST_F(ExecutorTest, RestoredStateContinuesExactly) {
  const auto source = make_executor();
  const auto target = make_executor(2);
  const auto tokens = test::random_tokens(model_->config(), 530, 3);
  const auto expected = decode_all(*source, tokens);
  const SequenceId live = source->open_sequence(600);
  const SequenceId restored = target->open_sequence(600);
  std::uint32_t done = 0;
  for (const std::uint32_t n : {1U, 3U, 4U, 5U, 16U, 17U, 127U, 128U, 129U, 130U, 255U, 256U, 257U,
                                383U, 384U, 385U, 511U, 512U, 513U}) {
    run(*source, live, tokens, done, n);
    done = n;
    copy_state(*source, live, *target, restored);
    for (std::uint32_t p = n; p < n + 10; ++p)
      ASSERT_EQ(run(*target, restored, tokens, p, p + 1), expected[p]) << n << " then " << p;
  }
}

TEST_F(ExecutorTest, TruncationWithinReachIsExact) {
  const auto executor = make_executor();
  const auto tokens = test::random_tokens(model_->config(), 300, 4);
  const auto expected = decode_all(*executor, tokens);
  const SequenceId sequence = executor->open_sequence(400);
  for (const std::uint32_t n : {1U, 6U, 20U, 129U, 140U, 257U}) {
    executor->truncate(sequence, 0);
    run(*executor, sequence, tokens, 0, n);
    const std::uint32_t shortest = executor->shortest_truncation(sequence);
    EXPECT_EQ(shortest, n - std::min(n, executor->info().rewind_max));
    for (std::uint32_t m = n; m-- > shortest;) {
      if (m == 0) break;
      executor->truncate(sequence, m);
      for (std::uint32_t p = m; p < n; ++p)
        ASSERT_EQ(run(*executor, sequence, tokens, p, p + 1), expected[p]) << n << " back to " << m;
    }
  }
}

TEST_F(ExecutorTest, SequencesInOneBatchDoNotTouchEachOther) {
  const auto executor = make_executor(2);
  const auto a = test::random_tokens(model_->config(), 200, 5);
  const auto b = test::random_tokens(model_->config(), 200, 6);
  const auto expected_a = decode_all(*executor, a);
  const auto expected_b = decode_all(*executor, b);
  const SequenceId sa = executor->open_sequence(220);
  const SequenceId sb = executor->open_sequence(220);
  const std::size_t vocab = model_->config().vocab_size;
  // Decode rows of one beside prefill chunks of the other, of changing sizes.
  std::uint32_t at_a = 0;
  std::uint32_t at_b = 0;
  for (std::uint32_t step = 0; at_b + 8 < 200; ++step) {
    std::vector<BatchRow> rows;
    rows.push_back({a[at_a], Position{at_a}, sa, true});
    const std::uint32_t count = 1 + step % 7;
    for (std::uint32_t i = 0; i < count; ++i)
      rows.push_back({b[at_b + i], Position{at_b + i}, sb, i + 1 == count});
    Logits logits(2 * vocab);
    executor->run({rows}, {.logits = Rows(logits.data(), {2, vocab})});
    ASSERT_EQ(Logits(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(vocab)),
              expected_a[at_a]);
    at_a += 1;
    at_b += count;
    ASSERT_EQ(Logits(logits.begin() + static_cast<std::ptrdiff_t>(vocab), logits.end()),
              expected_b[at_b - 1]);
  }
}

TEST_F(ExecutorTest, ResultsDoNotDependOnThreads) {
  const auto tokens = test::random_tokens(model_->config(), 150, 7);
  const auto one = make_executor(1);
  const auto four = make_executor(4);
  const auto expected = decode_all(*one, tokens);
  EXPECT_EQ(decode_all(*four, tokens), expected);
  const SequenceId sequence = four->open_sequence(200);
  EXPECT_EQ(run(*four, sequence, tokens, 0, 150), expected[149]);
}

TEST_F(ExecutorTest, ExactCodecIsAStateMachineToo) {
  const auto executor = make_executor(1, RowCodec::kExact);
  const auto tokens = test::random_tokens(model_->config(), 150, 8);
  const auto expected = decode_all(*executor, tokens);
  const SequenceId sequence = executor->open_sequence(200);
  EXPECT_EQ(run(*executor, sequence, tokens, 0, 150), expected[149]);
}

// The selection is what 2,048 and more tokens exercise with the published 512 rows.
TEST(ExecutorLongTest, BoundariesOfThePublishedSelection) {
  convert::ModelShape shape = test::small_shape();
  shape.index_top_k = 512;
  shape.window = 128;
  shape.layer_count = 4;
  shape.compress_ratios = {0, 4, 128, 4, 0};
  const test::RandomModel model(shape);
  const auto executor = cpu::make_cpu_executor(model.config(), model.weights(),
                                               {.thread_count = 1, .rows_max = 2100});
  const auto tokens = test::random_tokens(model.config(), 2060, 9);
  const auto expected = decode_all(*executor, tokens);
  for (std::uint32_t n = 2046; n <= 2054; ++n) {
    const SequenceId sequence = executor->open_sequence(2100);
    ASSERT_EQ(run(*executor, sequence, tokens, 0, n), expected[n - 1]) << n;
    const SequenceId restored = executor->open_sequence(2100);
    copy_state(*executor, sequence, *executor, restored);
    for (std::uint32_t p = n; p < n + 3; ++p) {
      ASSERT_EQ(run(*executor, sequence, tokens, p, p + 1), expected[p]) << n;
      ASSERT_EQ(run(*executor, restored, tokens, p, p + 1), expected[p]) << n << " restored";
    }
    executor->close_sequence(sequence);
    executor->close_sequence(restored);
  }
}

TEST_F(ExecutorTest, DraftsAreTheMtpLogitsOfTheNextEntry) {
  const auto executor = make_executor();
  const auto tokens = test::random_tokens(model_->config(), 40, 10);
  const std::size_t vocab = model_->config().vocab_size;
  const SequenceId whole = executor->open_sequence(60);
  std::vector<BatchRow> rows;
  for (std::uint32_t p = 0; p < 40; ++p)
    rows.push_back({tokens[p], Position{p}, whole, false});
  std::vector<float> mtp(39 * vocab);
  executor->run({rows}, {.mtp_logits = Rows(mtp.data(), {39, vocab})});
  const SequenceId sequence = executor->open_sequence(60);
  for (std::uint32_t p = 0; p < 39; ++p) {
    run(*executor, sequence, tokens, p, p + 1);
    Logits draft(vocab);
    executor->draft(sequence, tokens[p + 1], 0, draft);
    ASSERT_EQ(draft, Logits(mtp.begin() + static_cast<std::ptrdiff_t>(p * vocab),
                            mtp.begin() + static_cast<std::ptrdiff_t>((p + 1) * vocab)))
        << p;
  }
}

TEST_F(ExecutorTest, MemoryIsWhatWasPlanned) {
  const auto executor = make_executor();
  const auto plan = cpu::plan_cpu_memory(model_->config(), model_->weights(),
                                         {.thread_count = 1, .rows_max = 640}, 5000);
  executor->open_sequence(5000);
  const auto held = executor->memory();
  ASSERT_EQ(plan.size(), held.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].name, held[i].name);
    EXPECT_EQ(plan[i].bytes, held[i].bytes) << plan[i].name;
  }
}

TEST_F(ExecutorTest, SteeringByZeroChangesNothingAndOtherwiseDoes) {
  const auto executor = make_executor();
  const auto tokens = test::random_tokens(model_->config(), 30, 11);
  const auto expected = decode_all(*executor, tokens);
  Steering steering;
  steering.directions.assign(std::size_t{model_->config().layer_count} * model_->config().width,
                             0.125F);
  executor->set_steering(steering);
  EXPECT_EQ(decode_all(*executor, tokens), expected);
  steering.ffn_scale = 1.0F;
  executor->set_steering(steering);
  EXPECT_NE(decode_all(*executor, tokens), expected);
}

}  // namespace
}  // namespace ds4
