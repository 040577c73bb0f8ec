#include "sample/token_set.h"

#include <gtest/gtest.h>

namespace ds4::sample {
namespace {

TEST(TokenSetTest, StartsEmptyAndHoldsWhatIsInserted) {
  TokenSet set(130);
  EXPECT_EQ(set.count(), 0U);
  for (const int id : {0, 63, 64, 129})
    set.insert(TokenId{id});
  EXPECT_EQ(set.count(), 4U);
  for (int id = 0; id < 130; ++id)
    EXPECT_EQ(set.contains(TokenId{id}), id == 0 || id == 63 || id == 64 || id == 129) << id;
  set.erase(TokenId{63});
  EXPECT_FALSE(set.contains(TokenId{63}));
  EXPECT_EQ(set.count(), 3U);
}

TEST(TokenSetTest, InsertAllStopsAtTheVocabulary) {
  for (const std::size_t vocab_size : {1U, 63U, 64U, 65U, 128U, 1000U}) {
    TokenSet set(vocab_size);
    set.insert_all();
    EXPECT_EQ(set.count(), vocab_size);
    EXPECT_FALSE(set.contains(TokenId{static_cast<std::int32_t>(vocab_size)}));
    set.clear();
    EXPECT_EQ(set.count(), 0U);
  }
}

TEST(TokenSetTest, IdsOutsideTheVocabularyAreNotContained) {
  TokenSet set(64);
  set.insert_all();
  EXPECT_FALSE(set.contains(TokenId{-1}));
  EXPECT_FALSE(set.contains(TokenId{1 << 30}));
}

TEST(TokenSetDeathTest, InsertOutsideTheVocabularyIsOurMistake) {
  TokenSet set(10);
  EXPECT_DEATH(set.insert(TokenId{10}), "check failed");
  EXPECT_DEATH(set.insert(TokenId{-1}), "check failed");
}

}  // namespace
}  // namespace ds4::sample
