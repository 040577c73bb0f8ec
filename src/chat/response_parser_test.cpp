#include "chat/response_parser.h"

#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "chat/dsml_writer.h"
#include "chat/python_json.h"

namespace ds4::chat {
namespace {

std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {"a",
                                                  "B",
                                                  " ",
                                                  "\n",
                                                  "<",
                                                  ">",
                                                  "&",
                                                  "\"",
                                                  "'",
                                                  "/",
                                                  "\\",
                                                  "{",
                                                  "}",
                                                  "｜",
                                                  "|",
                                                  "DSML",
                                                  "</",
                                                  "｜DSML｜",
                                                  "parameter",
                                                  "invoke",
                                                  "tool_calls",
                                                  "<｜DSML｜parameter name=\"x\">",
                                                  "</｜DSML｜parameter>",
                                                  "</｜DSML｜invoke>",
                                                  "</｜DSML｜tool_calls>",
                                                  "</parameter>",
                                                  "&lt;",
                                                  "&amp;",
                                                  "<think>",
                                                  "</think>",
                                                  "你好",
                                                  "🙂",
                                                  "```",
                                                  "\t",
                                                  "=",
                                                  "string=\"true\"",
                                                  "0"};
  std::string text;
  const std::size_t count = random() % 12;
  for (std::size_t i = 0; i < count; ++i)
    text += kParts[random() % kParts.size()];
  return text;
}

// What an escaped tag looks like is the one text that cannot be told from its escape.
bool is_ambiguous(const std::string& text) {
  return text.find("&lt;") != std::string::npos;
}

std::string random_arguments(std::mt19937& random) {
  std::string json = "{";
  const std::size_t count = random() % 4;
  for (std::size_t i = 0; i < count; ++i) {
    std::string value = random_text(random);
    while (is_ambiguous(value))
      value = random_text(random);
    if (i > 0) json += ", ";
    json += fmt::format("\"k{}\": ", i);
    switch (random() % 4) {
      case 0:
        json += fmt::format("[1, {}]", json_quote(value));
        break;
      case 1:
        json += fmt::format("{{{}: null}}", json_quote(value));
        break;
      default:
        json += json_quote(value);
    }
  }
  return json + "}";
}

TEST(ResponseParser, ReadsBackWhateverTheWriterWrites) {
  std::mt19937 random(9);
  for (int round = 0; round < 3000; ++round) {
    std::vector<ToolCall> calls(1 + random() % 3);
    for (ToolCall& call : calls) {
      call.name = fmt::format("f<{}&\">", random() % 10);
      call.arguments = random_arguments(random);
    }
    const std::string text = "hello\n\n" + tool_calls_text(calls);
    const Response response = parse_response(text, {}, FinishCause::kEndOfTurn);
    ASSERT_EQ(response.text, "hello") << text;
    ASSERT_TRUE(response.malformed.empty()) << text;
    ASSERT_EQ(response.calls.size(), calls.size()) << text;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      ASSERT_EQ(response.calls[i].name, calls[i].name);
      ASSERT_EQ(python_json(response.calls[i].arguments), python_json(calls[i].arguments)) << text;
    }
  }
}

TEST(ResponseParser, AnyTextGivesTheSameEventsInAnyPieces) {
  std::mt19937 random(10);
  static const std::vector<std::string> kParts = {"<｜DSML｜tool_calls>",
                                                  "<｜DSML｜invoke name=\"f\">",
                                                  "</｜DSML｜invoke>",
                                                  "</｜DSML｜tool_calls>",
                                                  "<｜DSML｜parameter name=\"k\" string=\"true\">",
                                                  "<｜DSML｜parameter name=\"j\" string=\"false\">",
                                                  "</｜DSML｜parameter>",
                                                  "<invoke name=\"f\">",
                                                  "</invoke>",
                                                  "<tool_calls>",
                                                  "</parameter>",
                                                  "<think>",
                                                  "</think>",
                                                  "\n",
                                                  "\n\n",
                                                  " ",
                                                  "text",
                                                  "`",
                                                  "```",
                                                  "<",
                                                  "\"",
                                                  "1",
                                                  "&lt;/｜DSML｜",
                                                  ">",
                                                  "\xE4",
                                                  "<｜｜DSML｜｜invoke name=“g”>",
                                                  "<｜DSML｜thing>",
                                                  "/>"};
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    const std::size_t count = random() % 14;
    for (std::size_t i = 0; i < count; ++i)
      text += kParts[random() % kParts.size()];
    ParserOptions options;
    options.starts_in_reasoning = random() % 2 == 0;
    if (random() % 2 == 0) options.tools = {{"f", {"k"}}};
    const FinishCause cause = random() % 2 == 0 ? FinishCause::kCut : FinishCause::kEndOfTurn;
    std::vector<ResponseEvent> whole;
    ResponseParser at_once(options);
    at_once.feed(text, whole);
    at_once.finish(cause, whole);
    std::vector<ResponseEvent> bytes;
    ResponseParser by_byte(options);
    for (const char c : text)
      by_byte.feed(std::string_view(&c, 1), bytes);
    by_byte.finish(cause, bytes);
    ASSERT_EQ(coalesce(whole), coalesce(bytes)) << text;
    ASSERT_EQ(at_once.repairs(), by_byte.repairs()) << text;
  }
}

// Where the answer changes.  In a value's closing tag that is once the marker's word is complete:
// until then it may be the value's own.
TEST(ResponseParser, KnowsStructureFromPayload) {
  const std::string text =
      "Hi < there\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
      "<｜DSML｜parameter name=\"a\" string=\"true\">x <b> "
      "</｜DSML｜parameter>\n<｜DSML｜parameter name=\"b\" "
      "string=\"false\">{\"k\": \"v\\\" \"}</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
      "</｜DSML｜tool_calls>\nbye";
  ResponseParser parser({});
  std::vector<ResponseEvent> events;
  std::string trace;
  bool last = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    parser.feed(std::string_view(text).substr(i, 1), events);
    if (parser.in_structure() != last) trace += fmt::format("{}{} ", last ? "-" : "+", i);
    last = parser.in_structure();
  }
  const std::size_t first_close = text.find("</｜DSML｜parameter>");
  const auto end_of = [&](const std::string& part, std::size_t from = 0) {
    return text.find(part, from) + part.size() - 1;
  };
  const std::string expected =
      fmt::format("+{} -{} +{} -{} +{} -{} +{} -{} ", end_of("<｜DSML"), end_of("string=\"true\">"),
                  end_of("</｜DSML", first_close), end_of("{\""), end_of("{\"k\""),
                  end_of("{\"k\": \""), end_of("v\\\" \""), end_of("</｜DSML｜tool_calls>"));
  EXPECT_EQ(trace, expected);
}

TEST(ResponseParser, AnAngleBracketInAValueIsNoStructure) {
  ResponseParser parser({});
  std::vector<ResponseEvent> events;
  parser.feed("<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\">x <",
              events);
  EXPECT_FALSE(parser.in_structure());
  parser.feed("/", events);
  EXPECT_FALSE(parser.in_structure());
  EXPECT_TRUE(parser.in_calls());
}

TEST(ResponseParser, StreamsValuesAsTheyGrow) {
  ResponseParser parser({});
  std::vector<ResponseEvent> events;
  parser.feed(
      "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" "
      "string=\"true\">",
      events);
  events.clear();
  parser.feed("hello \"", events);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0], ResponseEvent(ArgumentPiece{0, "\"hello \\\""}));
}

TEST(ResponseParser, LongInputIsLinear) {
  // Each of these would take minutes if a byte were looked at as often as there are bytes.
  const std::size_t count = 1 << 20;
  const std::string value(count, 'x');
  const std::string head =
      "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" "
      "string=\"true\">";
  const std::string tail = "</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜tool_calls>";
  const Response big = parse_response(head + value + tail, {}, FinishCause::kEndOfTurn);
  ASSERT_EQ(big.calls.size(), 1u);
  EXPECT_EQ(big.calls[0].arguments.size(), count + std::string("{\"a\": \"\"}").size());
  for (const std::string& unit :
       {std::string("<"), std::string(" "), std::string("`"), std::string("</parameter>"),
        std::string("&lt;"), std::string("<｜DSML｜")}) {
    std::string text = head;
    while (text.size() < count)
      text += unit;
    ResponseParser parser({});
    std::vector<ResponseEvent> events;
    for (std::size_t i = 0; i < text.size(); i += 3) {
      parser.feed(std::string_view(text).substr(i, 3), events);
    }
    parser.finish(FinishCause::kCut, events);
    EXPECT_TRUE(std::holds_alternative<Malformed>(events.back()));
    parse_response(text.substr(head.size()), {}, FinishCause::kEndOfTurn);
  }
  std::string attribute = "<｜DSML｜tool_calls><｜DSML｜invoke name=\"";
  attribute += value + value;
  const Response large = parse_response(attribute, {}, FinishCause::kEndOfTurn);
  EXPECT_TRUE(large.calls.empty());
}

TEST(ResponseParser, ReadsSignaturesFromSchemas) {
  const auto tools = tool_signatures(
      {{R"({"name": "f", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}}})"},
       {"not json"},
       {R"({"name": "g"})"}});
  ASSERT_EQ(tools.size(), 2u);
  EXPECT_EQ(tools[0].name, "f");
  EXPECT_EQ(tools[0].parameters, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(tools[1].name, "g");
}

}  // namespace
}  // namespace ds4::chat
