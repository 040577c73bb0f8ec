// Grammars of answers, and that the one parser reads what fits them.
#include "chat/call_grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "chat/response_parser.h"
#include "grammar/matcher.h"
#include "sample/random.h"
#include "tokenizer/markers.h"

namespace ds4::chat {
namespace {

using grammar::Matcher;
using grammar::TokenTrie;

constexpr std::string_view kMarkerToken = "\xFF｜DSML｜";

// A token for every byte, some longer ones, the marker, and the end of the turn.
std::shared_ptr<const TokenTrie> trie() {
  static const auto kTrie = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte)
      tokens.push_back(byte < 0xF5 ? std::string(1, static_cast<char>(byte)) : std::string());
    for (const char* token : {"</", ">\n", "\">", "tool", "_calls", "invoke", " name", "=\"",
                              "parameter", " string", "true", "\n\n", "a<", "x</"})
      tokens.emplace_back(token);
    tokens.emplace_back(kMarkerToken);
    tokens.emplace_back();
    return std::make_shared<const TokenTrie>(tokens,
                                             TokenId{static_cast<std::int32_t>(tokens.size() - 1)});
  }();
  return kTrie;
}

// The text with each marker's spelling for grammars.
std::string with_marker_bytes(std::string text) {
  for (std::size_t at = text.find(tokenizer::kDsmlMarker); at != std::string::npos;
       at = text.find(tokenizer::kDsmlMarker, at + kMarkerToken.size()))
    text.insert(at, 1, grammar::kMarkerByte);
  return text;
}

bool takes(const std::shared_ptr<const grammar::Grammar>& rules, const std::string& text) {
  Matcher matcher(rules, trie());
  return matcher.accept_bytes(with_marker_bytes(text)) && matcher.can_end();
}

GrammarTool tool(const std::string& name, const std::string& parameters, bool is_strict = false) {
  GrammarTool it;
  it.schema.json = "{\"name\": \"" + name + "\", \"parameters\": " + parameters + "}";
  it.is_strict = is_strict;
  it.where = "tools[0].parameters";
  return it;
}

std::string parameter(const std::string& name, const std::string& flag, const std::string& value) {
  return "<｜DSML｜parameter name=\"" + name + "\" string=\"" + flag + "\">" + value +
         "</｜DSML｜parameter>";
}
std::string invoke(const std::string& name, const std::string& inside) {
  return "<｜DSML｜invoke name=\"" + name + "\">\n" + inside + "\n</｜DSML｜invoke>";
}
std::string block(const std::string& inside) {
  return "\n\n<｜DSML｜tool_calls>\n" + inside + "\n</｜DSML｜tool_calls>";
}

AnswerShape weather() {
  AnswerShape shape;
  shape.must_call = true;
  shape.tools = {tool("get_weather", R"({"type":"object","properties":{
      "city":{"type":"string"},"days":{"type":"integer"},"unit":{"enum":["C","F"]}},
      "required":["city"]})"),
                 tool("stop", R"({"type":"object","properties":{}})")};
  return shape;
}

TEST(CallGrammar, TakesTheOfficialFormInAnyOrderOfParameters) {
  const AnswerGrammars grammars = answer_grammars(weather());
  EXPECT_TRUE(grammars.calls_are_certain);
  const std::string city = parameter("city", "true", "Oslo < \"x\" & y </ z");
  const std::string days = parameter("days", "false", "3");
  for (const std::string& good :
       {block(invoke("get_weather", city)), block(invoke("get_weather", city + "\n" + days)),
        block(invoke("get_weather", days + "\n" + city + "\n" + parameter("unit", "true", "C"))),
        block(invoke("stop", "")), block("<｜DSML｜invoke name=\"stop\">\n</｜DSML｜invoke>"),
        block(invoke("stop", "") + "\n" + invoke("get_weather", city))})
    EXPECT_TRUE(takes(grammars.answer, good)) << good;
  for (const std::string& bad :
       {std::string("hello"), block(""), block(invoke("other", "")),
        block(invoke("get_weather", days)), block(invoke("get_weather", city + "\n" + city)),
        block(invoke("get_weather", city + "\n" + parameter("days", "false", "\"3\""))),
        block(invoke("get_weather", city + "\n" + parameter("days", "true", "3"))),
        block(invoke("get_weather", city + "\n" + parameter("unit", "true", "K"))),
        block(invoke("get_weather", city + "\n" + parameter("more", "true", "x")))})
    EXPECT_FALSE(takes(grammars.answer, bad)) << bad;
  EXPECT_TRUE(takes(grammars.calls, block(invoke("stop", "")).substr(3 + 10)));
}

TEST(CallGrammar, OneCallAtMost) {
  AnswerShape shape = weather();
  shape.one_call_at_most = true;
  const AnswerGrammars grammars = answer_grammars(shape);
  EXPECT_TRUE(takes(grammars.answer, block(invoke("stop", ""))));
  EXPECT_FALSE(takes(grammars.answer, block(invoke("stop", "") + "\n" + invoke("stop", ""))));
}

TEST(CallGrammar, ToolsThatTakeAnythingAreNotCertain) {
  AnswerShape shape;
  shape.must_call = true;
  shape.tools = {tool("f", R"({"type":"object"})")};
  const AnswerGrammars grammars = answer_grammars(shape);
  EXPECT_FALSE(grammars.calls_are_certain);
  EXPECT_TRUE(takes(grammars.answer, block(invoke("f", parameter("x", "true", "a") + "\n" +
                                                           parameter("y", "false", "[1]")))));
}

TEST(CallGrammar, AStrictSchemaIsUnderstoodOrRefusedALaxOneIsTaken) {
  const char* odd = R"({"type":"object","properties":{"a":{"not":{}},"b":{"enum":[]}}})";
  AnswerShape shape;
  shape.tools = {tool("f", odd, true)};
  try {
    answer_grammars(shape);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("tools[0].parameters.properties.a"));
    EXPECT_THAT(error.what(), testing::HasSubstr("\"not\""));
  }
  shape.tools = {tool("f", odd)};
  const AnswerGrammars grammars = answer_grammars(shape);
  EXPECT_EQ(grammars.answer, nullptr);
  EXPECT_TRUE(takes(grammars.calls, block(invoke("f", parameter("a", "false", "7") + "\n" +
                                                          parameter("b", "true", "x")))
                                        .substr(3 + 10)));
}

TEST(CallGrammar, JsonBesideTools) {
  AnswerShape shape = weather();
  shape.must_call = false;
  shape.format = AnswerShape::Format::kJsonObject;
  const AnswerGrammars grammars = answer_grammars(shape);
  EXPECT_TRUE(takes(grammars.answer, "{\"a\": 1}"));
  EXPECT_TRUE(takes(grammars.answer, block(invoke("stop", ""))));
  EXPECT_FALSE(takes(grammars.answer, "text"));
}

// Whatever a mask lets through, however random, is a call to the parser.
TEST(CallGrammar, RandomBlocksAreReadAsCalls) {
  const AnswerGrammars grammars = answer_grammars(weather());
  int finished = 0;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    sample::Random random(seed * 104729);
    Matcher matcher(grammars.answer, trie());
    ParserOptions options;
    options.tools = {{"get_weather", {"city", "days", "unit"}}, {"stop", {}}};
    ResponseParser parser(options);
    std::vector<ResponseEvent> events;
    for (int step = 0; step < 3000 && !matcher.must_end(); ++step) {
      const auto& allowed = matcher.allowed();
      std::vector<TokenId> choices;
      for (std::int32_t id = 0; id < static_cast<std::int32_t>(trie()->vocab_size()); ++id)
        if (allowed.contains(TokenId{id})) choices.push_back(TokenId{id});
      ASSERT_FALSE(choices.empty());
      // The marker, where it may come, ends values soon.
      const TokenId marker{static_cast<std::int32_t>(trie()->vocab_size()) - 2};
      const TokenId token =
          allowed.contains(marker) ? marker : choices[random.next() % choices.size()];
      ASSERT_TRUE(matcher.accept(token));
      std::string bytes(trie()->bytes_of(token));
      if (token == marker) bytes.erase(0, 1);
      parser.feed(bytes, events);
    }
    if (!matcher.must_end()) continue;
    ++finished;
    parser.finish(FinishCause::kEndOfTurn, events);
    ResponseCollector collector;
    for (const ResponseEvent& event : events)
      collector.add(event);
    const Response response = collector.take();
    EXPECT_TRUE(response.malformed.empty());
    EXPECT_EQ(response.text, "");
    ASSERT_FALSE(response.calls.empty());
    for (const ParsedCall& call : response.calls) {
      EXPECT_TRUE(call.invalid_json.empty());
      EXPECT_TRUE(nlohmann::json::parse(call.arguments).is_object());
    }
  }
  EXPECT_GT(finished, 10);
}

}  // namespace
}  // namespace ds4::chat
