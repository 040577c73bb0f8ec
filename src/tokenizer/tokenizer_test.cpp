#include "tokenizer/tokenizer.h"

#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenizer/markers.h"
#include "tokenizer/test_vocabulary.h"

namespace ds4::tokenizer {
namespace {

class TokenizerTest : public testing::Test {
 protected:
  std::vector<std::string> texts_of(const std::vector<TokenId>& ids) const {
    std::vector<std::string> texts;
    for (const TokenId id : ids)
      texts.emplace_back(tokenizer_.token_bytes(id));
    return texts;
  }
  const Tokenizer tokenizer_{make_test_vocabulary()};
};

using Texts = std::vector<std::string>;

TEST_F(TokenizerTest, MergesByRankAndNeverAcrossPieces) {
  EXPECT_EQ(texts_of(tokenizer_.encode_text("the the")), (Texts{"the", " the"}));
  EXPECT_EQ(texts_of(tokenizer_.encode_text("hell")), (Texts{"h", "ell"}));
  EXPECT_EQ(texts_of(tokenizer_.encode_text("1234")), (Texts{"123", "4"}));
  EXPECT_EQ(texts_of(tokenizer_.encode_text("你")), (Texts{"你"}));
  EXPECT_EQ(texts_of(tokenizer_.encode_text("aaaaa")), (Texts{"aaaa", "a"}));
}

TEST_F(TokenizerTest, PlainTextNeverYieldsAMarker) {
  std::mt19937 random(3);
  const std::vector<std::string> parts = {std::string(kBosMarker),
                                          std::string(kEosMarker),
                                          std::string(kUserMarker),
                                          std::string(kDsmlMarker),
                                          std::string(kThinkMarker),
                                          "<",
                                          "｜",
                                          "User",
                                          ">",
                                          "think",
                                          "/",
                                          " "};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i)
      text += parts[random() % parts.size()];
    const auto ids = tokenizer_.encode_text(text);
    for (const TokenId id : ids)
      ASSERT_EQ(tokenizer_.kind(id), TokenKind::kText) << text;
    ASSERT_EQ(tokenizer_.decode(ids), text);
  }
}

TEST_F(TokenizerTest, AMergeThatSpellsAMarkerIsNeverFollowed) {
  Vocabulary v = make_test_vocabulary();
  v.merges.insert(v.merges.begin(), "<think >");
  v.merges.insert(v.merges.begin(), "< think");
  v.tokens.push_back("<think");
  v.kinds.push_back(TokenKind::kText);
  v.tokens.push_back("think");
  v.kinds.push_back(TokenKind::kText);
  const Tokenizer tokenizer(v);
  for (const TokenId id : tokenizer.encode_text("<think>"))
    EXPECT_FALSE(tokenizer.is_marker(id));
}

TEST_F(TokenizerTest, RenderedPromptsPlaceMarkersByName) {
  RenderedPrompt prompt;
  prompt.add_control(kUserMarker);
  prompt.add_text("<think>");
  prompt.add_control(kThinkMarker);
  const auto ids = tokenizer_.encode_rendered(prompt);
  EXPECT_EQ(ids.front(), tokenizer_.marker(kUserMarker));
  EXPECT_EQ(ids.back(), tokenizer_.marker(kThinkMarker));
  for (std::size_t i = 1; i + 1 < ids.size(); ++i)
    EXPECT_FALSE(tokenizer_.is_marker(ids[i]));
  EXPECT_EQ(tokenizer_.decode(ids), prompt.text());

  prompt.add_control("<｜no such marker｜>");
  EXPECT_THROW(tokenizer_.encode_rendered(prompt), Error);
}

TEST_F(TokenizerTest, TrustedTextFindsMarkersAnywhere) {
  const auto ids = tokenizer_.encode_with_special("a<｜User｜></think><think");
  EXPECT_EQ(texts_of(ids), (Texts{"a", "<｜User｜>", "</think>", "<", "th", "i", "n", "k"}));
  EXPECT_TRUE(tokenizer_.is_marker(ids[1]));
  EXPECT_TRUE(tokenizer_.is_marker(ids[2]));
}

TEST_F(TokenizerTest, EveryByteStringSurvivesTheRoundTrip) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 60, '\0');
    for (char& c : bytes)
      c = static_cast<char>(random());
    ASSERT_EQ(tokenizer_.decode(tokenizer_.encode_text(bytes)), bytes);
    ASSERT_EQ(tokenizer_.decode(tokenizer_.encode_with_special(bytes)), bytes);
  }
}

TEST_F(TokenizerTest, StreamingDecodeHoldsPartialCharacters) {
  const std::string text = "naïve 你好 🙂!";
  Utf8Holdback holdback;
  std::string shown;
  for (const TokenId id : tokenizer_.encode_text(text)) {
    const std::string piece = holdback.push(tokenizer_.token_bytes(id));
    ASSERT_TRUE(is_valid_utf8(piece));
    shown += piece;
  }
  EXPECT_EQ(shown + holdback.finish(), text);
}

TEST_F(TokenizerTest, UnknownIdsAreHarmless) {
  for (const std::int32_t id : {-1, static_cast<std::int32_t>(tokenizer_.size()), 1 << 30}) {
    EXPECT_EQ(tokenizer_.token_bytes(TokenId(id)), "");
    EXPECT_EQ(tokenizer_.kind(TokenId(id)), TokenKind::kUnused);
  }
  EXPECT_EQ(tokenizer_.bos(), TokenId(0));
  EXPECT_EQ(tokenizer_.eos(), TokenId(1));
  EXPECT_FALSE(tokenizer_.find_marker("the").has_value());
  EXPECT_TRUE(tokenizer_.find_text_token("the").has_value());
  EXPECT_FALSE(tokenizer_.find_text_token("<think>").has_value());
}

TEST_F(TokenizerTest, ThreadsShareOneTokenizer) {
  const std::string text = "the hell aaaa 1234 你好 <think>";
  const Tokenizer reference(make_test_vocabulary());
  const auto expected = reference.encode_text(text);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        ASSERT_EQ(tokenizer_.encode_text(text), expected);
    });
  }
}

TEST_F(TokenizerTest, OneLongWordIsLinear) {
  // A megabyte without a boundary: a quadratic merge would take minutes here.
  EXPECT_EQ(tokenizer_.encode_text(std::string(1 << 20, 'a')).size(), (1u << 20) / 4);
  EXPECT_EQ(tokenizer_.encode_text(std::string(1 << 20, ' ')).size(), 1u << 20);
  EXPECT_EQ(tokenizer_.encode_with_special(std::string(1 << 20, '<')).size(), 1u << 20);
}

TEST_F(TokenizerTest, VocabularyMustMatchTheEmbedding) {
  EXPECT_NO_THROW(check_vocabulary_rows(tokenizer_, tokenizer_.size()));
  EXPECT_THROW(check_vocabulary_rows(tokenizer_, tokenizer_.size() + 1), Error);
}

TEST(TokenizerErrors, AContradictoryVocabularyIsRefused) {
  const auto expect_refused = [](auto damage) {
    Vocabulary v = make_test_vocabulary();
    damage(v);
    try {
      const Tokenizer tokenizer(v);
      FAIL() << "accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadFormat) << e.what();
    }
  };
  expect_refused([](Vocabulary& v) { v.kinds.pop_back(); });
  expect_refused([](Vocabulary& v) { v.tokens[10] = v.tokens[11]; });
  expect_refused([](Vocabulary& v) { v.tokens[10] = "｜"; });
  expect_refused([](Vocabulary& v) { v.kinds[10] = TokenKind::kUnused; });
  expect_refused([](Vocabulary& v) { v.merges[0] = "th"; });
  expect_refused([](Vocabulary& v) { v.merges[0] = "t h e"; });
  expect_refused([](Vocabulary& v) { v.merges[0] = "q q"; });
  expect_refused([](Vocabulary& v) { v.merges[0] = "\xFF t"; });
  expect_refused([](Vocabulary& v) { v.tokens.back() = ""; });
  expect_refused([](Vocabulary& v) { v.tokens.back() = std::string(kUserMarker); });
}

}  // namespace
}  // namespace ds4::tokenizer
