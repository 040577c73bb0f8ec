// The small text forms: Python's JSON, the escapes, and arguments by their schema.
#include <gtest/gtest.h>

#include "chat/coerce.h"
#include "chat/escape.h"
#include "chat/python_json.h"

namespace ds4::chat {
namespace {

TEST(PythonJson, WritesWhatPythonWrites) {
  const std::pair<const char*, const char*> cases[] = {
      {"1e3", "1000.0"},
      {"1E+16", "1e+16"},
      {"123456789012345680.0", "1.2345678901234568e+17"},
      {"1234567890123456.0", "1234567890123456.0"},
      {"0.0001", "0.0001"},
      {"0.00001", "1e-05"},
      {"1.5e-7", "1.5e-07"},
      {"-2.50", "-2.5"},
      {"-0.0", "-0.0"},
      {"0.1", "0.1"},
      {"5e-324", "5e-324"},
      {"123456789012345678901234567890", "123456789012345678901234567890"},
      {"-7", "-7"},
      {"[1,2 ,{\"b\":1,\"a\":[]}]", "[1, 2, {\"b\": 1, \"a\": []}]"},
      {"{ }", "{}"},
      {"\"\\u00e9\\/\\u0001\\n\\ud83d\\ude00\"", "\"é/\\u0001\\n😀\""},
      {" true ", "true"},
  };
  for (const auto& [json, expected] : cases)
    EXPECT_EQ(python_json(json), expected);
  for (const char* json : {"", "{", "[1,]", "nul", "1 2", "{\"a\" 1}", "\"\xFF\"", "NaN"}) {
    EXPECT_FALSE(python_json(json).has_value()) << json;
  }
  EXPECT_FALSE(python_json(std::string_view("0\0", 2)).has_value());
  EXPECT_FALSE(split_object(std::string_view("{}\0", 3)).has_value());
  EXPECT_TRUE(python_json(std::string(128, '[') + std::string(128, ']')).has_value());
  EXPECT_FALSE(python_json(std::string(129, '[') + std::string(129, ']')).has_value());
}

TEST(PythonJson, SplitsObjects) {
  const auto members = split_object(R"( {"s": "a\"b", "n": [1,2], "o": {"x": "y"}, "s": 5} )");
  ASSERT_TRUE(members.has_value());
  ASSERT_EQ(members->size(), 3u);
  EXPECT_EQ((*members)[0].key, "s");  // the last value at the first place
  EXPECT_FALSE((*members)[0].is_string);
  EXPECT_EQ((*members)[0].value, "5");
  EXPECT_EQ((*members)[1].value, "[1, 2]");
  EXPECT_EQ((*members)[2].value, R"({"x": "y"})");
  for (const char* json : {"[]", "1", "{\"a\": }", "\"{}\"", ""}) {
    EXPECT_FALSE(split_object(json).has_value()) << json;
  }
}

TEST(Escape, AttributesAndPayloads) {
  EXPECT_EQ(escape_attribute("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c'");
  EXPECT_EQ(unescape_attribute("a&lt;b&gt;&amp;lt;&quot;&apos;&nbsp;&"), "a<b>&lt;\"'&nbsp;&");
  EXPECT_EQ(escape_payload("a </b> </｜DSML｜parameter> <|DSML|invoke name=\"x\"> &lt;"),
            "a </b> &lt;/｜DSML｜parameter> &lt;|DSML|invoke name=\"x\"> &lt;");
  EXPECT_EQ(unescape_payload("a &lt;b> &lt;/｜DSML｜parameter> &lt;"),
            "a &lt;b> </｜DSML｜parameter> &lt;");
  EXPECT_EQ(escape_json_payload("[\"</｜DSML｜parameter>\"]"), "[\"\\u003c/｜DSML｜parameter>\"]");
  EXPECT_EQ(escape_tool_result("</tool_result> <tool_result> </tool_resul"),
            "&lt;/tool_result> <tool_result> </tool_resul");
}

constexpr const char* kSchema = R"({
  "name": "f",
  "parameters": {
    "type": "object",
    "properties": {
      "s": {"type": "string"}, "n": {"type": "integer"}, "x": {"type": "number"},
      "b": {"type": "boolean"}, "l": {"type": "array"}, "o": {"type": "object"},
      "u": {"type": ["string", "null"]}, "any": {}, "e": {"enum": ["a", "b"], "type": "string"},
      "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    },
    "required": ["s"]
  }
})";

TEST(Coerce, ConvertsWhereOneReadingIsPossible) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"s": "x", "n": "5"})", R"({"s": "x", "n": 5})"},
      {R"({"s": "x", "n": 5.0})", R"({"s": "x", "n": 5})"},
      {R"({"s": "x", "n": "5.0"})", R"({"s": "x", "n": 5})"},
      {R"({"s": "x", "x": "1e3"})", R"({"s": "x", "x": 1000.0})"},
      {R"({"s": 5})", R"({"s": "5"})"},
      {R"({"s": true})", R"({"s": "true"})"},
      {R"({"s": "x", "b": "True"})", R"({"s": "x", "b": true})"},
      {R"({"s": "x", "b": "false"})", R"({"s": "x", "b": false})"},
      {R"({"s": "x", "l": "[1, \"a\"]"})", R"({"s": "x", "l": [1, "a"]})"},
      {R"({"s": "x", "o": "{\"z\": 1, \"a\": 2}"})", R"({"s": "x", "o": {"z": 1, "a": 2}})"},
      {R"({"s": "x", "n": null, "l": "", "b": {}})", R"({"s": "x"})"},
      {R"({"s": "x", "u": null, "any": [1], "either": "5", "other": 1})",
       R"({"s": "x", "u": null, "any": [1], "either": "5", "other": 1})"},
  };
  for (const auto& [arguments, expected] : cases) {
    const CoercedArguments result = coerce_arguments(arguments, kSchema);
    EXPECT_EQ(result.arguments, expected);
    EXPECT_TRUE(result.problems.empty()) << arguments << ": " << result.problems.front();
  }
  EXPECT_EQ(coerce_arguments(R"({"s": "x", "n": "5"})", kSchema).changed,
            std::vector<std::string>{"n"});
}

TEST(Coerce, ReportsWhatTheModelMustMend) {
  for (const char* arguments :
       {R"({})", R"({"s": null})", R"({"s": "x", "n": "five"})", R"({"s": "x", "n": 5.5})",
        R"({"s": ["x"]})", R"({"s": "x", "l": "not a list"})", "not json", "[1]"}) {
    EXPECT_EQ(coerce_arguments(arguments, kSchema).problems.size(), 1u) << arguments;
  }
  EXPECT_TRUE(coerce_arguments(R"({"a": 1})", "not a schema").problems.empty());
}

}  // namespace
}  // namespace ds4::chat
