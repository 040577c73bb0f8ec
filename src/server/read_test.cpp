// The readers of every protocol: what they take, and what they refuse with which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/ask.h"
#include "server/json_read.h"

namespace ds4::server {
namespace {

using testing::HasSubstr;

const AskDefaults kDefaults{.model = "m", .think = chat::ThinkMode::kHigh, .sampling = {}};

template <class Read>
std::string refusal(Read read, const std::string& body) {
  try {
    read(body, kDefaults);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << body;
    return error.what();
  }
  return "accepted";
}

TEST(Json, RefusesWhatIsNotOneStrictObject) {
  const auto refuse = [](const std::string& text) {
    try {
      parse_body(text);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refuse(""), HasSubstr("no JSON"));
  EXPECT_THAT(refuse("[1]"), HasSubstr("must be a JSON object"));
  EXPECT_THAT(refuse("{\"a\":1,\"a\":2}"), HasSubstr("appears twice"));
  EXPECT_THAT(refuse("{\"x\":{\"a\":1,\"b\":2,\"a\":3}}"), HasSubstr("appears twice"));
  EXPECT_THAT(refuse("{\"a\":1e999}"),
              testing::AnyOf(HasSubstr("too large"), HasSubstr("no JSON")));
  EXPECT_THAT(refuse("{\"a\":NaN}"), HasSubstr("no JSON"));
  EXPECT_THAT(refuse("{\"a\":\"\xFF\"}"), HasSubstr("no JSON"));
  EXPECT_THAT(refuse("{\"a\":1} x"), HasSubstr("no JSON"));
  EXPECT_THAT(refuse("{\"a\":" + std::string(10000, '[') + std::string(10000, ']') + "}"),
              HasSubstr("deeper"));
  std::string many = "{\"a\":[0";
  for (std::size_t i = 0; i < kJsonValuesMax; ++i)
    many += ",0";
  EXPECT_THAT(refuse(many + "]}"), HasSubstr("more than 1000000 values"));
  EXPECT_EQ(refuse("{\"a\":-0.0,\"b\":[{\"a\":1},{\"a\":2}]}"), "accepted");
}

TEST(Read, ANameOfTheModelIsShort) {
  const std::string body =
      R"({"messages":[{"role":"user","content":"x"}],"model":")" + std::string(300, 'm') + R"("})";
  EXPECT_THAT(refusal(read_chat, body), HasSubstr("model: at most"));
  EXPECT_THAT(refusal(read_messages_to_count, body), HasSubstr("model: at most"));
}

TEST(ReadChat, TakesAConversationWithTools) {
  const Ask ask = read_chat(R"({
    "model": "x", "stream": true, "stream_options": {"include_usage": true},
    "temperature": 0, "max_completion_tokens": 7, "stop": ["a", "b"], "seed": 3,
    "reasoning_effort": "none",
    "messages": [
      {"role": "developer", "content": "be kind"},
      {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
      {"role": "assistant", "content": null, "reasoning_content": "hm",
       "tool_calls": [{"id": "c1", "type": "function",
                       "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
      {"role": "tool", "tool_call_id": "c1", "content": "done"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
  })",
                            kDefaults);
  EXPECT_TRUE(ask.streams);
  EXPECT_TRUE(ask.include_usage);
  EXPECT_EQ(ask.sampling.temperature, 0);
  EXPECT_EQ(ask.tokens_max, 7U);
  EXPECT_EQ(ask.stops, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(ask.seed, 3U);
  EXPECT_EQ(ask.think, chat::ThinkMode::kNone);
  ASSERT_EQ(ask.messages.size(), 5U);
  EXPECT_EQ(ask.messages[0].tools.size(), 1U);
  EXPECT_EQ(ask.messages[1].content, "\n\nbe kind");
  EXPECT_EQ(ask.messages[2].content, "one\n\ntwo");
  EXPECT_EQ(ask.messages[3].reasoning, "hm");
  EXPECT_EQ(ask.messages[3].tool_calls[0].arguments, "{\"a\": 1}");
  EXPECT_EQ(ask.messages[4].tool_call_id, "c1");
}

TEST(ReadChat, RefusesByName) {
  const auto body = [](const std::string& more) {
    return "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]," + more + "}";
  };
  for (const char* field : {"\"n\":2", "\"frequency_penalty\":0.5", "\"logit_bias\":{\"1\":2}",
                            "\"modalities\":[\"audio\"]", "\"made_up\":1"}) {
    EXPECT_THAT(refusal(read_chat, body(field)), HasSubstr("not supported")) << field;
  }
  for (const char* field : {"\"n\":1", "\"frequency_penalty\":0", "\"user\":\"me\"",
                            "\"metadata\":{}", "\"temperature\":null"}) {
    EXPECT_EQ(refusal(read_chat, body(field)), "accepted") << field;
  }
  EXPECT_THAT(refusal(read_chat, body("\"temperature\":-1")), HasSubstr("temperature"));
  EXPECT_THAT(refusal(read_chat, body("\"max_tokens\":0")), HasSubstr("max_tokens"));
  EXPECT_THAT(refusal(read_chat, body("\"model\":5")), HasSubstr("model: expected a string"));
  EXPECT_THAT(refusal(read_chat, body("\"top_logprobs\":5")), HasSubstr("needs logprobs"));
  EXPECT_THAT(refusal(read_chat, body("\"tool_choice\":\"required\"")), HasSubstr("tool_choice"));
  EXPECT_THAT(refusal(read_chat, "{\"messages\":[]}"), HasSubstr("messages"));
  EXPECT_THAT(refusal(read_chat, R"({"messages":[{"role":"user","content":
              [{"type":"image_url","image_url":{"url":"http://x"}}]}]})"),
              HasSubstr("images"));
}

TEST(ReadMessages, TakesBlocksAndDropsTheVolatileHeader) {
  const Ask ask = read_messages(R"({
    "model": "claude", "max_tokens": 5, "system": [
      {"type": "text", "text": "x-anthropic-billing-header: cch=1"},
      {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "enabled", "budget_tokens": 99}, "metadata": {"user_id": "u"},
    "messages": [
      {"role": "user", "content": "hi"},
      {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "look"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}}]},
      {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r"}]},
        {"type": "text", "text": "and?"}]}],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}
  })",
                                kDefaults);
  ASSERT_EQ(ask.messages.size(), 6U);
  EXPECT_EQ(ask.messages[1].content, "\n\nbe kind");
  EXPECT_EQ(ask.messages[3].reasoning, "hm");
  EXPECT_EQ(ask.messages[3].tool_calls[0].arguments, "{\"b\":1,\"a\":2}");
  EXPECT_EQ(ask.messages[4].role, chat::Role::kTool);
  EXPECT_EQ(ask.messages[5].content, "and?");
  EXPECT_EQ(ask.think_tokens_max, 99U);
  EXPECT_THAT(refusal(read_messages, R"({"messages":[{"role":"user","content":"x"}]})"),
              HasSubstr("max_tokens"));
  EXPECT_THAT(refusal(read_messages, R"({"max_tokens":1,"messages":[{"role":"user","content":
              [{"type":"image","source":{}}]}]})"),
              HasSubstr("images"));
}

TEST(ReadResponses, TakesItemsAndRefusesServerState) {
  const Ask ask = read_responses(R"({
    "model": "x", "instructions": "be kind", "store": false, "include": [], "stream": true,
    "reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 9,
    "input": [
      {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
      {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
      {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "c1", "output": "done"}],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}},
              {"type": "custom", "name": "apply_patch", "description": "d"},
              {"type": "namespace", "name": "mcp__", "tools": [{"type": "function", "name": "g"}]}]
  })",
                                 kDefaults);
  ASSERT_EQ(ask.tools.size(), 3U);
  EXPECT_TRUE(ask.tools[1].is_custom);
  EXPECT_EQ(ask.tools[2].name, "mcp__g");
  EXPECT_EQ(ask.tools[2].wire_name, "g");
  ASSERT_EQ(ask.messages.size(), 5U);
  EXPECT_EQ(ask.messages[3].reasoning, "hm");
  EXPECT_EQ(ask.messages[3].tool_calls[0].id, "c1");
  EXPECT_TRUE(ask.shows_reasoning);
  EXPECT_EQ(ask.think, chat::ThinkMode::kLow);
  EXPECT_THAT(refusal(read_responses, R"({"input":"x","previous_response_id":"r"})"),
              HasSubstr("replay the full input"));
  EXPECT_THAT(refusal(read_responses, R"({"input":[{"type":"function_call_output",
              "call_id":"zz","output":"x"}]})"),
              HasSubstr("replay the full history"));
  EXPECT_THAT(refusal(read_responses, R"({"input":[{"type":"computer_call"}]})"),
              HasSubstr("not supported"));
}

// Which tools may be called, after a choice; "!" in front when one must be.
std::string callable(const Ask& ask) {
  std::string names = ask.tool_choice == ToolChoice::kRequired ? "!" : "";
  for (const OfferedTool& tool : ask.tools)
    if (tool.may_be_called) names += tool.name;
  return names;
}

TEST(ReadToolChoice, OfEveryProtocol) {
  const auto chat =
      [](const std::string& choice) {
        return callable(read_chat(R"({"messages":[{"role":"user","content":"x"}],"tools":[
        {"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}],
        "tool_choice":)" + choice + "}",
                                  kDefaults));
      };
  EXPECT_EQ(chat("\"auto\""), "ab");
  EXPECT_EQ(chat("\"none\""), "");
  EXPECT_EQ(chat("\"required\""), "!ab");
  EXPECT_EQ(chat(R"({"type":"function","function":{"name":"b"}})"), "!b");
  EXPECT_EQ(chat(R"({"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":
      [{"type":"function","function":{"name":"a"}}]}})"),
            "a");
  const auto responses = [](const std::string& choice) {
    return callable(read_responses(R"({"input":"x","tools":[{"type":"function","name":"a"},
        {"type":"custom","name":"b"}],"tool_choice":)" +
                                       choice + "}",
                                   kDefaults));
  };
  EXPECT_EQ(responses("\"required\""), "!ab");
  EXPECT_EQ(responses(R"({"type":"function","name":"a"})"), "!a");
  EXPECT_EQ(responses(R"({"type":"custom","name":"b"})"), "!b");
  EXPECT_EQ(responses(R"({"type":"allowed_tools","mode":"required","tools":
      [{"type":"function","name":"a"}]})"),
            "!a");
  const auto messages = [](const std::string& choice) {
    return callable(read_messages(R"({"max_tokens":1,"messages":[{"role":"user","content":"x"}],
        "tools":[{"name":"a","input_schema":{}},{"name":"b","input_schema":{}}],"tool_choice":)" +
                                      choice + "}",
                                  kDefaults));
  };
  EXPECT_EQ(messages(R"({"type":"any"})"), "!ab");
  EXPECT_EQ(messages(R"({"type":"tool","name":"a"})"), "!a");
  EXPECT_EQ(messages(R"({"type":"none"})"), "");
}

TEST(Read, OneRuleForRolesAndCallsInBothOpenAiProtocols) {
  const auto chat = [](const std::string& more) {
    return R"({"messages":[{"role":"user","content":"x"}])" + more + "}";
  };
  const auto responses = [](const std::string& more) { return R"({"input":"x")" + more + "}"; };
  for (const char* more : {"", R"(,"parallel_tool_calls":true)"}) {
    EXPECT_FALSE(read_chat(chat(more), kDefaults).one_call_at_most);
    EXPECT_FALSE(read_responses(responses(more), kDefaults).one_call_at_most);
  }
  const std::string one = R"(,"parallel_tool_calls":false)";
  EXPECT_TRUE(read_chat(chat(one), kDefaults).one_call_at_most);
  EXPECT_TRUE(read_responses(responses(one), kDefaults).one_call_at_most);
  const std::string item = R"([{"role":"bishop","content":"x"}]})";
  EXPECT_EQ(refusal(read_chat, R"({"messages":)" + item),
            "messages[0].role: \"bishop\" is no role");
  EXPECT_EQ(refusal(read_responses, R"({"input":)" + item), "input[0].role: \"bishop\" is no role");
  EXPECT_EQ(refusal(read_chat, R"({"messages":[{"role":"user"}]})"),
            "messages[0].content: is missing");
  EXPECT_EQ(refusal(read_responses, R"({"input":[{"role":"user"}]})"),
            "input[0].content: is missing");
  EXPECT_THAT(refusal(read_chat, chat(R"(,"logprobs":true,"top_logprobs":21)")),
              HasSubstr("top_logprobs"));
  EXPECT_THAT(refusal(read_responses, responses(R"(,"top_logprobs":21)")),
              HasSubstr("top_logprobs"));
}

TEST(ReadFormat, NamesTheSchemasPlace) {
  const Ask chat = read_chat(R"({"messages":[{"role":"user","content":"x"}],"response_format":
      {"type":"json_schema","json_schema":{"name":"n","schema":{"type":"null"}}}})",
                             kDefaults);
  EXPECT_EQ(chat.format.where, "response_format.json_schema.schema");
  EXPECT_EQ(chat.format.schema, R"({"type":"null"})");
  const Ask responses = read_responses(
      R"({"input":"x","text":{"format":{"type":"json_schema","schema":{}}}})", kDefaults);
  EXPECT_EQ(responses.format.where, "text.format.schema");
  EXPECT_EQ(read_chat(R"({"messages":[{"role":"user","content":"x"}],
      "response_format":{"type":"json_object"}})",
                      kDefaults)
                .format.kind,
            FormatKind::kJsonObject);
}

TEST(ReadResponses, FoundToolsAreOnOffer) {
  const Ask ask = read_responses(R"({"input":[
      {"role":"user","content":"x"},
      {"type":"tool_search_call","call_id":"s1","arguments":{"query":"q"}},
      {"type":"tool_search_output","call_id":"s1","tools":[{"type":"function","name":"found"}]}],
      "tools":[{"type":"tool_search","execution":"client","description":"d"}]})",
                                 kDefaults);
  ASSERT_EQ(ask.tools.size(), 2U);
  EXPECT_TRUE(ask.tools[0].is_search);
  EXPECT_EQ(ask.tools[1].name, "found");
  EXPECT_EQ(ask.messages.back().content, "Tools found: found");
}

TEST(ReadCompletions, TakesOnePrompt) {
  const Ask ask = read_completions(R"({"prompt":["one"],"max_tokens":3})", kDefaults);
  EXPECT_EQ(ask.messages.back().content, "one");
  EXPECT_THAT(refusal(read_completions, R"({"prompt":["a","b"]})"), HasSubstr("prompt"));
  EXPECT_THAT(refusal(read_completions, R"({"prompt":[1,2]})"), HasSubstr("prompt"));
}

}  // namespace
}  // namespace ds4::server
