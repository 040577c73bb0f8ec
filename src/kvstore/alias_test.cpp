// Tails that are found by another text, copies of a state that are saved later, and loads in
// pieces.
#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kvstore/state_snapshot.h"
#include "kvstore/test_store.h"

namespace ds4::kvstore {
namespace {

class AliasTest : public StoreTest {
 protected:
  static std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text));
  }
  static SaveRequest request(const KeySpace& space,
                             const Conversation& talk,
                             std::span<const TailAlias> aliases = {}) {
    return {.space = space,
            .tokens = talk.tokens,
            .token_bytes = talk.token_bytes,
            .text = talk.bytes(),
            .role = EntryRole::kEvicted,
            .extent = SaveExtent::kChunksAndTail,
            .urgency = SaveUrgency::kAsked,
            .prefill_ms_per_token = 1.0,
            .replaces = std::nullopt,
            .aliases = aliases};
  }
  static EntryId save_as(Store& store,
                         const KeySpace& space,
                         const Conversation& talk,
                         const std::string& alias,
                         const std::vector<TokenId>& bridge = {}) {
    SyntheticState state(space.model().layout, talk.tokens);
    const TailAlias aliases[] = {{alias, bridge}};
    return *store.save(request(space, talk, aliases), state).tail;
  }
};

TEST_F(AliasTest, ATailIsFoundByATextThatHidesAPart) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(300, 1);
  const std::string shown = "what the reader saw of it";
  const std::vector<TokenId> bridge = {TokenId{7}, TokenId{8}};
  const EntryId tail = save_as(store, space, talk, shown, bridge);

  const std::optional<Hit> hit = store.lookup(space, bytes_of(shown + " and more"));
  ASSERT_TRUE(hit.has_value());
  EXPECT_TRUE(hit->by_alias);
  EXPECT_EQ(hit->chain.back(), tail);
  EXPECT_EQ(hit->token_count, 300U);
  EXPECT_EQ(hit->byte_count, shown.size());
  EXPECT_EQ(hit->bridge, bridge);
  CollectingSink sink(space.model().layout);
  EXPECT_EQ(store.restore(space, *hit, sink).tokens, talk.tokens);

  EXPECT_FALSE(store.lookup(space, bytes_of(shown)).has_value()) << "nothing follows it";
  EXPECT_FALSE(store.lookup(space, bytes_of("what the reader saw of IT and more")).has_value());
  const KeySpace other = store.key_space(test_model(small_layout()), "other");
  EXPECT_FALSE(store.lookup(other, bytes_of(shown + " and more")).has_value());
  // Its own text finds it as before.
  EXPECT_FALSE(store.lookup(space, talk.bytes(), {.whole_match = WholeMatch::kAny})->by_alias);
}

TEST_F(AliasTest, WhatCoversMostOfAPromptWins) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(200, 1);
  const Conversation longer = Conversation(talk).grow(100, 2);
  save(store, space, talk);
  const Conversation hidden = Conversation().grow(150, 3);
  save_as(store, space, hidden, longer.text);
  const std::string prompt = longer.text + " more";
  EXPECT_TRUE(store.lookup(space, bytes_of(prompt))->by_alias);
  EXPECT_FALSE(store.lookup(space, bytes_of(talk.text + " more"))->by_alias);
  save(store, space, longer);
  EXPECT_FALSE(store.lookup(space, bytes_of(prompt))->by_alias) << "of equal ones the plain one";
}

TEST_F(AliasTest, GoesWithItsTailAndComesBackFromTheFiles) {
  const Conversation talk = Conversation().grow(300, 1);
  const std::string prompt = "shown and more";
  for (const bool encrypted : {false, true}) {
    SCOPED_TRACE(encrypted);
    StoreOptions its = options();
    its.directory = directory_ / (encrypted ? "secret" : "plain");
    if (encrypted) {
      std::filesystem::create_directories(directory_);
      its.key_file = directory_ / "key";
      std::ofstream(its.key_file, std::ios::binary) << std::string(32, 'k');
      std::filesystem::permissions(
          its.key_file, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    }
    EntryId tail;
    {
      Store store(its);
      const KeySpace space = store.key_space(test_model(small_layout()));
      tail = save_as(store, space, talk, "shown");
      EXPECT_TRUE(store.lookup(space, bytes_of(prompt)).has_value());
      EXPECT_TRUE(store.verify().problems.empty());
    }
    for (const char* suffix : {"", "-wal", "-shm"})
      std::filesystem::remove(its.directory / (std::string("catalogue.sqlite") + suffix));
    Store store(its);
    const KeySpace space = store.key_space(test_model(small_layout()));
    ASSERT_TRUE(store.lookup(space, bytes_of(prompt)).has_value());
    store.rebuild();
    ASSERT_TRUE(store.lookup(space, bytes_of(prompt)).has_value());
    EXPECT_TRUE(store.remove_tail(tail));
    EXPECT_FALSE(store.lookup(space, bytes_of(prompt)).has_value());
  }
}

TEST_F(AliasTest, EveryFlippedByteAndEveryLengthIsSeen) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(5, 1);
  save_as(store, space, talk, "shown", {TokenId{3}});
  const std::filesystem::path path = files_in(directory_ / "tails").front();
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  const auto refused = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      const EntryReader entry(path, nullptr);
      entry.check_all();
      return entry.aliases().empty();
    } catch (const Error&) {
      return true;
    }
  };
  ASSERT_FALSE(refused(whole));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x04);
    ASSERT_TRUE(refused(damaged)) << i;
    ASSERT_TRUE(refused(whole.substr(0, i))) << i;
  }
}

TEST_F(AliasTest, AStateCopiedNowAndSavedLaterGivesTheSameFiles) {
  const ModelIdentity model = test_model(small_layout());
  const Conversation first = Conversation().grow(200, 1);
  const Conversation talk = Conversation(first).grow(700, 2);
  const std::set<std::uint64_t> checkpoints = {256, 512, 768};
  std::vector<std::map<std::string, std::string>> contents;
  for (const bool copied : {false, true}) {
    StoreOptions its = options();
    its.directory = directory_ / (copied ? "copied" : "direct");
    Store store(its);
    const KeySpace space = store.key_space(model);
    save(store, space, first);
    SyntheticState live(space.model().layout, talk.tokens, checkpoints);
    if (copied) {
      const SaveNeeds needs = store.needs(request(space, talk), live);
      EXPECT_EQ(needs.token_begin, 128U) << "the first chunk is there";
      EXPECT_EQ(needs.carry_lengths, (std::vector<std::uint64_t>{256, 512, 768, 900}));
      StateSnapshot snapshot(space.model().layout, live, needs, talk.size(), {});
      store.save(request(space, talk), snapshot);
      EXPECT_TRUE(store.needs(request(space, talk), live).nothing);
    } else {
      store.save(request(space, talk), live);
    }
    EXPECT_EQ(resumed(store, space, talk), 900);
    auto& files = contents.emplace_back();
    for (const char* folder : {"chunks", "tails"}) {
      for (const auto& path : files_in(its.directory / folder)) {
        std::ifstream in(path, std::ios::binary);
        files[path.filename()] = std::string((std::istreambuf_iterator<char>(in)), {});
      }
    }
  }
  EXPECT_EQ(contents[0], contents[1]);
}

TEST_F(AliasTest, RowsThatWereNotCopiedStopTheSave) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation first = Conversation().grow(128, 1);
  const Conversation talk = Conversation(first).grow(300, 2);
  const EntryId tail = *save(store, space, first).tail;
  SyntheticState live(space.model().layout, talk.tokens);
  const SaveNeeds needs = store.needs(request(space, talk), live);
  StateSnapshot snapshot(space.model().layout, live, needs, talk.size(), {});
  store.remove_branch(tail);  // with the chunk that the copy relies on
  EXPECT_THROW(store.save(request(space, talk), snapshot), Error);
  EXPECT_EQ(resumed(store, space, talk), 0);
  EXPECT_TRUE(store.verify().problems.empty());
}

TEST_F(AliasTest, ALoadInPiecesGivesTheWhole) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(2000, 1);
  save(store, space, talk);
  CollectingSink sink(space.model().layout);
  const auto load = store.begin_restore(space, *store.lookup(space, talk.bytes()), sink);
  int steps = 0;
  while (!load->advance(std::chrono::steady_clock::now()))
    ++steps;
  EXPECT_GE(steps, 10) << "a file at a time";
  EXPECT_EQ(load->result().tokens, talk.tokens);
  SyntheticState state(space.model().layout, talk.tokens);
  EXPECT_TRUE(sink.equals(state, talk.size(), true));
  // One that is given up leaves nothing behind that would keep its files.
  CollectingSink other(space.model().layout);
  store.begin_restore(space, *store.lookup(space, talk.bytes()), other).reset();
  EXPECT_GT(store.remove_branch(store.lookup(space, talk.bytes())->chain.back()), 0U);
}

}  // namespace
}  // namespace ds4::kvstore
