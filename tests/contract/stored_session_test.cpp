// Sessions through the store: what comes back from disk goes on bit for bit as if it had never
// left.
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "cpu/cpu_executor.h"
#include "engine/session.h"
#include "kvstore/engine_state.h"
#include "kvstore/session_store.h"
#include "kvstore/test_store.h"
#include "support/random_model.h"

namespace ds4::kvstore {
namespace {

using Tokens = std::vector<TokenId>;
using Logits = std::vector<float>;

// The lengths at which other engines' restores went wrong: one beside every edge of a window and of
// a compressor's period, the same around the chunk of a prefill, and the edges of our chunks.
const std::vector<std::uint32_t> kLengths = {1,   2,   4,    127,  128,  129,  130,  255,  256, 257,
                                             383, 384, 385,  511,  512,  513,  639,  640,  641, 767,
                                             768, 769, 2047, 2048, 2049, 2050, 2051, 2052, 2053};
// Tokens after the restore; kContinued at some lengths, fewer at the others to keep the test quick.
constexpr std::uint32_t kContinued = 200;
constexpr std::uint32_t kContinuedBriefly = 24;

class StoredSessionTest : public StoreTest {
 protected:
  static void SetUpTestSuite() { model_ = new test::RandomModel(test::small_shape()); }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }

  static Engine make_engine() {
    ModelInfo info;
    info.name = "small";
    info.fingerprint[0] = 1;
    return Engine(info,
                  cpu::make_cpu_executor(model_->config(), model_->weights(),
                                         {.thread_count = 1, .rows_max = 64}),
                  nullptr, nullptr);
  }

  // Every token is four bytes of text.
  static Conversation talk_of(std::span<const TokenId> tokens) {
    Conversation talk;
    for (const TokenId token : tokens) {
      talk.tokens.push_back(token);
      talk.token_bytes.push_back(4);
      for (int shift = 0; shift < 32; shift += 8)
        talk.text.push_back(static_cast<char>(token.value() >> shift));
    }
    return talk;
  }

  static SaveOutcome save(Store& store,
                          const KeySpace& space,
                          Session& session,
                          SaveExtent extent = SaveExtent::kChunksAndTail) {
    const Conversation talk = talk_of(session.tokens());
    SessionSource source(session, space.model().layout);
    return store.save({.space = space,
                       .tokens = talk.tokens,
                       .token_bytes = talk.token_bytes,
                       .text = talk.bytes(),
                       .role = EntryRole::kContinued,
                       .extent = extent,
                       .urgency = SaveUrgency::kAsked,
                       .prefill_ms_per_token = 1.0,
                       .replaces = std::nullopt},
                      source);
  }

  // Tokens resumed; 0 when there was nothing.
  static std::size_t resume(Store& store,
                            const KeySpace& space,
                            std::span<const TokenId> prompt,
                            Session& session) {
    const Conversation talk = talk_of(prompt);
    SessionSink sink(session, space.model().layout);
    const std::optional<Restored> restored = store.resume(space, talk.bytes(), sink);
    if (!restored) return 0;
    sink.finish(restored->tokens);
    return restored->tokens.size();
  }

  static Logits logits_of(const Session& session) {
    return {session.logits().begin(), session.logits().end()};
  }

  static test::RandomModel* model_;
};

test::RandomModel* StoredSessionTest::model_ = nullptr;

// The store's layout and the executor's must count the same rows at every length.
TEST_F(StoredSessionTest, LayoutsAgreeAtEveryLength) {
  Engine engine = make_engine();
  const Executor& executor = engine.executor();
  const StateLayout layout = layout_of(executor);
  EXPECT_NO_THROW(check_layout(layout, 128));
  for (std::uint32_t length = 0; length < 700; ++length) {
    std::uint64_t expected = 0;
    for (const StateSection& section : executor.layout().sections(length))
      expected += section.bytes();
    EXPECT_EQ(rows_bytes(layout, 0, length) + carry_bytes(layout, length, CarryPlace::kEveryState),
              expected)
        << length;
  }
}

TEST_F(StoredSessionTest, RestoredLogitsAreTheLiveOnesAtEveryLength) {
  Store store(options());
  Engine engine = make_engine();
  const KeySpace space = store.key_space(identity_of(engine));
  const Tokens all = test::random_tokens(model_->config(), kLengths.back() + kContinued, 3);
  Session live(engine, {.context = 2500, .checkpoint_interval = 128, .checkpoint_count = 32});
  std::map<std::uint32_t, Logits> truth;
  std::map<std::uint32_t, EntryId> tails;
  for (const std::uint32_t length : kLengths) {
    for (std::uint32_t at = live.length(); at < length; ++at) {
      live.eval(all[at]);
      truth[at + 1] = logits_of(live);
    }
    tails[length] = *save(store, space, live).tail;
  }
  while (live.length() < all.size()) {
    live.eval(all[live.length()]);
    truth[live.length()] = logits_of(live);
  }
  Engine other = make_engine();
  Session restored(other, {.context = 2500});
  for (const std::uint32_t length : kLengths) {
    SCOPED_TRACE(length);
    const std::optional<Hit> hit = store.hit_of(tails[length]);
    ASSERT_TRUE(hit.has_value());
    SessionSink sink(restored, space.model().layout);
    sink.finish(store.restore(space, *hit, sink).tokens);
    ASSERT_EQ(restored.length(), length);
    ASSERT_EQ(logits_of(restored), truth[length]);
    const bool at_length = length == 129 || length == 512 || length == 2050;
    const std::uint32_t end = length + (at_length ? kContinued : kContinuedBriefly);
    for (std::uint32_t at = length; at < end; ++at) {
      restored.eval(all[at]);
      ASSERT_EQ(logits_of(restored), truth[at + 1]) << at;
    }
  }
  EXPECT_TRUE(store.verify().problems.empty());
}

TEST_F(StoredSessionTest, ResumesAtChunkBoundariesFromCheckpoints) {
  Store store(options());  // chunks of 128 tokens, a state at every second one
  Engine engine = make_engine();
  const KeySpace space = store.key_space(identity_of(engine));
  const Tokens all = test::random_tokens(model_->config(), 640, 4);
  {
    Session live(engine, {.context = 2000, .checkpoint_interval = 128, .checkpoint_count = 16});
    live.sync(all);
    save(store, space, live, SaveExtent::kChunks);
  }
  for (const std::size_t cut : {255, 256, 257, 513}) {
    SCOPED_TRACE(cut);
    Tokens prompt(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(cut));
    const Tokens more = test::random_tokens(model_->config(), 60, 9 + cut);
    prompt.insert(prompt.end(), more.begin(), more.end());
    Session fresh(engine, {.context = 2000});
    fresh.sync(prompt);
    Session resumed(engine, {.context = 2000});
    EXPECT_EQ(resume(store, space, prompt, resumed), cut / 256 * 256);
    const SyncResult result = resumed.sync(prompt);
    EXPECT_EQ(result.evaluated, prompt.size() - cut / 256 * 256);
    EXPECT_EQ(logits_of(resumed), logits_of(fresh));
  }
}

// Drafts start from state too: the streams of the last token and the draft block's own window.
TEST_F(StoredSessionTest, DraftsGoOnAsBefore) {
  Store store(options());
  Engine engine = make_engine();
  ASSERT_TRUE(engine.executor().info().has_mtp);
  const KeySpace space = store.key_space(identity_of(engine));
  for (const std::uint32_t length : {1U, 130U, 300U}) {
    const Tokens prompt = test::random_tokens(model_->config(), length, 5);
    Session live(engine, {.context = 1000});
    live.sync(prompt);
    save(store, space, live);
    Session restored(engine, {.context = 1000});
    ASSERT_EQ(resume(store, space, prompt, restored), length);
    Logits live_draft(model_->config().vocab_size);
    Logits restored_draft(model_->config().vocab_size);
    for (int step = 0; step < 20; ++step) {
      const TokenId next{static_cast<std::int32_t>(step + 3)};
      engine.executor().draft(live.sequence(), next, 0, live_draft);
      engine.executor().draft(restored.sequence(), next, 0, restored_draft);
      ASSERT_EQ(live_draft, restored_draft) << length << " step " << step;
      live.eval(next);
      restored.eval(next);
    }
  }
}

// One session's restore must not touch another's state.
TEST_F(StoredSessionTest, ARestoreLeavesOtherSessionsAlone) {
  Store store(options());
  Engine engine = make_engine();
  const KeySpace space = store.key_space(identity_of(engine));
  const Tokens first = test::random_tokens(model_->config(), 300, 6);
  const Tokens second = test::random_tokens(model_->config(), 300, 7);
  Session saved(engine, {.context = 1000});
  saved.sync(first);
  save(store, space, saved);
  Session bystander(engine, {.context = 1000});
  bystander.sync(std::span(second).first(200));
  Session restored(engine, {.context = 1000});
  ASSERT_EQ(resume(store, space, first, restored), 300U);
  bystander.sync(second);
  Session alone(engine, {.context = 1000});
  alone.sync(second);
  EXPECT_EQ(logits_of(bystander), logits_of(alone));
}

TEST_F(StoredSessionTest, WhatDoesNotFitOrIsDamagedLeavesAnEmptySession) {
  Store store(options());
  Engine engine = make_engine();
  const KeySpace space = store.key_space(identity_of(engine));
  const Tokens prompt = test::random_tokens(model_->config(), 300, 6);
  Session live(engine, {.context = 1000});
  live.sync(prompt);
  save(store, space, live);
  Session small(engine, {.context = 200});
  EXPECT_THROW(resume(store, space, prompt, small), Error);
  EXPECT_EQ(small.length(), 0U);
  for (const auto& path : files_in(directory_ / "tails"))
    std::filesystem::resize_file(path, 3000);
  Session restored(engine, {.context = 1000});
  EXPECT_EQ(resume(store, space, prompt, restored), 0U);
  restored.sync(prompt);
  EXPECT_EQ(logits_of(restored), logits_of(live));
}

TEST_F(StoredSessionTest, SteeringIsPartOfTheKey) {
  Engine engine = make_engine();
  EXPECT_EQ(identity_of(engine).fingerprint, engine.info().fingerprint);
  const ModelConfig& config = model_->config();
  std::filesystem::create_directories(directory_);
  const std::string path = directory_ / "directions";
  const std::vector<float> directions(std::size_t{config.layer_count} * config.width, 0.25F);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(directions.data()),
             static_cast<std::streamsize>(directions.size() * sizeof(float)));
  engine.load_steering(path, 0, 0);
  EXPECT_EQ(identity_of(engine).fingerprint, engine.info().fingerprint) << "nothing is applied";
  engine.load_steering(path, 0, 1);
  const Sha256Digest steered = identity_of(engine).fingerprint;
  EXPECT_NE(steered, engine.info().fingerprint);
  engine.load_steering(path, 0, 2);
  EXPECT_NE(identity_of(engine).fingerprint, steered);
}

}  // namespace
}  // namespace ds4::kvstore
