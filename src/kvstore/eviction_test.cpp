#include "kvstore/eviction.h"

#include <algorithm>

#include "base/error.h"
#include "kvstore/test_store.h"

namespace ds4::kvstore {
namespace {

EntryId id_of(std::uint8_t number) {
  EntryId id;
  id.digest.fill(number);
  return id;
}

// A chunk of 100 bytes and 100 ms under `parent`.
EntryRow chunk(std::uint8_t number, std::uint8_t parent, std::uint64_t index, bool has_state) {
  EntryRow row;
  row.id = id_of(number);
  row.parent = id_of(parent);
  row.kind = EntryKind::kChunk;
  row.has_state = has_state;
  row.token_begin = index * 128;
  row.token_end = row.token_begin + 128;
  row.file_bytes = 100;
  row.recompute_ms = 100;
  row.hits = 1;
  row.used_s = 1000;
  return row;
}

EvictionInput input_of(std::vector<EntryRow> rows, std::uint64_t bytes_to_free) {
  return {.rows = std::move(rows),
          .held = {},
          .referenced = {},
          .bytes_to_free = bytes_to_free,
          .now_s = 1000,
          .half_life_s = 100.0};
}

TEST(Eviction, LeavesGoBeforeTheChunksTheyHangOn) {
  const EvictionInput input =
      input_of({chunk(1, 0, 0, true), chunk(2, 1, 1, true), chunk(3, 2, 2, true)}, 300);
  EXPECT_EQ(choose_victims(input), (std::vector{id_of(3), id_of(2), id_of(1)}));
}

TEST(Eviction, StopsWhenEnoughIsFree) {
  EXPECT_EQ(choose_victims(input_of({chunk(1, 0, 0, true), chunk(2, 1, 1, true)}, 100)).size(), 1U);
  EXPECT_EQ(choose_victims(input_of({chunk(1, 0, 0, true), chunk(2, 1, 1, true)}, 101)).size(), 2U);
  EXPECT_TRUE(choose_victims(input_of({chunk(1, 0, 0, true)}, 0)).empty());
}

TEST(Eviction, WhatIsHeldStaysAndSoDoesAllItHangsOn) {
  EvictionInput input = input_of(
      {chunk(1, 0, 0, true), chunk(2, 1, 1, true), chunk(3, 2, 2, true), chunk(4, 1, 1, true)},
      1000);
  input.held = {id_of(2)};
  EXPECT_EQ(choose_victims(input), (std::vector{id_of(3), id_of(4)}));
}

TEST(Eviction, WhatWasUsedLongAgoGoesFirst) {
  std::vector<EntryRow> rows = {chunk(1, 0, 0, true), chunk(2, 0, 0, true)};
  rows[0].hits = 3;  // more uses, and three half lives ago
  rows[0].used_s = 700;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(1));
  rows[0].hits = 9;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(2));
}

TEST(Eviction, WhatIsCheapToRecomputeForItsSizeGoesFirst) {
  std::vector<EntryRow> rows = {chunk(1, 0, 0, true), chunk(2, 0, 0, true)};
  rows[1].recompute_ms = 50;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(2));
  rows[1].file_bytes = 20;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(1));
}

// A small prefix that many ask for outlives a large conversation that was used once.
TEST(Eviction, ASharedAnchorOutlivesAConversationsEnd) {
  std::vector<EntryRow> rows = {chunk(1, 0, 0, true), chunk(2, 0, 0, true)};
  rows[0].role = EntryRole::kAnchor;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(2));
  EvictionInput named = input_of({chunk(1, 0, 0, true), chunk(2, 0, 0, true)}, 1);
  named.referenced = {id_of(1)};
  EXPECT_EQ(choose_victims(named).front(), id_of(2));
}

// Chunks after the last resume point resume nothing; neither does what hangs on a missing chunk.
TEST(Eviction, WhatResumesNothingGoesFirst) {
  std::vector<EntryRow> rows = {chunk(1, 0, 0, true), chunk(2, 1, 1, false), chunk(3, 0, 0, true)};
  rows[1].hits = 1e9;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(2));
  rows = {chunk(1, 0, 0, true), chunk(3, 9, 4, true)};
  rows[1].hits = 1e9;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(3));
}

// A resume point is worth the tokens before it that no other one covers.
TEST(Eviction, AResumePointCountsTheChunksThatLeadToIt) {
  // 1 and 2 lead to 3, which alone saves 300 ms with 300 bytes; 4 saves 100 ms with 150 bytes.
  std::vector<EntryRow> rows = {chunk(1, 0, 0, false), chunk(2, 1, 1, false), chunk(3, 2, 2, true),
                                chunk(4, 0, 0, true)};
  rows[3].file_bytes = 150;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(4));
}

TEST(Eviction, AClockThatWentBackDecaysNothing) {
  std::vector<EntryRow> rows = {chunk(1, 0, 0, true), chunk(2, 0, 0, true)};
  rows[0].used_s = 999'999'999;
  rows[1].hits = 2;
  EXPECT_EQ(choose_victims(input_of(rows, 1)).front(), id_of(1));
}

using BudgetTest = StoreTest;

TEST_F(BudgetTest, RoomIsMadeBeforeWritingAndTheLimitHolds) {
  StoreOptions store_options = options();
  store_options.bytes_max = 60'000;
  Store store(store_options);
  const KeySpace space = store.key_space(test_model(small_layout()));
  for (std::uint32_t seed = 0; seed < 30; ++seed) {
    const Conversation talk = Conversation().grow(600, seed);
    EXPECT_EQ(save(store, space, talk, {256, 512}).status, SaveStatus::kSaved);
    EXPECT_LE(store.stats().bytes, store_options.bytes_max);
    EXPECT_EQ(resumed(store, space, talk), 600) << "what was just written stays";
    now_s_ += 60;
  }
  EXPECT_GT(store.stats().bytes, store_options.bytes_max / 2);
  EXPECT_TRUE(logged("evicted"));
  EXPECT_TRUE(store.verify().problems.empty());
}

TEST_F(BudgetTest, ABudgetOfExactlyOneEntry) {
  const Conversation talk = Conversation().grow(100, 1);
  std::uint64_t one = 0;
  {
    Store store(options());
    save(store, store.key_space(test_model(small_layout())), talk);
    one = store.stats().bytes;
    store.purge();
  }
  for (const std::uint64_t budget : {one, one - 1}) {
    StoreOptions store_options = options();
    store_options.bytes_max = budget;
    Store store(store_options);
    const KeySpace space = store.key_space(test_model(small_layout()));
    const bool fits = budget == one;
    EXPECT_EQ(save(store, space, talk).status,
              fits ? SaveStatus::kSaved : SaveStatus::kSkippedOverBudget);
    EXPECT_EQ(resumed(store, space, talk), fits ? 100 : 0);
    EXPECT_EQ(logged("raise the budget"), !fits);
    store.purge();
  }
}

TEST_F(BudgetTest, PinsAndLeasesKeepWhatIsOld) {
  StoreOptions store_options = options();
  store_options.bytes_max = 40'000;
  Store store(store_options);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation pinned = Conversation().grow(600, 100);
  const Conversation loading = Conversation().grow(600, 101);
  store.pin(*save(store, space, pinned, {256, 512}).tail, "test");
  save(store, space, loading, {256, 512});
  Lease lease = store.hold(*store.lookup(space, loading.bytes()));
  now_s_ += 1'000'000;
  for (std::uint32_t seed = 0; seed < 20; ++seed)
    save(store, space, Conversation().grow(600, seed), {256, 512});
  EXPECT_EQ(resumed(store, space, pinned), 600);
  EXPECT_EQ(resumed(store, space, loading), 600);
  lease = Lease();
  store.unpin(store.hit_of(store.lookup(space, pinned.bytes())->chain.back())->chain.back(),
              "test");
  now_s_ += 100'000'000;
  for (std::uint32_t seed = 20; seed < 50; ++seed)
    save(store, space, Conversation().grow(600, seed), {256, 512});
  EXPECT_EQ(resumed(store, space, pinned), 0);
  EXPECT_EQ(resumed(store, space, loading), 0);
}

TEST_F(BudgetTest, TheDaysBytesAreLimited) {
  StoreOptions store_options = options();
  store_options.bytes_written_per_day_max = 30'000;
  Store store(store_options);
  const KeySpace space = store.key_space(test_model(small_layout()));
  int saved = 0;
  for (std::uint32_t seed = 0; seed < 20; ++seed)
    saved +=
        save(store, space, Conversation().grow(600, seed)).status == SaveStatus::kSaved ? 1 : 0;
  EXPECT_GT(saved, 0);
  EXPECT_LT(saved, 20);
  EXPECT_LE(store.stats().bytes_written_today, store_options.bytes_written_per_day_max);
  EXPECT_TRUE(logged("written a day"));
  const Conversation asked = Conversation().grow(600, 77);
  SyntheticState state(space.model().layout, asked.tokens);
  EXPECT_EQ(store
                .save({.space = space,
                       .tokens = asked.tokens,
                       .token_bytes = asked.token_bytes,
                       .text = asked.bytes(),
                       .role = EntryRole::kSession,
                       .extent = SaveExtent::kChunksAndTail,
                       .urgency = SaveUrgency::kAsked,
                       .prefill_ms_per_token = 1.0,
                       .replaces = std::nullopt},
                      state)
                .status,
            SaveStatus::kSaved);
  now_s_ += 86400;
  EXPECT_EQ(save(store, space, Conversation().grow(600, 50)).status, SaveStatus::kSaved);
}

TEST_F(BudgetTest, CollectEvictsDownToASmallerBudget) {
  {
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    for (std::uint32_t seed = 0; seed < 10; ++seed)
      save(store, space, Conversation().grow(600, seed), {256, 512});
  }
  StoreOptions tight = options();
  tight.bytes_max = 30'000;
  Store store(tight);
  const CollectReport report = store.collect();
  EXPECT_GT(report.evicted, 0U);
  EXPECT_LE(store.stats().bytes, tight.bytes_max);
  EXPECT_TRUE(store.verify().problems.empty());
}

}  // namespace
}  // namespace ds4::kvstore
