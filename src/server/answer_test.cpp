// An answer from tokens to every protocol's words; the corpus of tool calls among them.
#include "server/answer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/json_read.h"
#include "server/replay_memory.h"
#include "server/writer.h"
#include "tests/support/scripted_model.h"

namespace ds4::server {
namespace {

struct Said {
  AnswerRecord record;
  Outcome outcome;
  std::vector<AnswerEvent> events;
};

// Ends an answer and takes what it said.
Said finish(Answer& answer, const GenerationResult& result) {
  answer.on_finish(result);
  bool ignored = false;
  Said said;
  said.events = answer.take(ignored);
  for (const AnswerEvent& event : said.events)
    said.record.add(event);
  said.outcome = std::get<Outcome>(said.events.back());
  return said;
}

// Plays `text` into an answer as the scheduler would: in pieces of one token, or until it ends.
Said say(const std::string& text, AnswerOptions options, bool cut = false) {
  static const auto tokenizer = test::byte_tokenizer();
  Answer answer(*tokenizer, std::move(options), [] {});
  std::vector<TokenId> tokens = tokenizer->encode_with_special(text);
  if (!cut) tokens.push_back(tokenizer->eos());
  GenerationResult result;
  result.reason = cut ? EndReason::kLength : EndReason::kEndOfTurn;
  for (const TokenId token : tokens) {
    GeneratedToken drawn;
    drawn.token = token;
    drawn.is_end = token == tokenizer->eos();
    const TokenVerdict verdict = answer.on_token(drawn);
    ++result.generated_tokens;
    if (verdict == TokenVerdict::kInsert) answer.insertion();
    if (verdict == TokenVerdict::kFinish) {
      result.reason = EndReason::kClient;
      break;
    }
  }
  return finish(answer, result);
}

OfferedTool tool(const std::string& name, const std::string& parameters) {
  OfferedTool it;
  it.name = it.wire_name = name;
  it.schema.json = "{\"name\": \"" + name + "\", \"parameters\": " + parameters + "}";
  return it;
}

AnswerOptions plain(chat::ThinkMode think = chat::ThinkMode::kNone) {
  AnswerOptions options;
  options.render.think = think;
  options.tool_retries_max = 0;
  options.call_id_prefix = "call_";
  return options;
}

TEST(Answer, SplitsReasoningFromTextAndHoldsStopTextsBack) {
  AnswerOptions options = plain(chat::ThinkMode::kHigh);
  options.stops = {"STOP"};
  const Said said = say("thoughts with STOP</think>some text STOP and more", options);
  EXPECT_EQ(said.record.reasoning, "thoughts with STOP");
  EXPECT_EQ(said.record.text, "some text ");
  EXPECT_EQ(said.outcome.finish, Finish::kStopText);
  EXPECT_EQ(said.outcome.stop_text, "STOP");
  const Said whole = say("a</think>some text STO", options);
  EXPECT_EQ(whole.record.text, "some text STO");
}

TEST(Answer, ClosesReasoningAtTheBudgetAndBeforeAnEarlyEnd) {
  AnswerOptions options = plain(chat::ThinkMode::kHigh);
  options.think_tokens_max = 5;
  options.think_budget_text = "...";
  const Said said = say("0123456789", options);
  EXPECT_EQ(said.record.reasoning, "01234...");
  EXPECT_EQ(said.record.text, "56789");
  EXPECT_TRUE(said.outcome.reasoning_closed);
  const Said early = say("only thoughts", plain(chat::ThinkMode::kHigh));
  EXPECT_TRUE(early.outcome.reasoning_closed);
}

TEST(Answer, SendsAMalformedCallBackToTheModelTwice) {
  AnswerOptions options = plain();
  options.tool_retries_max = 2;
  options.tools = {tool("f", R"({"type":"object","properties":{"a":{"type":"integer"}},
                                "required":["a"]})")};
  const std::string bad =
      "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  const std::string good =
      "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
      "string=\"false\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  const Said said = say("Try." + bad + good, options);
  ASSERT_EQ(said.record.calls.size(), 1U);
  EXPECT_EQ(Json::parse(said.record.calls[0].arguments), Json::parse("{\"a\":1}"));
  EXPECT_EQ(said.outcome.exact_tool_block, good);
  EXPECT_EQ(said.outcome.finish, Finish::kToolCalls);
  EXPECT_EQ(said.record.text, "Try.");
}

TEST(Answer, GivesNoCallOfAToolThatIsNotOffered) {
  AnswerOptions options = plain();
  options.tool_retries_max = 1;
  options.tools = {tool("f", R"({"type":"object"})")};
  const std::string call =
      "<｜DSML｜tool_calls>\n<｜DSML｜invoke "
      "name=\"other\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  const Said said = say("Try." + call + call, options);
  EXPECT_TRUE(said.record.calls.empty());
  EXPECT_EQ(said.outcome.finish, Finish::kStop);
  EXPECT_EQ(said.record.text, "Try.");
}

// --- with a mask ---

std::shared_ptr<const grammar::TokenTrie> byte_trie() {
  static const auto kTrie = std::make_shared<const grammar::TokenTrie>(*test::byte_tokenizer());
  return kTrie;
}

// Plays an answer whose model would like to say `text`, but says what the mask lets through.
Said say_masked(const std::string& text, AnswerOptions options, std::uint32_t tokens_max = 4000) {
  static const auto tokenizer = test::byte_tokenizer();
  options.trie = byte_trie();
  Answer answer(*tokenizer, std::move(options), [] {});
  std::vector<TokenId> script = tokenizer->encode_with_special(text);
  script.push_back(tokenizer->eos());
  std::vector<float> logits(tokenizer->size());
  std::size_t at = 0;
  GenerationResult result;
  result.reason = EndReason::kLength;
  while (result.generated_tokens < tokens_max) {
    std::fill(logits.begin(), logits.end(), 0.0F);
    logits[static_cast<std::size_t>(script[std::min(at, script.size() - 1)].value())] = 100;
    GeneratedToken drawn;
    drawn.token = sample::argmax(logits, answer.choice().allowed);
    drawn.is_end = drawn.token == tokenizer->eos();
    ++at;
    ++result.generated_tokens;
    const TokenVerdict verdict = answer.on_token(drawn);
    if (verdict == TokenVerdict::kInsert) answer.insertion();
    if (verdict == TokenVerdict::kInsert) continue;
    if (verdict == TokenVerdict::kFinish) result.reason = EndReason::kClient;
    if (drawn.is_end) result.reason = EndReason::kEndOfTurn;
    if (verdict == TokenVerdict::kFinish || drawn.is_end) break;
  }
  return finish(answer, result);
}

chat::AnswerShape json_shape(const std::string& schema) {
  chat::AnswerShape shape;
  shape.format = chat::AnswerShape::Format::kJsonSchema;
  shape.schema = schema;
  shape.schema_where = "schema";
  return shape;
}

constexpr const char* kPoint = R"({"type":"object","properties":{"x":{"type":"integer"},
    "y":{"type":"integer"}},"required":["x","y"],"additionalProperties":false})";

TEST(Masked, JsonComesAfterTheReasoningAndEndsWhenItIsWhole) {
  AnswerOptions options = plain(chat::ThinkMode::kHigh);
  options.grammars = chat::answer_grammars(json_shape(kPoint));
  const Said said = say_masked("free {thoughts</think>{\"x\": 1, \"y\": 2}and more", options);
  EXPECT_EQ(said.record.reasoning, "free {thoughts");
  EXPECT_EQ(said.record.text, "{\"x\": 1, \"y\": 2}");
  EXPECT_EQ(said.outcome.finish, Finish::kStop);
}

TEST(Masked, WhateverTheModelWantsTheJsonFits) {
  AnswerOptions options = plain();
  options.grammars = chat::answer_grammars(json_shape(kPoint));
  for (const char* wish : {"", "Sure! Here it is:", "{\"y\": 7, \"x\": \"text\"}", "[1, 2]"}) {
    const Said said = say_masked(wish, options);
    SCOPED_TRACE(said.record.text);
    const Json json = Json::parse(said.record.text, nullptr, false);
    ASSERT_TRUE(json.is_object());
    EXPECT_TRUE(json.at("x").is_number_integer());
    EXPECT_TRUE(json.at("y").is_number_integer());
  }
}

TEST(Masked, AStopTextStillEndsTheJson) {
  AnswerOptions options = plain();
  options.grammars = chat::answer_grammars(json_shape(kPoint));
  options.stops = {"\"y\""};
  const Said said = say_masked("{\"x\": 1, \"y\": 2}", options);
  EXPECT_EQ(said.record.text, "{\"x\": 1, ");
  EXPECT_EQ(said.outcome.finish, Finish::kStopText);
}

constexpr const char* kText = R"({"type":"object","properties":{"a":{"type":"string"},
    "n":{"type":"integer"}},"required":["a"]})";

AnswerOptions with_tool(bool must_call, const char* parameters = kText) {
  AnswerOptions options = plain();
  options.tools = {tool("f", parameters)};
  chat::AnswerShape shape;
  shape.must_call = must_call;
  shape.tools.push_back({.schema = options.tools[0].schema, .is_strict = true, .where = "tools"});
  options.grammars = chat::answer_grammars(shape);
  return options;
}

const std::string kCall =
    "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
    "string=\"true\">x < \"y\"</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

TEST(Masked, ARequiredCallComesWhateverTheModelWants) {
  const Said said = say_masked("I would rather talk.", with_tool(true, kPoint));
  ASSERT_EQ(said.record.calls.size(), 1U);
  EXPECT_EQ(said.record.text, "");
  EXPECT_EQ(said.outcome.finish, Finish::kToolCalls);
  EXPECT_TRUE(Json::parse(said.record.calls[0].arguments).at("x").is_number_integer());
}

TEST(Masked, ArgumentsGoOutAsTheyAreWritten) {
  const Said said = say_masked("Look." + kCall + "never said", with_tool(false));
  EXPECT_EQ(said.record.text, "Look.");
  ASSERT_EQ(said.record.calls.size(), 1U);
  EXPECT_EQ(said.record.calls[0].name, "f");
  EXPECT_EQ(said.record.calls[0].arguments, R"({"a": "x < \"y\""})");
  EXPECT_EQ(said.outcome.exact_tool_block, kCall);
  // Without the mask the same call is held until it is whole.
  AnswerOptions held = with_tool(false);
  held.grammars = {};
  const Said whole = say("Look." + kCall, held);
  ASSERT_EQ(whole.record.calls.size(), 1U);
  EXPECT_EQ(whole.record.calls[0].arguments, said.record.calls[0].arguments);
}

TEST(Masked, JsonValuesGoOutAsTheyAreWritten) {
  constexpr const char* kList = R"({"type":"object","properties":{"l":{"type":"array","items":
      {"type":"string"}}},"required":["l"]})";
  const std::string call =
      "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"l\" "
      "string=\"false\">[\"a < b\",\"c\"]</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
      "</｜DSML｜tool_calls>";
  const Said said = say_masked(call, with_tool(false, kList));
  ASSERT_EQ(said.record.calls.size(), 1U);
  EXPECT_EQ(said.record.calls[0].arguments, R"({"l": ["a < b","c"]})");
  const Said cut = say_masked(call, with_tool(false, kList), 75);
  std::string shown;
  for (const AnswerEvent& event : cut.events)
    if (const auto* piece = std::get_if<CallArguments>(&event)) shown += piece->json;
  EXPECT_EQ(shown, R"({"l": ["a )");
}

TEST(Masked, ACallThatIsCutIsVoid) {
  const Said said = say_masked(kCall, with_tool(false), 71);
  EXPECT_TRUE(said.record.calls.empty());
  EXPECT_EQ(said.outcome.finish, Finish::kLength);
  EXPECT_TRUE(said.outcome.cut_in_calls);
  std::string shown;
  bool is_void = false;
  for (const AnswerEvent& event : said.events) {
    if (const auto* piece = std::get_if<CallArguments>(&event)) shown += piece->json;
    is_void = is_void || std::holds_alternative<CallVoided>(event);
  }
  EXPECT_EQ(shown, R"({"a": "x)");
  EXPECT_TRUE(is_void);
}

TEST(Masked, QuotedMarkupIsFree) {
  const Said said = say_masked("```\n<｜DSML｜whatever>\n```", with_tool(false));
  EXPECT_EQ(said.record.text, "```\n<｜DSML｜whatever>\n```");
  EXPECT_TRUE(said.record.calls.empty());
}

TEST(Answer, IdsAreUnguessable) {
  EXPECT_EQ(random_id("call_").size(), 5 + 32U);
  EXPECT_NE(random_id("call_"), random_id("call_"));
}

// --- the corpus ---

struct CorpusCase {
  std::string name;
  std::string input;
  AnswerOptions options = plain();
  bool cut = false;
  bool quotes = false;
};

// Tools that take anything, for every call of the input.
std::vector<OfferedTool> offered_for(const std::string& input) {
  std::vector<OfferedTool> tools;
  for (const bool in_reasoning : {false, true}) {
    const chat::Response response = chat::parse_response(
        input, {.starts_in_reasoning = in_reasoning, .tools = {}}, chat::FinishCause::kEndOfTurn);
    for (const chat::ParsedCall& call : response.calls)
      tools.push_back(tool(call.name, R"({"type":"object"})"));
  }
  return tools;
}

std::vector<CorpusCase> corpus() {
  std::vector<CorpusCase> cases;
  for (const auto& entry : std::filesystem::directory_iterator("tests/cases/dsml")) {
    if (entry.path().extension() != ".case") continue;
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::size_t input = text.find("--- input\n");
    const std::size_t events = text.find("\n--- events\n");
    if (input == std::string::npos || events == std::string::npos) continue;
    CorpusCase it;
    it.name = entry.path().stem();
    it.input = text.substr(input + 10, events - input - 10);
    it.options.tools = offered_for(it.input);
    std::istringstream words(text.substr(0, input));
    for (std::string word; words >> word;) {
      if (word == "reasoning") it.options.render.think = chat::ThinkMode::kHigh;
      if (word == "cut") it.cut = true;
      if (word == "quotes") it.quotes = true;
    }
    cases.push_back(std::move(it));
  }
  std::sort(cases.begin(), cases.end(),
            [](const CorpusCase& a, const CorpusCase& b) { return a.name < b.name; });
  return cases;
}

// The calls that a protocol's whole answer tells of, as {name, arguments}.
Json calls_of(Protocol protocol, const Json& body) {
  Json calls = Json::array();
  if (protocol == Protocol::kChat) {
    const Json& message = body["choices"][0]["message"];
    if (message.contains("tool_calls"))
      for (const Json& call : message["tool_calls"])
        calls.push_back({call["function"]["name"],
                         Json::parse(call["function"]["arguments"].get<std::string>())});
  } else if (protocol == Protocol::kMessages) {
    for (const Json& block : body["content"])
      if (block["type"] == "tool_use") calls.push_back({block["name"], block["input"]});
  } else {
    for (const Json& item : body["output"])
      if (item["type"] == "function_call")
        calls.push_back({item["name"], Json::parse(item["arguments"].get<std::string>())});
  }
  return calls;
}

// The calls that a protocol's stream tells of, put together as a client does.
Json streamed_calls(Protocol protocol, const std::string& stream) {
  Json calls = Json::array();
  std::istringstream lines(stream);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("data: {")) continue;
    const Json event = Json::parse(line.substr(6));
    if (protocol == Protocol::kChat) {
      if (event["choices"].empty() || !event["choices"][0]["delta"].contains("tool_calls"))
        continue;
      const Json& delta = event["choices"][0]["delta"]["tool_calls"][0];
      if (delta.contains("id")) calls.push_back({delta["function"]["name"], ""});
      calls.back()[1] =
          calls.back()[1].get<std::string>() + delta["function"]["arguments"].get<std::string>();
    } else if (protocol == Protocol::kMessages) {
      if (event["type"] == "content_block_start" && event["content_block"]["type"] == "tool_use")
        calls.push_back({event["content_block"]["name"], ""});
      if (event["type"] == "content_block_delta" && event["delta"]["type"] == "input_json_delta")
        calls.back()[1] =
            calls.back()[1].get<std::string>() + event["delta"]["partial_json"].get<std::string>();
    } else {
      if (event["type"] == "response.output_item.added" && event["item"]["type"] == "function_call")
        calls.push_back({event["item"]["name"], ""});
      if (event["type"] == "response.function_call_arguments.delta")
        calls.back()[1] = calls.back()[1].get<std::string>() + event["delta"].get<std::string>();
    }
  }
  for (Json& call : calls)
    call[1] = Json::parse(call[1].get<std::string>());
  return calls;
}

TEST(Corpus, EveryProtocolGivesTheSameCallsStreamedAndWhole) {
  const std::vector<CorpusCase> cases = corpus();
  ASSERT_GT(cases.size(), 40U);
  std::size_t with_calls = 0;
  for (const CorpusCase& it : cases) {
    SCOPED_TRACE(it.name);
    const Said said = say(it.input, it.options, it.cut);
    if (!it.quotes) {
      for (const std::string& shown : {said.record.text, said.record.reasoning}) {
        EXPECT_EQ(shown.find("DSML"), std::string::npos) << shown;
        EXPECT_EQ(shown.find("think>"), std::string::npos) << shown;
      }
    }
    Json first;
    for (const Protocol protocol : {Protocol::kChat, Protocol::kMessages, Protocol::kResponses}) {
      Ask ask;
      ask.protocol = protocol;
      const auto stream = make_writer(ask, {});
      std::string out;
      stream->begin(out);
      for (const AnswerEvent& event : said.events)
        stream->add(event, out);
      const Json body = Json::parse(make_writer(ask, {})->whole(said.record, said.outcome));
      const Json calls = calls_of(protocol, body);
      if (protocol == Protocol::kChat) first = calls;
      EXPECT_EQ(calls, first);
      EXPECT_EQ(streamed_calls(protocol, out), first);
      EXPECT_EQ(calls.size(), said.record.calls.size());
    }
    with_calls += first.empty() ? 0 : 1;
  }
  EXPECT_GT(with_calls, 20U);
}

TEST(Corpus, ACallCutAnywhereIsNotGiven) {
  const std::string block =
      "Look:\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
      "string=\"true\">x < y</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  for (std::size_t bytes = 7; bytes < block.size(); ++bytes) {
    const Said said = say(block.substr(0, bytes), plain(), true);
    EXPECT_TRUE(said.record.calls.empty()) << bytes;
    EXPECT_EQ(said.record.text.substr(0, 5), "Look:") << bytes;
    EXPECT_EQ(said.record.text.find("DSML"), std::string::npos) << bytes;
    EXPECT_EQ(said.outcome.finish, Finish::kLength);
  }
}

// --- the replay memory ---

TEST(ReplayMemory, GivesABlockToItsOwnIdsAndNamespace) {
  ReplayMemory memory(3, 1000);
  memory.remember("a", {"1", "2"}, {"BLOCK", "thoughts"});
  const auto applied = [&](std::string_view space, std::vector<std::string> ids) {
    std::vector<chat::Message> messages(1);
    for (std::string& id : ids)
      messages[0].tool_calls.push_back({std::move(id), "f", "{}"});
    memory.apply(space, messages);
    return messages[0].exact_tool_block;
  };
  EXPECT_EQ(applied("a", {"1", "2"}), "BLOCK");
  EXPECT_EQ(applied("b", {"1", "2"}), "");
  EXPECT_EQ(applied("a", {"1"}), "");
  EXPECT_EQ(applied("a", {"2", "1"}), "");
  memory.remember("a", {"3", "4"}, {"NEXT", ""});  // four ids are too many: the oldest block goes
  EXPECT_EQ(applied("a", {"1", "2"}), "");
  EXPECT_EQ(applied("a", {"3", "4"}), "NEXT");
}

}  // namespace
}  // namespace ds4::server
