// The published vocabulary against vectors of an independent tokenizer.  Both are read from beside
// the source tree; without them these tests are skipped.
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tokenizer/markers.h"
#include "tokenizer/tokenizer.h"

namespace ds4::tokenizer {
namespace {

const std::filesystem::path kData = "../shared/data/tokenizer";

class PublishedVocabulary : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto path = kData / "tokenizer.json.gz";
    if (std::filesystem::exists(path)) tokenizer_ = new Tokenizer(load_tokenizer_json(path));
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    tokenizer_ = nullptr;
  }
  void SetUp() override {
    if (tokenizer_ == nullptr) GTEST_SKIP() << "no published vocabulary at " << kData;
  }
  static std::vector<std::int32_t> values(const std::vector<TokenId>& ids) {
    std::vector<std::int32_t> out;
    for (const TokenId id : ids)
      out.push_back(id.value());
    return out;
  }
  static const Tokenizer* tokenizer_;
};
const Tokenizer* PublishedVocabulary::tokenizer_ = nullptr;

TEST_F(PublishedVocabulary, AllVectorsAgree) {
  std::ifstream file(kData / "tokenizer_vectors.json");
  const auto vectors = nlohmann::json::parse(file);
  ASSERT_EQ(vectors.size(), 292u);
  for (const auto& vector : vectors) {
    const auto text = vector.at("text").get<std::string>();
    const auto ids = tokenizer_->encode_with_special(text);
    ASSERT_EQ(values(ids), vector.at("ids").get<std::vector<std::int32_t>>()) << text;
    ASSERT_EQ(tokenizer_->decode(ids), vector.at("decoded_skip0").get<std::string>());
  }
}

TEST_F(PublishedVocabulary, HasTheDocumentedIds) {
  EXPECT_EQ(tokenizer_->size(), 129280u);
  EXPECT_EQ(tokenizer_->marker(kUserMarker), TokenId(128803));
  EXPECT_EQ(tokenizer_->marker(kThinkEndMarker), TokenId(128822));
  EXPECT_EQ(tokenizer_->marker(kDsmlMarker), TokenId(128825));
  EXPECT_EQ(tokenizer_->marker(kReadUrlMarker), TokenId(128845));
  EXPECT_EQ(tokenizer_->eos(), TokenId(1));
  EXPECT_EQ(values(tokenizer_->encode_text("。\n")), (std::vector<std::int32_t>{876}));
}

TEST_F(PublishedVocabulary, PlainTextNeverYieldsAMarker) {
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(tokenizer_->size()); ++id) {
    if (!tokenizer_->is_marker(TokenId(id))) continue;
    const std::string name(tokenizer_->token_bytes(TokenId(id)));
    for (const TokenId part : tokenizer_->encode_text("a" + name + "b")) {
      ASSERT_EQ(tokenizer_->kind(part), TokenKind::kText) << name;
    }
    ASSERT_EQ(tokenizer_->encode_with_special(name), std::vector<TokenId>{TokenId(id)}) << name;
  }
}

TEST_F(PublishedVocabulary, TokenSequencesSurviveTheRoundTripAsBytes) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (int i = 0; i < 50; ++i) {
      bytes += tokenizer_->token_bytes(TokenId(static_cast<std::int32_t>(random() % 128000)));
    }
    ASSERT_EQ(tokenizer_->decode(tokenizer_->encode_text(bytes)), bytes);
  }
}

}  // namespace
}  // namespace ds4::tokenizer
