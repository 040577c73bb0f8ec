// Sessions: whatever sync() keeps, extends, rewinds or rebuilds, the result is that of a fresh one.
#include "engine/session.h"

#include <cstdio>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "cpu/cpu_executor.h"
#include "sample/sampler.h"
#include "support/random_model.h"

namespace ds4 {
namespace {

using Tokens = std::vector<TokenId>;
using Logits = std::vector<float>;

class SessionTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = new test::RandomModel(test::small_shape()); }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }

  static Engine make_engine(std::uint8_t fingerprint = 1) {
    ModelInfo info;
    info.fingerprint[0] = fingerprint;
    return Engine(info,
                  cpu::make_cpu_executor(model_->config(), model_->weights(),
                                         {.thread_count = 1, .rows_max = 64}),
                  nullptr, nullptr);
  }

  static Logits fresh_logits(const Tokens& tokens) {
    Engine engine = make_engine();
    Session session(engine, {.context = 2000});
    session.sync(tokens);
    return {session.logits().begin(), session.logits().end()};
  }

  static test::RandomModel* model_;
};

test::RandomModel* SessionTest::model_ = nullptr;

Logits logits_of(const Session& session) {
  return {session.logits().begin(), session.logits().end()};
}

TEST_F(SessionTest, RandomEditsAlwaysMatchAFreshSession) {
  Engine engine = make_engine();
  Session session(engine, {.context = 1500, .checkpoint_interval = 128, .checkpoint_count = 4});
  std::mt19937 random(1);
  Tokens prompt = test::random_tokens(model_->config(), 700, 1);
  for (int step = 0; step < 25; ++step) {
    // Cut somewhere, often near the end, and continue differently.
    const std::size_t cut =
        random() % 3 == 0 ? 1 + random() % prompt.size()
                          : prompt.size() - random() % std::min<std::size_t>(20, prompt.size());
    prompt.resize(std::max<std::size_t>(1, cut));
    const Tokens more = test::random_tokens(model_->config(), random() % 150, random());
    prompt.insert(prompt.end(), more.begin(), more.end());
    if (prompt.size() > 1400) prompt.resize(1400);
    session.sync(prompt);
    ASSERT_EQ(session.length(), prompt.size());
    ASSERT_EQ(logits_of(session), fresh_logits(prompt)) << "step " << step;
  }
}

TEST_F(SessionTest, ExtendingReusesEverything) {
  Engine engine = make_engine();
  Session session(engine, {.context = 500});
  Tokens prompt = test::random_tokens(model_->config(), 200, 2);
  EXPECT_EQ(session.sync(prompt).evaluated, 200U);
  const SyncResult again = session.sync(prompt);
  EXPECT_EQ(again.reused, 200U);
  EXPECT_EQ(again.evaluated, 0U);
  prompt.push_back(TokenId{5});
  const SyncResult extended = session.sync(prompt);
  EXPECT_EQ(extended.reused, 200U);
  EXPECT_EQ(extended.evaluated, 1U);
}

TEST_F(SessionTest, RewindReplaysLessThanAnInterval) {
  Engine engine = make_engine();
  Session session(engine, {.context = 1500, .checkpoint_interval = 128, .checkpoint_count = 16});
  const Tokens prompt = test::random_tokens(model_->config(), 1100, 3);
  session.sync(prompt);
  for (const std::uint32_t target : {1000U, 641U, 640U, 300U, 128U, 5U, 0U}) {
    session.rewind(target);
    ASSERT_EQ(session.length(), target);
    if (target == 0) break;
    Tokens branch(prompt.begin(), prompt.begin() + target);
    branch.push_back(TokenId{7});
    session.sync(branch);
    ASSERT_EQ(logits_of(session), fresh_logits(branch)) << target;
  }
}

TEST_F(SessionTest, SavedStateContinuesInAnotherSession) {
  Engine engine = make_engine();
  for (const std::size_t n :
       {1U, 127U, 128U, 129U, 255U, 256U, 257U, 383U, 385U, 511U, 512U, 513U}) {
    Session session(engine, {.context = 800});
    const Tokens prompt = test::random_tokens(model_->config(), n, 4);
    session.sync(prompt);
    const auto bytes = session.export_state();
    Engine other_engine = make_engine();
    Session other(other_engine, {.context = 900});
    other.import_state(bytes);
    ASSERT_EQ(logits_of(other), logits_of(session));
    for (int i = 0; i < 20; ++i) {
      const TokenId next = sample::argmax(session.logits());
      session.eval(next);
      other.eval(next);
      ASSERT_EQ(logits_of(other), logits_of(session)) << n << " + " << i;
    }
  }
}

TEST_F(SessionTest, DamagedStateIsRefusedAndChangesNothing) {
  Engine engine = make_engine();
  Session session(engine, {.context = 100});
  session.sync(test::random_tokens(model_->config(), 20, 5));
  const auto bytes = session.export_state();
  const Logits before = logits_of(session);
  for (std::size_t at = 0; at < bytes.size(); at += 97) {
    auto flipped = bytes;
    flipped[at] ^= std::byte{0x10};
    EXPECT_THROW(session.import_state(flipped), Error) << at;
    const auto cut = std::span(bytes).first(at);
    EXPECT_THROW(session.import_state(cut), Error) << at;
  }
  EXPECT_EQ(logits_of(session), before);
  Engine stranger = make_engine(2);
  Session foreign(stranger, {.context = 100});
  EXPECT_THROW(foreign.import_state(bytes), Error);
  Session small(engine, {.context = 20});
  EXPECT_THROW(small.import_state(bytes), Error);
}

TEST_F(SessionTest, PromptsThatDoNotFitAreRefusedBeforeAnyWork) {
  Engine engine = make_engine();
  Session session(engine, {.context = 64});
  const Tokens kept = test::random_tokens(model_->config(), 10, 6);
  session.sync(kept);
  try {
    session.sync(test::random_tokens(model_->config(), 64, 7));
    FAIL() << "a prompt of the whole context leaves no room for an answer";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kContextOverflow);
  }
  EXPECT_EQ(Tokens(session.tokens().begin(), session.tokens().end()), kept);
  session.sync(test::random_tokens(model_->config(), 63, 7));
  session.eval(TokenId{1});
  EXPECT_THROW(session.eval(TokenId{1}), Error);
}

TEST_F(SessionTest, AStopKeepsWhatIsDone) {
  Engine engine = make_engine();
  Session session(engine, {.context = 600});
  const Tokens prompt = test::random_tokens(model_->config(), 400, 8);
  std::stop_source source;
  SyncOptions options{.progress =
                          [&](std::uint32_t done, std::uint32_t) {
                            if (done >= 128) source.request_stop();
                          },
                      .stop = source.get_token()};
  try {
    session.sync(prompt, options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
  }
  EXPECT_EQ(session.length(), 128U);
  const SyncResult retry = session.sync(prompt);
  EXPECT_EQ(retry.reused, 128U);
  EXPECT_EQ(logits_of(session), fresh_logits(prompt));
}

TEST_F(SessionTest, SpeculationGivesTheSameTokensAsGreedyDecoding) {
  Engine engine = make_engine();
  const Tokens prompt = test::random_tokens(model_->config(), 50, 9);
  Session plain(engine, {.context = 600});
  plain.sync(prompt);
  while (plain.length() < 350)
    plain.eval(sample::argmax(plain.logits()));
  for (const std::uint32_t draft_count : {1U, 2U, 5U, 8U}) {
    Session drafted(engine, {.context = 600, .checkpoint_interval = 128});
    drafted.sync(prompt);
    while (drafted.length() < 350)
      drafted.eval_speculative(sample::argmax(drafted.logits()), draft_count, TokenId{-1});
    EXPECT_TRUE(std::equal(plain.tokens().begin(), plain.tokens().end(), drafted.tokens().begin()))
        << draft_count;
  }
}

TEST_F(SessionTest, PowerDoesNotChangeResults) {
  Engine engine = make_engine();
  const Tokens prompt = test::random_tokens(model_->config(), 40, 10);
  engine.throttle().set_percent(60);
  Session session(engine, {.context = 100});
  session.sync(prompt);
  EXPECT_EQ(logits_of(session), fresh_logits(prompt));
}

}  // namespace
}  // namespace ds4
