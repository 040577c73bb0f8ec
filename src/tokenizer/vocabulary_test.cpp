#include "tokenizer/vocabulary.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <zlib.h>

#include "base/error.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace ds4::tokenizer {
namespace {

using Json = nlohmann::ordered_json;

Json split(const char* pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
}

Json tokenizer_json(const Vocabulary& v) {
  Json root;
  root["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  root["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {split("\\p{N}{1,3}"),
        split("[一-龥぀-ゟ゠-ヿ]+"),
        split(
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{"
            "L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
        {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  root["added_tokens"] = Json::array();
  root["model"] = {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", Json::object()}};
  for (std::size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.kinds[id] == TokenKind::kUnused) continue;
    if (v.kinds[id] == TokenKind::kText) {
      root["model"]["vocab"][v.tokens[id]] = id;
    } else {
      root["added_tokens"].push_back(
          {{"id", id}, {"content", v.tokens[id]}, {"special", v.kinds[id] == TokenKind::kControl}});
    }
  }
  root["model"]["merges"] = v.merges;
  return root;
}

std::filesystem::path temporary(const char* name) {
  return std::filesystem::path(testing::TempDir()) / name;
}

TEST(TokenizerJson, ReadsEveryFieldBack) {
  const Vocabulary expected = make_test_vocabulary();
  const Vocabulary v = parse_tokenizer_json(tokenizer_json(expected).dump(), "test");
  EXPECT_EQ(v.tokens, expected.tokens);
  EXPECT_EQ(v.kinds, expected.kinds);
  EXPECT_EQ(v.merges, expected.merges);
}

TEST(TokenizerJson, ReadsPlainAndGzipFiles) {
  const std::string text = tokenizer_json(make_test_vocabulary()).dump();
  const auto plain = temporary("ds4_tokenizer.json");
  std::ofstream(plain) << text;
  const auto packed = temporary("ds4_tokenizer.json.gz");
  gzFile file = gzopen(packed.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  EXPECT_EQ(load_vocabulary(plain).tokens, load_vocabulary(packed).tokens);
  EXPECT_THROW(load_vocabulary(temporary("no such file")), Error);
  EXPECT_THROW(load_vocabulary(testing::TempDir()), Error);
}

TEST(TokenizerJson, RefusesWhatItCannotFollow) {
  const auto expect_code = [](ErrorCode code, auto change) {
    Json root = tokenizer_json(make_test_vocabulary());
    change(root);
    try {
      const Tokenizer tokenizer(parse_tokenizer_json(root.dump(), "test"));
      ADD_FAILURE() << "accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
    }
  };
  const auto bad = ErrorCode::kBadFormat;
  const auto unsupported = ErrorCode::kUnsupported;
  expect_code(bad, [](Json& j) { j = Json::array(); });
  expect_code(bad, [](Json& j) { j.erase("model"); });
  expect_code(bad, [](Json& j) { j["model"]["vocab"] = 3; });
  expect_code(bad, [](Json& j) { j["model"]["vocab"]["zz"] = 4000000000000; });
  expect_code(bad, [](Json& j) { j["model"]["vocab"]["zz"] = -1; });
  expect_code(bad, [](Json& j) { j["model"]["vocab"]["zz"] = 7; });
  expect_code(bad, [](Json& j) { j["model"]["merges"][0] = 1; });
  expect_code(bad, [](Json& j) { j["added_tokens"][0].erase("content"); });
  expect_code(bad, [](Json& j) { j["added_tokens"] = "x"; });
  expect_code(unsupported, [](Json& j) { j["model"]["type"] = "Unigram"; });
  expect_code(unsupported, [](Json& j) { j["model"]["byte_fallback"] = true; });
  expect_code(unsupported, [](Json& j) { j["normalizer"] = {{"type", "NFC"}}; });
  expect_code(unsupported, [](Json& j) { j["pre_tokenizer"]["pretokenizers"].erase(0); });
  expect_code(unsupported, [](Json& j) { j["added_tokens"][0]["lstrip"] = true; });
  EXPECT_THROW(parse_tokenizer_json(std::string(100000, '['), "test"), Error);
  EXPECT_THROW(parse_tokenizer_json("{\"model\":", "test"), Error);
}

class GgufVocabulary : public testing::Test {
 protected:
  template <class Fill>
  Vocabulary round_trip(Fill fill) {
    const auto path = temporary("ds4_vocabulary.gguf");
    gguf::Writer writer(path);
    fill(writer);
    writer.begin_data();
    writer.commit();
    return load_vocabulary(path);
  }
};

TEST_F(GgufVocabulary, SurvivesTheRoundTrip) {
  const Vocabulary expected = make_test_vocabulary();
  const Vocabulary v = round_trip([&](gguf::Writer& w) { write_gguf_vocabulary(w, expected); });
  EXPECT_EQ(v.tokens, expected.tokens);
  EXPECT_EQ(v.kinds, expected.kinds);
  EXPECT_EQ(v.merges, expected.merges);
}

TEST_F(GgufVocabulary, MarkersAreKnownWithoutTokenTypes) {
  Vocabulary expected = make_test_vocabulary();
  for (std::size_t id = 0; id < expected.tokens.size(); ++id) {
    if (expected.kinds[id] == TokenKind::kUnused) expected.tokens[id] = "<hole>";
  }
  const Vocabulary v = round_trip([&](gguf::Writer& w) {
    w.set_string_array("tokenizer.ggml.tokens", expected.tokens);
    w.set_string_array("tokenizer.ggml.merges", expected.merges);
  });
  const Tokenizer tokenizer(v);
  EXPECT_TRUE(tokenizer.find_marker(kThinkMarker).has_value());
  EXPECT_TRUE(tokenizer.find_marker(kBosMarker).has_value());
  EXPECT_EQ(tokenizer.encode_text("the the").size(), 2u);
}

TEST_F(GgufVocabulary, RefusesOtherTokenizersAndMissingKeys) {
  const Vocabulary v = make_test_vocabulary();
  EXPECT_THROW(round_trip([](gguf::Writer& w) { w.set_u32("x", 1); }), Error);
  EXPECT_THROW(round_trip([&](gguf::Writer& w) {
                 w.set_string_array("tokenizer.ggml.tokens", v.tokens);
                 w.set_string_array("tokenizer.ggml.merges", v.merges);
                 w.set_string("tokenizer.ggml.pre", "llama-bpe");
               }),
               Error);
  EXPECT_THROW(round_trip([&](gguf::Writer& w) {
                 w.set_string_array("tokenizer.ggml.tokens", v.tokens);
                 w.set_string_array("tokenizer.ggml.merges", v.merges);
                 w.set_i32_array("tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 2});
               }),
               Error);
}

}  // namespace
}  // namespace ds4::tokenizer
