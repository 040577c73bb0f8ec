// DeepSeek's own encoding examples and outputs recorded from its encoder.  Read from beside the
// source tree; without them these tests are skipped.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "chat/message_json.h"
#include "chat/render.h"
#include "chat/strict_parser.h"

namespace ds4::chat {
namespace {

using Json = nlohmann::ordered_json;

const std::filesystem::path kData = "../shared/data/encoding";

std::string read(const std::string& name) {
  std::ifstream file(kData / name);
  return {std::istreambuf_iterator<char>(file), {}};
}

class EncodingVectors : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kData)) GTEST_SKIP() << "no encoding vectors at " << kData;
  }
};

TEST_F(EncodingVectors, OfficialExamples) {
  for (int i = 1; i <= 4; ++i) {
    const auto messages = parse_messages(read("test_input_" + std::to_string(i) + ".json"));
    RenderOptions options;
    if (i == 4) options.think = ThinkMode::kNone;
    EXPECT_EQ(render(messages, options).text(), read("test_output_" + std::to_string(i) + ".txt"))
        << "example " << i;
  }
}

TEST_F(EncodingVectors, AllRecordedEncodings) {
  const Json vectors = Json::parse(read("extra_vectors.json")).at("encode");
  ASSERT_EQ(vectors.size(), 135u);
  for (const Json& vector : vectors) {
    const auto name = vector.at("name").get<std::string>();
    RenderOptions options;
    if (vector.at("thinking_mode") == "chat") options.think = ThinkMode::kNone;
    if (vector.at("reasoning_effort") == "max") options.think = ThinkMode::kMax;
    if (vector.at("drop_thinking") == false) options.history = ReasoningHistory::kKeepAll;
    const auto messages = parse_messages(vector.at("messages").dump());
    if (vector.contains("error")) {
      EXPECT_THROW(render(messages, options), Error) << name;
      continue;
    }
    EXPECT_EQ(render(messages, options).text(), vector.at("prompt").get<std::string>()) << name;
    // Reading our own writing of the messages changes nothing.
    EXPECT_EQ(render(parse_messages(messages_to_json(messages)), options),
              render(messages, options))
        << name;
  }
}

TEST_F(EncodingVectors, AllRecordedParses) {
  const Json vectors = Json::parse(read("extra_vectors.json")).at("parse");
  ASSERT_EQ(vectors.size(), 18u);
  for (const Json& vector : vectors) {
    const auto name = vector.at("name").get<std::string>();
    const auto text = vector.at("text").get<std::string>();
    const StrictMode mode =
        vector.at("thinking_mode") == "chat" ? StrictMode::kChat : StrictMode::kThinking;
    if (vector.contains("error")) {
      EXPECT_THROW(parse_strictly(text, mode), Error) << name;
      continue;
    }
    const Message message = parse_strictly(text, mode);
    const Json& expected = vector.at("result");
    EXPECT_EQ(message.content, expected.at("content").get<std::string>()) << name;
    EXPECT_EQ(message.reasoning, expected.at("reasoning_content").get<std::string>()) << name;
    ASSERT_EQ(message.tool_calls.size(), expected.at("tool_calls").size()) << name;
    for (std::size_t i = 0; i < message.tool_calls.size(); ++i) {
      const Json& function = expected.at("tool_calls")[i].at("function");
      EXPECT_EQ(message.tool_calls[i].name, function.at("name").get<std::string>()) << name;
      EXPECT_EQ(message.tool_calls[i].arguments, function.at("arguments").get<std::string>())
          << name;
    }
  }
}

TEST_F(EncodingVectors, EffortPrefixes) {
  const Json efforts = Json::parse(read("effort.json"));
  const auto check = [&](const char* release, const char* effort, ThinkMode mode,
                         EffortLadder ladder) {
    EXPECT_EQ(effort_prefix(mode, ladder), efforts.at(release).at(effort).get<std::string>());
  };
  check("april_2026", "high", ThinkMode::kHigh, EffortLadder::kApril2026);
  check("april_2026", "max", ThinkMode::kMax, EffortLadder::kApril2026);
  check("0731", "low", ThinkMode::kLow, EffortLadder::k0731);
  check("0731", "high", ThinkMode::kHigh, EffortLadder::k0731);
  check("0731", "max", ThinkMode::kMax, EffortLadder::k0731);
}

}  // namespace
}  // namespace ds4::chat
