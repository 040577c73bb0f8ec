#include "engine/generate.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/allocation_count.h"

namespace ds4 {
namespace {

constexpr std::uint32_t kVocab = 16;
constexpr TokenId kStop{1};
constexpr TokenId kReasoningEnd{2};

std::vector<TokenId> ids(std::initializer_list<int> values) {
  std::vector<TokenId> out;
  for (const int value : values)
    out.emplace_back(value);
  return out;
}

// A machine that wants to say the same text whatever it is given: after position p comes script[p].
// Its drafts are right where `drafts` agrees with the script.
class ScriptedExecutor final : public Executor {
 public:
  ScriptedExecutor(std::vector<TokenId> script, std::vector<TokenId> drafts)
      : script_(std::move(script)),
        drafts_(std::move(drafts)),
        layout_(config_, RowCodec::kPacked, !drafts_.empty()) {
    config_.vocab_size = kVocab;
    info_.rows_max = 16;
    info_.rewind_max = 16;
    info_.has_mtp = !drafts_.empty();
  }
  void set_decode_rows_max(std::uint32_t rows) { info_.decode_rows_max = rows; }

  const ExecutorInfo& info() const override { return info_; }
  const ModelConfig& config() const override { return config_; }
  const StateLayout& layout() const override { return layout_; }
  SequenceId open_sequence(std::uint32_t) override { return SequenceId{0}; }
  void close_sequence(SequenceId) override {}
  std::uint32_t length(SequenceId) const override { return length_; }
  void run(const Batch& batch, const BatchOutputs& outputs) override {
    ++runs;
    rows_most = std::max(rows_most, batch.rows.size());
    std::size_t out = 0;
    for (const BatchRow& row : batch.rows) {
      ASSERT_EQ(row.position.value(), length_);
      ++length_;
      if (!row.wants_logits) continue;
      say(script_, row.position.value(), outputs.logits.data() + kVocab * out++);
    }
  }
  void draft(SequenceId, TokenId, std::uint32_t depth, std::span<float> logits) override {
    say(drafts_, length_ + depth, logits.data());
  }
  void truncate(SequenceId, std::uint32_t length) override { length_ = length; }
  std::uint32_t shortest_truncation(SequenceId) const override {
    return length_ > info_.rewind_max ? length_ - info_.rewind_max : 0;
  }
  void read_state(SequenceId, const StateSection&, std::span<std::byte>) const override {}
  void begin_restore(SequenceId, std::uint32_t length) override { length_ = length; }
  void write_state(SequenceId, const StateSection&, std::span<const std::byte>) override {}
  void set_steering(const Steering&) override {}
  void set_layer_hook(LayerHook, void*) override {}
  std::vector<MemoryItem> memory() const override { return {}; }

  int runs = 0;
  std::size_t rows_most = 0;  // of one batch

 private:
  static void say(const std::vector<TokenId>& text, std::size_t position, float* logits) {
    std::fill_n(logits, kVocab, 0.0F);
    const TokenId next = position < text.size() ? text[position] : TokenId{15};
    logits[next.value()] = 1;
  }

  std::vector<TokenId> script_;
  std::vector<TokenId> drafts_;
  ModelConfig config_;
  StateLayout layout_;
  ExecutorInfo info_;
  std::uint32_t length_ = 0;
};

// A session of a scripted machine with a prompt of one token, and an answer made from it.
struct Answer {
  explicit Answer(std::vector<TokenId> script,
                  std::vector<TokenId> drafts = {},
                  std::uint32_t context = 64)
      : executor(new ScriptedExecutor(std::move(script), std::move(drafts))),
        engine({}, std::unique_ptr<Executor>(executor), nullptr, nullptr),
        session(engine, {.context = context}),
        sampler(kVocab, 1) {
    session.sync(ids({0}));
  }

  std::vector<TokenId> run(GenerateOptions options) {
    options.sampling = sample::SamplingOptions::greedy();
    options.stop = kStop;
    Generator generator(session, sampler, options);
    std::vector<TokenId> handed_out;
    for (auto tokens = generator.next(); !tokens.empty(); tokens = generator.next())
      handed_out.insert(handed_out.end(), tokens.begin(), tokens.end());
    EXPECT_EQ(handed_out,
              std::vector<TokenId>(generator.tokens().begin(), generator.tokens().end()));
    finish = generator.finish();
    EXPECT_TRUE(generator.next().empty());
    return handed_out;
  }

  ScriptedExecutor* executor;
  Engine engine;
  Session session;
  sample::Sampler sampler;
  std::optional<FinishReason> finish;
};

TEST(Generator, EndsAtTheStopTokenAndLeavesItOut) {
  Answer answer(ids({5, 6, 7, 1, 9}));
  EXPECT_EQ(answer.run({}), ids({5, 6, 7}));
  EXPECT_EQ(answer.finish, FinishReason::kStop);
  // Everything that was shown but nothing beyond it: the next turn is a pure suffix.
  EXPECT_EQ(answer.session.length(), 4U);
}

TEST(Generator, EndsAtTheTokenLimit) {
  Answer answer(ids({5, 6, 7, 8, 9}));
  EXPECT_EQ(answer.run({.token_max = 3}), ids({5, 6, 7}));
  EXPECT_EQ(answer.finish, FinishReason::kLength);
  EXPECT_EQ(answer.session.length(), 3U);  // the last token is for the next sync
}

TEST(Generator, EndsWhereTheContextDoes) {
  Answer answer(ids({5, 6, 7, 8, 9}), {}, 4);
  EXPECT_EQ(answer.run({}), ids({5, 6}));  // 4 - 1 - 1
  EXPECT_EQ(answer.finish, FinishReason::kContext);
}

TEST(Generator, NoRoomIsAnEmptyAnswer) {
  Answer answer(ids({5, 6}));
  EXPECT_EQ(answer.run({.token_max = 0}), ids({}));
  EXPECT_EQ(answer.finish, FinishReason::kLength);
}

TEST(Generator, DraftsChangeTheStepsAndNotTheAnswer) {
  const auto script = ids({5, 6, 7, 8, 9, 10, 11, 1});
  Answer plain(script);
  const auto expected = plain.run({});
  for (std::uint32_t draft_count : {1U, 2U, 5U}) {
    Answer right(script, script);
    EXPECT_EQ(right.run({.draft_count = draft_count}), expected);
    EXPECT_LT(right.executor->runs, plain.executor->runs);
    EXPECT_EQ(right.finish, FinishReason::kStop);
    Answer mixed(script, ids({5, 3, 7, 3, 3, 10, 11, 1}));
    EXPECT_EQ(mixed.run({.draft_count = draft_count}), expected);
    Answer wrong(script, ids({3, 3, 3, 3, 3, 3, 3, 3}));
    EXPECT_EQ(wrong.run({.draft_count = draft_count}), expected);
  }
}

TEST(Generator, DraftsStayWithinTheLimit) {
  const auto script = ids({5, 6, 7, 8, 9, 10, 11, 1});
  for (std::uint32_t token_max = 1; token_max < 7; ++token_max) {
    Answer answer(script, script);
    EXPECT_EQ(answer.run({.token_max = token_max, .draft_count = 5}).size(), token_max);
    EXPECT_EQ(answer.finish, FinishReason::kLength);
  }
}

// A larger batch may round otherwise, and then choose another token.
TEST(Generator, DraftsAreCheckedInABatchThatComputesAsDecodingDoes) {
  const auto script = ids({5, 6, 7, 8, 9, 10, 11, 1});
  for (const std::uint32_t rows_max : {1U, 2U, 4U}) {
    Answer answer(script, script);
    answer.executor->set_decode_rows_max(rows_max);
    EXPECT_EQ(answer.run({.draft_count = 6}), ids({5, 6, 7, 8, 9, 10, 11}));
    EXPECT_EQ(answer.executor->rows_most, rows_max);
  }
}

TEST(Generator, AStopInsideReasoningClosesIt) {
  const auto script = ids({5, 6, 1, 8, 9, 1});
  for (std::uint32_t draft_count : {0U, 1U, 4U}) {
    Answer answer(script, script);
    EXPECT_EQ(answer.run({.draft_count = draft_count, .reasoning_end = kReasoningEnd}),
              ids({5, 6, 2, 8, 9}))
        << draft_count;
    EXPECT_EQ(answer.finish, FinishReason::kStop);
    const auto& tokens = answer.session.tokens();
    EXPECT_EQ(std::count(tokens.begin(), tokens.end() - 1, kStop), 0);
  }
}

TEST(Generator, AStopAfterReasoningEndsTheAnswer) {
  Answer answer(ids({5, 2, 8, 1}));
  EXPECT_EQ(answer.run({.reasoning_end = kReasoningEnd}), ids({5, 2, 8}));
}

TEST(Generator, ReportsWhetherReasoningIsOpen) {
  Answer answer(ids({5, 2, 8, 1}));
  Generator generator(answer.session, answer.sampler,
                      {.sampling = sample::SamplingOptions::greedy(),
                       .stop = kStop,
                       .reasoning_end = kReasoningEnd});
  std::vector<bool> open;
  while (!generator.next().empty())
    open.push_back(generator.reasoning());
  EXPECT_EQ(open, (std::vector<bool>{true, false, false}));
}

TEST(Generator, AStepAllocatesNothing) {
  Answer answer(std::vector<TokenId>(60, TokenId{5}));
  Generator generator(answer.session, answer.sampler, {.stop = kStop});
  generator.next();
  const auto before = test::allocation_count();
  for (int i = 0; i < 40; ++i)
    generator.next();
  EXPECT_EQ(test::allocation_count(), before);
}

}  // namespace
}  // namespace ds4
