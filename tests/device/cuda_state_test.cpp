// State on the card: moved in and out without a changed bit, the same however a prompt is cut, and
// right at a million tokens.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "backend/rope.h"
#include "backend/row_codec.h"
#include "cuda_pair.h"

namespace ds4 {
namespace {

using test::CudaPair;

#define SKIP_WITHOUT_CARD() \
  if (cuda::card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine"

using StateBytes = std::vector<std::vector<std::byte>>;

StateBytes read_all(const Executor& executor, SequenceId sequence) {
  StateBytes all;
  for (const StateSection& section : executor.layout().sections(executor.length(sequence))) {
    all.emplace_back(section.bytes());
    executor.read_state(sequence, section, all.back());
  }
  return all;
}

std::vector<float> run_chunks(Executor& executor,
                              SequenceId sequence,
                              const std::vector<TokenId>& tokens,
                              std::uint32_t chunk) {
  std::vector<float> all;
  const auto total = static_cast<std::uint32_t>(tokens.size());
  for (std::uint32_t from = 0; from < total; from += chunk)
    test::append(all, test::run_rows(executor, test::rows_of(tokens, sequence, from,
                                                             std::min(from + chunk, total))));
  return all;
}

TEST(CudaState, MovesBetweenBackendsWithoutAChangedBit) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0, 512);
  const auto tokens = test::random_tokens(pair.model.config(), 300, 21);
  for (const std::uint32_t length : {1U, 3U, 4U, 5U, 127U, 128U, 129U, 131U, 255U, 256U, 300U}) {
    const SequenceId a = pair.cpu->open_sequence(320);
    const SequenceId b = pair.cuda->open_sequence(320);
    const SequenceId c = pair.cpu->open_sequence(320);
    static_cast<void>(test::run_rows(*pair.cpu, test::rows_of(tokens, a, 0, length)));
    test::copy_state(*pair.cpu, a, *pair.cuda, b);
    test::copy_state(*pair.cuda, b, *pair.cpu, c);
    const StateBytes expected = read_all(*pair.cpu, a);
    EXPECT_EQ(expected, read_all(*pair.cuda, b)) << "on the card, length " << length;
    EXPECT_EQ(expected, read_all(*pair.cpu, c)) << "back again, length " << length;
    // And continues there as the sequence that never moved.
    if (length < 290) {
      const auto rows = test::rows_of(tokens, a, length, length + 3);
      const auto moved = test::rows_of(tokens, c, length, length + 3);
      EXPECT_EQ(test::run_rows(*pair.cpu, rows), test::run_rows(*pair.cpu, moved)) << length;
    }
    pair.cpu->close_sequence(a);
    pair.cuda->close_sequence(b);
    pair.cpu->close_sequence(c);
  }
}

TEST(CudaState, TheCardContinuesItsOwnStateExactly) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0, 512);
  const auto other =
      cuda::make_cuda_executor(pair.model.config(), pair.model.weights(),
                               {.thread_count = 2, .rows_max = 256, .context = 1024});
  const auto tokens = test::random_tokens(pair.model.config(), 240, 22);
  for (const std::uint32_t length : {2U, 129U, 200U}) {
    const SequenceId a = pair.cuda->open_sequence(256);
    const SequenceId b = other->open_sequence(256);
    static_cast<void>(test::run_rows(*pair.cuda, test::rows_of(tokens, a, 0, length)));
    test::copy_state(*pair.cuda, a, *other, b);
    for (std::uint32_t p = length; p < length + 20; ++p)
      ASSERT_EQ(test::run_rows(*pair.cuda, test::rows_of(tokens, a, p, p + 1)),
                test::run_rows(*other, test::rows_of(tokens, b, p, p + 1)))
          << length << " then " << p;
    pair.cuda->close_sequence(a);
    other->close_sequence(b);
  }
}

// Two engines in one process: neither disturbs the other's results.
TEST(CudaState, TwoExecutorsWorkSideBySide) {
  SKIP_WITHOUT_CARD();
  CudaPair one(test::device_shape(), ElementType::kQ8_0);
  CudaPair two(test::device_shape(), ElementType::kF16);
  const auto tokens = test::random_tokens(one.model.config(), 80, 23);
  const SequenceId a = one.cuda->open_sequence(128);
  const SequenceId b = two.cuda->open_sequence(128);
  const auto expected_one = run_chunks(*one.cuda, a, tokens, 4);
  const auto expected_two = run_chunks(*two.cuda, b, tokens, 4);
  one.cuda->truncate(a, 0);
  two.cuda->truncate(b, 0);
  std::vector<float> found_one;
  std::vector<float> found_two;
  for (std::uint32_t from = 0; from < 80; from += 4) {
    test::append(found_one, test::run_rows(*one.cuda, test::rows_of(tokens, a, from, from + 4)));
    test::append(found_two, test::run_rows(*two.cuda, test::rows_of(tokens, b, from, from + 4)));
  }
  EXPECT_EQ(expected_one, found_one);
  EXPECT_EQ(expected_two, found_two);
}

// Rows of more than a few go through the same kernels whatever the chunk, and those promise that a
// row's result does not depend on the others.
TEST(CudaState, ManyRowChunksAreEqualToTheBit) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0, 512);
  const auto tokens = test::random_tokens(pair.model.config(), 384, 24);
  std::vector<float> expected;
  StateBytes state;
  for (const std::uint32_t chunk : {384U, 192U, 128U, 96U, 48U}) {
    const SequenceId sequence = pair.cuda->open_sequence(512);
    const auto found = run_chunks(*pair.cuda, sequence, tokens, chunk);
    const StateBytes bytes = read_all(*pair.cuda, sequence);
    if (expected.empty()) {
      expected = found;
      state = bytes;
    }
    EXPECT_TRUE(expected == found) << "logits, chunks of " << chunk;
    EXPECT_TRUE(state == bytes) << "state, chunks of " << chunk;
    pair.cuda->close_sequence(sequence);
  }
}

// A sequence of `length` tokens of nothing: every row zero, so that every index score ties.
void restore_zeros(Executor& executor, SequenceId sequence, std::uint32_t length) {
  executor.begin_restore(sequence, length);
  for (const StateSection& section : executor.layout().sections(length))
    executor.write_state(sequence, section, std::vector<std::byte>(section.bytes()));
}

// The rotary values of the newest window row of layer 0, which follow from the token and its
// position alone.
std::vector<float> newest_rotary(Executor& executor, SequenceId sequence) {
  const ModelConfig& config = executor.config();
  const PackedRowLayout packed{config.nope_dim(), config.rope_dim};
  const StateSection section{StatePart::kWindow, LayerIndex{0}, executor.length(sequence) - 1, 1,
                             packed.bytes()};
  std::vector<std::byte> bytes(packed.bytes());
  executor.read_state(sequence, section, bytes);
  std::vector<float> row(config.head_dim);
  unpack_attention_row(packed, bytes, row);
  return {row.end() - static_cast<std::ptrdiff_t>(config.rope_dim), row.end()};
}

// Runs one token behind `position` rows of nothing.
std::vector<float> run_at(Executor& executor, std::uint32_t position, std::vector<float>* rotary) {
  const SequenceId sequence = executor.open_sequence(position + 1);
  if (position > 0) restore_zeros(executor, sequence, position);
  const std::vector<BatchRow> rows = {{TokenId{7}, Position{position}, sequence, true}};
  auto logits = test::run_rows(executor, rows);
  *rotary = newest_rotary(executor, sequence);
  executor.close_sequence(sequence);
  return logits;
}

TEST(CudaState, RotationAndTiesAtAMillionTokens) {
  SKIP_WITHOUT_CARD();
  CudaPair pair(test::device_shape(), ElementType::kQ8_0, 32);
  const ModelConfig& config = pair.model.config();
  const std::vector<float> turns = rope_frequencies(config.window_rope, config.rope_dim);
  std::vector<float> plain;
  run_at(*pair.cuda, 0, &plain);
  for (const std::uint32_t position : {1U, 1000U, 131071U, 1048575U}) {
    std::vector<float> rotary;
    std::vector<float> expected_rotary;
    const auto found = run_at(*pair.cuda, position, &rotary);
    const auto expected = run_at(*pair.cpu, position, &expected_rotary);
    double worst = 0;
    double size = 0;
    for (std::size_t i = 0; i < turns.size(); ++i) {
      // The angle is an f32 product by definition; its sine and cosine in f64.
      const double angle = static_cast<float>(position) * turns[i];
      const double a = plain[2 * i] * std::cos(angle) - plain[2 * i + 1] * std::sin(angle);
      const double b = plain[2 * i] * std::sin(angle) + plain[2 * i + 1] * std::cos(angle);
      worst = std::max({worst, std::fabs(rotary[2 * i] - a), std::fabs(rotary[2 * i + 1] - b)});
      size = std::max({size, std::fabs(a), std::fabs(b)});
    }
    // Two roundings to 16 bits, of the plain values and of the turned ones: 2^-16 of the largest
    // each, and a power-of-two scale may waste one bit.
    EXPECT_LT(worst, size * 0x1p-13) << "position " << position;
    const double apart = test::distance(expected, found).relative_rms;
    std::printf("position %u: rotary values off by %.2g of %.2g; logits by %.2g\n", position, worst,
                size, apart);
    EXPECT_LT(apart, 5e-2) << "position " << position;
  }
}

}  // namespace
}  // namespace ds4
